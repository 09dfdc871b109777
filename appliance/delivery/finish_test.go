package delivery

import (
	"testing"
	"time"
)

// TestFinishGoesByTheWayDown: what was before the lag was at its highest says nothing about
// when it will be gone.
func TestFinishGoesByTheWayDown(t *testing.T) {
	at := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		what string
		lags map[time.Duration]int64 // by how long ago
		want time.Duration           // from now; 0: not known
	}{
		{"nobody has looked yet", map[time.Duration]int64{0: 300}, 0},
		{"idle yesterday, then an outage", map[time.Duration]int64{24 * time.Hour: 0, 10 * time.Second: 400, 0: 300}, 30 * time.Second},
		{"it grew until a moment ago", map[time.Duration]int64{30 * time.Second: 100, 20 * time.Second: 300, 10 * time.Second: 400, 0: 300}, 30 * time.Second},
		{"it stood still until a moment ago", map[time.Duration]int64{time.Hour: 400, 10 * time.Second: 400, 0: 300}, 30 * time.Second},
		{"it grows", map[time.Duration]int64{20 * time.Second: 300, 10 * time.Second: 350, 0: 400}, 0},
		{"it goes down all the time", map[time.Duration]int64{40 * time.Second: 500, 20 * time.Second: 400, 0: 300}, time.Minute},
	} {
		var s stats
		lag := int64(0)
		for ago := 48 * time.Hour; ago >= 0; ago -= time.Second {
			if n, ok := c.lags[ago]; ok {
				lag = n
				s.sample(at.Add(-ago), n)
			}
		}
		want := time.Time{}
		if c.want > 0 {
			want = at.Add(c.want)
		}
		if got := s.finish(at, lag); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", c.what, got, want)
		}
	}
}
