package storage

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactions says when Pebble may compact: not before the store is open, then one
// at a time. An open writes a small table of metadata, and so each one had the large
// table merged with it; Pebble waits for that before it says that it is open.
type compactions struct {
	db      pebble.DBForCompaction // set once, before anything else is called
	wake    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	mu      struct {
		sync.Mutex
		begun   bool
		ended   bool
		running bool // one runs, or is looked for
		refused bool // one was refused since it was looked for last
	}
}

func newCompactions() *compactions {
	return &compactions{wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
}

// begin allows compactions from now on. A second call does nothing.
func (c *compactions) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.begun || c.mu.ended {
		return
	}
	c.mu.begun = true
	c.kick()
	go c.grant()
}

func (c *compactions) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// grant starts compactions that had to wait.
func (c *compactions) grant() {
	defer close(c.stopped)
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		}
		for c.claim() {
			if waiting, _ := c.db.GetWaitingCompaction(); waiting && c.db.Schedule(c) {
				break // Done goes on from here
			}
			if !c.giveBack() {
				break
			}
		}
	}
}

// claim takes the place of the one compaction that may run, if it is free.
func (c *compactions) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.running {
		return false
	}
	c.mu.running, c.mu.refused = true, false
	return true
}

// giveBack says whether a compaction was refused since the place was claimed.
func (c *compactions) giveBack() (refused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.running = false
	return c.mu.refused
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister implements pebble.CompactionScheduler: the database is not called after it.
func (c *compactions) Unregister() {
	c.mu.Lock()
	begun := c.mu.begun
	c.mu.ended = true
	c.mu.Unlock()
	close(c.stop)
	if begun {
		<-c.stopped
	}
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.begun || c.mu.ended || c.mu.running {
		c.mu.refused = true
		return false, nil
	}
	c.mu.running = true
	return true, c
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: it is always one.
func (c *compactions) UpdateGetAllowedWithoutPermission() {}

// Done implements pebble.CompactionGrantHandle.
func (c *compactions) Done() {
	c.giveBack()
	c.kick()
}

// Started implements pebble.CompactionGrantHandle.
func (c *compactions) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}
