// Package wasm is the folder of everything about users' WebAssembly modules; the
// code is in the packages below.
//
// It owns the contract with a module (abi), the check and rewriting of an upload
// (meter), the runtime with its limits (host), the catalogue of versions (module)
// and what runs a module over records (transform). It never reads the log, never
// speaks HTTP and knows no configuration: what it needs of storage it declares as
// small interfaces, and appliance connects them.
package wasm
