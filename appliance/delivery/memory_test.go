package delivery_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// resident is the process's resident memory in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, all, files int64
	if _, err := fmt.Sscan(string(raw), &size, &all, &files); err != nil {
		t.Fatal(err)
	}
	return (all - files) * int64(os.Getpagesize())
}

// TestMemoryIsFlat delivers 500 active partitions with 128 MiB buffers, beside
// another delivery of the same records, and watches the resident memory, the
// collector's slack included. One worker and a folder take less than half of the bound
// of 32 MiB: what is held on the heap instead of in regions, or once more, is above that
// half, long before a box with more cores and an S3 store would be above the bound.
func TestMemoryIsFlat(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	pad := strings.Repeat("x", 900)
	const records = 60_000
	for from := 0; from < records; from += 500 {
		txn, err := r.store.Begin(t.Context(), 600_000)
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < from+500; i++ {
			data := fmt.Appendf(nil, `{"n":%d,"p":"part-%d","pad":"%s%d"}`+"\n", i, i%500, pad, i*7919)
			if err := txn.Append(st, []byte("k"), nil, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := txn.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		txn.Release()
	}
	// What the log caches for its readers is not the deliveries'.
	reader, err := st.NewReader(0, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n > 0; {
		if n, err = reader.Read(10_000, 1<<20, func(*record.Record) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	reader.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as a box sets it
	runtime.GC()
	debug.FreeOSMemory()
	before := resident(t)
	buffer := delivery.Buffer{SizeBytes: 128 << 20, Interval: delivery.Every(100 * time.Millisecond)}
	r.create(delivery.Config{
		Name: "parts", Source: delivery.Source{Stream: "s"}, Buffer: buffer, Compression: delivery.Compression{Format: codec.Gzip},
		Prefix: "p/!{partitionKeyFromQuery:p}/", ErrorPrefix: "failed/", Partition: &delivery.Partition{Query: "{p: .p}", MaxActive: 500},
	})
	r.create(delivery.Config{
		Name: "whole", Source: delivery.Source{Stream: "s"}, Buffer: buffer, Compression: delivery.Compression{Format: codec.Gzip}, Prefix: "whole/",
	})
	most := int64(0)
	until(t, "drain", func() bool {
		most = max(most, resident(t)-before)
		a, errA := r.engine.Stats("parts")
		b, errB := r.engine.Stats("whole")
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		return a.LagRecords == 0 && b.LagRecords == 0
	})
	parts := map[string][]byte{}
	whole := map[string][]byte{}
	for name, raw := range r.objects() {
		if strings.HasPrefix(name, "p/") {
			parts[name] = raw
		} else {
			whole[name] = raw
		}
	}
	exactly(t, numbers(t, parts), records, false)
	exactly(t, numbers(t, whole), records, true)
	if len(parts) < 500 {
		t.Errorf("%d objects of 500 partitions", len(parts))
	}
	t.Logf("resident memory grew by %.1f MiB at most over a store that was at %.1f MiB; bound %d MiB", float64(most)/(1<<20), float64(before)/(1<<20), delivery.DefaultMemoryBytes>>20)
	if limit := int64(delivery.DefaultMemoryBytes / 2); most > limit && !raceDetector {
		t.Errorf("resident memory grew by %d bytes, the limit is %d", most, limit)
	}
}
