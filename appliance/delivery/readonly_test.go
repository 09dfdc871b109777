package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// TestDrainOfAStoreThatTakesNoWritesEndsAtOnce breaks the disk under gathered records, as a
// card does whose file system turns read-only: nothing can be sealed until the next start.
func TestDrainOfAStoreThatTakesNoWritesEndsAtOnce(t *testing.T) {
	var broken atomic.Bool
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log") {
			return errors.New("the device failed")
		}
		return nil
	}))
	store, err := storage.Open(t.Context(), "data", storage.Options{FS: disk, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() }) // it has failed
	r := newRigOn(t, store, t.TempDir())
	st := r.stream("s", 1)
	r.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{Interval: delivery.Every(15 * time.Minute)}})
	r.put(st, 0, 100)
	broken.Store(true)
	tx, err := store.Begin(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Release()
	if err := errors.Join(tx.Append(st, []byte("k"), nil, []byte("x")), tx.Commit(t.Context())); err == nil {
		t.Fatal("a commit on a broken disk succeeded")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if left := r.engine.Drain(ctx); fmt.Sprint(left) != "[d]" || ctx.Err() != nil {
		t.Errorf("left are %v, %v", left, ctx.Err())
	}
}
