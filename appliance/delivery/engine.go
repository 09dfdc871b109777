package delivery

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"

	"github.com/weirhq/weir/appliance/delivery/prefix"
)

// Options of an Engine. The zero value of everything but OpenSink is usable.
type Options struct {
	// MemoryBytes bounds what all deliveries together hold while they make
	// objects. Default 32 MiB.
	MemoryBytes int64
	// Workers is how many goroutines may compress one object. Default: the
	// number of processors, at most 4.
	Workers int
	// MaxBackoff caps the pause between attempts. Default 5 minutes.
	MaxBackoff time.Duration
	// UplinkBytesPerSecond caps all metered sinks together. 0: no cap.
	UplinkBytesPerSecond int64
	// KeepManifest is how many recipes per delivery stream Where can tell
	// about. Default 10,000.
	KeepManifest uint64
	// OpenSink opens the sink that a target names. It must not do I/O.
	OpenSink func(t Target) (Sink, error)
	// Transforms finds a module's version by digest; "" is the active one.
	Transforms func(module, digest string) (Transformer, error)
	Clock      Clock
	Logger     *slog.Logger
}

// The errors callers branch on. They arrive wrapped.
var (
	// ErrNotFound means that there is no delivery stream of that name.
	ErrNotFound = errors.New("delivery stream not found")
	// ErrExists means that the name is taken.
	ErrExists = errors.New("delivery stream exists")
	// ErrVersion means that the definition has changed since it was read.
	ErrVersion = errors.New("delivery stream has another version")
	// ErrInvalid means that a definition can't be used; the text says why.
	ErrInvalid = errors.New("invalid delivery stream")
)

// Engine owns the delivery streams of a store. It is safe for concurrent use.
type Engine struct {
	store   *storage.Store
	options Options
	clock   Clock
	log     *slog.Logger
	memory  *memory
	arenas  *arenas
	link    *link
	changes sync.Mutex // one Create, Update or Delete at a time

	mu struct {
		sync.Mutex
		workers map[string]*worker
		ctx     context.Context // of Run; nil before and after
		running sync.WaitGroup
	}
}

// New reads the definitions in store. Nothing is delivered before Run.
func New(store *storage.Store, o Options) (*Engine, error) {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemoryBytes
	}
	if o.Workers == 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 5 * time.Minute
	}
	if o.KeepManifest == 0 {
		o.KeepManifest = 10_000
	}
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Transforms == nil {
		o.Transforms = func(module, _ string) (Transformer, error) {
			return nil, fmt.Errorf("module %q: no modules are configured", module)
		}
	}
	e := &Engine{
		store: store, options: o, clock: o.Clock, log: o.Logger, memory: newMemory(o.MemoryBytes),
		arenas: newArenas(), link: newLink(o.Clock, o.UplinkBytesPerSecond),
	}
	e.mu.workers = map[string]*worker{}
	return e, e.loadAll()
}

// loadAll makes a worker for each definition. One that can't be read is set
// aside, with all else that is kept of its stream, and costs the others nothing.
func (e *Engine) loadAll() error {
	unreadable := map[string][]byte{}
	err := e.store.Scan(storage.TableDelivery, []byte{'d'}, nil, 0, func(key, value []byte) bool {
		name := string(key[1:])
		var d definition
		err := json.Unmarshal(value, &d)
		if err == nil && d.Config.Name != name {
			err = fmt.Errorf("it is that of %q", d.Config.Name)
		}
		if err != nil {
			e.log.Error("a delivery stream's definition can't be read and is set aside: its records stay, nothing is delivered; create it again", "delivery", name, "cause", err)
			unreadable[name] = bytes.Clone(value)
			return true
		}
		e.mu.workers[name] = e.newWorker(d)
		return true
	})
	if err != nil || len(unreadable) == 0 {
		return err
	}
	return e.setAside(unreadable)
}

// setAside moves definitions out of the way of new ones of their names.
func (e *Engine) setAside(definitions map[string][]byte) error {
	txn, err := e.store.Begin(context.Background(), 4096)
	if err != nil {
		e.log.Warn("definitions that can't be read stay where they are", "cause", err)
		return nil // a store that takes no writes still delivers what it has
	}
	for name, raw := range definitions {
		txn.Delete(storage.TableDelivery, definitionKey(name))
		txn.Put(storage.TableDelivery, asideKey(name), raw)
	}
	return commit(context.Background(), txn)
}

func (e *Engine) newWorker(d definition) *worker {
	w := &worker{
		engine: e, log: e.log.With("delivery", d.Config.Name), turn: make(chan struct{}, 1),
		budget: make(chan budget, 1), flush: make(chan struct{}, 1), flushLive: make(chan struct{}, 1), retry: make(chan struct{}, 1),
	}
	w.turn <- struct{}{}
	w.mu.def = d
	w.mu.pending = map[uint64]*Recipe{}
	w.mu.clear = map[uint64]bool{}
	var b budget
	if raw, err := e.store.Get(storage.TableThrottle, budgetKey(d.ID)); err == nil {
		if err := json.Unmarshal(raw, &b); err != nil {
			e.log.Warn("byte budget is unreadable and starts anew", "delivery", d.Config.Name, "error", err)
		}
		b.ahead = b.Bytes
	}
	w.giveBudget(b)
	if raw, err := e.store.Get(storage.TableDelivery, totalsKey(d.ID)); err == nil {
		var t totals
		if err := json.Unmarshal(raw, &t); err != nil {
			e.log.Warn("totals are unreadable and start anew", "delivery", d.Config.Name, "error", err)
		} else {
			w.stats.merge(&t)
		}
	}
	w.look(&d)
	return w
}

// look reads where the delivery stream stands, so that its lag is known before
// it runs, or when it can't.
func (w *worker) look(d *definition) {
	name := d.Config.Source.Stream
	if d.Config.Source.DirectPut {
		name = d.Buffer
	}
	stream, err := w.engine.store.Stream(name)
	if err == nil {
		_, _, err = w.load(d, stream)
	}
	if err != nil {
		w.log.Warn("delivery stream is not ready", "error", err)
	}
}

// Run delivers until ctx ends. It returns when everything in progress has
// stopped; what was not finished goes on with the next Run.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.mu.ctx = ctx
	for _, w := range e.mu.workers {
		e.startLocked(w)
	}
	e.mu.Unlock()
	<-ctx.Done()
	e.mu.Lock()
	e.mu.ctx = nil
	e.mu.Unlock()
	e.mu.running.Wait()
	return nil
}

func (e *Engine) startLocked(w *worker) {
	ctx, cancel := context.WithCancel(e.mu.ctx)
	w.mu.Lock()
	w.mu.cancel = cancel
	w.mu.Unlock()
	w.stopped = make(chan struct{})
	e.mu.running.Add(1)
	go func() {
		defer e.mu.running.Done()
		defer close(w.stopped)
		defer cancel()
		w.supervise(ctx)
	}()
}

// supervise runs the worker again and again: after a change at once, after
// trouble a little later.
func (w *worker) supervise(ctx context.Context) {
	for pause := time.Second; ctx.Err() == nil; {
		select {
		case <-w.turn:
		case <-ctx.Done():
			return
		}
		run, cancel := context.WithCancel(ctx)
		w.mu.Lock()
		w.mu.interrupt = cancel
		w.mu.Unlock()
		err := w.run(run)
		cancel()
		w.turn <- struct{}{}
		if err == nil {
			pause = time.Second
			continue
		}
		w.setWaiting(err.Error())
		w.log.Error("delivery stream can't work", "error", err, "retry", pause)
		select {
		case <-ctx.Done():
			return
		case <-w.engine.clock.After(pause):
		case <-w.retry:
		}
		pause = min(2*pause, time.Minute)
	}
}

// hold stops the worker's run and keeps it from starting until resume.
func (w *worker) hold(ctx context.Context) (resume func(), err error) {
	for {
		w.mu.Lock()
		if w.mu.interrupt != nil {
			w.mu.interrupt()
		}
		w.mu.Unlock()
		select {
		case <-w.turn:
			return func() {
				w.turn <- struct{}{}
				select {
				case w.retry <- struct{}{}:
				default:
				}
			}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (e *Engine) worker(name string) (*worker, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.mu.workers[name]
	if w == nil {
		return nil, fmt.Errorf("delivery %q: %w", name, ErrNotFound)
	}
	return w, nil
}

func (e *Engine) all() []*worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*worker, 0, len(e.mu.workers))
	for _, w := range e.mu.workers {
		out = append(out, w)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].definition().Config.Name < out[j].definition().Config.Name })
	return out
}

// bindings are the versions of a definition that are in use.
type bindings struct {
	current *binding
	older   map[int]*binding
}

func (b *bindings) close() {
	_ = b.current.close()
	for _, o := range b.older {
		_ = o.close()
	}
}

// module is the digest that a recipe sealed now names.
func (b *binding) module() string {
	if b.transform == nil {
		return ""
	}
	t, err := b.transform("")
	if err != nil {
		return "" // the attempt will say so, and go on when there is one
	}
	return t.Digest()
}

// bind opens what a configuration names. It does no I/O.
func (e *Engine) bind(d *definition, version int, c Config) (*binding, error) {
	b := &binding{version: version, config: c, zone: c.location()}
	name := c.Source.Stream
	if c.Source.DirectPut {
		name = d.Buffer
	}
	var err error
	if b.stream, err = e.store.Stream(name); err != nil {
		return nil, fmt.Errorf("delivery %s: source %q: %w", c.Name, name, err)
	}
	if b.data, err = prefix.Parse(c.Prefix, prefix.Data); err != nil {
		return nil, err
	}
	errorPrefix := c.ErrorPrefix
	if errorPrefix == "" {
		errorPrefix = c.Prefix // has no expressions: validated
	}
	if b.errors, err = prefix.Parse(errorPrefix, prefix.Error); err != nil {
		return nil, err
	}
	if c.Partition != nil && c.Partition.Query != "" {
		if b.query, err = compileQuery(c.Partition.Query); err != nil {
			return nil, err
		}
	}
	if c.Transform != nil {
		b.transform = func(digest string) (Transformer, error) { return e.options.Transforms(c.Transform.Module, digest) }
	}
	return b, e.bindSinks(b)
}

func (e *Engine) bindSinks(b *binding) error {
	c := &b.config
	var err error
	if b.sink, err = e.options.OpenSink(c.Sink); err != nil {
		return fmt.Errorf("%w: delivery %s: sink: %w", ErrInvalid, c.Name, err)
	}
	object := func(path string, t Target) (ObjectSink, error) {
		s, err := e.options.OpenSink(t)
		if err != nil {
			return nil, fmt.Errorf("%w: delivery %s: %s: %w", ErrInvalid, c.Name, path, err)
		}
		o, ok := s.(ObjectSink)
		if !ok {
			return nil, errors.Join(fmt.Errorf("%w: delivery %s: %s: it must be a sink that stores objects", ErrInvalid, c.Name, path), s.Close())
		}
		return o, nil
	}
	if c.Backup != nil {
		if b.backup, err = object("backup.sink", c.Backup.Sink); err != nil {
			return errors.Join(err, b.close())
		}
		if b.backups, err = prefix.Parse(c.Backup.Prefix, prefix.Data); err != nil {
			return errors.Join(err, b.close())
		}
	}
	if c.OnFailure != nil {
		if b.failure, err = object("on_failure.sink", c.OnFailure.Sink); err != nil {
			return errors.Join(err, b.close())
		}
		if b.failures, err = prefix.Parse(c.OnFailure.ErrorPrefix, prefix.Error); err != nil {
			return errors.Join(err, b.close())
		}
	}
	if c.ErrorSink != nil {
		if b.errorSink, err = object("error_sink", *c.ErrorSink); err != nil {
			return errors.Join(err, b.close())
		}
	}
	return b.fits()
}

// fits refuses options that the kind of sink has no use for.
func (b *binding) fits() error {
	c := &b.config
	refuse := func(path, why string) error {
		return errors.Join(fmt.Errorf("%w: delivery %s: %s: %s", ErrInvalid, c.Name, path, why), b.close())
	}
	if _, records := b.sink.(RecordSink); !records {
		if c.OnFailure != nil {
			return refuse("on_failure", "belongs to sinks that take records; this one stores objects, and is tried until it does")
		}
		return nil
	}
	switch {
	case c.ErrorSink != nil:
		return refuse("error_sink", "belongs to sinks that store objects; this one takes records: use on_failure")
	case c.Partition != nil:
		return refuse("partition", "the sink takes records, not objects")
	case c.Parquet != nil:
		return refuse("parquet", "the sink takes records, not objects")
	case c.Compression.Format != "" && c.Compression.Format != "UNCOMPRESSED":
		return refuse("compression", "the sink takes records; its own settings say how requests are encoded")
	case c.Uplink.LivePercent > 0:
		return refuse("uplink.live_percent", "records would reach the sink out of order")
	case c.OnFailure == nil && (c.Transform != nil || c.Decompress != nil || c.SubRecords != nil || c.Check != ""):
		return refuse("on_failure", "must be given: records that fail a stage need a place")
	}
	return nil
}

// openBindings opens the current version and those of sealed recipes.
func (w *worker) openBindings(d *definition) (*bindings, error) {
	current, err := w.engine.bind(d, d.Version, d.Config)
	if err != nil {
		return nil, err
	}
	out := &bindings{current: current, older: map[int]*binding{}}
	recipes, err := w.engine.recipes(d.ID)
	if err != nil {
		out.close()
		return nil, err
	}
	for _, r := range recipes {
		if r.Version == d.Version || out.older[r.Version] != nil {
			continue
		}
		raw, err := w.engine.store.Get(storage.TableDelivery, versionKey(d.ID, r.Version))
		if err != nil {
			out.close()
			return nil, fmt.Errorf("delivery %s: version %d, which recipe %d needs: %w", d.Config.Name, r.Version, r.Number, err)
		}
		var c Config
		if err := json.Unmarshal(raw, &c); err != nil {
			out.close()
			return nil, fmt.Errorf("delivery %s: version %d: %w", d.Config.Name, r.Version, err)
		}
		if out.older[r.Version], err = w.engine.bind(d, r.Version, c); err != nil {
			out.close()
			return nil, err
		}
	}
	return out, nil
}

// recipes reads the sealed recipes of a delivery stream, oldest first.
func (e *Engine) recipes(id uint64) ([]*Recipe, error) {
	var out []*Recipe
	var bad error
	err := e.store.Scan(storage.TableRecipe, recipePrefix(id), nil, 0, func(_, value []byte) bool {
		r := &Recipe{}
		if bad = json.Unmarshal(value, r); bad != nil {
			return false
		}
		out = append(out, r)
		return true
	})
	return out, errors.Join(err, bad)
}

// trimManifest removes what is beyond the newest recipes that are kept.
func (e *Engine) trimManifest(txn *storage.Txn, id, number uint64) error {
	if number <= e.options.KeepManifest {
		return nil
	}
	old := number - e.options.KeepManifest
	var bad error
	before := manifestKey(id, old, 0)
	err := e.store.Scan(storage.TableManifest, before[:len(before)-4], nil, 0, func(key, value []byte) bool {
		var m Manifest
		if bad = json.Unmarshal(value, &m); bad != nil {
			return false
		}
		txn.Delete(storage.TableManifest, slices.Clone(key))
		for _, g := range m.Ranges {
			txn.Delete(storage.TableManifest, rangeKey(id, g.Shard, g.Last))
		}
		return true
	})
	return errors.Join(err, bad)
}

// Create makes a delivery stream and starts it. It returns when the
// definition is durable; ErrExists, ErrInvalid and storage.ErrStreamNotFound
// mean that nothing was made.
func (e *Engine) Create(ctx context.Context, c Config) error {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := c.checkPatterns(&Config{}); err != nil {
		return err
	}
	e.changes.Lock()
	defer e.changes.Unlock()
	if _, err := e.worker(c.Name); err == nil {
		return fmt.Errorf("delivery %q: %w", c.Name, ErrExists)
	}
	now := e.clock.Now().UTC()
	d := definition{Version: 1, Created: now, Updated: now, Config: c, UID: newUID()}
	made, err := e.buffer(ctx, &d)
	if err != nil {
		return err
	}
	undo := func(err error) error {
		if made {
			err = errors.Join(err, e.store.DeleteStream(ctx, d.Buffer))
		}
		return err
	}
	b, err := e.bind(&d, 1, c)
	if err != nil {
		return undo(err)
	}
	cur := startCursor(b.stream, c.Source.Start)
	if err := b.close(); err != nil {
		return undo(err)
	}
	if err := e.saveNew(ctx, &d, cur); err != nil {
		return undo(err)
	}
	w := e.newWorker(d)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.workers[c.Name] = w
	if e.mu.ctx != nil {
		e.startLocked(w)
	}
	return nil
}

func newUID() string {
	var b [12]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// buffer makes the stream behind a DirectPut delivery stream. It has one
// shard, which has no quota, so there is nothing to scale by hand.
func (e *Engine) buffer(ctx context.Context, d *definition) (made bool, err error) {
	if !d.Config.Source.DirectPut {
		return false, nil
	}
	d.Buffer = "delivery/" + d.Config.Name
	_, err = e.store.CreateStream(ctx, storage.StreamConfig{
		Name: d.Buffer, Shards: 1, Mode: storage.OnDemand, Retention: time.Duration(d.Config.Source.Retention),
		MaxRecordBytes: MaxRecordBytes, System: true,
	})
	if errors.Is(err, storage.ErrStreamExists) {
		return false, nil // of a create that was cut short
	}
	if err != nil {
		return false, fmt.Errorf("delivery %s: buffer stream: %w", d.Config.Name, err)
	}
	return true, nil
}

// MaxRecordBytes is Firehose's limit of one record, before base64.
const MaxRecordBytes = 1_024_000

// startCursor stands where the first record will be taken from.
func startCursor(stream *storage.Stream, start Start) cursor {
	cur := cursor{Next: 1, Shards: map[record.ShardNumber]shardState{}}
	for _, info := range stream.Shards() {
		if start != Latest {
			if !info.HasParent {
				cur.Shards[info.Number] = shardState{Next: info.First}
			}
			continue
		}
		next := info.First
		if info.Last >= info.First {
			next = info.Last + 1
		}
		cur.Shards[info.Number] = shardState{Next: next, Done: !info.Open()}
	}
	return cur
}

func (e *Engine) saveNew(ctx context.Context, d *definition, cur cursor) error {
	last := uint64(0)
	raw, err := e.store.Get(storage.TableDelivery, idKey)
	if err == nil {
		last, err = strconv.ParseUint(string(raw), 10, 64)
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	d.ID = last + 1
	txn, err := e.store.Begin(ctx, 16<<10)
	if err != nil {
		return err
	}
	txn.Expect(storage.TableDelivery, definitionKey(d.Config.Name), nil)
	txn.Put(storage.TableDelivery, idKey, strconv.AppendUint(nil, d.ID, 10))
	txn.Put(storage.TableDelivery, definitionKey(d.Config.Name), mustJSON(d))
	txn.Put(storage.TableDelivery, versionKey(d.ID, d.Version), mustJSON(&d.Config))
	txn.Put(storage.TableDelivery, cursorKey(d.ID), mustJSON(&cur))
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("create delivery %s: %w", d.Config.Name, err)
	}
	return nil
}

// Update changes a delivery stream's configuration. version is the one that
// change was made for, 0 for whichever is current; ErrVersion means that it is
// not. The name and the source stay. Batches that are sealed, and may have
// been sent, still go where they were to go; everything after goes by the new
// configuration.
func (e *Engine) Update(ctx context.Context, name string, version int, change func(c *Config) error) error {
	e.changes.Lock()
	defer e.changes.Unlock()
	w, err := e.worker(name)
	if err != nil {
		return err
	}
	old := w.definition()
	if version != 0 && version != old.Version {
		return fmt.Errorf("delivery %s has version %d, not %d: %w", name, old.Version, version, ErrVersion)
	}
	next := old
	next.Config = Config{}                                                      // nothing of it may be shared with what is in use
	if err := json.Unmarshal(mustJSON(&old.Config), &next.Config); err != nil { // a deep copy
		return err
	}
	if err := change(&next.Config); err != nil {
		return err
	}
	next.Config = next.Config.withDefaults()
	if next.Config.Name != old.Config.Name || next.Config.Source != old.Config.Source {
		return fmt.Errorf("%w: delivery %s: the name and the source can't be changed", ErrInvalid, name)
	}
	if err := next.Config.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := next.Config.checkPatterns(&old.Config); err != nil {
		return err
	}
	next.Version++
	next.Updated = e.clock.Now().UTC()
	b, err := e.bind(&next, next.Version, next.Config)
	if err != nil {
		return err
	}
	if err := b.close(); err != nil {
		return err
	}
	resume, err := w.hold(ctx)
	if err != nil {
		return err
	}
	defer resume()
	return w.save(ctx, &old, &next)
}

// save makes a new version durable and moves the sealed recipes of which
// nothing can have been stored to it. The worker is held.
func (w *worker) save(ctx context.Context, old, next *definition) error {
	recipes, err := w.engine.recipes(old.ID)
	if err != nil {
		return err
	}
	used := map[int]bool{next.Version: true}
	txn, err := w.engine.store.Begin(ctx, 16<<10)
	if err != nil {
		return err
	}
	txn.Expect(storage.TableDelivery, definitionKey(old.Config.Name), mustJSON(old))
	txn.Put(storage.TableDelivery, definitionKey(old.Config.Name), mustJSON(next))
	txn.Put(storage.TableDelivery, versionKey(old.ID, next.Version), mustJSON(&next.Config))
	w.mu.Lock()
	for _, r := range recipes {
		if w.mu.clear[r.Number] {
			r.Version = next.Version
			txn.Put(storage.TableRecipe, recipeKey(old.ID, r.Number), mustJSON(r))
		}
		used[r.Version] = true
	}
	w.mu.Unlock()
	for v := max(1, old.Version-64); v <= old.Version; v++ {
		if !used[v] {
			txn.Delete(storage.TableDelivery, versionKey(old.ID, v))
		}
	}
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("update delivery %s: %w", old.Config.Name, err)
	}
	w.mu.Lock()
	w.mu.def = *next
	w.mu.circuit = circuit{}
	w.mu.waiting = ""
	if next.Config.Paused {
		w.mu.waiting = "paused"
	}
	w.mu.Unlock()
	return nil
}

// Delete stops a delivery stream and removes all that is kept of it. What it
// has delivered stays where it is; what it has not stays in a source stream,
// and is gone with the buffer of a DirectPut one.
func (e *Engine) Delete(ctx context.Context, name string) error {
	e.changes.Lock()
	defer e.changes.Unlock()
	w, err := e.worker(name)
	if err != nil {
		return err
	}
	resume, err := w.hold(ctx)
	if err != nil {
		return err
	}
	if err := e.forget(ctx, w); err != nil {
		resume() // it is there as before
		return err
	}
	w.mu.Lock()
	cancel := w.mu.cancel
	w.mu.Unlock()
	if cancel != nil {
		cancel()
		<-w.stopped
	}
	e.mu.Lock()
	delete(e.mu.workers, name)
	e.mu.Unlock()
	if d := w.definition(); d.Buffer != "" {
		if err := e.store.DeleteStream(ctx, d.Buffer); err != nil && !errors.Is(err, storage.ErrStreamNotFound) {
			return fmt.Errorf("delete delivery %s: buffer stream: %w", name, err)
		}
	}
	return nil
}

// forget deletes all that is kept of a delivery stream. Its worker is held.
func (e *Engine) forget(ctx context.Context, w *worker) error {
	d := w.definition()
	name := d.Config.Name
	txn, err := e.store.Begin(ctx, 4096)
	if err != nil {
		return fmt.Errorf("delete delivery %s: %w", name, err)
	}
	txn.Delete(storage.TableDelivery, definitionKey(name))
	txn.Delete(storage.TableDelivery, cursorKey(d.ID))
	txn.Delete(storage.TableDelivery, totalsKey(d.ID))
	txn.Delete(storage.TableThrottle, budgetKey(d.ID))
	txn.DeletePrefix(storage.TableDelivery, versionPrefix(d.ID))
	txn.DeletePrefix(storage.TableRecipe, recipePrefix(d.ID))
	txn.DeletePrefix(storage.TableManifest, manifestPrefix(d.ID))
	prefix := manifestPrefix(d.ID)
	prefix[0] = 'r'
	txn.DeletePrefix(storage.TableManifest, prefix)
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("delete delivery %s: %w", name, err)
	}
	return nil
}

// Buffer returns the stream that a DirectPut delivery stream takes records
// from, for the front end that puts them there. nil for one that reads
// another stream.
func (e *Engine) Buffer(name string) (*storage.Stream, error) {
	w, err := e.worker(name)
	if err != nil {
		return nil, err
	}
	d := w.definition()
	if d.Buffer == "" {
		return nil, nil
	}
	return e.store.Stream(d.Buffer)
}

// Pause keeps a delivery stream's place and sends nothing until Resume.
func (e *Engine) Pause(ctx context.Context, name string) error {
	return e.Update(ctx, name, 0, func(c *Config) error {
		c.Paused = true
		return nil
	})
}

// Resume undoes Pause.
func (e *Engine) Resume(ctx context.Context, name string) error {
	return e.Update(ctx, name, 0, func(c *Config) error {
		c.Paused = false
		return nil
	})
}

// Flush seals what a delivery stream has gathered, whatever its buffer hints
// say, and has a failing sink tried again at once.
func (e *Engine) Flush(name string) error {
	w, err := e.worker(name)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.healLocked()
	w.mu.Unlock()
	w.poke()
	return nil
}

// poke asks the lanes to seal what they have.
func (w *worker) poke() {
	for _, lane := range []chan struct{}{w.flush, w.flushLive} {
		select {
		case lane <- struct{}{}:
		default: // one is on its way
		}
	}
}

// Test probes the sinks of a delivery stream and tells what was found, by the
// path of the setting. A module that is not there is an error, too.
func (e *Engine) Test(ctx context.Context, name string) (map[string]Probed, error) {
	w, err := e.worker(name)
	if err != nil {
		return nil, err
	}
	d := w.definition()
	return e.probe(ctx, &d)
}

// TakesRecords says whether a target's sink is a RecordSink, to which compression and
// delimiters mean nothing.
func (e *Engine) TakesRecords(t Target) (bool, error) {
	s, err := e.options.OpenSink(t)
	if err != nil {
		return false, fmt.Errorf("%w: sink: %w", ErrInvalid, err)
	}
	_, records := s.(RecordSink)
	return records, s.Close()
}

func (e *Engine) probe(ctx context.Context, d *definition) (map[string]Probed, error) {
	b, err := e.bind(d, d.Version, d.Config)
	if err != nil {
		return nil, err
	}
	out := map[string]Probed{}
	var errs []error
	sinks := map[string]Sink{"sink": b.sink}
	if b.backup != nil {
		sinks["backup"] = b.backup
	}
	if b.failure != nil {
		sinks["on_failure"] = b.failure
	}
	if b.errorSink != nil {
		sinks["error_sink"] = b.errorSink
	}
	for path, s := range sinks {
		found, err := s.Probe(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		out[path] = found
	}
	if b.transform != nil {
		if _, err := b.transform(""); err != nil {
			errs = append(errs, fmt.Errorf("transform: %w", err))
		}
	}
	return out, errors.Join(append(errs, b.close())...)
}
