package wasm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weirhq/weir/benchmarks/ingest"
	"github.com/weirhq/weir/wasm/wasmtest/hostile"
)

// hostileNeighbours puts records through the listener of a box while hostile
// guests run on every core of its process, one kind after the other, and
// compares with the quiet box between them. The box is on a memory file system:
// a disk's own pauses are longer than what is looked for. With a full run it is
// then done once more on the disk, for the rows alone.
func (b *run) hostileNeighbours(ctx context.Context) error {
	dir, err := os.MkdirTemp("/dev/shm", "weir-benchmark-")
	where := "memory file system"
	if err != nil {
		dir, where = filepath.Join(b.o.Dir, "hostile"), "disk"
	} else {
		defer os.RemoveAll(dir)
	}
	delay, err := b.besideHostile(ctx, dir, where)
	if err != nil {
		return err
	}
	b.r.AtMost("how much longer the longest PutRecords over HTTP took beside any hostile guest on every core, ms", 50, delay)
	if b.o.Quick || where == "disk" {
		return nil
	}
	_, err = b.besideHostile(ctx, filepath.Join(b.o.Dir, "hostile"), "disk")
	return err
}

// besideHostile measures all hostile guests and returns how much longer the
// longest request beside any of them took than the longest on the quiet box.
func (b *run) besideHostile(ctx context.Context, dir, where string) (delay float64, err error) {
	child, err := startBox(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, child.Stop()) }()
	puts, err := ingest.NewPuts(child.Address, child.Key, child.Secret, 10)
	if err != nil {
		return 0, err
	}
	defer puts.Close()
	length, pause := 3*time.Second, time.Second
	if b.o.Quick {
		length, pause = 500*time.Millisecond, 100*time.Millisecond
	}
	names := append(slices.Sorted(maps.Keys(hostile.Endless())), slices.Sorted(maps.Keys(hostile.Ending()))...)
	var quiet []float64
	beside := map[string][]float64{}
	for _, name := range names {
		for _, at := range []string{"", name} {
			if err := child.attack(at); err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			d := length
			if at == "" {
				d = pause
			}
			took, err := putFor(ctx, puts, d)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			if at == "" {
				quiet = append(quiet, took...)
			} else {
				beside[name] = took
			}
		}
	}
	slices.Sort(quiet)
	table := "PutRecords of 10 records over HTTP beside hostile guests on every core of the box, " + where + ", ms"
	row := func(name string, v []float64) {
		b.r.Add(table, name, "p50 / quiet p50", at(v, 0.5)/at(quiet, 0.5), "p50", at(v, 0.5), "p99", at(v, 0.99), "longest", at(v, 1), "requests", len(v))
	}
	row("quiet", quiet)
	for _, name := range names {
		slices.Sort(beside[name])
		row(name, beside[name])
		delay = max(delay, at(beside[name], 1)-at(quiet, 1))
	}
	return delay, nil
}

// putFor puts records for so long, one request at a time with a millisecond
// between, and returns how long each took, ms.
func putFor(ctx context.Context, puts *ingest.Puts, d time.Duration) ([]float64, error) {
	var took []float64
	for start := time.Now(); time.Since(start) < d; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one, err := puts.Put()
		if err != nil {
			return nil, err
		}
		took = append(took, one.Seconds()*1e3)
		time.Sleep(time.Millisecond)
	}
	return took, nil
}

func at(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }
