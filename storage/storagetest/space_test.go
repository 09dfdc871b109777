package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/storage"
)

// shared tells a story of two streams that share files, and returns what is on the disk
// then: of the large one's bytes the small one's files hold four times their own.
func shared(t *testing.T) (*vfs.MemFS, *story) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	s := &story{t: t}
	var err error
	if s.store, err = storage.Open(context.Background(), walkDir, storyOptions(fs)); err != nil {
		t.Fatal(err)
	}
	steps := []func(*Model) error{s.create("large", 2, storage.None), s.create("small", 2, storage.None)}
	for range 12 {
		steps = append(steps, s.put("large", 40, 2000), s.put("small", 10, 2000))
	}
	if _, err := s.tellAll(steps); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	return fs, s
}

// deleteLarge opens the store on g, deletes the large stream and takes the space back.
// acked says that the deletion was acknowledged.
func deleteLarge(g *gate) (acked bool, err error) {
	ctx := context.Background()
	s, err := storage.Open(ctx, walkDir, storyOptions(g))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.DeleteStream(ctx, "large"); err != nil {
		return false, err
	}
	if _, err := s.Reclaim(ctx, math.MaxInt64); err != nil {
		return true, err
	}
	if s.Metrics().BytesRewritten == 0 {
		return true, errors.New("nothing was written anew")
	}
	return true, nil
}

// spaceIsBack checks that a store whose large stream is gone comes to hold the small
// one's bytes and no other.
func spaceIsBack(fs *vfs.MemFS) error {
	ctx := context.Background()
	s, err := storage.Open(ctx, walkDir, storyOptions(fs))
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Stream("large"); err == nil {
		return nil
	}
	// What the cut left in the log may have to be flushed first, and merged with other tables.
	for range 3 {
		if _, err := s.Reclaim(ctx, math.MaxInt64); err != nil {
			return err
		}
	}
	r, err := s.Verify(ctx, nil)
	if err != nil {
		return err
	}
	if !r.OK() {
		return fmt.Errorf("problems %+v", r.Problems)
	}
	if stored := s.State().BytesStored; r.BytesStored > 2*uint64(stored) {
		return fmt.Errorf("%d bytes of blocks are on the disk, %d are needed", r.BytesStored, stored)
	}
	return nil
}

// TestPowerCutWhileSpaceIsGivenBack cuts the power before each write from the deletion
// of a stream until its space is back: the other stream is whole, and the space comes
// back after the next open.
func TestPowerCutWhileSpaceIsGivenBack(t *testing.T) {
	base, told := shared(t)
	with := told.models[len(told.models)-1]
	without := with.Clone()
	delete(without.Streams, "large")
	for _, percent := range []int{0, 50, 100} {
		rng := rand.New(rand.NewPCG(uint64(percent), 2))
		fs := base.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
		var mu sync.Mutex
		var clones []*vfs.MemFS
		g := &gate{FS: fs, at: func(int64, string) error {
			mu.Lock()
			defer mu.Unlock()
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
			return nil
		}}
		if _, err := deleteLarge(g); err != nil {
			t.Fatal(err)
		}
		for i, c := range append(clones, fs) {
			if err := holdsOneOf(c, with, without); err != nil {
				t.Fatalf("cut at write %d, %d %% kept: %v", i, percent, err)
			}
			if err := spaceIsBack(c); err != nil {
				t.Fatalf("cut at write %d, %d %% kept: %v", i, percent, err)
			}
		}
		t.Logf("%d power cuts", len(clones))
	}
}

// TestErrorWhileSpaceIsGivenBack lets each of these writes fail in turn, once.
func TestErrorWhileSpaceIsGivenBack(t *testing.T) {
	base, told := shared(t)
	with := told.models[len(told.models)-1]
	without := with.Clone()
	delete(without.Streams, "large")
	for k := int64(1); ; k++ {
		rng := rand.New(rand.NewPCG(uint64(k), 3))
		fs := base.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
		var what atomic.Value
		g := &gate{FS: fs, at: func(n int64, op string) error {
			if n == k {
				what.Store(op)
				return errorfs.ErrInjected
			}
			return nil
		}}
		acked, failure := deleteLarge(g)
		if g.n.Load() < k {
			t.Logf("%d errors injected", k-1)
			return
		}
		allowed := []*Model{with, without}
		if acked {
			allowed = allowed[1:]
		}
		for _, kept := range []int{100, 0} {
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng})
			if err := holdsOneOf(clone, allowed...); err != nil {
				t.Fatalf("error at write %d (%v), then %v; %d %% of unsynced data kept: %v", k, what.Load(), failure, kept, err)
			}
			if err := spaceIsBack(clone); err != nil {
				t.Fatalf("error at write %d (%v), then %v; %d %% of unsynced data kept: %v", k, what.Load(), failure, kept, err)
			}
		}
	}
}
