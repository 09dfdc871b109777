package consume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
)

// How long a worker waits after an error, doubling from the first to the last.
const (
	firstBackoff = time.Second
	lastBackoff  = 5 * time.Minute
)

// worker is one consumer on one shard.
type worker struct {
	e         *Engine
	k         shardKey
	stream    *storage.Stream
	shardName string
	cancel    context.CancelFunc

	version *module.Version
	guest   *guest.Guest // nil while it rests
	release func()
	ticks   bool      // the module exports weir_tick
	worked  time.Time // when the instance was needed last
	reader  *storage.Reader
	state   *state
	group   group
	at      checkpoint // as it will be with the group
	lease   lease
	leased  []byte // the lease row as stored
	letters *storage.Stream
	stored  checkpoint // as it is
	shadow  *shadow    // nil: none

	// of the running batch
	batch  guest.Batch
	copied []byte // keys and data of batch.Records
	report transform.Report
	failed []uint64  // indexes of the records that failed for good
	until  time.Time // when a shadow gives the batch up; zero for the active version

	mu struct {
		sync.Mutex
		status  ShardStatus
		resumed chan struct{}
	}
}

var (
	// errVersion ends a worker's tenure because another version is active.
	errVersion = errors.New("another version is active")
	// errFinished ends a worker because its shard is handled to its end.
	errFinished = errors.New("shard is finished")
	// errHalted ends a tenure until someone resumes it.
	errHalted = errors.New("halted")
	// errOutput is a stream of the manifest's outputs that isn't there.
	errOutput = errors.New("output stream does not exist")
)

// surrender gives the lease back, as well as it can: without it the shard waits
// until the lease runs out.
func (w *worker) surrender() {
	if w.leased == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	t, err := w.e.o.Store.Begin(ctx, 512)
	if err != nil {
		return
	}
	defer t.Release()
	free := w.lease
	free.UntilMS = 0
	t.Expect(storage.TableLease, w.k.row(), w.leased)
	t.Put(storage.TableLease, w.k.row(), encode(free))
	if err := t.Commit(ctx); err != nil {
		w.e.o.Logger.Warn("consumer lease not given back", "consumer", w.k.consumer, "shard", w.shardName, "error", err)
	}
}

// run has tenures until the shard is finished or ctx ends.
func (w *worker) run(ctx context.Context) {
	defer w.surrender()
	pause := firstBackoff
	for ctx.Err() == nil {
		commits := w.at.Commits
		err := w.tenure(ctx)
		w.close()
		w.report, w.failed = transform.Report{}, w.failed[:0] // of what is not committed and is run again
		switch {
		case errors.Is(err, errFinished):
			return
		case ctx.Err() != nil, errors.Is(err, errVersion):
			continue
		case errors.Is(err, storage.ErrClosed), errors.Is(err, storage.ErrStreamNotFound), errors.Is(err, storage.ErrShardNotFound):
			return
		case errors.Is(err, module.ErrNotFound), errors.Is(err, module.ErrNoVersion):
			w.sleep(ctx, firstBackoff) // switched off: the engine is about to end this worker
			continue
		case errors.Is(err, errHalted):
			w.e.o.Logger.Error("consumer halted", "consumer", w.k.consumer, "stream", w.stream.Name(), "shard", w.shardName, "error", err)
			w.setStatus(Halted, err.Error())
			w.waitResume(ctx)
			continue
		}
		if w.at.Commits != commits || errors.Is(err, errOutput) {
			pause = firstBackoff
		}
		w.e.o.Logger.Error("consumer stopped", "consumer", w.k.consumer, "stream", w.stream.Name(), "shard", w.shardName, "again_in", pause, "error", err)
		w.setStatus(Backing, err.Error())
		w.sleep(ctx, pause)
		pause = min(2*pause, lastBackoff)
	}
}

func (w *worker) sleep(ctx context.Context, d time.Duration) {
	changed := w.e.o.Modules.Changed()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed: // perhaps what was wrong is mended
	case <-ctx.Done():
	}
}

func (w *worker) waitResume(ctx context.Context) {
	w.mu.Lock()
	resumed := make(chan struct{})
	w.mu.resumed = resumed
	w.mu.Unlock()
	version := w.version
	for {
		changed := w.e.o.Modules.Changed()
		if v, err := w.e.o.Modules.Active(w.k.consumer); err != nil || v != version {
			return
		}
		select {
		case <-resumed:
			return
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (w *worker) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.resumed != nil {
		close(w.mu.resumed)
		w.mu.resumed = nil
	}
}

// tenure is one time of owning the shard: lease, state, instance; then batches until something
// ends it.
func (w *worker) tenure(ctx context.Context) error {
	v, err := w.e.o.Modules.Active(w.k.consumer)
	if err != nil {
		return err
	}
	w.version = v
	w.setStatus(Starting, "")
	if err := w.openStreams(ctx); err != nil {
		return err
	}
	if err := w.acquire(ctx); err != nil {
		return err
	}
	if err := w.restore(ctx); err != nil {
		return err
	}
	from := storage.Position{Kind: storage.AtIndex, Index: w.at.Next}
	if w.at.Next == 0 {
		from.Kind = storage.TrimHorizon
	}
	w.reader, err = w.stream.NewReader(w.k.shard, from)
	if err != nil {
		return err
	}
	if err := w.wake(ctx); err != nil {
		return err
	}
	if w.at.StateVersion < w.version.Manifest.StateVersion {
		if err := w.migrate(ctx); err != nil {
			return err
		}
	}
	for {
		if err := w.round(ctx); err != nil {
			return err
		}
	}
}

// openStreams finds the streams the module writes to and makes the one for
// dead letters.
func (w *worker) openStreams(ctx context.Context) error {
	m := w.version.Manifest
	w.group = group{fallback: []byte(w.shardName), check: checkRequest(w.version.HTTP()), room: w.e.outboxRows}
	for _, name := range m.Outputs {
		st, err := w.e.o.Store.Stream(name)
		if err != nil {
			return fmt.Errorf("%w: %s", errOutput, name)
		}
		w.group.outputs = append(w.group.outputs, st)
	}
	w.letters = nil
	if m.OnError.Then != manifest.DeadLetter && len(m.Capabilities.Hosts) == 0 {
		return nil
	}
	st, err := w.e.deadLetters(ctx, m.OnError.DeadLetter)
	w.letters = st
	return err
}

// deadLetters returns a dead-letter stream, making it when it isn't there: a
// stream as any other, so that whatever reads streams reads it. It keeps letters for a
// week, and takes the largest that a stream can.
func (e *Engine) deadLetters(ctx context.Context, name string) (*storage.Stream, error) {
	st, err := e.o.Store.Stream(name)
	if !errors.Is(err, storage.ErrStreamNotFound) {
		return st, err
	}
	st, err = e.o.Store.CreateStream(ctx, storage.StreamConfig{Name: name, Shards: 1, Retention: 7 * 24 * time.Hour, MaxRecordBytes: record.MaxDataBytes})
	if errors.Is(err, storage.ErrStreamExists) {
		st, err = e.o.Store.Stream(name)
	}
	if err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	return st, nil
}

// acquire takes the shard's lease with a new fence. Leases of other lives of
// this store are void: only one process at a time has it open.
func (w *worker) acquire(ctx context.Context) error {
	var old lease
	raw, ok, err := get(w.e.o.Store, storage.TableLease, w.k.row(), &old)
	if err != nil {
		return err
	}
	now := w.e.o.Now()
	if ok && old.Owner == w.e.owner && old.UntilMS > now.UnixMilli() && w.lease.Fence != old.Fence {
		return fmt.Errorf("lease of %s is held until %s", w.shardName, time.UnixMilli(old.UntilMS).UTC().Format(time.RFC3339))
	}
	w.lease = lease{Owner: w.e.owner, Fence: old.Fence + 1, UntilMS: now.Add(w.e.o.Lease).UnixMilli()}
	t, err := w.e.o.Store.Begin(ctx, 512)
	if err != nil {
		return err
	}
	defer t.Release()
	if !ok {
		raw = nil
	}
	row := encode(w.lease)
	t.Expect(storage.TableLease, w.k.row(), raw)
	t.Put(storage.TableLease, w.k.row(), row)
	if err := t.Commit(ctx); err != nil {
		return fmt.Errorf("take lease: %w", err)
	}
	w.leased = row
	return nil
}

// restore reads the checkpoint, taking over the parents' state before the first.
func (w *worker) restore(ctx context.Context) error {
	w.at = checkpoint{StateVersion: w.version.Manifest.StateVersion}
	if _, _, err := get(w.e.o.Store, storage.TableCheckpoint, w.k.row(), &w.at); err != nil {
		return err
	}
	if !w.at.Started {
		if err := w.inherit(ctx); err != nil {
			return fmt.Errorf("take over state: %w", err)
		}
	}
	w.stored = w.at
	w.state = newState(w.e.o.Store, w.k, &w.at, w.version.Limits.StateBytes)
	w.group.waiting = w.group.room
	return w.countOutbox()
}

// countOutbox counts the requests that wait to be sent: the sender takes them
// away without a word to the worker. Half full is early enough.
func (w *worker) countOutbox() error {
	if w.group.waiting < w.group.room/2 {
		return nil
	}
	waiting := 0
	err := w.e.o.Store.Scan(storage.TableOutbox, w.k.name(), nil, w.group.room, func(_, _ []byte) bool {
		waiting++
		return true
	})
	if err == nil {
		w.group.waiting = waiting
	}
	return err
}

// instance makes the module's instance for this shard, in the place of a worn one.
func (w *worker) instance(ctx context.Context) error {
	if w.guest != nil { // its code stays for the next, which would load it again
		if unload, err := w.version.Hold(ctx); err == nil {
			defer unload()
		}
	}
	w.dropInstance()
	m := w.version.Manifest
	s := guest.Services{}
	if m.Capabilities.State {
		s.State = w.state
	}
	if m.Capabilities.Emit {
		s.Emit = &w.group
	}
	if len(m.Capabilities.Hosts) > 0 {
		s.Outbox = &w.group
	}
	g, release, err := w.version.Instantiate(ctx, s)
	if err != nil {
		w.e.o.Modules.Judge(w.version, transform.Report{Err: err})
		return fmt.Errorf("start %s %s: %w", m.Name, m.Version, err)
	}
	w.guest, w.release, w.ticks = g, release, g.HasTick()
	return nil
}

// wake makes an instance if there is none, because a batch or a tick needs it.
func (w *worker) wake(ctx context.Context) error {
	w.worked = time.Now()
	if w.guest != nil {
		return nil
	}
	return w.instance(ctx)
}

func (w *worker) dropInstance() {
	if w.release != nil {
		w.release()
		w.guest, w.release = nil, nil
	}
}

// close ends a tenure.
func (w *worker) close() {
	w.dropInstance()
	w.dropShadow()
	if w.reader != nil {
		w.reader.Close()
		w.reader = nil
	}
}

// migrate lets the module bring its state up to its version, and commits that
// by itself.
func (w *worker) migrate(ctx context.Context) error {
	w.state.begin()
	w.group.begin(nil)
	err := w.guest.Migrate(ctx, w.at.StateVersion, w.e.o.Now().UnixMilli())
	if err != nil {
		w.state.rollback()
		w.group.rollback()
		w.e.o.Modules.Judge(w.version, transform.Report{Err: err})
		return err
	}
	w.at.StateVersion = w.version.Manifest.StateVersion
	return w.commit(ctx)
}

// round reads and runs batches until a group is worth committing, and commits
// it; with nothing to do it waits.
func (w *worker) round(ctx context.Context) error {
	if err := w.gather(ctx); err != nil {
		return err
	}
	// Asked after the wait: what begins now runs the version that is active now.
	if v, err := w.e.o.Modules.Active(w.k.consumer); err != nil || v != w.version {
		return errVersion
	}
	if err := w.countOutbox(); err != nil {
		return err
	}
	w.followShadow()
	w.setStatus(Running, "")
	for {
		n, err := w.read()
		if err == io.EOF {
			w.at.Done = true
			return w.finish(ctx)
		}
		if err != nil {
			return err
		}
		if n > 0 {
			if err := w.wake(ctx); err != nil {
				return err
			}
			if err := w.compared(ctx, n, func(w *worker) error { return w.process(ctx, 0, n, 0) }); err != nil {
				return err
			}
			w.at.Next = w.reader.Position()
		}
		if err := w.tick(ctx); err != nil {
			return err
		}
		if n == 0 || w.group.count >= groupRecords || w.group.size()+w.state.size() >= groupBytes {
			return w.commit(ctx)
		}
	}
}

// finish commits the last of a closed shard and wakes its children.
func (w *worker) finish(ctx context.Context) error {
	if err := w.commit(ctx); err != nil {
		return err
	}
	return errFinished
}

// gather waits until there are records for a batch, or the first of them has
// waited long enough, or a tick is due, or the lease must be renewed.
func (w *worker) gather(ctx context.Context) error {
	m := w.version.Manifest
	deadline := time.UnixMilli(w.lease.UntilMS).Add(-w.e.o.Lease * 2 / 3)
	if due, ok := w.tickDue(); ok && due.Before(deadline) {
		deadline = due
	}
	lag, _, _ := w.reader.Lag()
	if lag == 0 {
		w.setStatus(Waiting, "")
		rest := w.e.o.Now().Add(w.e.o.Rest - time.Since(w.worked))
		if w.guest != nil && w.shadow == nil && rest.Before(deadline) {
			if err := w.waitRecords(ctx, rest); err != nil {
				return err
			}
			if lag, _, _ = w.reader.Lag(); lag == 0 && time.Since(w.worked) >= w.e.o.Rest {
				w.dropInstance()
			}
		} else if err := w.waitRecords(ctx, deadline); err != nil {
			return err
		}
		lag, _, _ = w.reader.Lag()
	}
	if lag == 0 || lag >= uint64(m.Batch.Records) || m.Batch.Wait <= 0 {
		return nil
	}
	// Records are here, but not yet a batch of them.
	until := w.e.o.Now().Add(m.Batch.Wait)
	if until.After(deadline) {
		until = deadline
	}
	for lag < uint64(m.Batch.Records) && w.e.o.Now().Before(until) {
		step := max(min(m.Batch.Wait/8, until.Sub(w.e.o.Now())), time.Millisecond)
		timer := time.NewTimer(step)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		lag, _, _ = w.reader.Lag()
	}
	return nil
}

// waitRecords returns when there may be something to read, at the deadline, or
// when the catalogue has changed.
func (w *worker) waitRecords(ctx context.Context, deadline time.Time) error {
	wait, cancel := context.WithDeadline(ctx, time.Now().Add(deadline.Sub(w.e.o.Now())))
	defer cancel()
	changed := w.e.o.Modules.Changed()
	go func() { // ends with wait, which ends with this call
		select {
		case <-changed:
			cancel()
		case <-wait.Done():
		}
	}()
	err := w.reader.Wait(wait)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return nil
	}
	return err
}

// read fills w.batch with the next records, copied out of the reader's block.
func (w *worker) read() (int, error) {
	m := w.version.Manifest
	w.batch = guest.Batch{Stream: w.stream.Name(), Shard: uint32(w.k.shard), Records: w.batch.Records[:0]}
	w.copied = w.copied[:0]
	n, err := w.reader.Read(m.Batch.Records, int(m.Batch.Bytes), func(r *record.Record) bool {
		from := len(w.copied)
		w.copied = append(append(w.copied, r.PartitionKey...), r.Data...)
		mid := from + len(r.PartitionKey)
		w.batch.Records = append(w.batch.Records, guest.Record{
			Key: w.copied[from:mid:mid], Data: w.copied[mid:], ArrivalMS: r.Arrival.UnixMilli(), Index: r.Index,
		})
		return true
	})
	for _, g := range w.reader.Skipped() {
		w.e.o.Logger.Warn("consumer missed records that are gone", "consumer", w.k.consumer, "stream", w.stream.Name(), "shard", w.shardName, "first", g.First, "last", g.Last)
	}
	if err != nil {
		return 0, err
	}
	// Growing moved the bytes: cut the records out again.
	at := 0
	for i := range w.batch.Records {
		r := &w.batch.Records[i]
		k, d := len(r.Key), len(r.Data)
		r.Key, r.Data = w.copied[at:at+k:at+k], w.copied[at+k:at+k+d:at+k+d]
		at += k + d
	}
	if info, err := w.stream.Shard(w.k.shard); err == nil && !info.Open() && w.reader.Position() > info.Last {
		w.batch.Flags = abi.FlagLast
	}
	return n, nil
}

// tickDue is when weir_tick is to be called next; false without ticks.
func (w *worker) tickDue() (time.Time, bool) {
	every := w.version.Manifest.Tick
	if every <= 0 || !w.ticks {
		return time.Time{}, false
	}
	last := time.UnixMilli(w.at.TickMS)
	if now := w.e.o.Now(); last.After(now.Add(every)) {
		return now, true // of a start whose clock was ahead: a box without a battery may be in 1970 again
	}
	return last.Add(every), true
}

func (w *worker) setStatus(s State, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := &w.mu.status
	*st = ShardStatus{
		Consumer: w.k.consumer, Stream: w.stream.Name(), Shard: w.shardName, State: s, Reason: reason,
		Next: w.at.Next, Commits: w.at.Commits, StateBytes: w.at.StateBytes, StateEntries: w.at.StateEntries, Fence: w.lease.Fence,
	}
	if w.version != nil {
		st.Version = w.version.Manifest.Version
	}
	if w.reader != nil {
		st.LagRecords, st.LagBytes, st.LagAge = w.reader.Lag()
	} else if i, err := w.stream.Shard(w.k.shard); err == nil && max(w.stored.Next, i.First) <= i.Last {
		st.LagRecords = i.Last - max(w.stored.Next, i.First) + 1 // between tenures: all that is not committed
	}
	if w.version != nil && w.version.Manifest.OnError.Then == manifest.DeadLetter {
		st.DeadLetters = w.version.Manifest.OnError.DeadLetter
	}
}

func (w *worker) snapshot() ShardStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.status
}
