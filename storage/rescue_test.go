package storage

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// damage changes one file of the engine, the first whose name matches.
func damage(t *testing.T, fs vfs.FS, match func(name string) bool, change func([]byte) []byte) string {
	t.Helper()
	names, err := fs.List("data/db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !match(name) {
			continue
		}
		path := "data/db/" + name
		b, err := readFile(fs, path)
		if err != nil {
			t.Fatal(err)
		}
		if b = change(b); b == nil {
			if err := fs.Remove(path); err != nil {
				t.Fatal(err)
			}
			return name
		}
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Fatalf("no such file among %v", names)
	return ""
}

func flip(at func(n int) int) func([]byte) []byte {
	return func(b []byte) []byte {
		i := at(len(b))
		for j := i; j < min(i+64, len(b)); j++ {
			b[j] ^= 0xff
		}
		return b
	}
}

// crashedStore is a store that was not closed, with records in tables and in
// the log, and a checkpoint.
func crashedStore(t *testing.T) (*vfs.MemFS, int) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	fill(t, s, st, 4)
	put(t, s, st, 10, func(i int) (string, string) { return fmt.Sprint(i), "last" })
	tx, _ := s.Begin(ctx, 1)
	tx.Put(TableCheckpoint, []byte("c"), []byte("v"))
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	tx.Release()
	// Pebble writes as many full memtables to one table as there are: how many tables
	// that makes is a matter of time.
	waitFor(t, func() bool { return s.db.Metrics().MemTable.Count == 1 })
	n := count(readAll(t, st))
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return clone, n
}

func TestOpenNeverFailsForDamage(t *testing.T) {
	suffix := func(s string) func(string) bool { return func(name string) bool { return strings.HasSuffix(name, s) } }
	var bigTable func(string) bool
	for _, c := range []struct {
		name   string
		match  func(string) bool
		change func([]byte) []byte
		tables bool // the tables themselves are whole
	}{
		{"log", suffix(".log"), flip(func(n int) int { return n / 2 }), true},
		{"log gone", suffix(".log"), func([]byte) []byte { return nil }, true},
		{"manifest", func(n string) bool { return strings.HasPrefix(n, "MANIFEST") }, flip(func(n int) int { return n / 3 }), true},
		{"manifest gone", func(n string) bool { return strings.HasPrefix(n, "MANIFEST") }, func([]byte) []byte { return nil }, true},
		{"manifest empty", func(n string) bool { return strings.HasPrefix(n, "MANIFEST") }, func([]byte) []byte { return []byte{} }, true},
		{"table gone", bigTable, func([]byte) []byte { return nil }, false},
		{"table cut", bigTable, func(b []byte) []byte { return b[:len(b)/2] }, false},
		{"table footer", bigTable, flip(func(n int) int { return n - 40 }), false},
		{"table block", bigTable, flip(func(n int) int { return n / 2 }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, n := crashedStore(t)
			if c.match == nil {
				// The first table with records in it.
				c.match = func(name string) bool {
					info, err := fs.Stat("data/db/" + name)
					return err == nil && strings.HasSuffix(name, ".sst") && info.Size() > 500<<10
				}
			}
			file := damage(t, fs, c.match, c.change)
			s := mustOpen(t, small(fs, nil))
			st, err := s.Stream("a")
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			got := count(readAll(t, st))
			rec := s.Recovery()
			t.Logf("%s: %d of %d records, recovery %+v", file, got, n, rec)
			if got < n/3 || (c.tables && got < n*2/3) {
				t.Fatalf("%d of %d records", got, n)
			}
			put(t, s, st, 10, func(i int) (string, string) { return fmt.Sprint(i), "after" })
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := Repair(ctx, "data", adopting(fs))
			if err != nil {
				t.Fatal(err)
			}
			if !r.After.OK() {
				t.Fatalf("after repair: %+v", r.After.Problems)
			}
			if v, err := Verify(ctx, "data", small(fs, nil), nil); err != nil || !v.OK() || v.Records < uint64(got) {
				t.Fatalf("verify after repair: %v %+v", err, v)
			}
		})
	}
}

// sharedTable is a closed store of two shards with several epochs in one table, as Pebble
// writes it when several memtables are full at once.
func sharedTable(t *testing.T) (fs *vfs.MemFS, table string, n int) {
	t.Helper()
	fs = vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	rng := rand.New(rand.NewPCG(9, 9))
	for range 5 {
		for range 12 {
			put(t, s, st, 20, func(i int) (string, string) { return fmt.Sprint(i), noise(rng, 1000) })
		}
		settle(t, s)
	}
	put(t, s, st, 2, func(i int) (string, string) { return fmt.Sprint(i), "last" })
	n = count(readAll(t, st))
	all, err := s.recordFiles()
	if err != nil {
		t.Fatal(err)
	}
	g := garbage{Span: epoch.Span{Lane: all[0].Lane, From: all[0].From, To: all[len(all)-1].To}, entries: s.directory.Entries()}
	if _, err := s.writeAnew(ctx, &g); err != nil {
		t.Fatal(err)
	}
	if all, err = s.recordFiles(); err != nil || len(all) != 1 || all[0].To-all[0].From < 5 {
		t.Fatalf("not one table of all epochs: %+v, %v", all, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs, tableName(all[0].files[0]), n
}

// openBroken opens a copy of what fs holds in which a table is broken at a place.
func openBroken(t *testing.T, fs *vfs.MemFS, table string, at int) (*vfs.MemFS, *Store, *Stream) {
	t.Helper()
	broken := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	damage(t, broken, func(name string) bool { return name == table }, flip(func(int) int { return at }))
	s := mustOpen(t, small(broken, nil))
	st, err := s.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	return broken, s, st
}

// TestRepairOfABlockAnywhere breaks a table of several epochs at place after place, the
// first blocks of an epoch among them. Repair leaves nothing of the table in use, and
// neither repair nor reading again and again costs more than what was in the block.
func TestRepairOfABlockAnywhere(t *testing.T) {
	fs, table, n := sharedTable(t)
	info, err := fs.Stat("data/db/" + table)
	if err != nil {
		t.Fatal(err)
	}
	for at := 100; at < int(info.Size()); at += 24 << 10 {
		broken, s, st := openBroken(t, fs, table, at)
		got := count(readAll(t, st))
		if again := count(readAll(t, st)); got < n-100 || again != got {
			t.Fatalf("at %d: %d records were read of %d, %d when read again", at, got, n, again)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := Repair(ctx, "data", small(broken, nil))
		if err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		if !r.After.OK() || r.After.Records != uint64(got) {
			t.Fatalf("at %d: %d records after repair, %d before it, %+v", at, r.After.Records, got, r.After.Problems)
		}
	}
}

// TestExciseBesideDamageKeepsTheRest takes the first epochs out of a table that is broken
// at place after place. Where Pebble would not see what comes behind, nothing is taken out.
func TestExciseBesideDamageKeepsTheRest(t *testing.T) {
	fs, table, _ := sharedTable(t)
	info, err := fs.Stat("data/db/" + table)
	if err != nil {
		t.Fatal(err)
	}
	refused, done := 0, 0
	for at := 100; at < int(info.Size()); at += 24 << 10 {
		_, s, st := openBroken(t, fs, table, at)
		run := st.All()[0].Closed()[3]
		before := countFrom(t, st, run.Epoch)
		if err := s.excise(ctx, keyspace.EpochStart(run.Lane, 0), keyspace.EpochStart(run.Lane, run.Epoch)); err != nil {
			refused++
		} else {
			done++
		}
		if after := countFrom(t, st, run.Epoch); after != before {
			t.Fatalf("at %d: %d records of epoch %d on, %d before", at, after, run.Epoch, before)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 || refused > done {
		t.Fatalf("%d refused, %d done", refused, done)
	}
}

// countFrom counts a stream's records that can be read, of an epoch and later ones.
func countFrom(t *testing.T, st *Stream, first uint32) (n int) {
	t.Helper()
	for _, sh := range st.All() {
		runs := sh.Closed()
		i := slices.IndexFunc(runs, func(r epoch.Run) bool { return r.Epoch >= first })
		if i < 0 {
			continue
		}
		r, err := sh.NewReader(Position{Kind: AtIndex, Index: runs[i].First()})
		if err != nil {
			t.Fatal(err)
		}
		for got := 1; got > 0; n += got {
			if got, err = r.Read(1000, 1<<20, func(*record.Record) bool { return true }); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
	}
	return n
}

// TestRepairKeepsRecordsWithoutAStream breaks a block of a table with records of which
// the stream's rows are lost too: what is written anew has them, and the repair that
// adopts them later finds all that could be read.
func TestRepairKeepsRecordsWithoutAStream(t *testing.T) {
	fs, table, n := sharedTable(t)
	o := small(fs, nil)
	db, err := pebble.Open("data/db", pebbleOptions(o.complete(), fs, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	rows := keyspace.Meta(keyspace.KindStream)
	if err := errors.Join(db.DeleteRange(rows, keyspace.AppendPrefixEnd(nil, rows), pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	damage(t, fs, func(name string) bool { return name == table }, flip(func(n int) int { return n / 3 }))
	r, err := Repair(ctx, "data", o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rewritten == 0 || len(r.Lost) == 0 || len(r.Recovery.Orphans) != 2 {
		t.Fatalf("%+v", r)
	}
	if r, err = Repair(ctx, "data", adopting(fs)); err != nil {
		t.Fatal(err)
	}
	if !r.After.OK() || r.After.Records < uint64(n-100) || r.After.Records >= uint64(n) {
		t.Fatalf("%d records of %d, %+v", r.After.Records, n, r.After.Problems)
	}
}

// TestDamagedManifestLosesNothing breaks the manifest in 13 places: Pebble takes what
// stands before the break for all there is, and later tables for obsolete.
func TestDamagedManifestLosesNothing(t *testing.T) {
	fs, n := crashedStore(t)
	for part := 3; part < 64; part += 5 {
		broken := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		damage(t, broken, func(name string) bool { return strings.HasPrefix(name, "MANIFEST") }, flip(func(n int) int { return n * part / 64 }))
		s := mustOpen(t, small(broken, nil))
		st, err := s.Stream("a")
		if err != nil {
			t.Fatalf("at %d/64: %v", part, err)
		}
		if got := count(readAll(t, st)); got != n {
			t.Errorf("at %d/64: %d records of %d, recovery %+v", part, got, n, s.Recovery())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMissingManifestIsDamageToWhoLooksOnly: an error of a missing file would mean that
// there is no store, and the advice would be to make one.
func TestMissingManifestIsDamageToWhoLooksOnly(t *testing.T) {
	fs, _ := crashedStore(t)
	damage(t, fs, func(name string) bool { return strings.HasPrefix(name, "MANIFEST") }, func([]byte) []byte { return nil })
	if _, err := Verify(ctx, "data", small(fs, nil), nil); err == nil || vfsNotExist(err) || !strings.Contains(err.Error(), "MANIFEST") {
		t.Fatalf("verify: %v", err)
	}
	r, err := Repair(ctx, "data", adopting(fs))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.SetAside {
		if strings.Contains(a.Path, "db-1") && a.Bytes < 1<<20 {
			t.Fatalf("%s is said to have %d bytes", a.Path, a.Bytes)
		}
	}
	if _, err := Verify(ctx, "elsewhere", small(fs, nil), nil); !vfsNotExist(err) {
		t.Fatalf("verify of nothing: %v", err)
	}
}

// TestOpenPassesDamagedTables cuts each table short or breaks its end, in turn: the store opens,
// takes records, and keeps every byte that it can't use until repair has set it aside.
func TestOpenPassesDamagedTables(t *testing.T) {
	fs, n := crashedStore(t)
	names := liveTables(t, fs)
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
	}{
		{"empty", func(b []byte) []byte { return b[:0:0] }},
		{"cut", func(b []byte) []byte { return b[:len(b)*2/3] }},
		{"footer", flip(func(n int) int { return n - 40 })},
	} {
		for _, name := range names {
			t.Run(c.name+" "+name, func(t *testing.T) {
				broken := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
				t.Parallel()
				var was []byte
				damage(t, broken, func(n string) bool { return n == name }, func(b []byte) []byte {
					b = c.change(b)
					was = bytes.Clone(b)
					return b
				})
				s := mustOpen(t, small(broken, nil))
				st, err := s.Stream("a")
				if err != nil {
					st = mustCreate(t, s, StreamConfig{Name: "a"}) // its row was in the table
				}
				before := count(readAll(t, st))
				if before > n {
					t.Fatalf("%d records of %d", before, n)
				}
				put(t, s, st, 10, func(i int) (string, string) { return fmt.Sprint(i), "after" })
				if err := s.Retain(ctx); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				r, err := Repair(ctx, "data", adopting(broken))
				if err != nil {
					t.Fatal(err)
				}
				if !r.After.OK() {
					t.Fatalf("after repair: %+v", r.After.Problems)
				}
				if !keptSomewhere(t, broken, was) {
					t.Fatal("the damaged table is nowhere any more")
				}
				s = mustOpen(t, small(broken, nil))
				defer s.Close()
				if st, err = s.Stream("a"); err != nil {
					t.Fatal(err)
				}
				if got := count(readAll(t, st)); got != before+10 {
					t.Fatalf("%d records after repair, %d before it and 10 new ones", got, before)
				}
			})
		}
	}
}

// liveTables returns the names of the tables that are not merely waiting to be removed.
func liveTables(t *testing.T, fs *vfs.MemFS) (names []string) {
	t.Helper()
	d, err := openOffline("data", small(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}), nil))
	if err != nil {
		t.Fatal(err)
	}
	levels, err := d.db.SSTables()
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	for _, level := range levels {
		for _, info := range level {
			names = append(names, tableName(uint64(info.BackingSSTNum)))
		}
	}
	return names
}

// keptSomewhere says whether a file with this content is in the data directory.
func keptSomewhere(t *testing.T, fs vfs.FS, content []byte) bool {
	t.Helper()
	var look func(dir string) bool
	look = func(dir string) bool {
		names, err := fs.List(dir)
		if err != nil {
			return false
		}
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			if b, err := readFile(fs, path); err == nil && bytes.Equal(b, content) && strings.HasSuffix(name, ".sst") {
				return true
			}
			if info, err := fs.Stat(path); err == nil && info.IsDir() && look(path) {
				return true
			}
		}
		return false
	}
	return look("data")
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	if _, err := Open(ctx, "data", small(fs, nil)); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(fs, "data", formatFile, []byte("weir storage 2\n")); err != nil {
		t.Fatal(err)
	}
	refused := func(where string) {
		t.Helper()
		if _, err := Open(ctx, "data", small(fs, nil)); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("open, newer by its %s: %v", where, err)
		}
		// What reads a stopped directory would take newer rows and blocks for damage.
		if _, err := Verify(ctx, "data", small(fs, nil), nil); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("verify, newer by its %s: %v", where, err)
		}
		if err := Inspect(ctx, "data", small(fs, nil), InspectOptions{}, func(Item) error { return nil }); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("inspect, newer by its %s: %v", where, err)
		}
	}
	refused("file")
	if err := writeFile(fs, "data", formatFile, []byte("weir storage 1\n")); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(fs, nil))
	s.mu.row.Format = keyspace.FormatVersion + 1
	mustCreate(t, s, StreamConfig{Name: "a"}) // writes the row
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused("row")
}

// TestDamagedBlockFailsAtOnce flips bits of a large record. Pebble would try a
// third of a million checksums of it, again and again.
func TestDamagedBlockFailsAtOnce(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	rng := rand.New(rand.NewPCG(7, 7))
	for range 3 {
		put(t, s, st, 1, func(int) (string, string) { return "k", noise(rng, 1<<20) })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	oldest := oldestTable(t, fs)
	damage(t, fs, func(name string) bool { return name == oldest }, func(b []byte) []byte {
		b[1000] ^= 6
		return b
	})
	var said bytes.Buffer
	o := small(fs, nil)
	o.Logger = slog.New(slog.NewTextHandler(&said, nil))
	s = mustOpen(t, o)
	st, _ = s.Stream("a")
	if n := count(readAll(t, st)); n != 2 {
		t.Fatalf("%d records were read", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if text := said.String(); !strings.Contains(text, "table is damaged") || !strings.Contains(text, ", stored ") {
		t.Fatal(text)
	}
}

// held says which records of each shard a store holds, as ranges.
func held(t *testing.T, st *Stream) map[record.ShardNumber][]segment {
	t.Helper()
	out := map[record.ShardNumber][]segment{}
	for _, info := range st.Shards() {
		r, err := st.NewReader(info.Number, Position{})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n > 0; {
			n, err = r.Read(1000, 1<<20, func(rec *record.Record) bool {
				out[info.Number] = join(out[info.Number], segment{rec.Index, rec.Index})
				return true
			})
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		r.Close()
	}
	return out
}

// checkNamed checks that what is lost of shards that were whole from 1 on is exactly
// what the open named.
func checkNamed(t *testing.T, before, after map[record.ShardNumber][]segment, named []ShardRange) {
	t.Helper()
	for number, segs := range after {
		for _, d := range named {
			if d.Shard == number {
				segs = append(segs, segment{d.First, d.Last})
			}
		}
		slices.SortFunc(segs, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
		var whole []segment
		for _, sg := range segs {
			whole = join(whole, sg)
		}
		if fmt.Sprint(whole) != fmt.Sprint(before[number]) {
			t.Fatalf("%s: held and named are together %v, it had %v; named %+v", number, whole, before[number], named)
		}
	}
}

// TestMissingTableCostsItsOwnRecordsOnly removes each table in turn: the open names
// exactly what was in it, and does not build all the rest anew.
func TestMissingTableCostsItsOwnRecordsOnly(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	fill(t, s, st, 3)
	before := held(t, st)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	records := 0
	for _, name := range liveTables(t, fs) {
		broken := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		damage(t, broken, func(n string) bool { return n == name }, func([]byte) []byte { return nil })
		for round := range 2 {
			s := mustOpen(t, small(broken, nil))
			rec := s.Recovery()
			st, err := s.Stream("a")
			switch {
			case err != nil || len(rec.SetAside) > 0: // the table of metadata
			case round > 0 && len(rec.Damaged) > 0:
				t.Fatalf("%s: told twice of %+v", name, rec.Damaged)
			case round == 0:
				records++
				if len(rec.Damaged) == 0 {
					t.Fatalf("%s: nothing is named", name)
				}
				checkNamed(t, before, held(t, st), rec.Damaged)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := Repair(ctx, "data", adopting(broken)); err != nil || !r.After.OK() {
			t.Fatalf("%s: %+v %v", name, r, err)
		}
		if v, err := Verify(ctx, "data", small(broken, nil), nil); err != nil || !v.OK() {
			t.Fatalf("%s: %+v %v", name, v, err)
		}
	}
	if records < 2 {
		t.Fatalf("%d tables of records were removed", records)
	}
}

// TestRescueGoesOnBehindABadBlock has the database built anew from tables of which each
// has two blocks that can't be read: what is before, between and behind them is saved,
// and the rest named to the record.
func TestRescueGoesOnBehindABadBlock(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	fill(t, s, st, 3)
	settle(t, s)
	before := held(t, st)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, fs, func(name string) bool { return strings.HasPrefix(name, "MANIFEST") }, func([]byte) []byte { return nil })
	tables := 0
	names, err := fs.List("data/db")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	logs := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasSuffix(name, ".log") })
	for _, name := range logs[:len(logs)-1] { // they hold some of the records too
		if err := fs.Remove("data/db/" + name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if info, err := fs.Stat("data/db/" + name); err == nil && strings.HasSuffix(name, ".sst") && info.Size() > 500<<10 {
			tables++
			for _, at := range []int{3, 6} {
				damage(t, fs, func(n string) bool { return n == name }, flip(func(n int) int { return n * at / 10 }))
			}
		}
	}
	s = mustOpen(t, small(fs, nil))
	st, err = s.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	after := held(t, st)
	rec := s.Recovery()
	checkNamed(t, before, after, rec.Damaged)
	lost := uint64(0)
	for _, d := range rec.Damaged {
		lost += d.Last - d.First + 1
	}
	if tables == 0 || len(rec.Damaged) < 2*tables || lost > uint64(tables)*2*300 {
		t.Fatalf("%d tables, %d records lost in %d ranges", tables, lost, len(rec.Damaged))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(ctx, "data", small(fs, nil), nil); err != nil || !v.OK() {
		t.Fatalf("%+v %v", v, err)
	}
}

// adopting has a repair make streams of records whose stream was in a damaged table.
func adopting(fs vfs.FS) Options {
	o := small(fs, nil)
	o.Adopt = true
	return o
}

// TestBrokenBlockOfAnEpochWithoutRow breaks the table of the newest epoch, whose row a power cut
// took, at place after place: no more is lost than what was in the block, and that is said.
func TestBrokenBlockOfAnEpochWithoutRow(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	rng := rand.New(rand.NewPCG(9, 9))
	for range 3 {
		for range 12 {
			put(t, s, st, 20, func(i int) (string, string) { return fmt.Sprint(i), noise(rng, 1000) })
		}
		settle(t, s) // the row of the last one is not written yet
	}
	before := held(t, st)
	all, err := s.recordFiles()
	if err != nil {
		t.Fatal(err)
	}
	table := tableName(all[len(all)-1].files[0])
	cut := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := cut.Stat("data/db/" + table)
	if err != nil {
		t.Fatal(err)
	}
	for at := 100; at < int(info.Size()); at += 24 << 10 {
		broken, s, st := openBroken(t, cut, table, at)
		got, rec := held(t, st), s.Recovery()
		var lost uint64
		for number, segs := range before {
			lost += records(segs) - records(got[number])
			// What is named may end at the bound, where that is all that is known.
			for _, d := range rec.Damaged {
				if d.Shard == number {
					got[number] = append(got[number], segment{d.First, d.Last})
				}
			}
			slices.SortFunc(got[number], func(a, b segment) int { return cmp.Compare(a.first, b.first) })
			last := uint64(0)
			for _, sg := range got[number] {
				if sg.first > last+1 {
					t.Fatalf("at %d: %s holds or names %v of %v", at, number, got[number], segs)
				}
				last = max(last, sg.last)
			}
			if last < segs[len(segs)-1].last {
				t.Fatalf("at %d: %s holds or names %v of %v", at, number, got[number], segs)
			}
		}
		if lost > 100 || lost > 0 && len(rec.Damaged) == 0 {
			t.Errorf("at %d: %d records were lost, named %+v", at, lost, rec.Damaged)
		}
		put(t, s, st, 10, func(i int) (string, string) { return fmt.Sprint(i), "after" })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := Repair(ctx, "data", small(broken, nil)); err != nil || !r.After.OK() || r.After.Records != 720+10-lost {
			t.Fatalf("at %d: %+v, %v", at, r, err)
		}
	}
}

// records is how many indexes the ranges hold.
func records(segs []segment) (n uint64) {
	for _, sg := range segs {
		n += sg.last - sg.first + 1
	}
	return n
}

// TestBrokenBlockOfManyRecords: a block that can't be read stands for all records since
// the one before, of which there may be more than an int counts on 32 bit, and for none
// that retention took.
func TestBrokenBlockOfManyRecords(t *testing.T) {
	const last = 3 << 30
	for trim, first := range map[uint64]uint64{0: 1, 7: 7} {
		s := &Store{}
		sc := epochScan{s: s, f: &found{trims: map[uint32]uint64{1: trim}}, top: map[uint32]keyspace.EpochRun{}}
		sc.block(keyspace.DataKey{Epoch: 1, Shard: 1, Last: last}.Append(nil), []byte("broken"))
		if d := s.recovery.Damaged; len(d) != 1 || d[0].First != first || d[0].Last != last {
			t.Errorf("damaged are %v, want the records %d to %d", d, first, uint64(last))
		}
		if r := sc.row.Runs; len(r) != 1 || r[0].Count != last-first+1 || r[0].Last != last {
			t.Errorf("the runs are %+v, want one of %d records", r, last-first+1)
		}
	}
}
