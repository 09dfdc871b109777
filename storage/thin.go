package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
)

// maxThin is how often an epoch is thinned: one block in 2^maxThin stays,
// then the oldest epoch goes as a whole.
const maxThin = 4

// thinnest returns the oldest epoch of the lowest thinning level that a
// stream still has, and the level; not ok when all are at maxThin.
func thinnest(st *Stream) (e uint32, level uint8, ok bool) {
	for _, sh := range st.All() {
		for _, r := range sh.Closed() {
			if r.Thin < maxThin && (!ok || r.Thin < level || (r.Thin == level && r.Epoch < e)) {
				e, level, ok = r.Epoch, r.Thin, true
			}
		}
	}
	return e, level, ok
}

// thin keeps every other block of a stream's part of an epoch, counts the
// rest as lost, and returns the bytes freed. The blocks kept are written to a
// table of their own that replaces the range: nothing else is rewritten.
func (s *Store) thin(ctx context.Context, st *Stream, e uint32, level uint8) (freed uint64, err error) {
	for _, sh := range st.All() {
		for _, r := range sh.Closed() {
			if r.Epoch != e || r.Thin != level {
				continue
			}
			n, err := s.thinRun(ctx, st.Name(), sh, r)
			if err != nil {
				return freed, fmt.Errorf("thin out epoch %d of %s: %w", e, sh.Number, err)
			}
			freed += n
		}
	}
	return max(freed, 1), nil
}

// thinRun thins one run of a shard of that stream.
func (s *Store) thinRun(ctx context.Context, stream string, sh *shard.Shard, r epoch.Run) (freed uint64, err error) {
	from, to := keyspace.ShardStart(r.Lane, r.Epoch, sh.ID), keyspace.ShardStart(r.Lane, r.Epoch, sh.ID+1)
	path := s.o.FS.PathJoin(s.dir, fmt.Sprintf("thin-%d-%d.sst", r.Epoch, sh.ID))
	plan, err := s.writeThinned(path, from, to, r)
	if err != nil {
		return 0, errors.Join(err, removeIfThere(s.o.FS, path))
	}
	if len(plan.lost) == 0 {
		// A single block: it can't be halved, and is not looked at again.
		sh.Rewrite(epoch.Key{Lane: r.Lane, Epoch: r.Epoch}, func(r *epoch.Run) { r.Thin = maxThin })
		return 0, removeIfThere(s.o.FS, path)
	}
	now := s.now()
	c := &cut{s: s}
	for _, l := range plan.lost {
		l.Time, l.Reason = now, keyspace.LossThinned
		c.losses = append(c.losses, lossOf{stream, sh, l})
	}
	// The losses are noted before the records go.
	if err := c.apply(ctx); err != nil {
		return 0, errors.Join(err, removeIfThere(s.o.FS, path))
	}
	if err := s.replaceRange(ctx, path, from, to); err != nil {
		return 0, errors.Join(err, removeIfThere(s.o.FS, path))
	}
	freed = uint64(r.Stored) - min(uint64(r.Stored), plan.stored)
	k := epoch.Key{Lane: r.Lane, Epoch: r.Epoch}
	sh.Rewrite(k, func(r *epoch.Run) {
		r.Thin++
		r.Raw, r.Stored = plan.raw, uint32(plan.stored)
	})
	s.directory.Shrink(k, freed)
	return freed, s.rewriteRow(k, sh.ID, plan)
}

// replaceRange puts the table at path in place of all keys from … to.
func (s *Store) replaceRange(ctx context.Context, path string, from, to []byte) error {
	return s.guard(func() error {
		if err := s.checkEdges(ctx, from, to); err != nil {
			return err
		}
		s.env.Replacing.Lock()
		defer s.env.Replacing.Unlock()
		_, err := s.db.IngestAndExcise(ctx, []string{path}, nil, nil, pebble.KeyRange{Start: from, End: to})
		return err
	})
}

// thinPlan is what of a run stays.
type thinPlan struct {
	lost        []shard.Loss
	raw, stored uint64
}

// writeThinned writes every other block of a range to a table.
func (s *Store) writeThinned(path string, from, to []byte, r epoch.Run) (thinPlan, error) {
	var p thinPlan
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return p, err
	}
	defer it.Close()
	f, err := s.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return p, err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.tableOptions())
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		key, err := keyspace.ParseDataKey(it.Key())
		if err != nil {
			continue
		}
		h, err := block.ParseHeader(it.Value())
		if err != nil {
			continue
		}
		if n++; n%2 == 0 {
			p.lose(shard.Loss{First: key.Last - uint64(h.Count) + 1, Last: key.Last, Records: uint64(h.Count), Bytes: uint64(h.DataRawBytes)})
			continue
		}
		p.raw += uint64(h.DataRawBytes)
		p.stored += uint64(len(it.Value()))
		if err := w.Set(it.Key(), it.Value()); err != nil {
			return p, errors.Join(err, w.Close())
		}
	}
	return p, errors.Join(it.Error(), w.Close())
}

// lose adds a range, joined to the one before when they touch.
func (p *thinPlan) lose(l shard.Loss) {
	if n := len(p.lost); n > 0 && p.lost[n-1].Last+1 == l.First {
		p.lost[n-1].Last = l.Last
		p.lost[n-1].Records += l.Records
		p.lost[n-1].Bytes += l.Bytes
		return
	}
	p.lost = append(p.lost, l)
}

// rewriteRow brings the directory row up to date with a thinned run.
func (s *Store) rewriteRow(k epoch.Key, shardID uint32, p thinPlan) error {
	key := keyspace.MetaEpoch(k.Epoch, k.Lane)
	v, closer, err := s.db.Get(key)
	if err != nil {
		return err
	}
	row, err := keyspace.DecodeEpoch(v)
	if err = errors.Join(err, closer.Close()); err != nil {
		return err
	}
	i := slices.IndexFunc(row.Runs, func(r keyspace.EpochRun) bool { return r.Shard == shardID })
	if i < 0 {
		return nil
	}
	row.Runs[i].Thin++
	row.Runs[i].Raw, row.Runs[i].Stored = p.raw, p.stored
	return s.guard(func() error { return s.db.Set(key, row.Encode(), pebble.NoSync) })
}

// tableOptions are those of tables made outside of Pebble.
func (s *Store) tableOptions() sstable.WriterOptions {
	o := pebbleOptions(s.o, s.o.FS, nil, nil)
	o.EnsureDefaults()
	return o.MakeWriterOptions(0, s.db.TableFormat())
}

func removeIfThere(fs vfs.FS, path string) error {
	if err := fs.Remove(path); err != nil && !vfsNotExist(err) {
		return err
	}
	return nil
}
