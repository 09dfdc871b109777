package listen

import (
	"runtime/debug"
	"sync"
	"time"
)

// Buffers for bodies come from pools by size. What the garbage collector finds
// unused it frees, so a burst of large requests is not held for ever.
const (
	smallestBuffer = 4 << 10
	bufferClasses  = 7 // 4 KiB … 16 MiB, each four times the one before
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

// putBuffer gives a buffer back.
func putBuffer(b []byte) {
	if cap(b) < smallestBuffer {
		return
	}
	class := 0
	for size := smallestBuffer; class+1 < bufferClasses && cap(b) >= size*4; size *= 4 {
		class++
	}
	if cap(b) > 2*smallestBuffer<<(2*(bufferClasses-1)) {
		return
	}
	p := headers.Get().(*[]byte)
	*p = b
	buffers[class].Put(p)
}

// A burst of connections that have become idle leaves pages behind that nothing is
// on any more. The runtime would give them back, but only at the next collections,
// which an idle box does not have for minutes.
const (
	tidyAfter  = 2 * time.Second  // since the last connection was parked
	tidyPause  = 10 * time.Second // between two
	tidyParked = 256              // connections parked since the last
)

// tidier gives memory back to the system after a burst.
type tidier struct {
	mu     sync.Mutex
	timer  *time.Timer // nil at first
	closed bool
	count  int // connections parked since the last time
	last   time.Time
}

// parked says that a connection has given up its buffers.
func (t *tidier) parked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count++; t.count < tidyParked || t.closed {
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
	due := t.count >= tidyParked && !t.closed
	if due {
		t.count, t.last = 0, time.Now()
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
