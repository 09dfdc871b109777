//go:build wasm

package weir

import "unsafe"

// Batch is what is known about the records handed over together.
type Batch struct {
	magic       uint32
	version     uint16
	Flags       uint16 // Replay, Shadow, Last
	headerLen   uint32
	Records     uint32 // number of records
	length      uint32
	Shard       uint32
	BaseIndex   uint64 // index in the shard of the first record
	TimeMS      int64  // ms since 1970, frozen for the batch
	ID          uint64
	Attempt     uint32 // 0 the first time
	CPUBudgetMS uint32
	Seed        uint64 // for random numbers; the same on every attempt
}

// Flags of a Batch.
const (
	Replay = 1 // the records were handed out before
	Shadow = 2 // the outcome is compared, not used
	Last   = 4 // the shard is closed and these are its last records
)

type entry struct {
	offset, keyLen, dataLen, reserved uint32
	timestampMS                       int64
	indexDelta, input                 uint32
}

type output struct {
	source          uint32
	output, headers uint16
	key, keyLen     uint32
	data, dataLen   uint32
	own, unused     uint32 // own: made by Replace or Forward. The host doesn't read these two
	parts, partsLen uint32
	timestampMS     int64
}

type outcome struct {
	status, flags uint8
	count         uint16
	aux           uint32
}

const (
	null    = 0xffffffff
	inherit = 0xffffffff
)

// The statuses of weir/1, and what a handler said.
const (
	unchanged = iota
	replaced
	dropped
	failed
	retry
)

// Record is one record, valid while its handler runs.
type Record struct {
	// Indexes and not slices: storing pointers costs write barriers.
	region         []byte
	entries        []entry
	number         int
	keyAt, at, end uint32
	hasKey         bool
	first          int // its first output
	verdict        uint8
	keyed          bool
	code           uint32
	reason         string
	key            []byte
	parts          []byte
}

var module struct {
	Module
	batch    *Batch
	region   []byte
	outcomes []outcome
	outs     []output
	alive    []unsafe.Pointer // what outs point to, for the garbage collector
	record   Record
	text     []byte // the chunk that Buffer cuts from
	chunks   [][]byte
	chunk    int // of chunks, the next one to use
	result   [6]uint32
}

// BatchInfo describes the batch in hand; nil outside of one.
func BatchInfo() *Batch { return module.batch }

// Data is the record's data. It lies in the input region.
func (r *Record) Data() []byte { return r.region[r.at:r.end:r.end] }

// Key is its partition key, nil when it has none. It lies in the input region.
func (r *Record) Key() []byte {
	if !r.hasKey {
		return nil
	}
	return r.region[r.keyAt:r.at:r.at]
}

// Number is the record's number in the batch, from 0.
func (r *Record) Number() int { return r.number }

// TimestampMS is the record's arrival, ms since 1970.
func (r *Record) TimestampMS() int64 { return r.entries[r.number].timestampMS }

// Index is the record's index in its shard.
func (r *Record) Index() uint64 {
	return module.batch.BaseIndex + uint64(r.entries[r.number].indexDelta)
}

// Input is the stream it came from, an index into the manifest's inputs.
func (r *Record) Input() int { return int(r.entries[r.number].input) }

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// slot is the next entry of the output table, to be written field by field: an
// entry made elsewhere and copied costs as much as the rest of Replace. data is kept alive.
func slot(data []byte) *output {
	n := len(module.outs)
	if n == cap(module.outs) {
		module.outs = append(module.outs, output{})
	}
	module.outs = module.outs[:n+1]
	module.alive = append(module.alive, unsafe.Pointer(unsafe.SliceData(data)))
	return &module.outs[n]
}

// Replace passes data on in place of the record, to output 0.
func (r *Record) Replace(data []byte) { r.ReplaceTo(0, data) }

// ReplaceTo is Replace to another output of the manifest.
func (r *Record) ReplaceTo(to int, data []byte) {
	o := slot(data)
	o.source, o.output, o.headers = uint32(r.number), uint16(to), 0
	o.key, o.keyLen = inherit, 0
	o.data, o.dataLen = address(data), uint32(len(data))
	o.own, o.unused = 1, 0
	o.parts, o.partsLen = inherit, 0
	o.timestampMS = 0
}

// Forward passes the record's own data on to an output. Nothing is copied.
func (r *Record) Forward(to int) {
	*slot(nil) = output{source: uint32(r.number), output: uint16(to), key: inherit, data: inherit, own: 1, parts: inherit}
}

// Emit adds a record to an output. A nil key takes the record's own.
func (r *Record) Emit(to int, key, data []byte) { emit(r.emission(to, key, data), key, data) }

// EmitNow is Emit that hands the record to the host at once, so that key and
// data may be overwritten afterwards: for more output than fits into memory. It
// takes effect with the batch. Consumers with the emit capability.
func (r *Record) EmitNow(to int, key, data []byte) error {
	o := r.emission(to, key, data)
	return asError(emitChunk(unsafe.Pointer(&o), 1))
}

func (r *Record) emission(to int, key, data []byte) output {
	o := emission(to, key, data)
	o.source = uint32(r.number)
	if key == nil {
		o.key, o.keyLen = inherit, 0
	}
	return o
}

func emission(to int, key, data []byte) output {
	o := output{
		source: null, output: uint16(to), key: address(key), keyLen: uint32(len(key)),
		data: address(data), dataLen: uint32(len(data)), parts: inherit,
	}
	if key == nil {
		o.key, o.keyLen = 0, null
	}
	return o
}

func emit(o output, key, data []byte) {
	*slot(data) = o
	if key != nil {
		module.alive = append(module.alive, unsafe.Pointer(unsafe.SliceData(key)))
	}
}

// Emit adds a record that stems from no other to an output, in a Tick handler. A
// nil key leaves it to the host to choose one.
func Emit(to int, key, data []byte) { emit(emission(to, key, data), key, data) }

// SetKey chooses the partition key of the records that Replace and Forward pass
// on; alone, it passes the record on under that key.
func (r *Record) SetKey(key []byte) {
	r.key, r.keyed = key, true
	module.alive = append(module.alive, unsafe.Pointer(unsafe.SliceData(key)))
}

// PartitionKey sets the keys for a delivery stream's dynamic partitioning:
// "name=value" lines, or one value. Copies nothing of the data.
func (r *Record) PartitionKey(keys []byte) {
	r.parts, r.keyed = keys, true
	module.alive = append(module.alive, unsafe.Pointer(unsafe.SliceData(keys)))
}

// Drop leaves the record out; not a failure. What it emitted stays.
func (r *Record) Drop() { r.verdict = dropped }

// Fail says that the record can't be processed, with a code of the module's own
// and a reason for people (at most 1,024 bytes are kept). What it emitted is
// taken back.
func (r *Record) Fail(code uint32, reason string) {
	r.verdict, r.code, r.reason = failed, code, reason
}

// Retry asks for the record again after a pause. What it emitted is taken back.
func (r *Record) Retry() { r.verdict = retry }

// settle turns what the handler said into an outcome, for every case but
// "nothing said".
func (r *Record) settle() outcome {
	switch r.verdict {
	case failed:
		r.key, r.parts = nil, nil
		module.outs = module.outs[:r.first]
		if r.reason == "" {
			return outcome{status: failed, aux: r.code}
		}
		reason := unsafe.Slice(unsafe.StringData(r.reason), len(r.reason))
		o := r.emission(0, nil, reason)
		o.timestampMS = int64(r.code)
		emit(o, nil, reason)
		return outcome{status: failed, flags: 1, count: 1, aux: uint32(r.first)}
	case retry:
		r.key, r.parts = nil, nil
		module.outs = module.outs[:r.first]
		return outcome{status: retry}
	}
	if len(module.outs) == r.first {
		if r.verdict == dropped {
			return outcome{status: dropped}
		}
		r.Forward(0)
	}
	outs := module.outs[r.first:]
	if len(outs) > 0xffff {
		panic("weir: more than 65,535 outputs of one record")
	}
	if r.keyed {
		r.rekey(outs)
		r.key, r.parts = nil, nil
	}
	return outcome{status: replaced, count: uint16(len(outs)), aux: uint32(r.first)}
}

// rekey applies SetKey and PartitionKey to what Replace and Forward made.
func (r *Record) rekey(outs []output) {
	for i := range outs {
		o := &outs[i]
		if o.own == 0 {
			continue
		}
		if r.key != nil {
			o.key, o.keyLen = address(r.key), uint32(len(r.key))
		}
		if r.parts != nil {
			o.parts, o.partsLen = address(r.parts), uint32(len(r.parts))
		}
	}
}
