package delivery

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// partBytes is the buffer of an object being sent: the least part size of S3, so the
// largest that memory should hold.
const partBytes = 5 << 20

// regionPool lends memory of partBytes that is the system's and not of the Go heap: the
// collector would let as much garbage stand as half of it. It costs what is written
// into it, and goes back when it is given back. The address range stays: an HTTP
// client that was answered early may still read a body that it sends to nobody.
// There are as many as were ever lent at a time, which the bound of memory decides.
type regionPool struct {
	mu   sync.Mutex
	idle [][]byte
}

// regions is the process's.
var regions regionPool

// take returns a region of zeros.
func (r *regionPool) take() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.idle); n > 0 {
		b := r.idle[n-1]
		r.idle = r.idle[:n-1]
		return b, nil
	}
	b, err := unix.Mmap(-1, 0, partBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("memory of %d bytes: %w", partBytes, err)
	}
	return b, nil
}

// give takes back what take returned, from its first byte on.
func (r *regionPool) give(b []byte) {
	b = b[:partBytes]
	// It fails only for what is not mapped.
	_ = unix.Madvise(b, unix.MADV_DONTNEED)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = append(r.idle, b)
}
