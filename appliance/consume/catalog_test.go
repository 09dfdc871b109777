package consume_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/module"
)

// TestWhoGoesAwayLeavesTheCatalogueWhole: a commit says what became of it, so that
// what the catalogue keeps in memory is what the next start reads.
func TestWhoGoesAwayLeavesTheCatalogueWhole(t *testing.T) {
	store, err := storage.Open(context.Background(), t.TempDir(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rows := consume.Modules{Store: store}
	for i := range 20 {
		err := rows.Commit(apitest.Gone{Context: context.Background()}, []module.Change{{Key: fmt.Appendf(nil, "r/%d", i), Value: []byte("active")}})
		if err != nil {
			t.Fatalf("commit %d: %v; expected its outcome to be awaited", i, err)
		}
	}
}
