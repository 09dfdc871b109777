# toolchains.sh: finds the toolchains; sourced by install.sh and build.sh.

# find_clang sets clang to a clang that has a wasm-ld of its version.
find_clang() {
	local v
	for v in "" -19 -18 -17 -16 -15 -14; do
		if command -v "clang$v" >/dev/null && command -v "wasm-ld$v" >/dev/null; then
			clang=$(command -v "clang$v")
			return 0
		fi
	done
	return 1
}

# find_rust sets rustc and cargo to a pair whose rustc has the target's standard library.
find_rust() {
	local dir root
	for dir in "$(dirname "$(command -v rustc || echo /usr/bin/rustc)")" /usr/bin; do
		[ -x "$dir/rustc" ] && [ -x "$dir/cargo" ] || continue
		root=$("$dir/rustc" --print sysroot 2>/dev/null) || continue
		if compgen -G "$root/lib/rustlib/wasm32-unknown-unknown/lib/libcore-*.rlib" >/dev/null; then
			rustc=$dir/rustc cargo=$dir/cargo
			return 0
		fi
	done
	return 1
}
