package delivery

import (
	"context"
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
