package delivery_test

import (
	"context"
	"testing"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// TestUnreadableDefinitionCostsItsOwnStreamOnly: the others deliver as before, what
// could not be read is kept as it was, and its name can be given again.
func TestUnreadableDefinitionCostsItsOwnStreamOnly(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	config := func(name string) delivery.Config {
		return delivery.Config{Name: name, Source: delivery.Source{Stream: "s"}, Buffer: soon(), Sink: delivery.Target{Name: "folder", Bucket: name}}
	}
	for _, name := range []string{"good", "cut", "other"} {
		r.create(config(name))
	}
	r.stop()
	txn, err := r.store.Begin(t.Context(), 64)
	if err != nil {
		t.Fatal(err)
	}
	txn.Put(storage.TableDelivery, []byte("dcut"), []byte(`{"id":`))
	txn.Put(storage.TableDelivery, []byte("dother"), []byte(`{"config":{"name":"good"}}`))
	err = txn.Commit(t.Context())
	txn.Release()
	if err != nil {
		t.Fatal(err)
	}
	r.open()
	if got := r.engine.List(); len(got) != 1 || got[0].Config.Name != "good" {
		t.Fatalf("after the damage: %+v", got)
	}
	if raw, err := r.store.Get(storage.TableDelivery, []byte("xcut")); err != nil || string(raw) != `{"id":` {
		t.Errorf("set aside: %q, %v", raw, err)
	}
	r.put(st, 0, 10)
	r.drained("good")
	for _, name := range []string{"cut", "other"} {
		if err := r.engine.Create(context.Background(), config(name)); err != nil {
			t.Error(err)
		}
	}
}
