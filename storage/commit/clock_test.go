package commit

import (
	"testing"
	"time"
)

// TestClockBelievesWhatIsPlausible walks a clock through what boxes at the edge see:
// no battery, the network's time, corrections, and jumps of years.
func TestClockBelievesWhatIsPlausible(t *testing.T) {
	start := time.UnixMilli(1_800_000_000_000)
	type step struct {
		what    string
		wall    time.Time // what the wall clock shows then; zero leaves it running
		pass    time.Duration
		confirm bool
		want    time.Time
		held    bool
		shift   time.Duration // learnt at this step
	}
	year := 365 * 24 * time.Hour
	for _, c := range []struct {
		name  string
		wall  time.Time
		last  time.Time // latest time the store had seen, zero for a new store
		steps []step
	}{
		{"a new store under a set clock", start, time.Time{}, []step{
			{what: "runs", pass: time.Second, want: start.Add(time.Second)},
			{what: "is corrected a little", wall: start.Add(-5 * time.Second), want: start.Add(-5 * time.Second)},
			{what: "falls back to 1970", wall: time.Unix(0, 0), want: start.Add(-5 * time.Second), held: true},
			{what: "goes on by uptime", pass: time.Minute, want: start.Add(55 * time.Second), held: true},
			{what: "comes back", wall: start.Add(time.Minute), want: start.Add(time.Minute), shift: 5 * time.Second},
			{what: "jumps ten years ahead", wall: start.Add(10 * year), want: start.Add(time.Minute), held: true},
			{what: "is confirmed there", confirm: true, want: start.Add(10 * year), shift: 10*year - time.Minute},
			{what: "runs on", pass: time.Hour, want: start.Add(10*year + time.Hour)},
		}},
		{"a new store in 1970", time.Unix(5, 0), time.Time{}, []step{
			{what: "begins", want: time.Unix(5, 0), held: true},
			{what: "is told the time", pass: time.Minute, wall: start, want: start, shift: start.Sub(time.Unix(65, 0))},
		}},
		{"an old store in 1970", time.Unix(5, 0), start, []step{
			{what: "goes on from what it knew", want: start, held: true},
			{what: "is told the time a month later", wall: start.Add(30 * 24 * time.Hour), want: start.Add(30 * 24 * time.Hour), shift: 30 * 24 * time.Hour},
		}},
		{"an old store ten years ahead", start.Add(10 * year), start, []step{
			{what: "is not believed", want: start, held: true},
			{what: "comes back to the true time", pass: time.Second, wall: start.Add(time.Hour), want: start.Add(time.Hour), shift: time.Hour - time.Second},
		}},
		{"a store that was off for half a year", start.Add(year / 2), start, []step{
			{what: "is believed", want: start.Add(year / 2)},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wall, up := c.wall, time.Duration(0)
			var last int64
			if !c.last.IsZero() {
				last = c.last.UnixMilli()
			}
			clock := NewClock(func() time.Time { return wall }, func() time.Duration { return up }, last)
			for _, s := range c.steps {
				wall, up = wall.Add(s.pass), up+s.pass
				if !s.wall.IsZero() {
					wall = s.wall
				}
				if s.confirm {
					clock.Confirm(wall.UnixMilli())
				}
				got := clock.Now()
				if got.ArrivalMS != s.want.UnixMilli() || got.Uncertain != s.held || got.MonotonicMS != up.Milliseconds() || clock.Held() != s.held {
					t.Fatalf("%s: stamped %v, uncertain %v; want %v, %v", s.what, time.UnixMilli(got.ArrivalMS).UTC(), got.Uncertain, s.want.UTC(), s.held)
				}
				if shift := time.Duration(clock.takeShift()) * time.Millisecond; shift != s.shift {
					t.Fatalf("%s: learnt a shift of %v, want %v", s.what, shift, s.shift)
				}
			}
		})
	}
}
