//go:build wasm

package weir

import "unsafe"

// Module is what a module does. Record is needed, the others are optional.
type Module struct {
	// Record handles one record.
	Record func(r *Record)
	// Configure reads the manifest's config, a JSON object, before the first
	// batch. The slice is gone when it returns. An error refuses the config and
	// is written to the module's log.
	Configure func(json []byte) error
	// Tick is a consumer's timer; the manifest says how often it runs.
	Tick func(nowMS int64)
	// Migrate brings state that an older state_version wrote up to this module's.
	Migrate func(from uint32) error
}

// Register makes m the module. Call it once, in a package-level declaration:
// var _ = weir.Register(weir.Module{...}). The value returned means nothing.
func Register(m Module) struct{} {
	module.Module = m
	return struct{}{}
}

const (
	chunkSize   = 64 << 10
	resultMagic = 0x31525257
)

// Buffer returns an empty slice with room for n bytes that lives until the batch
// ends, for data to be appended to and given to Replace or Emit. It allocates
// only until the module has seen its largest batch. Appending more than n bytes
// works and allocates.
func Buffer(n int) []byte {
	if n > cap(module.text)-len(module.text) {
		nextChunk(n)
	}
	at := len(module.text)
	module.text = module.text[:at+n]
	return module.text[at : at : at+n]
}

// nextChunk makes module.text a chunk with room for n bytes.
func nextChunk(n int) {
	for module.chunk < len(module.chunks) {
		c := module.chunks[module.chunk]
		module.chunk++
		if cap(c) >= n {
			module.text = c
			return
		}
	}
	module.text = make([]byte, 0, max(n, chunkSize))
	module.chunks = append(module.chunks, module.text)
	module.chunk = len(module.chunks)
}

func begin() {
	module.outs, module.alive = module.outs[:0], module.alive[:0]
	module.text, module.chunk = nil, 0
}

func end(allUnchanged bool, outcomes []outcome) int64 {
	module.batch = nil
	flags := uint32(1)
	if allUnchanged {
		flags |= 1 << 16
	}
	module.result = [6]uint32{
		resultMagic, flags, uint32(uintptr(unsafe.Pointer(unsafe.SliceData(outcomes)))),
		uint32(uintptr(unsafe.Pointer(unsafe.SliceData(module.outs)))), uint32(len(module.outs)),
	}
	return int64(uintptr(unsafe.Pointer(&module.result)))
}

//go:wasmexport weir_abi_1
func abi1() {}

//go:wasmexport weir_buffer
func buffer(least uint32) uint32 {
	if uint32(len(module.region)) < least {
		// uint64 elements, because the region must be 8-aligned
		words := make([]uint64, max(least+least/4, chunkSize)/8)
		module.region = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	}
	return address(module.region)
}

//go:wasmexport weir_configure
func configure(ptr, n uint32) int32 {
	json := module.region[:n]
	if module.Configure == nil {
		if string(json) == "{}" {
			return 0
		}
		Log(LevelError, "the manifest has a config, but this module reads none")
		return int32(ErrInvalid)
	}
	return answer(module.Configure(json))
}

//go:wasmexport weir_migrate
func migrate(from uint32) int32 {
	if module.Migrate == nil {
		Log(LevelError, "this module can't migrate its state")
		return int32(ErrInvalid)
	}
	return answer(module.Migrate(from))
}

func answer(err error) int32 {
	if err == nil {
		return 0
	}
	Log(LevelError, err.Error())
	return int32(ErrInvalid)
}

//go:wasmexport weir_tick
func tick(nowMS int64) int64 {
	begin()
	if module.Tick != nil {
		module.Tick(nowMS)
	}
	return end(false, nil)
}

//go:wasmexport weir_process
func process(ptr, n uint32) int64 {
	region, r := module.region[:n], &module.record
	batch := (*Batch)(unsafe.Pointer(unsafe.SliceData(region)))
	count := int(batch.Records)
	if cap(module.outcomes) < count {
		module.outcomes = make([]outcome, max(count, 512))
	}
	outcomes := module.outcomes[:count]
	entries := unsafe.Slice((*entry)(unsafe.Pointer(&region[batch.headerLen])), count)
	begin()
	module.batch = batch
	r.region, r.entries = region, entries
	allUnchanged, handle := true, module.Record
	for i := range entries {
		e := &entries[i]
		r.keyAt, r.at = e.offset, e.offset
		r.hasKey = e.keyLen != null
		if r.hasKey {
			r.at += e.keyLen
		}
		r.end = r.at + e.dataLen
		r.number, r.first, r.verdict, r.keyed = i, len(module.outs), unchanged, false
		handle(r)
		if r.verdict == unchanged && !r.keyed && len(module.outs) == r.first {
			outcomes[i] = outcome{}
			continue
		}
		if r.verdict == unchanged && !r.keyed && len(module.outs) == r.first+1 { // as settle has it, without a call
			outcomes[i] = outcome{status: replaced, count: 1, aux: uint32(r.first)}
			allUnchanged = false
			continue
		}
		outcomes[i] = r.settle()
		allUnchanged = false
	}
	return end(allUnchanged, outcomes)
}
