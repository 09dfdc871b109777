package host

import (
	"fmt"
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// budget bounds the linear memory of all instances together.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take admits n more bytes, or refuses and changes nothing.
func (b *budget) take(n int64) bool {
	for {
		used := b.used.Load()
		if used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// linearMemory is one instance's memory: an address range reserved without
// access as large as the limit, of which what is in use is made accessible.
// So growth never copies, an instance costs what it uses, Close returns it to
// the system at once, and none of it is on the Go heap.
type linearMemory struct {
	budget  *budget
	limit   uint64 // of this instance, bytes
	region  []byte // reserved range
	size    uint64 // accessible bytes, counted in budget
	refused bool   // the last growth was refused
	wanted  uint64 // its size
}

// Allocate reserves the range. wazero asks for it once, when it instantiates.
func (l *linearMemory) Allocate(_, maxBytes uint64) experimental.LinearMemory {
	n := min(maxBytes, l.limit)
	if n == 0 {
		return l
	}
	region, err := unix.Mmap(-1, 0, int(n), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		l.region = region
	}
	return l
}

// Reallocate makes size bytes accessible; nil when the limit or the budget is against it.
func (l *linearMemory) Reallocate(size uint64) []byte {
	if size <= l.size {
		return l.region[:size]
	}
	l.wanted = size
	if size > uint64(len(l.region)) || !l.budget.take(int64(size-l.size)) {
		l.refused = true
		return nil
	}
	if err := unix.Mprotect(l.region[:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
		l.budget.used.Add(-int64(size - l.size))
		l.refused = true
		return nil
	}
	l.size = size
	return l.region[:size]
}

// Free returns the memory to the system. It may be called again.
func (l *linearMemory) Free() {
	if l.region != nil {
		// An error here would mean that the range is not ours: nothing to be done about it at this point.
		_ = unix.Munmap(l.region)
	}
	l.budget.used.Add(-int64(l.size))
	l.region, l.size = nil, 0
}

// refusal says which bound the last refused growth met.
func (l *linearMemory) refusal() error {
	if l.wanted > l.limit {
		return limitError(ErrMemory, l.wanted, l.limit, "bytes")
	}
	return fmt.Errorf("%w: %w: %d bytes more on top of %d in use; the limit is %d", ErrMemory, ErrBudget,
		l.wanted-l.size, l.budget.used.Load(), l.budget.limit)
}
