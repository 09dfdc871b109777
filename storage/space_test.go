package storage

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// fillShared has two streams write by turns, so that every table holds something of
// both: a batches of a records, b of b, of a thousand bytes each.
func fillShared(t *testing.T, s *Store, st, other *Stream, rounds, a, b int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	row := func(i int) (string, string) { return fmt.Sprint(i), noise(rng, 1000) }
	for range rounds {
		put(t, s, st, a, row)
		put(t, s, other, b, row)
	}
	settle(t, s)
	if err := s.emptyGroup(ctx)(); err != nil { // the last epoch's row goes with it
		t.Fatal(err)
	}
}

// TestDeletedStreamGivesBackWhatItSharedFilesFor deletes a stream whose records lie in
// the same tables as another's: the disk gets its bytes back by itself, for no more
// bytes written than come back, and whoever reads the other stream notices nothing.
func TestDeletedStreamGivesBackWhatItSharedFilesFor(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	other := mustCreate(t, s, StreamConfig{Name: "b"})
	fillShared(t, s, st, other, 50, 100, 10)
	r, err := other.NewReader(0, Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	read := func(max int) {
		for n < max {
			got, err := r.Read(max-n, 1<<20, func(rec *record.Record) bool { return rec.Index == uint64(n)+1 })
			if err != nil || got == 0 {
				t.Fatalf("%d records, %v", n, err)
			}
			n += got
		}
	}
	read(100)
	full, info, before := s.Metrics().TableBytes, fmt.Sprint(other.Shards()), s.Ledger()
	if full < 5<<20 {
		t.Fatalf("%d bytes", full)
	}
	if err := s.DeleteStream(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Metrics().TableBytes < 700<<10 })
	m, after := s.Metrics(), s.Ledger()
	if freed := full - m.TableBytes; m.BytesRewritten == 0 || m.BytesRewritten > freed {
		t.Fatalf("%d bytes written to free %d", m.BytesRewritten, freed)
	}
	if got := after.Days[0].BytesCompaction - before.Days[0].BytesCompaction; got < m.BytesRewritten {
		t.Fatalf("the ledger counts %d bytes, %d were written anew", got, m.BytesRewritten)
	}
	read(500)
	if g := r.Skipped(); len(g) != 0 || fmt.Sprint(other.Shards()) != info {
		t.Fatalf("skipped %+v, shards %+v, before %s", g, other.Shards(), info)
	}
	if freed, err := s.Reclaim(ctx, 1<<30); freed != 0 || err != nil {
		t.Fatalf("once more: %d, %v", freed, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(ctx, "data", small(fs, nil), nil)
	if err != nil || !v.OK() || v.Records != 500 || v.Blocks > 60 {
		t.Fatalf("%+v %v", v, err)
	}
	s = mustOpen(t, small(fs, nil))
	defer s.Close()
	if d := s.Recovery().Damaged; len(d) != 0 {
		t.Fatalf("looks like damage: %+v", d)
	}
	if other, err = s.Stream("b"); err != nil || count(readAll(t, other)) != 500 || fmt.Sprint(other.Shards()) != info {
		t.Fatalf("%v, shards %+v, before %s", err, other.Shards(), info)
	}
	waitForgotten(t, s)
}

// TestReadersMissNothingWhileTablesAreWrittenAnew has readers go over a table that is put
// in place of itself again and again.
func TestReadersMissNothingWhileTablesAreWrittenAnew(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 20, func(i int) (string, string) { return fmt.Sprint(i), "reading" })
	settle(t, s)
	if err := s.emptyGroup(ctx)(); err != nil { // the epoch's row goes with it
		t.Fatal(err)
	}
	put(t, s, st, 1, func(int) (string, string) { return "newest", "kept decoded for all" })
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := st.NewReader(0, Position{})
				if err != nil {
					t.Error(err)
					return
				}
				n, err := r.Read(20, 1<<20, func(*record.Record) bool { return true })
				if g := r.Skipped(); n != 20 || err != nil || len(g) > 0 {
					t.Errorf("%d of 20 records, %v; skipped %+v", n, err, g)
					return
				}
				r.Close()
			}
		})
	}
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	for range 300 {
		files, err := s.filesByEpochs()
		if err != nil || len(files) != 1 {
			t.Fatalf("%+v, %v", files, err)
		}
		g := files[0]
		g.entries = s.directory.Entries()[:1]
		if _, err := s.writeAnew(ctx, &g); err != nil || t.Failed() {
			t.Error(err)
			break
		}
	}
	close(stop)
	readers.Wait()
}

// waitForgotten checks that nothing is left that tells of deleted shards.
func waitForgotten(t *testing.T, s *Store) {
	t.Helper()
	f, err := readRows(ctx, s.db)
	if err != nil {
		t.Fatal(err)
	}
	for id, trim := range f.trims {
		if trim == keyspace.TrimmedAll {
			t.Fatalf("shard %d was deleted, and no epoch holds anything of it, but its trim is there", id)
		}
	}
}

// TestSpaceComesBackAfterAPowerCutBehindTheDeletion has the stream's rows go, but not its
// records: the next open goes on with them.
func TestSpaceComesBackAfterAPowerCutBehindTheDeletion(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	other := mustCreate(t, s, StreamConfig{Name: "b"})
	fillShared(t, s, st, other, 30, 100, 10)
	if err := st.Delete(ctx); err != nil { // and not DeleteStream
		t.Fatal(err)
	}
	cut := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(cut, nil))
	defer s.Close()
	full := s.Metrics().TableBytes
	if freed, err := s.Reclaim(ctx, 1<<30); err != nil || freed < int64(full)/2 {
		t.Fatalf("%d of %d bytes, %v", freed, full, err)
	}
	other, err := s.Stream("b")
	if err != nil || count(readAll(t, other)) != 300 {
		t.Fatal(err)
	}
	s.creating.Lock()
	s.trimmed = 1
	s.creating.Unlock()
	s.forgetDeleted(ctx)
	waitForgotten(t, s)
}

// TestLittleGarbageIsWrittenAnewOnlyUnderPressure deletes a stream that has a third of
// each table: to write two bytes for one is not worth it before the disk gets full.
func TestLittleGarbageIsWrittenAnewOnlyUnderPressure(t *testing.T) {
	disk := newSmallDisk(vfs.NewMem(), 64<<20)
	o := small(disk, nil)
	o.SoftFreeBytes = 1 << 20
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	other := mustCreate(t, s, StreamConfig{Name: "b"})
	fillShared(t, s, st, other, 30, 50, 100)
	full := s.Metrics().TableBytes
	if err := s.DeleteStream(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.Reclaim(ctx, 1<<30); freed != 0 || err != nil || s.Metrics().BytesRewritten != 0 {
		t.Fatalf("%d bytes, %v", freed, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.SoftFreeBytes = 63 << 20 // more than there is
	s = mustOpen(t, o)
	defer s.Close()
	waitFor(t, func() bool { return s.Metrics().TableBytes < full*3/4 })
	other, err := s.Stream("b")
	if err != nil || count(readAll(t, other)) != 3000 {
		t.Fatal(err)
	}
}

// TestShortRetentionBesideALongOneGivesSpaceBack has a busy stream kept for eight days
// in the tables of a quiet one that is kept for a year.
func TestShortRetentionBesideALongOneGivesSpaceBack(t *testing.T) {
	clock := newTestClock()
	s := mustOpen(t, small(vfs.NewMem(), clock))
	defer s.Close()
	busy := mustCreate(t, s, StreamConfig{Name: "a", Retention: 8 * 24 * time.Hour})
	quiet := mustCreate(t, s, StreamConfig{Name: "b", Retention: 365 * 24 * time.Hour})
	fillShared(t, s, busy, quiet, 30, 100, 5)
	clock.pass(8*24*time.Hour + time.Minute)
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		_, err := s.Reclaim(ctx, 1<<30)
		return err == nil && s.Metrics().TableBytes < 400<<10
	})
	if n := count(readAll(t, quiet)); n != 150 {
		t.Fatalf("%d records of the quiet stream", n)
	}
	r, err := busy.NewReader(0, Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.Read(1, 1, func(*record.Record) bool { return true }); n != 0 || err == io.EOF {
		t.Fatalf("%d records of the busy stream, %v", n, err)
	}
}
