package apitest

import (
	"sync"
	"testing"
	"time"
)

// Until polls a condition and fails the test when it does not come true within 20
// seconds; it is how a test waits for another goroutine.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		if ok() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// Clock is a wall clock that a test moves, safe from any goroutine.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at 2027-01-15T08:00:00Z.
func NewClock() *Clock { return &Clock{now: time.UnixMilli(1_800_000_000_000).UTC()} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Pass moves the clock by d.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
