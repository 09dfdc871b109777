package storage

import (
	"fmt"
	"sync"
	"testing"

	"github.com/weirhq/weir/storage/record"
)

func TestRememberedHashKeysAreTheKeysOwn(t *testing.T) {
	h := newHashes()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200_000 {
				// More keys than entries, so that they take each other's place.
				key := fmt.Appendf(nil, "device-%d", i*i%7919)
				if got := h.of(key); got != record.HashOf(key) {
					t.Errorf("hash key of %s: %s", key, got)
					return
				}
			}
		})
	}
	wg.Wait()
	long := make([]byte, 300)
	if h.of(long) != record.HashOf(long) {
		t.Error("hash key of a long key")
	}
	if n := testing.AllocsPerRun(1000, func() { h.of([]byte("device-4")) }); n > 0 {
		t.Errorf("%v allocations for a key", n)
	}
}
