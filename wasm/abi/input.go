package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Sizes and marks of the input region.
const (
	InputHeaderLen = 64
	IndexEntryLen  = 32
	InputMagic     = 0x31425257 // "WRB1" read as a little-endian u32

	// Null in a length field says that there is no such value.
	Null = 0xFFFFFFFF

	// MaxRegion is the largest input region, in bytes, the host writes.
	MaxRegion = 64 << 20
	// MaxRecords is the largest number of records in one input region.
	MaxRecords = 1 << 16
)

// Flags of the input header.
const (
	FlagReplay uint16 = 1 // the records were handed out before
	FlagShadow uint16 = 2 // the outcome is compared, not used
	FlagLast   uint16 = 4 // the shard is closed and these are its last records
)

// ErrRegion means that a batch does not fit into one input region.
var ErrRegion = errors.New("batch does not fit an input region")

// InputHeader is what a guest learns about a batch as a whole.
type InputHeader struct {
	Flags       uint16
	Records     int
	Shard       uint32
	Input       uint32 // the stream, an index into the manifest's inputs
	BaseIndex   uint64 // index in the shard of the first record
	TimeMS      int64  // the batch's frozen clock
	BatchID     uint64
	Attempt     uint32 // 0 the first time
	CPUBudgetMS uint32
	Seed        uint64 // for the guest's random numbers; the same on each attempt
}

// RecordSize returns the bytes a record with key and data of these lengths
// takes in an input region, its index entry included.
func RecordSize(keyLen, dataLen int) int {
	return IndexEntryLen + align8(keyLen+dataLen)
}

func align8(n int) int { return (n + 7) &^ 7 }

// InputWriter writes an input region into a slice, usually guest memory. Begin,
// then Record once per record in order, then Finish. It keeps no slice given to
// Record.
type InputWriter struct {
	dst   []byte
	h     InputHeader
	index int // offset of the next index entry
	data  int // offset of the next record's data
}

// Begin starts a region in dst. Records in h says how many calls of Record will
// follow.
func (w *InputWriter) Begin(dst []byte, h InputHeader) error {
	need := InputHeaderLen + h.Records*IndexEntryLen
	if h.Records < 0 || h.Records > MaxRecords || need > len(dst) {
		return fmt.Errorf("%w: %d records, region of %d bytes", ErrRegion, h.Records, len(dst))
	}
	w.dst, w.h, w.index, w.data = dst, h, InputHeaderLen, need
	return nil
}

// Record appends one record. index is its index in the shard and may not be
// below BaseIndex nor 2^32 or more above it. A nil key is null.
func (w *InputWriter) Record(index uint64, timestampMS int64, key, data []byte) error {
	delta := index - w.h.BaseIndex
	end := w.data + align8(len(key)+len(data))
	if delta > math.MaxUint32 || end > len(w.dst) || w.index+IndexEntryLen > InputHeaderLen+w.h.Records*IndexEntryLen {
		return fmt.Errorf("%w: record %d at %d of %d bytes", ErrRegion, index, end, len(w.dst))
	}
	keyLen := uint32(len(key))
	if key == nil {
		keyLen = Null
	}
	e := w.dst[w.index : w.index+IndexEntryLen]
	binary.LittleEndian.PutUint32(e[0:], uint32(w.data))
	binary.LittleEndian.PutUint32(e[4:], keyLen)
	binary.LittleEndian.PutUint32(e[8:], uint32(len(data)))
	binary.LittleEndian.PutUint32(e[12:], 0)
	binary.LittleEndian.PutUint64(e[16:], uint64(timestampMS))
	binary.LittleEndian.PutUint32(e[24:], uint32(delta))
	binary.LittleEndian.PutUint32(e[28:], w.h.Input)
	d := w.dst[w.data:end]
	n := copy(d, key)
	n += copy(d[n:], data)
	clear(d[n:])
	w.data = end
	w.index += IndexEntryLen
	return nil
}

// Finish writes the header and returns the region's length in bytes.
func (w *InputWriter) Finish() (int, error) {
	if got := (w.index - InputHeaderLen) / IndexEntryLen; got != w.h.Records {
		return 0, fmt.Errorf("BUG: input region of %d records got %d", w.h.Records, got)
	}
	h := w.dst[:InputHeaderLen]
	binary.LittleEndian.PutUint32(h[0:], InputMagic)
	binary.LittleEndian.PutUint16(h[4:], Version)
	binary.LittleEndian.PutUint16(h[6:], w.h.Flags)
	binary.LittleEndian.PutUint32(h[8:], InputHeaderLen)
	binary.LittleEndian.PutUint32(h[12:], uint32(w.h.Records))
	binary.LittleEndian.PutUint32(h[16:], uint32(w.data))
	binary.LittleEndian.PutUint32(h[20:], w.h.Shard)
	binary.LittleEndian.PutUint64(h[24:], w.h.BaseIndex)
	binary.LittleEndian.PutUint64(h[32:], uint64(w.h.TimeMS))
	binary.LittleEndian.PutUint64(h[40:], w.h.BatchID)
	binary.LittleEndian.PutUint32(h[48:], w.h.Attempt)
	binary.LittleEndian.PutUint32(h[52:], w.h.CPUBudgetMS)
	binary.LittleEndian.PutUint64(h[56:], w.h.Seed)
	return w.data, nil
}

// InputRecord is one record as a guest sees it. Its slices lie in the region.
type InputRecord struct {
	Key, Data   []byte
	TimestampMS int64
	Index       uint64
}

// Input is a decoded input region.
type Input struct {
	Header InputHeader
	region []byte
}

// DecodeInput reads an input region the way a guest must. The host needs it to
// print recorded regions and to check its own encoder.
func DecodeInput(region []byte) (Input, error) {
	le := binary.LittleEndian
	if len(region) < InputHeaderLen {
		return Input{}, fmt.Errorf("input region: %d bytes is shorter than its %d-byte header", len(region), InputHeaderLen)
	}
	if m := le.Uint32(region); m != InputMagic {
		return Input{}, fmt.Errorf("input region: magic %#08x, expecting %#08x", m, uint32(InputMagic))
	}
	if v := le.Uint16(region[4:]); v != Version {
		return Input{}, fmt.Errorf("input region: version %d, expecting %d", v, Version)
	}
	n, total := le.Uint32(region[12:]), le.Uint32(region[16:])
	if h := le.Uint32(region[8:]); h != InputHeaderLen {
		return Input{}, fmt.Errorf("input region: header length %d, expecting %d", h, InputHeaderLen)
	}
	if n > MaxRecords || uint64(total) > uint64(len(region)) || uint64(InputHeaderLen)+uint64(n)*IndexEntryLen > uint64(total) {
		return Input{}, fmt.Errorf("input region: %d records and length %d in %d bytes", n, total, len(region))
	}
	in := Input{region: region[:total], Header: InputHeader{
		Flags: le.Uint16(region[6:]), Records: int(n), Shard: le.Uint32(region[20:]), BaseIndex: le.Uint64(region[24:]),
		TimeMS: int64(le.Uint64(region[32:])), BatchID: le.Uint64(region[40:]), Attempt: le.Uint32(region[48:]),
		CPUBudgetMS: le.Uint32(region[52:]), Seed: le.Uint64(region[56:]),
	}}
	if n > 0 { // one stream has them all
		in.Header.Input = le.Uint32(region[InputHeaderLen+28:])
	}
	for i := range int(n) {
		if _, err := in.Record(i); err != nil {
			return Input{}, err
		}
	}
	return in, nil
}

// Record returns record i, 0 <= i < Header.Records.
func (in *Input) Record(i int) (InputRecord, error) {
	le := binary.LittleEndian
	e := in.region[InputHeaderLen+i*IndexEntryLen:][:IndexEntryLen]
	off, klen, vlen := uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:]))
	r := InputRecord{TimestampMS: int64(le.Uint64(e[16:])), Index: in.Header.BaseIndex + uint64(le.Uint32(e[24:]))}
	hasKey := klen != Null
	if !hasKey {
		klen = 0
	}
	if off+klen+vlen > uint64(len(in.region)) {
		return r, fmt.Errorf("input region: record %d: %d+%d bytes at %d lie outside %d bytes", i, klen, vlen, off, len(in.region))
	}
	if hasKey {
		r.Key = in.region[off : off+klen : off+klen]
	}
	r.Data = in.region[off+klen : off+klen+vlen : off+klen+vlen]
	return r, nil
}
