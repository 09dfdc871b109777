package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
)

// setLogAside moves the log files to the quarantine and returns where.
func (s *Store) setLogAside(path string, cause error) (string, error) {
	fs := s.o.FS
	dir, err := s.aside("log")
	if err != nil {
		return "", err
	}
	names, err := fs.List(path)
	if err != nil {
		return "", err
	}
	var logs []string
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			logs = append(logs, name)
			if err := s.keepFile(fs.PathJoin(path, name), dir, firstLine(cause.Error())); err != nil {
				return "", err
			}
		}
	}
	// The copies are durable before the originals go.
	if err := errors.Join(syncDir(fs, fs.PathDir(dir)), syncDir(fs, dir)); err != nil {
		return "", err
	}
	for _, name := range logs {
		if err := fs.Remove(fs.PathJoin(path, name)); err != nil {
			return "", err
		}
	}
	return dir, syncDir(fs, path)
}

// rescueLog opens the database without its log and applies again what can be
// read of the log. Log files follow one another without a gap, so that every
// row ends as its last write that can be read.
func (s *Store) rescueLog(logs string, open func() (*pebble.DB, error)) (*pebble.DB, error) {
	db, err := open()
	if err != nil {
		return nil, err
	}
	batches, err := replay(s.o.FS, logs, func(repr []byte) error {
		b := db.NewBatch()
		defer b.Close()
		if err := b.SetRepr(slices.Clone(repr)); err != nil {
			return err
		}
		return b.Commit(pebble.NoSync)
	})
	if err == nil {
		err = db.Flush()
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.log.Warn("the log was read as far as it goes", "batches", batches)
	return db, nil
}

// replay calls fn for the batches in the log files of a directory, in order,
// each file as far as it can be read.
func replay(fs vfs.FS, dir string, fn func(repr []byte) error) (batches int, err error) {
	logs, err := wal.Scan(wal.Dir{FS: fs, Dirname: dir})
	if err != nil {
		return 0, err
	}
	for _, l := range logs {
		r := l.OpenForRead()
		var buf bytes.Buffer
		for {
			rec, _, err := r.NextRecord()
			if err != nil {
				break // the end, or damage: the file is kept
			}
			buf.Reset()
			if _, err := io.Copy(&buf, rec); err != nil || buf.Len() < 12 {
				break
			}
			if err := fn(buf.Bytes()); err != nil {
				return batches, errors.Join(err, r.Close())
			}
			batches++
		}
		if err := r.Close(); err != nil {
			return batches, err
		}
	}
	return batches, nil
}

// rescueAll sets the database aside and builds a new one from every table
// and log file that can be read. Newer tables come first; when the disk has
// no room for all, the oldest records stay aside. saved is filled with what was
// saved of each shard.
func (s *Store) rescueAll(path, logs string, cause error, open func() (*pebble.DB, error), saved map[uint32][]segment) (*pebble.DB, error) {
	fs := s.o.FS
	dir, err := s.aside("db")
	if err != nil {
		return nil, err
	}
	if err := fs.Remove(dir); err != nil { // an empty directory makes way for the old one
		return nil, err
	}
	if err := fs.Rename(path, dir); err != nil {
		return nil, err
	}
	if err := errors.Join(syncDir(fs, s.dir), syncDir(fs, fs.PathDir(dir))); err != nil {
		return nil, err
	}
	s.noteAside(dir, firstLine(cause.Error()))
	db, err := open()
	if err != nil {
		return nil, err
	}
	r := &rescuer{s: s, db: db, dir: dir, logDir: logs, rows: map[string]rowVersion{}, deleted: map[uint32]bool{}, saved: saved}
	if err := r.run(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// rowVersion is the newest version of a metadata row seen so far.
type rowVersion struct {
	seq     uint64
	value   []byte
	deleted bool
}

type rescuer struct {
	s       *Store
	db      *pebble.DB
	dir     string
	tables  []string // by file number, newest first
	logDir  string
	rows    map[string]rowVersion
	drops   []dropRange
	deleted map[uint32]bool // shards of which nothing is wanted
	saved   map[uint32][]segment
	batch   *pebble.Batch
	blocks  int
	left    int // blocks of deleted shards
}

// dropRange is a deletion of a range of metadata rows.
type dropRange struct {
	from, to string
	seq      uint64
}

// run takes metadata first, because it says which blocks are still wanted.
func (r *rescuer) run() error {
	fs := r.s.o.FS
	names, err := fs.List(r.dir)
	if err != nil {
		return err
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(name, ".sst"))
		return n
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			r.tables = append(r.tables, name)
		}
	}
	slices.SortFunc(r.tables, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
	for _, name := range r.tables {
		if err := r.table(name, false); err != nil {
			r.s.log.Warn("table can't be read whole", "table", name, "cause", err)
		}
	}
	if err := r.logs(false); err != nil {
		return err
	}
	if err := r.putRows(); err != nil {
		return err
	}
	for _, name := range r.tables {
		if free, total, ok := r.s.disk.look(); ok && free < r.s.disk.softLimit(total) {
			r.s.log.Error("no room to save older records: they stay aside", "from_table", name, "in", r.dir)
			break
		}
		if err := r.table(name, true); err != nil {
			r.s.log.Warn("table can't be read whole", "table", name, "cause", err)
		}
	}
	if err := r.logs(true); err != nil {
		return err
	}
	if err := r.commit(); err != nil {
		return err
	}
	r.s.log.Warn("database rebuilt", "rows", len(r.rows), "blocks", r.blocks)
	if r.left > 0 {
		r.s.log.Info("blocks stay aside: their streams were deleted", "blocks", r.left, "in", r.dir)
	}
	return r.db.Flush()
}

// nameLost records what was not saved as lost.
func (s *Store) nameLost(saved map[uint32][]segment) error {
	v := newVerifier(s.found, saved)
	for _, row := range s.found.shards {
		at := len(v.report.Problems)
		v.checkShard(row)
		for _, p := range v.report.Problems[at:] {
			if p.What != problemMissing {
				continue
			}
			s.recovery.Damaged = append(s.recovery.Damaged, ShardRange{p.Stream, p.Shard, p.First, p.Last, "could not be saved from a damaged database"})
			l := shard.Loss{First: p.First, Last: p.Last, Records: p.Last - p.First + 1, Time: s.o.Clock(), Reason: keyspace.LossDamage}
			s.found.losses[row.ID] = append(s.found.losses[row.ID], l)
			if err := s.db.Set(keyspace.MetaIndex(keyspace.KindLoss, row.ID, l.First), lossRow(l).Encode(), pebble.NoSync); err != nil {
				return err
			}
		}
		slices.SortFunc(s.found.losses[row.ID], func(a, b shard.Loss) int { return cmp.Compare(a.First, b.First) })
	}
	return nil
}

// tableDrops reads a table's range deletions.
func (r *rescuer) tableDrops(ctx context.Context, t *sstable.Reader) error {
	it, err := t.NewRawRangeDelIter(ctx, sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || it == nil {
		return err
	}
	defer it.Close()
	span, err := it.First()
	for ; span != nil; span, err = it.Next() {
		for _, k := range span.Keys {
			r.drops = append(r.drops, dropRange{string(span.Start), string(span.End), uint64(k.SeqNum())})
		}
	}
	return err
}

// logs reads the log files: their metadata, or their blocks.
func (r *rescuer) logs(data bool) error {
	_, err := replay(r.s.o.FS, r.logDir, func(repr []byte) error {
		b := pebble.Batch{}
		if err := b.SetRepr(slices.Clone(repr)); err != nil {
			return nil // a record that is no batch
		}
		seq := uint64(b.SeqNum())
		for rd := b.Reader(); ; seq++ {
			kind, key, value, ok, err := rd.Next()
			if !ok || err != nil {
				return nil
			}
			switch kind {
			case pebble.InternalKeyKindSet:
				err = r.entry(key, value, seq, false, data)
			case pebble.InternalKeyKindDelete:
				err = r.entry(key, nil, seq, true, data)
			case pebble.InternalKeyKindRangeDelete:
				r.drops = append(r.drops, dropRange{string(key), string(value), seq})
			}
			if err != nil {
				return err
			}
		}
	})
	return err
}

// entry takes one key: the newest version of a row, or a block of a shard that was not deleted.
func (r *rescuer) entry(key, value []byte, seq uint64, deleted, data bool) error {
	if len(key) > 0 && key[0] == keyspace.MetaSpace {
		if old, ok := r.rows[string(key)]; !data && (!ok || seq > old.seq) {
			r.rows[string(key)] = rowVersion{seq, bytes.Clone(value), deleted}
		}
		return nil
	}
	if !data || deleted {
		return nil
	}
	k, err := keyspace.ParseDataKey(key)
	if err != nil {
		return nil
	}
	if r.deleted[k.Shard] {
		r.left++
		return nil
	}
	h, err := block.Check(value)
	if err != nil {
		r.s.log.Warn("block left aside", "key", fmt.Sprintf("%x", key), "cause", err)
		return nil
	}
	r.blocks++
	r.saved[k.Shard] = join(r.saved[k.Shard], segment{k.Last - uint64(h.Count) + 1, k.Last})
	return r.set(key, value)
}

// putRows writes the newest version of each row.
func (r *rescuer) putRows() error {
	for key, row := range r.rows {
		for _, d := range r.drops {
			if d.seq > row.seq && d.from <= key && key < d.to {
				row.deleted = true
			}
		}
		if row.deleted {
			continue
		}
		if k, err := keyspace.ParseMeta([]byte(key)); err == nil && k.Kind == keyspace.KindTrim {
			if first, err := keyspace.DecodeIndex(row.value); err == nil && first == keyspace.TrimmedAll {
				r.deleted[k.ID] = true
			}
		}
		if err := r.set([]byte(key), row.value); err != nil {
			return err
		}
	}
	return r.commit()
}

// rescueBatchBytes bounds what is written at a time.
const rescueBatchBytes = 512 << 10

func (r *rescuer) set(key, value []byte) error {
	if r.batch == nil {
		r.batch = r.db.NewBatch()
	}
	if err := r.batch.Set(key, value, nil); err != nil {
		return err
	}
	if r.batch.Len() >= rescueBatchBytes {
		return r.commit()
	}
	return nil
}

func (r *rescuer) commit() error {
	if r.batch == nil {
		return nil
	}
	err := errors.Join(r.batch.Commit(pebble.NoSync), r.batch.Close())
	r.batch = nil
	return err
}
