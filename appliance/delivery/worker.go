package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/weirhq/weir/storage"
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
		waiting   string          // why nothing is sent, for people
		held      map[*job]string // why single uploads are not begun
		sending   int             // uploads under way
		healed    chan struct{}   // closed when the sink may be tried again before its time
		sent      budget          // a copy of the budget, as it was given back last
	}
	commit sync.Mutex // one cursor change at a time
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

// holdBack notes why an upload is not begun, for people; "" takes that back.
func (w *worker) holdBack(j *job, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if why == "" {
		delete(w.mu.held, j)
		return
	}
	if w.mu.held == nil {
		w.mu.held = map[*job]string{}
	}
	w.mu.held[j] = why
}

// begin notes that an upload goes on, and returns what ends it.
func (w *worker) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.waiting = ""
	w.mu.sending++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.mu.sending--
	}
}

// waitsLocked is what the stream, or one of its uploads, waits for; "" when none does.
func (w *worker) waitsLocked() string {
	if w.mu.waiting != "" || len(w.mu.held) == 0 {
		return w.mu.waiting
	}
	return slices.Min(slices.Collect(maps.Values(w.mu.held)))
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
	w.sampleLag()
	return nil
}

// lost counts what retention or damage took before it was delivered.
func (w *worker) lost(g storage.Gap) {
	if g.Reason == storage.GapRetention || g.Reason == storage.GapDropped || g.Reason == storage.GapDamage {
		w.stats.lost.Add(int64(g.Records))
		w.log.Error("records were lost before they were delivered", "first", g.First, "last", g.Last, "records", g.Records, "reason", g.Reason)
	}
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
