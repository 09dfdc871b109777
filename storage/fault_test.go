package storage

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

func TestFailedSyncMakesTheStoreReadOnly(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var broken atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log") {
			return errors.New("the device failed")
		}
		return nil
	}))
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 5, func(i int) (string, string) { return "k", "before" })
	broken.Store(true)
	tx, err := s.Begin(ctx, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Append(st, []byte("k"), nil, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("commit: %v", err)
	}
	tx.Release()
	if _, err := s.Begin(ctx, 10); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("begin: %v", err)
	}
	if state := s.State(); state.Writable || !state.ReadOnly || !strings.Contains(state.Reason, "the device failed") {
		t.Fatalf("%+v", state)
	}
	if n := count(readAll(t, st)); n != 5 {
		t.Fatalf("%d records are readable, want the 5 acknowledged", n)
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(crashed, nil))
	defer s.Close()
	st, _ = s.Stream("a")
	if n := count(readAll(t, st)); n != 5 {
		t.Fatalf("%d records after the crash", n)
	}
	put(t, s, st, 1, func(int) (string, string) { return "k", "after" })
}

// TestReadOnlyReasonNamesTheFileOnce fails a sync as a file system does that has turned
// read-only: with the operation and the file in the error already.
func TestReadOnlyReasonNamesTheFileOnce(t *testing.T) {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") {
			return fmt.Errorf("engine: %w", &os.PathError{Op: "write", Path: op.Path, Err: syscall.EROFS})
		}
		return nil
	}))
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	broken.Store(true)
	tx, err := s.Begin(ctx, 10)
	if err == nil {
		err = errors.Join(tx.Append(st, []byte("k"), nil, []byte("x")), tx.Commit(ctx))
	}
	if err == nil {
		t.Fatal("a commit to a read-only file system succeeded")
	}
	waitFor(t, func() bool { return s.Failed() != nil })
	if reason := s.State().Reason; strings.Count(reason, ".log") != 1 || !strings.Contains(reason, "read-only file system") {
		t.Errorf("reason: %s", reason)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsWrittenAfterTheManifestFailed lets the manifest's sync fail under a
// flush: what Pebble has in memory and what is in the manifest are no longer the
// same, so none of its goroutines may write on. Records stay readable, and the
// next open recovers them all.
func TestNothingIsWrittenAfterTheManifestFailed(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var armed, failed atomic.Bool
	var late atomic.Int64
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind == errorfs.OpFileSync && strings.Contains(op.Path, "MANIFEST") {
			failed.Store(true)
			return errors.New("the device failed")
		}
		if failed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && !strings.HasSuffix(op.Path, "LOCK") {
			late.Add(1)
		}
		return nil
	}))
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	mustCreate(t, s, StreamConfig{Name: "b"})
	put(t, s, st, 20, func(int) (string, string) { return "k", "before" })
	armed.Store(true)
	// The flush that it begins may fail before it returns.
	if err := s.committer.CloseEpoch(); err != nil && !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Failed() != nil })
	if err := s.DeleteStream(ctx, "b"); err == nil {
		t.Fatal("a stream is deleted after the failure")
	}
	if _, err := s.CreateStream(ctx, StreamConfig{Name: "c"}); err == nil {
		t.Fatal("a stream is made after the failure")
	}
	if err := s.excise(ctx, []byte{0x1f}, []byte{0x20}); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("excise: %v", err)
	}
	if n := count(readAll(t, st)); n != 20 {
		t.Fatalf("%d records are readable", n)
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := late.Load(); n != 0 {
		t.Fatalf("%d writes after the failure", n)
	}
	s = mustOpen(t, small(crashed, nil))
	defer s.Close()
	st, _ = s.Stream("a")
	if n := count(readAll(t, st)); n != 20 || len(s.Recovery().SetAside) != 0 {
		t.Fatalf("%d records after the next open, %+v", n, s.Recovery())
	}
}

// lockRefused is a file system that makes no lock file.
type lockRefused struct {
	vfs.FS
	why error
}

func (l lockRefused) Lock(name string) (io.Closer, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: l.why}
}

// TestLockThatCannotBeMadeIsNotAnotherProcess keeps the reasons apart, and looks
// into a directory on a disk that takes no lock.
func TestLockThatCannotBeMadeIsNotAnotherProcess(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, small(mem, nil))
	put(t, s, mustCreate(t, s, StreamConfig{Name: "a"}), 10, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, why := range []error{syscall.EROFS, syscall.EACCES} {
		o := small(lockRefused{mem, why}, nil)
		if _, err := Open(ctx, "data", o); !errors.Is(err, why) || errors.Is(err, ErrLocked) {
			t.Errorf("open: %v, want %v", err, why)
		}
		r, err := Verify(ctx, "data", o, nil)
		if why == syscall.EROFS && (err != nil || !r.OK() || r.Records != 10) || why == syscall.EACCES && !errors.Is(err, why) {
			t.Errorf("verify where a lock meets %v: %+v, %v", why, r, err)
		}
	}
}

// smallDisk is a file system with so many bytes: writes beyond fail with ENOSPC, or
// with EDQUOT if it is a quota of a disk that is not full.
type smallDisk struct {
	vfs.FS
	mu    sync.Mutex
	size  int64
	quota bool
	files map[string]int64
	// changed, unless nil, is called before each change, without mu.
	changed func()
}

func (d *smallDisk) change() {
	if d.changed != nil {
		d.changed()
	}
}

func newSmallDisk(fs vfs.FS, size int64) *smallDisk {
	return &smallDisk{FS: fs, size: size, files: map[string]int64{}}
}

func (d *smallDisk) used() (n int64) {
	for _, b := range d.files {
		n += b
	}
	return n
}

func (d *smallDisk) grow(name string, to int64) error {
	d.change()
	d.mu.Lock()
	defer d.mu.Unlock()
	if to > d.files[name] {
		if d.used()+to-d.files[name] > d.size {
			if d.quota {
				return &os.PathError{Op: "write", Path: name, Err: syscall.EDQUOT}
			}
			return syscall.ENOSPC
		}
		d.files[name] = to
	}
	return nil
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	used := uint64(d.used())
	if d.quota {
		return vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 41, UsedBytes: 1 << 40}, nil
	}
	return vfs.DiskUsage{AvailBytes: uint64(d.size) - used, TotalBytes: uint64(d.size), UsedBytes: used}, nil
}

func (d *smallDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	d.change()
	f, err := d.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.files[name] = 0
	d.mu.Unlock()
	return &smallDiskFile{File: f, d: d, name: name}, nil
}

func (d *smallDisk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, c)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.files[name] = d.files[old]
	delete(d.files, old)
	d.mu.Unlock()
	return &smallDiskFile{File: f, d: d, name: name}, nil
}

func (d *smallDisk) Remove(name string) error {
	d.change()
	err := d.FS.Remove(name)
	d.mu.Lock()
	delete(d.files, name)
	d.mu.Unlock()
	return err
}

func (d *smallDisk) Rename(old, name string) error {
	d.change()
	err := d.FS.Rename(old, name)
	d.mu.Lock()
	d.files[name] = d.files[old]
	delete(d.files, old)
	d.mu.Unlock()
	return err
}

func (d *smallDisk) Unwrap() vfs.FS { return d.FS }

type smallDiskFile struct {
	vfs.File
	d    *smallDisk
	name string
	at   int64
}

func (f *smallDiskFile) Write(p []byte) (int, error) {
	if err := f.d.grow(f.name, f.at+int64(len(p))); err != nil {
		return 0, err
	}
	f.at += int64(len(p))
	return f.File.Write(p)
}

func (f *smallDiskFile) Preallocate(off, n int64) error { return f.d.grow(f.name, off+n) }

// TestNoRecordIsTakenWithoutBallast opens a store on a disk without room for the ballast: a record
// that were taken at once could be the one that finds the log without space.
func TestNoRecordIsTakenWithoutBallast(t *testing.T) {
	disk := newSmallDisk(vfs.NewMem(), 64<<20)
	o := Options{FS: disk, MemTableBytes: 1 << 20, ReserveBytes: -1, SoftFreeBytes: 1}
	s := mustOpen(t, o)
	mustCreate(t, s, StreamConfig{Name: "a"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.ReserveBytes = 8 << 20
	disk.size = disk.used() + 6<<20
	s = mustOpen(t, o)
	defer s.Close()
	st, err := s.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := s.Begin(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Append(st, nil, nil, []byte("x")); !errors.Is(err, ErrDiskFull) || !s.State().DiskFull {
		t.Fatalf("append: %v, state %+v", err, s.State())
	}
	tx.Release()
	disk.mu.Lock()
	disk.size += 64 << 20
	disk.mu.Unlock()
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, s, st, 1, func(int) (string, string) { return "k", "x" })
}

func TestFullDiskNeverWedgesTheStore(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		quota  bool
	}{{DropOldest, false}, {Reject, false}, {DropOldest, true}, {Reject, true}} {
		t.Run(fmt.Sprintf("%v quota=%v", c.policy, c.quota), func(t *testing.T) {
			policy := c.policy
			disk := newSmallDisk(vfs.NewMem(), 20<<20)
			disk.quota = c.quota
			o := Options{FS: disk, MemTableBytes: 1 << 20, ReserveBytes: 4 << 20, SoftFreeBytes: 1}
			s := mustOpen(t, o)
			st := mustCreate(t, s, StreamConfig{Name: "a", WhenFull: policy})
			rng := rand.New(rand.NewPCG(1, 1))
			acked, refused := 0, 0
			payload := noise(rng, 1000)
			deadline := time.Now().Add(60 * time.Second)
			for i := 0; i < 3000 && time.Now().Before(deadline) && refused < 5; i++ {
				tx, err := s.Begin(ctx, 64<<10)
				if err != nil {
					t.Fatal(err)
				}
				for range 64 {
					payload = payload[1:] + string(rune('a'+i%26))
					if err = tx.Append(st, []byte("k"), nil, []byte(noise(rng, 1000))); err != nil {
						break
					}
				}
				if err == nil {
					err = tx.Commit(ctx)
				}
				tx.Release()
				switch {
				case err == nil:
					acked += 64
				case errors.Is(err, ErrDiskFull):
					refused++
					waitFor(t, func() bool { return policy == Reject || s.State().Writable })
				default:
					t.Fatal(err)
				}
			}
			if refused == 0 {
				t.Fatal("the disk never became full")
			}
			if policy == Reject {
				if n := count(readAll(t, st)); n != acked {
					t.Fatalf("%d records are there, %d were acknowledged", n, acked)
				}
				// Deleting makes it writable again.
				if err := s.DeleteStream(ctx, "a"); err != nil {
					t.Fatal(err)
				}
				waitFor(t, func() bool { return s.State().Writable })
				if _, err := s.CreateStream(ctx, StreamConfig{Name: "b"}); err != nil {
					t.Fatal(err)
				}
			} else {
				checkLosses(t, st, GapDropped)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, o)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// fullDisk is what a crash leaves of a store, on a disk that has no byte free, with
// the ballast or without.
func fullDisk(t *testing.T, disk *smallDisk, mem *vfs.MemFS, ballast int64) *smallDisk {
	t.Helper()
	d := newSmallDisk(mem.CrashClone(vfs.CrashCloneCfg{}), 0)
	d.quota = disk.quota
	disk.mu.Lock()
	maps.Copy(d.files, disk.files)
	disk.mu.Unlock()
	path := d.PathJoin("data", ballastFile)
	delete(d.files, path)
	if ballast > 0 {
		f, err := d.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		d.files[path] = ballast
	} else if err := removeIfThere(d.FS, path); err != nil {
		t.Fatal(err)
	}
	d.size = d.used()
	return d
}

// TestOpenOnAFullDisk opens after a crash on a disk without a free byte: the
// ballast makes room for what the log holds, and without one, when nothing may be
// dropped, all can be read and the disk is left as it was.
func TestOpenOnAFullDisk(t *testing.T) {
	for _, quota := range []bool{false, true} {
		t.Run(fmt.Sprintf("quota=%v", quota), func(t *testing.T) { testOpenOnAFullDisk(t, quota) })
	}
}

func testOpenOnAFullDisk(t *testing.T, quota bool) {
	mem := vfs.NewCrashableMem()
	disk := newSmallDisk(mem, 20<<20)
	disk.quota = quota
	o := Options{FS: disk, MemTableBytes: 1 << 20, ReserveBytes: 4 << 20, SoftFreeBytes: 1}
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 100, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	with, without := fullDisk(t, disk, mem, o.ReserveBytes), fullDisk(t, disk, mem, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(disk *smallDisk) *Store {
		t.Helper()
		o.FS = disk
		s := mustOpen(t, o)
		st, err := s.Stream("a")
		if err != nil {
			t.Fatal(err)
		}
		if n := count(readAll(t, st)); n != 100 {
			t.Errorf("%d records, want 100", n)
		}
		return s
	}
	if s = check(with); s.Failed() != nil {
		t.Errorf("with ballast: %v", s.Failed())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again, for nothing was changed
		s = check(without)
		if state := s.State(); !errors.Is(s.Failed(), ErrDiskFull) || !state.ReadOnly || !state.DiskFull || state.Writable {
			t.Errorf("without ballast: %v, state %+v", s.Failed(), state)
		}
		if _, err := s.Begin(ctx, 1); !errors.Is(err, ErrReadOnly) {
			t.Errorf("begin: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	without.mu.Lock()
	without.size += 16 << 20
	without.mu.Unlock()
	s = check(without)
	if st, err := s.Stream("a"); err != nil {
		t.Fatal(err)
	} else {
		put(t, s, st, 1, func(int) (string, string) { return "k", "x" })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOpenMakesRoom opens after a crash on a disk without a free byte and without
// ballast: what a stream lets go makes room, and is counted with its range. When the power
// goes meanwhile, nothing else is lost, and what is lost is named.
func TestOpenMakesRoom(t *testing.T) {
	for _, policy := range []Policy{DropOldest, ThinOut} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) { testOpenMakesRoom(t, policy) })
	}
}

func testOpenMakesRoom(t *testing.T, policy Policy) {
	const n, step = 20_000, 500
	mem := vfs.NewCrashableMem()
	disk := newSmallDisk(mem, 64<<20)
	o := Options{FS: disk, MemTableBytes: 1 << 20, ReserveBytes: 4 << 20, SoftFreeBytes: 1}
	s := mustOpen(t, o)
	dropping, kept := mustCreate(t, s, StreamConfig{Name: "dropping", WhenFull: policy}), mustCreate(t, s, StreamConfig{Name: "kept"})
	rng := rand.New(rand.NewPCG(1, 1))
	for range n / step {
		put(t, s, dropping, step, func(int) (string, string) { return "k", noise(rng, 1000) })
	}
	put(t, s, kept, 100, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	full := fullDisk(t, disk, mem, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(o Options) (dropped uint64) {
		s := mustOpen(t, o)
		if err := s.Failed(); err != nil {
			t.Fatal(err)
		}
		there := func(name string) (records int, lost uint64) {
			st, err := s.Stream(name)
			if err != nil {
				t.Fatal(err)
			}
			losses, err := st.Losses(0)
			if err != nil {
				t.Fatal(err)
			}
			for i := range losses {
				lost += losses[i].Records
			}
			return count(readAll(t, st)), lost
		}
		if records, lost := there("kept"); records != 100 || lost != 0 {
			t.Errorf("%d records of the stream that keeps them, %d lost; want 100", records, lost)
		}
		waitFor(t, func() bool { // a table that was emptied is found when the store is open
			var records int
			records, dropped = there("dropping")
			return records+int(dropped) == n
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return dropped
	}
	var crashed []*vfs.MemFS
	calls := 0
	var mu sync.Mutex
	below := full.FS.(*vfs.MemFS)
	full.changed = func() {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls%10 == 0 && len(crashed) < 30 {
			crashed = append(crashed, below.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
		}
	}
	o.FS = full
	s = mustOpen(t, o)
	if r := s.Recovery(); r.Clean || len(r.Jumps) != 2 || len(r.Damaged) > 0 {
		t.Errorf("recovery %+v", r)
	}
	waitFor(t, func() bool { return s.State().Writable })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	full.changed = nil // the store is closed
	if dropped := check(o); dropped == 0 || dropped == n {
		t.Errorf("%d records dropped", dropped)
	}
	if r, err := Verify(ctx, "data", o, nil); err != nil || !r.OK() {
		t.Errorf("verify: %v, %+v", err, r)
	}
	for _, fs := range crashed {
		o.FS = fs
		check(o)
	}
	if len(crashed) < 5 {
		t.Errorf("%d crashes", len(crashed))
	}
}

// TestAcknowledgedRecordsSurviveEveryCrash crashes at random moments with
// random parts of what was not synced.
func TestAcknowledgedRecordsSurviveEveryCrash(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		acked := map[string]bool{}
		for round := range 3 {
			s := mustOpen(t, small(fs, nil))
			st, err := s.Stream("a")
			if err != nil {
				st = mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
			}
			checkAcked(t, st, acked)
			var mu sync.Mutex
			done := make(chan *vfs.MemFS, 1)
			var stop atomic.Bool
			var wg sync.WaitGroup
			for w := range 4 {
				wrng := rand.New(rand.NewPCG(seed, uint64(10*round+w)))
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := 0; !stop.Load(); i++ {
						var batch []string
						tx, err := s.Begin(ctx, 100)
						if err != nil {
							t.Error(err)
							return
						}
						for range 1 + wrng.IntN(20) {
							v := fmt.Sprint(w, "-", wrng.Uint64(), noise(wrng, 500))
							batch = append(batch, v)
							if err := tx.Append(st, []byte(v[:3]), nil, []byte(v)); err != nil {
								t.Error(err)
							}
						}
						if err := tx.Commit(ctx); err != nil {
							t.Error(err)
						}
						tx.Release()
						mu.Lock()
						if !stop.Load() {
							for _, v := range batch {
								acked[v] = true
							}
						}
						mu.Unlock()
						if i == 50 && w == 0 {
							mu.Lock()
							stop.Store(true)
							done <- fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
							mu.Unlock()
						}
					}
				}()
			}
			if mid, ok := st.Shards()[len(st.Shards())-1].Hash.Mid(); ok {
				if err := st.Split(ctx, st.Shards()[len(st.Shards())-1].Number, mid); err != nil {
					t.Error(err)
				}
			}
			wg.Wait()
			fs = <-done
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s := mustOpen(t, small(fs, nil))
		st, err := s.Stream("a")
		if err != nil {
			t.Fatal(err)
		}
		checkAcked(t, st, acked)
		if d := s.Recovery().Damaged; len(d) > 0 {
			t.Fatalf("seed %d: %+v", seed, d)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkAcked(t *testing.T, st *Stream, acked map[string]bool) {
	t.Helper()
	seen := map[string]bool{}
	for _, recs := range readAll(t, st) {
		for _, r := range recs {
			if seen[r] {
				t.Fatalf("record twice: %.40s", r)
			}
			seen[r] = true
		}
	}
	for v := range acked {
		if !seen[v] {
			t.Fatalf("acknowledged record is missing: %.40s", v)
		}
	}
}

func TestClockOfABoxWithoutBattery(t *testing.T) {
	fs := vfs.NewMem()
	clock := newTestClock()
	s := mustOpen(t, small(fs, clock))
	st := mustCreate(t, s, StreamConfig{Name: "a", Retention: 30 * 24 * time.Hour})
	put(t, s, st, 1, func(int) (string, string) { return "k", "known" })
	known := clock.now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The box was off for three days and wakes up in 1970.
	real := known.Add(72 * time.Hour)
	clock.step(time.Unix(100, 0))
	s = mustOpen(t, small(fs, clock))
	st, _ = s.Stream("a")
	put(t, s, st, 1, func(int) (string, string) { return "k", "guessed" })
	if !s.State().ClockHeld {
		t.Fatal("the clock of 1970 is believed")
	}
	if got := arrivals(t, st); got[1].Before(known) || got[1].After(known.Add(time.Minute)) {
		t.Fatalf("stamped %v, want to go on from %v", got[1], known)
	}
	if err := s.Retain(ctx); err != nil || count(readAll(t, st)) != 2 {
		t.Fatalf("retention under a wrong clock: %v", err)
	}
	// The network tells the time.
	clock.pass(time.Minute)
	clock.step(real.Add(time.Minute))
	put(t, s, st, 1, func(int) (string, string) { return "k", "told" })
	waitFor(t, func() bool { return s.committer.Do(func() {}) == nil && !s.State().ClockHeld })
	if got := arrivals(t, st); !got[1].Equal(real) || !got[2].Equal(real.Add(time.Minute)) {
		t.Fatalf("corrected to %v and %v, want %v and a minute later", got[1], got[2], real)
	}
	if r, err := st.NewReader(0, Position{Kind: AtTime, Time: real}); err != nil || r.Position() != 2 {
		t.Fatalf("from the corrected time: %v, position %d", err, r.Position())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(fs, clock))
	st, _ = s.Stream("a")
	if got := arrivals(t, st); !got[1].Equal(real) {
		t.Fatalf("after reopen %v, want %v", got[1], real)
	}
	if r, err := st.NewReader(0, Position{Kind: AtTime, Time: real}); err != nil || r.Position() != 2 {
		t.Fatalf("after reopen, from the corrected time: %v, position %d", err, r.Position())
	}
	// A jump of ten years is not believed, and drops nothing.
	clock.step(clock.now().AddDate(10, 0, 0))
	if err := s.Retain(ctx); err != nil || count(readAll(t, st)) != 3 || !s.State().ClockHeld {
		t.Fatalf("ten years: %v, %d records", err, count(readAll(t, st)))
	}
	s.ConfirmTime(clock.now())
	put(t, s, st, 1, func(int) (string, string) { return "k", "confirmed" })
	if got := arrivals(t, st); !got[3].Equal(clock.now()) {
		t.Fatalf("%v after confirmation, want %v", got[3], clock.now())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A box that was never told the time is switched off and on before it is. What it
// took in before was stamped with 1970 and must not look fifty years old.
func TestStampsOfOpensThatNeverKnewTheTimeAreCorrected(t *testing.T) {
	real := time.UnixMilli(1_800_000_000_000)
	for _, when := range []string{"at an open", "while open", "after kills"} {
		t.Run(when, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			end := func(s *Store) {
				t.Helper()
				left := fs
				if when == "after kills" {
					left = fs.CrashClone(vfs.CrashCloneCfg{})
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				fs = left
			}
			clock := newTestClock()
			for life := range 2 {
				clock.step(time.Unix(100, 0))
				s := mustOpen(t, small(fs, clock))
				if life == 0 {
					mustCreate(t, s, StreamConfig{Name: "a", Retention: 24 * time.Hour})
				}
				st, _ := s.Stream("a")
				put(t, s, st, 1, func(int) (string, string) { return "k", "undated" })
				clock.pass(time.Hour)
				end(s)
			}
			clock.step(time.Unix(100, 0))
			if when != "while open" {
				clock.step(real)
			}
			s := mustOpen(t, small(fs, clock))
			st, _ := s.Stream("a")
			if when == "while open" {
				clock.step(real)
			}
			put(t, s, st, 1, func(int) (string, string) { return "k", "dated" })
			waitFor(t, func() bool { return s.committer.Do(func() {}) == nil && !s.State().ClockHeld })
			for reopened := range 2 {
				if err := s.Retain(ctx); err != nil || count(readAll(t, st)) != 3 {
					t.Fatalf("retention: %v, %d records left", err, count(readAll(t, st)))
				}
				got := arrivals(t, st)
				for i, at := range got {
					if at.After(real) || at.Before(real.Add(-3*time.Hour)) {
						t.Errorf("opened %d times: record %d is dated %v, want shortly before %v", reopened, i, at, real)
					}
				}
				if !got[2].Equal(real) {
					t.Errorf("the record after the time was known is dated %v", got[2])
				}
				end(s)
				s = mustOpen(t, small(fs, clock))
				st, _ = s.Stream("a")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func arrivals(t *testing.T, st *Stream) (out []time.Time) {
	t.Helper()
	r, err := st.NewReader(0, Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(100, 1<<20, func(rec *record.Record) bool { out = append(out, rec.Arrival); return true }); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return out
}

// TestVerifyReadsPastATableCutShort has to name what the table held, and nothing else.
func TestVerifyReadsPastATableCutShort(t *testing.T) {
	fs, _ := crashedStore(t)
	o := Options{FS: fs, ReserveBytes: -1}
	s := mustOpen(t, o)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := Verify(ctx, "data", o, nil)
	if err != nil || !before.OK() {
		t.Fatalf("verify: %v, %+v", err, before)
	}
	d, err := openOffline("data", o)
	if err != nil {
		t.Fatal(err)
	}
	levels, err := d.db.SSTables()
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	table := ""
	for _, level := range levels {
		for i := range level {
			if _, err := keyspace.ParseDataKey(level[i].Smallest.UserKey); err == nil {
				table = tableName(uint64(level[i].BackingSSTNum))
			}
		}
	}
	damage(t, fs, func(name string) bool { return name == table }, func(b []byte) []byte { return b[:len(b)/2] })
	after, err := Verify(ctx, "data", o, nil)
	if err != nil {
		t.Fatal(err)
	}
	named := uint64(0)
	for _, p := range after.Problems {
		if p.What == problemMissing {
			named += p.Last - p.First + 1
		}
	}
	if lost := before.Records - after.Records; lost == 0 || named != lost {
		t.Errorf("%d records lost, %d named: %+v", lost, named, after.Problems)
	}
}
