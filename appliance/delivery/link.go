package delivery

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// link is the uplink that all metered sinks share: a token bucket whose
// tokens go to the waiting sender with the highest priority, and among equals
// to the one that has had least for its share. Without a rate it lets
// everything through. Each delivery stream has a cap of its own before it.
type link struct {
	clock Clock
	mu    struct {
		sync.Mutex
		rate    int64 // bytes per second, 0: no limit
		bucket  bucket
		waiting []*request
		floor   float64 // had of the sender served last
	}
}

// linkPiece is what is paid for at a time, and the least burst; otherwise a
// burst is what passes in a tenth of a second.
const linkPiece = 32 << 10

type bucket struct {
	tokens float64
	at     time.Time
}

// refill adds what has come in since the last time and returns how long until
// n tokens are there.
func (b *bucket) refill(now time.Time, rate, n int64) time.Duration {
	most := float64(max(rate/10, linkPiece))
	if b.at.IsZero() {
		b.tokens = most
	} else if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(b.tokens+passed.Seconds()*float64(rate), most)
	}
	b.at = now
	if b.tokens >= float64(n) {
		return 0
	}
	return max(time.Duration((float64(n)-b.tokens)/float64(rate)*float64(time.Second)), time.Millisecond)
}

// taker is one sender's account with the link. Several uploads may take at a
// time.
type taker struct {
	priority int
	weight   float64 // of its share, more than 0
	had      float64 // bytes over weight; guarded by the link
	before   *link   // of the delivery stream's own cap; nil: none
	account  *taker  // with before
}

// request is one upload that waits for its tokens.
type request struct {
	t     *taker
	n     int64
	ready chan struct{}
}

func newLink(clock Clock, rate int64) *link {
	l := &link{clock: clock}
	l.mu.rate = rate
	return l
}

// take waits until t may send n bytes, n at most linkPiece.
func (l *link) take(ctx context.Context, t *taker, n int64) error {
	if t.before != nil {
		if err := t.before.take(ctx, t.account, n); err != nil {
			return err
		}
	}
	l.mu.Lock()
	if l.mu.rate == 0 {
		l.mu.Unlock()
		return ctx.Err()
	}
	r := &request{t: t, n: n, ready: make(chan struct{})}
	// Whoever was away doesn't get back what it did not ask for.
	t.had = max(t.had, l.mu.floor)
	l.mu.waiting = append(l.mu.waiting, r)
	l.mu.Unlock()
	for {
		pause := l.grant()
		select {
		case <-r.ready:
			return nil
		default:
		}
		select {
		case <-r.ready:
			return nil
		case <-l.clock.After(pause):
		case <-ctx.Done():
			l.leave(r)
			return ctx.Err()
		}
	}
}

// grant serves waiting senders while there are tokens, and returns how long
// until the next may be served.
func (l *link) grant() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.mu.waiting) > 0 {
		best := 0
		for i, r := range l.mu.waiting {
			t, b := r.t, l.mu.waiting[best].t
			if t.priority > b.priority || t.priority == b.priority && t.had < b.had {
				best = i
			}
		}
		r := l.mu.waiting[best]
		if pause := l.mu.bucket.refill(l.clock.Now(), l.mu.rate, r.n); pause > 0 {
			return pause
		}
		l.mu.bucket.tokens -= float64(r.n)
		l.mu.floor = r.t.had
		r.t.had += float64(r.n) / r.t.weight
		l.mu.waiting = append(l.mu.waiting[:best], l.mu.waiting[best+1:]...)
		close(r.ready)
	}
	return time.Second
}

func (l *link) leave(r *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range l.mu.waiting {
		if w == r {
			l.mu.waiting = append(l.mu.waiting[:i], l.mu.waiting[i+1:]...)
			return
		}
	}
}

// throttled is a reader whose bytes are paid for at the link.
type throttled struct {
	ctx   context.Context
	link  *link // nil: no cap applies
	taker *taker
	count func(ctx context.Context, n int) error
	r     io.Reader
}

func (t *throttled) Read(p []byte) (int, error) {
	p = p[:min(len(p), linkPiece)]
	n, err := t.r.Read(p)
	if n > 0 {
		if t.link != nil {
			if e := t.link.take(t.ctx, t.taker, int64(n)); e != nil {
				return 0, e
			}
		}
		if e := t.count(t.ctx, n); e != nil {
			return 0, e
		}
	}
	return n, err
}

// window is a time of day in which a stream may send, in minutes.
type window struct{ from, to int }

// parseWindows reads "22:00-06:00" forms. An end before its start is the next
// day's.
func parseWindows(texts []string) ([]window, error) {
	var out []window
	for _, text := range texts {
		var fh, fm, th, tm int
		var rest string
		n, _ := fmt.Sscanf(text, "%d:%d-%d:%d%s", &fh, &fm, &th, &tm, &rest)
		if n != 4 || fh < 0 || fh > 24 || th < 0 || th > 24 || fm < 0 || fm > 59 || tm < 0 || tm > 59 || fh*60+fm > 1440 || th*60+tm > 1440 {
			return nil, fmt.Errorf("%q is not a window like 22:00-06:00", text)
		}
		if fh*60+fm == th*60+tm {
			return nil, fmt.Errorf("window %q is empty", text)
		}
		out = append(out, window{fh*60 + fm, th*60 + tm})
	}
	return out, nil
}

// untilOpen is how long until one of the windows is open; 0 when one is, or
// when there are none.
func untilOpen(windows []window, now time.Time) time.Duration {
	if len(windows) == 0 {
		return 0
	}
	minute := now.Hour()*60 + now.Minute()
	wait := 24 * 60
	for _, w := range windows {
		open := minute >= w.from && minute < w.to
		if w.to < w.from {
			open = minute >= w.from || minute < w.to
		}
		if open {
			return 0
		}
		wait = min(wait, (w.from-minute+1440)%1440)
	}
	return time.Duration(wait)*time.Minute - time.Duration(now.Second())*time.Second
}

// budget is what a delivery stream has sent in a month.
type budget struct {
	Month string `json:"month"` // 2026-11, in the stream's zone
	// Bytes sent. The durable row is never less than what was sent: it runs
	// ahead by up to one step, so that a kill forgets nothing.
	Bytes int64 `json:"bytes"`
	// Percent is what the last batch took of the budget for each 100 bytes of
	// the log; 0: not known yet.
	Percent  int64 `json:"percent,omitempty"`
	ahead    int64 // Bytes of the durable row
	reserved int64 // for attempts under way, not sent yet
}

// The step is a 256th of the budget, between these.
const (
	leastBudgetStep = 64 << 10
	mostBudgetStep  = 4 << 20
)

func budgetStep(limit int64) int64 { return min(max(limit/256, leastBudgetStep), mostBudgetStep) }

// spend adds n bytes, starting anew when the month has changed. It says
// whether the durable row has to move ahead.
func (b *budget) spend(now time.Time, n int64) (move bool) {
	if month := now.Format("2006-01"); month != b.Month {
		*b = budget{Month: month, Percent: b.Percent, reserved: b.reserved}
	}
	b.Bytes += n
	return b.Bytes > b.ahead
}

// expected is what a batch of so many bytes of the log should take: what the
// last one took for each byte, and an eighth more. Before there was one it is
// what the batch takes without compression, as it is or inside JSON.
func (b *budget) expected(logBytes int64, inJSON bool) int64 {
	switch {
	case b.Percent > 0:
		return logBytes * b.Percent / 100 * 9 / 8
	case inJSON:
		return logBytes * 3 / 2
	}
	return logBytes
}

// untilBudget is how long until there is budget for need more bytes; 0 when there
// is. The first batch of a month always has it, or one that needs more than a
// month has would never be sent.
func (b *budget) untilBudget(now time.Time, limit, need int64) time.Duration {
	spent := b.reserved
	if b.Month == now.Format("2006-01") {
		spent += b.Bytes
	}
	if limit == 0 || spent == 0 || spent+need <= limit {
		return 0
	}
	return nextMonth(now).Sub(now)
}

// nextMonth is when the month's budget begins anew, in the zone of now.
func nextMonth(now time.Time) time.Time {
	return time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, now.Location())
}

// short says, for people, why there is no budget for need more bytes, and until when.
func (b *budget) short(now time.Time, limit, need int64) string {
	until := nextMonth(now).Format("until 2006-01-02 15:04 -0700")
	left := limit
	if b.Month == now.Format("2006-01") {
		left -= b.Bytes
	}
	switch {
	case left <= 0:
		return "the monthly byte budget is spent " + until
	case need > left:
		return fmt.Sprintf("the %d bytes left of the monthly byte budget are too few for a batch of about %d, %s", left, need, until)
	}
	return fmt.Sprintf("what is left of the monthly byte budget, %d bytes, is reserved for batches under way", left)
}
