package delivery_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// tripSink calls trip before each object.
type tripSink struct {
	delivery.ObjectSink
	trip func()
}

func (s tripSink) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	s.trip()
	return s.ObjectSink.PutObject(ctx, o)
}

// TestStatsDontWaitForACommit has the disk stand still under the commit that notes the
// bytes of an upload, as a worn card does for seconds: who watches the box must see it.
func TestStatsDontWaitForACommit(t *testing.T) {
	var stands atomic.Bool
	reached, moves := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stands.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log") {
			once.Do(func() { close(reached) })
			<-moves
		}
		return nil
	}))
	goOn := sync.OnceFunc(func() { close(moves) })
	store, err := storage.Open(t.Context(), "data", storage.Options{FS: disk, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newRigOn(t, store, t.TempDir(), func(o *delivery.Options) {
		open := o.OpenSink
		o.OpenSink = func(target delivery.Target) (delivery.Sink, error) {
			s, err := open(target)
			if err != nil {
				return nil, err
			}
			return tripSink{s.(delivery.ObjectSink), func() { stands.Store(true) }}, nil
		}
	})
	t.Cleanup(goOn) // before the engine is stopped
	st := r.stream("s", 1)
	r.put(st, 0, 100)
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{Interval: delivery.Every(0)}, Uplink: delivery.Uplink{MonthlyBytes: 1 << 30},
	})
	<-reached
	read := make(chan delivery.Stats, 1)
	go func() {
		s, err := r.engine.Stats("d")
		if err != nil {
			t.Error(err)
		}
		r.engine.WriteMetrics(io.Discard)
		read <- s
	}()
	select {
	case s := <-read:
		if s.LagRecords != 100 || s.BudgetLeft == nil {
			t.Errorf("while the disk stands still: %+v", s)
		}
	case <-time.After(20 * time.Second):
		t.Error("stats wait for the disk")
	}
	goOn()
	r.drained("d")
	s, err := r.engine.Stats("d")
	if err != nil || s.MonthlyBytes == 0 || *s.BudgetLeft != 1<<30-s.MonthlyBytes {
		t.Errorf("after it: %+v, %v", s, err)
	}
}
