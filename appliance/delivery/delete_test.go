package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
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
