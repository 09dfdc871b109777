package consume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weirhq/weir/storage"
)

// TestStateAgreesWithAMapThroughRollbacksAndCommits drives a worker's state
// against plain maps: one for what is in force, one for what a rollback goes
// back to, one for what a crash leaves.
func TestStateAgreesWithAMapThroughRollbacksAndCommits(t *testing.T) {
	store, err := storage.Open(context.Background(), t.TempDir(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	run := uint32(0)
	rapid.Check(t, func(t *rapid.T) {
		run++
		k := shardKey{"model", run, 0}
		s := newState(store, k, &checkpoint{}, 1<<20)
		now, before, stored := map[string]string{}, map[string]string{}, map[string]string{}
		s.begin()
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			key := rapid.StringMatching(`[ab]{1,3}`).Draw(t, "key")
			switch rapid.IntRange(0, 7).Draw(t, "op") {
			case 0, 1, 2:
				v := rapid.StringN(0, 20, -1).Draw(t, "value")
				if code := s.Put([]byte(key), []byte(v)); code != 0 {
					t.Fatalf("Put = %v", code)
				}
				now[key] = v
			case 3:
				s.Delete([]byte(key))
				delete(now, key)
			case 4:
				s.rollback()
				now = maps.Clone(before)
			case 5: // the batch is kept, another begins
				s.begin()
				before = maps.Clone(now)
			case 6:
				commitState(t, store, s)
				before, stored = maps.Clone(now), maps.Clone(now)
			default: // killed, and begun again from what is stored
				s = newState(store, k, &checkpoint{StateBytes: sizeOf(stored), StateEntries: int64(len(stored))}, 1<<20)
				s.begin()
				now, before = maps.Clone(stored), maps.Clone(stored)
			}
			check(t, s, now, key)
		}
	})
}

func commitState(t *rapid.T, store *storage.Store, s *state) {
	txn, err := store.Begin(context.Background(), 1024)
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Release()
	s.write(txn)
	if err := txn.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.committed()
}

func sizeOf(m map[string]string) (n int64) {
	for k, v := range m {
		n += int64(len(k) + len(v))
	}
	return n
}

func check(t *rapid.T, s *state, want map[string]string, key string) {
	got, ok, err := s.Get([]byte(key))
	if v, have := want[key]; err != nil || ok != have || string(got) != v && have {
		t.Fatalf("%q = %q %v %v, want %q %v", key, got, ok, err, v, have)
	}
	if s.bytes != sizeOf(want) || s.count != int64(len(want)) {
		t.Fatalf("size %d in %d entries, want %d in %d", s.bytes, s.count, sizeOf(want), len(want))
	}
	for _, prefix := range []string{"", "a", "bb"} {
		var scanned, model []string
		limit := 3
		if err := s.Scan([]byte(prefix), []byte(key), limit, func(k, v []byte) bool {
			scanned = append(scanned, fmt.Sprintf("%s=%s", k, v))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if strings.HasPrefix(k, prefix) && k > key && len(model) < limit {
				model = append(model, k+"="+want[k])
			}
		}
		if !slices.Equal(scanned, model) {
			t.Fatalf("scan %q after %q = %v, want %v", prefix, key, scanned, model)
		}
	}
}

func TestStateAboveItsLimitIsRefused(t *testing.T) {
	store, err := storage.Open(context.Background(), t.TempDir(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := newState(store, shardKey{"c", 1, 0}, &checkpoint{}, 100)
	s.begin()
	if code := s.Put([]byte("key"), make([]byte, 97)); code != 0 {
		t.Fatalf("Put up to the limit = %v", code)
	}
	if code := s.Put([]byte("k"), nil); code == 0 {
		t.Fatal("a put above the limit was taken")
	}
	if code := s.Put([]byte("key"), []byte("small")); code != 0 {
		t.Fatalf("Put of less = %v", code)
	}
}
