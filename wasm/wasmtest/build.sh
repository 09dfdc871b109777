#!/bin/sh
# build.sh compiles the guests of this folder into modules/. The modules are
# checked in, so tests need no C compiler; run this after changing a guest.
# Needs clang, wasm-ld and wasi-libc (Debian: clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32).
set -eu
cd "$(dirname "$0")/guests"
mkdir -p ../modules
CC=${CC:-clang-19}
for g in filter pass moods counter puts calls parts; do
  "$CC" --target=wasm32 -O3 -fno-builtin-memcpy -mbulk-memory -nostdlib -Wl,--no-entry -Wl,-z,stack-size=65536 -Wl,--strip-all \
    -fuse-ld=lld -o "../modules/$g.wasm" "$g.c"
done
for g in lines sorted; do
  "$CC" --target=wasm32-wasi -O2 --sysroot=/usr -Wl,--strip-all -o "../modules/$g.wasm" "$g.c"
done
ls -l ../modules
