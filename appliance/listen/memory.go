package listen

import "sync"

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
