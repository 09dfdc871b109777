package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/storage/record"
)

// decoder is shared by everyone who decodes: it keeps at most so many states
// of about 0.3 MB each, and callers beyond that wait for one.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(min(8, runtime.GOMAXPROCS(0))), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxDecodedBytes), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		panic("BUG: zstd decoder options: " + err.Error())
	}
	return d
})

// decodeSlack is what the decoder wants free behind its output to copy
// sixteen bytes at a time.
const decodeSlack = 16

// Decoded is a block made readable. Its buffers are its own and are used
// again by the next Decode; the zero value is ready. Once decoded it can be
// read from any goroutine.
type Decoded struct {
	Header
	metaBuf, dataBuf []byte
	keyBuf           []byte // keys put together

	meta, data []byte
	keys       []byte
	dataEnds   []uint32
	keyEnds    []uint32
	explicit   []byte // bitmap, then nothing
	explicitAt []byte // 16 bytes per set bit
	deltas     []int64
}

// Decode checks and decompresses the block b, which must not change while d
// is in use: raw frames are not copied. It returns ErrCorrupt or ErrNewer,
// wrapped, for whatever is not exactly a block.
func (d *Decoded) Decode(b []byte) error {
	if err := d.DecodeMeta(b); err != nil {
		return err
	}
	frame := DataFrame(d.Header, b)
	data, buf, err := decompress(d.DataCodec, frame, d.dataBuf, d.DataRawBytes)
	d.dataBuf = buf
	if err != nil {
		return fmt.Errorf("%w: data frame: %v", ErrCorrupt, err)
	}
	if len(data) != d.DataRawBytes {
		return fmt.Errorf("%w: data frame holds %d bytes, header says %d", ErrCorrupt, len(data), d.DataRawBytes)
	}
	d.data = data
	return nil
}

// DecodeMeta is Decode without the data frame: lengths, keys and arrivals can
// be read, data can't.
func (d *Decoded) DecodeMeta(b []byte) error {
	h, err := Check(b)
	if err != nil {
		return err
	}
	d.Header, d.data = h, nil
	meta, buf, err := decompress(h.MetaCodec, b[HeaderBytes:HeaderBytes+h.MetaBytes], d.metaBuf, 0)
	d.metaBuf = buf
	if err != nil {
		return fmt.Errorf("%w: meta frame: %v", ErrCorrupt, err)
	}
	d.meta = meta
	return d.parseMeta()
}

// decompress returns the content of a frame and the buffer to keep for the
// next one. sizeHint is the expected length, 0 when unknown.
func decompress(c Codec, frame, buf []byte, sizeHint int) (content, keep []byte, err error) {
	switch c {
	case S2:
		n, err := s2.DecodedLen(frame)
		if err != nil {
			return nil, buf, err
		}
		if n > maxDecodedBytes {
			return nil, buf, fmt.Errorf("%d bytes, the limit is %d", n, maxDecodedBytes)
		}
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		out, err := s2.Decode(buf[:n], frame)
		return out, buf, err
	case Zstd:
		if need := sizeHint + decodeSlack; cap(buf) < need {
			buf = make([]byte, 0, need+need/16)
		}
		out, err := decoder().DecodeAll(frame, buf[:0])
		if err != nil {
			return nil, buf, err
		}
		return out, out, nil
	}
	return frame, buf, nil
}

func (d *Decoded) parseMeta() error {
	if len(d.meta) == 0 {
		return fmt.Errorf("%w: the meta frame is empty", ErrCorrupt)
	}
	widths, m := d.meta[0], d.meta[1:]
	var err error
	if d.dataEnds, m, err = ends(d.dataEnds[:0], m, d.Count, int(widths&15), uint64(d.DataRawBytes)); err != nil {
		return fmt.Errorf("%w: data lengths: %v", ErrCorrupt, err)
	}
	if got := int(d.dataEnds[d.Count-1]); got != d.DataRawBytes {
		return fmt.Errorf("%w: lengths add up to %d, header says %d", ErrCorrupt, got, d.DataRawBytes)
	}
	if m, err = d.parseKeys(m, int(widths>>4)); err != nil {
		return err
	}
	if m, err = d.parseExplicit(m); err != nil {
		return err
	}
	if m, err = d.parseDeltas(m); err != nil {
		return err
	}
	if len(m) != 0 {
		return fmt.Errorf("%w: %d bytes after the meta columns", ErrCorrupt, len(m))
	}
	return nil
}

func (d *Decoded) parseKeys(m []byte, width int) ([]byte, error) {
	size, n := binary.Uvarint(m)
	if n <= 0 || size > uint64(len(m)-n) || size*uint64(d.Count) > maxDecodedBytes {
		return nil, fmt.Errorf("%w: %d keys begin with %d bytes, %d left", ErrCorrupt, d.Count, size, len(m))
	}
	prefix, m := m[n:n+int(size)], m[n+int(size):]
	var err error
	if d.keyEnds, m, err = ends(d.keyEnds[:0], m, d.Count, width, maxDecodedBytes); err != nil {
		return nil, fmt.Errorf("%w: key lengths: %v", ErrCorrupt, err)
	}
	n = int(d.keyEnds[d.Count-1])
	if n > len(m) {
		return nil, fmt.Errorf("%w: %d bytes of keys, %d left", ErrCorrupt, n, len(m))
	}
	d.keys, m = m[:n], m[n:]
	if len(prefix) == 0 {
		return m, nil
	}
	d.joinKeys(prefix)
	return m, nil
}

// joinKeys puts the front that the keys have in common before each: they are handed
// out whole.
func (d *Decoded) joinKeys(prefix []byte) {
	const word = 8
	rest, size := d.keys, len(d.keys)+d.Count*len(prefix)
	keys := slices.Grow(d.keyBuf[:0], size+word)[:size+word]
	at, from, done := 0, 0, 0
	if len(prefix) <= word {
		// Of short keys, as devices have them, each part is one word: two copies of a few
		// bytes each were a twentieth of a replay. What is too much is written over.
		var padded [word]byte
		copy(padded[:], prefix)
		front := binary.LittleEndian.Uint64(padded[:])
		for i, end := range d.keyEnds {
			n := int(end) - from
			if n > word || from+word > len(rest) {
				break
			}
			binary.LittleEndian.PutUint64(keys[at:], front)
			at += len(prefix)
			binary.LittleEndian.PutUint64(keys[at:], binary.LittleEndian.Uint64(rest[from:]))
			at, from = at+n, int(end)
			d.keyEnds[i] = uint32(at)
			done = i + 1
		}
	}
	for i := done; i < d.Count; i++ {
		end := int(d.keyEnds[i])
		at += copy(keys[at:], prefix)
		at += copy(keys[at:], rest[from:end])
		from = end
		d.keyEnds[i] = uint32(at)
	}
	d.keys, d.keyBuf = keys[:size], keys[:size]
}

func (d *Decoded) parseExplicit(m []byte) ([]byte, error) {
	d.explicit, d.explicitAt = nil, nil
	if !d.Explicit {
		return m, nil
	}
	n := (d.Count + 7) / 8
	if n > len(m) {
		return nil, fmt.Errorf("%w: %d bytes of hash key bitmap, %d left", ErrCorrupt, n, len(m))
	}
	d.explicit, m = m[:n], m[n:]
	set := 0
	for i := range d.Count {
		set += int(d.explicit[i/8] >> (i % 8) & 1)
	}
	if 16*set > len(m) {
		return nil, fmt.Errorf("%w: %d explicit hash keys, %d bytes left", ErrCorrupt, set, len(m))
	}
	d.explicitAt, m = m[:16*set], m[16*set:]
	return m, nil
}

func (d *Decoded) parseDeltas(m []byte) ([]byte, error) {
	d.deltas = d.deltas[:0]
	if !d.Deltas {
		return m, nil
	}
	for range d.Count {
		v, n := binary.Varint(m)
		if n <= 0 {
			return nil, fmt.Errorf("%w: arrival deltas end early", ErrCorrupt)
		}
		d.deltas, m = append(d.deltas, v), m[n:]
	}
	return m, nil
}

// ends reads count lengths, as what each is above the least one in width
// bytes, and appends their running sum.
func ends(dst []uint32, m []byte, count, width int, limit uint64) ([]uint32, []byte, error) {
	least, n := binary.Uvarint(m)
	if n <= 0 {
		return dst, m, errors.New("end early")
	}
	m = m[n:]
	if width > 4 || width == 3 {
		return dst, m, fmt.Errorf("%d bytes wide", width)
	}
	if count*width > len(m) {
		return dst, m, fmt.Errorf("%d of %d bytes in %d", count, width, len(m))
	}
	if least > limit {
		return dst, m, fmt.Errorf("over %d bytes", limit)
	}
	dst = slices.Grow(dst, count)[:count]
	// Neither sum can overflow: a block has at most MaxRecords, a length 33 bits.
	var sum uint64
	switch width {
	case 0:
		for i := range dst {
			sum += least
			dst[i] = uint32(sum)
		}
	case 1:
		for i, v := range m[:count] {
			sum += least + uint64(v)
			dst[i] = uint32(sum)
		}
	case 2:
		for i := range dst {
			sum += least + uint64(binary.LittleEndian.Uint16(m[2*i:]))
			dst[i] = uint32(sum)
		}
	case 4:
		for i := range dst {
			sum += least + uint64(binary.LittleEndian.Uint32(m[4*i:]))
			dst[i] = uint32(sum)
		}
	}
	if sum > limit { // sums only grow
		return dst, m, fmt.Errorf("over %d bytes", limit)
	}
	return dst, m[count*width:], nil
}

// Length returns the length of the data of record i.
func (d *Decoded) Length(i int) int {
	if i == 0 {
		return int(d.dataEnds[0])
	}
	return int(d.dataEnds[i] - d.dataEnds[i-1])
}

// ArrivalMS returns the arrival of record i, milliseconds since 1970, as stored.
func (d *Decoded) ArrivalMS(i int) int64 {
	if len(d.deltas) == 0 {
		return d.Header.ArrivalMS
	}
	return d.Header.ArrivalMS + d.deltas[i]
}

// Record sets key, data and hash key of r to those of record i; the slices
// are d's. Data is empty after DecodeMeta. Index and Arrival are left alone:
// they follow from the block's place.
func (d *Decoded) Record(i int, r *record.Record) {
	var dataFrom, keyFrom uint32
	if i > 0 {
		dataFrom, keyFrom = d.dataEnds[i-1], d.keyEnds[i-1]
	}
	r.PartitionKey = d.keys[keyFrom:d.keyEnds[i]:d.keyEnds[i]]
	r.Data = nil
	if d.data != nil {
		r.Data = d.data[dataFrom:d.dataEnds[i]:d.dataEnds[i]]
	}
	r.HasExplicitHashKey = false
	if d.explicit != nil && d.explicit[i/8]>>(i%8)&1 == 1 {
		r.HasExplicitHashKey = true
		r.ExplicitHashKey = record.HashKey(d.explicitAt[16*d.explicitRank(i):])
	}
}

// explicitRank counts the records before i that have an explicit hash key.
func (d *Decoded) explicitRank(i int) (n int) {
	for j := range i {
		n += int(d.explicit[j/8] >> (j % 8) & 1)
	}
	return n
}
