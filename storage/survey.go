package storage

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

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

// survey lists the tables of records. The error says that a table is missing, or
// that one of metadata is cut short: without it nothing else can be believed.
// How long tables of records are is looked at when the store is open already.
func (s *Store) survey(db *pebble.DB) ([]table, error) {
	levels, err := db.SSTables() // fails for a table that was not there when the database was opened
	if err != nil {
		return nil, err
	}
	n := 0
	for _, level := range levels {
		n += len(level)
	}
	out := make([]table, 0, n)
	for _, level := range levels {
		for i := range level {
			info := &level[i]
			t := table{number: uint64(info.BackingSSTNum)}
			if !info.Virtual { // the size of a part says nothing about the file's
				t.bytes = int64(info.Size)
			}
			var err1, err2 error
			t.from, err1 = keyspace.ParseDataKey(info.Smallest.UserKey)
			t.to, err2 = keyspace.ParseDataKey(info.Largest.UserKey)
			if err1 == nil && err2 == nil {
				out = append(out, t)
			} else if err := s.cutShort(&t); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
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

// lostTable records what a table held as damage.
func (s *Store) lostTable(t *table, cause error) {
	for _, st := range s.all() {
		for _, sh := range st.All() {
			for _, r := range sh.Closed() {
				if r.Lane != t.from.Lane || r.Epoch < t.from.Epoch || r.Epoch > t.to.Epoch {
					continue
				}
				first := max(r.First(), sh.First())
				if first > r.Last || sh.Lost(first, r.Last) >= r.Last-first+1 {
					continue // gone or known
				}
				s.damaged(sh, first, r.Last, cause)
			}
		}
	}
}
