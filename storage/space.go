package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

// Records that nobody needs lie in tables beside others that somebody does: those of
// a deleted stream, and those of a stream whose retention is shorter than its
// neighbour's. Such a table is written anew without them, when that is worth it.
const (
	// spaceEvery is how often it is looked for more when nothing was found; after a
	// stream was deleted, so many times every maintainEvery, while the tables that
	// were being written then arrive.
	spaceEvery = 10 * time.Second
	spaceRush  = 10
	// spaceBytesAtOnce bounds what is written anew in maintainEvery, spacePressedBytes
	// while space is short; the last table may go beyond.
	spaceBytesAtOnce  = 4 << 20
	spacePressedBytes = 16 << 20
	// spaceLeastBytes is what a table must give back.
	spaceLeastBytes = 32 << 10
	// spaceLeastLife is how long what is kept must stay for it to be worth writing.
	spaceLeastLife = 10 * time.Minute
	// spaceExpired and spacePressed are how many bytes must be freed for each one
	// written where retention left the garbage, and how many bytes may be written for
	// each one freed while space is short.
	spaceExpired = 7
	spacePressed = 8
)

// garbage is where space may come back: whole epochs of a lane, with all the files
// that hold anything of them.
type garbage struct {
	epoch.Span
	entries []epoch.Entry
	files   []uint64
	parts   bool   // some of them are needed in parts only, Pebble says
	bytes   uint64 // of the files, and of them what is needed
	live    uint64
}

// giveBack writes tables anew without what nobody needs, of those where it is worth
// it, up to about limit bytes. pressed says that space is short. It returns what the
// files give back. s.maintaining must be held.
func (s *Store) giveBack(ctx context.Context, pressed bool, limit int64) (freed int64, err error) {
	all, err := s.findGarbage(pressed)
	if err != nil {
		return 0, err
	}
	for i := range all {
		g := &all[i]
		if limit <= 0 {
			break
		}
		if free, _, known := s.disk.look(); known && free < int64(2*g.live) {
			continue
		}
		if !pressed && !s.outlives(g, s.now().Add(spaceLeastLife)) {
			continue
		}
		written, err := s.writeAnew(ctx, g)
		if err != nil {
			if ctx.Err() == nil {
				s.untouchable[g.key()] = true // perhaps damaged: not again before the next open
			}
			return freed, fmt.Errorf("epochs %d to %d in lane %d: %w", g.From, g.To-1, g.Lane, err)
		}
		limit -= written
		freed += int64(g.bytes) - written
		s.log.Info("space given back", "lane", g.Lane, "first_epoch", g.From, "last_epoch", g.To-1, "bytes_freed", int64(g.bytes)-written, "bytes_written", written)
	}
	return freed, nil
}

func (g *garbage) key() epoch.Key { return epoch.Key{Lane: g.Lane, Epoch: g.From} }

// findGarbage returns where it is worth to write tables anew, best first.
func (s *Store) findGarbage(pressed bool) ([]garbage, error) {
	all, err := s.filesByEpochs()
	if err != nil {
		return nil, err
	}
	entries := s.directory.Entries()
	slices.SortFunc(entries, func(a, b epoch.Entry) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Epoch, b.Epoch))
	})
	var out []garbage
	for _, g := range all {
		for len(entries) > 0 && cmp.Or(cmp.Compare(entries[0].Lane, g.Lane), cmp.Compare(entries[0].Epoch, g.From)) < 0 {
			entries = entries[1:]
		}
		n := 0
		for n < len(entries) && entries[n].Lane == g.Lane && entries[n].Epoch < g.To {
			n++
		}
		g.entries, entries = entries[:n:n], entries[n:]
		if !s.untouchable[g.key()] && s.worthIt(&g, pressed) {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b garbage) int {
		return cmp.Compare(float64(a.live)/float64(a.bytes), float64(b.live)/float64(b.bytes))
	})
	return out, nil
}

// filesByEpochs lists the files of records, those that share an epoch together, by
// lane and epoch.
func (s *Store) filesByEpochs() ([]garbage, error) {
	files, err := s.recordFiles()
	if err != nil {
		return nil, err
	}
	out := files[:0]
	for _, f := range files {
		if n := len(out); n > 0 && out[n-1].Lane == f.Lane && f.From < out[n-1].To {
			out[n-1].To = max(out[n-1].To, f.To)
			out[n-1].files = append(out[n-1].files, f.files...)
			out[n-1].parts = out[n-1].parts || f.parts
			continue
		}
		out = append(out, f)
	}
	return out, nil
}

// recordFiles lists the files of records, each for itself, by lane and epoch.
func (s *Store) recordFiles() ([]garbage, error) {
	levels, err := s.db.SSTables()
	if err != nil {
		return nil, err
	}
	byFile := map[uint64]*garbage{}
	for _, level := range levels {
		for i := range level {
			from, err1 := keyspace.ParseDataKey(level[i].Smallest.UserKey)
			to, err2 := keyspace.ParseDataKey(level[i].Largest.UserKey)
			if err1 != nil || err2 != nil || from.Lane != to.Lane {
				continue
			}
			n := uint64(level[i].BackingSSTNum)
			if f := byFile[n]; f != nil {
				f.From, f.To = min(f.From, from.Epoch), max(f.To, to.Epoch+1)
			} else {
				byFile[n] = &garbage{Span: epoch.Span{Lane: from.Lane, From: from.Epoch, To: to.Epoch + 1}, files: []uint64{n}, parts: level[i].Virtual}
			}
		}
	}
	files := make([]garbage, 0, len(byFile))
	for _, f := range byFile {
		files = append(files, *f)
	}
	slices.SortFunc(files, func(a, b garbage) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.From, b.From))
	})
	return files, nil
}

// worthIt finds out how many bytes the files have and need, and whether enough come
// back for what is written. Where Pebble compressed the blocks, what is needed
// counts as compressed as the rest.
func (s *Store) worthIt(g *garbage, pressed bool) bool {
	var total, stored, deleted uint64
	for i := range g.entries {
		e := &g.entries[i]
		if !e.Written {
			return false
		}
		total, stored, deleted = total+e.Total, stored+e.Stored, deleted+e.Deleted
	}
	if stored == 0 || total == stored && !g.parts {
		return false // what is dead as a whole is excised
	}
	for _, n := range g.files {
		info, err := s.o.FS.Stat(s.o.FS.PathJoin(s.dir, engineDir, tableName(n)))
		if err != nil {
			return false
		}
		g.bytes += uint64(info.Size())
	}
	g.live = uint64(float64(stored) * min(1, float64(g.bytes)/float64(total)))
	dead := g.bytes - min(g.bytes, g.live)
	switch {
	case dead < spaceLeastBytes:
		return false
	case pressed:
		return dead*spacePressed >= g.live
	default:
		return dead >= g.live && deleted >= stored || dead >= spaceExpired*g.live
	}
}

// outlives says whether retention by time keeps something of it beyond until.
func (s *Store) outlives(g *garbage, until time.Time) bool {
	for _, st := range s.all() {
		least := until.Add(-st.Retention()).UnixMilli()
		for _, sh := range st.All() {
			for _, r := range sh.InEpochs(g.Lane, g.From, g.To) {
				if r.EndMS >= least {
					return true
				}
			}
		}
	}
	return false
}

// writeAnew puts a table of what is needed in place of the files, and brings the
// directory rows up to date. A power cut before the exchange leaves the old files
// and a table that the next open removes; one after it rows that name runs
// which no shard needs.
func (s *Store) writeAnew(ctx context.Context, g *garbage) (written int64, err error) {
	w := anew{s: s, garbage: g, first: map[uint32]uint64{}}
	for _, st := range s.all() {
		for _, sh := range st.All() {
			w.first[sh.ID] = sh.First()
		}
	}
	if err := w.rows(); err != nil {
		return 0, err
	}
	path := s.o.FS.PathJoin(s.dir, fmt.Sprintf("space-%d-%d.sst", g.Lane, g.From))
	from, to := keyspace.EpochStart(g.Lane, g.From), keyspace.EpochStart(g.Lane, g.To)
	blocks, err := w.table(ctx, path, from, to)
	if err == nil && blocks == 0 {
		err = errors.New("no block is there of what is needed")
	}
	if err == nil {
		if info, e := s.o.FS.Stat(path); e == nil {
			written = info.Size()
		}
		err = s.replaceRange(ctx, path, from, to)
	}
	if err != nil {
		return 0, errors.Join(err, removeIfThere(s.o.FS, path))
	}
	b := s.db.NewBatch()
	for i := range g.entries {
		k := g.entries[i].Key
		if err := b.Set(keyspace.MetaEpoch(k.Epoch, k.Lane), w.kept[i].Encode(), nil); err != nil {
			return written, err
		}
	}
	if err := s.commit(b, pebble.NoSync); err != nil {
		return written, err
	}
	for i := range g.entries {
		s.directory.Rewritten(g.entries[i].Key)
	}
	return written, nil
}

// forgetDeleted removes the trims of deleted shards of which no epoch holds anything.
func (s *Store) forgetDeleted(ctx context.Context) {
	s.creating.Lock() // a stream half deleted may have records in an epoch without a row
	defer s.creating.Unlock()
	if s.trimmed == 0 || s.env.Enter() != nil {
		return
	}
	defer s.env.Leave()
	b := s.db.NewBatch()
	f, err := readRows(ctx, s.db)
	if err == nil {
		s.trimmed, err = f.stageForgotten(b)
	}
	if err == nil && !b.Empty() {
		err = s.commit(b, pebble.NoSync)
	}
	if err != nil {
		s.log.Warn("forget deleted shards", "cause", err)
	}
}

// anew is one exchange of tables.
type anew struct {
	s *Store
	*garbage
	first map[uint32]uint64   // first index kept, by shard id
	kept  []keyspace.EpochRow // with the entries, of the runs needed
}

// needs says whether a shard needs the block or run that ends at last. One that no
// stream has does, unless it was deleted: its row may be lost.
func (w *anew) needs(shard uint32, last uint64) (bool, error) {
	first, ok := w.first[shard]
	if !ok {
		v, closer, err := w.s.db.Get(keyspace.Meta(keyspace.KindTrim, shard))
		if err == nil {
			first, err = keyspace.DecodeIndex(v)
			err = errors.Join(err, closer.Close())
		}
		if err != nil && !errors.Is(err, pebble.ErrNotFound) {
			return false, err
		}
		w.first[shard] = first
	}
	return last >= first, nil
}

// rows reads the directory rows and leaves out the runs that nobody needs.
func (w *anew) rows() error {
	for i := range w.entries {
		k := w.entries[i].Key
		v, closer, err := w.s.db.Get(keyspace.MetaEpoch(k.Epoch, k.Lane))
		if err != nil {
			return err
		}
		row, err := keyspace.DecodeEpoch(v)
		if err := errors.Join(err, closer.Close()); err != nil {
			return err
		}
		n := 0
		for _, r := range row.Runs {
			needed, err := w.needs(r.Shard, r.Last)
			if err != nil {
				return err
			}
			if needed {
				row.Runs[n] = r
				n++
			}
		}
		row.Runs = row.Runs[:n]
		w.kept = append(w.kept, row)
	}
	return nil
}

// table writes what is needed to a table, durable on return.
func (w *anew) table(ctx context.Context, path string, from, to []byte) (blocks int, err error) {
	s := w.s
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	f, err := s.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	t := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.tableOptions())
	for ok := it.First(); ok; ok = it.Next() {
		if err := w.copy(t, it, &blocks); err != nil {
			return 0, errors.Join(err, t.Close())
		}
		select {
		case <-s.stop:
			return 0, errors.Join(ErrClosed, t.Close())
		default:
		}
	}
	return blocks, errors.Join(it.Error(), t.Close())
}

// copy copies the block that it stands on, if it is needed.
func (w *anew) copy(t *sstable.Writer, it *pebble.Iterator, blocks *int) error {
	k, err := keyspace.ParseDataKey(it.Key())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(w.entries, func(e epoch.Entry) bool { return e.Epoch == k.Epoch }) {
		return fmt.Errorf("epoch %d has no row", k.Epoch)
	}
	needed, err := w.needs(k.Shard, k.Last)
	if err != nil || !needed {
		return err
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	*blocks++
	return t.Set(it.Key(), value)
}
