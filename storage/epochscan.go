package storage

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

// listUnlisted reads the epochs that have no row and makes rows for them. It
// returns the first epoch never used and the latest arrival in the store.
func (s *Store) listUnlisted(ctx context.Context, f *found, b *pebble.Batch) (next uint32, lastMS int64, err error) {
	for i := range f.epochs {
		e := &f.epochs[i]
		next, lastMS = max(next, e.Epoch+1), max(lastMS, e.EndMS)
	}
	for _, r := range f.sessions {
		next, lastMS = max(next, r.NextEpoch, r.FirstEpoch), max(lastMS, r.LastKnownMS)
	}
	if len(f.unlisted) == 0 {
		return next, lastMS, nil
	}
	top := f.newestRuns()
	for _, k := range f.unlisted {
		row, err := s.scanEpoch(ctx, f, k, top)
		if err != nil {
			return 0, 0, err
		}
		next = max(next, k.Epoch+1)
		if len(row.Runs) == 0 {
			// Without a row nothing takes it away: repair sets it aside first.
			s.unreadable = append(s.unreadable, k)
			continue
		}
		row.Session, row.EndMS = f.sessionOf(k.Epoch), max(row.EndMS, lastMS)
		lastMS = max(lastMS, row.EndMS)
		f.epochs = append(f.epochs, listed{k, row})
		if err := b.Set(keyspace.MetaEpoch(k.Epoch, k.Lane), row.Encode(), nil); err != nil {
			return 0, 0, err
		}
	}
	slices.SortFunc(f.epochs, func(a, b listed) int { return compareKeys(a.Key, b.Key) })
	return next, lastMS, nil
}

func (f *found) sessionOf(e uint32) (session uint32) {
	for _, r := range f.sessions {
		if r.FirstEpoch <= e {
			session = max(session, r.Session)
		}
	}
	return session
}

// scanEpoch makes the row of an epoch from its blocks, of those that can be read.
func (s *Store) scanEpoch(ctx context.Context, f *found, k epoch.Key, top map[uint32]keyspace.EpochRun) (keyspace.EpochRow, error) {
	sc := epochScan{s: s, f: f, top: top}
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: keyspace.EpochStart(k.Lane, k.Epoch), UpperBound: keyspace.AppendPrefixEnd(nil, keyspace.EpochStart(k.Lane, k.Epoch)),
	})
	if err != nil {
		return sc.row, err
	}
	var last []byte // key of the block read last
	var ends [][]byte
	for ok := it.First(); ; {
		for ; ok; ok = it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				break
			}
			sc.block(it.Key(), value)
			last = append(last[:0], it.Key()...)
		}
		err := it.Error()
		if err == nil {
			break
		}
		if !isDamage(err) {
			return sc.row, errors.Join(err, it.Close())
		}
		if sc.broken == nil {
			s.log.Error("an epoch can't be read whole", "epoch", k.Epoch, "lane", k.Lane, "cause", firstLine(err.Error()))
			ends = s.endsIn(ctx, k)
		}
		sc.broken, sc.gap = err, true
		// Behind the block that it broke in there may be others.
		for ok = false; !ok && len(ends) > 0; ends = ends[1:] {
			if bytes.Compare(ends[0], last) > 0 {
				ok = it.SeekGE(append(bytes.Clone(ends[0]), 0))
			}
		}
		if !ok {
			break
		}
	}
	_ = it.Close() // its error was reported
	if sc.broken != nil {
		sc.end(k)
	}
	for _, r := range sc.row.Runs {
		if r.Last > top[r.Shard].Last {
			top[r.Shard] = r
		}
	}
	return sc.row, ctx.Err()
}

// endsIn returns keys at the ends of the blocks of the tables that hold an epoch.
func (s *Store) endsIn(ctx context.Context, k epoch.Key) (ends [][]byte) {
	for i := range s.tables {
		t := &s.tables[i]
		if t.from.Lane != k.Lane || t.from.Epoch > k.Epoch || t.to.Epoch < k.Epoch {
			continue
		}
		more, err := s.endsOf(ctx, t)
		if err != nil { // then nothing of it can be read
			s.log.Error("a table's index can't be read", "table", tableName(t.number), "cause", firstLine(err.Error()))
			continue
		}
		ends = append(ends, more...)
	}
	slices.SortFunc(ends, bytes.Compare)
	return ends
}

func (s *Store) endsOf(ctx context.Context, t *table) ([][]byte, error) {
	f, err := openTable(s.o.FS.Open(s.o.FS.PathJoin(s.dir, engineDir, tableName(t.number))))
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o := pebbleOptions(s.o, s.o.FS, nil, nil)
	o.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	ends, err := blockEnds(ctx, r)
	return ends, errors.Join(err, r.Close())
}

// epochScan gathers the row of an epoch.
type epochScan struct {
	s      *Store
	f      *found
	top    map[uint32]keyspace.EpochRun
	row    keyspace.EpochRow
	broken error // why not all of the epoch could be read
	gap    bool  // it broke behind the block read last
}

// next returns the first index that a shard's records in this epoch can have, if there
// is one at or before index.
func (sc *epochScan) next(shard uint32, index uint64) uint64 {
	n := max(sc.top[shard].Last+1, sc.f.trims[shard])
	for _, j := range sc.f.jumps[shard] {
		if n <= j.Last && j.Last < index {
			n = j.Last + 1
		}
	}
	return min(n, index)
}

// lost names records that a broken block held.
func (sc *epochScan) lost(shard uint32, first, last uint64, reason string) {
	d := sc.f.shardNames()[shard]
	d.First, d.Last, d.Reason = first, last, reason
	sc.s.recovery.Damaged = append(sc.s.recovery.Damaged, d)
}

// end enters what the tables of the epoch are known to end with.
func (sc *epochScan) end(k epoch.Key) {
	for i := range sc.s.tables {
		to, n := sc.s.tables[i].to, len(sc.row.Runs)-1
		if to.Lane != k.Lane || to.Epoch != k.Epoch || n < 0 || to.Shard < sc.row.Runs[n].Shard {
			continue
		}
		if to.Shard > sc.row.Runs[n].Shard {
			sc.endless(to.Shard)
			sc.row.Runs = append(sc.row.Runs, keyspace.EpochRun{Shard: to.Shard, Last: sc.next(to.Shard, to.Last) - 1, EndMS: sc.top[to.Shard].EndMS})
			n++
		}
		if r := &sc.row.Runs[n]; r.Last < to.Last {
			sc.lost(to.Shard, r.Last+1, to.Last, firstLine(sc.broken.Error()))
			r.Count += to.Last - r.Last
			r.Last = to.Last
		}
		sc.gap = false
	}
	if sc.gap {
		sc.endless(math.MaxUint32)
	}
}

// endless notes the shards whose last records may be in what can't be read before the
// records of shard upTo.
func (sc *epochScan) endless(upTo uint32) {
	var from uint32
	if n := len(sc.row.Runs); n > 0 {
		from = sc.row.Runs[n-1].Shard
	}
	for id := range sc.f.shardNames() {
		if from <= id && id < upTo {
			sc.s.endless[id] = firstLine(sc.broken.Error())
		}
	}
}

func (sc *epochScan) block(dataKey, value []byte) {
	key, err := keyspace.ParseDataKey(dataKey)
	if err != nil {
		return
	}
	if sc.gap {
		sc.endless(key.Shard)
		sc.gap = false
	}
	delete(sc.s.endless, key.Shard)
	row, run := &sc.row, sc.top[key.Shard]
	n := len(row.Runs)
	if n == 0 || row.Runs[n-1].Shard != key.Shard {
		row.Runs = append(row.Runs, keyspace.EpochRun{Shard: key.Shard, EndMS: run.EndMS})
		n++
	}
	r := &row.Runs[n-1]
	h, err := block.Check(value)
	count := uint64(h.Count)
	if err != nil {
		// Its records are in the range, and readers report them: a block in
		// the middle must not cut off what follows.
		from := r.Last + 1
		if r.Count == 0 {
			from = sc.next(key.Shard, key.Last)
		}
		h, count = block.Header{}, key.Last-from+1
		sc.lost(key.Shard, from, key.Last, err.Error())
	}
	first := key.Last - count + 1
	if sc.broken != nil {
		if r.Count == 0 {
			r.Last = sc.next(key.Shard, first) - 1
		}
		if r.Last+1 < first {
			sc.lost(key.Shard, r.Last+1, first-1, firstLine(sc.broken.Error()))
		}
		r.Count += key.Last - r.Last
	} else if r.Count == 0 {
		r.Count = count
	} else {
		r.Count += key.Last - r.Last // what is missing in between is reported by readers
	}
	r.Last = key.Last
	r.Raw += uint64(h.DataRawBytes)
	r.Stored += uint64(len(value))
	r.EndMS = max(r.EndMS, h.ArrivalMS)
	row.EndMS = max(row.EndMS, r.EndMS)
	if row.StartMS == 0 {
		row.StartMS = h.ArrivalMS
	}
}
