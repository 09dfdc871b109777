package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// noise is data that does not compress, so that epochs fill.
func noise(rng *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

// fill appends about so many MiB to one shard or more.
func fill(t testing.TB, s *Store, st *Stream, mib int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range mib * 16 {
		put(t, s, st, 64, func(j int) (string, string) { return fmt.Sprint(i, j), noise(rng, 1000) })
	}
}

// fillUntilRefused appends beyond the limit of the box until the policy answers.
func fillUntilRefused(t testing.TB, s *Store, st *Stream) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	for {
		tx, err := s.Begin(ctx, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		for range 64 {
			if err = tx.Append(st, []byte("k"), nil, []byte(noise(rng, 1000))); err != nil {
				break
			}
		}
		if err == nil {
			err = tx.Commit(ctx)
		}
		tx.Release()
		if errors.Is(err, ErrDiskFull) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Retain(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRetentionByTimeTakesWholeEpochs(t *testing.T) {
	clock := newTestClock()
	s := mustOpen(t, small(vfs.NewMem(), clock))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2, Retention: time.Hour})
	keep := mustCreate(t, s, StreamConfig{Name: "b", Retention: 48 * time.Hour})
	fill(t, s, st, 3)
	put(t, s, keep, 10, func(i int) (string, string) { return "k", "kept" })
	r, err := st.NewReader(0, Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	clock.pass(30 * time.Minute)
	settle(t, s)
	fill(t, s, st, 1)
	waitFor(t, func() bool { return s.Metrics().TableBytes > 3<<20 })
	clock.pass(31 * time.Minute)
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	info, _ := st.Shard(0)
	if info.First == 1 || info.First > info.Last || info.Bytes > 1<<20 {
		t.Fatalf("shard %+v", info)
	}
	if n := count(readAll(t, keep)); n != 10 {
		t.Fatalf("the other stream has %d records", n)
	}
	waitFor(t, func() bool { return s.Metrics().TableBytes < 2<<20 })
	// A reader that stood at the beginning is told what it missed.
	if _, err := r.Read(1, 1, func(rec *record.Record) bool {
		if rec.Index != info.First {
			t.Fatalf("read %d, kept from %d", rec.Index, info.First)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if g := r.Skipped(); len(g) != 1 || g[0].Reason != GapRetention || g[0].First != 1 || g[0].Last != info.First-1 || g[0].Records != info.First-1 {
		t.Fatalf("gaps %+v", g)
	}
}

// settle ends the epoch and waits until its table has moved down: tables that wait in
// level 0 together become one, which then goes as one.
func settle(t testing.TB, s *Store) {
	t.Helper()
	if err := s.committer.CloseEpoch(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Metrics().UnderWay == 0 && s.db.Metrics().Levels[0].TablesCount == 0 })
}

// waitFor polls until cond holds.
func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if cond() {
			return
		}
	}
	t.Fatal("the condition did not come true within a minute")
}

func TestRetentionByBytes(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2, RetentionBytes: 2 << 20})
	fill(t, s, st, 6)
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	first, stored := uint64(0), int64(0)
	for _, i := range st.Shards() {
		first, stored = max(first, i.First), stored+i.Bytes
	}
	if stored > 2<<20 || stored < 1<<20 || first < 100 {
		t.Fatalf("%d bytes stored, first %d", stored, first)
	}
	shards := fmt.Sprint(st.Shards())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(fs, nil))
	defer s.Close()
	st, _ = s.Stream("a")
	if got := fmt.Sprint(st.Shards()); got != shards {
		t.Fatalf("after reopen\n%s\nbefore\n%s", got, shards)
	}
	if d := s.Recovery().Damaged; len(d) != 0 {
		t.Fatalf("retention looks like damage: %+v", d)
	}
}

func TestPoliciesUnderTheLimitOfTheBox(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		reason GapReason
	}{{DropOldest, GapDropped}, {ThinOut, GapThinned}, {Reject, 0}} {
		t.Run(fmt.Sprint(c.policy), func(t *testing.T) {
			o := small(vfs.NewMem(), nil)
			o.TotalBytes = 3 << 20
			s := mustOpen(t, o)
			defer s.Close()
			st := mustCreate(t, s, StreamConfig{Name: "a", WhenFull: c.policy})
			if c.policy == Reject {
				fillUntilRefused(t, s, st)
			} else {
				fill(t, s, st, 5)
			}
			if err := s.Retain(ctx); err != nil {
				t.Fatal(err)
			}
			state := s.State()
			if c.policy == Reject {
				tx, _ := s.Begin(ctx, 1)
				defer tx.Release()
				if err := tx.Append(st, nil, nil, nil); state.Writable || !state.DiskLow || err == nil {
					t.Fatalf("%+v, append: %v", state, err)
				}
				return
			}
			if !state.Writable || state.BytesStored > 3<<20 || state.BytesStored < 1<<20 {
				t.Fatalf("%+v", state)
			}
			checkLosses(t, st, c.reason)
		})
	}
}

// checkLosses compares what a reader misses with what is reported.
func checkLosses(t *testing.T, st *Stream, reason GapReason) {
	t.Helper()
	r, err := st.NewReader(0, Position{Kind: AtIndex, Index: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := uint64(1)
	var missed, skipped, lost uint64
	for {
		n, err := r.Read(100, 1<<20, func(rec *record.Record) bool {
			missed += rec.Index - next
			next = rec.Index + 1
			return true
		})
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	for _, g := range r.Skipped() {
		if g.Reason != reason {
			t.Fatalf("gap %+v, want %s", g, reason)
		}
		skipped += g.Records
	}
	losses, err := st.Losses(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range losses {
		lost += l.Records
	}
	if missed == 0 || missed != skipped || missed != lost {
		t.Fatalf("missed %d, told of %d, reported %d", missed, skipped, lost)
	}
}

func TestThinnedEpochsSurviveReopen(t *testing.T) {
	fs := vfs.NewMem()
	o := small(fs, nil)
	o.TotalBytes = 3 << 20
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a", WhenFull: ThinOut})
	fill(t, s, st, 5)
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	n := count(readAll(t, st))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	defer s.Close()
	st, _ = s.Stream("a")
	if got := count(readAll(t, st)); got != n {
		t.Fatalf("%d records, before reopen %d", got, n)
	}
	checkLosses(t, st, GapThinned)
}

// TestThinnedRecordsAreKnownWithoutTheirRanges takes away the rows of single ranges, of which a
// limited number is kept: that the records were thinned out, and not lost, is known all the same.
func TestThinnedRecordsAreKnownWithoutTheirRanges(t *testing.T) {
	fs := vfs.NewMem()
	o := small(fs, nil)
	o.TotalBytes = 3 << 20
	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a", WhenFull: ThinOut})
	fill(t, s, st, 5)
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	losses, err := st.Losses(0)
	if err != nil || len(losses) < 2 {
		t.Fatalf("%d losses, %v", len(losses), err)
	}
	var lost uint64
	for _, l := range losses {
		lost += l.Records
		if err := s.db.Delete(keyspace.MetaIndex(keyspace.KindLoss, 1, l.First), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	kept := count(readAll(t, st))
	if got := st.Lost(); got[GapThinned] != lost || got[GapDropped] != 0 || st.Shards()[0].Records != uint64(kept) {
		t.Fatalf("%v lost and %d kept of %d; want %d thinned out, %d kept", got, st.Shards()[0].Records, st.Taken(), lost, kept)
	}
	if n := strings.Count(log.String(), "records dropped by policy"); n == 0 || n >= len(losses) {
		t.Fatalf("%d lines about %d ranges", n, len(losses))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := Verify(ctx, "data", o, nil)
	if err != nil || !report.OK() || report.Shards[0].Lost != lost {
		t.Fatalf("%+v, %v", report, err)
	}
	s = mustOpen(t, o)
	defer s.Close()
	if st, err = s.Stream("a"); err != nil {
		t.Fatal(err)
	}
	if losses, err = st.Losses(0); err != nil || len(losses) > 0 {
		t.Fatalf("%d losses, %v", len(losses), err)
	}
	r, err := st.NewReader(0, Position{Kind: TrimHorizon})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := 1; n > 0; {
		if n, err = r.Read(1000, 1<<20, func(*record.Record) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	var skipped uint64
	for _, g := range r.Skipped() {
		if skipped += g.Records; g.Reason != GapThinned {
			t.Errorf("gap %+v", g)
		}
	}
	if skipped != lost {
		t.Errorf("told of %d, lost %d", skipped, lost)
	}
}

// TestDroppingGivesSpaceBackBesideAStreamThatKeeps fills a disk with two streams of one
// retention by turns. What the one may drop must come back as space: a file that both
// have a part in would stay, and all of the one's records would go for nothing.
func TestDroppingGivesSpaceBackBesideAStreamThatKeeps(t *testing.T) {
	o := small(newSmallDisk(vfs.NewMem(), 24<<20), nil)
	o.SoftFreeBytes = 6 << 20
	s := mustOpen(t, o)
	defer s.Close()
	keeps := mustCreate(t, s, StreamConfig{Name: "keeps"})
	yields := mustCreate(t, s, StreamConfig{Name: "yields", WhenFull: DropOldest})
	rng := rand.New(rand.NewPCG(5, 5))
	record := func(i int) (string, string) { return fmt.Sprint(i), noise(rng, 1000) }
	for range 6 * 16 { // 6 MiB of the one, 24 of the other
		put(t, s, keeps, 64, record)
		put(t, s, yields, 256, record)
		if err := s.Retain(ctx); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return s.State().Writable })
	}
	if n := count(readAll(t, keeps)); n != 6*16*64 {
		t.Fatalf("%d records of the stream that keeps its records, %d were acknowledged", n, 6*16*64)
	}
	if n := count(readAll(t, yields)); n < 1000 {
		t.Fatalf("%d records are left of the stream that drops the oldest, though a third of the disk is free", n)
	}
	checkLosses(t, yields, GapDropped)
}

func TestDeletedStreamGivesSpaceBack(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	other := mustCreate(t, s, StreamConfig{Name: "b", Shards: 2})
	fill(t, s, st, 3)
	put(t, s, other, 100, func(i int) (string, string) { return fmt.Sprint(i), "kept" })
	put(t, s, st, 100, func(i int) (string, string) { return fmt.Sprint(i), noise(rand.New(rand.NewPCG(1, 1)), 1000) })
	if err := s.DeleteStream(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Metrics().TableBytes < 1<<20 })
	if n := count(readAll(t, other)); n != 100 {
		t.Fatalf("the other stream has %d records", n)
	}
	if st, err := s.CreateStream(ctx, StreamConfig{Name: "a"}); err != nil || count(readAll(t, st)) != 0 {
		t.Fatal(err)
	}
}

func TestReadFromTime(t *testing.T) {
	clock := newTestClock()
	s := mustOpen(t, small(vfs.NewMem(), clock))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	rng := rand.New(rand.NewPCG(1, 1))
	var at []time.Time
	for i := range 300 {
		at = append(at, clock.now())
		put(t, s, st, 10, func(int) (string, string) { return "k", fmt.Sprint(i, noise(rng, 1000)) })
		clock.pass(time.Second)
		if i%50 == 0 {
			clock.step(clock.now().Add(-5 * time.Second)) // a correction backwards
		}
	}
	for i := 0; i < 300; i += 7 {
		r, err := st.NewReader(0, Position{Kind: AtTime, Time: at[i]})
		if err != nil {
			t.Fatal(err)
		}
		// The first record that arrived then or later.
		want := 0
		for at[want].Before(at[i]) {
			want++
		}
		if pos := r.Position(); pos != uint64(want*10+1) {
			t.Fatalf("time of batch %d: position %d, want %d", i, pos, want*10+1)
		}
		r.Close()
	}
	r, err := st.NewReader(0, Position{Kind: AtTime, Time: clock.now().Add(time.Hour)})
	if err != nil || r.Position() != 3001 {
		t.Fatalf("%v %d", err, r.Position())
	}
	r.Close()
}

// TestDamageIsStillCountedWhenItsEpochWasDropped has both reasons reported for their
// own records, and by the next open too.
func TestDamageIsStillCountedWhenItsEpochWasDropped(t *testing.T) {
	fs := vfs.NewMem()
	o := small(fs, nil)
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a", WhenFull: DropOldest})
	fill(t, s, st, 4)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	oldest := oldestTable(t, fs)
	damage(t, fs, func(name string) bool { return name == oldest }, flip(func(int) int { return 100 }))
	s = mustOpen(t, o)
	st, _ = s.Stream("a")
	readAll(t, st)
	damaged := losses(t, st)
	if len(damaged) != 1 || damaged[0].First != 1 || damaged[0].Reason != keyspace.LossDamage {
		t.Fatalf("after reading: %+v", damaged)
	}
	o.TotalBytes = 2 << 20
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	st, _ = s.Stream("a")
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	first := st.Shards()[0].First
	want := []Loss{{First: 1, Last: damaged[0].Last, Records: damaged[0].Last}, {First: damaged[0].Last + 1, Last: first - 1, Records: first - 1 - damaged[0].Last}}
	for range 2 {
		got := losses(t, st)
		if len(got) != 2 || got[0].Reason != keyspace.LossDamage || got[1].Reason != keyspace.LossDropped {
			t.Fatalf("%+v", got)
		}
		for i, w := range want {
			if g := got[i]; g.First != w.First || g.Last != w.Last || g.Records != w.Records {
				t.Fatalf("got %+v, want %+v", g, w)
			}
		}
		r, err := st.NewReader(0, Position{Kind: AtIndex, Index: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(1, 1, func(*record.Record) bool { return true }); err != nil {
			t.Fatal(err)
		}
		gaps := fmt.Sprint(r.Skipped())
		if w := fmt.Sprintf("[{1 %d %[1]d damage} {%d %d %d dropped}]", want[0].Last, want[1].First, want[1].Last, want[1].Records); gaps != w {
			t.Fatalf("a reader is told of %s, want %s", gaps, w)
		}
		r.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, o)
		st, _ = s.Stream("a")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func losses(t *testing.T, st *Stream) []Loss {
	t.Helper()
	all, err := st.Losses(0)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// oldestTable returns the name of the table with the first records.
func oldestTable(t *testing.T, fs *vfs.MemFS) (name string) {
	t.Helper()
	d, err := openOffline("data", small(fs, nil))
	if err != nil {
		t.Fatal(err)
	}
	levels, err := d.db.SSTables()
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	var first []byte
	for _, level := range levels {
		for _, info := range level {
			if key := info.Smallest.UserKey; key[0] >= keyspace.LaneSpace && (first == nil || bytes.Compare(key, first) < 0) {
				name, first = tableName(uint64(info.BackingSSTNum)), key
			}
		}
	}
	return name
}
