package listen

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// allowance is memory that all requests share, by count.
type allowance struct {
	sem   *semaphore.Weighted
	limit int
	used  atomic.Int64
	wait  time.Duration // for a turn

	reserve int // what those leave alone that need more than largeBody; 0 if all wait in one row
}

func newAllowance(limit int, wait time.Duration) *allowance {
	return &allowance{sem: semaphore.NewWeighted(int64(limit)), limit: limit, wait: wait}
}

// take takes want bytes, or half of what is free if that is less: those who have much
// and are slow leave something for others. It takes least at least, for which it waits
// in turn. It returns how many it took, 0 if there was no room in time.
func (a *allowance) take(ctx context.Context, least, want int) int {
	n := min(want, (a.limit-int(a.used.Load()))/2)
	if n <= least || !a.sem.TryAcquire(int64(n)) {
		n = least
		if a.reserve > 0 && n > largeBody {
			if !a.takeLarge(ctx, n) {
				return 0
			}
		} else if !a.sem.TryAcquire(int64(n)) {
			ctx, cancel := context.WithTimeout(ctx, a.wait)
			defer cancel()
			if a.sem.Acquire(ctx, int64(n)) != nil {
				return 0
			}
		}
	}
	a.used.Add(int64(n))
	return n
}

// takeLarge takes n bytes as soon as the reserve is left besides. It looks from time to
// time: in the row of the others it would have all behind it wait for as much as it needs.
func (a *allowance) takeLarge(ctx context.Context, n int) bool {
	const look = 10 * time.Millisecond
	room := a.limit - n - min(a.reserve, a.limit-n)
	for until := time.Now().Add(a.wait); ; {
		if int(a.used.Load()) <= room && a.sem.TryAcquire(int64(n)) {
			return true
		}
		if !time.Now().Before(until) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(look):
		}
	}
}

func (a *allowance) give(n int) {
	if n > 0 {
		a.used.Add(-int64(n))
		a.sem.Release(int64(n))
	}
}

// Bodies by size. What is larger may use less of the memory, so that the large bodies of
// clients that are slow to send them leave room for the others'.
const (
	mediumBody = screenAbove // larger than that, a body leaves an eighth of the memory alone
	largeBody  = 1 << 20     // larger than that, a quarter
)

// lanes is the memory that all bodies share.
type lanes struct{ all, medium, large *allowance }

// newLanes shares out limit bytes. The largest body has to fit into what large ones may use.
func newLanes(limit, largest int, wait time.Duration) *lanes {
	return &lanes{
		all:    newAllowance(limit, wait),
		medium: newAllowance(min(limit, max(limit-limit/8, largest)), wait),
		large:  newAllowance(min(limit, max(limit-limit/4, largest)), wait),
	}
}

// holding is what a body has taken: of what all share, and of its network's share.
type holding struct{ all, own bytesHeld }

type bytesHeld struct{ n, medium, large int }

// take takes n more bytes for a body. Whoever waits in a lane holds none of those
// after it, so that the smaller ones pass.
func (l *lanes) take(ctx context.Context, h *bytesHeld, n int) (ok bool) {
	before := *h
	defer func() {
		if !ok {
			l.large.give(h.large - before.large)
			l.medium.give(h.medium - before.medium)
			*h = before
		}
	}()
	size := h.n + n
	if size > largeBody {
		if l.large.take(ctx, n, n) == 0 {
			return false
		}
		h.large += n
	}
	if size > mediumBody {
		if l.medium.take(ctx, n, n) == 0 {
			return false
		}
		h.medium += n
	}
	if l.all.take(ctx, n, n) == 0 {
		return false
	}
	h.n += n
	return true
}

// give gives all of it back.
func (l *lanes) give(h bytesHeld) {
	l.all.give(h.n)
	l.medium.give(h.medium)
	l.large.give(h.large)
}

// Buffers for bodies come from pools by size. What the garbage collector finds
// unused it frees, so a burst of large requests is not held for ever. Larger ones
// than the pools have are made to size and not kept: a pool holds what it has over
// one or two collections, and a few of 10 MiB are all the memory of a small box.
const (
	smallestBuffer = 4 << 10
	bufferClasses  = 5 // 4 KiB … 1 MiB, each four times the one before
	largestBuffer  = smallestBuffer << (2 * (bufferClasses - 1))
)

var buffers [bufferClasses]sync.Pool

// getBuffer returns an empty buffer that holds at least n bytes.
func getBuffer(n int) []byte {
	for class, size := 0, smallestBuffer; class < bufferClasses; class, size = class+1, size*4 {
		if n <= size {
			if p, _ := buffers[class].Get().(*[]byte); p != nil {
				b := (*p)[:0]
				*p = nil
				headers.Put(p)
				return b
			}
			return make([]byte, 0, size)
		}
	}
	return make([]byte, 0, n)
}

// headers are slice headers for the pools, so that giving back does not allocate.
var headers = sync.Pool{New: func() any { return new([]byte) }}

// putBuffer gives a buffer back, as far as it is one that is kept.
func putBuffer(b []byte) {
	if cap(b) < smallestBuffer || cap(b) > 2*largestBuffer {
		return
	}
	class := 0
	for size := smallestBuffer; class+1 < bufferClasses && cap(b) >= size*4; size *= 4 {
		class++
	}
	p := headers.Get().(*[]byte)
	*p = b
	buffers[class].Put(p)
}

// bufferSize is the capacity of the buffer that getBuffer makes for n bytes.
func bufferSize(n int) int {
	for class, size := 0, smallestBuffer; class < bufferClasses; class, size = class+1, size*4 {
		if n <= size {
			return size
		}
	}
	return n
}

// lend takes memory for an answer and returns a buffer of it, with what it counts as;
// nil if there is no room.
func (s *Server) lend(ctx context.Context, to *network, least, want int) (b []byte, n int) {
	least, want = bufferSize(least), bufferSize(max(least, want))
	if n = s.takeAnswer(ctx, to, least, want); n == 0 {
		return nil, 0
	}
	fit := n
	if n < largestBuffer {
		for fit = least; fit*4 <= n; fit *= 4 {
		}
	}
	s.giveAnswer(to, n-fit)
	return getBuffer(fit), fit
}

// reserve gives back what was reserved for an answer, and reserves anew: out is then an
// empty buffer.
func (s *Server) reserve(ctx context.Context, to *network, out *[]byte, held *int, least, want int) {
	if *out != nil {
		s.putBuffer(*out)
	}
	s.giveAnswer(to, *held)
	*out, *held = s.lend(ctx, to, least, want)
}

// loan is the buffer that a StreamWriter has lent.
type loan struct {
	s    *Server
	to   *network
	lent []byte
	held int
}

// Lend implements api.StreamWriter.
func (l *loan) Lend(ctx context.Context, least, want int) []byte {
	l.back()
	l.lent, l.held = l.s.lend(ctx, l.to, least, want)
	return l.lent
}

func (l *loan) back() {
	if l.lent != nil {
		l.s.putBuffer(l.lent)
	}
	l.s.giveAnswer(l.to, l.held)
	l.lent, l.held = nil, 0
}

// putBuffer gives a buffer back and has what is not kept collected in time.
func (s *Server) putBuffer(b []byte) {
	putBuffer(b)
	s.tidy.dropped(cap(b))
}

// A burst of connections that have become idle leaves pages behind that nothing is
// on any more, and so does a burst of large bodies and answers. The runtime would give
// them back, but only at the next collections, which an idle box does not have for minutes.
const (
	tidyAfter  = 2 * time.Second  // since the last connection was parked
	tidyPause  = 10 * time.Second // between two
	tidyParked = 256              // connections parked since the last, or
	tidyBytes  = 8 << 20          // bytes of large buffers dropped

	// collectBytes of large buffers dropped have the garbage collected, without waiting
	// until it is half of what lives: with what the store makes of a record on its way,
	// the garbage is several times as much.
	collectBytes = 24 << 20
)

// tidier gives memory back to the system after a burst.
type tidier struct {
	mu     sync.Mutex
	timer  *time.Timer // nil at first
	closed bool
	count  int // connections parked since the last time
	bytes  int // of large buffers dropped since the last time
	last   time.Time

	garbage    int // bytes of large buffers dropped since the last collection
	collecting bool
}

// parked says that a connection has given up its buffers.
func (t *tidier) parked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.scheduleLocked()
}

// dropped says that n bytes of a buffer are garbage from now on. What is small enough
// to be kept does not count.
func (t *tidier) dropped(n int) {
	if n <= 2*largestBuffer {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes += n
	t.scheduleLocked()
	if t.garbage += n; t.garbage < collectBytes || t.collecting || t.closed {
		return
	}
	t.garbage, t.collecting = 0, true
	go func() {
		runtime.GC()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.collecting = false
	}()
}

func (t *tidier) dueLocked() bool {
	return (t.count >= tidyParked || t.bytes >= tidyBytes) && !t.closed
}

func (t *tidier) scheduleLocked() {
	if !t.dueLocked() {
		return
	}
	after := max(tidyAfter, time.Until(t.last.Add(tidyPause)))
	if t.timer == nil {
		t.timer = time.AfterFunc(after, t.tidy)
		return
	}
	t.timer.Reset(after)
}

func (t *tidier) tidy() {
	t.mu.Lock()
	due := t.dueLocked()
	if due {
		t.count, t.bytes, t.garbage, t.last = 0, 0, 0, time.Now()
	}
	t.mu.Unlock()
	if due {
		debug.FreeOSMemory()
	}
}

// close ends it.
func (t *tidier) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}
