package storage

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// optionsFile says that Pebble gives its file of options its name: one of the last
// things it does when it opens.
func optionsFile(op errorfs.Op) bool {
	return op.Kind == errorfs.OpRename && strings.HasSuffix(op.Path, ".dbtmp")
}

func TestStockIsTakenWhilePebbleOpens(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, small(mem, nil))
	mustCreate(t, s, StreamConfig{Name: "a", Shards: 4})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	var once sync.Once
	s = mustOpen(t, small(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") {
			once.Do(func() { close(read) })
		}
		if optionsFile(op) {
			select {
			case <-read:
			case <-time.After(20 * time.Second):
				t.Error("no row was read before Pebble was open")
			}
		}
		return nil
	})), nil))
	defer s.Close()
	if _, err := s.Stream("a"); err != nil {
		t.Fatal(err)
	}
}

func TestStockOfBeforeAFlushIsNotBelieved(t *testing.T) {
	var taken atomic.Int32
	begin := func() *stockTaking {
		return &stockTaking{db: new(pebble.DB), reads: new(atomic.Bool), take: func(*pebble.DB, pebble.FlushInfo) error {
			taken.Add(1)
			return nil
		}}
	}
	s := begin()
	s.flushed(pebble.FlushInfo{Err: errors.New("disk on fire")})
	if ok, err := s.end(); ok || err != nil || taken.Load() != 0 {
		t.Fatalf("after a flush that failed: %v, %v, taken %d times", ok, err, taken.Load())
	}
	s.flushed(pebble.FlushInfo{})
	if taken.Load() != 0 {
		t.Fatal("taken when Pebble was open")
	}
	s = begin()
	s.flushed(pebble.FlushInfo{})
	if ok, err := s.end(); !ok || err != nil || taken.Load() != 1 || !s.reads.Load() {
		t.Fatalf("after one flush: %v, %v, taken %d times", ok, err, taken.Load())
	}
	s = begin()
	s.flushed(pebble.FlushInfo{})
	s.flushed(pebble.FlushInfo{})
	if ok, err := s.end(); ok || err != nil || taken.Load() != 2 {
		t.Fatalf("after two flushes: %v, %v, taken %d times", ok, err, taken.Load())
	}
}

// While the rows are read Pebble must not give its open up, and close what they are read from.
func TestListingThatFailsWhileRowsAreRead(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, small(mem, nil))
	mustCreate(t, s, StreamConfig{Name: "a", Shards: 4})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var unknown, late atomic.Bool
	_, err := Open(ctx, "data", small(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch {
		case op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && !unknown.Swap(true):
			return errorfs.ErrInjected // what is in the directory is not known any more
		case optionsFile(op):
			late.Store(true)
		case op.Kind == errorfs.OpList && late.Load():
			return errorfs.ErrInjected
		}
		return nil
	})), nil))
	if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "list") {
		t.Fatalf("open: %v, expected that the listing failed", err)
	}
	s = mustOpen(t, small(mem.CrashClone(vfs.CrashCloneCfg{}), nil))
	defer s.Close()
	if _, err := s.Stream("a"); err != nil {
		t.Fatal(err)
	}
}
