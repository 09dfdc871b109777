package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// smallDisk mounts a small ext4 file system on a loop device and returns where.
func smallDisk(t *testing.T, megabytes int64) string {
	t.Helper()
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(megabytes<<20), f.Close(), os.Mkdir(mount, 0o755)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-m", "0", image)
	run(t, "mount", "-o", "loop", image, mount)
	// An open that found no space leaves files open behind it.
	t.Cleanup(func() { run(t, "umount", "-l", mount) })
	return mount
}

func run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// filler writes records of 1 KiB that don't compress, in order, to one shard.
type filler struct {
	store *storage.Store
	st    *storage.Stream
	rng   *rand.ChaCha8
	acked int
}

func newFiller(t *testing.T, dir string, policy storage.Policy) *filler {
	t.Helper()
	ctx := context.Background()
	s, err := storage.Open(ctx, dir, storage.Options{MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.CreateStream(ctx, storage.StreamConfig{Name: "a", Shards: 1, WhenFull: policy})
	if err != nil {
		t.Fatal(err)
	}
	return &filler{store: s, st: st, rng: rand.NewChaCha8([32]byte{2})}
}

// put appends 64 records.
func (f *filler) put(ctx context.Context) error {
	tx, err := f.store.Begin(ctx, 64<<10)
	if err != nil {
		return err
	}
	defer tx.Release()
	data := make([]byte, 1024)
	for i := range 64 {
		_, _ = f.rng.Read(data) // never fails
		copy(data, fmt.Sprintf("%016d", f.acked+i))
		if err := tx.Append(f.st, []byte("k"), nil, data); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	f.acked += 64
	return nil
}

// untilWritable waits for the store to take records again.
func (f *filler) untilWritable(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(5 * time.Millisecond); !f.store.State().Writable; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not writable again: %+v", f.store.State())
		}
	}
}

// first is the index of the first record kept.
func (f *filler) first(t *testing.T) uint64 {
	t.Helper()
	info, err := f.st.Shard(0)
	if err != nil {
		t.Fatal(err)
	}
	return info.First
}

// check reads everything: a run without gaps or repeats up to the last
// acknowledged record. It returns how many are there. When the store drops records
// from before the reader meanwhile, it reads once more.
func (f *filler) check(t *testing.T) int {
	t.Helper()
	var all []Record
	for before, again := uint64(0), true; again; again = f.first(t) != before {
		before = f.first(t)
		var err error
		if all, err = ReadAll(f.st, record.ShardNumber(0), storage.Position{Kind: storage.TrimHorizon}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range all {
		if want := fmt.Sprintf("%016d", f.acked-len(all)+i); string(all[i].Data[:16]) != want {
			t.Fatalf("record %d of %d is %s, want %s", i, len(all), all[i].Data[:16], want)
		}
	}
	return len(all)
}

// TestFullFileSystem fills a real file system to the brim in three ways. Without
// the right to mount one, the emulated disk of package storage's tests stands for it.
func TestFullFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: no loop mount")
		return
	}
	ctx := context.Background()
	t.Run("a stream that refuses loses nothing", func(t *testing.T) {
		f := newFiller(t, filepath.Join(smallDisk(t, 128), "weir"), storage.Reject)
		refused := 0
		for refused < 20 {
			switch err := f.put(ctx); {
			case errors.Is(err, storage.ErrDiskFull):
				refused++
			case err != nil:
				t.Fatal(err)
			}
		}
		if n := f.check(t); n != f.acked || n == 0 {
			t.Fatalf("%d records are there, %d were acknowledged", n, f.acked)
		}
		if err := f.store.DeleteStream(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		f.untilWritable(t)
		f.finish(t)
	})
	t.Run("a stream that drops its oldest goes on", func(t *testing.T) {
		f := newFiller(t, filepath.Join(smallDisk(t, 128), "weir"), storage.DropOldest)
		for f.acked < 150<<10 {
			switch err := f.put(ctx); {
			case errors.Is(err, storage.ErrDiskFull):
				f.untilWritable(t)
			case err != nil:
				t.Fatal(err)
			}
		}
		if n := f.check(t); n == 0 || n == f.acked {
			t.Fatalf("%d of %d records are there", n, f.acked)
		}
		f.finish(t)
	})
	t.Run("somebody else fills the disk", func(t *testing.T) {
		disk := smallDisk(t, 128)
		f := newFiller(t, filepath.Join(disk, "weir"), storage.DropOldest)
		for range 3 {
			hog := filepath.Join(disk, "hog")
			fillUp(t, hog)
			for range 200 {
				if err := f.put(ctx); err != nil && !errors.Is(err, storage.ErrDiskFull) {
					t.Fatal(err)
				}
			}
			if err := os.Remove(hog); err != nil {
				t.Fatal(err)
			}
			f.untilWritable(t)
			if err := f.put(ctx); err != nil {
				t.Fatal(err)
			}
			f.check(t)
		}
		f.finish(t)
	})
}

// TestOpenWithoutAByteFree opens on a real file system that somebody else filled, where
// the ballast is gone: all can be read, and a stream that lets records go makes room.
func TestOpenWithoutAByteFree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: no loop mount")
		return
	}
	for _, policy := range []storage.Policy{storage.Reject, storage.DropOldest} {
		disk := smallDisk(t, 160)
		f := newFiller(t, filepath.Join(disk, "weir"), policy)
		for f.acked < 48<<10 {
			if err := f.put(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		dir := f.store.Dir()
		if err := errors.Join(f.store.Close(), os.Remove(filepath.Join(dir, "ballast"))); err != nil {
			t.Fatal(err)
		}
		fillUp(t, filepath.Join(disk, "hog"))
		s, err := storage.Open(context.Background(), dir, storage.Options{MemTableBytes: 1 << 20, SoftFreeBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		f.store = s
		if f.st, err = s.Stream("a"); err != nil {
			t.Fatal(err)
		}
		if policy == storage.Reject {
			if n := f.check(t); n != f.acked || !errors.Is(s.Failed(), storage.ErrDiskFull) {
				t.Errorf("%d of %d records can be read, %v", n, f.acked, s.Failed())
			}
			if err := os.Remove(filepath.Join(disk, "hog")); err != nil {
				t.Fatal(err)
			}
		} else {
			f.untilWritable(t)
			if err := f.put(context.Background()); err != nil {
				t.Fatal(err)
			}
			if n := f.check(t); n == 0 || n == f.acked {
				t.Errorf("%d of %d records are there", n, f.acked)
			}
		}
		f.finish(t)
	}
}

// finish closes the store and opens it once more.
func (f *filler) finish(t *testing.T) {
	t.Helper()
	dir := f.store.Dir()
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(context.Background(), dir, storage.Options{MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// fillUp writes a file until there is no space left.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
}
