package guesttest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/weirhq/weir/wasm/abi"
)

// Record is one record handed to a guest.
type Record struct {
	Key, Data   string
	TimestampMS int64
}

// Host runs guests on plain wazero: no metering, no limits, no child process. It
// shows that a guest keeps to ABI.md by itself, and gives benchmarks their base.
// It keeps state, metrics and log lines in memory for a test to read.
type Host struct {
	rt       wazero.Runtime
	compiled map[[sha256.Size]byte]wazero.CompiledModule

	State   map[string]string
	Metrics map[string]float64
	Log     []string
	HTTP    func(request string) (status int, response string)
	Outbox  []string
	Chunks  []Output

	timeMS  int64
	records []Record
	names   []string
	kinds   []uint32
	err     error
}

// Output is one record a guest passed on, with what it inherits filled in.
type Output struct {
	Source    int // number of the record in the batch, -1 = none
	Output    int
	Key, Data string
	Parts     string // keys for dynamic partitioning
}

// Outcome is what a guest made of one record.
type Outcome struct {
	Status  abi.Status
	Code    uint32
	Reason  string
	Outputs []Output
}

// NewHost makes a host on wazero's compiler, or on its interpreter.
func NewHost(ctx context.Context, interpreter bool) (*Host, error) {
	cfg := wazero.NewRuntimeConfig()
	if interpreter {
		cfg = wazero.NewRuntimeConfigInterpreter()
	}
	h := &Host{rt: wazero.NewRuntimeWithConfig(ctx, cfg), compiled: map[[sha256.Size]byte]wazero.CompiledModule{}}
	h.Reset()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, h.rt); err != nil {
		return nil, fmt.Errorf("instantiate wasi: %w", err)
	}
	// AssemblyScript imports an abort function of its own unless it is told otherwise; the
	// SDK tells it, so there is nothing but weir/1 and WASI to provide here.
	builders := map[string]wazero.HostModuleBuilder{}
	for _, f := range abi.Imports() {
		b, ok := builders[f.Module]
		if !ok {
			b = h.rt.NewHostModuleBuilder(f.Module)
			builders[f.Module] = b
		}
		call, ok := hostCalls[f.Module+"."+f.Name]
		if !ok {
			return nil, fmt.Errorf("host call %s.%s: not provided by this host", f.Module, f.Name)
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
			for i, t := range f.Params {
				if t == abi.I32 {
					stack[i] = uint64(uint32(stack[i])) // the upper half is not defined
				}
			}
			stack[0] = call(h, m.Memory(), stack)
		}), valueTypes(f.Params), valueTypes(f.Results)).Export(f.Name)
	}
	for name, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			return nil, fmt.Errorf("instantiate %s: %w", name, err)
		}
	}
	return h, nil
}

// Close releases every guest of the host.
func (h *Host) Close(ctx context.Context) error { return h.rt.Close(ctx) }

// Reset forgets what guests left behind.
func (h *Host) Reset() {
	h.State, h.Metrics = map[string]string{}, map[string]float64{}
	h.Log, h.Outbox, h.Chunks = nil, nil, nil
	h.err = nil
}

func valueTypes(ts []abi.ValueType) []api.ValueType {
	out := make([]api.ValueType, len(ts))
	for i, t := range ts {
		out[i] = api.ValueType(t)
	}
	return out
}

// Guest is one instance of a module.
type Guest struct {
	h                        *Host
	mod                      api.Module
	buffer, process, cfg, tk api.Function
	stack                    [2]uint64
	region, capacity         uint32
	batches                  uint64
}

// Instantiate starts a guest and configures it, when config isn't empty. Each instance is configured once, as on the box.
func (h *Host) Instantiate(ctx context.Context, wasm []byte, config string) (*Guest, error) {
	compiled, err := h.compile(ctx, wasm)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	mod, err := h.rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize))
	if err != nil {
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	g := &Guest{
		h: h, mod: mod, buffer: mod.ExportedFunction(abi.ExportBuffer), process: mod.ExportedFunction(abi.ExportProcess),
		cfg: mod.ExportedFunction(abi.ExportConfigure), tk: mod.ExportedFunction(abi.ExportTick),
	}
	if g.buffer == nil || g.process == nil || mod.ExportedFunction(abi.ExportMarker) == nil {
		return nil, fmt.Errorf("instantiate: the module does not export %s, %s and %s", abi.ExportMarker, abi.ExportBuffer, abi.ExportProcess)
	}
	if config != "" {
		if err := g.configure(ctx, config); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// compile compiles a module the first time it is seen: a Go module takes seconds.
func (h *Host) compile(ctx context.Context, wasm []byte) (wazero.CompiledModule, error) {
	digest := sha256.Sum256(wasm)
	if compiled, ok := h.compiled[digest]; ok {
		return compiled, nil
	}
	compiled, err := h.rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	h.compiled[digest] = compiled
	return compiled, nil
}

// Close ends the instance.
func (g *Guest) Close(ctx context.Context) error { return g.mod.Close(ctx) }

func (g *Guest) reserve(ctx context.Context, n int) ([]byte, error) {
	if uint32(n) > g.capacity {
		g.stack[0] = uint64(n)
		if err := g.buffer.CallWithStack(ctx, g.stack[:]); err != nil {
			return nil, fmt.Errorf("%s: %w", abi.ExportBuffer, err)
		}
		g.region, g.capacity = uint32(g.stack[0]), uint32(n)
		if g.region == 0 || g.region%8 != 0 {
			return nil, fmt.Errorf("%s(%d): %#x, expecting an 8-aligned address", abi.ExportBuffer, n, g.region)
		}
	}
	b, ok := g.mod.Memory().Read(g.region, g.capacity)
	if !ok {
		return nil, fmt.Errorf("%s(%d): the region lies outside memory", abi.ExportBuffer, n)
	}
	return b, nil
}

func (g *Guest) configure(ctx context.Context, config string) error {
	if g.cfg == nil {
		return fmt.Errorf("%s: the module does not export it, but there is a config", abi.ExportConfigure)
	}
	b, err := g.reserve(ctx, len(config))
	if err != nil {
		return err
	}
	copy(b, config)
	g.stack[0], g.stack[1] = uint64(g.region), uint64(len(config))
	if err := g.cfg.CallWithStack(ctx, g.stack[:]); err != nil {
		return fmt.Errorf("%s: %w", abi.ExportConfigure, err)
	}
	if code := int32(g.stack[0]); code < 0 {
		return fmt.Errorf("%s: refused with %d", abi.ExportConfigure, code)
	}
	return nil
}

// Load writes a batch into the guest's region and returns its length, for Call.
func (g *Guest) Load(ctx context.Context, timeMS int64, records []Record) (int, error) {
	size := abi.InputHeaderLen
	for _, r := range records {
		size += abi.RecordSize(len(r.Key), len(r.Data))
	}
	b, err := g.reserve(ctx, size)
	if err != nil {
		return 0, err
	}
	var w abi.InputWriter
	head := abi.InputHeader{Records: len(records), Shard: 3, BaseIndex: 1000, TimeMS: timeMS, BatchID: g.batches, Seed: 42, CPUBudgetMS: 100}
	if err := w.Begin(b, head); err != nil {
		return 0, err
	}
	for i, r := range records {
		if err := w.Record(1000+uint64(i), r.TimestampMS, []byte(r.Key), []byte(r.Data)); err != nil {
			return 0, err
		}
	}
	g.batches++
	g.h.timeMS, g.h.records = timeMS, records
	return w.Finish()
}

// Call runs weir_process on what Load wrote, without looking at the result.
func (g *Guest) Call(ctx context.Context, n int) (int64, error) {
	g.stack[0], g.stack[1] = uint64(g.region), uint64(n)
	err := g.process.CallWithStack(ctx, g.stack[:])
	return int64(g.stack[0]), err
}

// Process runs one batch and returns an outcome for each record.
func (g *Guest) Process(ctx context.Context, timeMS int64, records []Record, outputs int) ([]Outcome, error) {
	n, err := g.Load(ctx, timeMS, records)
	if err != nil {
		return nil, err
	}
	ret, err := g.Call(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", abi.ExportProcess, err)
	}
	res, err := g.result(ret, len(records), outputs)
	if err != nil {
		return nil, err
	}
	out := make([]Outcome, len(records))
	for i := range out {
		e := res.Entry(i)
		out[i].Status = e.Status
		switch e.Status {
		case abi.StatusFailed:
			text, code := res.Reason(e)
			out[i].Reason, out[i].Code = string(text), code
		case abi.StatusReplaced:
			if out[i].Outputs, err = g.outputs(res, int(e.Aux), int(e.Count), records); err != nil {
				return nil, err
			}
		}
	}
	return out, g.h.err
}

// Tick runs the guest's timer and returns what it emitted.
func (g *Guest) Tick(ctx context.Context, nowMS int64, outputs int) ([]Output, error) {
	if g.tk == nil {
		return nil, fmt.Errorf("%s: the module does not export it", abi.ExportTick)
	}
	g.h.timeMS, g.h.records = nowMS, nil
	g.stack[0] = uint64(nowMS)
	if err := g.tk.CallWithStack(ctx, g.stack[:]); err != nil {
		return nil, fmt.Errorf("%s: %w", abi.ExportTick, err)
	}
	res, err := g.result(int64(g.stack[0]), 0, outputs)
	if err != nil {
		return nil, err
	}
	return g.outputs(res, 0, res.Outputs(), nil)
}

func (g *Guest) result(ret int64, records, outputs int) (*abi.Result, error) {
	if ret < 0 {
		return nil, fmt.Errorf("%s: batch refused with %d", abi.ExportProcess, ret)
	}
	mem, _ := g.mod.Memory().Read(0, g.mod.Memory().Size())
	res, err := abi.DecodeResult(mem, ret, records)
	if err != nil {
		return nil, err
	}
	limits := abi.Limits{Streams: outputs, OutputBytes: 8 << 20, OutputRecords: 1 << 20, OutputsOfRecord: 16}
	return &res, res.Check(limits)
}

func (g *Guest) outputs(res *abi.Result, first, count int, records []Record) ([]Output, error) {
	out := make([]Output, count)
	for k := range out {
		var o abi.Output
		if err := res.Output(first+k, &o); err != nil {
			return nil, err
		}
		out[k] = resolve(&o, records)
	}
	return out, nil
}

func resolve(o *abi.Output, records []Record) Output {
	out := Output{Source: -1, Output: int(o.Stream), Key: string(o.Key), Data: string(o.Value), Parts: string(o.PartitionKey)}
	if o.Source == abi.None {
		return out
	}
	out.Source = int(o.Source)
	if o.InheritKey {
		out.Key = records[o.Source].Key
	}
	if o.InheritValue {
		out.Data = records[o.Source].Data
	}
	return out
}

// hostCalls are the imports of weir/1 by module and name. Each answers what
// ABI.md says for an unlimited grant.
var hostCalls = map[string]func(*Host, api.Memory, []uint64) uint64{
	"weir_log.write": func(h *Host, m api.Memory, s []uint64) uint64 {
		h.Log = append(h.Log, fmt.Sprintf("%s %s", [...]string{"debug", "info", "warn", "error"}[s[0]&3], text(h, m, s[1], s[2])))
		return 0
	},
	"weir_metric.define": func(h *Host, m api.Memory, s []uint64) uint64 {
		name := text(h, m, s[1], s[2])
		for i, n := range h.names {
			if n == name && h.kinds[i] == uint32(s[0]) {
				return uint64(i)
			}
		}
		h.names, h.kinds = append(h.names, name), append(h.kinds, uint32(s[0]))
		return uint64(len(h.names) - 1)
	},
	"weir_metric.add":     func(h *Host, _ api.Memory, s []uint64) uint64 { return h.metric(s, abi.MetricCounter, true) },
	"weir_metric.set":     func(h *Host, _ api.Memory, s []uint64) uint64 { return h.metric(s, abi.MetricGauge, false) },
	"weir_metric.observe": func(h *Host, _ api.Memory, s []uint64) uint64 { return h.metric(s, abi.MetricHistogram, true) },
	"weir_clock.now": func(h *Host, _ api.Memory, s []uint64) uint64 {
		if s[0] == abi.ClockMonotonic {
			return uint64(h.timeMS) * 1e6
		}
		return uint64(h.timeMS)
	},
	"weir_state.get": func(h *Host, m api.Memory, s []uint64) uint64 {
		v, ok := h.State[text(h, m, s[0], s[1])]
		if !ok {
			return code(abi.NotFound)
		}
		return answer(h, m, v, s[2], s[3], s[4])
	},
	"weir_state.put": func(h *Host, m api.Memory, s []uint64) uint64 {
		h.State[text(h, m, s[0], s[1])] = text(h, m, s[2], s[3])
		return 0
	},
	"weir_state.del": func(h *Host, m api.Memory, s []uint64) uint64 {
		delete(h.State, text(h, m, s[0], s[1]))
		return 0
	},
	"weir_state.incr": func(h *Host, m api.Memory, s []uint64) uint64 {
		k := text(h, m, s[0], s[1])
		var b [8]byte
		if v, ok := h.State[k]; ok && len(v) != len(b) {
			return code(abi.Invalid)
		} else if ok {
			copy(b[:], v)
		}
		sum := binary.LittleEndian.Uint64(b[:]) + s[2]
		binary.LittleEndian.PutUint64(b[:], sum)
		h.State[k] = string(b[:])
		if !m.WriteUint64Le(uint32(s[3]), sum) {
			h.fault("weir_state.incr", s[3])
		}
		return 0
	},
	"weir_state.scan": scan,
	"weir_emit.chunk": func(h *Host, m api.Memory, s []uint64) uint64 {
		mem, _ := m.Read(0, m.Size())
		res, err := abi.DecodeOutputs(mem, uint32(s[0]), uint32(s[1]), len(h.records))
		if err != nil {
			h.err = err
			return code(abi.Invalid)
		}
		for k := range res.Outputs() {
			var o abi.Output
			if h.err = res.Output(k, &o); h.err != nil {
				return code(abi.Invalid)
			}
			h.Chunks = append(h.Chunks, resolve(&o, h.records))
		}
		return 0
	},
	"weir_http.call": func(h *Host, m api.Memory, s []uint64) uint64 {
		if h.HTTP == nil {
			return code(abi.Denied)
		}
		status, body := h.HTTP(text(h, m, s[0], s[1]))
		if c := answer(h, m, body, s[2], s[3], s[4]); c != 0 {
			return c
		}
		return uint64(status)
	},
	"weir_http.enqueue": func(h *Host, m api.Memory, s []uint64) uint64 {
		h.Outbox = append(h.Outbox, text(h, m, s[0], s[1]))
		return 0
	},
}

func code(c abi.Code) uint64 { return uint64(uint32(c)) }

func (h *Host) fault(what string, ptr uint64) {
	h.err = errors.Join(h.err, fmt.Errorf("%s: address %#x lies outside memory", what, ptr))
}

func text(h *Host, m api.Memory, ptr, n uint64) string {
	b, ok := m.Read(uint32(ptr), uint32(n))
	if !ok {
		h.fault("host call", ptr)
	}
	return string(b)
}

// answer writes v into the guest's buffer and its length to *out.
func answer(h *Host, m api.Memory, v string, buf, capacity, out uint64) uint64 {
	if !m.WriteUint32Le(uint32(out), uint32(len(v))) {
		h.fault("host call", out)
	}
	if uint64(len(v)) > capacity {
		return code(abi.BufferTooSmall)
	}
	if !m.WriteString(uint32(buf), v) {
		h.fault("host call", buf)
	}
	return 0
}

func (h *Host) metric(s []uint64, kind uint32, add bool) uint64 {
	id := int(uint32(s[0]))
	if id >= len(h.names) || h.kinds[id] != kind && !(add && kind == abi.MetricCounter && h.kinds[id] == abi.MetricGauge) {
		return code(abi.Invalid)
	}
	v := math.Float64frombits(s[1])
	if add {
		v += h.Metrics[h.names[id]]
	}
	h.Metrics[h.names[id]] = v
	return 0
}

func scan(h *Host, m api.Memory, s []uint64) uint64 {
	prefix, after := text(h, m, s[0], s[1]), text(h, m, s[2], s[3])
	var keys []string
	for k := range h.State {
		if strings.HasPrefix(k, prefix) && (after == "" || k > after) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	var b []byte
	n := uint64(0)
	for _, k := range keys {
		v := h.State[k]
		if n == s[4] || uint64(len(b)+8+len(k)+len(v)) > s[6] {
			break
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(k)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		b = append(append(b, k...), v...)
		n++
	}
	if n == 0 && len(keys) > 0 {
		need := uint32(8 + len(keys[0]) + len(h.State[keys[0]]))
		if !m.WriteUint32Le(uint32(s[7]), need) {
			h.fault("weir_state.scan", s[7])
		}
		return code(abi.BufferTooSmall)
	}
	if c := answer(h, m, string(b), s[5], s[6], s[7]); c != 0 {
		return c
	}
	return n
}
