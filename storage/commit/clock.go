package commit

import (
	"sync"
	"time"

	"github.com/weirhq/weir/storage/block"
)

const (
	// maxStepMS is how far the wall clock may step against the monotonic one
	// and still be believed.
	maxStepMS = int64(24 * time.Hour / time.Millisecond)
	// maxOffMS is how long a box may have been off and the wall clock it
	// wakes up with still be believed.
	maxOffMS = 400 * maxStepMS
	// plausibleMS is a time before which this program did not exist: a clock
	// behind it was never set (2025-01-01).
	plausibleMS = int64(1_735_689_600_000)
)

// Plausible says whether a time in milliseconds since 1970 can be a right one: a
// clock that shows an earlier one was never set.
func Plausible(ms int64) bool { return ms >= plausibleMS }

// Clock stamps records. Boxes at the edge have no battery behind their clock:
// it begins in 1970, and steps when the network comes. Clock follows the wall
// clock as long as that is plausible, and otherwise goes on from the last
// known time by the monotonic clock, marking its stamps uncertain.
//
// A step of more than a day against the monotonic clock is believed only
// when the clock was never set before, or when Confirm says so.
type Clock struct {
	wall   func() time.Time
	uptime func() time.Duration

	mu struct {
		sync.Mutex
		baseMS  int64 // wall clock at uptime 0
		held    bool  // the wall clock is not believed
		unset   bool  // the wall clock was not plausible when it was last looked at
		shiftMS int64 // what was learnt about uncertain stamps and not yet taken
	}
}

// NewClock returns a clock over the given wall clock and uptime. lastKnownMS
// is the latest time the store has seen, 0 for a new store.
func NewClock(wall func() time.Time, uptime func() time.Duration, lastKnownMS int64) *Clock {
	c := &Clock{wall: wall, uptime: uptime}
	now, up := wall().UnixMilli(), uptime().Milliseconds()
	c.mu.baseMS = now - up
	c.mu.unset = !Plausible(now)
	c.mu.held = c.mu.unset
	if lastKnownMS > 0 && (now < lastKnownMS-maxStepMS || now > lastKnownMS+maxOffMS) {
		c.mu.baseMS = lastKnownMS - up
		c.mu.held = true
	}
	return c
}

// Now returns the stamp for records that arrive now.
func (c *Clock) Now() block.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, up := c.wall().UnixMilli(), c.uptime().Milliseconds()
	c.lookLocked(now, up)
	return block.Stamp{ArrivalMS: max(c.mu.baseMS+up, 0), MonotonicMS: up, Uncertain: c.mu.held}
}

func (c *Clock) lookLocked(now, up int64) {
	expected := c.mu.baseMS + up
	step := now - expected
	near := step <= maxStepMS && step >= -maxStepMS
	set := Plausible(now)
	switch {
	case !set:
		c.mu.held, c.mu.unset = true, true
	case near, c.mu.unset && step > 0 && (step <= maxOffMS || !Plausible(expected)):
		// In step, back in step, or set for the first time since it was known to be wrong.
		if c.mu.held {
			c.mu.shiftMS += step
		}
		c.mu.baseMS, c.mu.held, c.mu.unset = now-up, false, false
	default:
		c.mu.held, c.mu.unset = true, false
	}
}

// Confirm says that the time is now known to be nowMS: it is believed from
// here on, and uncertain stamps of this session can be corrected.
func (c *Clock) Confirm(nowMS int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := c.uptime().Milliseconds()
	if c.mu.held {
		c.mu.shiftMS += nowMS - (c.mu.baseMS + up)
	}
	c.mu.baseMS, c.mu.held, c.mu.unset = nowMS-up, false, false
}

// Held says whether the wall clock is at present not believed.
func (c *Clock) Held() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.held
}

// takeShift returns what was learnt about uncertain stamps since the last
// call: add it to get the true time.
func (c *Clock) takeShift() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.mu.shiftMS
	c.mu.shiftMS = 0
	return s
}
