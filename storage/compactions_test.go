package storage

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// compacter is a database that wants to compact so many times.
type compacter struct {
	mu      sync.Mutex
	wants   int
	started chan pebble.CompactionGrantHandle
}

func (c *compacter) GetAllowedWithoutPermission() int { return 1 }

func (c *compacter) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wants > 0, pebble.WaitingCompaction{}
}

func (c *compacter) Schedule(h pebble.CompactionGrantHandle) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wants == 0 {
		return false
	}
	c.wants--
	c.started <- h
	return true
}

func (c *compacter) want() {
	c.mu.Lock()
	c.wants++
	c.mu.Unlock()
}

func TestCompactionsWaitForTheStoreToBeOpen(t *testing.T) {
	db := &compacter{started: make(chan pebble.CompactionGrantHandle, 10)}
	c := newCompactions()
	c.Register(2, db)
	db.want()
	if ok, _ := c.TrySchedule(); ok {
		t.Fatal("a compaction was allowed before the store was open")
	}
	c.begin()
	c.begin()
	first := <-db.started
	if ok, _ := c.TrySchedule(); ok {
		t.Fatal("a second one was allowed while one runs")
	}
	db.want() // as Pebble notes one that was refused
	first.Done()
	(<-db.started).Done()
	c.Unregister()
	db.want()
	if ok, _ := c.TrySchedule(); ok || len(db.started) > 0 {
		t.Fatal("a compaction was allowed after the end")
	}
}

// Pebble asks and is refused at any time between two answers of ours: nothing that
// it wants may be left lying.
func TestNoCompactionIsForgotten(t *testing.T) {
	const each, askers = 200, 4
	db := &compacter{started: make(chan pebble.CompactionGrantHandle, each*askers)}
	c := newCompactions()
	c.Register(2, db)
	c.begin()
	var ran, asking sync.WaitGroup
	ran.Add(each * askers)
	go func() {
		for h := range db.started {
			h.Done()
			ran.Done()
		}
	}()
	for range askers {
		asking.Go(func() {
			for range each {
				db.mu.Lock() // Pebble holds its own lock from the question to the note
				if ok, h := c.TrySchedule(); ok {
					db.started <- h
				} else {
					db.wants++
				}
				db.mu.Unlock()
			}
		})
	}
	asking.Wait()
	ran.Wait()
	c.Unregister()
	close(db.started)
}
