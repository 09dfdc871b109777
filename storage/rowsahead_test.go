package storage

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

// openedEngine opens the engine of a store that is closed, and nothing of it is recovered.
func openedEngine(t *testing.T, o Options) *Store {
	t.Helper()
	o = o.complete()
	s := &Store{o: o, dir: "data", log: o.Logger, standIns: map[uint64]bool{}, endless: map[uint32]string{}, stop: make(chan struct{}), failed: make(chan struct{})}
	if err := s.openDir(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.openEngine(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// What an open finds without asking Pebble is what Pebble says, after anything that changes
// tables: flushes, moves, merges, epochs that were dropped or thinned out, and opens.
func TestWhatIsReadAheadIsWhatPebbleSays(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	o := small(vfs.NewMem(), nil)
	o.TotalBytes = 3 << 20
	ahead := 0
	for round := range 8 {
		s := mustOpen(t, o)
		for i, policy := range []Policy{DropOldest, ThinOut} {
			st, err := s.Stream(fmt.Sprint("s", i))
			if err != nil {
				st = mustCreate(t, s, StreamConfig{Name: fmt.Sprint("s", i), Shards: 3, WhenFull: policy, RetentionBytes: int64(2-i) << 20})
			}
			for range 1 + rng.IntN(8) {
				put(t, s, st, 256, func(i int) (string, string) { return fmt.Sprint(i), noise(rng, 1000) })
			}
		}
		if round%2 > 0 {
			if err := s.Retain(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openedEngine(t, o)
		tables, err := s.survey(s.db)
		if err != nil {
			t.Fatal(err)
		}
		f, err := readRows(ctx, s.db)
		if err != nil {
			t.Fatal(err)
		}
		f.match(tables)
		for _, list := range [][]table{tables, s.tables} {
			slices.SortFunc(list, func(a, b table) int {
				return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.from.Last, b.from.Last))
			})
		}
		if !slices.Equal(s.tables, tables) {
			t.Fatalf("tables %+v, Pebble has %+v", s.tables, tables)
		}
		if len(f.epochs) == 0 || !reflect.DeepEqual(s.found.epochs, f.epochs) || len(s.found.missing) != len(f.missing) || len(s.found.unlisted) != len(f.unlisted) {
			t.Fatalf("rows %+v, Pebble has %+v", s.found.epochs, f.epochs)
		}
		if s.found.byShard != nil {
			ahead++
		}
		s.abandon()
	}
	if ahead == 0 {
		t.Fatal("Pebble was asked each time")
	}
}

// manifestOf returns the records of the manifest of a store.
func manifestOf(t testing.TB, fs vfs.FS) (edits [][]byte) {
	t.Helper()
	names, err := fs.List("data/db")
	if err != nil {
		t.Fatal(err)
	}
	marker, name, err := atomicfs.LocateMarkerInListing(fs, "data/db", "manifest", names)
	if err != nil {
		t.Fatal(err)
	}
	if err := marker.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open("data/db/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := record.NewReader(f, 0); ; {
		rec, err := r.Next()
		if err != nil {
			return edits
		}
		edit := make([]byte, 1<<20)
		n := 0
		for err == nil {
			var k int
			k, err = rec.Read(edit[n:])
			n += k
		}
		edits = append(edits, edit[:n])
	}
}

func TestEditThatIsNotThisStoresIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		edit []byte
	}{
		{"an unknown tag", []byte{111, 1}},
		{"a number that breaks off", []byte{tagLogNumber, 0x80}},
		{"a comparer that breaks off", []byte{tagComparator, 5, 'a'}},
		{"a table that was not there", []byte{tagDeletedTable, 0, 7}},
		{"a key without its trailer", []byte{tagNewTable2, 0, 7, 1, 1, 'a', 1, 'b', 1, 1}},
		{"a table of a kind that is not written", append([]byte{tagNewTable4, 0, 7, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 1, 67, 0, customTerminate)},
	} {
		if err := new(manifestTables).add(c.edit); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}

func FuzzManifestEdit(f *testing.F) {
	fs := vfs.NewMem()
	s, err := Open(ctx, "data", small(fs, nil))
	if err != nil {
		f.Fatal(err)
	}
	st := mustCreate(f, s, StreamConfig{Name: "a", Shards: 2})
	rng := rand.New(rand.NewPCG(1, 1))
	for range 6 {
		put(f, s, st, 256, func(i int) (string, string) { return fmt.Sprint(i), noise(rng, 1000) })
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	for _, edit := range manifestOf(f, fs) {
		f.Add(edit)
	}
	f.Fuzz(func(t *testing.T, edit []byte) {
		var m manifestTables
		for range 2 { // the second deletes what the first has added
			if err := m.add(edit); err != nil {
				return
			}
		}
		m.end(nil)
		for i := range m.tables {
			if m.tables[i].name == 0 || m.tables[i].number == 0 || m.tables[i].bytes < 0 {
				t.Fatalf("table %+v", m.tables[i])
			}
		}
	})
}
