package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/weirhq/weir/storage"
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
	// calendar tells time of day and month: the store's time, which a clock that
	// was never set, or that jumped, does not move.
	calendar func() time.Time
	log      *slog.Logger
	memory   *memory
	arenas   *arenas
	link     *link
	changes  sync.Mutex // one Create, Update or Delete at a time

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
		store: store, options: o, clock: o.Clock, calendar: store.Now, log: o.Logger, memory: newMemory(o.MemoryBytes),
		arenas: newArenas(), link: newLink(o.Clock, o.UplinkBytesPerSecond),
	}
	e.mu.workers = map[string]*worker{}
	if err := e.loadAll(); err != nil {
		return nil, err
	}
	return e, e.endBuffers(context.Background())
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
