package commit

import (
	"math"
	"sync/atomic"
	"time"
)

// stats counts for Stats; any goroutine may read.
type stats struct {
	records, raw, keyBytes, stored, blocks atomic.Uint64
	batch, groups, txns, epochs            atomic.Uint64
	ewma                                   atomic.Int64
	ratioBits                              atomic.Uint64
	last                                   struct{ raw, batch uint64 }
}

// Stats are totals since the open.
type Stats struct {
	Records     uint64 // committed
	DataBytes   uint64 // of their data
	KeyBytes    uint64 // of their partition keys
	StoredBytes uint64 // of their blocks
	Blocks      uint64
	BatchBytes  uint64 // handed to Pebble, rows included
	Groups      uint64 // syncs
	Txns        uint64
	Epochs      uint64        // closed
	CommitTime  time.Duration // running mean of write and sync
}

// Stats returns the totals since the open.
func (c *Committer) Stats() Stats {
	s := &c.stats
	return Stats{
		Records: s.records.Load(), DataBytes: s.raw.Load(), KeyBytes: s.keyBytes.Load(), StoredBytes: s.stored.Load(),
		Blocks: s.blocks.Load(), BatchBytes: s.batch.Load(), Groups: s.groups.Load(), Txns: s.txns.Load(),
		Epochs: s.epochs.Load(), CommitTime: time.Duration(s.ewma.Load()),
	}
}

// group enters a group and follows how far groups shrink.
func (s *stats) group(g *group, _ time.Duration, ewma time.Duration) {
	s.groups.Add(1)
	s.txns.Add(uint64(g.ops))
	s.ewma.Store(int64(ewma))
	raw, batch := s.raw.Load()+s.keyBytes.Load(), s.batch.Load()
	if d := raw - s.last.raw; d >= 64<<10 {
		r := float64(batch-s.last.batch) / float64(d)
		if old := s.ratio(); s.ratioBits.Load() != 0 {
			r = 0.75*old + 0.25*r
		}
		s.ratioBits.Store(math.Float64bits(r))
		s.last.raw, s.last.batch = raw, batch
	}
}

// ratio estimates batch bytes per byte of a group, on the safe side.
func (s *stats) ratio() float64 {
	if b := s.ratioBits.Load(); b != 0 {
		return min(1.1, 1.3*math.Float64frombits(b))
	}
	return 1.1
}
