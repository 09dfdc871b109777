package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// deliver tries until the recipe is delivered and finished.
func (l *lane) deliver(ctx context.Context, j *job) error {
	for {
		if err := l.attempt(ctx, j); err == nil {
			break
		} else if ctx.Err() != nil {
			return ctx.Err()
		}
		j.attempt++
	}
	for {
		err := l.w.finish(ctx, j)
		if err == nil {
			return nil
		}
		if err = l.pause(ctx, "finish", err); err != nil {
			return err
		}
	}
}

// attempt waits for its turn and makes one attempt.
func (l *lane) attempt(ctx context.Context, j *job) error {
	leave, err := l.gate(ctx, j)
	if err != nil {
		return err
	}
	defer leave()
	m, columns := l.w.engine.memory, l.w.stats.columns.Load()
	j.columns = columns
	j.workers = j.bind.workers(j.recipe, l.w.engine.options.Workers, columns, m.share())
	release, err := m.acquire(ctx, j.bind.memory(j.recipe, j.workers, columns), l.w.failing())
	if err != nil {
		return err
	}
	l.w.mu.Lock()
	delete(l.w.mu.clear, j.recipe.Number)
	l.w.mu.Unlock()
	start := l.w.engine.clock.Now()
	err = j.run(ctx)
	release()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && j.short.Load() {
		// No failure of the sink: the next attempt waits for budget.
		l.w.stats.retry("Delivery.MonthlyBudget", 1)
		l.w.log.Warn("delivery attempt cut short, it took more than was left of the monthly byte budget", "recipe", j.recipe.Number, "sent", j.sent.Load())
		return errBudget
	}
	if errors.Is(err, errWider) {
		return err // nor is this: the next attempt takes the memory that it needs
	}
	if err == nil {
		l.w.succeeded(start)
		return nil
	}
	l.w.failed(j, err)
	return err
}

// gate waits for the upload window, for budget, and for the sink's circuit.
func (l *lane) gate(ctx context.Context, j *job) (leave func(), err error) {
	w := l.w
	windows, err := parseWindows(l.def.Config.Uplink.Windows)
	if err != nil {
		return nil, err
	}
	held, end := false, func() {}
	limit := l.def.Config.Uplink.MonthlyBytes
	leave = func() {
		w.release(j)
		w.holdBack(j, "")
		end()
		if held {
			<-l.probe
		}
	}
	for {
		now := w.engine.clock.Now()
		local := w.engine.calendar().In(j.bind.zone)
		pause, why := time.Duration(0), ""
		var healed <-chan struct{}
		if d := untilOpen(windows, local); d > 0 {
			pause, why = d, "outside of its upload windows"
		} else if d, short := w.reserve(j, local, limit); d > 0 {
			pause, why = d, short
		} else if pause, healed = w.sinkPause(now); pause > 0 {
			w.release(j) // others may have it meanwhile
		}
		w.holdBack(j, why)
		if pause == 0 {
			if w.failing() && !held {
				select {
				case l.probe <- struct{}{}:
					held = true
					continue // the other attempt may have changed everything
				case <-ctx.Done():
					leave()
					return nil, ctx.Err()
				}
			}
			end = w.begin()
			return leave, nil
		}
		select {
		case <-ctx.Done():
			leave()
			return nil, ctx.Err()
		case <-healed:
		case <-w.engine.clock.After(min(pause, time.Minute)):
		}
	}
}

// reserve keeps the part of the monthly budget that an attempt should take, unless
// it has it already. It returns how long until there is so much, and says why for
// people; 0 when there is.
func (w *worker) reserve(j *job, now time.Time, limit int64) (pause time.Duration, why string) {
	if limit == 0 {
		return 0, ""
	}
	b := w.holdBudget()
	defer func() { w.giveBudget(b) }()
	if j.reserved > 0 { // looked at here: a request that failed may still be read from, and spend
		return 0, ""
	}
	need := max(b.expected(j.recipe.Bytes(), j.bind.inJSON()), j.least)
	if j.least > limit {
		return nextMonth(now).Sub(now), fmt.Sprintf("the batch takes %d bytes or more, and the monthly byte budget is %d: uplink.monthly_bytes has to be higher", j.least, limit)
	}
	if d := b.untilBudget(now, limit, need); d > 0 {
		return d, b.short(now, limit, need)
	}
	j.reserved = min(need, limit)
	j.sent.Store(0)
	j.short.Store(false)
	b.reserved += j.reserved
	return 0, ""
}

// release gives back what an attempt has reserved and not sent.
func (w *worker) release(j *job) {
	b := w.holdBudget()
	b.reserved -= j.reserved
	j.reserved = 0
	w.giveBudget(b)
}
