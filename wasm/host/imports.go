package host

import (
	"context"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// ValueType is a WebAssembly value type by its binary encoding.
type ValueType = api.ValueType

// Types of import functions' parameters and results.
const (
	I32 = api.ValueTypeI32
	I64 = api.ValueTypeI64
	F64 = api.ValueTypeF64
)

// ImportModule is a set of functions that guests import under one module
// name. A runtime offers all of its import modules to the guests that are
// granted them; each name is one capability.
type ImportModule struct {
	Name  string
	Funcs []ImportFunc
}

// ImportFunc is one function offered to guests. Func reads its parameters
// from stack, as many 64-bit slots as Params, and puts its results there from
// slot 0. It runs on the goroutine of the call, must not keep c or views of
// guest memory, and must not call into an instance. What waits for something
// outside of the process does so in Call.Block.
type ImportFunc struct {
	Name    string
	Params  []ValueType
	Results []ValueType
	Func    func(c *Call, stack []uint64)
}

// Call is what an import function sees of the call it serves: the guest's
// memory, what the instance's owner attached, limits. It is a
// context.Context: that of the running Function.Call with the limit
// Limits.Wall on top as its Deadline. It is valid until the import function
// returns.
type Call struct {
	ctx   context.Context
	inst  *Instance
	start time.Time
	until time.Time
	fuel  fuelState
	out   int64

	yielded time.Time // when the goroutine last let others run
}

// Deadline is the earlier of the caller's deadline and Limits.Wall.
func (c *Call) Deadline() (time.Time, bool) { return c.until, true }

// Done is the caller's; an import function that blocks must also watch Deadline.
func (c *Call) Done() <-chan struct{} { return c.ctx.Done() }

// Err is the caller's.
func (c *Call) Err() error { return c.ctx.Err() }

// Value is the caller's.
func (c *Call) Value(key any) any { return c.ctx.Value(key) }

// Instance is the calling instance.
func (c *Call) Instance() *Instance { return c.inst }

// User is InstanceOptions.User of the calling instance.
func (c *Call) User() any { return c.inst.o.User }

// Read returns n bytes of guest memory at ptr, or false when they are not all
// inside it. The slice is the memory itself, valid until the import function returns.
func (c *Call) Read(ptr, n uint32) ([]byte, bool) { return c.inst.Read(ptr, n) }

// Write copies b into guest memory at ptr; false, and nothing written, when it does not fit there.
func (c *Call) Write(ptr uint32, b []byte) bool { return c.inst.Write(ptr, b) }

// WriteUint32 stores v little-endian at ptr; false when that is outside the memory.
func (c *Call) WriteUint32(ptr, v uint32) bool {
	return c.Write(ptr, []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

// WriteUint64 stores v little-endian at ptr; false when that is outside the memory.
func (c *Call) WriteUint64(ptr uint32, v uint64) bool {
	return c.Write(ptr, []byte{
		byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24),
		byte(v >> 32), byte(v >> 40), byte(v >> 48), byte(v >> 56),
	})
}

// Abort ends the guest's call with err, which Function.Call returns wrapped
// in a CallError. It does not return.
func (c *Call) Abort(err error) {
	panic(&abort{err})
}

// Block runs fn, which waits for something outside of the process, while
// another guest may have the turn.
func (c *Call) Block(fn func()) {
	c.inst.m.r.turns.give()
	defer func() { c.inst.m.r.turns.slots <- struct{}{} }()
	fn()
}

// Output counts n bytes that the guest hands to the host against
// Limits.OutputBytes and ends the call with ErrOutput when they pass it.
func (c *Call) Output(n int) {
	c.out += int64(n)
	if c.out > c.inst.o.Limits.OutputBytes {
		c.Abort(limitError(ErrOutput, c.out, c.inst.o.Limits.OutputBytes, "bytes"))
	}
}

// Log hands a line of the guest's to InstanceOptions.Log, cut to
// Limits.LogLineBytes; lines above Limits.LogLinesPerSecond are counted and dropped.
func (c *Call) Log(level Level, line []byte) { c.inst.log(level, line) }
