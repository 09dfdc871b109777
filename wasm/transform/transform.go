// Package transform runs a module over batches of records: for each record Ok,
// Dropped or ProcessingFailed, as a Firehose transform answers, with new data,
// partition keys and one-to-many outputs.
//
// It owns a module version's instances, finds the records that make a module
// trap, hang or lie by bisection, so that one poison record costs one record,
// and fits the size of what it hands over at once to the time the module
// takes. It never changes state outside of the module, so a batch can be run
// again at any time, and it never writes dead letters: a record that failed for
// good is an Output with its reason, and whoever called writes it where failed
// records go (DeadLetter has the form).
package transform

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/manifest"
)

// Record is one record handed to a module. A nil Key is null.
type Record = guest.Record

// Batch is a run of records of one shard, in order.
type Batch = guest.Batch

// Status is the outcome of one record.
type Status uint8

// The outcomes of a record. Data of an Ok record is nil when the caller is to
// forward its own bytes.
const (
	OkUnchanged Status = iota
	OkReplaced
	Dropped
	ProcessingFailed
)

// String returns the outcome's name as the CLI prints it.
func (s Status) String() string {
	switch s {
	case OkUnchanged:
		return "unchanged"
	case OkReplaced:
		return "replaced"
	case Dropped:
		return "dropped"
	case ProcessingFailed:
		return "failed"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Output is what became of a record. A record that was replaced by several
// has one Output for each, with the same Source. Slices are valid during emit.
type Output struct {
	Source       int // number of the record in the batch
	Status       Status
	Data         []byte // nil: forward the source's bytes
	Key          []byte // the record's new partition key; nil: the source's
	PartitionKey []byte // keys for dynamic partitioning, see EachPartitionKey; nil: none
	Out          int    // index into the manifest's outputs
	TimestampMS  int64  // 0: the source's
	Reason       string // ProcessingFailed
	Code         uint32 // ProcessingFailed: the guest's, or one of the Code constants
}

// Codes of failures the host finds, as ABI.md lists them.
const (
	CodeTrap     uint32 = 0xFFFF0001
	CodeLimit    uint32 = 0xFFFF0002
	CodeInvalid  uint32 = 0xFFFF0003
	CodeRefused  uint32 = 0xFFFF0004
	CodeRetry    uint32 = 0xFFFF0005
	CodeTooLarge uint32 = 0xFFFF0006
	CodeUnfit    uint32 = 0xFFFF0007
)

// ErrClosed means that the version was removed.
var ErrClosed = errors.New("module version is closed")

// HaltError stops a batch at a record that failed under on_error: halt. What
// was emitted before must not be used.
type HaltError struct {
	Source int
	Reason string
	Code   uint32
}

// Error names record, code and reason.
func (e *HaltError) Error() string {
	return fmt.Sprintf("record %d of the batch failed and on_error is halt: code %#x: %s", e.Source, e.Code, e.Reason)
}

// Engine runs batches on one instance, or on several in turn. A *guest.Guest is
// one; adapters for other contracts are others. Its errors are those of
// guest.Guest.Process. One goroutine at a time uses it.
type Engine interface {
	Process(ctx context.Context, b *Batch) (abi.Result, error)
	// Accept says that the last answer is used.
	Accept()
	// Used is the fuel of the last call and the memory of the instance, in bytes.
	Used() (fuel uint64, memoryBytes int64)
}

// Engines keeps a bounded number of engines.
type Engines interface {
	// Get returns an engine for the caller alone; it waits when all are out.
	Get(ctx context.Context) (Engine, error)
	// Put gives it back; a broken one is closed and replaced.
	Put(Engine)
	// Close closes the idle engines; the others with their Put.
	Close() error
}

// Options of a Transform.
type Options struct {
	Manifest *manifest.Manifest
	Digest   string          // hex SHA-256 of the module
	Limits   manifest.Limits // in effect; zero = the manifest's
	// Load makes the engines when they are first needed, at most Instances of them.
	Load func(ctx context.Context, instances int) (Engines, error)
	// Rest is how long after its last batch a transform frees its instances and its
	// compiled code, until the next one. Zero: never. It takes up to twice as long.
	Rest time.Duration
	// Instances is the most instances at work side by side. Default GOMAXPROCS.
	Instances int
	// Flags go into every batch.
	Flags uint16
	// Observe is told what each Process did, when it has ended.
	Observe func(Report)
}

// Report is what one Process did.
type Report struct {
	Records, Outputs, Replaced, Dropped, Failed int
	OutputBytes                                 int64 // of replaced data
	Aborts                                      int   // instances lost to traps, limits and invalid answers
	Poisoned                                    int   // failed records that broke the module, as opposed to those it failed
	Retries                                     int
	Fuel                                        uint64
	MemoryBytes                                 int64 // largest instance
	Wall                                        time.Duration
	Err                                         error
	Repeat                                      bool   // as the batch says
	Poison                                      string // last failure the host found, with the guest's stack
}

// Transform is one version of a module at work. Safe for concurrent use.
type Transform struct {
	o      Options
	size   sizer
	shadow atomic.Pointer[Shadow]

	mu struct {
		sync.Mutex
		engines Engines
		users   int         // Process calls that hold engines
		idleFor bool        // nobody held any since the timer was set
		timer   *time.Timer // puts it to rest; nil without engines
		resting bool
		closed  bool
		idle    *sync.Cond
	}
}

// New returns a transform. Nothing is loaded before the first Process.
func New(o Options) *Transform {
	if o.Instances <= 0 {
		o.Instances = runtime.GOMAXPROCS(0)
	}
	t := &Transform{o: o}
	t.mu.idle = sync.NewCond(&t.mu)
	t.size.limit = int64(o.Manifest.Batch.Records)
	return t
}

// Digest returns the hex SHA-256 of the module.
func (t *Transform) Digest() string { return t.o.Digest }

// Version returns the module's version.
func (t *Transform) Version() string { return t.o.Manifest.Version }

// Name returns the module's name.
func (t *Transform) Name() string { return t.o.Manifest.Name }

// Manifest returns the module's manifest, which must not be changed.
func (t *Transform) Manifest() *manifest.Manifest { return t.o.Manifest }

// acquire returns the engines, loading them when needed.
func (t *Transform) acquire(ctx context.Context) (Engines, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return nil, fmt.Errorf("transform %s %s: %w", t.Name(), t.Version(), ErrClosed)
	}
	if t.mu.engines == nil {
		e, err := t.o.Load(ctx, t.o.Instances)
		if err != nil {
			return nil, fmt.Errorf("load module %s %s: %w", t.Name(), t.Version(), err)
		}
		t.mu.engines = e
		if t.o.Rest > 0 {
			t.mu.timer = time.AfterFunc(t.o.Rest, t.look)
		}
	}
	t.mu.resting, t.mu.idleFor = false, false
	t.mu.users++
	return t.mu.engines, nil
}

func (t *Transform) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.users--
	if t.mu.users == 0 && t.mu.resting {
		t.unloadLocked()
	}
	t.mu.idle.Broadcast()
}

// look rests a transform that nobody used since it looked last. A flag and not a
// time: this way a batch pays nothing for it.
func (t *Transform) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.timer == nil: // unloaded meanwhile
	case t.mu.users == 0 && t.mu.idleFor:
		t.unloadLocked()
	default:
		t.mu.idleFor = t.mu.users == 0
		t.mu.timer.Reset(t.o.Rest)
	}
}

func (t *Transform) unloadLocked() {
	if t.mu.timer != nil {
		t.mu.timer.Stop()
		t.mu.timer = nil
	}
	if t.mu.engines != nil {
		// Closing frees memory mappings; there is nothing to do about a failure.
		_ = t.mu.engines.Close()
		t.mu.engines = nil
	}
}

// Rest frees the instances and the compiled code once the batches at work are
// done. The next Process loads them again.
func (t *Transform) Rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.resting = true
	if t.mu.users == 0 {
		t.unloadLocked()
	}
}

// Close waits for the batches at work and frees everything. Later Process
// calls get ErrClosed.
func (t *Transform) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.closed = true
	for t.mu.users > 0 {
		t.mu.idle.Wait()
	}
	t.unloadLocked()
}

// Warm loads the module and makes an instance, so that the first batch doesn't
// have to.
func (t *Transform) Warm(ctx context.Context) error {
	engines, err := t.acquire(ctx)
	if err != nil {
		return err
	}
	defer t.release()
	e, err := engines.Get(ctx)
	if err != nil {
		return fmt.Errorf("start module %s %s: %w", t.Name(), t.Version(), err)
	}
	engines.Put(e)
	return nil
}

// Process runs the module over b and calls emit for what becomes of each
// record, in source order: at least one Output for every record. An error of
// emit ends it. After an error nothing of what was emitted may be used, and the
// batch can be run again. Errors that aren't emit's or ctx's: a *HaltError,
// ErrClosed, and those of loading or instantiating the module.
func (t *Transform) Process(ctx context.Context, b *Batch, emit func(*Output) error) (err error) {
	start := time.Now()
	engines, err := t.acquire(ctx)
	if err != nil {
		if t.o.Observe != nil {
			t.o.Observe(Report{Err: err})
		}
		return err
	}
	defer t.release()
	if s := t.shadow.Load(); s != nil {
		if job := s.begin(b); job != nil {
			whole := emit
			emit = func(o *Output) error {
				job.saw(o)
				return whole(o)
			}
			defer func() { s.end(job, err) }()
		}
	}
	r := &run{t: t, ctx: ctx, engines: engines, whole: b, emit: emit}
	defer func() {
		r.putBack()
		if t.o.Observe != nil {
			r.report.Records, r.report.Err, r.report.Wall, r.report.Repeat = len(b.Records), err, time.Since(start), b.Repeat
			t.o.Observe(r.report)
		}
	}()
	for lo := 0; lo < len(b.Records); {
		hi := t.size.next(b.Records, lo, t.o.Manifest.Batch.Bytes)
		if err := r.span(lo, hi, b.Attempt); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}
