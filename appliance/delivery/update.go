package delivery

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/weirhq/weir/storage"
)

// Update changes a delivery stream's configuration. version is the one that
// change was made for, 0 for whichever is current; ErrVersion means that it is
// not. The name and the source stay. Batches that are sealed, and may have
// been sent, still go where they were to go; everything after goes by the new
// configuration.
func (e *Engine) Update(ctx context.Context, name string, version int, change func(c *Config) error) error {
	e.changes.Lock()
	defer e.changes.Unlock()
	w, err := e.worker(name)
	if err != nil {
		return err
	}
	old := w.definition()
	if version != 0 && version != old.Version {
		return fmt.Errorf("delivery %s has version %d, not %d: %w", name, old.Version, version, ErrVersion)
	}
	next := old
	next.Config = Config{}                                                      // nothing of it may be shared with what is in use
	if err := json.Unmarshal(mustJSON(&old.Config), &next.Config); err != nil { // a deep copy
		return err
	}
	if err := change(&next.Config); err != nil {
		return err
	}
	next.Config = next.Config.withDefaults()
	if next.Config.Name != old.Config.Name || next.Config.Source != old.Config.Source {
		return fmt.Errorf("%w: delivery %s: the name and the source can't be changed", ErrInvalid, name)
	}
	if err := next.Config.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := next.Config.checkPatterns(&old.Config); err != nil {
		return err
	}
	next.Version++
	next.Updated = e.clock.Now().UTC()
	b, err := e.bind(&next, next.Version, next.Config)
	if err != nil {
		return err
	}
	if err := b.close(); err != nil {
		return err
	}
	resume, err := w.hold(ctx)
	if err != nil {
		return err
	}
	defer resume()
	return w.save(ctx, &old, &next)
}

// save makes a new version durable and moves the sealed recipes of which
// nothing can have been stored to it. The worker is held.
func (w *worker) save(ctx context.Context, old, next *definition) error {
	recipes, err := w.engine.recipes(old.ID)
	if err != nil {
		return err
	}
	used := map[int]bool{next.Version: true}
	txn, err := w.engine.store.Begin(ctx, 16<<10)
	if err != nil {
		return err
	}
	txn.Expect(storage.TableDelivery, definitionKey(old.Config.Name), mustJSON(old))
	txn.Put(storage.TableDelivery, definitionKey(old.Config.Name), mustJSON(next))
	txn.Put(storage.TableDelivery, versionKey(old.ID, next.Version), mustJSON(&next.Config))
	w.mu.Lock()
	for _, r := range recipes {
		if w.mu.clear[r.Number] {
			r.Version = next.Version
			txn.Put(storage.TableRecipe, recipeKey(old.ID, r.Number), mustJSON(r))
		}
		used[r.Version] = true
	}
	w.mu.Unlock()
	for v := max(1, old.Version-64); v <= old.Version; v++ {
		if !used[v] {
			txn.Delete(storage.TableDelivery, versionKey(old.ID, v))
		}
	}
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("update delivery %s: %w", old.Config.Name, err)
	}
	w.mu.Lock()
	w.mu.def = *next
	w.mu.circuit = circuit{}
	w.mu.waiting = ""
	if next.Config.Paused {
		w.mu.waiting = "paused"
	}
	w.mu.Unlock()
	return nil
}
