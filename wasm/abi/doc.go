// Package abi is the contract between Weir and a guest module, "weir/1": the
// names a module exports and imports, the bytes of the input region it reads
// and of the result it answers with, and the codes that cross the boundary.
// ABI.md in this folder is the same contract for people who write guests.
//
// It owns the encoding of a batch into a guest's linear memory and the
// decoding of what the guest leaves there. Nothing a guest writes is trusted:
// every pointer, length, count and index is checked against the memory it is
// said to lie in before a byte of it is read.
//
// It never runs a guest, never allocates per record, and knows neither the
// runtime nor the storage behind a host call.
//
// All integers are little-endian. Pointers are u32 and below 2^31.
//
//	input region          64-byte header | count × 32-byte index | data
//	result header         24 bytes, anywhere in guest memory
//	result table          count × 8 bytes
//	output table          outputs × 48 bytes
package abi
