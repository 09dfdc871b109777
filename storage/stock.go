package storage

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// stockTaking takes stock of a database while Pebble still opens it: from the end of the
// flush of what was in the log. What Pebble does after that is mostly to wait for syncs.
// It says itself that what was flushed can be read when FlushEnd is called, and makes the
// database known where it registers with the scheduler of compactions, of which none
// begins before the store is open: until then only a further flush changes the tables.
type stockTaking struct {
	take  func(*pebble.DB, pebble.FlushInfo) error
	reads *atomic.Bool // set before take is called
	db    *pebble.DB   // nil when Pebble did not make it known

	mu struct {
		sync.Mutex
		flushes int  // that have ended
		over    bool // Pebble is open, or has failed
		done    chan error
	}
}

// flushed is called, with Pebble's locks held, when a flush has ended.
func (t *stockTaking) flushed(info pebble.FlushInfo) {
	if info.Err != nil && !nothingFlushed(info.Err) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.over {
		return
	}
	if t.mu.flushes++; t.mu.flushes > 1 || t.db == nil {
		return
	}
	t.reads.Store(true)
	done := make(chan error, 1)
	t.mu.done = done
	go func() { done <- t.take(t.db, info) }()
}

// end waits for the stock that was taken; ok says that it is that of the database as
// Pebble opened it. An error holds in any case.
func (t *stockTaking) end() (ok bool, err error) {
	t.mu.Lock()
	t.mu.over = true
	done, flushes := t.mu.done, t.mu.flushes
	t.mu.Unlock()
	if done == nil {
		return false, nil
	}
	err = <-done
	return flushes == 1 && err == nil, err
}
