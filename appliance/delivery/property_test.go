package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// store is an object store in memory that outlives the boxes. It creates only,
// and it fails as told: before it stores, or after.
type objectStore struct {
	sync.Mutex
	rng     *rand.Rand
	faults  int  // in ten puts
	dark    bool // the box that asks has lost its power
	objects map[string][]byte
	recipes map[string]string
}

func (s *objectStore) Metered() bool { return false }
func (s *objectStore) Close() error  { return nil }
func (s *objectStore) Probe(context.Context) (delivery.Probed, error) {
	return delivery.Probed{Guarantee: delivery.ExactlyOnce}, nil
}

func (s *objectStore) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	var b bytes.Buffer
	if err := o.Render(&b); err != nil {
		return delivery.Stored{}, err
	}
	if err := ctx.Err(); err != nil {
		return delivery.Stored{}, err
	}
	s.Lock()
	defer s.Unlock()
	if s.dark {
		return delivery.Stored{}, &delivery.SinkError{Code: "Test.Dark", Err: errors.New("no power")}
	}
	trouble := s.rng.IntN(10) < s.faults
	if trouble && s.rng.IntN(2) == 0 {
		return delivery.Stored{}, &delivery.SinkError{Code: "Test.Refused", Refused: true, Err: errors.New("refused")}
	}
	duplicate := false
	if _, there := s.objects[o.Key]; there {
		if s.recipes[o.Key] != o.Metadata[delivery.RecipeKey] {
			return delivery.Stored{}, &delivery.SinkError{Code: "Test.Exists", Err: errors.New("there, and not ours")}
		}
		duplicate = true
	} else {
		s.objects[o.Key], s.recipes[o.Key] = b.Bytes(), o.Metadata[delivery.RecipeKey]
	}
	if trouble {
		return delivery.Stored{}, &delivery.SinkError{Code: "Test.LostAnswer", Err: errors.New("stored, but the answer is lost")}
	}
	return delivery.Stored{Bytes: int64(b.Len()), Duplicate: duplicate}, nil
}

// TestAnyInterleavingIsExactlyOnce puts, seals, sends and fails in any order,
// and loses power at any time: what was acknowledged is in exactly one object.
func TestAnyInterleavingIsExactlyOnce(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		objects := &objectStore{rng: rand.New(rand.NewPCG(seed, 2)), faults: rng.IntN(7), objects: map[string][]byte{}, recipes: map[string]string{}}
		fs := vfs.NewCrashableMem()
		n := 0
		for life := range 5 {
			n, fs = oneLife(t, rng, objects, fs, n, life == 4)
		}
		objects.Lock()
		exactly(t, numbers(t, objects.objects), n, true)
		objects.Unlock()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// oneLife opens the store, works, and loses power, or drains in its last life.
func oneLife(t *testing.T, rng *rand.Rand, objects *objectStore, fs *vfs.MemFS, n int, last bool) (int, *vfs.MemFS) {
	t.Helper()
	store, err := storage.Open(t.Context(), "data", storage.Options{FS: fs, SoftFreeBytes: 1, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Stream("s")
	if err != nil {
		if st, err = store.CreateStream(t.Context(), storage.StreamConfig{Name: "s"}); err != nil {
			t.Fatal(err)
		}
	}
	e, err := delivery.New(store, delivery.Options{
		OpenSink:   func(delivery.Target) (delivery.Sink, error) { return objects, nil },
		MaxBackoff: 5 * time.Millisecond, Workers: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.List()) == 0 {
		err := e.Create(t.Context(), delivery.Config{
			Name: "d", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: "memory"},
			Buffer: delivery.Buffer{SizeBytes: int64(1000 + rng.IntN(20_000)), Interval: delivery.Every(time.Duration(rng.IntN(10)) * time.Millisecond)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for range rng.IntN(30) {
		k := 1 + rng.IntN(100)
		put(t, store, st, n, n+k)
		n += k
		if rng.IntN(4) == 0 {
			if err := e.Flush("d"); err != nil {
				t.Fatal(err)
			}
		}
		if rng.IntN(8) == 0 {
			drain(t, e)
		}
	}
	if last {
		objects.Lock()
		objects.faults = 0
		objects.Unlock()
		drain(t, e)
	}
	// What the disk has when the power goes: the synced bytes, and any part of
	// the others.
	objects.Lock()
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	objects.dark = true
	objects.Unlock()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	objects.dark = false
	return n, after
}

func drain(t *testing.T, e *delivery.Engine) {
	t.Helper()
	until(t, "drain", func() bool {
		s, err := e.Stats("d")
		if err != nil {
			t.Fatal(err)
		}
		return s.LagRecords == 0
	})
}
