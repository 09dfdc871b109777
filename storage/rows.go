package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
)

// found is what the metadata rows and the unfinished epochs say.
type found struct {
	store    keyspace.StoreRow
	hasStore bool
	streams  []keyspace.StreamRow
	shards   []keyspace.ShardRow
	bounds   map[uint32]uint64
	trims    map[uint32]uint64
	jumps    map[uint32][]commit.Jump
	losses   map[uint32][]shard.Loss
	sessions []keyspace.SessionRow
	epochs   []listed
	unlisted []epoch.Key                 // epochs that have data but no row
	missing  []listed                    // epochs that have a row but no data
	byShard  chan map[uint32][]epoch.Run // what runs returns, when it was begun early
	bad      []string                    // rows that could not be read
}

// listed is an epoch and its directory row; several are in order of the epoch, then the lane.
type listed struct {
	epoch.Key
	keyspace.EpochRow
}

func compareKeys(a, b epoch.Key) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Lane, b.Lane))
}

// newer returns ErrNewerFormat when the row of the store says that a newer version wrote it.
func (f *found) newer() error {
	if f.hasStore && f.store.Format > keyspace.FormatVersion {
		return fmt.Errorf("version %d, this program reads up to %d: %w", f.store.Format, keyspace.FormatVersion, ErrNewerFormat)
	}
	return nil
}

func newFound() *found {
	return &found{
		bounds: map[uint32]uint64{}, trims: map[uint32]uint64{}, jumps: map[uint32][]commit.Jump{},
		losses: map[uint32][]shard.Loss{},
	}
}

// readRows reads all metadata rows that are not tables'.
func readRows(ctx context.Context, db *pebble.DB) (*found, error) {
	f := newFound()
	return f, f.readRange(ctx, db, []byte{keyspace.MetaSpace}, keyspace.AppendTableKey(nil, 0, nil))
}

// readRowsBeside is readRows where the rows of epochs are known.
func readRowsBeside(ctx context.Context, db *pebble.DB, epochs []listed) (*found, error) {
	f := newFound()
	f.epochs = epochs
	first, last := epochRows()
	err := f.readRange(ctx, db, []byte{keyspace.MetaSpace}, first)
	if err == nil {
		err = f.readRange(ctx, db, last, keyspace.AppendTableKey(nil, 0, nil))
	}
	return f, err
}

// readRange reads the rows from a key on, up to another.
func (f *found) readRange(ctx context.Context, db *pebble.DB, from, to []byte) error {
	it, err := db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	var room []keyspace.EpochRun
	for ok, n := it.First(), 1; ok; ok, n = it.Next(), n+1 {
		if n%yieldAfter == 0 {
			runtime.Gosched()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		k, err := keyspace.ParseMeta(it.Key())
		switch {
		case err != nil:
		case k.Kind == keyspace.KindEpoch:
			e := listed{Key: epoch.Key{Lane: k.Lane, Epoch: k.ID}}
			if e.EpochRow, room, err = keyspace.DecodeEpochTo(value, room); err == nil {
				f.epochs = append(f.epochs, e) // keys come in this order
			}
		default:
			err = f.add(k, value)
		}
		if err != nil {
			f.bad = append(f.bad, fmt.Sprintf("%x: %v", it.Key(), err))
		}
	}
	return it.Close()
}

// add enters one row.
func (f *found) add(k keyspace.MetaKey, v []byte) error {
	switch k.Kind {
	case keyspace.KindStore:
		f.hasStore = true
		return keyspace.DecodeJSON(v, &f.store)
	case keyspace.KindStream:
		var r keyspace.StreamRow
		if err := keyspace.DecodeJSON(v, &r); err != nil {
			return err
		}
		f.streams = append(f.streams, r)
	case keyspace.KindShard:
		var r keyspace.ShardRow
		if err := keyspace.DecodeJSON(v, &r); err != nil {
			return err
		}
		f.shards = append(f.shards, r)
	case keyspace.KindSession:
		var r keyspace.SessionRow
		if err := keyspace.DecodeJSON(v, &r); err != nil {
			return err
		}
		f.sessions = append(f.sessions, r)
	default:
		return f.addIndex(k, v)
	}
	return nil
}

// addIndex enters a row that belongs to a shard id.
func (f *found) addIndex(k keyspace.MetaKey, v []byte) error {
	switch k.Kind {
	case keyspace.KindBound, keyspace.KindTrim:
		i, err := keyspace.DecodeIndex(v)
		if err != nil {
			return err
		}
		if k.Kind == keyspace.KindBound {
			f.bounds[k.ID] = i
		} else {
			f.trims[k.ID] = i
		}
	case keyspace.KindJump:
		r, err := keyspace.DecodeJump(v)
		if err != nil {
			return err
		}
		f.jumps[k.ID] = append(f.jumps[k.ID], commit.Jump{First: k.Index, Last: r.Last})
	case keyspace.KindLoss:
		r, err := keyspace.DecodeLoss(v)
		if err != nil {
			return err
		}
		f.losses[k.ID] = append(f.losses[k.ID], shard.Loss{
			First: k.Index, Last: r.Last, Records: r.Records, Bytes: r.Bytes, Time: time.UnixMilli(r.TimeMS), Reason: r.Reason,
		})
	}
	return nil
}

// match compares the directory rows with the tables that are there: data without
// a row belongs to the epochs that were open when the last process ended.
func (f *found) match(tables []table) {
	var present []epoch.Key
	for i := range tables {
		t := &tables[i]
		for e := t.from.Epoch; t.from.Lane == t.to.Lane && e <= t.to.Epoch; e++ {
			present = append(present, epoch.Key{Lane: t.from.Lane, Epoch: e})
		}
	}
	slices.SortFunc(present, compareKeys)
	present = slices.Compact(present)
	rows := f.epochs
	for _, k := range present {
		for len(rows) > 0 && compareKeys(rows[0].Key, k) < 0 {
			f.missing = append(f.missing, rows[0])
			rows = rows[1:]
		}
		if len(rows) > 0 && rows[0].Key == k {
			rows = rows[1:]
			continue
		}
		f.unlisted = append(f.unlisted, k)
	}
	f.missing = append(f.missing, rows...)
}

// shardNames maps store-wide shard ids to what an operator knows.
func (f *found) shardNames() map[uint32]ShardRange {
	names := make(map[uint32]ShardRange, len(f.shards))
	byID := map[uint32]string{}
	for _, r := range f.streams {
		byID[r.ID] = r.Name
	}
	for _, r := range f.shards {
		names[r.ID] = ShardRange{Stream: byID[r.Stream], Shard: r.Number}
	}
	return names
}

// newestRuns returns the last run of each shard that has a row.
func (f *found) newestRuns() map[uint32]keyspace.EpochRun {
	top := map[uint32]keyspace.EpochRun{}
	for i := range f.epochs {
		for _, run := range f.epochs[i].Runs {
			if run.Last > top[run.Shard].Last {
				top[run.Shard] = run
			}
		}
	}
	return top
}

// dropOrphaned leaves out the rows of shards whose stream has none.
func (f *found) dropOrphaned() {
	streams := map[uint32]bool{}
	for i := range f.streams {
		streams[f.streams[i].ID] = true
	}
	f.shards = slices.DeleteFunc(f.shards, func(r keyspace.ShardRow) bool {
		if !streams[r.Stream] {
			f.bad = append(f.bad, fmt.Sprintf("shard %d of stream %d: no such stream", r.Number, r.Stream))
		}
		return !streams[r.Stream]
	})
}

// begin has the runs gathered while other things are done, unless there will be rows for
// more epochs.
func (f *found) begin() {
	if len(f.unlisted) == 0 {
		f.byShard = make(chan map[uint32][]epoch.Run, 1)
		go func() { f.byShard <- f.runs() }()
	}
}

// runs gathers each shard's runs in order, without those that were trimmed.
func (f *found) runs() map[uint32][]epoch.Run {
	type shardRuns struct {
		runs  []epoch.Run
		trim  uint64
		count int
	}
	byShard := map[uint32]*shardRuns{}
	// Most epochs have runs of the shards that the one before has, in that order.
	var before []uint32
	var at []*shardRuns
	of := func(i int, shard uint32) *shardRuns {
		if i < len(before) && before[i] == shard {
			return at[i]
		}
		s := byShard[shard]
		if s == nil {
			s = &shardRuns{trim: f.trims[shard]}
			byShard[shard] = s
		}
		before, at = append(before[:min(i, len(before))], shard), append(at[:min(i, len(at))], s)
		return s
	}
	for i := range f.epochs {
		for j := range f.epochs[i].Runs {
			of(j, f.epochs[i].Runs[j].Shard).count++
		}
	}
	for i := range f.epochs {
		e := &f.epochs[i]
		for j := range e.Runs {
			r := &e.Runs[j]
			s := of(j, r.Shard)
			if r.Last < s.trim {
				continue
			}
			if s.runs == nil {
				s.runs = make([]epoch.Run, 0, s.count)
			}
			s.runs = append(s.runs, epoch.Run{
				Last: r.Last, EndMS: r.EndMS, Raw: r.Raw, Stored: uint32(r.Stored), Count: uint32(r.Count),
				Epoch: e.Epoch, Lane: e.Lane, Thin: r.Thin,
			})
		}
	}
	out := make(map[uint32][]epoch.Run, len(byShard))
	for id, s := range byShard {
		if s.runs == nil {
			continue
		}
		runs := s.runs
		out[id] = runs
		slices.SortFunc(runs, func(a, b epoch.Run) int { return cmp.Compare(a.Last, b.Last) })
		var top int64
		for i := range runs {
			top = max(top, runs[i].EndMS)
			runs[i].EndMS = top
		}
	}
	return out
}
