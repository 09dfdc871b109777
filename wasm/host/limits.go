package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// fuelState is the fuel account of one call.
type fuelState struct {
	used uint64
}

// Charge takes n units from the call's fuel for work the host does for the
// guest, about one unit per 8 bytes touched, and ends the call with ErrFuel
// when none is left.
func (c *Call) Charge(n uint64) {
	c.fuel.used += n
	if limit := c.inst.o.Limits.Fuel; c.fuel.used > limit {
		c.Abort(limitError(ErrFuel, c.fuel.used, limit, "units"))
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
	i.call = Call{ctx: ctx, inst: i, start: now, until: until}
	i.calls++
}

// end closes the account of a call that returned.
func (i *Instance) end() { i.call.ctx = context.Background() }

// FuelUsed is the fuel that the last call used.
func (i *Instance) FuelUsed() uint64 { return i.call.fuel.used }

// fail turns what wazero returned into a CallError and condemns the instance.
func (i *Instance) fail(function string, err error) error {
	e := &CallError{Function: function, Fuel: i.call.fuel.used}
	text, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n\t")
	e.Trace = strings.ReplaceAll(trace, "\n\t", "\n")
	text = strings.TrimPrefix(text, "wasm error: ")
	var a *abort
	switch {
	case errors.As(err, &a):
		e.Err = a.err
	case i.linear.refused:
		e.Err = fmt.Errorf("%w, then %w: %s", i.linear.refusal(), ErrTrap, text)
	case text == "stack overflow":
		e.Err = limitError(ErrDepth, i.o.Limits.Depth, i.o.Limits.Depth, "nested calls")
	default:
		e.Err = fmt.Errorf("%w: %s", ErrTrap, text)
	}
	i.dead = e
	i.end()
	return e
}
