package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirhq/weir/wasm/meter"
)

// fuelState is the fuel account of one call. What the guest was granted last
// and has not used yet is in its fuel global.
type fuelState struct {
	used    uint64 // without what was granted last
	granted int32
}

// yieldEvery is how long a guest runs before its goroutine lets others run.
const yieldEvery = time.Millisecond

// tickModule is the import that the metered module calls when its grant is
// used up: the one place where limits of running code are looked at.
func tickModule() ImportModule {
	return ImportModule{Name: meter.ImportModule, Funcs: []ImportFunc{{
		Name: meter.ImportTick, Params: []ValueType{I32}, Results: []ValueType{I32},
		Func: func(c *Call, stack []uint64) { stack[0] = uint64(uint32(c.tick(int32(stack[0])))) },
	}}}
}

// tick takes what the guest had left of its grant, at most 0, and grants more or ends the call.
func (c *Call) tick(left int32) int32 {
	c.settle(left)
	if err := c.exceeded(); err != nil {
		c.Abort(err)
	}
	c.fuel.granted = int32(min(uint64(c.inst.m.r.grant), c.inst.o.Limits.Fuel-c.fuel.used))
	return c.fuel.granted
}

// settle books the last grant.
func (c *Call) settle(left int32) {
	c.fuel.used += uint64(int64(c.fuel.granted) - int64(left))
	c.fuel.granted = 0
}

// exceeded looks at every limit of the call, and lets other goroutines run when it is their turn.
func (c *Call) exceeded() error {
	if limit := c.inst.o.Limits.Fuel; c.fuel.used >= limit {
		return fmt.Errorf("%w: the limit is %d units", ErrFuel, limit)
	}
	if err := c.ctx.Err(); err != nil {
		return c.contextError(err)
	}
	now := time.Now()
	if !now.Before(c.until) {
		return fmt.Errorf("%w: %v; the limit is %v", ErrDeadline, now.Sub(c.start).Round(time.Millisecond), c.until.Sub(c.start).Round(time.Millisecond))
	}
	if now.Sub(c.yielded) >= yieldEvery {
		waited := c.inst.m.r.turns.yield()
		c.until = c.until.Add(waited)
		c.yielded = time.Now()
	}
	return nil
}

func (c *Call) contextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: the caller's", ErrDeadline)
	}
	return fmt.Errorf("%w: %w", ErrCanceled, err)
}

// Charge takes n units from the call's fuel for work the host does for the
// guest, about one unit per 8 bytes touched, and ends the call with ErrFuel
// when none is left.
func (c *Call) Charge(n uint64) {
	c.fuel.used += n
	if limit := c.inst.o.Limits.Fuel; c.fuel.used > limit {
		c.Abort(fmt.Errorf("%w: the limit is %d units", ErrFuel, limit))
	}
}

// begin sets the limits of one call.
func (i *Instance) begin(ctx context.Context) {
	now := time.Now()
	until := now.Add(i.o.Limits.Wall)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	i.linear.refused = false
	i.call = Call{ctx: ctx, inst: i, start: now, yielded: now, until: until}
	i.call.fuel.granted = int32(min(uint64(i.m.r.grant), i.o.Limits.Fuel))
	i.fuel.Set(uint64(uint32(i.call.fuel.granted)))
	i.calls++
}

// end closes the account of a call.
func (i *Instance) end() {
	i.call.settle(int32(uint32(i.fuel.Get())))
	i.call.ctx = context.Background()
}

// FuelUsed is the fuel that the last call used, to within a stretch of straight code.
func (i *Instance) FuelUsed() uint64 { return i.call.fuel.used }

// fail turns what wazero returned into a CallError and condemns the instance.
func (i *Instance) fail(function string, err error) error {
	i.end()
	e := &CallError{Function: function, Fuel: i.call.fuel.used}
	text, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n\t")
	e.Trace = strings.ReplaceAll(trace, "\n\t", "\n")
	text = strings.TrimPrefix(text, "wasm error: ")
	var a *abort
	switch {
	case errors.As(err, &a):
		e.Err = a.err
	case int32(uint32(i.depth.Get())) < 0 || text == "stack overflow":
		e.Err = fmt.Errorf("%w: the limit is %d nested calls", ErrDepth, i.o.Limits.Depth)
	case i.linear.refused:
		e.Err = fmt.Errorf("%w, then %w: %s", i.linear.refusal(), ErrTrap, text)
	default:
		e.Err = fmt.Errorf("%w: %s", ErrTrap, text)
	}
	i.dead = e
	return e
}
