package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/record"
)

var ctx = context.Background()

// testClock is a wall clock and an uptime that tests move.
type testClock struct {
	mu     sync.Mutex
	wall   time.Time
	uptime time.Duration
}

func newTestClock() *testClock { return &testClock{wall: time.UnixMilli(1_800_000_000_000)} }

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *testClock) up() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uptime
}

// pass moves both clocks; step only the wall clock.
func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.uptime = c.wall.Add(d), c.uptime+d
}

func (c *testClock) step(to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = to
}

// small makes epochs of a few hundred records.
func small(fs vfs.FS, clock *testClock) Options {
	o := Options{FS: fs, MemTableBytes: 1 << 20, ReserveBytes: -1}
	if clock != nil {
		o.Clock, o.Uptime = clock.now, clock.up
	}
	return o
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(ctx, "data", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustCreate(t testing.TB, s *Store, c StreamConfig) *Stream {
	t.Helper()
	st, err := s.CreateStream(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func put(t testing.TB, s *Store, st *Stream, n int, data func(i int) (key, value string)) {
	t.Helper()
	tx, err := s.Begin(ctx, 100*n)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Release()
	for i := range n {
		k, v := data(i)
		if err := tx.Append(st, []byte(k), nil, []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
}

// readAll returns what every shard holds, and checks that indexes grow.
func readAll(t testing.TB, st *Stream) map[record.ShardNumber][]string {
	t.Helper()
	out := map[record.ShardNumber][]string{}
	for _, info := range st.Shards() {
		r, err := st.NewReader(info.Number, Position{})
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for {
			n, err := r.Read(1000, 1<<20, func(rec *record.Record) bool {
				if rec.Index <= last {
					t.Fatalf("index %d after %d", rec.Index, last)
				}
				last = rec.Index
				out[info.Number] = append(out[info.Number], string(rec.Data))
				return true
			})
			if n == 0 {
				if err != nil && err != io.EOF {
					t.Fatal(err)
				}
				break
			}
		}
		r.Close()
	}
	return out
}

func count(m map[record.ShardNumber][]string) (n int) {
	for _, v := range m {
		n += len(v)
	}
	return n
}

func TestRecordsSurviveReopen(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 4})
	for i := range 50 {
		put(t, s, st, 100, func(j int) (string, string) { return fmt.Sprint("k", j), fmt.Sprintf("record %d of batch %d", j, i) })
	}
	before := readAll(t, st)
	if count(before) != 5000 {
		t.Fatalf("%d records", count(before))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(fs, nil))
	defer s.Close()
	if r := s.Recovery(); !r.Clean || len(r.Jumps) != 0 || len(r.Damaged) != 0 {
		t.Fatalf("recovery %+v", r)
	}
	st, err := s.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	after := readAll(t, st)
	for n, want := range before {
		if fmt.Sprint(after[n]) != fmt.Sprint(want) {
			t.Fatalf("shard %d differs: %d and %d records", n, len(want), len(after[n]))
		}
	}
	put(t, s, st, 1, func(int) (string, string) { return "k", "v" })
}

func TestIndexIsDenseAndJumpIsRecordedAfterCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 1})
	put(t, s, st, 10, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(crashed, nil))
	defer s.Close()
	rec := s.Recovery()
	if rec.Clean || len(rec.Jumps) != 1 || rec.Jumps[0].First != 11 {
		t.Fatalf("recovery %+v", rec)
	}
	st, _ = s.Stream("a")
	put(t, s, st, 1, func(int) (string, string) { return "k", "after" })
	r, err := st.NewReader(0, Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	var idx []uint64
	if _, err := r.Read(100, 1<<20, func(r *record.Record) bool {
		got, idx = append(got, string(r.Data)), append(idx, r.Index)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 11 || got[10] != "after" || idx[9] != 10 || idx[10] != rec.Jumps[0].Last+1 || len(r.Skipped()) != 0 {
		t.Fatalf("%v %v", got, idx)
	}
	if i := st.Shards()[0]; i.Records != 11 || i.Last-i.First+1 == 11 || st.Taken() != 1 {
		t.Fatalf("%d records from index %d to %d, %d of them taken in since the open", i.Records, i.First, i.Last, st.Taken())
	}
}

func TestConflictWritesNothing(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	commit := func(expect []byte, value string) error {
		tx, err := s.Begin(ctx, 100)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Release()
		tx.Expect(TableLease, []byte("k"), expect)
		tx.Put(TableLease, []byte("k"), []byte(value))
		if err := tx.Append(st, []byte("k"), nil, []byte(value)); err != nil {
			t.Fatal(err)
		}
		return tx.Commit(ctx)
	}
	if err := commit(nil, "1"); err != nil {
		t.Fatal(err)
	}
	if err := commit(nil, "2"); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	if err := commit([]byte("1"), "3"); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, st); fmt.Sprint(got[0]) != "[1 3]" {
		t.Fatal(got)
	}
	if v, err := s.Get(TableLease, []byte("k")); err != nil || string(v) != "3" {
		t.Fatalf("%q %v", v, err)
	}
}

func TestRollbackLeavesNoTrace(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	kept, _ := s.Begin(ctx, 10)
	given, _ := s.Begin(ctx, 10)
	for i := range 6 {
		tx := kept
		if i%2 == 1 {
			tx = given
		}
		if err := tx.Append(st, []byte("k"), nil, []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	kept.Shrink(0)
	given.Rollback()
	given.Release()
	if err := kept.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	_, i, _ := kept.Result(2)
	if got := readAll(t, st); fmt.Sprintf("%q", got[0]) != `["0" "2" ""]` || i != 3 {
		t.Fatalf("%q, index %d", got[0], i)
	}
	kept.Release()
}

func TestConcurrentAppends(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 3})
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 100 {
				put(t, s, st, 7, func(j int) (string, string) { return fmt.Sprint("k", w), fmt.Sprintf("%d %d", w, i*7+j) })
			}
		}()
	}
	for split := range 3 {
		mid, _ := st.Shards()[split].Hash.Mid()
		if err := st.Split(ctx, record.ShardNumber(split), mid); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if n := count(readAll(t, st)); n != 16*700 {
		t.Fatalf("%d records", n)
	}
	// Each producer's records are in order: parents first, then children.
	next := map[int]int{}
	all := readAll(t, st)
	for _, info := range st.Shards() {
		for _, rec := range all[info.Number] {
			var w, i int
			_, _ = fmt.Sscan(rec, &w, &i)
			if i != next[w] {
				t.Fatalf("producer %d: record %d, want %d", w, i, next[w])
			}
			next[w]++
		}
	}
}

func TestUpdateShardCount(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 3})
	for _, target := range []int{4, 8, 5, 1, 2} {
		if err := st.UpdateShardCount(ctx, target); err != nil {
			t.Fatal(err)
		}
		var open []record.HashRange
		for _, i := range st.Shards() {
			if i.Open() {
				open = append(open, i.Hash)
			}
		}
		want := record.SplitRing(target)
		if len(open) != target || st.Config().Shards != target {
			t.Fatalf("%d open shards, want %d", len(open), target)
		}
		for _, w := range want {
			found := false
			for _, o := range open {
				found = found || o == w
			}
			if !found {
				t.Fatalf("no shard for %v", w)
			}
		}
	}
}

func TestTailReaderIsWoken(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	got := make(chan string, 100)
	for range 3 {
		go func() {
			r, err := st.NewReader(0, Position{Kind: Latest})
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			got <- "ready"
			for {
				if err := r.Wait(ctx); err != nil {
					t.Error(err)
					return
				}
				_, err := r.Read(10, 1000, func(rec *record.Record) bool { got <- string(rec.Data); return true })
				if err != nil {
					got <- err.Error()
					return
				}
			}
		}()
	}
	for range 3 {
		<-got
	}
	for i := range 5 {
		put(t, s, st, 1, func(int) (string, string) { return "k", fmt.Sprint(i) })
		for range 3 {
			if v := <-got; v != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", v, i)
			}
		}
	}
	if err := s.DeleteStream(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if v := <-got; v != ErrStreamNotFound.Error() {
			t.Fatal(v)
		}
	}
}

func TestScanAndDeletePrefix(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	tx, _ := s.Begin(ctx, 10)
	for _, k := range []string{"a", "b/1", "b/2", "b/3", "c"} {
		tx.Put(TableSetting, []byte(k), []byte("v"+k))
	}
	tx.Put(TableModule, []byte("b/9"), nil)
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	tx.Release()
	list := func(prefix, after string, limit int) (out []string) {
		var a []byte
		if after != "" {
			a = []byte(after)
		}
		if err := s.Scan(TableSetting, []byte(prefix), a, limit, func(k, v []byte) bool {
			if string(v) != "v"+string(k) {
				t.Fatalf("%s: %s", k, v)
			}
			out = append(out, string(k))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for want, got := range map[string][]string{
		"[a b/1 b/2 b/3 c]": list("", "", 0), "[b/1 b/2 b/3]": list("b/", "", 0), "[b/2]": list("b/", "b/1", 1), "[c]": list("", "b/3", 0),
	} {
		if fmt.Sprint(got) != want {
			t.Fatalf("got %v, want %s", got, want)
		}
	}
	tx, _ = s.Begin(ctx, 10)
	defer tx.Release()
	tx.DeletePrefix(TableSetting, []byte("b/"))
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := list("", "", 0); fmt.Sprint(got) != "[a c]" {
		t.Fatal(got)
	}
	if _, err := s.Get(TableModule, []byte("b/9")); err != nil {
		t.Fatal(err)
	}
}
