package host

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// turns bounds how many guests are in their code at the same moment. Those that
// wait get their turn in the order they came.
type turns struct {
	slots   chan struct{} // holds one token for each turn taken
	waiting atomic.Int32
}

// take waits for a turn.
func (t *turns) take(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
	}
	t.waiting.Add(1)
	defer t.waiting.Add(-1)
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *turns) give() { <-t.slots }

// yield lets other goroutines run, and other guests if any wait for a turn. It
// returns how long it waited for another turn.
func (t *turns) yield() time.Duration {
	if t.waiting.Load() == 0 {
		runtime.Gosched()
		return 0
	}
	start := time.Now()
	t.give()
	t.slots <- struct{}{} // no longer than others' turns: those end, or yield, within a millisecond or so
	return time.Since(start)
}

// processors is what GOMAXPROCS was before it was raised for a spare one.
var processors struct {
	sync.Mutex
	before int // 0: not raised
}

// usable is how many guests may run side by side.
func usable() int {
	processors.Lock()
	defer processors.Unlock()
	if processors.before > 0 {
		return processors.before
	}
	return runtime.GOMAXPROCS(0)
}

// spare raises GOMAXPROCS by one, once in the life of the process.
func spare() {
	processors.Lock()
	defer processors.Unlock()
	if processors.before == 0 {
		processors.before = runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(processors.before + 1)
	}
}
