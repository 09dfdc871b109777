package consume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/wasm/module"
)

// Options of an Engine.
type Options struct {
	Store   *storage.Store
	Modules *module.Catalog
	// Lease is how long a shard stays leased without a renewal; a third of it
	// passes between renewals of an idle shard, each a small write. Default 5 min.
	Lease time.Duration
	// Rest is how long after its last batch or tick a consumer's instance and
	// compiled code are freed until the next one. Default module.DefaultRest.
	Rest time.Duration
	// Poll is how often streams are looked at for new shards. Default 500 ms.
	Poll   time.Duration
	Now    func() time.Time
	Logger *slog.Logger
}

// Engine runs the active consumer modules of a catalogue.
type Engine struct {
	o     Options
	owner string // of the leases of this engine's life
	wake  chan struct{}

	outboxRows int
	streams    map[uint32]bool // there were when reconcile looked last

	shadowBatch, shadowHead time.Duration

	mu struct {
		sync.Mutex
		workers map[shardKey]*worker
		done    map[shardKey]bool // shards handled to their end
		senders map[string]*sender
	}
	running sync.WaitGroup
}

// New returns an engine. Nothing runs before Run.
func New(o Options) *Engine {
	if o.Lease <= 0 {
		o.Lease = 5 * time.Minute
	}
	if o.Poll <= 0 {
		o.Poll = 500 * time.Millisecond
	}
	if o.Rest <= 0 {
		o.Rest = module.DefaultRest
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // documented never to fail
	e := &Engine{o: o, owner: hex.EncodeToString(id), wake: make(chan struct{}, 1), outboxRows: outboxRows, shadowBatch: shadowBatch, shadowHead: shadowHead}
	e.mu.workers, e.mu.done, e.mu.senders = map[shardKey]*worker{}, map[shardKey]bool{}, map[string]*sender{}
	return e
}

// Run runs consumers until ctx ends, then waits for their workers, which give
// their leases back. What a worker hadn't committed is run again next time.
func (e *Engine) Run(ctx context.Context) error {
	defer e.running.Wait()
	for {
		changed := e.o.Modules.Changed()
		e.reconcile(ctx)
		timer := time.NewTimer(e.o.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-e.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// poke makes Run look at what is to be done now.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// reconcile starts workers for shards that should have one and stops the others.
func (e *Engine) reconcile(ctx context.Context) {
	if err := e.forgetDeleted(ctx); err != nil && ctx.Err() == nil {
		e.o.Logger.Error("consumers", "error", err)
	}
	want := map[shardKey]*storage.Stream{}
	consumers := map[string]*module.Version{}
	for _, v := range e.o.Modules.Consumers() {
		consumers[v.Manifest.Name] = v
		for _, name := range v.Manifest.Inputs {
			st, err := e.o.Store.Stream(name)
			if err != nil {
				continue // not made yet; Status says so
			}
			if err := e.eligible(ctx, v, st, want); err != nil {
				e.o.Logger.Error("consumer: look at shards", "consumer", v.Manifest.Name, "stream", name, "error", err)
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, w := range e.mu.workers {
		if want[k] == nil {
			w.cancel()
		}
	}
	for k, st := range want {
		if e.mu.workers[k] == nil && ctx.Err() == nil {
			e.startLocked(ctx, k, st)
		}
	}
	e.sendersLocked(ctx, consumers)
}

// eligible adds the shards of a stream that a consumer may work on now: those
// whose parents it has finished.
func (e *Engine) eligible(ctx context.Context, v *module.Version, st *storage.Stream, want map[shardKey]*storage.Stream) error {
	name := v.Manifest.Name
	if err := e.first(ctx, v, st); err != nil {
		return err
	}
	shards := st.Shards()
	listed := map[record.ShardNumber]bool{}
	for _, s := range shards {
		listed[s.Number] = true
	}
	for _, s := range shards {
		k := shardKey{name, st.ID(), s.Number}
		done, err := e.finished(k)
		if err != nil {
			return err
		}
		ready := !done
		for _, p := range parents(s) {
			if ready && listed[p] {
				if ready, err = e.finished(shardKey{name, st.ID(), p}); err != nil {
					return err
				}
			}
		}
		if ready {
			want[k] = st
		}
	}
	return nil
}

func parents(s storage.ShardInfo) []record.ShardNumber {
	var out []record.ShardNumber
	if s.HasParent {
		out = append(out, s.Parent)
	}
	if s.HasAdjacentParent {
		out = append(out, s.AdjacentParent)
	}
	return out
}

// finished reports whether a consumer has handled a shard to its end.
func (e *Engine) finished(k shardKey) (bool, error) {
	e.mu.Lock()
	done := e.mu.done[k]
	e.mu.Unlock()
	if done {
		return true, nil
	}
	var c checkpoint
	_, _, err := get(e.o.Store, storage.TableCheckpoint, k.row(), &c)
	if err == nil && c.Done {
		e.mu.Lock()
		e.mu.done[k] = true
		e.mu.Unlock()
	}
	return c.Done, err
}

// first notes that a consumer begins on a stream. One that starts at the latest
// record gets its checkpoints now, so that it misses nothing that comes after.
func (e *Engine) first(ctx context.Context, v *module.Version, st *storage.Stream) error {
	key := shardKey{consumer: v.Manifest.Name, stream: st.ID()}.row()
	key = key[:len(key)-4]
	var row struct {
		StartedMS int64 `json:"started_ms"`
	}
	if _, ok, err := get(e.o.Store, storage.TableConsumer, key, &row); err != nil || ok {
		return err
	}
	t, err := e.o.Store.Begin(ctx, 4096)
	if err != nil {
		return err
	}
	defer t.Release()
	row.StartedMS = e.o.Now().UnixMilli()
	t.Put(storage.TableConsumer, key, encode(row))
	if v.Manifest.FromLatest {
		for _, s := range st.Shards() {
			c := checkpoint{Next: s.Last + 1, Started: true, Done: !s.Open(), StateVersion: v.Manifest.StateVersion}
			t.Put(storage.TableCheckpoint, shardKey{v.Manifest.Name, st.ID(), s.Number}.row(), encode(c))
		}
	}
	return t.Commit(ctx)
}

func (e *Engine) startLocked(ctx context.Context, k shardKey, st *storage.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{e: e, k: k, stream: st, cancel: cancel}
	w.shardName = k.shard.String()
	w.setStatus(Starting, "")
	e.mu.workers[k] = w
	e.running.Go(func() {
		defer cancel()
		w.run(ctx)
		e.mu.Lock()
		delete(e.mu.workers, k)
		e.mu.Unlock()
		e.poke()
	})
}

// State is what a worker is doing.
type State string

// The states of a worker.
const (
	Starting State = "starting"
	Running  State = "running"
	Waiting  State = "waiting"     // for records
	Backing  State = "backing off" // after an error; Reason says which
	Halted   State = "halted"      // a record failed and on_error is halt; see Resume
)

// ShardStatus is one consumer on one shard.
type ShardStatus struct {
	Consumer     string        `json:"consumer"`
	Version      string        `json:"version"`
	Stream       string        `json:"stream"`
	Shard        string        `json:"shard"`
	State        State         `json:"state"`
	Reason       string        `json:"reason,omitempty"`
	Next         uint64        `json:"next_index"`
	LagRecords   uint64        `json:"lag_records"`
	LagBytes     int64         `json:"lag_bytes"`
	LagAge       time.Duration `json:"lag_age_ns"`
	Commits      uint64        `json:"commits"`
	StateBytes   int64         `json:"state_bytes"`
	StateEntries int64         `json:"state_entries"`
	Fence        uint64        `json:"fence"`
	DeadLetters  string        `json:"dead_letters,omitempty"` // stream of the records that failed for good
}

// Status returns what every worker is doing, by consumer, stream and shard, and
// for inputs that don't exist a line that says so.
func (e *Engine) Status() []ShardStatus {
	e.mu.Lock()
	out := make([]ShardStatus, 0, len(e.mu.workers))
	for _, w := range e.mu.workers {
		out = append(out, w.snapshot())
	}
	e.mu.Unlock()
	for _, v := range e.o.Modules.Consumers() {
		for _, name := range v.Manifest.Inputs {
			if _, err := e.o.Store.Stream(name); err != nil {
				out = append(out, ShardStatus{Consumer: v.Manifest.Name, Version: v.Manifest.Version, Stream: name, State: Starting, Reason: err.Error()})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return a.Consumer+"\x00"+a.Stream+"\x00"+a.Shard < b.Consumer+"\x00"+b.Stream+"\x00"+b.Shard
	})
	return out
}

// Resume makes the halted workers of a consumer try again: after whatever made
// the record fail has been mended.
func (e *Engine) Resume(consumer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, w := range e.mu.workers {
		if k.consumer == consumer {
			w.resume()
		}
	}
}

// ErrActive means that a consumer can't be forgotten while it is active.
var ErrActive = errors.New("consumer is active")

// Forget deletes everything kept for a consumer: checkpoints, state, outbox.
// The module itself stays in the catalogue. ErrActive while it is active or its
// workers have not ended.
func (e *Engine) Forget(ctx context.Context, consumer string) error {
	if v, err := e.o.Modules.Active(consumer); err == nil && v != nil {
		return fmt.Errorf("forget consumer %s: %w", consumer, ErrActive)
	}
	e.mu.Lock()
	for k := range e.mu.workers {
		if k.consumer == consumer {
			e.mu.Unlock()
			return fmt.Errorf("forget consumer %s: %w: it is still stopping", consumer, ErrActive)
		}
	}
	for k := range e.mu.done {
		if k.consumer == consumer {
			delete(e.mu.done, k)
		}
	}
	e.mu.Unlock()
	t, err := e.o.Store.Begin(ctx, 1024)
	if err != nil {
		return fmt.Errorf("forget consumer %s: %w", consumer, err)
	}
	defer t.Release()
	own := append([]byte(consumer), 0)
	shared := append([]byte("wasm/"), own...)
	t.DeletePrefix(storage.TableLease, shared)
	t.DeletePrefix(storage.TableCheckpoint, shared)
	t.DeletePrefix(storage.TableConsumer, shared)
	t.DeletePrefix(storage.TableModuleState, own)
	t.DeletePrefix(storage.TableOutbox, own)
	if err := t.Commit(ctx); err != nil {
		return fmt.Errorf("forget consumer %s: %w", consumer, err)
	}
	return nil
}
