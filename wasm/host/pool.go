package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// When an instance that never failed is replaced all the same.
const (
	recycleCalls = 10_000
	recycleAge   = time.Hour
)

// Worn says why the instance should be replaced before its next batch, or is
// "": it failed, its memory passed three quarters of its limit, it served
// 10,000 calls, or it is an hour old. Guests leak, and linear memory never shrinks.
func (i *Instance) Worn() string {
	switch {
	case !i.Healthy():
		return "failed"
	case i.MemoryBytes() > i.o.Limits.MemoryBytes/4*3:
		return "memory"
	case i.calls >= recycleCalls:
		return "calls"
	case time.Since(i.started) >= recycleAge:
		return "age"
	}
	return ""
}

// Pool keeps a bounded number of instances of one module for callers that
// need any of them, and no state in between. It owns its instances: all of
// them are closed by Put, when worn, or by Close.
type Pool struct {
	m       *Module
	options func() InstanceOptions
	slots   chan struct{} // one token for each instance that may still be handed out

	mu struct {
		sync.Mutex
		idle     []*Instance
		recycled map[string]uint64
		made     uint64
		closed   bool
	}
}

// NewPool returns a pool of at most size instances, made when they are first
// needed. options is asked for each new instance.
func (m *Module) NewPool(size int, options func() InstanceOptions) *Pool {
	p := &Pool{m: m, options: options, slots: make(chan struct{}, size)}
	p.mu.recycled = map[string]uint64{}
	for range size {
		p.slots <- struct{}{}
	}
	return p
}

// Get returns an instance for the caller alone, an idle one or a new one. When
// all are out it waits for a Put or for ctx. Each Get that succeeds needs a Put.
func (p *Pool) Get(ctx context.Context) (*Instance, error) {
	select {
	case <-p.slots:
	case <-ctx.Done():
		return nil, fmt.Errorf("get an instance: %w", ctx.Err())
	}
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		p.slots <- struct{}{}
		return nil, fmt.Errorf("get an instance: pool: %w", ErrClosed)
	}
	if n := len(p.mu.idle); n > 0 {
		i := p.mu.idle[n-1]
		p.mu.idle = p.mu.idle[:n-1]
		p.mu.Unlock()
		return i, nil
	}
	p.mu.made++
	p.mu.Unlock()
	i, err := p.m.Instantiate(ctx, p.options())
	if err != nil {
		p.slots <- struct{}{}
		return nil, err
	}
	return i, nil
}

// Put gives an instance back. A worn one is closed.
func (p *Pool) Put(i *Instance) error {
	why := i.Worn()
	p.mu.Lock()
	keep := why == "" && !p.mu.closed
	if keep {
		p.mu.idle = append(p.mu.idle, i)
	} else if why != "" {
		p.mu.recycled[why]++
	}
	p.mu.Unlock()
	var err error
	if !keep {
		err = i.Close()
	}
	p.slots <- struct{}{}
	return err
}

// PoolStats is what a pool has done.
type PoolStats struct {
	Size, Idle int
	Made       uint64            // instances made, successfully or not
	Recycled   map[string]uint64 // by Instance.Worn
}

// Stats returns the pool's figures.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PoolStats{Size: cap(p.slots), Idle: len(p.mu.idle), Made: p.mu.made, Recycled: map[string]uint64{}}
	for why, n := range p.mu.recycled {
		s.Recycled[why] = n
	}
	return s
}

// Close closes the idle instances and makes Get fail; those that are out are
// closed by their Put.
func (p *Pool) Close() error {
	p.mu.Lock()
	idle := p.mu.idle
	p.mu.idle, p.mu.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, i := range idle {
		errs = append(errs, i.Close())
	}
	return errors.Join(errs...)
}
