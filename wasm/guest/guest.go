// Package guest speaks weir/1 with one running instance: it writes a batch into
// the instance's memory, calls it, checks what it answers, and serves its host
// calls.
//
// It owns the import functions of the contract (log, metrics, clock, state,
// emit, HTTP), the instance's input region and the metrics a module defines.
// What a host call reaches comes in through Services: a service that is nil
// answers "denied". Transforms and consumers are built on it; it decides
// nothing about retries, dead letters or transactions, and it never keeps
// anything a guest wrote beyond the next call.
package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
)

// Record is one record handed to a module. A nil Key is null.
type Record struct {
	Key, Data []byte
	ArrivalMS int64
	Index     uint64 // in its shard, ascending within a batch
}

// Batch is a run of records of one shard, in order.
type Batch struct {
	Stream  string
	Shard   uint32
	Input   int   // the stream, an index into the manifest's inputs
	TimeMS  int64 // the clock the module sees
	ID      uint64
	Attempt int
	Flags   uint16 // abi.FlagReplay and so on
	Records []Record
	// Repeat says that the batch was run to its end before, with the same outcome: it
	// costs again and is not counted again. Guests don't see it.
	Repeat bool
}

// What a call can end with besides the errors of wasm/host and an
// *abi.InvalidResultError.
var (
	// ErrRefused: the module answered that it can't handle the batch.
	ErrRefused = errors.New("module refused the batch")
	// ErrRetry: the module asked for the batch to be tried again later.
	ErrRetry = errors.New("module asked for a retry")
	// ErrTooLarge: the batch does not fit into the region the module provides.
	ErrTooLarge = errors.New("batch too large for the module")
	// ErrConfigure: weir_configure refused the manifest's config.
	ErrConfigure = errors.New("module refused its config")
	// ErrMigrate: weir_migrate could not bring the state up to date.
	ErrMigrate = errors.New("module could not migrate its state")
)

// Services are what host calls reach. Each is used from the instance's
// goroutine only, and only while a call runs.
type Services struct {
	State   State
	Emit    Emitter
	HTTP    Caller
	Outbox  Outbox
	Metrics *Metrics
	// Log gets the guest's lines; line is not kept. Nil drops them.
	Log func(level host.Level, line []byte)
}

// State is the key-value state of a consumer on one shard. Values returned
// are valid until the next call.
type State interface {
	Get(key []byte) (value []byte, found bool, err error)
	Put(key, value []byte) abi.Code
	Delete(key []byte) abi.Code
	// Scan calls fn with up to limit entries with prefix, after the key after, in key order, until fn returns false.
	Scan(prefix, after []byte, limit int, fn func(key, value []byte) bool) error
}

// Emitter takes output entries that a guest hands over while it still works on
// its batch. The result has passed its check; its slices are not kept.
type Emitter interface {
	EmitChunk(r *abi.Result) abi.Code
}

// Caller performs an HTTP request in weir/1's text form and returns the
// response in the same form. code is the HTTP status, or an abi.Code below zero.
type Caller interface {
	Call(ctx context.Context, request []byte) (response []byte, code int32)
}

// Outbox takes an HTTP request that is to be sent after the batch is committed.
type Outbox interface {
	Enqueue(request []byte) abi.Code
}

// Options describe an instance to come.
type Options struct {
	Manifest *manifest.Manifest
	Limits   manifest.Limits // in effect: the manifest's within the operator's ceiling
	Services Services
	// Now is the real clock. It is what the guest sees only if the manifest grants it.
	Now func() time.Time
}

// Guest is an instance that speaks weir/1. One goroutine at a time uses it.
type Guest struct {
	o        Options
	inst     *host.Instance
	process  *host.Function
	tick     *host.Function
	buffer   *host.Function
	region   uint32 // where weir_buffer put the input region
	capacity uint32 // how long it is
	limits   abi.Limits

	// of the running call
	timeMS   int64
	records  int
	calls    int    // HTTP calls
	parked   []byte // response that did not fit the guest's buffer
	parkCode int32
	pending  pendingMetrics
	started  time.Time
}

// New returns a guest that has no instance yet: InstanceOptions goes to the
// host, Bind takes what the host makes of it.
func New(o Options) *Guest {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Guest{o: o, started: o.Now()}
	g.limits = abi.Limits{
		Streams: o.Manifest.Streams(), OutputBytes: int(o.Limits.OutputBytes), OutputsOfRecord: o.Limits.OutputsPerRecord,
	}
	return g
}

// InstanceOptions are what the host is to make the instance with.
func (g *Guest) InstanceOptions() host.InstanceOptions {
	l := g.o.Limits
	o := host.InstanceOptions{
		Limits: HostLimits(l), User: g, Now: g.wasiClock, Log: g.o.Services.Log,
		Env: environment(g.o.Manifest, l),
	}
	if l.LogLines == 0 {
		o.Log = nil
	}
	return o
}

// HostLimits are a manifest's limits as the host takes them.
func HostLimits(l manifest.Limits) host.Limits {
	return host.Limits{
		MemoryBytes: l.MemoryBytes, Depth: uint32(l.Depth), Fuel: uint64(l.CPU/time.Microsecond) * (host.FuelPerMillisecond / 1000),
		Wall: l.Wall, OutputBytes: l.OutputBytes, LogLinesPerSecond: l.LogLines,
	}
}

// environment is the manifest's, and what keeps a Go guest's heap within the
// memory limit: by default Go lets it double before it collects.
func environment(m *manifest.Manifest, l manifest.Limits) []string {
	env := []string{"GOGC=30", fmt.Sprintf("GOMEMLIMIT=%dKiB", l.MemoryBytes*6/10>>10)}
	return append(env, m.Env...)
}

// Check reports what in a compiled module isn't as weir/1 wants it.
func Check(m *host.Module) error {
	have := map[string]host.Export{}
	for _, e := range m.Exports() {
		have[e.Name] = e
	}
	for _, f := range abi.Exports() {
		e, ok := have[f.Name]
		if !ok && f.Optional {
			continue
		}
		if !ok {
			return fmt.Errorf("%w: %s; a weir/1 module exports %s, %s and %s", host.ErrExport, f.Name, abi.ExportMarker, abi.ExportBuffer, abi.ExportProcess)
		}
		if !sameTypes(e.Params, f.Params) || !sameTypes(e.Results, f.Results) {
			return fmt.Errorf("%w: %s has %d parameters and %d results or other types than ABI.md gives", host.ErrExport, f.Name, len(e.Params), len(e.Results))
		}
	}
	return nil
}

func sameTypes(a []host.ValueType, b []abi.ValueType) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if byte(a[i]) != byte(b[i]) {
			return false
		}
	}
	return true
}

// Grant says which import modules a manifest opens to a module.
func Grant(m *manifest.Manifest) func(importModule string) bool {
	c := m.Capabilities
	return func(name string) bool {
		switch name {
		case abi.ModuleLog, abi.ModuleMetric, abi.ModuleClock:
			return true
		case abi.ModuleState:
			return c.State
		case abi.ModuleEmit:
			return c.Emit
		case abi.ModuleHTTP:
			return len(c.Hosts) > 0
		}
		return false
	}
}

// Ask says what a manifest would have to hold for an import module that it doesn't
// open, as the end of an error.
func Ask(importModule string) string {
	switch importModule {
	case abi.ModuleState:
		return "; a consumer's manifest grants it with capabilities: {state: true}"
	case abi.ModuleEmit:
		return "; a consumer's manifest grants it with capabilities: {emit: true}"
	case abi.ModuleHTTP:
		return `; the manifest grants it with capabilities: {http: {hosts: ["host:port"]}}`
	}
	return ""
}

// Bind takes the instance made with InstanceOptions and hands the module its
// config. ErrConfigure, ErrTooLarge and the errors of a call mean that the
// instance is of no use.
func (g *Guest) Bind(ctx context.Context, inst *host.Instance) error {
	g.inst = inst
	g.process, g.tick, g.buffer = inst.Function(abi.ExportProcess), inst.Function(abi.ExportTick), inst.Function(abi.ExportBuffer)
	configure := inst.Function(abi.ExportConfigure)
	if configure == nil {
		return nil
	}
	config := g.o.Manifest.Config
	dst, err := g.space(ctx, len(config))
	if err != nil {
		return fmt.Errorf("configure module: %w", err)
	}
	copy(dst, config)
	code, err := configure.Call(ctx, uint64(g.region), uint64(len(config)))
	if err != nil {
		return fmt.Errorf("configure module: %w", err)
	}
	if int32(code) < 0 {
		err := fmt.Errorf("%w: it answered %d to %s", ErrConfigure, int32(code), config)
		inst.Discard(err)
		return err
	}
	return nil
}

// Bound reports whether Bind was called.
func (g *Guest) Bound() bool { return g.inst != nil }

// Instance is the instance bound, or nil.
func (g *Guest) Instance() *host.Instance { return g.inst }

// HasTick reports whether the module exports weir_tick.
func (g *Guest) HasTick() bool { return g.tick != nil }

// space returns n bytes of guest memory for input, asking the guest for a
// larger region when its last one is too small.
func (g *Guest) space(ctx context.Context, n int) ([]byte, error) {
	if n > abi.MaxRegion {
		return nil, fmt.Errorf("%w: %d bytes; the largest region is %d", ErrTooLarge, n, abi.MaxRegion)
	}
	if uint32(n) > g.capacity {
		want := uint32(n)
		if g.capacity > 0 {
			want = max(want, min(2*g.capacity, abi.MaxRegion)) // growing batches: don't ask each time
		}
		ptr, err := g.buffer.Call(ctx, uint64(want))
		if err == nil && uint32(ptr) == 0 && want > uint32(n) {
			want = uint32(n)
			ptr, err = g.buffer.Call(ctx, uint64(want))
		}
		if err != nil {
			return nil, err
		}
		if uint32(ptr) == 0 {
			g.capacity = 0
			return nil, fmt.Errorf("%w: weir_buffer gave no room for %d bytes", ErrTooLarge, n)
		}
		if uint32(ptr)%8 != 0 || uint32(ptr) > 1<<31-1 {
			return nil, g.lie(&abi.InvalidResultError{What: "weir_buffer", Got: fmt.Sprintf("address %d; expecting a multiple of 8 below 2^31", uint32(ptr))})
		}
		g.region, g.capacity = uint32(ptr), want
	}
	dst, ok := g.inst.Read(g.region, uint32(n))
	if !ok {
		return nil, g.lie(&abi.InvalidResultError{What: "weir_buffer", Got: fmt.Sprintf("%d bytes at %d lie outside %d bytes of memory", n, g.region, g.inst.MemoryBytes())})
	}
	return dst, nil
}

// lie condemns the instance for an answer that can't be true.
func (g *Guest) lie(err error) error {
	g.inst.Discard(err)
	return err
}

// Process hands b's records to the module and returns its checked answer, which
// lies in guest memory and is valid until the next call. b's slices are not
// kept. Errors: ErrRefused, ErrRetry, ErrTooLarge, an *abi.InvalidResultError,
// and a *host.CallError; after the last two the instance is condemned.
func (g *Guest) Process(ctx context.Context, b *Batch) (abi.Result, error) {
	size := abi.InputHeaderLen
	for i := range b.Records {
		size += abi.RecordSize(len(b.Records[i].Key), len(b.Records[i].Data))
	}
	g.begin(b.TimeMS, len(b.Records))
	dst, err := g.space(ctx, size)
	if err != nil {
		return abi.Result{}, err
	}
	if err := g.encode(dst, b); err != nil {
		return abi.Result{}, err
	}
	ret, err := g.process.Call(ctx, uint64(g.region), uint64(size))
	if err != nil {
		return abi.Result{}, err
	}
	return g.answer(int64(ret), len(b.Records))
}

func (g *Guest) encode(dst []byte, b *Batch) error {
	h := abi.InputHeader{
		Flags: b.Flags, Records: len(b.Records), Shard: b.Shard, Input: uint32(b.Input), TimeMS: b.TimeMS, BatchID: b.ID, Attempt: uint32(b.Attempt),
		CPUBudgetMS: uint32(g.o.Limits.CPU / time.Millisecond), Seed: seed(b.Shard, b.ID),
	}
	if len(b.Records) > 0 {
		h.BaseIndex = b.Records[0].Index
	}
	g.inst.Reseed(h.Seed)
	var w abi.InputWriter
	if err := w.Begin(dst, h); err != nil {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	for i := range b.Records {
		r := &b.Records[i]
		if err := w.Record(r.Index, r.ArrivalMS, r.Key, r.Data); err != nil {
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
	}
	_, err := w.Finish()
	return err
}

// seed mixes shard and batch id into random numbers' start (splitmix64).
func seed(shard uint32, id uint64) uint64 {
	z := id + uint64(shard)<<32 + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (g *Guest) begin(timeMS int64, records int) {
	g.timeMS, g.records, g.calls, g.parked = timeMS, records, 0, nil
	g.pending.reset()
	g.limits.OutputRecords = max(records, 1) * g.o.Limits.OutputsPerRecord
}

// answer reads and checks what weir_process or weir_tick returned.
func (g *Guest) answer(ret int64, records int) (abi.Result, error) {
	if ret < 0 {
		if ret == abi.BatchRetry {
			return abi.Result{}, ErrRetry
		}
		return abi.Result{}, fmt.Errorf("%w: it answered %d", ErrRefused, ret)
	}
	mem, _ := g.inst.Read(0, uint32(g.inst.MemoryBytes()))
	r, err := abi.DecodeResult(mem, ret, records)
	if err == nil {
		err = r.Check(g.limits)
	}
	if err != nil {
		return abi.Result{}, g.lie(err)
	}
	return r, nil
}

// Tick calls weir_tick. Its errors are those of Process; a module without
// weir_tick answers nothing.
func (g *Guest) Tick(ctx context.Context, nowMS int64) (abi.Result, error) {
	if g.tick == nil {
		return abi.Result{}, nil
	}
	g.begin(nowMS, 0)
	g.limits.OutputRecords = max(g.o.Manifest.Batch.Records, 1) * g.o.Limits.OutputsPerRecord
	ret, err := g.tick.Call(ctx, uint64(nowMS))
	if err != nil {
		return abi.Result{}, err
	}
	return g.answer(int64(ret), 0)
}

// Migrate calls weir_migrate when the module exports it. A module without it
// takes any older state as it is.
func (g *Guest) Migrate(ctx context.Context, from uint32, timeMS int64) error {
	f := g.inst.Function(abi.ExportMigrate)
	if f == nil {
		return nil
	}
	g.begin(timeMS, 0)
	code, err := f.Call(ctx, uint64(from))
	if err != nil {
		return fmt.Errorf("migrate state from version %d: %w", from, err)
	}
	if int32(code) < 0 {
		return fmt.Errorf("%w: from version %d to %d: it answered %d", ErrMigrate, from, g.o.Manifest.StateVersion, int32(code))
	}
	return nil
}

// Accept makes what the last call did to metrics count. Call it when the
// call's outcome is used.
func (g *Guest) Accept() { g.pending.apply(g.o.Services.Metrics) }

func (g *Guest) wasiClock() time.Time {
	if g.o.Manifest.Capabilities.RealClock {
		return g.o.Now()
	}
	return time.UnixMilli(g.timeMS)
}

// Int64 reads a value that weir_state.incr counts with.
func Int64(value []byte) (int64, bool) {
	if len(value) != 8 {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(value)), true
}

// Used is the fuel of the last call and the size of the instance's memory, in
// bytes.
func (g *Guest) Used() (fuel uint64, memoryBytes int64) {
	return g.inst.FuelUsed(), g.inst.MemoryBytes()
}
