package delivery

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"
)

// circuit is the state of a sink as attempts find it.
type circuit struct {
	Failures int       `json:"failures"` // in a row
	Code     string    `json:"code,omitempty"`
	Error    string    `json:"error,omitempty"`
	Since    time.Time `json:"since,omitzero"` // first of them
	Next     time.Time `json:"next,omitzero"`  // attempt
}

// openAfter is how many failures in a row open the circuit: from then on one
// attempt at a time finds out whether the sink is back.
const openAfter = 3

func (c *circuit) open() bool { return c.Failures >= openAfter }

func (w *worker) failing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.circuit.open()
}

// between says, for people, what a delivery stream waits for between attempts:
// the codes of what is not a sink's have a name of ours in front.
func (c *circuit) between() string {
	switch family, _, _ := strings.Cut(c.Code, "."); family {
	case "Transform":
		return "the module failed"
	case "Log":
		return "the log could not be read"
	case "Delivery":
		return "the last attempt failed"
	}
	return "the sink failed"
}

// sinkPause is how long the sink is still to be left alone, 0 if it is not, and
// what ends that early. Whoever waits says so under the same lock under which
// a success takes it back.
func (w *worker) sinkPause(now time.Time) (time.Duration, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pause := w.mu.circuit.Next.Sub(now)
	if pause <= 0 {
		return 0, nil
	}
	w.mu.waiting = w.mu.circuit.between()
	if w.mu.healed == nil {
		w.mu.healed = make(chan struct{})
	}
	return pause, w.mu.healed
}

// healLocked lets whoever waits for the sink go on.
func (w *worker) healLocked() {
	w.mu.circuit.Next = time.Time{}
	if w.mu.waiting == w.mu.circuit.between() {
		w.mu.waiting = ""
	}
	if w.mu.healed != nil {
		close(w.mu.healed)
		w.mu.healed = nil
	}
}

func (w *worker) succeeded(start time.Time) {
	w.mu.Lock()
	was := w.mu.circuit
	w.healLocked()
	w.mu.circuit = circuit{}
	w.mu.Unlock()
	if was.open() {
		w.log.Info("delivery goes on", "after", w.engine.clock.Now().Sub(was.Since).Round(time.Second), "failures", was.Failures)
	}
	w.stats.sending.Add(int64(w.engine.clock.Now().Sub(start)))
}

// failed notes a failed attempt and decides when the next may be: twice as
// late each time, up to the cap, give or take 15 %.
func (w *worker) failed(j *job, cause error) {
	s := sinkError(cause)
	w.stats.retry(s.Code, 1)
	now := w.engine.clock.Now()
	w.mu.Lock()
	c := &w.mu.circuit
	if c.Failures == 0 {
		c.Since = now
	}
	c.Failures++
	pause := w.engine.options.MaxBackoff
	if c.Failures < 16 {
		pause = min(pause, time.Second<<(c.Failures-1))
	}
	pause = time.Duration(float64(pause) * (0.85 + 0.3*rand.Float64()))
	c.Next = now.Add(max(pause, s.RetryAfter))
	if w.mu.waiting == c.between() {
		w.mu.waiting = "" // of a failure of another kind; whoever waits says it again
	}
	c.Code, c.Error = s.Code, s.Err.Error()
	loud := c.Failures == 1 || c.Failures == openAfter
	failures := c.Failures
	if j.clear {
		w.mu.clear[j.recipe.Number] = true
	}
	w.mu.Unlock()
	level := slog.LevelDebug
	if loud {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "delivery attempt failed", "recipe", j.recipe.Number, "code", s.Code, "error", s.Err, "failures", failures, "retry", pause.Round(time.Millisecond))
}
