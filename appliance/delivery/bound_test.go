package delivery

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/columnar"
)

// TestTwoAttemptsFitIntoTheBound: with any format and any number of cores an attempt
// takes half of the bound at most, so that a sink that hangs leaves the others theirs.
func TestTwoAttemptsFitIntoTheBound(t *testing.T) {
	m := newMemory(DefaultMemoryBytes)
	r := &Recipe{Ranges: []Range{{Records: partitionedBytes / 256}}}
	for _, partition := range []*Partition{nil, {Query: "{p: .p}", MaxActive: 500}} {
		configs := []Config{{Parquet: &Parquet{}}}
		for _, c := range codec.All {
			configs = append(configs, Config{Compression: Compression{Format: c}})
		}
		for _, c := range configs {
			c.Partition = partition
			b := &binding{config: c}
			for there := range 64 {
				n := b.workers(r, there+1, freeColumns, m.share())
				if took := b.memory(r, n, freeColumns); took > m.share() || n < 1 {
					t.Errorf("partitions %t, Parquet %t, %q: %d of %d workers take %d bytes", partition != nil, c.Parquet != nil, c.Compression.Format, n, there+1, took)
				}
			}
		}
	}
	b := &binding{config: Config{Compression: Compression{Format: codec.Gzip}}}
	if n := b.workers(r, 2, 0, m.share()); n != 2 {
		t.Errorf("%d workers where there is room for two", n)
	}
	wide := make(columnar.Schema, 100)
	for i := range wide {
		wide[i].Type = "string"
	}
	narrow, declared := &binding{config: Config{Parquet: &Parquet{}}}, &binding{config: Config{Parquet: &Parquet{Schema: wide}}}
	if met, known := narrow.memory(r, 1, 100), declared.memory(r, 1, 0); met != known || known-narrow.memory(r, 1, 0) != (100-freeColumns)*columnBytes {
		t.Errorf("100 columns that were met take %d bytes, and declared ones %d", met, known)
	}
	b = &binding{sink: struct{ RecordSink }{}}
	if took := b.memory(r, 1, 0); took < partBytes*7/3 || took > m.share() {
		t.Errorf("a request takes %d bytes", took)
	}
}

// TestAttemptIsCountedInFull: one that takes more than half of the bound has none of its
// size beside it, failing or not, and one of more than all of it is alone.
func TestAttemptIsCountedInFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(100)
		for _, c := range []struct {
			first, second int64
			failing, fits bool
		}{
			{50, 50, false, true}, {60, 50, false, false}, {60, 40, true, true}, {60, 50, true, false}, {300, 1, false, false}, {300, 1, true, false},
		} {
			release, err := m.acquire(t.Context(), c.first, c.failing)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 1)
			other, err := m.acquire(ctx, c.second, false)
			if fits := err == nil; fits != c.fits || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v: %v", c, err)
			}
			cancel()
			if other != nil {
				other()
			}
			release()
		}
		all, err := m.acquire(t.Context(), 100, false)
		if err != nil {
			t.Fatal(err)
		}
		all() // everything was given back
	})
}
