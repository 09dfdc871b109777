package delivery

import (
	"context"
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
