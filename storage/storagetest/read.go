package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// ReadAll reads a shard from a position to its tip or its end, in calls of
// uneven sizes, and returns copies.
func ReadAll(st *storage.Stream, n record.ShardNumber, p storage.Position) ([]Record, error) {
	r, err := st.NewReader(n, p)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []Record
	for call := 1; ; call++ {
		k, err := r.Read(1+call*call%97, 1<<20, func(rec *record.Record) bool {
			all = append(all, copyOf(rec))
			return true
		})
		if errors.Is(err, io.EOF) || err == nil && k == 0 {
			return all, nil
		}
		if err != nil {
			return all, fmt.Errorf("read %s after %d records: %w", n, len(all), err)
		}
	}
}

func copyOf(r *record.Record) Record {
	c := Record{Index: r.Index, Arrival: r.Arrival, Key: string(r.PartitionKey), Data: bytes.Clone(r.Data)}
	if r.HasExplicitHashKey {
		h := r.ExplicitHashKey
		c.Explicit = &h
	}
	return c
}

// evenRanges cuts the hash keys into n ranges as CreateStream does: all of
// width floor(2^128/n), the last one to the end.
func evenRanges(n int) []record.HashRange {
	width := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(n)))
	ranges := make([]record.HashRange, n)
	for i := range ranges {
		first := new(big.Int).Mul(width, big.NewInt(int64(i)))
		first.FillBytes(ranges[i].First[:])
		last := new(big.Int).Sub(new(big.Int).Add(first, width), big.NewInt(1))
		if i == n-1 {
			last = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1))
		}
		last.FillBytes(ranges[i].Last[:])
	}
	return ranges
}

// after returns h+1.
func after(h record.HashKey) record.HashKey {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i]++; h[i] != 0 {
			break
		}
	}
	return h
}

// before returns h-1.
func before(h record.HashKey) record.HashKey {
	for i := len(h) - 1; i >= 0; i-- {
		h[i]--
		if h[i] != 0xff {
			break
		}
	}
	return h
}

// middle returns a hash key about in the middle of the range, and whether there
// is one that splits it into two.
func middle(r record.HashRange) (record.HashKey, bool) {
	a, b := new(big.Int).SetBytes(r.First[:]), new(big.Int).SetBytes(r.Last[:])
	if new(big.Int).Sub(b, a).Cmp(big.NewInt(4)) < 0 {
		return record.HashKey{}, false
	}
	var h record.HashKey
	new(big.Int).Rsh(a.Add(a, b), 1).FillBytes(h[:])
	return h, true
}
