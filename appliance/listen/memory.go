package listen

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

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
