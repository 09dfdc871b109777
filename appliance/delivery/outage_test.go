package delivery_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/storage"
)

// fakeClock is a Clock that stands until it is moved.
type fakeClock struct {
	start time.Time
	mu    struct {
		sync.Mutex
		now    time.Time
		timers []timer
	}
}

type timer struct {
	at time.Time
	ch chan time.Time
}

func newFakeClock(at time.Time) *fakeClock {
	c := &fakeClock{start: at}
	c.mu.now = at
	return c
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.now
}

func (c *fakeClock) uptime() time.Duration { return c.Now().Sub(c.start) }

func (c *fakeClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- c.mu.now
	} else {
		c.mu.timers = append(c.mu.timers, timer{c.mu.now.Add(d), ch})
	}
	return ch
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.now = c.mu.now.Add(d)
	kept := c.mu.timers[:0]
	for _, t := range c.mu.timers {
		if t.at.After(c.mu.now) {
			kept = append(kept, t)
		} else {
			t.ch <- c.mu.now
		}
	}
	c.mu.timers = kept
}

// fickle is a sink that can be switched off.
type fickle struct {
	delivery.ObjectSink
	off      *atomic.Bool
	attempts *atomic.Int64
}

func (f *fickle) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	f.attempts.Add(1)
	if f.off.Load() {
		return delivery.Stored{}, &delivery.SinkError{Code: "Test.Off", Refused: true, Err: errors.New("the line is down")}
	}
	return f.ObjectSink.PutObject(ctx, o)
}

// outage is a rig on a clock of its own whose sink can be switched off.
type outage struct {
	*rig
	clock    *fakeClock
	off      atomic.Bool
	attempts atomic.Int64
	open     func(delivery.Target) (delivery.Sink, error)
}

func newOutage(t *testing.T, options ...rigOption) *outage {
	t.Helper()
	o := &outage{clock: newFakeClock(time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC))}
	store, err := storage.Open(t.Context(), t.TempDir(), storage.Options{Clock: o.clock.Now, Uptime: o.clock.uptime, SoftFreeBytes: 1, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	settings, _ := json.Marshal(map[string]any{"dir": dir, "metered": true})
	table, err := sink.New([]sink.Config{{Name: "folder", Kind: "file", Settings: settings}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.open = func(target delivery.Target) (delivery.Sink, error) {
		s, err := table.Open(target)
		if err != nil {
			return nil, err
		}
		return &fickle{ObjectSink: s.(delivery.ObjectSink), off: &o.off, attempts: &o.attempts}, nil
	}
	o.rig = newRigOn(t, store, dir, append([]rigOption{func(e *delivery.Options) {
		e.Clock, e.MaxBackoff, e.OpenSink = o.clock, 5*time.Minute, o.open
	}}, options...)...)
	return o
}

// run moves the clock in steps until a condition holds.
func (o *outage) run(what string, step time.Duration, condition func() bool) {
	o.t.Helper()
	until(o.t, what, func() bool {
		o.clock.advance(step)
		return condition()
	})
}

func (o *outage) lag(name string) uint64 {
	s, err := o.engine.Stats(name)
	if err != nil {
		o.t.Fatal(err)
	}
	return s.LagRecords
}

// rate is 100 for a week as a box sees it: 60 million records, minutes long.
var rate = flag.Int("rate", 1, "records a second that come in while the line is down for a week")

// TestWeekWithoutLine has the line go down for a week while records come in, then drains.
func TestWeekWithoutLine(t *testing.T) {
	o := newOutage(t)
	st, err := o.store.CreateStream(t.Context(), storage.StreamConfig{Name: "s", Shards: 1, Retention: 30 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	o.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}})
	o.off.Store(true)
	const steps = 7 * 24 * 4
	perStep := *rate * 15 * 60
	for i := range steps {
		o.put(st, i*perStep, (i+1)*perStep)
		for range 15 {
			o.clock.advance(time.Minute)
		}
	}
	o.run("the circuit opens", time.Minute, func() bool {
		s, err := o.engine.Stats("d")
		return err == nil && s.Circuit != "closed" && s.LastError != nil
	})
	if n := o.attempts.Load(); n > 7*24*12*3 {
		t.Errorf("%d attempts in a week without a line", n)
	}
	if lag := o.lag("d"); lag != uint64(perStep*steps) {
		t.Errorf("the lag is %d records, want %d", lag, perStep*steps)
	}
	o.off.Store(false)
	for lag := o.lag("d"); lag > 0; {
		o.run("drain", time.Second, func() bool { return o.lag("d") < lag })
		lag = o.lag("d")
	}
	objects := o.objects()
	exactly(t, numbers(t, objects), perStep*steps, true)
	// An object for each hour, and what the size hint of 5 MB cuts besides.
	if len(objects) > 7*24+10+perStep*steps/50_000 {
		t.Errorf("%d objects: the backlog was cut smaller than its names ask for", len(objects))
	}
	t.Logf("%d records in %d objects after %d attempts", perStep*steps, len(objects), o.attempts.Load())
}

func TestBudgetHoldsUntilNextMonth(t *testing.T) {
	o := newOutage(t)
	st := o.stream("s", 1)
	o.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 5000, Interval: delivery.Every(time.Second)},
		Uplink: delivery.Uplink{MonthlyBytes: 20_000},
	})
	o.put(st, 0, 3000) // more than two months take
	spent := func() bool {
		s, err := o.engine.Stats("d")
		if err != nil {
			t.Fatal(err)
		}
		if s.MonthlyBytes > 20_000 {
			t.Fatalf("%d bytes were sent in a month, the budget is 20,000", s.MonthlyBytes)
		}
		return strings.Contains(s.Waiting, "budget") && s.Objects > 0 && *s.BudgetLeft < 10_000
	}
	o.run("the budget is spent", time.Second, spent)
	before := o.lag("d")
	was, err := o.engine.Stats("d")
	if err != nil {
		t.Fatal(err)
	}
	// It is still spent after a restart.
	o.stop()
	e, err := delivery.New(o.store, delivery.Options{OpenSink: func(delivery.Target) (delivery.Sink, error) { return nil, errors.New("not used") }, Clock: o.clock})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Stats("d")
	if err != nil || s.BudgetLeft == nil || *s.BudgetLeft != *was.BudgetLeft || s.LagRecords != before || before == 0 {
		t.Errorf("after a restart: %+v, %v; before it: %+v", s, err, was)
	}
	o.start()
	for range 6 {
		o.clock.advance(12 * time.Hour) // into April
	}
	o.run("the new month is spent, too", time.Second, func() bool { return spent() && o.lag("d") < before })
}

// tally counts what passes, by month, and fails the first attempt at each object once all
// of it has passed.
type tally struct {
	delivery.ObjectSink
	clock  *fakeClock
	stands sync.RWMutex // held to read while bytes pass, so that they are of one month
	mu     struct {
		sync.Mutex
		sent  map[string]int64
		short int
	}
}

func (s *tally) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	throttle := o.Throttle
	o.Throttle = func(r io.Reader) io.Reader { return &tallied{s, throttle(r)} }
	if o.MayExist {
		return s.ObjectSink.PutObject(ctx, o)
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(o.Render(w)) }()
	_, err := io.Copy(io.Discard, o.Throttle(r))
	_ = r.CloseWithError(io.ErrClosedPipe)
	return delivery.Stored{}, &delivery.SinkError{Code: "Test.Failed", Err: errors.Join(errors.New("sent in vain"), err)}
}

type tallied struct {
	sink *tally
	r    io.Reader
}

func (t *tallied) Read(p []byte) (int, error) {
	t.sink.stands.RLock()
	defer t.sink.stands.RUnlock()
	n, err := t.r.Read(p)
	t.sink.mu.Lock()
	defer t.sink.mu.Unlock()
	t.sink.mu.sent[t.sink.clock.Now().Format("2006-01")] += int64(n)
	if err != nil && strings.Contains(err.Error(), "budget") {
		t.sink.mu.short++
	}
	return n, err
}

// putNoise appends n records from a number on that pack worse the more noise they hold.
func (r *rig) putNoise(st *storage.Stream, from, n, noise int) {
	r.t.Helper()
	random := rand.New(rand.NewPCG(1, uint64(from)))
	txn, err := r.store.Begin(r.t.Context(), n*(200+2*noise))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range n {
		pad := make([]byte, noise)
		for k := range pad {
			pad[k] = byte(random.Uint32())
		}
		if err := txn.Append(st, []byte("k"), nil, fmt.Appendf(nil, `{"n":%d,"same":"%0120d","pad":"%x"}`+"\n", from+i, 0, pad)); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := txn.Commit(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	txn.Release()
}

// TestBudgetIsNeverPassed has batches come out several times larger than those before
// them, and each be sent in vain once: no month has more than its budget sent, and what
// was cut short arrives in a later one.
func TestBudgetIsNeverPassed(t *testing.T) {
	const limit = 40_000
	var sink *tally
	o := newOutage(t, func(e *delivery.Options) {
		open := e.OpenSink
		sink = &tally{clock: e.Clock.(*fakeClock)}
		sink.mu.sent = map[string]int64{}
		e.OpenSink = func(target delivery.Target) (delivery.Sink, error) {
			s, err := open(target)
			if err != nil {
				return nil, err
			}
			sink.ObjectSink = s.(delivery.ObjectSink)
			return sink, nil
		}
	})
	st, err := o.store.CreateStream(t.Context(), storage.StreamConfig{Name: "s", Shards: 1, Retention: 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	o.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 80_000, Interval: delivery.Every(time.Second)},
		Compression: delivery.Compression{Format: codec.Gzip}, Uplink: delivery.Uplink{MonthlyBytes: limit},
	})
	drain := func() {
		until(t, "everything is delivered", func() bool {
			s, err := o.engine.Stats("d")
			if err != nil {
				t.Fatal(err)
			}
			step := time.Second
			if strings.Contains(s.Waiting, "budget") {
				step = 12 * time.Hour
			}
			sink.stands.Lock()
			o.clock.advance(step)
			sink.stands.Unlock()
			return s.LagRecords == 0
		})
	}
	n := 0
	for range 2 {
		o.putNoise(st, n, 500, 0)
		drain() // what it is expected to take from here on is little
		o.putNoise(st, n+500, 300, 60)
		n += 800
		drain()
	}
	exactly(t, numbers(t, o.objects()), n, true)
	s, err := o.engine.Stats("d")
	if err != nil {
		t.Fatal(err)
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if got := s.Retries["Delivery.MonthlyBudget"]; got != int64(sink.mu.short) {
		t.Errorf("%d retries for want of budget, %d uploads were cut short", got, sink.mu.short)
	}
	for month, sent := range sink.mu.sent {
		if sent > limit {
			t.Errorf("%d bytes were sent in %s, the budget is %d", sent, month, limit)
		}
	}
	if sink.mu.short == 0 || len(sink.mu.sent) < 2 {
		t.Errorf("%d uploads were cut short in %d months, which shows nothing", sink.mu.short, len(sink.mu.sent))
	}
	t.Logf("%d cut short: %v", sink.mu.short, sink.mu.sent)
}

// swallow is a sink that takes bytes and never gets done.
type swallow struct {
	delivery.ObjectSink
	took chan int64
}

func (s *swallow) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(o.Render(w)) }()
	n, err := io.Copy(io.Discard, o.Throttle(r))
	if err == nil {
		s.took <- n
		<-ctx.Done()
		err = ctx.Err()
	}
	return delivery.Stored{}, err
}

// TestBudgetKnowsWhatAKillInterrupts: bytes of an upload that is never finished
// are spent, and the durable row says so while they are sent.
func TestBudgetKnowsWhatAKillInterrupts(t *testing.T) {
	took := make(chan int64, 4)
	r := newRig(t, func(o *delivery.Options) {
		open := o.OpenSink
		o.OpenSink = func(target delivery.Target) (delivery.Sink, error) {
			s, err := open(delivery.Target{Kind: "file", Settings: []byte(`{"dir":"/nowhere","metered":true}`)})
			if err != nil {
				return nil, err
			}
			return &swallow{s.(delivery.ObjectSink), took}, nil
		}
	})
	st := r.stream("s", 1)
	r.put(st, 0, 3000)
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Uplink: delivery.Uplink{MonthlyBytes: 1 << 30},
	})
	sent := <-took
	// Another engine reads what is durable, as one does after kill -9.
	e, err := delivery.New(r.store, delivery.Options{OpenSink: func(delivery.Target) (delivery.Sink, error) { return nil, errors.New("not used") }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Stats("d")
	if err != nil || s.MonthlyBytes < sent || s.MonthlyBytes > sent+8<<20 || sent < 100_000 {
		t.Errorf("%d bytes were sent, the row says %d, %v", sent, s.MonthlyBytes, err)
	}
}

func TestUploadWindow(t *testing.T) {
	o := newOutage(t)
	st := o.stream("s", 1)
	o.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{Interval: delivery.Every(time.Second)},
		TimeZone: "Europe/Berlin", Uplink: delivery.Uplink{Windows: []string{"05:00-06:00"}}, // 03:00-04:00 UTC
	})
	o.put(st, 0, 100)
	o.run("it waits for the window", time.Second, func() bool {
		s, err := o.engine.Stats("d")
		return err == nil && strings.Contains(s.Waiting, "windows")
	})
	o.run("the window", 5*time.Minute, func() bool { return o.lag("d") == 0 })
	if at := o.clock.Now().Sub(o.clock.start); at < 3*time.Hour {
		t.Errorf("delivered after %v", at)
	}
}

// TestFinishIsKnownToWhoLooksOnce: that nobody looked while the lag went down, or that
// somebody did while it grew, does not keep the estimate away.
func TestFinishIsKnownToWhoLooksOnce(t *testing.T) {
	o := newOutage(t)
	st := o.stream("s", 2)
	o.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 10_000, Interval: delivery.Every(time.Second)},
		Uplink: delivery.Uplink{BytesPerSecond: 2000},
	})
	o.off.Store(true)
	for i := range 20 {
		o.put(st, i*50, (i+1)*50)
		o.clock.advance(time.Minute)
		_ = o.lag("d")
	}
	o.off.Store(false)
	before := len(o.objects())
	o.run("some of it is delivered", time.Second, func() bool { return len(o.objects()) > before+3 })
	s, err := o.engine.Stats("d")
	if err != nil || s.LagRecords == 0 {
		t.Fatalf("%d records wait, which shows nothing; %v", s.LagRecords, err)
	}
	if left := s.Finish.Sub(o.clock.Now()); left <= 0 || left > time.Hour {
		t.Errorf("%d bytes at 2,000 a second are to be gone in %v (%v)", s.LagBytes, left, s.Finish)
	}
}

// TestLiveLaneBesideBacklog has the line come back after an hour, as thin as
// it was: what comes in from then on does not wait for what is old.
func TestLiveLaneBesideBacklog(t *testing.T) {
	o := newOutage(t)
	st := o.stream("s", 2)
	o.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 10_000, Interval: delivery.Every(time.Second)},
		Uplink: delivery.Uplink{LivePercent: 50, BytesPerSecond: 2000},
	})
	o.off.Store(true)
	for i := range 60 {
		o.put(st, i*50, (i+1)*50)
		o.clock.advance(time.Minute)
	}
	o.off.Store(false)
	stats := func() delivery.Stats {
		s, err := o.engine.Stats("d")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	o.run("the backlog gets a lane of its own", time.Second, func() bool { return stats().Backlog > 0 })
	o.put(st, 3000, 3100)
	o.run("new records are delivered", time.Second, func() bool { return has(numbers(t, o.objects()), 3099) })
	if stats().Backlog == 0 {
		t.Error("the backlog was worked off before new records were delivered")
	}
	o.run("drain", time.Second, func() bool { return o.lag("d") == 0 })
	exactly(t, numbers(t, o.objects()), 3100, false)
	o.put(st, 3100, 4000)
	o.run("drain in one lane again", time.Second, func() bool { return o.lag("d") == 0 })
	exactly(t, numbers(t, o.objects()), 4000, false)
	if n := stats().Backlog; n != 0 {
		t.Errorf("a backlog of %d records is left", n)
	}
}

func has(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}

// TestDrain seals and sends what is open, and waits for nobody who can't.
func TestDrain(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 2)
	long := delivery.Buffer{Interval: delivery.Every(15 * time.Minute)}
	r.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: long})
	r.create(delivery.Config{Name: "paused", Source: delivery.Source{Stream: "s"}, Buffer: long, Paused: true, Prefix: "paused/"})
	r.create(delivery.Config{
		Name: "dead", Source: delivery.Source{Stream: "s"}, Buffer: long,
		Sink: delivery.Target{Kind: "s3", Settings: []byte(`{"endpoint":"http://127.0.0.1:1","bucket":"bucket"}`)},
	})
	r.put(st, 0, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if left := r.engine.Drain(ctx); fmt.Sprint(left) != "[paused dead]" && fmt.Sprint(left) != "[dead paused]" {
		t.Errorf("left are %v", left)
	}
	if ctx.Err() != nil {
		t.Error("it waited for those who can't")
	}
	exactly(t, numbers(t, r.objects()), 1000, false)
	// What is left at the limit goes on at the next start.
	r.stop()
	r.put(st, 1000, 1100)
	short, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	if left := r.engine.Drain(short); len(left) != 3 {
		t.Errorf("left without a run are %v", left)
	}
	r.start()
	if err := r.engine.Flush("d"); err != nil {
		t.Fatal(err)
	}
	r.drained("d")
	exactly(t, numbers(t, r.objects()), 1100, false)
}

// TestDeadSinkStallsNobody: one delivery fails all the time, the other goes on.
func TestDeadSinkStallsNobody(t *testing.T) {
	r := newRig(t, func(o *delivery.Options) { o.MemoryBytes = 16 << 20 })
	st := r.stream("s", 1)
	for i := range 8 {
		r.create(delivery.Config{
			Name: fmt.Sprintf("dead%d", i), Source: delivery.Source{Stream: "s"}, Buffer: soon(),
			Sink: delivery.Target{Kind: "s3", Settings: []byte(`{"endpoint":"http://127.0.0.1:1","bucket":"bucket"}`)},
		})
	}
	r.create(delivery.Config{Name: "well", Source: delivery.Source{Stream: "s"}, Buffer: soon()})
	for i := range 20 {
		r.put(st, i*100, (i+1)*100)
		r.drained("well")
	}
	exactly(t, numbers(t, r.objects()), 2000, true)
	s, err := r.engine.Stats("dead0")
	if err != nil || s.LagRecords != 2000 || s.Retries["S3.ConnectionFailed"] == 0 {
		t.Errorf("the dead one: %+v, %v", s, err)
	}
}
