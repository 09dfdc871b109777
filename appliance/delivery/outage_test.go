package delivery_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
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
	o.rig = newRigOn(t, store, dir, append([]rigOption{func(e *delivery.Options) {
		e.Clock, e.MaxBackoff = o.clock, 5*time.Minute
		e.OpenSink = func(target delivery.Target) (delivery.Sink, error) {
			s, err := table.Open(target)
			if err != nil {
				return nil, err
			}
			return &fickle{ObjectSink: s.(delivery.ObjectSink), off: &o.off, attempts: &o.attempts}, nil
		}
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

// TestWeekWithoutLine has the line go down for a week while records come in,
// one in ninety of the 100 a second that a box sends, then drains.
func TestWeekWithoutLine(t *testing.T) {
	o := newOutage(t)
	st, err := o.store.CreateStream(t.Context(), storage.StreamConfig{Name: "s", Shards: 1, Retention: 30 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	o.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}})
	o.off.Store(true)
	const perStep, steps = 1000, 7 * 24 * 4
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
	if lag := o.lag("d"); lag != perStep*steps {
		t.Errorf("the lag is %d records, want %d", lag, perStep*steps)
	}
	o.off.Store(false)
	o.run("drain", time.Second, func() bool { return o.lag("d") == 0 })
	objects := o.objects()
	exactly(t, numbers(t, objects), perStep*steps, true)
	if len(objects) > 7*24+10 {
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
	o.put(st, 0, 1000)
	o.run("the budget is spent", time.Second, func() bool {
		s, err := o.engine.Stats("d")
		return err == nil && strings.Contains(s.Waiting, "budget") && *s.BudgetLeft == 0
	})
	before := o.lag("d")
	// It is still spent after a restart.
	o.stop()
	e, err := delivery.New(o.store, delivery.Options{OpenSink: func(delivery.Target) (delivery.Sink, error) { return nil, errors.New("not used") }, Clock: o.clock})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Stats("d")
	if err != nil || s.BudgetLeft == nil || *s.BudgetLeft != 0 || s.LagRecords != before || before == 0 {
		t.Errorf("after a restart: %+v, %v; the lag was %d", s, err, before)
	}
	o.start()
	for range 6 {
		o.clock.advance(12 * time.Hour) // into April
	}
	o.run("the new month is spent, too", time.Second, func() bool {
		s, err := o.engine.Stats("d")
		return err == nil && s.LagRecords < before && strings.Contains(s.Waiting, "budget")
	})
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

func TestLiveLaneBesideBacklog(t *testing.T) {
	o := newOutage(t)
	st := o.stream("s", 2)
	o.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 10_000, Interval: delivery.Every(time.Second)},
		Uplink: delivery.Uplink{LivePercent: 50},
	})
	o.off.Store(true)
	for i := range 60 {
		o.put(st, i*50, (i+1)*50)
		o.clock.advance(time.Minute)
	}
	// The lanes are split when the stream starts with a backlog.
	o.stop()
	o.off.Store(false)
	o.rig.engine = reopen(t, o)
	o.start()
	o.put(st, 3000, 3500)
	o.run("drain", time.Second, func() bool { return o.lag("d") == 0 })
	exactly(t, numbers(t, o.objects()), 3500, false)
	o.put(st, 3500, 4000)
	o.run("drain in one lane again", time.Second, func() bool { return o.lag("d") == 0 })
	exactly(t, numbers(t, o.objects()), 4000, false)
}

func reopen(t *testing.T, o *outage) *delivery.Engine {
	t.Helper()
	settings, _ := json.Marshal(map[string]any{"dir": o.dir})
	table, err := sink.New([]sink.Config{{Name: "folder", Kind: "file", Settings: settings}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := delivery.New(o.store, delivery.Options{OpenSink: table.Open, Clock: o.clock})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestDeadSinkStallsNobody: one delivery fails all the time, the other goes on.
func TestDeadSinkStallsNobody(t *testing.T) {
	r := newRig(t, func(o *delivery.Options) { o.MemoryBytes = 16 << 20 })
	st := r.stream("s", 1)
	for i := range 8 {
		r.create(delivery.Config{
			Name: fmt.Sprintf("dead%d", i), Source: delivery.Source{Stream: "s"}, Buffer: soon(),
			Sink: delivery.Target{Kind: "s3", Settings: []byte(`{"endpoint":"http://127.0.0.1:1","bucket":"b"}`)},
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
