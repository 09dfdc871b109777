package delivery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// TestDeliveryStreamThatCouldNotBeDeletedGoesOn has the store too busy to take the
// deletion in time.
func TestDeliveryStreamThatCouldNotBeDeletedGoesOn(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	r.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{Interval: delivery.Every(0)}})
	all, err := r.store.Begin(t.Context(), 4<<20) // all that may be in flight to the log
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.engine.Delete(ctx, "d"); err == nil {
		t.Fatal("deleted")
	}
	all.Rollback()
	r.put(st, 0, 10)
	r.drained("d")
	if err := r.engine.Delete(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
}

// TestDeletionThatWasCutShortEndsAtStart has a deletion end between the definition and
// the buffer, as kill -9 ends it: the next delivery stream of the name begins empty. The
// buffer of a definition that can't be read, or that damage took, stays.
func TestDeletionThatWasCutShortEndsAtStart(t *testing.T) {
	r := newRig(t)
	direct := func(name string) delivery.Config {
		return delivery.Config{Name: name, Source: delivery.Source{DirectPut: true}, Buffer: delivery.Buffer{Interval: delivery.Every(15 * time.Minute)}}
	}
	for _, name := range []string{"cut", "kept", "damaged", "lost"} {
		r.create(direct(name))
		st, err := r.engine.Buffer(name)
		if err != nil {
			t.Fatal(err)
		}
		r.put(st, 0, 10)
	}
	r.stop()
	txn, err := r.store.Begin(t.Context(), 64)
	if err != nil {
		t.Fatal(err)
	}
	txn.Delete(storage.TableDelivery, []byte("dcut"))
	txn.Put(storage.TableDelivery, []byte("ecut"), nil)
	txn.Put(storage.TableDelivery, []byte("ddamaged"), []byte(`{"id":`))
	txn.Delete(storage.TableDelivery, []byte("dlost"))
	err = txn.Commit(t.Context())
	txn.Release()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.open()
		if _, err := r.store.Stream("delivery/cut"); !errors.Is(err, storage.ErrStreamNotFound) {
			t.Errorf("the buffer is still there: %v", err)
		}
		for _, name := range []string{"kept", "damaged", "lost"} {
			if _, err := r.store.Stream("delivery/" + name); err != nil {
				t.Error(err)
			}
		}
		r.stop()
	}
	r.open()
	r.create(direct("cut"))
	r.create(direct("lost"))
	for name, want := range map[string]uint64{"cut": 0, "kept": 10, "lost": 10} {
		if s, err := r.engine.Stats(name); err != nil || uint64(s.LagRecords) != want {
			t.Errorf("%s begins with %d records, %v; want %d", name, s.LagRecords, err, want)
		}
	}
}

// TestDeletionLeavesNoRow deletes in one go: nothing is left to be ended.
func TestDeletionLeavesNoRow(t *testing.T) {
	r := newRig(t)
	r.create(delivery.Config{Name: "gone", Source: delivery.Source{DirectPut: true}})
	if err := r.engine.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Get(storage.TableDelivery, []byte("egone")); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the row of the deletion is still there: %v", err)
	}
}
