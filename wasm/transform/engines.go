package transform

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
)

// GuestEngines are engines for modules that speak weir/1: a pool of instances.
// It owns the module and closes it with Close.
type GuestEngines struct {
	module *host.Module
	pool   *host.Pool
}

var _ Engines = (*GuestEngines)(nil)

// NewGuestEngines returns at most instances engines of the module, each with
// the guest options that options returns.
func NewGuestEngines(m *host.Module, instances int, options func() guest.Options) (*GuestEngines, error) {
	if err := guest.Check(m); err != nil {
		return nil, errors.Join(err, m.Close(context.Background()))
	}
	pool := m.NewPool(instances, func() host.InstanceOptions { return guest.New(options()).InstanceOptions() })
	return &GuestEngines{module: m, pool: pool}, nil
}

// Get implements Engines. The error may be guest.ErrConfigure.
func (e *GuestEngines) Get(ctx context.Context) (Engine, error) {
	inst, err := e.pool.Get(ctx)
	if err != nil {
		return nil, err
	}
	g := inst.User().(*guest.Guest)
	if g.Bound() {
		return g, nil
	}
	if err := g.Bind(ctx, inst); err != nil {
		inst.Discard(err)
		return nil, errors.Join(err, e.pool.Put(inst))
	}
	return g, nil
}

// Put implements Engines.
func (e *GuestEngines) Put(engine Engine) {
	// Closing an instance frees its mapping; a failure changes nothing for the caller.
	_ = e.pool.Put(engine.(*guest.Guest).Instance())
}

// Close implements Engines. All engines have been put back.
func (e *GuestEngines) Close() error {
	if err := errors.Join(e.pool.Close(), e.module.Close(context.Background())); err != nil {
		return fmt.Errorf("close module: %w", err)
	}
	return nil
}

// Stats returns what the pool has done.
func (e *GuestEngines) Stats() host.PoolStats { return e.pool.Stats() }
