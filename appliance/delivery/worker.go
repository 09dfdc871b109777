package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// worker moves one delivery stream. Its run is started anew whenever the
// definition changes: what is durable says where to go on.
type worker struct {
	engine  *Engine
	log     *slog.Logger
	turn    chan struct{} // a token that whoever runs or changes the stream holds
	budget  chan budget   // holds the one value; take it with holdBudget
	flush   chan struct{} // asks the main lane to seal what it has
	retry   chan struct{} // ends the pause after trouble
	stopped chan struct{} // closed when supervise has ended; set by start
	stats   stats
	waits   waits

	flushLive chan struct{} // and the live lane

	mu struct {
		sync.Mutex
		def       definition
		cursor    cursor
		stream    *storage.Stream
		pending   map[uint64]*Recipe // sealed, not finished
		clear     map[uint64]bool    // of those: nothing of it can have been stored
		cancel    context.CancelFunc // ends the worker
		interrupt context.CancelFunc // ends the current run
		circuit   circuit
		waiting   string        // why nothing is sent, for people
		healed    chan struct{} // closed when the sink may be tried again before its time
		sent      budget        // a copy of the budget, as it was given back last
	}
	commit sync.Mutex // one cursor change at a time
}

// circuit is the state of a sink as attempts find it.
type circuit struct {
	Failures int       `json:"failures"` // in a row
	Code     string    `json:"code,omitempty"`
	Error    string    `json:"error,omitempty"`
	Since    time.Time `json:"since,omitzero"` // first of them
	Next     time.Time `json:"next,omitzero"`  // attempt
}

// openAfter is how many failures in a row open the circuit: from then on one
// attempt at a time finds out whether the sink is back.
const openAfter = 3

func (c *circuit) open() bool { return c.Failures >= openAfter }

// window is how many recipes may be sealed and not finished. More would only
// fix names early: what is not sealed is as safe.
func recipeWindow(sink Sink) int {
	if _, ok := sink.(ObjectSink); ok {
		return 2
	}
	return 1
}

// run works until ctx ends. It returns nil then, and an error only when the
// delivery stream can't work at all; the engine shows it and tries again.
func (w *worker) run(ctx context.Context) error {
	def := w.definition()
	if def.Config.Paused {
		w.setWaiting("paused")
		<-ctx.Done()
		return nil
	}
	w.setWaiting("")
	binds, err := w.openBindings(&def)
	if err != nil {
		return err
	}
	defer binds.close()
	recipes, cur, err := w.load(&def, binds.current.stream)
	if err != nil {
		return err
	}
	if err := w.splitLanes(ctx, &def, &cur, binds.current.stream); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	lanes := []Lane{MainLane}
	if cur.Live != nil {
		lanes = append(lanes, LiveLane)
	}
	var limit *link
	if n := def.Config.Uplink.BytesPerSecond; n > 0 {
		limit = newLink(w.engine.clock, n)
	}
	for _, lane := range lanes {
		l := newLane(w, &def, binds, lane, cur, limit)
		for _, r := range recipes {
			if (r.Lane == LiveLane) == (lane == LiveLane) || len(lanes) == 1 {
				l.recover(r)
			}
		}
		g.Go(func() error { return l.run(ctx) })
	}
	err = g.Wait()
	if errors.Is(err, errRestart) || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errRestart ends a run because the lanes have changed.
var errRestart = errors.New("lanes have changed")

func (w *worker) definition() definition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.def
}

func (w *worker) setWaiting(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.waiting = why
}

// load reads the cursor and the sealed recipes.
func (w *worker) load(def *definition, stream *storage.Stream) ([]*Recipe, cursor, error) {
	raw, err := w.engine.store.Get(storage.TableDelivery, cursorKey(def.ID))
	if err != nil {
		return nil, cursor{}, fmt.Errorf("cursor of delivery %s: %w", def.Config.Name, err)
	}
	var cur cursor
	if err := json.Unmarshal(raw, &cur); err != nil {
		return nil, cursor{}, fmt.Errorf("cursor of delivery %s: %w", def.Config.Name, err)
	}
	recipes, err := w.engine.recipes(def.ID)
	if err != nil {
		return nil, cursor{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.cursor, w.mu.stream = cur, stream
	w.mu.pending = map[uint64]*Recipe{}
	for _, r := range recipes {
		w.mu.pending[r.Number] = r
	}
	return recipes, cur, nil
}

// splitLanes begins a live lane when there is a backlog to work off beside it,
// and ends it when the backlog has been sealed.
func (w *worker) splitLanes(ctx context.Context, def *definition, cur *cursor, stream *storage.Stream) error {
	percent := def.Config.Uplink.LivePercent
	switch {
	case cur.Live != nil && finishedBacklog(cur):
		next := *cur
		next.Shards, next.Live = cur.Live, nil
		if err := w.saveCursor(ctx, def, cur, &next); err != nil {
			return err
		}
		*cur = next
	case cur.Live == nil && percent > 0 && w.hasBacklog(def, stream, cur):
		next := *cur
		next.Shards, next.Live = map[record.ShardNumber]shardState{}, map[record.ShardNumber]shardState{}
		for n, s := range cur.Shards {
			info, err := stream.Shard(n)
			if err != nil || s.Done {
				next.Shards[n] = s
				continue
			}
			end := max(info.Last+1, s.Next)
			next.Shards[n] = shardState{Next: s.Next, Until: end}
			next.Live[n] = shardState{Next: end}
		}
		if err := w.saveCursor(ctx, def, cur, &next); err != nil {
			return err
		}
		*cur = next
	}
	return nil
}

// hasBacklog says whether what is not sealed is so much older than the buffer
// interval that it has a lane of its own, beside what comes in now.
func (w *worker) hasBacklog(def *definition, stream *storage.Stream, cur *cursor) bool {
	return w.backlogAge(stream, cur) > 4*max(def.Config.interval(), time.Minute)
}

func finishedBacklog(cur *cursor) bool {
	for _, s := range cur.Shards {
		if !s.Done && (s.Until == 0 || s.Next < s.Until) {
			return false
		}
	}
	return true
}

// backlogAge is the age of the oldest record that is not sealed.
func (w *worker) backlogAge(stream *storage.Stream, cur *cursor) time.Duration {
	age := time.Duration(0)
	for n, s := range cur.Shards {
		if !s.Done {
			_, _, a := w.shardLag(stream, n, s)
			age = max(age, a)
		}
	}
	return age
}

// saveCursor changes the cursor and nothing else.
func (w *worker) saveCursor(ctx context.Context, def *definition, old, next *cursor) error {
	w.commit.Lock()
	defer w.commit.Unlock()
	txn, err := w.engine.store.Begin(ctx, 1024)
	if err != nil {
		return err
	}
	txn.Expect(storage.TableDelivery, cursorKey(def.ID), mustJSON(old))
	txn.Put(storage.TableDelivery, cursorKey(def.ID), mustJSON(next))
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("cursor of delivery %s: %w", def.Config.Name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.cursor = *next
	return nil
}

// commit commits and gives the transaction back. It awaits the outcome also when ctx
// ends: what is kept in memory follows it.
func commit(ctx context.Context, txn *storage.Txn) error {
	defer txn.Release()
	return txn.Commit(context.WithoutCancel(ctx))
}

// seal makes the gathered batch of a lane durable: recipe and cursor in one
// transaction. After it, the batch's names and records are fixed.
func (w *worker) seal(ctx context.Context, def *definition, lane Lane, module string, c *collector) (*Recipe, error) {
	w.commit.Lock()
	defer w.commit.Unlock()
	w.mu.Lock()
	old := w.mu.cursor
	w.mu.Unlock()
	next := old
	states, _ := c.sealed()
	if lane == LiveLane {
		next.Live = states
	} else {
		next.Shards = states
	}
	r := c.recipe(old.Next, def.Version, module)
	if len(r.Ranges) > 0 {
		next.Next++
	}
	txn, err := w.engine.store.Begin(ctx, 4096)
	if err != nil {
		return nil, err
	}
	txn.Expect(storage.TableDelivery, cursorKey(def.ID), mustJSON(old))
	txn.Put(storage.TableDelivery, cursorKey(def.ID), mustJSON(next))
	if len(r.Ranges) > 0 {
		txn.Put(storage.TableRecipe, recipeKey(def.ID, r.Number), mustJSON(r))
	}
	if err := commit(ctx, txn); err != nil {
		return nil, fmt.Errorf("seal recipe %d of delivery %s: %w", r.Number, def.Config.Name, err)
	}
	w.mu.Lock()
	w.mu.cursor = next
	if len(r.Ranges) > 0 {
		w.mu.pending[r.Number] = r
		w.mu.clear[r.Number] = true
	}
	w.mu.Unlock()
	c.advance()
	if len(r.Ranges) == 0 {
		return nil, nil
	}
	return r, nil
}

// finish takes a recipe away and keeps what became of it, and the totals with
// it, in one transaction.
func (w *worker) finish(ctx context.Context, j *job) error {
	def := j.def
	// Before Begin, as spend has it: admission is a queue. Holding it, no other
	// lane writes the totals.
	spent := w.holdBudget()
	defer func() { w.giveBudget(spent) }()
	txn, err := w.engine.store.Begin(ctx, 8192)
	if err != nil {
		return err
	}
	txn.Delete(storage.TableRecipe, recipeKey(def.ID, j.recipe.Number))
	for i := range j.rows {
		txn.Put(storage.TableManifest, manifestKey(def.ID, j.recipe.Number, i), mustJSON(&j.rows[i]))
	}
	for _, g := range j.recipe.Ranges {
		if j.recipe.Redrive {
			break // the records stay findable by the recipe they were first in
		}
		txn.Put(storage.TableManifest, rangeKey(def.ID, g.Shard, g.Last), fmt.Appendf(nil, "%d", j.recipe.Number))
	}
	if err := w.engine.trimManifest(txn, def.ID, j.recipe.Number); err != nil {
		txn.Release()
		return err
	}
	if def.Config.Uplink.MonthlyBytes > 0 {
		if size := j.recipe.Bytes(); size > 0 {
			spent.Percent = max((j.cost*100+size-1)/size, 1)
		}
		txn.Put(storage.TableThrottle, budgetKey(def.ID), mustJSON(spent))
	}
	all := w.stats.totals()
	all.add(j)
	txn.Put(storage.TableDelivery, totalsKey(def.ID), mustJSON(&all))
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("finish recipe %d of delivery %s: %w", j.recipe.Number, def.Config.Name, err)
	}
	spent.ahead = spent.Bytes
	w.mu.Lock()
	delete(w.mu.pending, j.recipe.Number)
	delete(w.mu.clear, j.recipe.Number)
	w.mu.Unlock()
	var made totals
	made.add(j)
	w.stats.merge(&made)
	return nil
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

// lost counts what retention or damage took before it was delivered.
func (w *worker) lost(g storage.Gap) {
	if g.Reason == storage.GapRetention || g.Reason == storage.GapDropped || g.Reason == storage.GapDamage {
		w.stats.lost.Add(int64(g.Records))
		w.log.Error("records were lost before they were delivered", "first", g.First, "last", g.Last, "records", g.Records, "reason", g.Reason)
	}
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

// holdBudget takes the budget, which only its holder changes. It may be held while
// a commit is under way: whoever just wants to know reads the copy.
func (w *worker) holdBudget() budget { return <-w.budget }

// giveBudget gives the budget back.
func (w *worker) giveBudget(b budget) {
	w.mu.Lock()
	w.mu.sent = b
	w.mu.Unlock()
	w.budget <- b
}

// spend notes bytes that a job has sent.
func (w *worker) spend(ctx context.Context, j *job, n int) error {
	def := w.definition()
	b := w.holdBudget()
	defer func() { w.giveBudget(b) }()
	kept := min(int64(n), j.reserved)
	j.reserved -= kept
	b.reserved -= kept
	move := b.spend(w.engine.clock.Now().In(def.Config.location()), int64(n))
	limit := def.Config.Uplink.MonthlyBytes
	if limit == 0 || !move {
		return nil
	}
	ahead := b.Bytes + budgetStep(limit)
	txn, err := w.engine.store.Begin(ctx, 256)
	if err != nil {
		return err
	}
	txn.Put(storage.TableThrottle, budgetKey(def.ID), mustJSON(budget{Month: b.Month, Bytes: ahead, Percent: b.Percent}))
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("byte budget of delivery %s: %w", def.Config.Name, err)
	}
	b.ahead = ahead
	return nil
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
		c.most = l.w.batchBytes(&l.def.Config)
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

// batchBytes is the size at which a batch is due. The size hint is meant for
// each partition of a partitioned stream, as far as the reads allow.
func (w *worker) batchBytes(c *Config) int64 {
	size := c.Buffer.SizeBytes
	if c.Partition == nil {
		return size
	}
	most := int64(partitionedBytes)
	if percent := w.stats.ratio.Load(); percent > 0 {
		most = min(most, percent*passBytes*maxReads/100)
	}
	return min(size*max(w.stats.partitions.Load(), 1), most)
}

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
	held := false
	limit := l.def.Config.Uplink.MonthlyBytes
	leave = func() {
		w.release(j)
		if held {
			<-l.probe
		}
	}
	for {
		now := w.engine.clock.Now()
		local := now.In(j.bind.zone)
		pause, why := time.Duration(0), ""
		var healed <-chan struct{}
		if d := untilOpen(windows, local); d > 0 {
			pause, why = d, "outside of its upload windows"
		} else if d, short := w.reserve(j, local, limit); d > 0 {
			pause, why = d, short
		} else if pause, healed = w.sinkPause(now); pause > 0 {
			w.release(j) // others may have it meanwhile
		}
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
			w.setWaiting("")
			return leave, nil
		}
		if why != "" {
			w.setWaiting(why)
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
	_, inJSON := j.bind.sink.(RecordSink)
	need := b.expected(j.recipe.Bytes(), inJSON)
	if d := b.untilBudget(now, limit, need); d > 0 {
		return d, b.short(now, limit, need)
	}
	j.reserved = need
	b.reserved += need
	return 0, ""
}

// release gives back what an attempt has reserved and not sent.
func (w *worker) release(j *job) {
	b := w.holdBudget()
	b.reserved -= j.reserved
	j.reserved = 0
	w.giveBudget(b)
}

func (w *worker) failing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.circuit.open()
}

// between says, for people, what a delivery stream waits for between attempts:
// the codes of what is not a sink's have a name of ours in front.
func (c *circuit) between() string {
	switch family, _, _ := strings.Cut(c.Code, "."); family {
	case "Transform":
		return "the module failed"
	case "Log":
		return "the log could not be read"
	case "Delivery":
		return "the last attempt failed"
	}
	return "the sink failed"
}

// sinkPause is how long the sink is still to be left alone, 0 if it is not, and
// what ends that early. Whoever waits says so under the same lock under which
// a success takes it back.
func (w *worker) sinkPause(now time.Time) (time.Duration, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pause := w.mu.circuit.Next.Sub(now)
	if pause <= 0 {
		return 0, nil
	}
	w.mu.waiting = w.mu.circuit.between()
	if w.mu.healed == nil {
		w.mu.healed = make(chan struct{})
	}
	return pause, w.mu.healed
}

// healLocked lets whoever waits for the sink go on.
func (w *worker) healLocked() {
	w.mu.circuit.Next = time.Time{}
	if w.mu.waiting == w.mu.circuit.between() {
		w.mu.waiting = ""
	}
	if w.mu.healed != nil {
		close(w.mu.healed)
		w.mu.healed = nil
	}
}

func (w *worker) succeeded(start time.Time) {
	w.mu.Lock()
	was := w.mu.circuit
	w.healLocked()
	w.mu.circuit = circuit{}
	w.mu.Unlock()
	if was.open() {
		w.log.Info("delivery goes on", "after", w.engine.clock.Now().Sub(was.Since).Round(time.Second), "failures", was.Failures)
	}
	w.stats.sending.Add(int64(w.engine.clock.Now().Sub(start)))
}

// failed notes a failed attempt and decides when the next may be: twice as
// late each time, up to the cap, give or take 15 %.
func (w *worker) failed(j *job, cause error) {
	s := sinkError(cause)
	w.stats.retry(s.Code, 1)
	now := w.engine.clock.Now()
	w.mu.Lock()
	c := &w.mu.circuit
	if c.Failures == 0 {
		c.Since = now
	}
	c.Failures++
	pause := w.engine.options.MaxBackoff
	if c.Failures < 16 {
		pause = min(pause, time.Second<<(c.Failures-1))
	}
	pause = time.Duration(float64(pause) * (0.85 + 0.3*rand.Float64()))
	c.Next = now.Add(max(pause, s.RetryAfter))
	if w.mu.waiting == c.between() {
		w.mu.waiting = "" // of a failure of another kind; whoever waits says it again
	}
	c.Code, c.Error = s.Code, s.Err.Error()
	loud := c.Failures == 1 || c.Failures == openAfter
	failures := c.Failures
	if j.clear {
		w.mu.clear[j.recipe.Number] = true
	}
	w.mu.Unlock()
	level := slog.LevelDebug
	if loud {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "delivery attempt failed", "recipe", j.recipe.Number, "code", s.Code, "error", s.Err, "failures", failures, "retry", pause.Round(time.Millisecond))
}

// pendingRecipes is a copy of the sealed recipes.
func (w *worker) pendingRecipes() []*Recipe {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recipesLocked()
}

func (w *worker) recipesLocked() []*Recipe {
	out := make([]*Recipe, 0, len(w.mu.pending))
	for _, r := range w.mu.pending {
		out = append(out, r)
	}
	return out
}

// standing is what is sealed and where the rest begins, as they were together: a
// seal moves records from one to the other.
func (w *worker) standing() ([]*Recipe, cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recipesLocked(), w.cursorLocked()
}

// copyCursor is a deep copy of the cursor.
func (w *worker) copyCursor() cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cursorLocked()
}

func (w *worker) cursorLocked() cursor {
	c := w.mu.cursor
	c.Shards = maps.Clone(c.Shards)
	c.Live = maps.Clone(c.Live)
	return c
}
