package guest

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/host"
)

// Limits of single host calls.
const (
	MaxKeyBytes     = 1024
	MaxRequestBytes = 1 << 20
	maxScan         = 10000
)

// call is the body of one import function: arguments in, code out.
type call func(g *Guest, c *host.Call, p []uint64) abi.Code

// Imports are weir/1's import modules for host.Options. They serve the guests
// of this package: the instance's User is its *Guest.
func Imports() []host.ImportModule {
	bodies := map[string]call{
		"weir_log.write":      logWrite,
		"weir_metric.define":  metricDefine,
		"weir_metric.add":     metricOp(opAdd),
		"weir_metric.set":     metricOp(opSet),
		"weir_metric.observe": metricOp(opObserve),
		"weir_state.get":      stateGet,
		"weir_state.put":      statePut,
		"weir_state.del":      stateDelete,
		"weir_state.incr":     stateIncr,
		"weir_state.scan":     stateScan,
		"weir_emit.chunk":     emitChunk,
		"weir_http.call":      httpCall,
		"weir_http.enqueue":   httpEnqueue,
	}
	var modules []host.ImportModule
	for _, f := range abi.Imports() {
		if len(modules) == 0 || modules[len(modules)-1].Name != f.Module {
			modules = append(modules, host.ImportModule{Name: f.Module})
		}
		m := &modules[len(modules)-1]
		fn := host.ImportFunc{Name: f.Name, Params: types(f.Params), Results: types(f.Results)}
		if body := bodies[f.Module+"."+f.Name]; body != nil {
			fn.Func = func(c *host.Call, stack []uint64) {
				stack[0] = uint64(uint32(body(c.User().(*Guest), c, stack)))
			}
		} else {
			fn.Func = func(c *host.Call, stack []uint64) { stack[0] = uint64(c.User().(*Guest).clock(uint32(stack[0]))) }
		}
		m.Funcs = append(m.Funcs, fn)
	}
	return modules
}

func types(v []abi.ValueType) []host.ValueType {
	out := make([]host.ValueType, len(v))
	for i, t := range v {
		out[i] = host.ValueType(t)
	}
	return out
}

// clock is weir_clock.now.
func (g *Guest) clock(kind uint32) int64 {
	real := g.o.Manifest.Capabilities.RealClock
	switch {
	case kind == abi.ClockMonotonic && real:
		return int64(g.o.Now().Sub(g.started))
	case kind == abi.ClockMonotonic:
		return g.timeMS * int64(time.Millisecond)
	case kind == abi.ClockWall && real:
		return g.o.Now().UnixMilli()
	}
	return g.timeMS
}

func logWrite(_ *Guest, c *host.Call, p []uint64) abi.Code {
	line, ok := c.Read(uint32(p[1]), uint32(p[2]))
	if !ok || uint32(p[0]) > abi.LogError {
		return abi.Invalid
	}
	before := c.Instance().LogLinesDropped()
	c.Charge(64)
	c.Log(host.Level(p[0]), line)
	if c.Instance().LogLinesDropped() != before {
		return abi.Quota
	}
	return 0
}

func metricDefine(g *Guest, c *host.Call, p []uint64) abi.Code {
	name, ok := c.Read(uint32(p[1]), uint32(p[2]))
	if !ok || g.o.Services.Metrics == nil {
		return abi.Invalid
	}
	return g.o.Services.Metrics.define(uint32(p[0]), string(name[:min(len(name), maxMetricName+1)]))
}

func metricOp(op metricOperation) call {
	return func(g *Guest, _ *host.Call, p []uint64) abi.Code {
		return g.pending.add(g.o.Services.Metrics, int32(p[0]), op, math.Float64frombits(p[1]))
	}
}

// key reads a state key argument.
func key(c *host.Call, ptr, n uint64) ([]byte, bool) {
	if uint32(n) == 0 || uint32(n) > MaxKeyBytes {
		return nil, false
	}
	return c.Read(uint32(ptr), uint32(n))
}

// answerBytes writes b to the guest's buffer and its length to out, or says
// how large the buffer must be.
func answerBytes(c *host.Call, b []byte, buf, capacity, out uint64) abi.Code {
	if !c.WriteUint32(uint32(out), uint32(len(b))) {
		return abi.Invalid
	}
	if uint32(len(b)) > uint32(capacity) {
		return abi.BufferTooSmall
	}
	if !c.Write(uint32(buf), b) {
		return abi.Invalid
	}
	c.Charge(uint64(len(b)) / 8)
	return 0
}

// stateFuel is what a state call costs beside its bytes: a map or table lookup.
const stateFuel = 500

// stateAt returns the module's state and the key that the first two arguments
// name, or no state and why not.
func stateAt(g *Guest, c *host.Call, p []uint64) (s State, k []byte, no abi.Code) {
	k, ok := key(c, p[0], p[1])
	if !ok {
		return nil, nil, abi.Invalid
	}
	if s = g.o.Services.State; s == nil {
		return nil, nil, abi.Denied
	}
	c.Charge(stateFuel)
	return s, k, 0
}

func stateGet(g *Guest, c *host.Call, p []uint64) abi.Code {
	s, k, no := stateAt(g, c, p)
	if s == nil {
		return no
	}
	v, found, err := s.Get(k)
	if err != nil {
		c.Abort(err)
	}
	if !found {
		return abi.NotFound
	}
	return answerBytes(c, v, p[2], p[3], p[4])
}

func statePut(g *Guest, c *host.Call, p []uint64) abi.Code {
	k, ok := key(c, p[0], p[1])
	v, ok2 := c.Read(uint32(p[2]), uint32(p[3]))
	if !ok || !ok2 {
		return abi.Invalid
	}
	s := g.o.Services.State
	if s == nil {
		return abi.Denied
	}
	if int64(len(v)) > g.o.Limits.StateValueBytes {
		return abi.Quota
	}
	c.Charge(stateFuel + uint64(len(v))/8)
	return s.Put(k, v)
}

func stateDelete(g *Guest, c *host.Call, p []uint64) abi.Code {
	s, k, no := stateAt(g, c, p)
	if s == nil {
		return no
	}
	return s.Delete(k)
}

func stateIncr(g *Guest, c *host.Call, p []uint64) abi.Code {
	s, k, no := stateAt(g, c, p)
	if s == nil {
		return no
	}
	old, found, err := s.Get(k)
	if err != nil {
		c.Abort(err)
	}
	v := int64(0)
	if found {
		var ok bool
		if v, ok = Int64(old); !ok {
			return abi.Invalid
		}
	}
	v += int64(p[2])
	if !c.WriteUint64(uint32(p[3]), uint64(v)) {
		return abi.Invalid
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(v))
	return s.Put(k, b[:])
}

// stateScan packs entries into the guest's buffer until it is full.
func stateScan(g *Guest, c *host.Call, p []uint64) abi.Code {
	prefix, ok := c.Read(uint32(p[0]), uint32(p[1]))
	after, ok2 := c.Read(uint32(p[2]), uint32(p[3]))
	buf, ok3 := c.Read(uint32(p[5]), uint32(p[6]))
	limit := uint32(p[4])
	if !ok || !ok2 || !ok3 || len(prefix) > MaxKeyBytes || len(after) > MaxKeyBytes || limit == 0 {
		return abi.Invalid
	}
	s := g.o.Services.State
	if s == nil {
		return abi.Denied
	}
	c.Charge(4 * stateFuel)
	// The guest's buffer may overlap its arguments.
	prefix, after = bytes.Clone(prefix), bytes.Clone(after)
	used, count, need := 0, 0, 0
	err := s.Scan(prefix, after, int(min(limit, maxScan)), func(k, v []byte) bool {
		n := 8 + len(k) + len(v)
		if used+n > len(buf) {
			need = n
			return false
		}
		binary.LittleEndian.PutUint32(buf[used:], uint32(len(k)))
		binary.LittleEndian.PutUint32(buf[used+4:], uint32(len(v)))
		copy(buf[used+8:], k)
		copy(buf[used+8+len(k):], v)
		used += n
		count++
		return true
	})
	if err != nil {
		c.Abort(err)
	}
	c.Charge(uint64(count)*stateFuel + uint64(used)/8)
	if count == 0 && need > 0 {
		if !c.WriteUint32(uint32(p[7]), uint32(need)) {
			return abi.Invalid
		}
		return abi.BufferTooSmall
	}
	if !c.WriteUint32(uint32(p[7]), uint32(used)) {
		return abi.Invalid
	}
	return abi.Code(count)
}

func emitChunk(g *Guest, c *host.Call, p []uint64) abi.Code {
	e := g.o.Services.Emit
	if e == nil {
		return abi.Denied
	}
	mem, _ := c.Read(0, uint32(c.Instance().MemoryBytes()))
	r, err := abi.DecodeOutputs(mem, uint32(p[0]), uint32(p[1]), g.records)
	if err == nil {
		l := g.limits
		l.OutputRecords = math.MaxInt
		err = r.Check(l)
	}
	if err != nil {
		return abi.Invalid
	}
	size := 0
	var o abi.Output
	for k := range r.Outputs() {
		if r.Output(k, &o) == nil {
			size += len(o.Key) + len(o.Value) + abi.OutputEntryLen
		}
	}
	c.Output(size)
	c.Charge(uint64(size)/8 + uint64(r.Outputs())*64)
	return e.EmitChunk(&r)
}

// httpFuel is what a request costs in fuel; its time counts against the wall limit.
const httpFuel = 100_000

func httpCall(g *Guest, c *host.Call, p []uint64) abi.Code {
	if g.o.Services.HTTP == nil {
		return abi.Denied
	}
	req, ok := c.Read(uint32(p[0]), uint32(p[1]))
	if !ok {
		return abi.Invalid
	}
	if len(req) > 0 {
		if len(req) > MaxRequestBytes || g.calls >= g.o.Limits.HTTPCalls {
			return abi.Quota
		}
		g.calls++
		c.Charge(httpFuel)
		c.Block(func() { g.parked, g.parkCode = g.o.Services.HTTP.Call(c, req) })
		if g.parkCode < 0 {
			g.parked = nil
			return abi.Code(g.parkCode)
		}
	} else if g.parked == nil {
		return abi.NotFound
	}
	if code := answerBytes(c, g.parked, p[2], p[3], p[4]); code != 0 {
		return code
	}
	g.parked = nil
	return abi.Code(g.parkCode)
}

func httpEnqueue(g *Guest, c *host.Call, p []uint64) abi.Code {
	if g.o.Services.Outbox == nil {
		return abi.Denied
	}
	req, ok := c.Read(uint32(p[0]), uint32(p[1]))
	if !ok {
		return abi.Invalid
	}
	if len(req) > MaxRequestBytes || g.calls >= g.o.Limits.HTTPCalls {
		return abi.Quota
	}
	g.calls++
	c.Charge(stateFuel + uint64(len(req))/8)
	return g.o.Services.Outbox.Enqueue(req)
}
