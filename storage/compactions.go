package storage

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// compactions is Pebble's own scheduler, which allows nothing before the store is
// open. An open writes a small table of metadata, and so each one had the large table
// merged with it; Pebble waits for that before it says that it is open.
type compactions struct {
	*pebble.ConcurrencyLimitScheduler
	begun      atomic.Bool
	registered func(*pebble.DB) // told of the database as soon as there is one, unless nil
}

func newCompactions() *compactions {
	// It is the only one that can be made from outside. What it leaves out is to ask every
	// 100 ms whether more compactions may run at once: the number never changes here.
	return &compactions{ConcurrencyLimitScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(goroutines int, db pebble.DBForCompaction) {
	if db, ok := db.(*pebble.DB); ok && c.registered != nil {
		c.registered(db)
	}
	c.ConcurrencyLimitScheduler.Register(goroutines, db)
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.begun.Load() {
		return false, nil
	}
	return c.ConcurrencyLimitScheduler.TrySchedule()
}

// begin allows compactions from now on, and starts the one that waits.
func (c *compactions) begin() {
	if c.begun.Swap(true) {
		return
	}
	if ok, place := c.ConcurrencyLimitScheduler.TrySchedule(); ok {
		place.Done() // it looks for who wants the place
	}
}
