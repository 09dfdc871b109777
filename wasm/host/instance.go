package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/weirhq/weir/wasm/meter"
)

// FuelPerMillisecond turns a budget of CPU time into fuel. A unit of fuel
// stands for one to sixteen WebAssembly operators (see wasm/meter), and a small box
// runs a million units in about a millisecond, a fast one in a tenth of that;
// the same batch takes the same fuel everywhere.
const FuelPerMillisecond = 1_000_000

// Limits of an instance and of each call into it. A zero field means its default.
type Limits struct {
	MemoryBytes       int64         // linear memory; memory.grow beyond it fails. Default 16 MiB, at most 64 MiB
	Depth             uint32        // nested calls. Default and maximum 1,900 (wazero's interpreter ends at 2,000 frames)
	Fuel              uint64        // per call; see FuelPerMillisecond. Default 100 ms worth
	Wall              time.Duration // per call, host calls included. Default 2 s
	OutputBytes       int64         // per call, counted by Call.Output. Default 4 MiB
	LogLineBytes      int           // longer lines are cut. Default 1 KiB
	LogLinesPerSecond int           // more are counted and dropped. Default 100
}

const (
	// MaxMemoryBytes is the highest Limits.MemoryBytes: what one instance reserves in the address space at most.
	MaxMemoryBytes = 64 << 20
	maxDepth       = meter.DefaultDepth
	pageBytes      = 64 << 10
)

func (l *Limits) setDefaults() {
	l.MemoryBytes = min(defaultTo(l.MemoryBytes, 16<<20), MaxMemoryBytes) &^ (pageBytes - 1)
	l.Depth = min(defaultTo(l.Depth, maxDepth), maxDepth)
	l.Fuel = defaultTo(l.Fuel, 100*FuelPerMillisecond)
	l.Wall = defaultTo(l.Wall, 2*time.Second)
	l.OutputBytes = defaultTo(l.OutputBytes, 4<<20)
	l.LogLineBytes = defaultTo(l.LogLineBytes, 1<<10)
	l.LogLinesPerSecond = defaultTo(l.LogLinesPerSecond, 100)
}

func defaultTo[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func limitError[N int64 | uint32 | uint64](kind error, value, limit N, unit string) error {
	return fmt.Errorf("%w: %d %s; the limit is %d", kind, value, unit, limit)
}

// Level of a guest's log line, as in weir_log.write.
type Level uint8

// Log levels.
const (
	LevelDebug Level = iota
	LevelInfo
	LevelWarn
	LevelError
)

// InstanceOptions are what one instance is given. The zero value is usable.
type InstanceOptions struct {
	Limits Limits
	// User is what import functions find with Call.User.
	User any
	// Args and Env ("NAME=value") are seen by WASI guests.
	Args, Env []string
	// Stdin is read by WASI guests from descriptor 0; nil is empty.
	Stdin io.Reader
	// Stdout gets what WASI guests write to descriptor 1; nil logs it as lines. Descriptor 2 is always logged.
	Stdout io.Writer
	// Log gets the guest's log lines during calls; line is not kept. Nil drops them.
	Log func(level Level, line []byte)
	// Now is the wall clock that WASI guests see. Nil is a clock that stands at the epoch, so that runs repeat.
	Now func() time.Time
	// Seed starts the generator behind random_get.
	Seed uint64
}

// Instance is a running module with its own memory. One goroutine at a time
// may use it. After any error out of a call it is discarded: Healthy is
// false, further calls give ErrClosed, and the owner closes it.
type Instance struct {
	m       *Module
	o       InstanceOptions
	mod     api.Module
	memory  api.Memory
	linear  *linearMemory
	fuel    api.MutableGlobal // meter.ExportFuel
	depth   api.MutableGlobal // meter.ExportDepth
	call    Call
	busy    atomic.Bool
	dead    error
	closed  bool
	started time.Time
	calls   uint64
	stack   []uint64
	wasi    wasiState
	logs    logState
}

// Instantiate makes an instance: its memory, then `_initialize` when it is
// exported, under the limits of one call. Errors are ErrBudget, ErrMemory
// (the module wants more than Limits.MemoryBytes to begin with) and those of a call.
func (m *Module) Instantiate(ctx context.Context, o InstanceOptions) (*Instance, error) {
	if m.r.o.SpareProcessor {
		spare()
	}
	o.Limits.setDefaults()
	i := &Instance{m: m, o: o, started: time.Now()}
	i.wasi.init(o)
	if need := int64(m.info.MemoryPages) * pageBytes; need > o.Limits.MemoryBytes {
		return nil, fmt.Errorf("instantiate module: %w", limitError(ErrMemory, need, o.Limits.MemoryBytes, "bytes to begin with"))
	}
	i.linear = &linearMemory{budget: m.r.budget, limit: uint64(o.Limits.MemoryBytes)}
	mod, err := m.instantiate(ctx, i.linear)
	if err != nil {
		i.linear.Free()
		return nil, fmt.Errorf("instantiate module: %w", err)
	}
	i.mod = mod
	if m.info.Memory {
		i.memory = mod.Memory()
	}
	i.fuel = mod.ExportedGlobal(meter.ExportFuel).(api.MutableGlobal)
	i.depth = mod.ExportedGlobal(meter.ExportDepth).(api.MutableGlobal)
	i.depth.Set(uint64(o.Limits.Depth))
	if init := i.Function("_initialize"); init != nil {
		if _, err := init.Call(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("instantiate module: %w", err), i.Close())
		}
	}
	return i, nil
}

// instantiate runs no guest code: start sections are refused at Compile and
// no start function is named. wazero panics when the allocator has no memory
// to give, and a module must not end the process however it makes it panic.
func (m *Module) instantiate(ctx context.Context, linear *linearMemory) (mod api.Module, err error) {
	defer func() {
		if r := recover(); r != nil {
			if err = fmt.Errorf("%w: wazero panicked: %v", ErrTrap, r); linear.refused {
				err = linear.refusal()
			}
		}
	}()
	ctx = experimental.WithMemoryAllocator(ctx, linear)
	mod, err = m.r.rt.InstantiateModule(ctx, m.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrap, err)
	}
	return mod, nil
}

// Module is the module this is an instance of.
func (i *Instance) Module() *Module { return i.m }

// Limits are the instance's limits with defaults filled in.
func (i *Instance) Limits() Limits { return i.o.Limits }

// Healthy is false once a call has failed or the instance is closed.
func (i *Instance) Healthy() bool { return i.dead == nil && !i.closed }

// Read returns n bytes of memory at ptr, or false when they are not all
// inside it. The slice is the memory itself: valid until the next call into the guest.
func (i *Instance) Read(ptr, n uint32) ([]byte, bool) {
	if i.memory == nil {
		return nil, false
	}
	return i.memory.Read(ptr, n)
}

// Write copies b into memory at ptr; false, and nothing written, when it does not fit there.
func (i *Instance) Write(ptr uint32, b []byte) bool {
	return i.memory != nil && i.memory.Write(ptr, b)
}

// MemoryBytes is the size of the instance's memory now.
func (i *Instance) MemoryBytes() int64 {
	if i.memory == nil {
		return 0
	}
	return int64(i.memory.Size())
}

// Close frees the instance's memory, also after an error.
func (i *Instance) Close() error {
	if i.closed {
		return nil
	}
	i.closed = true
	err := i.mod.Close(context.Background())
	i.linear.Free()
	return err
}

// Function is an exported function of one instance.
type Function struct {
	i       *Instance
	name    string
	fn      api.Function
	params  int
	results int
}

// Function returns the export of this name, or nil. Keep it: looking it up costs more than calling it.
func (i *Instance) Function(name string) *Function {
	fn := i.mod.ExportedFunction(name)
	if fn == nil {
		return nil
	}
	d := fn.Definition()
	f := &Function{i: i, name: name, fn: fn, params: len(d.ParamTypes()), results: len(d.ResultTypes())}
	if n := max(f.params, f.results); n > len(i.stack) {
		i.stack = make([]uint64, n)
	}
	return f
}

// Call runs the function on the caller's goroutine under the instance's
// limits and returns its first result, 0 when it has none. Arguments and
// result are the raw 64-bit slots: i32 in the low half. It first waits for a
// turn if Options.Guests others run. An error is a *CallError, or when nothing
// ran one of ErrClosed, ErrBusy and ErrExport, or ctx's.
func (f *Function) Call(ctx context.Context, args ...uint64) (uint64, error) {
	i := f.i
	if len(args) != f.params {
		return 0, fmt.Errorf("call %s: %w: %d arguments; it takes %d", f.name, ErrExport, len(args), f.params)
	}
	if !i.busy.CompareAndSwap(false, true) {
		return 0, fmt.Errorf("call %s: %w", f.name, ErrBusy)
	}
	defer i.busy.Store(false)
	if i.closed || i.dead != nil {
		return 0, fmt.Errorf("call %s: instance: %w", f.name, ErrClosed)
	}
	if err := i.m.r.turns.take(ctx); err != nil {
		return 0, fmt.Errorf("call %s: wait for a turn: %w", f.name, err)
	}
	defer i.m.r.turns.give()
	copy(i.stack, args)
	i.begin(ctx)
	if err := f.fn.CallWithStack(&i.call, i.stack); err != nil {
		return 0, i.fail(f.name, err)
	}
	i.end()
	if f.results == 0 {
		return 0, nil
	}
	return i.stack[0], nil
}
