#!/usr/bin/env bash
# install.sh: install the toolchains that build the guest SDKs' examples, on Debian 12 or newer.
# What is there already is left alone, so it is quick the second time.
#
#   C               clang-14, lld-14        (any clang from 14 on will do; build.sh finds it)
#   Rust            rustc, cargo, libstd-rust-dev-wasm32   (unless a rustc with the target wasm32-unknown-unknown is there)
#   AssemblyScript  npm packages of assemblyscript/package-lock.json, under assemblyscript/node_modules
#   Go              the Go toolchain itself
set -euo pipefail
cd "$(dirname "$0")"
. ./toolchains.sh
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

want=()
find_clang || want+=(clang-14 lld-14)
find_rust || want+=(rustc cargo libstd-rust-dev-wasm32 lld-14)
if [ ${#want[@]} -gt 0 ]; then
	echo "install: apt-get install ${want[*]}"
	as_root apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}" >/dev/null
fi
find_clang || { echo "install: no clang and wasm-ld after installing them" >&2; exit 3; }
find_rust || { echo "install: no rustc with the target wasm32-unknown-unknown after installing it" >&2; exit 3; }
command -v go >/dev/null || { echo "install: go is not on PATH; expecting Go 1.24 or newer" >&2; exit 3; }
command -v npm >/dev/null || { echo "install: npm is not on PATH; expecting Node.js 18 or newer" >&2; exit 3; }
if ! cmp -s assemblyscript/package-lock.json assemblyscript/node_modules/.from-lock; then
	(cd assemblyscript && npm ci --no-audit --no-fund --loglevel=error)
	cp assemblyscript/package-lock.json assemblyscript/node_modules/.from-lock
fi
echo "install: $clang, $rustc, asc $(cd assemblyscript && node_modules/.bin/asc --version | cut -d' ' -f2), $(go env GOVERSION)"
