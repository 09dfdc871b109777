// Package weir is for writing a Weir module in Go: a WebAssembly file that Weir
// runs over batches of records. It needs nothing but the standard toolchain
// (Go 1.24 or newer), and stays within what TinyGo can compile:
//
//	package main
//
//	import "github.com/weirhq/weir/sdk/guest/go/weir"
//
//	var _ = weir.Register(weir.Module{Record: onRecord})
//
//	func main() {}
//
//	func onRecord(r *weir.Record) {
//		f, ok := weir.Find(r.Data(), "temp")
//		v, isNumber := weir.Number(f.Value)
//		switch {
//		case !ok || !isNumber:
//			r.Fail(1, "no number in field temp")
//		case v < 25:
//			r.Drop()
//		}
//	}
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o module.wasm .
//
// What a handler may say about a record (nothing said = pass it on unchanged):
//
//	Replace       pass on other data in its place
//	Forward       pass it on unchanged, to a chosen output
//	Emit          one more record, to any output; may be called many times
//	SetKey        choose the partition key of what Replace and Forward pass on
//	PartitionKey  set the keys for a delivery stream's dynamic partitioning
//	Drop          pass nothing on; this is not a failure
//	Fail          processing failed: on_error of the manifest decides
//	Retry         not now: run the batch again later
//
// A record that emitted is replaced by what it emitted; call Forward too to keep
// the original.
//
// Nothing is copied on the way in: Data and Key of a Record lie in the input
// region, are valid until the batch ends and must not be kept. Bytes given to
// Replace, Emit and so on must stay as they are until the batch ends: use the
// input itself, or a slice from Buffer, which costs no allocation. A module that
// allocates per record works, but spends its time in the garbage collector.
//
// The package owns the module's side of the contract weir/1 (wasm/abi/ABI.md).
// It starts no goroutines, keeps nothing between batches but its buffers, and
// never calls the host unless the module does.
package weir
