package storage

import (
	"runtime"
	"runtime/debug"
	"sync"
)

// openPercent is the collector's percentage while a store opens. The runtime takes at
// least 4 MiB times the percentage for a heap: 16 MiB with this one.
const openPercent = 400

// collecting is about the collector of the whole process: there is no other.
var collecting struct {
	sync.Mutex
	opens  int // under way, with the collector put off
	before int // its percentage otherwise
}

// collectLater puts the garbage collector off until the function it returns is called, or
// until the heap is 16 MiB for the first time. A box collects when a few megabytes were
// allocated, and an open allocates that much in milliseconds, most of it to keep: it was
// interrupted once for every 300 tables. A store so large that its open
// takes more than the 16 MiB goes on under the percentage that the program wants.
func collectLater() (over func()) {
	c := &collecting
	c.Lock()
	defer c.Unlock()
	if c.opens == 0 {
		if c.before = debug.SetGCPercent(openPercent); c.before < 0 || c.before >= openPercent {
			debug.SetGCPercent(c.before)
			return func() {}
		}
	}
	c.opens++
	over = sync.OnceFunc(func() {
		c.Lock()
		defer c.Unlock()
		if c.opens--; c.opens == 0 {
			debug.SetGCPercent(c.before)
		}
	})
	// The first collection finds this, which nobody holds.
	runtime.AddCleanup(new([64]byte), func(over func()) { over() }, over)
	return over
}
