package delivery

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// partBytes is the buffer of an object being sent: the least part size of S3, so the
// largest that memory should hold.
const partBytes = 5 << 20

const (
	// headBytes is what of a region a forwarded object is gathered in, by a sink that writes
	// as it comes, or in whole. A multiple of every size of pages.
	headBytes = 1<<20 + 64<<10
	// warmRegions keep their heads while nobody has them: two batches of a stream are on
	// their way at a time.
	warmRegions = 2
)

// regionPool lends memory of partBytes that is the system's and not of the Go heap: the
// collector would let as much garbage stand as half of it. It costs what is written
// into it, and goes back when it is given back, but for the heads of two regions: to have them
// filled with zeros anew for each object is an eighth of what it costs to forward one. The address range stays: an HTTP
// client that was answered early may still read a body that it sends to nobody.
// There are as many as were ever lent at a time, which the bound of memory decides.
type regionPool struct {
	mu   sync.Mutex
	warm [][]byte // at most warmRegions
	cold [][]byte
}

// regions is the process's.
var regions regionPool

// take returns a region, of which nobody else has any part.
func (r *regionPool) take() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, idle := range []*[][]byte{&r.warm, &r.cold} {
		if n := len(*idle); n > 0 {
			b := (*idle)[n-1]
			*idle = (*idle)[:n-1]
			return b, nil
		}
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
	_ = unix.Madvise(b[headBytes:], unix.MADV_DONTNEED)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.warm) < warmRegions {
		r.warm = append(r.warm, b)
		return
	}
	_ = unix.Madvise(b[:headBytes], unix.MADV_DONTNEED)
	r.cold = append(r.cold, b)
}
