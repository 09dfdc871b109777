package consume

import (
	"context"
	"errors"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/module"
)

// Modules is a module.Store over a store's tables.
type Modules struct{ Store *storage.Store }

var _ module.Store = Modules{}

// table is where a catalogue key lives: bytes apart from rows.
func table(key []byte) storage.Table {
	if len(key) > 0 && key[0] == 'b' {
		return storage.TableModuleBytes
	}
	return storage.TableModule
}

// Get implements module.Store.
func (m Modules) Get(_ context.Context, key []byte) ([]byte, error) {
	v, err := m.Store.Get(table(key), key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// Scan implements module.Store.
func (m Modules) Scan(_ context.Context, prefix []byte, fn func(key, value []byte) error) error {
	var failed error
	err := m.Store.Scan(table(prefix), prefix, nil, 0, func(k, v []byte) bool {
		failed = fn(k, v)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// Commit implements module.Store. It awaits the outcome also when ctx ends: what the
// catalog keeps in memory follows it.
func (m Modules) Commit(ctx context.Context, changes []module.Change) error {
	size := 0
	for _, c := range changes {
		size += len(c.Key) + len(c.Value)
	}
	t, err := m.Store.Begin(ctx, size)
	if err != nil {
		return err
	}
	defer t.Release()
	for _, c := range changes {
		if c.Value == nil {
			t.Delete(table(c.Key), c.Key)
		} else {
			t.Put(table(c.Key), c.Key, c.Value)
		}
	}
	return t.Commit(context.WithoutCancel(ctx))
}
