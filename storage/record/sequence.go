package record

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// ShardNumber numbers a shard within its stream, from 0 upward; numbers are
// never used again.
type ShardNumber uint32

// MaxShardNumber is the highest number the outside forms can hold (signed 32 bit).
const MaxShardNumber ShardNumber = 1<<31 - 1

// ErrShardNumber means that a text names no shard.
var ErrShardNumber = errors.New("not a shard id")

// String returns the outside form, "shardId-000000000000".
func (n ShardNumber) String() string { return fmt.Sprintf("shardId-%012d", uint32(n)) }

// ParseShardNumber accepts what Kinesis accepts: digits, alone or after the
// last "-" of any prefix, up to 2147483647.
func ParseShardNumber(s string) (ShardNumber, error) {
	digits := s
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		digits = s[i+1:]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > uint64(MaxShardNumber) {
		return 0, fmt.Errorf("parse shard id %.100q: %w", s, ErrShardNumber)
	}
	return ShardNumber(n), nil
}

// MaxIndex is the index in the ending sequence number of a closed shard; no
// record ever has it.
const MaxIndex uint64 = 1<<63 - 1

// maxSequenceSeconds bounds the time fields: 9 hex digits, and no later than
// what the service itself accepts.
const maxSequenceSeconds = 16_025_175_000 - 1

// SequenceNumber is the outside identity of a record: the 186-bit version-2
// form of Kinesis. Within a shard it grows with the index. The zero value is
// not a valid number.
//
// Hex digits from the left: "2", creation time of the shard (9, seconds), low
// digit of the shard number (1), index (16), zero byte (2), time of the
// record (9, seconds), shard number (8), version "2".
type SequenceNumber struct {
	created uint64
	index   uint64
	seconds uint64
	shard   ShardNumber
}

// ErrSequenceNumber means that a text is not a version-2 sequence number.
var ErrSequenceNumber = errors.New("not a sequence number")

// NewSequenceNumber builds a number from the shard's creation time and the
// record's time, both in seconds since 1970 and clamped to what the form can
// hold, and the index, at most MaxIndex.
func NewSequenceNumber(created int64, shard ShardNumber, index uint64, seconds int64) SequenceNumber {
	return SequenceNumber{created: clampSeconds(created), index: min(index, MaxIndex), seconds: clampSeconds(seconds), shard: shard}
}

func clampSeconds(s int64) uint64 { return uint64(min(max(s, 0), maxSequenceSeconds)) }

// Index returns the record's index in its shard.
func (s SequenceNumber) Index() uint64 { return s.index }

// Shard returns the number of the shard.
func (s SequenceNumber) Shard() ShardNumber { return s.shard }

// Created returns the creation time of the shard, in seconds since 1970.
func (s SequenceNumber) Created() int64 { return int64(s.created) }

// Seconds returns the time of the record, in seconds since 1970.
func (s SequenceNumber) Seconds() int64 { return int64(s.seconds) }

// IsZero says whether s is the zero value, which is no number.
func (s SequenceNumber) IsZero() bool { return s == SequenceNumber{} }

// words returns the 186 bits as three words, highest first.
func (s SequenceNumber) words() (hi, mid, lo uint64) {
	// Bit positions from the right: version 0, shard 4, time 36, zero byte 72,
	// index 80, low shard digit 144, created 148, leading 2 at 184.
	lo = 2 | uint64(s.shard)<<4 | s.seconds<<36
	mid = s.seconds>>28 | s.index<<16
	hi = s.index>>48 | uint64(s.shard&0xf)<<16 | s.created<<20 | 2<<56
	return hi, mid, lo
}

// Cmp compares as integers, as every reader of sequence numbers must.
func (s SequenceNumber) Cmp(o SequenceNumber) int {
	ah, am, al := s.words()
	bh, bm, bl := o.words()
	switch {
	case ah != bh:
		return cmp(ah, bh)
	case am != bm:
		return cmp(am, bm)
	}
	return cmp(al, bl)
}

func cmp(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// String returns the decimal text, 56 digits.
func (s SequenceNumber) String() string { return string(s.AppendTo(nil)) }

// AppendTo appends the decimal text to b without allocating when b has room.
func (s SequenceNumber) AppendTo(b []byte) []byte {
	hi, mid, lo := s.words()
	return appendDecimal192(b, hi, mid, lo)
}

// ParseSequenceNumber reads the decimal text of a version-2 number. It
// returns ErrSequenceNumber, wrapped, when the text is not one.
func ParseSequenceNumber(text string) (SequenceNumber, error) {
	bad := func() (SequenceNumber, error) {
		return SequenceNumber{}, fmt.Errorf("parse sequence number %.80q: %w", text, ErrSequenceNumber)
	}
	if len(text) == 0 || len(text) > 57 {
		return bad()
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return bad()
		}
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.BitLen() != 186 {
		return bad()
	}
	var raw [24]byte
	n.FillBytes(raw[:])
	hi, mid, lo := word(raw[0:]), word(raw[8:]), word(raw[16:])
	s := SequenceNumber{
		created: hi >> 20 & (1<<36 - 1),
		index:   hi<<48 | mid>>16,
		seconds: mid&0xff<<28 | lo>>36,
		shard:   ShardNumber(lo >> 4),
	}
	// Everything the fields don't hold must be what words writes.
	h, m, l := s.words()
	if h != hi || m != mid || l != lo || s.index > MaxIndex || s.created > maxSequenceSeconds || s.seconds > maxSequenceSeconds || s.shard > MaxShardNumber {
		return bad()
	}
	return s, nil
}

func word(b []byte) (w uint64) {
	for i := range 8 {
		w = w<<8 | uint64(b[i])
	}
	return w
}
