package kinesis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/weirhq/weir/storage"
)

// settingsRow is a row of storage.TableSetting that is kept in memory as well:
// JSON on disk, T here. The zero row holds the zero T.
type settingsRow[T any] struct {
	key []byte
	mu  struct {
		sync.RWMutex
		value T
	}
}

// load reads the row. A row that is not there leaves the zero T.
func (r *settingsRow[T]) load(store *storage.Store) error {
	raw, err := store.Get(storage.TableSetting, r.key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &r.mu.value)
	}
	if err != nil {
		return fmt.Errorf("settings row %s: %w", r.key, err)
	}
	return nil
}

// get returns the value. What it points to is shared and must not be changed.
func (r *settingsRow[T]) get() T {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.value
}

// update lets fn change a copy of the value and stores it; it is in force when
// update returns nil. fn replaces maps and slices, it never changes them. An
// error of fn is returned as it is, and nothing changes.
func (r *settingsRow[T]) update(ctx context.Context, store *storage.Store, fn func(*T) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	value := r.mu.value
	if err := fn(&value); err != nil {
		return err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("settings row %s: %w", r.key, err)
	}
	txn, err := store.Begin(ctx, len(r.key)+len(raw))
	if err != nil {
		return fmt.Errorf("settings row %s: %w", r.key, err)
	}
	txn.Put(storage.TableSetting, r.key, raw)
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("settings row %s: %w", r.key, err)
	}
	r.mu.value = value
	return nil
}
