package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirhq/weir/storage"
)

// window is how many recipes may be sealed and not finished. More would only
// fix names early: what is not sealed is as safe.
func recipeWindow(sink Sink) int {
	if _, ok := sink.(ObjectSink); ok {
		return 2
	}
	return 1
}

// lane seals and sends one sequence of recipes.
type lane struct {
	w       *worker
	def     *definition
	binds   *bindings
	name    Lane
	collect *collector
	taker   *taker
	queue   chan *job
	slots   chan struct{} // a token for each recipe sealed and not finished
	probe   chan struct{} // held by the one attempt while the circuit is open
	flush   chan struct{} // of the worker
	splits  bool          // a backlog gets a lane of its own
	backlog []*job        // recovered
}

// newLane makes a lane. limit is what the lanes of a stream with a rate of its
// own share; nil without one.
func newLane(w *worker, def *definition, binds *bindings, name Lane, cur cursor, limit *link) *lane {
	bind := binds.current
	n := recipeWindow(bind.sink)
	l := &lane{w: w, def: def, binds: binds, name: name, queue: make(chan *job, n), slots: make(chan struct{}, n), probe: make(chan struct{}, 1), flush: w.flush}
	u := &def.Config.Uplink
	weight := 100.0
	if cur.Live != nil {
		weight = float64(100 - u.LivePercent)
		if name == LiveLane {
			weight = float64(u.LivePercent)
		}
	}
	l.taker = &taker{priority: u.Priority, weight: weight}
	if limit != nil {
		l.taker.before, l.taker.account = limit, &taker{weight: weight}
	}
	l.collect = &collector{
		store: w.engine.store, stream: bind.stream, config: &bind.config, clock: w.engine.clock, lane: name,
		prefix: bind.data, frozen: name == MainLane && cur.Live != nil, lost: w.lost,
	}
	l.splits = u.LivePercent > 0 && cur.Live == nil
	if name == LiveLane {
		l.flush = w.flushLive
		l.collect.load(cur.Live)
	} else {
		l.collect.load(cur.Shards)
	}
	return l
}

// recover takes up a recipe that an earlier run sealed.
func (l *lane) recover(r *Recipe) {
	j := l.job(r)
	l.w.mu.Lock()
	j.clear = l.w.mu.clear[r.Number]
	l.w.mu.Unlock()
	j.before = !j.clear
	l.backlog = append(l.backlog, j)
}

func (l *lane) job(r *Recipe) *job {
	bind := l.binds.current
	if b := l.binds.older[r.Version]; b != nil {
		bind = b
	}
	j := &job{engine: l.w.engine, def: l.def, bind: bind, recipe: r, taker: l.taker, stats: &l.w.stats, clear: true}
	j.spent = func(ctx context.Context, n int) error { return l.w.spend(ctx, j, n) }
	return j
}

func (l *lane) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range cap(l.slots) {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case j := <-l.queue:
					if err := l.deliver(ctx, j); err != nil {
						return err
					}
					<-l.slots
				}
			}
		})
	}
	g.Go(func() error { return l.sealer(ctx) })
	return g.Wait()
}

// enqueue waits for a slot and hands a recipe to the senders.
func (l *lane) enqueue(ctx context.Context, j *job) error {
	select {
	case l.queue <- j: // never blocks: the queue has room for each slot
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lane) slot(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sealer feeds the senders: first what was sealed before, then new batches.
func (l *lane) sealer(ctx context.Context) error {
	defer l.collect.close()
	for _, j := range l.backlog {
		if err := l.slot(ctx); err != nil {
			return err
		}
		if err := l.enqueue(ctx, j); err != nil {
			return err
		}
	}
	l.backlog = nil
	for {
		if err := l.slot(ctx); err != nil {
			return err
		}
		r, err := l.next(ctx)
		if err != nil {
			return err
		}
		if err := l.enqueue(ctx, l.job(r)); err != nil {
			return err
		}
	}
}

// next gathers until a batch is due and seals it.
func (l *lane) next(ctx context.Context) (*Recipe, error) {
	c := l.collect
	if cur := l.w.copyCursor(); l.splits && l.w.hasBacklog(l.def, c.stream, &cur) {
		return nil, l.awaitDrained(ctx)
	}
	flushing := false
	for {
		c.most = l.w.batchBytes(&l.def.Config, l.binds.current.inJSON())
		c.discover()
		if err := c.scan(); err != nil {
			if err = l.pause(ctx, "read the log", err); err != nil {
				return nil, err
			}
			continue
		}
		if c.isDue() || flushing && !c.oldest.IsZero() {
			r, err := l.w.seal(ctx, l.def, l.name, l.binds.current.module(), c)
			if err == nil && r != nil {
				return r, nil
			}
			if err != nil {
				if err = l.pause(ctx, "seal", err); err != nil {
					return nil, err
				}
			}
			continue
		}
		if _, changed := c.sealed(); changed && c.oldest.IsZero() {
			if _, err := l.w.seal(ctx, l.def, l.name, "", c); err != nil {
				if err = l.pause(ctx, "seal", err); err != nil {
					return nil, err
				}
			}
			continue
		}
		if c.frozen && c.finished() {
			return nil, l.awaitDrained(ctx)
		}
		flushing = false
		poke := make(chan struct{}, 1)
		if err := c.waitFlush(ctx, l.flush, poke); err != nil {
			if err = l.pause(ctx, "wait for records", err); err != nil {
				return nil, err
			}
		}
		select {
		case <-poke:
			flushing = true
		default:
		}
	}
}

// awaitDrained ends the run, for the lanes to be laid anew, once all that the
// lane sealed is finished.
func (l *lane) awaitDrained(ctx context.Context) error {
	for range cap(l.slots) - 1 {
		if err := l.slot(ctx); err != nil {
			return err
		}
	}
	return errRestart
}

// waitFlush is wait with flush requests: one is passed on to poke.
func (c *collector) waitFlush(ctx context.Context, flush <-chan struct{}, poke chan struct{}) error {
	wake := make(chan struct{}, 1)
	inner, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-flush:
			poke <- struct{}{}
			wake <- struct{}{}
		case <-inner.Done():
		}
	}()
	err := c.wait(ctx, wake)
	cancel()
	<-done
	return err
}

// waits remembers when each kind of trouble was logged, so that one which lasts, such as
// a disk that takes no writes, is not a line a second on a disk that wears.
type waits struct {
	mu   sync.Mutex
	told map[string]time.Time // by what was being done: a handful
}

// tell says whether the trouble is to be logged now: the first time, and again every minute.
func (x *waits) tell(doing string, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if last, ok := x.told[doing]; ok && now.Sub(last) < time.Minute {
		return false
	}
	if x.told == nil {
		x.told = map[string]time.Time{}
	}
	x.told[doing] = now
	return true
}

// pause waits after trouble that has nothing to do with a sink.
func (l *lane) pause(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrClosed) || errors.Is(err, storage.ErrOutcomeUnknown) {
		return err
	}
	if l.w.waits.tell(doing, l.w.engine.clock.Now()) {
		l.w.log.Warn("delivery waits", "doing", doing, "error", err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.w.engine.clock.After(time.Second):
		return nil
	}
}
