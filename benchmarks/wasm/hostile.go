package wasm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
)

// attacks are guests that never end by themselves, by name.
func attacks() map[string][]byte {
	spin := asm.New()
	spin.Func("attack", "", "", "", asm.Loop, asm.Void, asm.Br, 0, asm.End)
	calls := asm.New()
	f := calls.Func("", "", "", "", asm.Nop)
	for range 60 {
		f = calls.Func("", "", "", "", asm.Call, f, asm.Call, f)
	}
	calls.Func("attack", "", "", "", asm.Call, f)
	fill := asm.New()
	fill.Memory(256, 256)
	fill.Func("attack", "", "", "", asm.Loop, asm.Void, asm.I32(0), asm.I32(1), asm.I32(256<<16), asm.MemoryFill, 0, asm.Br, 0, asm.End)
	return map[string][]byte{"endless loop": spin.Bytes(), "doubling calls": calls.Bytes(), "memory fill": fill.Bytes()}
}

// hostileNeighbours appends records, one at a time and each synced, beside
// attacks on every core, and compares the longest append with that of a quiet
// box in the same run.
func (b *run) hostileNeighbours(ctx context.Context) error {
	store, err := storage.Open(ctx, filepath.Join(b.o.Dir, "store"), storage.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	st, err := store.CreateStream(ctx, storage.StreamConfig{Name: "s", Shards: 1})
	if err != nil {
		return err
	}
	rt, err := openHost(ctx, host.Options{CacheDir: filepath.Join(b.o.Dir, "hostile")})
	if err != nil {
		return err
	}
	defer rt.Close(ctx)
	for _, name := range []string{"endless loop", "doubling calls", "memory fill"} {
		quiet, err := b.appends(ctx, store, st)
		if err != nil {
			return err
		}
		mod, err := rt.Compile(ctx, attacks()[name], host.CompileOptions{})
		if err != nil {
			return err
		}
		stop, err := attack(ctx, mod, runtime.GOMAXPROCS(0))
		if err != nil {
			return err
		}
		beside, err := b.appends(ctx, store, st)
		if err := errors.Join(err, stop(), mod.Close(ctx)); err != nil {
			return err
		}
		b.r.Add("synced appends of one record beside hostile guests on every core, ms", name,
			"p50 ratio", at(beside, 0.5)/at(quiet, 0.5), "quiet p50", at(quiet, 0.5), "p50", at(beside, 0.5),
			"quiet p99", at(quiet, 0.99), "p99", at(beside, 0.99), "quiet longest", at(quiet, 1), "longest", at(beside, 1))
		b.r.AtMost(name+" on every core: how much longer the longest append took, ms", 50, at(beside, 1)-at(quiet, 1))
	}
	return nil
}

func at(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }

// attack runs n instances that attack until stop is called.
func attack(ctx context.Context, mod *host.Module, n int) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, n)
	for k := range n {
		i, err := mod.Instantiate(ctx, host.InstanceOptions{Limits: host.Limits{Fuel: 1 << 62, Wall: time.Hour}})
		if err != nil {
			cancel()
			wg.Wait()
			return nil, err
		}
		wg.Go(func() {
			if _, err := i.Function("attack").Call(ctx); !errors.Is(err, host.ErrCanceled) {
				errs[k] = fmt.Errorf("attack ended: %w", err)
			}
			errs[k] = errors.Join(errs[k], i.Close())
		})
	}
	return func() error {
		cancel()
		wg.Wait()
		return errors.Join(errs...)
	}, nil
}

// appends appends records for a while and returns how long each took, ms, ascending.
func (b *run) appends(ctx context.Context, store *storage.Store, st *storage.Stream) ([]float64, error) {
	length := 5 * time.Second
	if b.o.Quick {
		length = 1500 * time.Millisecond
	}
	var took []float64
	for start := time.Now(); time.Since(start) < length; {
		data := b.records[len(took)%len(b.records)].data
		begun := time.Now()
		txn, err := store.Begin(ctx, len(data))
		if err != nil {
			return nil, err
		}
		if err := txn.Append(st, []byte("k"), nil, data); err != nil {
			txn.Rollback()
			return nil, err
		}
		if err := txn.Commit(ctx); err != nil {
			return nil, err
		}
		txn.Release()
		took = append(took, ms(time.Since(begun)))
	}
	slices.Sort(took)
	return took, nil
}
