// Package commit makes records and rows durable: one committer per store
// gathers what all callers want written into a group, encodes it as one
// Pebble batch, syncs once, and lets everyone go.
//
// It owns admission, the order of records within a shard, the indexes, the
// epochs and the watermarks. It never decides which shard a record belongs
// to and never reads records back.
//
// A group has two lives. Open, it takes transactions: each joins, reserves
// space in memory of its own, fills it, and commits. Taken, it waits for the writers that joined, is encoded
// and synced while the next group is open. One group is under way at a time.
package commit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/semaphore"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
)

// Options are the committer's limits. All must be set.
type Options struct {
	// GroupBytes bounds the records of a group; a larger transaction has a group of its own.
	GroupBytes int64
	// AdmissionBytes bounds what all transactions together hold; Begin waits beyond it, first in, first out.
	AdmissionBytes int64
	// MemTableBytes is Pebble's MemTableSize: an epoch fills one memtable.
	MemTableBytes int64
	// EpochAge returns how old an epoch may become before it is closed though it is not full.
	EpochAge func() time.Duration
	// Session numbers this open of the store.
	Session uint32
	// FirstEpoch is the first epoch to write to.
	FirstEpoch uint32
	// LastMS is the latest arrival in the store so far.
	LastMS int64
	// Packed, unless nil, says of the memtable flushed last whether nearly all of it is
	// compressed already, or would not become smaller.
	Packed *atomic.Bool
	// OnRows, unless nil, is called in the committer's goroutine when directory rows go to
	// disk: those of the epochs up to newest, in bytes. A key that it returns is deleted with
	// the same batch.
	OnRows func(newest uint32, rowBytes int) (gather []byte)
	// OnLearnt is called in the committer's goroutine when the true time
	// became known: uncertain stamps in epochs up to through are off by shiftMS.
	OnLearnt func(through uint32, shiftMS int64)
}

// Committer is the one writer of a store.
type Committer struct {
	o     Options
	db    *pebble.DB
	dir   *epoch.Directory
	clock *Clock

	admission *semaphore.Weighted
	chunks    chunks
	txns      sync.Pool

	mu struct {
		sync.Mutex
		open    *group
		idle    []*group
		line    []*Txn // waiting for the next group, first in, first out
		wakeAt  int    // committed transactions that wake the committer, 0 when it is not waiting
		closing bool
		failure error
	}
	kicked  chan struct{}
	tasks   chan func()
	stopped chan struct{}
	dead    chan struct{} // closed by Fail
	deadSet sync.Once

	// The rest is the committer's goroutine's alone.
	builder  *block.Builder
	batch    *pebble.Batch
	retain   pebble.BatchOption
	timer    *time.Timer
	staging  Staging
	stamp    block.Stamp
	touched  []*Log // that have records in the group
	written  []blockRun
	applied  []*Txn
	expected int
	ewma     time.Duration
	load     load
	epoch    epochState

	stats stats
}

// New returns a committer and starts its goroutine. logs are all logs of the
// store that hold runs; clock stamps what is written.
func New(db *pebble.DB, dir *epoch.Directory, clock *Clock, o Options) *Committer {
	c := &Committer{
		o: o, db: db, dir: dir, clock: clock,
		admission: semaphore.NewWeighted(o.AdmissionBytes),
		kicked:    make(chan struct{}, 1), tasks: make(chan func()), stopped: make(chan struct{}), dead: make(chan struct{}),
		builder: block.NewBuilder(), retain: pebble.WithMaxRetainedSizeBytes(2 << 20), timer: time.NewTimer(time.Hour),
	}
	c.timer.Stop()
	c.staging.c = c
	c.txns.New = func() any { return new(Txn) }
	c.epoch.init(o)
	c.mu.open = c.newGroupLocked()
	go c.run()
	return c
}

// Begin admits a transaction of about sizeBytes, waiting in line while too
// much is under way. It fails with ctx, or with ErrClosed or ErrReadOnly.
func (c *Committer) Begin(ctx context.Context, sizeBytes int) (*Txn, error) {
	c.mu.Lock()
	err := c.refusalLocked()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	n := min(max(int64(sizeBytes), 1), c.o.AdmissionBytes)
	if !c.admission.TryAcquire(n) { // ctx is looked at by those who wait only
		if err := c.admission.Acquire(ctx, n); err != nil {
			return nil, err
		}
	}
	t := c.txns.Get().(*Txn)
	t.c, t.ctx, t.admitted = c, ctx, n
	return t, nil
}

func (c *Committer) refusalLocked() error {
	if c.mu.failure != nil {
		return fmt.Errorf("%w: %w", ErrReadOnly, c.mu.failure)
	}
	if c.mu.closing {
		return ErrClosed
	}
	return nil
}

// Failure returns why the committer takes no more writes, nil when it does.
func (c *Committer) Failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.failure
}

// Fail makes the committer refuse everything from now on: a device that
// failed a sync can't be trusted to have kept what was written before
// it. Transactions under way end with ErrOutcomeUnknown.
func (c *Committer) Fail(cause error) {
	c.mu.Lock()
	if c.mu.failure == nil {
		c.mu.failure = cause
	}
	line := c.mu.line
	c.mu.line = nil
	c.mu.Unlock()
	for _, t := range line {
		t.ready <- fmt.Errorf("%w: %w", ErrReadOnly, cause)
	}
	c.deadSet.Do(func() { close(c.dead) })
	c.kick()
}

// Do runs fn in the committer's goroutine between two groups and returns
// when it has run. ErrClosed means that it has not.
func (c *Committer) Do(fn func()) error {
	done := make(chan struct{})
	select {
	case c.tasks <- func() { defer close(done); fn() }:
	case <-c.stopped:
		return ErrClosed
	case <-c.dead:
		return ErrReadOnly
	}
	select {
	case <-done:
		return nil
	case <-c.dead:
		return ErrReadOnly
	}
}

// Close commits what is under way and stops. Transactions that have not
// joined a group fail with ErrClosed.
func (c *Committer) Close() {
	c.mu.Lock()
	c.mu.closing = true
	c.mu.Unlock()
	c.kick()
	select {
	case <-c.stopped:
	case <-c.dead:
	}
}

// run is the committer's goroutine.
func (c *Committer) run() {
	defer close(c.stopped)
	// Pebble ends its caller's goroutine through Logger.Fatalf, or panics,
	// when the device fails under it.
	finished := false
	defer func() {
		r := recover()
		if finished {
			return
		}
		if err, ok := r.(runtime.Error); ok {
			panic(err)
		}
		if s, ok := r.(string); ok {
			panic(s)
		}
		c.Fail(fmt.Errorf("storage engine stopped: %v", r))
	}()
	for {
		g := c.take()
		if g == nil {
			finished = true
			return
		}
		c.commit(g)
		c.afterGroup()
	}
}

// take waits until the open group is worth a sync and closes it to newcomers.
// It returns nil when the committer is closing and nothing is left.
func (c *Committer) take() *group {
	c.mu.Lock()
	for c.mu.open.ops == 0 {
		if c.mu.failure != nil || (c.mu.closing && c.mu.open.writers == 0 && len(c.mu.line) == 0) {
			c.mu.Unlock()
			return nil
		}
		c.mu.wakeAt = 1
		c.mu.Unlock()
		c.idle()
		c.mu.Lock()
	}
	c.lingerLocked()
	c.mu.wakeAt = 0
	g := c.mu.open
	c.mu.open = c.newGroupLocked()
	c.admitLineLocked()
	for g.writers > 0 {
		c.mu.Unlock()
		<-c.kicked
		c.mu.Lock()
	}
	c.mu.Unlock()
	return g
}

// idle waits for a transaction, a task, or the open epoch's age.
func (c *Committer) idle() {
	var age <-chan time.Time
	if wait, ok := c.epoch.remaining(c.o.EpochAge()); ok {
		c.timer.Reset(wait)
		defer c.timer.Stop()
		age = c.timer.C
	}
	select {
	case <-c.kicked:
	case fn := <-c.tasks:
		fn()
	case <-age:
		c.closeEpoch()
	}
}

// lingerLocked waits for the other half of the clients when syncs are slow:
// without it they fall into two cohorts that take turns, and every sync
// carries half of what it could. On fast media it does nothing.
func (c *Committer) lingerLocked() {
	if c.ewma < time.Millisecond {
		return
	}
	c.timer.Reset(min(c.ewma/2, 5*time.Millisecond))
	defer c.timer.Stop()
	for c.mu.open.ops < c.expected && c.mu.open.bytes < c.o.GroupBytes && len(c.mu.line) == 0 && !c.mu.closing {
		c.mu.wakeAt = c.expected
		c.mu.Unlock()
		late := false
		select {
		case <-c.kicked:
		case <-c.timer.C:
			late = true
		}
		c.mu.Lock()
		if late {
			return
		}
	}
}

// commit writes one group and lets its transactions go.
func (c *Committer) commit(g *group) {
	start := time.Now()
	err := c.write(g)
	took := time.Since(start)
	c.mu.Lock()
	// Taken before anybody is let go: the clients just served and those that
	// wait already are the real concurrency.
	c.expected = g.ops + c.mu.open.ops
	c.mu.Unlock()
	c.ewma = c.ewma*7/8 + took/8
	c.stats.group(g, took, c.ewma)
	if err != nil {
		g.err = fmt.Errorf("commit: %w: %w", ErrOutcomeUnknown, err)
		c.Fail(err)
	} else {
		c.publish()
	}
	refs := g.refs
	close(g.done)
	if refs == 0 {
		c.recycle(g)
	}
	// Else one writer, this goroutine and the log's wake one another in turns on one
	// processor, and while the others are busy (with a flush, say) a reader at the tip
	// waits for the ten milliseconds of a time slice.
	runtime.Gosched()
}

// write encodes the group into one batch and syncs it.
func (c *Committer) write(g *group) error {
	if err := c.Failure(); err != nil {
		return err
	}
	c.makeRoom(g)
	c.stamp = c.clock.Now()
	g.stamp = c.stamp
	c.batch = c.db.NewBatchWithSize(256<<10, c.retain)
	began := time.Now()
	err := c.encode(g)
	c.load.encoded(began, time.Now())
	if err != nil {
		return errors.Join(err, c.batch.Close())
	}
	if c.batch.Empty() {
		return c.batch.Close()
	}
	c.epoch.bytes += int64(c.batch.Len()) + int64(c.batch.Count())*entryOverhead
	c.stats.batch.Add(uint64(c.batch.Len()))
	if err := c.db.ApplyNoSyncWait(c.batch, pebble.Sync); err != nil {
		return err
	}
	if err := c.batch.SyncWait(); err != nil {
		return err
	}
	c.epoch.rowsWritten(c.dir)
	return c.batch.Close()
}

// publish makes what was written visible to readers.
func (c *Committer) publish() {
	for i := range c.written {
		w := &c.written[i]
		c.epoch.add(w)
		w.log.maxMS = w.run.EndMS
		w.log.arrival.Store(c.stamp.ArrivalMS)
		w.log.taken.Add(uint64(w.run.Count))
		w.log.watermark.Store(w.run.Last)
		w.log.broadcast()
	}
}

// afterGroup does between groups what would delay acknowledgements.
func (c *Committer) afterGroup() {
	clear(c.touched)
	c.touched, c.written, c.applied = c.touched[:0], c.written[:0], c.applied[:0]
	if c.Failure() != nil {
		return
	}
	if c.epoch.full() || c.epoch.tooOld(c.o.EpochAge()) {
		c.closeEpoch()
	}
	if s := c.clock.takeShift(); s != 0 {
		c.closeEpoch()
		c.o.OnLearnt(c.epoch.number-1, s)
	}
	select {
	case fn := <-c.tasks:
		fn()
	default:
	}
}
