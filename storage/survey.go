package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

// tableName is the name of a table in engineDir.
func tableName(number uint64) string { return fmt.Sprintf("%06d.sst", number) }

// table is a file of records that an open found.
type table struct {
	number   uint64
	bytes    int64 // as long as it must be; 0 when that is not known
	from, to keyspace.DataKey
}

// takeStock finds out what tables and rows a database has. An error that is not
// ctx's means that what all else rests on is damaged.
func (s *Store) takeStock(ctx context.Context, db *pebble.DB) (err error) {
	var other error
	var surveying sync.WaitGroup
	surveying.Go(func() { s.tables, other = s.survey(db) })
	s.found, err = readRows(ctx, db)
	if surveying.Wait(); other != nil {
		return other
	}
	if err == nil {
		s.found.match(s.tables)
	}
	return err
}

// takeStockAhead is takeStock for a database that Pebble opens, after the one flush of its
// log. What its manifest named before, and the rows of those tables, were read while
// Pebble read it too: asking Pebble for them takes as long as half of what it
// does for each table itself.
func (s *Store) takeStockAhead(ctx context.Context, db *pebble.DB, flush pebble.FlushInfo) (err error) {
	named, ahead := s.disk.seenAhead()
	if named == nil || ahead == nil || flush.Ingest {
		return s.takeStock(ctx, db)
	}
	made := make([]manifestTable, len(flush.Output))
	for i := range made {
		made[i] = flushed(&flush.Output[i])
	}
	var epochs []listed
	if err = ahead.read(ctx, made); err == nil {
		epochs, err = ahead.end()
	}
	if err != nil { // Pebble says what is wrong, if it is
		return s.takeStock(ctx, db)
	}
	if s.tables, err = s.surveyNamed(named, made); err != nil {
		return err
	}
	if s.found, err = readRowsBeside(ctx, db, epochs); err == nil {
		s.found.match(s.tables)
		s.found.begin()
	}
	return err
}

// checkNamed returns an error when epochs have rows but no table while there are
// tables that the database does not know: rows go before their tables, so the end of
// the manifest is lost.
func (s *Store) checkNamed(db *pebble.DB) error {
	if len(s.found.missing) == 0 {
		return nil
	}
	levels, err := db.SSTables()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, level := range levels {
		for i := range level {
			known[tableName(uint64(level[i].BackingSSTNum))] = true
		}
	}
	names, err := s.o.FS.List(s.o.FS.PathJoin(s.dir, engineDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") && !known[name] {
			return fmt.Errorf("%d epochs have no table, and the manifest does not name %s", len(s.found.missing), name)
		}
	}
	return nil
}

// yieldAfter is how many tables or rows are looked at in one go while Pebble opens: when it
// comes back from a sync it waits for a processor, and the store for it.
const yieldAfter = 32

// survey lists the tables of records. The error says that a table is missing, or
// that one of metadata is cut short: without it nothing else can be believed.
// How long tables of records are is looked at when the store is open already.
func (s *Store) survey(db *pebble.DB) ([]table, error) {
	gone := uint64(0)
	for {
		out, err := s.surveyOnce(db, &gone)
		if !errors.Is(err, errMerged) {
			return out, err
		}
	}
}

// errMerged means that a table of metadata went after it was listed. Where the database
// has been made anew, compactions are under way already.
var errMerged = errors.New("a table was merged meanwhile")

// surveyOnce is survey unless a table goes meanwhile, whose number it leaves in gone. One
// that is listed again is missing.
func (s *Store) surveyOnce(db *pebble.DB, gone *uint64) ([]table, error) {
	levels, err := db.SSTables() // fails for a table that was not there when the database was opened
	if err != nil {
		return nil, s.standIn(err)
	}
	n := 0
	for _, level := range levels {
		n += len(level)
	}
	out := make([]table, 0, n)
	for _, level := range levels {
		for i := range level {
			if i%yieldAfter == 0 {
				runtime.Gosched()
			}
			info := &level[i]
			t := table{number: uint64(info.BackingSSTNum)}
			if t.describe(info.Size, info.Virtual, info.Smallest.UserKey, info.Largest.UserKey) {
				out = append(out, t)
			} else if err := s.cutShort(&t); vfsNotExist(err) && t.number != *gone {
				*gone = t.number
				return nil, errMerged
			} else if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// surveyNamed is survey for tables that are known.
func (s *Store) surveyNamed(named ...[]manifestTable) ([]table, error) {
	n := 0
	for _, tables := range named {
		n += len(tables)
	}
	out := make([]table, 0, n)
	for _, tables := range named {
		for i := range tables {
			if t := &tables[i]; t.records {
				out = append(out, t.table)
			} else if err := s.cutShort(&t.table); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// errStoodIn means that a file now stands for a table that was missing.
var errStoodIn = errors.New("a table is missing")

// maxStandIns bounds the tables that may be missing before all is built anew.
const maxStandIns = 64

// standIn makes an empty file for the table that err says is missing, so that the
// database can be opened: the table is one that was cut short then, to nothing, and
// costs its own records only. Of other errors it returns err.
func (s *Store) standIn(err error) error {
	var number uint64
	if _, e := fmt.Sscanf(err.Error(), "file %d (type sstable) unknown", &number); e != nil || len(s.standIns) >= maxStandIns {
		return err
	}
	fs, dir := s.o.FS, s.o.FS.PathJoin(s.dir, engineDir)
	path := fs.PathJoin(dir, tableName(number))
	if _, e := fs.Stat(path); !vfsNotExist(e) {
		return err
	}
	f, e := fs.Create(path, vfs.WriteCategoryUnspecified)
	if e == nil {
		e = errors.Join(f.Sync(), f.Close(), syncDir(fs, dir))
	}
	if e != nil {
		return errors.Join(err, e)
	}
	s.standIns[number] = true
	s.log.Error("a table is missing: an empty file stands for it", "table", path)
	return fmt.Errorf("%w: %w", errStoodIn, err)
}

// nameMissing records what was in tables that are missing as lost.
func (s *Store) nameMissing() {
	for i := range s.tables {
		if t := &s.tables[i]; s.standIns[t.number] {
			s.recovery.Damaged = append(s.recovery.Damaged, s.lostTable(t, fmt.Errorf("table %s is missing", tableName(t.number)))...)
		}
	}
}

// cutShort returns an error when the file is shorter than it must be.
func (s *Store) cutShort(t *table) error {
	name := tableName(t.number)
	info, err := s.o.FS.Stat(s.o.FS.PathJoin(s.dir, engineDir, name))
	if err == nil && info.Size() < t.bytes {
		err = fmt.Errorf("table %s: %d bytes, expected %d", name, info.Size(), t.bytes)
	}
	return err
}

// lookAtTables records what can't be in tables that a power cut left short as
// lost, so that readers pass over it at once. A look at each takes longer than all
// the rest of an open of a large store.
func (s *Store) lookAtTables(tables []table) {
	defer s.background.Done()
	for i := range tables {
		t := &tables[i]
		select {
		case <-s.stop:
			return
		default:
		}
		// Retention may have taken it meanwhile.
		if err := s.cutShort(t); err != nil && !vfsNotExist(err) && s.env.Enter() == nil {
			s.lostTable(t, err)
			s.env.Leave()
		}
	}
}

// lostTable records what a table held as damage, and returns it.
func (s *Store) lostTable(t *table, cause error) (lost []ShardRange) {
	for _, st := range s.all() {
		for _, sh := range st.All() {
			for _, r := range sh.InEpochs(t.from.Lane, t.from.Epoch, t.to.Epoch+1) {
				first, last := s.partOf(t, sh.ID, &r)
				first = max(first, sh.First())
				if first > last || sh.Lost(first, last) >= last-first+1 {
					continue // gone, known, or in another table
				}
				s.damaged(sh, first, last, cause)
				lost = append(lost, ShardRange{st.Name(), sh.Number, first, last, firstLine(cause.Error())})
			}
		}
	}
	return lost
}

// partOf returns which records of a run a table held: first > last when none.
func (s *Store) partOf(t *table, shardID uint32, r *epoch.Run) (first, last uint64) {
	place := func(k keyspace.DataKey) int {
		return cmp.Or(cmp.Compare(k.Epoch, r.Epoch), cmp.Compare(k.Shard, shardID))
	}
	first, last = r.First(), r.Last
	switch at := place(t.to); {
	case at < 0:
		return 1, 0
	case at == 0:
		last = min(last, t.to.Last)
	}
	switch at := place(t.from); {
	case at > 0:
		return 1, 0
	case at == 0:
		// A key says where its block ends: it begins behind the one before.
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: keyspace.ShardStart(r.Lane, r.Epoch, shardID), UpperBound: t.from.Append(nil)})
		if err != nil {
			break
		}
		if it.Last() {
			if k, err := keyspace.ParseDataKey(it.Key()); err == nil {
				first = max(first, k.Last+1)
			}
		}
		_ = it.Close() // what can't be read there is found when it is read
	}
	return first, last
}
