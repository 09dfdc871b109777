package delivery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sends has each taker send for a while on a link of rate bytes per second and
// returns what each got through.
func sends(t *testing.T, rate int64, d time.Duration, takers ...*taker) []int64 {
	t.Helper()
	sent := make([]int64, len(takers))
	synctest.Test(t, func(t *testing.T) {
		l := newLink(SystemClock{}, rate)
		for _, tk := range takers {
			if tk.before != nil {
				tk.before = newLink(SystemClock{}, tk.before.mu.rate)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		var wg sync.WaitGroup
		for i, tk := range takers {
			var mu sync.Mutex
			for range 2 { // two uploads at a time, as a lane has
				wg.Go(func() {
					for l.take(ctx, tk, 4096) == nil {
						mu.Lock()
						sent[i] += 4096
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
	})
	return sent
}

func near(t *testing.T, what string, got, want int64) {
	t.Helper()
	if got < want*9/10 || got > want*11/10 {
		t.Errorf("%s: %d bytes, want about %d", what, got, want)
	}
}

func TestLinkSharesByWeight(t *testing.T) {
	sent := sends(t, 1_000_000, 20*time.Second, &taker{weight: 75}, &taker{weight: 25})
	near(t, "three quarters", sent[0], 15_000_000)
	near(t, "one quarter", sent[1], 5_000_000)
}

func TestLinkServesPriorityFirst(t *testing.T) {
	sent := sends(t, 1_000_000, 20*time.Second, &taker{weight: 100, priority: 1}, &taker{weight: 100})
	near(t, "the first", sent[0], 20_000_000)
	if sent[1] > 200_000 {
		t.Errorf("the one behind it got %d bytes", sent[1])
	}
}

// TestLinkGivesWhatACapLeaves: a capped stream takes no more than its cap, its
// lanes together; the rest is for others, whatever their priority.
func TestLinkGivesWhatACapLeaves(t *testing.T) {
	before := newLink(SystemClock{}, 200_000)
	capped := &taker{weight: 100, priority: 1, before: before, account: &taker{weight: 100}}
	sent := sends(t, 1_000_000, 20*time.Second, capped, &taker{weight: 100})
	near(t, "the capped", sent[0], 4_000_000)
	near(t, "the other", sent[1], 16_000_000)
}

func TestLanesShareTheCapOfTheirStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, before := newLink(SystemClock{}, 0), newLink(SystemClock{}, 100_000)
		lanes := []*taker{
			{weight: 80, before: before, account: &taker{weight: 80}},
			{weight: 20, before: before, account: &taker{weight: 20}},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		sent := make([]int64, 2)
		var wg sync.WaitGroup
		for i := range lanes {
			wg.Go(func() {
				for l.take(ctx, lanes[i], 1000) == nil {
					sent[i] += 1000
				}
			})
		}
		wg.Wait()
		near(t, "both lanes", sent[0]+sent[1], 2_000_000)
		near(t, "the backlog", sent[0], 1_600_000)
	})
}

// TestLinkForgetsWhoGivesUp: an upload that is cancelled leaves nobody waiting.
func TestLinkForgetsWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(SystemClock{}, 1000)
		tk := &taker{weight: 1}
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			for l.take(ctx, tk, linkPiece) == nil {
			}
			cancel()
		}
		if n := len(l.mu.waiting); n != 0 {
			t.Errorf("%d uploads still wait", n)
		}
	})
}

func TestBudgetRowRunsAhead(t *testing.T) {
	at := time.Date(2026, 3, 31, 23, 59, 0, 0, time.UTC)
	b := budget{}
	if !b.spend(at, 10) {
		t.Error("the first bytes don't move the row")
	}
	b.ahead = 1000
	if b.spend(at, 990) || !b.spend(at, 1) {
		t.Error("the row moves before it is passed, or not then")
	}
	if !b.spend(at.Add(time.Hour), 5) || b.Bytes != 5 || b.Month != "2026-04" {
		t.Errorf("a new month is %+v", b)
	}
}

// TestBudgetOfAMonthIsGivenOnce: a clock that goes back takes nothing back.
func TestBudgetOfAMonthIsGivenOnce(t *testing.T) {
	at := func(month time.Month, day int) time.Time { return time.Date(2026, month, day, 12, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		what  string
		now   time.Time
		month string
		bytes int64
	}{
		{"the same month", at(3, 31), "2026-03", 400},
		{"the next", at(4, 1), "2026-04", 0},
		{"a correction by hours into the one before", at(2, 28).Add(2 * time.Hour), "2026-03", 400},
		{"a clock that was years ahead and is put right", at(1, 10), "2026-01", 400},
	} {
		b := budget{Month: "2026-03", Bytes: 400, reserved: 50, Percent: 7}
		b.turn(c.now)
		if b.Month != c.month || b.Bytes != c.bytes || b.reserved != 50 || b.Percent != 7 {
			t.Errorf("%s: %+v", c.what, b)
		}
	}
}

// TestBatchOfMoreThanAMonthSaysSo: one that was cut short with a whole month before it is
// not tried each month.
func TestBatchOfMoreThanAMonthSaysSo(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	w := &worker{engine: &Engine{calendar: func() time.Time { return now }}, budget: make(chan budget, 1)}
	w.mu.def.Config.Uplink.MonthlyBytes = 1000
	w.giveBudget(budget{})
	j := &job{recipe: &Recipe{Ranges: []Range{{First: 1, Last: 1, Bytes: 5000}}}, bind: &binding{}}
	if pause, why := w.reserve(j, now, 1000); pause != 0 {
		t.Fatalf("the first of a month waits: %s", why)
	}
	if err := w.spend(t.Context(), j, 1001); !errors.Is(err, errBudget) || !j.short.Load() {
		t.Fatalf("a byte too much: %v", err)
	}
	w.release(j)
	now = now.Add(24 * time.Hour)
	want := "the batch takes 1001 bytes or more, and the monthly byte budget is 1000: uplink.monthly_bytes has to be higher"
	if pause, why := w.reserve(j, now, 1000); pause == 0 || why != want {
		t.Errorf("it waits %v: %q, want %q", pause, why, want)
	}
	w.mu.def.Config.Uplink.MonthlyBytes = 2000
	if pause, why := w.reserve(j, now, 2000); pause != 0 {
		t.Errorf("with a higher budget it waits: %s", why)
	}
}

// TestBatchesFitAMonth: the size hint gives way to a budget that has no room for it.
func TestBatchesFitAMonth(t *testing.T) {
	for _, c := range []struct {
		limit, percent int64
		inJSON         bool
		want           int64
	}{
		{0, 0, false, 5 << 20}, {100 << 20, 0, false, 5 << 20}, {4000, 0, false, 1000}, {6000, 0, true, 1000}, {4500, 10, false, 10_000}, {3, 0, false, 5 << 20},
	} {
		w := &worker{budget: make(chan budget, 1)}
		w.giveBudget(budget{Percent: c.percent})
		n := w.batchBytes(&Config{Buffer: Buffer{SizeBytes: 5 << 20}, Uplink: Uplink{MonthlyBytes: c.limit}}, c.inJSON)
		if n < c.want*99/100 || n > c.want*101/100 {
			t.Errorf("%+v: batches of %d bytes", c, n)
		}
	}
}

// boxSink is a sink that is metered or not.
type boxSink struct {
	Sink
	metered bool
}

func (s boxSink) Metered() bool { return s.metered }

// TestWhichCapsHoldForWhichSink: a delivery stream's own for its own sink, metered
// or not, and the box's for metered ones.
func TestWhichCapsHoldForWhichSink(t *testing.T) {
	const box, own, size = 200_000, 100_000, 2_000_000
	for _, c := range []struct {
		what     string
		uplink   Uplink
		metered  bool
		target   string
		seconds  int64
		counted  int64
		onUplink int64
	}{
		{"a folder without a cap", Uplink{}, false, "sink", 0, 0, 0},
		{"a folder with a cap", Uplink{BytesPerSecond: own}, false, "sink", size / own, size, 0},
		{"a folder with a budget", Uplink{MonthlyBytes: 1 << 30}, false, "sink", 0, size, 0},
		{"a backup into a folder", Uplink{BytesPerSecond: own, MonthlyBytes: 1 << 30}, false, "backup", 0, 0, 0},
		{"a store", Uplink{}, true, "sink", size / box, size, size},
		{"a store with a cap", Uplink{BytesPerSecond: own}, true, "sink", size / own, size, size},
		{"a backup into a store", Uplink{BytesPerSecond: own}, true, "backup", size / own, size, size},
	} {
		synctest.Test(t, func(t *testing.T) {
			counted := int64(0)
			j := &job{
				engine: &Engine{link: newLink(SystemClock{}, box)}, def: &definition{Config: Config{Uplink: c.uplink}}, taker: &taker{weight: 1}, stats: &stats{},
				spent: func(_ context.Context, n int) error { counted += int64(n); return nil },
			}
			if r := c.uplink.BytesPerSecond; r > 0 {
				j.taker.before, j.taker.account = newLink(SystemClock{}, r), &taker{weight: 1}
			}
			start := time.Now()
			r := j.throttle(t.Context(), boxSink{metered: c.metered}, c.target)(bytes.NewReader(make([]byte, size)))
			if n, err := io.Copy(io.Discard, r); n != size || err != nil {
				t.Fatal(n, err)
			}
			if took := int64(time.Since(start) / time.Second); took < c.seconds-2 || took > c.seconds {
				t.Errorf("%s took %d s, want %d", c.what, took, c.seconds)
			}
			if up := j.stats.uplink.Load(); counted != c.counted || up != c.onUplink {
				t.Errorf("%s: %d bytes counted, %d of them on the uplink; want %d and %d", c.what, counted, up, c.counted, c.onUplink)
			}
		})
	}
}

// TestBudgetIsReservedBeforehand: what is under way counts, and a month's first
// batch always goes.
func TestBudgetIsReservedBeforehand(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	const rest = 12 * time.Hour // of the month
	for _, c := range []struct {
		b    budget
		need int64
		want time.Duration
	}{
		{budget{Month: "2026-03", Bytes: 400}, 600, 0},
		{budget{Month: "2026-03", Bytes: 400}, 601, rest},
		{budget{Month: "2026-03", Bytes: 400, reserved: 500}, 100, 0},
		{budget{Month: "2026-03", Bytes: 400, reserved: 500}, 101, rest},
		{budget{Month: "2026-02", Bytes: 1000}, 1000, 0},
		{budget{Month: "2026-02", Bytes: 1000}, 5000, 0},
		{budget{Month: "2026-02", Bytes: 1000, reserved: 1}, 1000, rest},
	} {
		if d := c.b.untilBudget(now, 1000, c.need); d != c.want {
			t.Errorf("%+v has %d bytes in %v, want %v", c.b, c.need, d, c.want)
		}
	}
	if d := (&budget{Month: "2026-03", Bytes: 1 << 40}).untilBudget(now, 0, 1); d != 0 {
		t.Errorf("without a budget it is %v until there is some", d)
	}
	for _, c := range []struct {
		percent int64
		inJSON  bool
		want    int64
	}{{0, false, 1000}, {0, true, 1500}, {20, false, 225}, {140, true, 1575}} {
		if n := (&budget{Percent: c.percent}).expected(1000, c.inJSON); n != c.want {
			t.Errorf("%+v: %d bytes are expected", c, n)
		}
	}
}

// TestOneUploadThatWaitsIsTold: while another one of the stream is under way, the stream does
// not look as if nothing waited.
func TestOneUploadThatWaitsIsTold(t *testing.T) {
	w, first, second := &worker{}, &job{}, &job{}
	waits := func(want string) {
		t.Helper()
		w.mu.Lock()
		defer w.mu.Unlock()
		if got := w.waitsLocked(); got != want {
			t.Errorf("the stream waits for %q, want %q", got, want)
		}
	}
	waits("")
	w.holdBack(second, "the budget")
	w.holdBack(first, "its window")
	waits("its window")
	w.holdBack(first, "")
	end := w.begin()
	waits("the budget")
	w.setWaiting("the sink failed")
	waits("the sink failed")
	end()
	w.begin()()
	waits("the budget")
	w.holdBack(second, "")
	waits("")
}

// TestWaitingSaysWhetherTheBudgetIsSpent: a month that is over for a stream is not a
// budget that was set too low.
func TestWaitingSaysWhetherTheBudgetIsSpent(t *testing.T) {
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, zone)
	r := &Recipe{Ranges: []Range{{First: 1, Last: 1, Bytes: 500}}}
	for _, c := range []struct {
		b    budget
		want string
	}{
		{budget{Month: "2026-11", Bytes: 400}, ""},
		{budget{Month: "2026-11", Bytes: 1000}, "the monthly byte budget is spent until 2026-12-01 00:00 +0100"},
		{budget{Month: "2026-11", Bytes: 1200}, "the monthly byte budget is spent until 2026-12-01 00:00 +0100"},
		{budget{Month: "2026-11", Bytes: 900}, "the 100 bytes left of the monthly byte budget are too few for a batch of about 500, until 2026-12-01 00:00 +0100"},
		{budget{Month: "2026-11", Bytes: 400, reserved: 300}, "what is left of the monthly byte budget, 600 bytes, is reserved for batches under way"},
		{budget{Month: "2026-10", Bytes: 1200}, ""},
		{budget{Month: "2026-10", Bytes: 1200, reserved: 600}, "what is left of the monthly byte budget, 1000 bytes, is reserved for batches under way"},
	} {
		w := &worker{budget: make(chan budget, 1)}
		w.giveBudget(c.b)
		pause, why := w.reserve(&job{recipe: r, bind: &binding{}}, now, 1000)
		if why != c.want || (pause > 0) != (c.want != "") {
			t.Errorf("%+v waits %v: %q, want %q", c.b, pause, why, c.want)
		}
	}
}
