package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirhq/weir/storage"
)

// endBuffers ends the deletions that were cut short between the definition and the
// buffer. A buffer without a definition is not reason enough: damage may have taken
// the definition, and its records are those of a delivery stream to be made again.
func (e *Engine) endBuffers(ctx context.Context) error {
	var names []string
	err := e.store.Scan(storage.TableDelivery, []byte{'e'}, nil, 0, func(key, _ []byte) bool {
		names = append(names, string(key[1:]))
		return true
	})
	for _, name := range names {
		if err := e.endBuffer(ctx, name); err != nil {
			e.log.Warn("the buffer of a deleted delivery stream stays until the next start", "delivery", name, "cause", err)
		} // a store that takes no writes still delivers what it has
	}
	return err
}

// endBuffer deletes the buffer of a deleted delivery stream, if there is one that
// waits for it. Left there, the next delivery stream of the name would send the
// records of the one that was deleted.
func (e *Engine) endBuffer(ctx context.Context, name string) error {
	if _, err := e.store.Get(storage.TableDelivery, endedKey(name)); err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	}
	if err := e.store.DeleteStream(ctx, bufferPrefix+name); err != nil && !errors.Is(err, storage.ErrStreamNotFound) {
		return fmt.Errorf("delivery %s: buffer stream: %w", name, err)
	}
	txn, err := e.store.Begin(ctx, 256)
	if err != nil {
		return err
	}
	txn.Delete(storage.TableDelivery, endedKey(name))
	return commit(ctx, txn)
}

// Delete stops a delivery stream and removes all that is kept of it. What it
// has delivered stays where it is; what it has not stays in a source stream,
// and is gone with the buffer of a DirectPut one.
func (e *Engine) Delete(ctx context.Context, name string) error {
	e.changes.Lock()
	defer e.changes.Unlock()
	w, err := e.worker(name)
	if err != nil {
		return err
	}
	resume, err := w.hold(ctx)
	if err != nil {
		return err
	}
	if err := e.forget(ctx, w); err != nil {
		resume() // it is there as before
		return err
	}
	w.mu.Lock()
	cancel := w.mu.cancel
	w.mu.Unlock()
	if cancel != nil {
		cancel()
		<-w.stopped
	}
	e.mu.Lock()
	delete(e.mu.workers, name)
	e.mu.Unlock()
	if d := w.definition(); d.Buffer != "" {
		if err := e.endBuffer(ctx, name); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	return nil
}

// forget deletes all that is kept of a delivery stream. Its worker is held.
func (e *Engine) forget(ctx context.Context, w *worker) error {
	d := w.definition()
	name := d.Config.Name
	txn, err := e.store.Begin(ctx, 4096)
	if err != nil {
		return fmt.Errorf("delete delivery %s: %w", name, err)
	}
	txn.Delete(storage.TableDelivery, definitionKey(name))
	if d.Buffer != "" {
		txn.Put(storage.TableDelivery, endedKey(name), nil)
	}
	txn.Delete(storage.TableDelivery, cursorKey(d.ID))
	txn.Delete(storage.TableDelivery, totalsKey(d.ID))
	txn.Delete(storage.TableThrottle, budgetKey(d.ID))
	txn.DeletePrefix(storage.TableDelivery, versionPrefix(d.ID))
	txn.DeletePrefix(storage.TableRecipe, recipePrefix(d.ID))
	txn.DeletePrefix(storage.TableManifest, manifestPrefix(d.ID))
	prefix := manifestPrefix(d.ID)
	prefix[0] = 'r'
	txn.DeletePrefix(storage.TableManifest, prefix)
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("delete delivery %s: %w", name, err)
	}
	return nil
}
