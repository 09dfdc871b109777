package storage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func TestTableIsWrittenAsItIsGiven(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		fs := vfs.NewMem()
		f, err := fs.Create("t.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		w := writeTable(f, "t.sst", new(tablePages))
		var want []byte
		check := func() {
			t.Helper()
			got, err := readFile(fs, "t.sst")
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes on disk, %d were written: %v", len(got), len(want), err)
			}
		}
		for range rng.IntN(40) {
			p := make([]byte, rng.IntN([]int{10, 5000, 40_000, 300_000}[rng.IntN(4)]))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			want = append(want, p...)
			if n, err := w.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			switch rng.IntN(6) {
			case 0:
				if err := w.Sync(); err != nil {
					t.Fatal(err)
				}
				check()
			case 1:
				if err := w.SyncData(); err != nil {
					t.Fatal(err)
				}
				check()
			case 2:
				if _, err := w.SyncTo(int64(rng.IntN(len(want) + 1))); err != nil {
					t.Fatal(err)
				}
			case 3:
				if info, err := w.Stat(); err != nil || info.Size() != int64(len(want)) {
					t.Fatal(info, err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		check()
	}
}

// What a write could not put on the disk is an error of every later call: a table of
// which a part is missing is never taken for whole.
func TestTableThatCouldNotBeWrittenStaysSo(t *testing.T) {
	for _, last := range []func(vfs.File) error{vfs.File.Sync, vfs.File.SyncData, vfs.File.Close} {
		fail := errors.New("no more")
		failing := false
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if failing && op.Kind == errorfs.OpFileWrite {
				return fail
			}
			return nil
		}))
		f, err := fs.Create("t.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		w := writeTable(f, "t.sst", new(tablePages))
		failing = true
		if _, err := w.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := last(w); !errors.Is(err, fail) {
			t.Fatalf("%v, expected the error of the write", err)
		}
		failing = false
		f, err = fs.Create("u.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		w = writeTable(f, "t.sst", new(tablePages))
		failing = true
		if _, err := w.Write(make([]byte, 2*tableWriteBytes)); !errors.Is(err, fail) {
			t.Fatalf("%v, expected the error of the write", err)
		}
		failing = false // the disk has room again: the hole remains
		if _, err := w.Write([]byte("x")); !errors.Is(err, fail) {
			t.Fatalf("%v, expected the error of the write before", err)
		}
		if err := last(w); !errors.Is(err, fail) {
			t.Fatalf("%v, expected the error of the write", err)
		}
	}
}
