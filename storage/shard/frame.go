package shard

import (
	"io"
	"time"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/record"
)

// Frame is one stored block, its data still as it lies on disk. It is valid
// during the call it is given to.
type Frame struct {
	// First and Last are the indexes of the block's records.
	First, Last uint64
	// Arrival is that of the block's first record.
	Arrival time.Time
	// Codec is how Data is compressed.
	Codec block.Codec
	// Data is the stored data frame: the records' data end to end, and with
	// zstd a complete zstd frame, so that frames may be put one after the other.
	Data []byte
	// RawLen is the length of Data before compression.
	RawLen int
	// Count is the number of records.
	Count int
	// Partial says that the reader stood inside the block: its first Skip
	// records lie before the position.
	Partial bool
	Skip    int

	value   []byte
	reader  *Reader
	shiftMS int64
}

// Block returns the whole block as stored: header, meta frame and data frame.
func (f *Frame) Block() []byte { return f.value }

// ShiftMS is what to add to the block's stamps to correct them.
func (f *Frame) ShiftMS() int64 { return f.shiftMS }

// Meta calls fn for each record of the block, in order, with all but its
// data, whose length is given instead, until fn returns false.
func (f *Frame) Meta(fn func(r *record.Record, length int) bool) error {
	d := &f.reader.own
	f.reader.block = nil
	if err := d.DecodeMeta(f.value); err != nil {
		return err
	}
	return f.each(d, fn)
}

// Records calls fn for each record of the block, in order, with its data,
// until fn returns false.
func (f *Frame) Records(fn func(r *record.Record) bool) error {
	d := &f.reader.own
	f.reader.block = nil
	if err := d.Decode(f.value); err != nil {
		return err
	}
	return f.each(d, func(r *record.Record, _ int) bool { return fn(r) })
}

func (f *Frame) each(d *block.Decoded, fn func(r *record.Record, length int) bool) error {
	var r record.Record
	for i := range d.Count {
		d.Record(i, &r)
		r.Index = f.First + uint64(i)
		r.Arrival = time.UnixMilli(d.ArrivalMS(i) + f.shiftMS)
		if !fn(&r, d.Length(i)) {
			return nil
		}
	}
	return nil
}

// Frames calls fn for stored blocks from the position on, in order, up to the
// watermark, until maxBytes of stored data are reached or fn returns false;
// the block fn refused is read again next time. At least one block is read if
// there is one. io.EOF means that the shard is closed and all is read; no
// call of fn and a nil error that the reader is at the tip. Each block's
// checksum is verified, and nothing is decompressed.
func (r *Reader) Frames(maxBytes int, fn func(Frame) bool) error {
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	for n, size := 0, 0; ; n++ {
		value, last, run, err := r.next()
		if err == io.EOF && n > 0 {
			return nil
		}
		if err != nil || value == nil {
			return err
		}
		h, err := block.Check(value)
		if err != nil {
			r.damaged(last, err)
			continue
		}
		first := last - uint64(h.Count) + 1
		if r.pos.Load() < first {
			r.skip(first - 1)
		}
		f := Frame{
			First: first, Last: last, Codec: h.DataCodec, Data: block.DataFrame(h, value),
			RawLen: h.DataRawBytes, Count: h.Count, Skip: int(r.pos.Load() - first), value: value, reader: r,
		}
		f.Partial = f.Skip > 0
		if h.Uncertain {
			f.shiftMS = r.s.env.Dir.ShiftMS(run.Epoch)
		}
		ms := h.ArrivalMS + f.shiftMS
		f.Arrival = time.UnixMilli(ms)
		if size += len(f.Data); n > 0 && size > maxBytes {
			return nil
		}
		if !fn(f) {
			return nil
		}
		r.lastMS.Store(ms)
		r.pos.Store(last + 1)
	}
}
