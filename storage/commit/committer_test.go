package commit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

var ctx = context.Background()

// bench is a committer over a database in memory whose log syncs can be held up.
type bench struct {
	c   *Committer
	db  *pebble.DB
	dir *epoch.Directory
	// hold, while locked, keeps log syncs from returning.
	hold  sync.RWMutex
	syncs atomic.Int64 // of the log, begun
}

// quiet drops what Pebble says.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func newBench(t *testing.T, change func(*Options)) *bench {
	t.Helper()
	b := &bench{dir: epoch.New()}
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.HasSuffix(op.Path, ".log") || op.Kind != errorfs.OpFileSync && op.Kind != errorfs.OpFileSyncData {
			return nil
		}
		b.syncs.Add(1)
		b.hold.RLock()
		defer b.hold.RUnlock()
		return nil
	}))
	var err error
	if b.db, err = pebble.Open("db", &pebble.Options{FS: fs, Logger: quiet{}}); err != nil {
		t.Fatal(err)
	}
	o := Options{
		GroupBytes: 1 << 20, AdmissionBytes: 4 << 20, MemTableBytes: 1 << 20, Session: 1, FirstEpoch: 1,
		EpochAge: func() time.Duration { return time.Hour }, OnLearnt: func(uint32, int64) {},
	}
	if change != nil {
		change(&o)
	}
	start := time.Now()
	b.c = New(b.db, b.dir, NewClock(time.Now, func() time.Duration { return time.Since(start) }, 0), o)
	t.Cleanup(func() {
		b.c.Close()
		if err := b.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func newTestLog(id uint32) *Log {
	return NewLog(id, 0, 1, CodecZstd, LogState{Next: 1, First: 1})
}

// begin returns a transaction that has reserved n records in l and not committed.
func (b *bench) begin(t *testing.T, l *Log, size int64, records ...string) *Txn {
	t.Helper()
	tx, err := b.c.Begin(ctx, int(size))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		data, err := tx.Reserve(l, []byte("k"), nil, len(r))
		if err != nil {
			t.Fatal(err)
		}
		copy(data, r)
	}
	return tx
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

// TestAdmissionIsFirstInFirstOut lets a large transaction wait while there would be
// room for small ones: they must not overtake it.
func TestAdmissionIsFirstInFirstOut(t *testing.T) {
	b := newBench(t, func(o *Options) { o.AdmissionBytes = 1000 })
	first := b.begin(t, newTestLog(1), 900)
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	admit := func(size int) {
		wg.Go(func() {
			tx, err := b.c.Begin(ctx, size)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, size)
			mu.Unlock()
			tx.Recycle()
		})
	}
	admit(1000)
	eventually(t, "the large one waits in line", func() bool {
		free := b.c.admission.TryAcquire(1)
		if free {
			b.c.admission.Release(1)
		}
		return !free
	})
	for range 5 {
		admit(10)
	}
	first.Recycle()
	wg.Wait()
	if order[0] != 1000 {
		t.Fatalf("let in as %v", order)
	}
}

func TestBeginGivesUpWithItsContext(t *testing.T) {
	b := newBench(t, func(o *Options) { o.AdmissionBytes = 100 })
	first := b.begin(t, newTestLog(1), 100)
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.c.Begin(short, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("begin: %v", err)
	}
	first.Recycle()
	// More than the limit is the limit, or it could never be let in.
	b.begin(t, newTestLog(1), 1<<30).Recycle()
}

// TestWaitingTransactionsShareOneSync holds a sync up: what is committed meanwhile
// goes in one group, and with one sync.
func TestWaitingTransactionsShareOneSync(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	b.hold.Lock()
	results := make(chan error, 21)
	commit := func(tx *Txn) {
		go func() {
			results <- tx.Commit(ctx)
		}()
	}
	commit(b.begin(t, l, 10, "first"))
	eventually(t, "the first sync begins", func() bool { return b.syncs.Load() > 0 })
	for i := range 20 {
		commit(b.begin(t, l, 10, fmt.Sprint(i)))
	}
	eventually(t, "all have joined the open group", func() bool {
		b.c.mu.Lock()
		defer b.c.mu.Unlock()
		return b.c.mu.open.ops == 20
	})
	if l.Watermark() != 0 {
		t.Fatalf("watermark %d before the sync returned", l.Watermark())
	}
	b.hold.Unlock()
	for range 21 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	if s := b.c.Stats(); s.Groups != 2 || s.Txns != 21 || s.Records != 21 || l.Watermark() != 21 {
		t.Fatalf("%+v, watermark %d", s, l.Watermark())
	}
}

// TestGroupsStayUnderTheirLimit commits more than a group may hold while a sync is
// held up: the rest waits in line, in order, and loses nothing.
func TestGroupsStayUnderTheirLimit(t *testing.T) {
	b := newBench(t, func(o *Options) { o.GroupBytes = 100 })
	l := newTestLog(1)
	var mu sync.Mutex
	indexes := map[int]uint64{}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			tx := b.begin(t, l, 40, fmt.Sprint(i))
			defer tx.Recycle()
			if err := tx.Commit(ctx); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			indexes[i] = tx.Result(0).Index
			mu.Unlock()
		})
	}
	wg.Wait()
	s := b.c.Stats()
	if s.Txns != 50 || s.Groups < 25 {
		t.Fatalf("%d transactions of 40 bytes in %d groups of at most 100", s.Txns, s.Groups)
	}
	var all []uint64
	for _, i := range indexes {
		all = append(all, i)
	}
	slices.Sort(all)
	for i, index := range all {
		if index != uint64(i+1) {
			t.Fatalf("indexes %v: want 1 to 50, each once", all)
		}
	}
	// One larger than any group has a group of its own.
	tx := b.begin(t, l, 5000, strings.Repeat("x", 5000))
	defer tx.Recycle()
	if err := tx.Commit(ctx); err != nil || l.Watermark() != 51 {
		t.Fatalf("%v, watermark %d", err, l.Watermark())
	}
}

// TestLingerEndsWhenTheOthersArrived makes the medium look slow: the committer waits
// for as many as there were, and no longer than until they are there.
func TestLingerEndsWhenTheOthersArrived(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	if err := b.c.Do(func() { b.c.ewma, b.c.expected = time.Hour, 3 }); err != nil {
		t.Fatal(err)
	}
	txns := make([]*Txn, 3)
	for i := range txns {
		txns[i] = b.begin(t, l, 1, "x")
	}
	var wg sync.WaitGroup
	for _, tx := range txns {
		wg.Go(func() {
			if err := tx.Commit(ctx); err != nil {
				t.Error(err)
			}
			tx.Recycle()
		})
	}
	wg.Wait()
	if s := b.c.Stats(); s.Txns != 3 {
		t.Fatalf("%+v", s)
	}
	// One alone is not kept for ever though two are expected.
	tx := b.begin(t, l, 1, "alone")
	defer tx.Recycle()
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if l.Watermark() != 4 {
		t.Fatalf("watermark %d", l.Watermark())
	}
}

func TestRolledBackRecordsTakeNoIndex(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	keep, gone := b.begin(t, l, 1, "a", "b"), b.begin(t, l, 1, "c", "d")
	late := b.begin(t, l, 1, "e")
	gone.Rollback()
	gone.Recycle()
	done := make(chan error, 1)
	go func() { done <- late.Commit(ctx) }()
	if err := keep.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if a, b, e := keep.Result(0).Index, keep.Result(1).Index, late.Result(0).Index; a != 1 || b != 2 || e != 3 {
		t.Fatalf("indexes %d, %d, %d", a, b, e)
	}
	keep.Recycle()
	late.Recycle()
}

// TestRolledBackBytesMakeRoom fills groups with transactions of which none commits: whoever
// comes then, or waits in line, must get in.
func TestRolledBackBytesMakeRoom(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	for range 3 {
		b.begin(t, l, 400<<10, "a").Recycle()
	}
	first, second := b.begin(t, l, 600<<10, "b"), b.begin(t, l, 400<<10, "c")
	done := make(chan error, 1)
	go func() {
		tx, err := b.c.Begin(ctx, 500<<10)
		if err == nil {
			_, err = tx.Reserve(l, []byte("k"), nil, 0) // stands in line
		}
		if err == nil {
			err = tx.Commit(ctx)
		}
		done <- err
	}()
	eventually(t, "one in line", func() bool {
		b.c.mu.Lock()
		defer b.c.mu.Unlock()
		return len(b.c.mu.line) == 1
	})
	first.Recycle()
	second.Recycle()
	select {
	case err := <-done:
		if err != nil || l.Watermark() != 1 {
			t.Errorf("%d records: %v", l.Watermark(), err)
		}
	case <-time.After(10 * time.Second):
		t.Error("stands in line behind nobody")
	}
}

// TestNothingIsReservedAfterTheGroupThatCloses closes a log beside writers: the transaction
// that does it knows the last index that the log will ever have.
func TestNothingIsReservedAfterTheGroupThatCloses(t *testing.T) {
	b := newBench(t, nil)
	for id := range uint32(300) {
		l := newTestLog(id + 1)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					tx, err := b.c.Begin(ctx, 10)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = tx.Reserve(l, []byte("k"), nil, 0)
					if err == nil {
						err = tx.Commit(ctx)
					}
					tx.Recycle()
					if errors.Is(err, ErrLogClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		eventually(t, "a record", func() bool { return l.Watermark() > uint64(id%7) })
		tx, err := b.c.Begin(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		var last uint64
		tx.OnEncode(func(s *Staging) error {
			last = s.Last(l)
			return nil
		})
		err = errors.Join(tx.Join(l.Close), tx.Commit(ctx))
		tx.Recycle()
		wg.Wait()
		if err != nil || l.Watermark() != last {
			t.Fatalf("log %d: closed at %d, records up to %d: %v", l.ID, last, l.Watermark(), err)
		}
	}
}

// TestExpectationsSeeTheirOwnGroup lets two transactions of one group take the same
// lease: one gets it, and of the other nothing is written.
func TestExpectationsSeeTheirOwnGroup(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	take := func(owner string) *Txn {
		tx := b.begin(t, l, 1, owner)
		tx.Expect(keyspace.TableLease, []byte("shard"), nil)
		tx.Put(keyspace.TableLease, []byte("shard"), []byte(owner))
		return tx
	}
	x, y := take("x"), take("y")
	errs := make(chan error, 2)
	for _, tx := range []*Txn{x, y} {
		go func() { errs <- tx.Commit(ctx) }()
	}
	a, c := <-errs, <-errs
	if (a == nil) == (c == nil) || !errors.Is(errors.Join(a, c), ErrConflict) {
		t.Fatalf("%v and %v: want one conflict", a, c)
	}
	if l.Watermark() != 1 {
		t.Fatalf("watermark %d: the loser's record was written", l.Watermark())
	}
	x.Recycle()
	y.Recycle()
}

func TestFailedSyncEndsAllWaiting(t *testing.T) {
	b := newBench(t, func(o *Options) { o.GroupBytes = 10 })
	l := newTestLog(1)
	b.hold.Lock()
	results := make(chan error, 4)
	for i := range 4 {
		go func() {
			tx, err := b.c.Begin(ctx, 10)
			if err != nil {
				results <- err
				return
			}
			data, err := tx.Reserve(l, nil, nil, 1)
			if err == nil {
				data[0] = byte(i)
				err = tx.Commit(ctx)
			}
			tx.Recycle()
			results <- err
		}()
	}
	eventually(t, "a sync is under way and others wait in line", func() bool {
		b.c.mu.Lock()
		defer b.c.mu.Unlock()
		return b.syncs.Load() > 0 && len(b.c.mu.line)+b.c.mu.open.ops+b.c.mu.open.writers == 3
	})
	b.c.Fail(errors.New("the device failed"))
	for range 4 {
		if err := <-results; !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrReadOnly) {
			t.Errorf("%v", err)
		}
	}
	if _, err := b.c.Begin(ctx, 1); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("begin after the failure: %v", err)
	}
	b.hold.Unlock()
	if l.Watermark() > 1 {
		t.Fatalf("watermark %d", l.Watermark())
	}
}

func TestCloseCommitsWhatIsUnderWay(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	tx := b.begin(t, l, 1, "x")
	closed := make(chan struct{})
	go func() { b.c.Close(); close(closed) }()
	eventually(t, "the committer is closing", func() bool { _, err := b.c.Begin(ctx, 1); return errors.Is(err, ErrClosed) })
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	<-closed
	if l.Watermark() != 1 {
		t.Fatalf("watermark %d", l.Watermark())
	}
	tx.Recycle()
	if err := b.c.Do(func() {}); !errors.Is(err, ErrClosed) {
		t.Fatalf("do after close: %v", err)
	}
}

func TestTransactionHasALimit(t *testing.T) {
	b := newBench(t, nil)
	tx := b.begin(t, newTestLog(1), 1)
	defer tx.Recycle()
	if _, err := tx.Reserve(newTestLog(1), nil, nil, MaxTxnBytes+1); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
}

// TestEpochsEndWhenFullAndWhenOld checks the directory after each kind of end.
func TestEpochsEndWhenFullAndWhenOld(t *testing.T) {
	var age atomic.Int64
	age.Store(int64(time.Hour))
	b := newBench(t, func(o *Options) { o.EpochAge = func() time.Duration { return time.Duration(age.Load()) } })
	l := newTestLog(1)
	l.SetCodec(CodecNone)
	for range 20 {
		tx := b.begin(t, l, 64<<10, strings.Repeat("x", 64<<10))
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		tx.Recycle()
	}
	eventually(t, "full epochs are closed", func() bool { return b.c.Stats().Epochs >= 2 })
	full := b.c.Stats().Epochs
	age.Store(int64(time.Millisecond))
	tx := b.begin(t, l, 1, "old")
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	tx.Recycle()
	eventually(t, "an old epoch is closed though it is not full", func() bool { return b.c.Stats().Epochs > full })
	entries := b.dir.Entries()
	for i, e := range entries {
		if e.Live != 1 || e.Stored == 0 || i > 0 && (e.Epoch <= entries[i-1].Epoch || e.EndMS < entries[i-1].EndMS) {
			t.Fatalf("entries %+v", entries)
		}
	}
}
