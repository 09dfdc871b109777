#!/usr/bin/env bash
# build.sh [LANGUAGE ...]: build the examples of the guest SDKs into dist/LANGUAGE/EXAMPLE.wasm, each with its manifest
# beside it. Without arguments all languages: c go rust assemblyscript. A language whose files are older than what was
# built from them is left alone. install.sh installs the toolchains.
set -euo pipefail
cd "$(dirname "$0")"
. ./toolchains.sh
examples=(filter rename downsample anomaly router)
guests=("${examples[@]}" probe) # probe makes every call of its SDK; the tests run it

missing() {
	echo "build: $1: no $2" >&2
	echo "Try: $PWD/install.sh" >&2
	exit 3
}

build_c() {
	find_clang || missing c "clang with a wasm-ld of the same version"
	local e
	for e in "${guests[@]}"; do
		"$clang" @c/flags -Ic -o "dist/c/$e.wasm" "c/examples/$e.c"
	done
}

build_go() {
	command -v go >/dev/null || missing go "go on PATH"
	local e
	for e in "${guests[@]}"; do
		(cd go && CGO_ENABLED=0 GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags="-s -w" -buildmode=c-shared \
			-o "../dist/go/$e.wasm" "./examples/$e")
	done
}

build_rust() {
	find_rust || missing rust "rustc with the target wasm32-unknown-unknown"
	(cd rust && RUSTC=$rustc CARGO_TARGET_DIR=target "$cargo" build --quiet --release --offline --locked)
	local e
	for e in "${guests[@]}"; do
		cp "rust/target/wasm32-unknown-unknown/release/$e.wasm" "dist/rust/$e.wasm"
	done
}

build_assemblyscript() {
	[ -x assemblyscript/node_modules/.bin/asc ] || missing assemblyscript "AssemblyScript compiler"
	local e
	for e in "${guests[@]}"; do
		(cd assemblyscript && node_modules/.bin/asc "examples/$e.ts" --config asconfig.json -o "../dist/assemblyscript/$e.wasm")
	done
}

# newer lists a language's files that are younger than what was built from them.
newer() {
	find "$1" vectors build.sh \( -name node_modules -o -name target \) -prune -o -type f -newer "dist/$1/.built" -print
}

mkdir -p dist
exec 9>dist/.lock
flock 9 # the tests of several packages may ask for a build at the same time
languages=("$@")
[ $# -gt 0 ] || languages=(c go rust assemblyscript)
for language in "${languages[@]}"; do
	case $language in
	c | go | rust | assemblyscript) ;;
	*)
		echo "build: $language: expecting c, go, rust or assemblyscript" >&2
		exit 2
		;;
	esac
	mkdir -p "dist/$language"
	if [ -e "dist/$language/.built" ] && [ -z "$(newer "$language")" ]; then
		echo "           dist/$language is up to date"
		continue
	fi
	"build_$language"
	for e in "${guests[@]}"; do
		cp "vectors/$e.yaml" "dist/$language/$e.yaml"
		printf '%9d  dist/%s/%s.wasm\n' "$(stat -c %s "dist/$language/$e.wasm")" "$language" "$e"
	done
	touch "dist/$language/.built"
done
