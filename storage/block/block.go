// Package block encodes and decodes blocks: runs of records of one shard,
// compressed and checksummed together, the unit in which records are stored,
// exported and forwarded.
//
// A block is a header, a meta frame and a data frame, all integers little endian:
//
//	off len
//	  0   1  version, 1
//	  1   1  codec of the data frame (low half) and of the meta frame (high half): 0 raw, 1 S2, 2 zstd
//	  2   1  flags: 1 explicit hash keys, 2 arrival deltas, 4 the clock was not known to be right
//	  3   1  zero
//	  4   4  count of records, at least 1
//	  8   4  length of the data before compression
//	 12   4  length of the meta frame as stored
//	 16   4  CRC-32C of bytes 0-15, 20-31, the meta frame and the data frame
//	 20   6  arrival of the first record, milliseconds since 1970
//	 26   6  the same instant, milliseconds since the store was opened (monotonic)
//	 32      meta frame, then data frame to the end
//
// The meta frame, once decompressed, holds in columns: one byte with the widths
// in bytes (0, 1, 2 or 4) of the data lengths (low half) and of the key lengths
// (high half); the least data length (uvarint) and count times what a length is
// above it; the length of what all partition keys begin with (uvarint) and its
// bytes; the lengths of the rest of each key, as those of the data; these rests
// end to end; with flag 1 a bitmap of count bits (low bit first) and 16
// bytes for each set bit; with flag 2 count arrival deltas in milliseconds to
// the header's arrival (varint). The data frame holds the records' data end to
// end and nothing else, so that data frames put one after the other are the
// stream of the records' data: with zstd each is a complete frame.
//
// The package is a leaf over package record. It owns no files and never
// retains what it is given.
package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// Version is the format version in every header.
	Version = 1
	// HeaderBytes is the length of the header.
	HeaderBytes = 32
	// MaxRawBytes is how much data a block of several records holds before
	// compression. A record over it has a block of its own.
	MaxRawBytes = 64 << 10
	// MaxRecords bounds the records of one block, which bounds what decoding needs.
	MaxRecords = 16 << 10
	// maxDecodedBytes bounds what a decoder makes of one frame.
	maxDecodedBytes = 16 << 20
	// compressFromBytes is where compression begins to win.
	compressFromBytes = 400
	// compressMetaFrom is the count of records from which the meta frame is worth compressing.
	compressMetaFrom = 16
)

// Codec is how a frame is compressed. The numbers are on disk.
type Codec uint8

// The codecs.
const (
	Raw  Codec = 0
	S2   Codec = 1
	Zstd Codec = 2
)

// String returns the codec's name as inspect prints it.
func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec-%d", uint8(c))
}

// Flags of a block.
const (
	flagExplicit  = 1
	flagDeltas    = 2
	flagUncertain = 4
	flagsKnown    = flagExplicit | flagDeltas | flagUncertain
)

// ErrCorrupt means that bytes are not a block, or not the one that was written.
var ErrCorrupt = errors.New("corrupt block")

// ErrNewer means that a newer version wrote the block.
var ErrNewer = errors.New("block has a newer format version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is a block's header without its checksum.
type Header struct {
	DataCodec, MetaCodec Codec
	// Explicit says that some record carries an explicit hash key.
	Explicit bool
	// Deltas says that records carry their own arrival times.
	Deltas bool
	// Uncertain says that the wall clock was not known to be right.
	Uncertain bool
	// Count is the number of records.
	Count int
	// DataRawBytes is the length of the data before compression.
	DataRawBytes int
	// MetaBytes is the length of the meta frame as stored.
	MetaBytes int
	// ArrivalMS is the arrival of the first record, milliseconds since 1970.
	ArrivalMS int64
	// MonotonicMS is the same instant in milliseconds since the store was opened.
	MonotonicMS int64
}

func (h *Header) put(b []byte) {
	b[0] = Version
	b[1] = byte(h.DataCodec) | byte(h.MetaCodec)<<4
	b[2], b[3] = 0, 0
	if h.Explicit {
		b[2] |= flagExplicit
	}
	if h.Deltas {
		b[2] |= flagDeltas
	}
	if h.Uncertain {
		b[2] |= flagUncertain
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(h.Count))
	binary.LittleEndian.PutUint32(b[8:], uint32(h.DataRawBytes))
	binary.LittleEndian.PutUint32(b[12:], uint32(h.MetaBytes))
	put48(b[20:], h.ArrivalMS)
	put48(b[26:], h.MonotonicMS)
}

func put48(b []byte, v int64) {
	u := uint64(min(max(v, 0), 1<<48-1))
	binary.LittleEndian.PutUint32(b, uint32(u))
	binary.LittleEndian.PutUint16(b[4:], uint16(u>>32))
}

func get48(b []byte) int64 {
	return int64(uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32)
}

// checksum covers everything but its own four bytes.
func checksum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:16])
	return crc32.Update(c, castagnoli, b[20:])
}

// ParseHeader reads and checks the header of b, a whole block, without
// checksum and frames. It returns ErrCorrupt or ErrNewer, wrapped.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < HeaderBytes {
		return h, fmt.Errorf("%w: %d bytes, a header has %d", ErrCorrupt, len(b), HeaderBytes)
	}
	if b[0] > Version {
		return h, fmt.Errorf("%w: version %d, this program reads up to %d", ErrNewer, b[0], Version)
	}
	if b[0] != Version || b[2]&^flagsKnown != 0 || b[3] != 0 {
		return h, fmt.Errorf("%w: version %d, flags %#x", ErrCorrupt, b[0], b[2])
	}
	h.DataCodec, h.MetaCodec = Codec(b[1]&15), Codec(b[1]>>4)
	h.Explicit, h.Deltas, h.Uncertain = b[2]&flagExplicit != 0, b[2]&flagDeltas != 0, b[2]&flagUncertain != 0
	count, raw, meta := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if count == 0 || count > MaxRecords || raw > maxDecodedBytes || uint64(meta) > uint64(len(b)-HeaderBytes) ||
		h.DataCodec > Zstd || h.MetaCodec > Zstd {
		return h, fmt.Errorf("%w: %d records, %d bytes of data, %d of meta, codecs %s and %s",
			ErrCorrupt, count, raw, meta, h.DataCodec, h.MetaCodec)
	}
	h.Count, h.DataRawBytes, h.MetaBytes = int(count), int(raw), int(meta)
	h.ArrivalMS, h.MonotonicMS = get48(b[20:]), get48(b[26:])
	return h, nil
}

// Check verifies header and checksum of b without decompressing anything.
func Check(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return h, err
	}
	if want, got := binary.LittleEndian.Uint32(b[16:]), checksum(b); want != got {
		return h, fmt.Errorf("%w: checksum %08x, stored %08x", ErrCorrupt, got, want)
	}
	return h, nil
}

// DataFrame returns the data frame of b as stored. h is b's own header.
func DataFrame(h Header, b []byte) []byte { return b[HeaderBytes+h.MetaBytes:] }
