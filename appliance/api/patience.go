package api

import (
	"context"
	"time"
)

// Patience is a context that ends some time after it is first waited on. Most
// requests never wait, and cost no timer. It is used by one goroutine, from Begin
// to End, and can then be used again.
type Patience struct {
	context.Context
	wait   time.Duration
	waits  context.Context
	cancel context.CancelFunc
}

// Begin makes p a child of parent that waits for d at most.
func (p *Patience) Begin(parent context.Context, d time.Duration) context.Context {
	*p = Patience{Context: parent, wait: d}
	return p
}

// End frees what waiting took. p must not be waited on any more.
func (p *Patience) End() {
	if p.cancel != nil {
		p.cancel()
	}
	*p = Patience{Context: context.Background()}
}

// Done starts the time when it is first called.
func (p *Patience) Done() <-chan struct{} {
	if p.waits == nil {
		p.waits, p.cancel = context.WithTimeout(p.Context, p.wait)
	}
	return p.waits.Done()
}

// Err is that of the waiting, or of the parent as long as nobody has waited.
func (p *Patience) Err() error {
	if p.waits != nil {
		return p.waits.Err()
	}
	return p.Context.Err()
}
