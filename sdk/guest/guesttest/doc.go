// Package guesttest builds and runs the example modules of the guest SDKs: every
// example in every language against the same test vectors, on wazero's compiler
// and interpreter, and compares what the languages answer to input that nobody
// wrote a vector for.
//
// It owns a minimal host of weir/1 on plain wazero (Host), which shows that a
// guest keeps to wasm/abi/ABI.md without the box's own machinery around it. It
// is no way to run users' modules: it meters and limits nothing.
package guesttest
