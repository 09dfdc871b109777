package block

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/storage/record"
)

// Builder gathers the records of one block and encodes it. It keeps its
// buffers between blocks and is for one goroutine.
type Builder struct {
	data     []byte
	lengths  []uint32
	keys     []byte
	keyLens  []uint16
	explicit []explicitKey
	deltas   []int64 // empty unless deltaSet
	deltaSet bool
	borrowed bool // data is the caller's

	meta, out []byte
	dense     bool // the data of the block encoded last
	zstd      *zstd.Encoder
}

type explicitKey struct {
	at  int
	key record.HashKey
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("BUG: zstd encoder options: " + err.Error())
	}
	return &Builder{zstd: enc}
}

// Reset makes the builder empty.
func (b *Builder) Reset() {
	b.data, b.lengths, b.keys, b.keyLens = b.data[:0], b.lengths[:0], b.keys[:0], b.keyLens[:0]
	b.explicit, b.deltas, b.deltaSet = b.explicit[:0], b.deltas[:0], false
	// Whose block is one record's has the caller's data, and a record of several MiB must
	// not be paid for until the end of the process.
	if cap(b.data) > 4*MaxRawBytes || b.borrowed {
		b.data, b.borrowed = nil, false
	}
	if cap(b.out) > 4*MaxRawBytes {
		b.out = nil
	}
}

// Count returns how many records were added.
func (b *Builder) Count() int { return len(b.lengths) }

// DataBytes returns how many bytes of data were added.
func (b *Builder) DataBytes() int { return len(b.data) }

// Fits says whether a record with so much data belongs in this block: an
// empty block takes any record.
func (b *Builder) Fits(dataLen int) bool {
	return len(b.lengths) == 0 || (len(b.data)+dataLen <= MaxRawBytes && len(b.lengths) < MaxRecords && len(b.keys) < 4*MaxRawBytes)
}

// Add puts one record into the block. explicit is nil when the record has
// no explicit hash key; deltaMS is its arrival relative to the block's. Data above
// MaxRawBytes is a block of its own and not copied: it must stay as it is until the
// builder is reset.
func (b *Builder) Add(partitionKey []byte, explicit *record.HashKey, data []byte, deltaMS int64) {
	if explicit != nil {
		b.explicit = append(b.explicit, explicitKey{len(b.lengths), *explicit})
	}
	b.lengths = append(b.lengths, uint32(len(data)))
	b.keyLens = append(b.keyLens, uint16(len(partitionKey)))
	b.keys = append(b.keys, partitionKey...)
	if len(data) > MaxRawBytes && len(b.lengths) == 1 {
		b.data, b.borrowed = data[:len(data):len(data)], true
	} else {
		b.data = append(b.data, data...)
	}
	if deltaMS != 0 && !b.deltaSet {
		b.deltaSet = true
		b.deltas = append(b.deltas[:0], make([]int64, len(b.lengths)-1)...)
	}
	if b.deltaSet {
		b.deltas = append(b.deltas, deltaMS)
	}
}

// Stamp is when a block's first record arrived.
type Stamp struct {
	// ArrivalMS is the wall clock, milliseconds since 1970.
	ArrivalMS int64
	// MonotonicMS counts from the open of the store.
	MonotonicMS int64
	// Uncertain says that the wall clock was not known to be right.
	Uncertain bool
}

// Encode returns the block, in a buffer that the next call on the builder
// uses again. Frames that compression would not shrink stay raw. The builder
// must hold at least one record.
func (b *Builder) Encode(codec Codec, at Stamp) []byte {
	if len(b.lengths) == 0 {
		panic("BUG: encode of an empty block")
	}
	b.meta = b.appendMeta(b.meta[:0])
	metaCodec := codec
	if len(b.lengths) < compressMetaFrom {
		metaCodec = Raw
	}
	var header [HeaderBytes]byte
	out := append(b.out[:0], header[:]...)
	out, metaCodec = b.appendFrame(out, metaCodec, b.meta)
	metaBytes := len(out) - HeaderBytes
	if len(b.data) < compressFromBytes {
		codec = Raw
	}
	asked := codec
	out, codec = b.appendFrame(out, codec, b.data)
	b.dense = codec != Raw || asked != Raw && len(b.data) >= denseFrom
	h := Header{
		DataCodec: codec, MetaCodec: metaCodec, Explicit: len(b.explicit) > 0, Deltas: b.deltaSet, Uncertain: at.Uncertain,
		Count: len(b.lengths), DataRawBytes: len(b.data), MetaBytes: metaBytes, ArrivalMS: at.ArrivalMS, MonotonicMS: at.MonotonicMS,
	}
	h.put(out)
	binary.LittleEndian.PutUint32(out[16:], checksum(out))
	b.out = out
	return out
}

// denseFrom is the data of a block that compression has to have something to work with.
// Smaller ones may gain by being compressed together with others.
const denseFrom = MaxRawBytes / 2

// Dense says of the block encoded last that there is nothing to gain by compressing it
// again: its data was compressed, or is much and would not become smaller.
func (b *Builder) Dense() bool { return b.dense }

func (b *Builder) appendMeta(m []byte) []byte {
	at := len(m)
	m = append(m, 0)
	m, dataWidth := appendLengths(m, b.lengths, 0)
	prefix := b.keyPrefix()
	m = binary.AppendUvarint(m, uint64(prefix))
	m = append(m, b.keys[:prefix]...)
	m, keyWidth := appendLengths(m, b.keyLens, uint16(prefix))
	m[at] = byte(dataWidth | keyWidth<<4)
	for keys, i := b.keys, 0; i < len(b.keyLens); i++ {
		m = append(m, keys[prefix:b.keyLens[i]]...)
		keys = keys[b.keyLens[i]:]
	}
	if len(b.explicit) > 0 {
		at := len(m)
		m = append(m, make([]byte, (len(b.lengths)+7)/8)...)
		for _, e := range b.explicit {
			m[at+e.at/8] |= 1 << (e.at % 8)
		}
		for _, e := range b.explicit {
			m = append(m, e.key[:]...)
		}
	}
	if b.deltaSet {
		for _, d := range b.deltas {
			m = binary.AppendVarint(m, d)
		}
	}
	return m
}

// keyPrefix returns how many bytes all partition keys have in common at the
// front. Written once instead of in every key, it halves the meta frame's raw
// size for keys as devices have them, and with it the time to make and to read one.
func (b *Builder) keyPrefix() int {
	prefix := b.keys[:b.keyLens[0]]
	for keys, i := b.keys, 0; i < len(b.keyLens) && len(prefix) > 0; i++ {
		n := int(b.keyLens[i])
		key := keys[:min(n, len(prefix))]
		prefix = prefix[:len(key)]
		if !bytes.Equal(prefix, key) {
			same := 0
			for prefix[same] == key[same] {
				same++
			}
			prefix = prefix[:same]
		}
		keys = keys[n:]
	}
	return len(prefix)
}

// appendLengths appends the least of the lengths and what each is above it, in
// the least width that holds them all. Every length is first reduced by less.
func appendLengths[T uint16 | uint32](m []byte, lengths []T, less T) (_ []byte, width int) {
	least, most := lengths[0], lengths[0]
	for _, n := range lengths {
		least, most = min(least, n), max(most, n)
	}
	m = binary.AppendUvarint(m, uint64(least-less))
	switch span := uint64(most - least); {
	case span == 0:
		return m, 0
	case span < 1<<8:
		width = 1
	case span < 1<<16:
		width = 2
	default:
		width = 4
	}
	at := len(m)
	m = slices.Grow(m, len(lengths)*width)[:at+len(lengths)*width]
	out := m[at:]
	for i, n := range lengths {
		switch n -= least; width {
		case 1:
			out[i] = byte(n)
		case 2:
			binary.LittleEndian.PutUint16(out[2*i:], uint16(n))
		case 4:
			binary.LittleEndian.PutUint32(out[4*i:], uint32(n))
		}
	}
	return m, width
}

// appendFrame appends src compressed, or as it is when that is not longer.
func (b *Builder) appendFrame(out []byte, codec Codec, src []byte) ([]byte, Codec) {
	at := len(out)
	switch codec {
	case Zstd:
		if len(src) > MaxRawBytes {
			// One record. The encoder would grow its output step by step, and leave five
			// times the record behind as garbage.
			out = slices.Grow(out, len(src)+len(src)/1024+64)
		}
		out = b.zstd.EncodeAll(src, out)
	case S2:
		need := s2.MaxEncodedLen(len(src))
		if cap(out)-at < need {
			out = append(make([]byte, 0, 2*at+need), out...)
		}
		out = out[:at+len(s2.Encode(out[at:at+need], src))]
	}
	if codec == Raw || len(out)-at >= len(src) {
		return append(out[:at], src...), Raw
	}
	return out, codec
}
