package storage

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/record"
)

// TestReaderAtTheTipKeepsUpOnOneProcessor: a writer and the committer that wake one
// another in turns leave the processor to a reader that each commit has woken.
func TestReaderAtTheTipKeepsUpOnOneProcessor(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	r, err := st.NewReader(0, Position{Kind: Latest})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const records, behindAtMost = 5000, 16
	var seen atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for seen.Load() < records {
			if err := r.Wait(ctx); err != nil {
				t.Error(err)
				return
			}
			n, err := r.Read(records, 1<<20, func(*record.Record) bool { return true })
			if err != nil {
				t.Error(err)
				return
			}
			seen.Add(int64(n))
		}
	})
	far := 0
	for i := range int64(records) {
		put(t, s, st, 1, func(int) (string, string) { return "k", "d" })
		if i+1-seen.Load() > behindAtMost {
			far++
		}
	}
	wg.Wait()
	// A collection may take the reader's turn now and then.
	if far > records/50 {
		t.Errorf("the reader was more than %d records behind after %d of %d commits", behindAtMost, far, records)
	}
}
