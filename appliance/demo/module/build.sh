#!/usr/bin/env bash
# Builds module.wasm, which is committed so that the demo needs nothing but Go.
# sdk/guest/install.sh installs the compiler.
set -euo pipefail
cd "$(dirname "$0")"
guest=../../../sdk/guest
. "$guest/toolchains.sh"
find_clang || { echo "build: no clang with a wasm-ld of the same version" >&2; exit 3; }
"$clang" $(cat "$guest/c/flags") -I"$guest/c" -o "${1:-module.wasm}" module.c
