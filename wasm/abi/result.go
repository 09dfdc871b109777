package abi

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Sizes and marks of a result.
const (
	ResultHeaderLen = 24
	ResultEntryLen  = 8
	OutputEntryLen  = 48
	ResultMagic     = 0x31525257 // "WRR1" read as a little-endian u32

	// None in an output's source field says that it stems from no one record.
	None = 0xFFFFFFFF
	// Inherit in a pointer field takes the value of the source record.
	Inherit = 0xFFFFFFFF

	// MaxReason is the longest failure reason kept, in bytes.
	MaxReason = 1024
)

// ResultAllUnchanged in the result header says that every record is
// StatusUnchanged; there is no result table.
const ResultAllUnchanged uint16 = 1

// EntryReason in a result entry of status StatusFailed says that aux is the
// number of an output entry whose value is the reason as text and whose
// timestamp field is the code.
const EntryReason uint8 = 1

// Status is the outcome of one record, as a guest writes it.
type Status uint8

// The outcomes of a record. Anything else is read as StatusFailed.
const (
	StatusUnchanged Status = 0 // ok; a transform forwards the host's own bytes
	StatusReplaced  Status = 1 // ok; one or more outputs stand in its place
	StatusDropped   Status = 2 // left out on purpose
	StatusFailed    Status = 3 // ProcessingFailed
	StatusRetry     Status = 4 // RetryLater: hand the record out again after a pause
)

// InvalidResultError says what in a guest's answer can't be true. The instance
// that gave it is not to be used again.
type InvalidResultError struct {
	What string // which field
	Got  string // its value and the expectation
}

// Error returns "invalid result: what: got".
func (e *InvalidResultError) Error() string { return "invalid result: " + e.What + ": " + e.Got }

func invalid(what, format string, args ...any) error {
	return &InvalidResultError{What: what, Got: fmt.Sprintf(format, args...)}
}

// Entry is one entry of the result table.
type Entry struct {
	Status Status
	Flags  uint8
	Count  uint16 // outputs that belong to the record
	Aux    uint32 // number of the first output, or the failure code
}

// Output is one entry of the output table. Its slices lie in guest memory and
// are valid until the guest runs again.
type Output struct {
	Source       uint32 // number of the record in the batch, or None
	Stream       uint16 // index into the manifest's outputs
	Key          []byte // the record's partition key; nil with InheritKey or when null
	Value        []byte
	PartitionKey []byte // keys for dynamic partitioning; nil when there are none
	InheritKey   bool
	InheritValue bool
	TimestampMS  int64 // 0 inherits
}

// Result is a guest's answer, checked as far as the tables go; Check does the
// rest. It lies in guest memory.
type Result struct {
	mem     []byte
	table   []byte // nil when every record is unchanged
	outs    []byte
	records int
}

// span returns mem[ptr:ptr+n], or false when that isn't all inside mem.
func span(mem []byte, ptr uint32, n uint64) ([]byte, bool) {
	p := uint64(ptr)
	if p > math.MaxInt32 || n > uint64(len(mem)) || p > uint64(len(mem))-n {
		return nil, false
	}
	return mem[p : p+n : p+n], true
}

// DecodeResult reads the result header at ret, the non-negative answer of
// weir_process or weir_tick, and finds the tables it names in mem, the guest's
// whole memory. records is the size of the batch, 0 for a tick. The error is an
// *InvalidResultError.
func DecodeResult(mem []byte, ret int64, records int) (Result, error) {
	le := binary.LittleEndian
	if ret < 0 || ret > math.MaxInt32 {
		return Result{}, invalid("header", "address %d is not in 0..2^31-1", ret)
	}
	h, ok := span(mem, uint32(ret), ResultHeaderLen)
	if !ok {
		return Result{}, invalid("header", "%d bytes at %d lie outside %d bytes of memory", ResultHeaderLen, ret, len(mem))
	}
	if m := le.Uint32(h); m != ResultMagic {
		return Result{}, invalid("magic", "%#08x, expecting %#08x", m, uint32(ResultMagic))
	}
	if v := le.Uint16(h[4:]); v != Version {
		return Result{}, invalid("version", "%d, expecting %d", v, Version)
	}
	flags := le.Uint16(h[6:])
	if flags&^ResultAllUnchanged != 0 {
		return Result{}, invalid("flags", "%#x has bits this version does not know", flags)
	}
	r := Result{mem: mem, records: records}
	if flags&ResultAllUnchanged == 0 && records > 0 {
		ptr := le.Uint32(h[8:])
		if r.table, ok = span(mem, ptr, uint64(records)*ResultEntryLen); !ok {
			return Result{}, invalid("result table", "%d entries at %d lie outside %d bytes of memory", records, ptr, len(mem))
		}
	}
	if n := le.Uint32(h[16:]); n > 0 {
		ptr := le.Uint32(h[12:])
		if r.outs, ok = span(mem, ptr, uint64(n)*OutputEntryLen); !ok {
			return Result{}, invalid("output table", "%d entries at %d lie outside %d bytes of memory", n, ptr, len(mem))
		}
	}
	return r, nil
}

// DecodeOutputs finds count output entries at ptr, as weir_emit.chunk hands
// them over while a batch of records records is handled. The error is an
// *InvalidResultError.
func DecodeOutputs(mem []byte, ptr, count uint32, records int) (Result, error) {
	outs, ok := span(mem, ptr, uint64(count)*OutputEntryLen)
	if !ok {
		return Result{}, invalid("output table", "%d entries at %d lie outside %d bytes of memory", count, ptr, len(mem))
	}
	return Result{mem: mem, outs: outs, records: records}, nil
}

// AllUnchanged reports whether the guest left every record as it is without
// writing a table.
func (r *Result) AllUnchanged() bool { return r.table == nil }

// Outputs returns the number of output entries.
func (r *Result) Outputs() int { return len(r.outs) / OutputEntryLen }

// Entry returns the outcome of record i, 0 <= i < records.
func (r *Result) Entry(i int) Entry {
	if r.table == nil {
		return Entry{}
	}
	v := binary.LittleEndian.Uint64(r.table[i*ResultEntryLen:])
	e := Entry{Status: Status(v), Flags: uint8(v >> 8), Count: uint16(v >> 16), Aux: uint32(v >> 32)}
	if e.Status > StatusRetry {
		e = Entry{Status: StatusFailed, Aux: uint32(e.Status)}
	}
	return e
}

// Output reads output entry k, 0 <= k < Outputs, into o. The error is an
// *InvalidResultError.
func (r *Result) Output(k int, o *Output) error {
	le := binary.LittleEndian
	e := r.outs[k*OutputEntryLen:][:OutputEntryLen]
	*o = Output{Source: le.Uint32(e), Stream: le.Uint16(e[4:]), TimestampMS: int64(le.Uint64(e[40:]))}
	if n := le.Uint16(e[6:]); n != 0 {
		return invalid("output", "%d: %d headers, but records have none", k, n)
	}
	keyPtr, keyLen := le.Uint32(e[8:]), le.Uint32(e[12:])
	valPtr, valLen := le.Uint32(e[16:]), le.Uint32(e[20:])
	pkeyPtr, pkeyLen := le.Uint32(e[32:]), le.Uint32(e[36:])
	var ok bool
	switch {
	case keyPtr == Inherit:
		o.InheritKey = true
	case keyLen == Null:
	default:
		if o.Key, ok = span(r.mem, keyPtr, uint64(keyLen)); !ok {
			return invalid("output", "%d: key of %d bytes at %d lies outside %d bytes of memory", k, keyLen, keyPtr, len(r.mem))
		}
	}
	switch {
	case valPtr == Inherit:
		o.InheritValue = true
	case valLen == Null:
		return invalid("output", "%d: value is null, but a record's data can't be", k)
	default:
		if o.Value, ok = span(r.mem, valPtr, uint64(valLen)); !ok {
			return invalid("output", "%d: value of %d bytes at %d lies outside %d bytes of memory", k, valLen, valPtr, len(r.mem))
		}
	}
	if pkeyPtr != Inherit && pkeyLen != Null && pkeyLen != 0 {
		if o.PartitionKey, ok = span(r.mem, pkeyPtr, uint64(pkeyLen)); !ok {
			return invalid("output", "%d: partition keys of %d bytes at %d lie outside %d bytes of memory", k, pkeyLen, pkeyPtr, len(r.mem))
		}
	}
	if o.Source == None && o.InheritValue {
		return invalid("output", "%d: inherits the value of no record", k)
	}
	return nil
}

// Limits bounds what a result may hold.
type Limits struct {
	Streams         int // outputs of the manifest: stream indices are below it
	OutputBytes     int // keys and values of all outputs together
	OutputRecords   int // outputs of the whole batch
	OutputsOfRecord int // outputs of one record
}

// Check verifies the whole result: that each record's outputs exist and name it
// as their source, that each field lies in memory, and that the limits hold.
// After it returns nil, Entry and Output can't meet an invalid value. The error
// is an *InvalidResultError.
func (r *Result) Check(l Limits) error {
	n := r.Outputs()
	if n > l.OutputRecords {
		return invalid("outputs", "%d is above the limit of %d", n, l.OutputRecords)
	}
	if err := r.checkOutputs(l); err != nil {
		return err
	}
	if r.table == nil {
		return nil
	}
	for i := range r.records {
		if e := r.Entry(i); e.Status == StatusReplaced || e.Flags != 0 || e.Count != 0 {
			if err := r.checkEntry(i, e, n, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Result) checkEntry(i int, e Entry, outputs int, l Limits) error {
	if e.Status == StatusFailed {
		if e.Flags&EntryReason != 0 && uint64(e.Aux) >= uint64(outputs) {
			return invalid("record", "%d: reason in output %d of %d", i, e.Aux, outputs)
		}
		if e.Flags&EntryReason != 0 {
			return r.checkSource(i, int(e.Aux))
		}
		return nil
	}
	if e.Status != StatusReplaced {
		return nil
	}
	if e.Count == 0 {
		return invalid("record", "%d: replaced by no output; expecting at least one", i)
	}
	if int(e.Count) > l.OutputsOfRecord {
		return invalid("record", "%d: %d outputs are above the limit of %d", i, e.Count, l.OutputsOfRecord)
	}
	if uint64(e.Aux)+uint64(e.Count) > uint64(outputs) {
		return invalid("record", "%d: outputs %d to %d of %d", i, e.Aux, uint64(e.Aux)+uint64(e.Count)-1, outputs)
	}
	for k := int(e.Aux); k < int(e.Aux)+int(e.Count); k++ {
		if err := r.checkSource(i, k); err != nil {
			return err
		}
	}
	return nil
}

func (r *Result) checkSource(record, output int) error {
	if src := binary.LittleEndian.Uint32(r.outs[output*OutputEntryLen:]); src != uint32(record) {
		return invalid("record", "%d: output %d names record %d as its source", record, output, src)
	}
	return nil
}

func (r *Result) checkOutputs(l Limits) error {
	total := uint64(0)
	var o Output
	for k := range r.Outputs() {
		if err := r.Output(k, &o); err != nil {
			return err
		}
		if int(o.Stream) >= l.Streams {
			return invalid("output", "%d: stream %d, but the manifest names %d", k, o.Stream, l.Streams)
		}
		if o.Source != None && uint64(o.Source) >= uint64(r.records) {
			return invalid("output", "%d: source %d in a batch of %d", k, o.Source, r.records)
		}
		total += uint64(len(o.Key)) + uint64(len(o.Value)) + uint64(len(o.PartitionKey))
		if total > uint64(l.OutputBytes) {
			return invalid("output", "%d: %d bytes so far are above the limit of %d", k, total, l.OutputBytes)
		}
	}
	return nil
}

// Reason returns the text and code of a failed record. The text lies in guest
// memory and is at most MaxReason bytes. Call it after Check.
func (r *Result) Reason(e Entry) (text []byte, code uint32) {
	if e.Flags&EntryReason == 0 {
		return nil, e.Aux
	}
	var o Output
	if r.Output(int(e.Aux), &o) != nil {
		return nil, 0
	}
	return o.Value[:min(len(o.Value), MaxReason)], uint32(o.TimestampMS)
}

// IsReason reports whether output k is the reason of a failed record rather
// than an output.
func (r *Result) IsReason(k int) bool {
	var o Output
	if r.table == nil || r.Output(k, &o) != nil || o.Source == None {
		return false
	}
	e := r.Entry(int(o.Source))
	return e.Status == StatusFailed && e.Flags&EntryReason != 0 && int(e.Aux) == k
}
