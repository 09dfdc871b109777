package record

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
)

// HashKey is a position on the 128-bit ring that routes records to shards,
// big endian. The zero HashKey is the lowest one.
type HashKey [16]byte

// MaxHashKey is the highest hash key, 2^128-1.
var MaxHashKey = HashKey{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ErrHashKey means that a text is not a decimal number in 0 … 2^128-1.
var ErrHashKey = errors.New("hash key out of range [0, 2^128-1]")

// HashOf returns the hash key of a partition key: the MD5 of its bytes, read
// as an unsigned big-endian number (Kinesis API reference, PutRecord).
func HashOf(partitionKey []byte) HashKey { return md5.Sum(partitionKey) }

// ParseHashKey reads a decimal number without sign or leading zeros other
// than "0" itself. It returns ErrHashKey, wrapped, for anything else.
func ParseHashKey(s string) (HashKey, error) {
	var hi, lo uint64
	if len(s) == 0 || len(s) > 39 || (s[0] == '0' && len(s) > 1) {
		return HashKey{}, fmt.Errorf("parse hash key %.50q: %w", s, ErrHashKey)
	}
	for i := 0; i < len(s); i++ {
		d := uint64(s[i]) - '0'
		if d > 9 {
			return HashKey{}, fmt.Errorf("parse hash key %.50q: %w", s, ErrHashKey)
		}
		over, h := bits.Mul64(hi, 10)
		c, l := bits.Mul64(lo, 10)
		l, carry := bits.Add64(l, d, 0)
		h, carry = bits.Add64(h, c, carry)
		if over != 0 || carry != 0 {
			return HashKey{}, fmt.Errorf("parse hash key %.50q: %w", s, ErrHashKey)
		}
		hi, lo = h, l
	}
	return hashKeyFrom(hi, lo), nil
}

// String returns the key as a decimal number.
func (h HashKey) String() string { return new(big.Int).SetBytes(h[:]).String() }

// Cmp returns -1, 0 or 1 as h is below, equal to or above o.
func (h HashKey) Cmp(o HashKey) int { return bytes.Compare(h[:], o[:]) }

// Next returns h+1, and false when h is the highest key.
func (h HashKey) Next() (HashKey, bool) {
	for i := len(h) - 1; i >= 0; i-- {
		h[i]++
		if h[i] != 0 {
			return h, true
		}
	}
	return h, false
}

// Prev returns h-1, and false when h is the lowest key.
func (h HashKey) Prev() (HashKey, bool) {
	for i := len(h) - 1; i >= 0; i-- {
		h[i]--
		if h[i] != 0xff {
			return h, true
		}
	}
	return h, false
}

// HashRange is a range of hash keys with both ends in it.
type HashRange struct{ First, Last HashKey }

// Contains says whether h lies in the range.
func (r HashRange) Contains(h HashKey) bool { return r.First.Cmp(h) <= 0 && h.Cmp(r.Last) <= 0 }

// Mid returns the first key of the upper half of the range, and false when
// the range holds a single key and can't be halved.
func (r HashRange) Mid() (HashKey, bool) {
	if r.First == r.Last {
		return HashKey{}, false
	}
	first, last := new(big.Int).SetBytes(r.First[:]), new(big.Int).SetBytes(r.Last[:])
	mid := new(big.Int).Add(first, last)
	mid.Rsh(mid, 1).Add(mid, big.NewInt(1))
	var h HashKey
	mid.FillBytes(h[:])
	return h, true
}

// SplitRing cuts the whole ring into n ranges of equal width; the last one
// takes what the division leaves over (kinesis-api: CreateStream). n is at least 1.
func SplitRing(n int) []HashRange {
	width := new(big.Int).Lsh(big.NewInt(1), 128)
	width.Div(width, big.NewInt(int64(n)))
	out := make([]HashRange, n)
	start := new(big.Int)
	for i := range out {
		start.FillBytes(out[i].First[:])
		start.Add(start, width)
		if i == n-1 {
			out[i].Last = MaxHashKey
			break
		}
		new(big.Int).Sub(start, big.NewInt(1)).FillBytes(out[i].Last[:])
	}
	return out
}

func hashKeyFrom(hi, lo uint64) (h HashKey) {
	for i := range 8 {
		h[i] = byte(hi >> (56 - 8*i))
		h[8+i] = byte(lo >> (56 - 8*i))
	}
	return h
}
