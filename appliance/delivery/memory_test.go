package delivery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
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

// fewer is n, or a tenth of it with the race detector: what is resident is not the
// program's own then, and it all takes ten times as long.
func fewer(n int) int {
	if raceDetector {
		return n / 10
	}
	return n
}

// TestMemoryIsFlat delivers 500 active partitions, and 20, with 128 MiB buffers, beside
// another delivery of the same records, in each format, and watches the resident memory, the
// collector's slack included. One worker and a folder take less than half of the bound
// of 32 MiB: what is held on the heap instead of in regions, or once more, is above that
// half, long before a box with more cores and an S3 store would be above the bound.
func TestMemoryIsFlat(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	pad := strings.Repeat("x", 900)
	records := fewer(60_000)
	for from := 0; from < records; from += 500 {
		txn, err := r.store.Begin(t.Context(), 600_000)
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < from+500; i++ {
			data := fmt.Appendf(nil, `{"n":%d,"p":"part-%d","q":"part-%d","pad":"%s%d"}`+"\n", i, i%500, i%20, pad, i*7919)
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
	for _, c := range []struct {
		name, query string
		partitions  int
		format      codec.Codec
		parquet     *delivery.Parquet
	}{
		{"gzip", "{p: .p}", 500, codec.Gzip, nil},
		{"parquet", "{p: .p}", 500, "", &delivery.Parquet{}},
		{"parquet of few", "{p: .q}", 20, "", &delivery.Parquet{}},
		{"zip of few", "{p: .q}", 20, codec.Zip, nil},
		{"zstd of few", "{p: .q}", 20, codec.Zstd, nil},
		{"snappy of few", "{p: .q}", 20, codec.HadoopSnappy, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime.GC()
			debug.FreeOSMemory()
			before := resident(t)
			buffer := delivery.Buffer{SizeBytes: 128 << 20, Interval: delivery.Every(100 * time.Millisecond)}
			r.create(delivery.Config{
				Name: "parts", Source: delivery.Source{Stream: "s"}, Buffer: buffer, Compression: delivery.Compression{Format: c.format}, Parquet: c.parquet,
				Prefix: "p/!{partitionKeyFromQuery:p}/", ErrorPrefix: "failed/", Partition: &delivery.Partition{Query: c.query, MaxActive: 500},
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
			t.Logf("resident memory grew by %.1f MiB at most over a store that was at %.1f MiB; bound %d MiB", float64(most)/(1<<20), float64(before)/(1<<20), delivery.DefaultMemoryBytes>>20)
			if limit := int64(delivery.DefaultMemoryBytes / 2); most > limit && !raceDetector {
				t.Errorf("resident memory grew by %d bytes, the limit is %d", most, limit)
			}
			flat(t, r, c.partitions, records)
			for _, name := range []string{"parts", "whole"} {
				if err := r.engine.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMemoryOfWideParquet: the first objects of two delivery streams, with 300 columns that
// nobody knew of, are made one after the other, because two at a time would be above the bound.
func TestMemoryOfWideParquet(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	records := fewer(4000)
	for i := range records {
		data := []byte(`{"n":` + strconv.Itoa(i))
		for c := range 300 {
			data = fmt.Appendf(data, `,"col_%d":"v%d"`, c, (i*31+c*17)%9973)
		}
		append1(t, r.store, st, "k", append(data, "}\n"...))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as a box sets it
	runtime.GC()
	debug.FreeOSMemory()
	before, most := resident(t), int64(0)
	wide := []string{"w1", "w2"}
	for _, name := range wide {
		r.create(delivery.Config{
			Name: name, Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 128 << 20, Interval: delivery.Every(0)},
			Prefix: name + "/", Parquet: &delivery.Parquet{},
		})
	}
	until(t, "drain", func() bool {
		most = max(most, resident(t)-before)
		left := uint64(0)
		for _, name := range wide {
			s, err := r.engine.Stats(name)
			if err != nil {
				t.Fatal(err)
			}
			left += s.LagRecords
		}
		return left == 0
	})
	t.Logf("resident memory grew by %.1f MiB at most over a store that was at %.1f MiB", float64(most)/(1<<20), float64(before)/(1<<20))
	if most > delivery.DefaultMemoryBytes && !raceDetector {
		t.Errorf("resident memory grew by %d bytes, the bound is %d", most, delivery.DefaultMemoryBytes)
	}
	if n := len(r.objects()); n < len(wide) {
		t.Errorf("%d objects of %d delivery streams", n, len(wide))
	}
}

// flat checks what was delivered and removes it.
func flat(t *testing.T, r *rig, partitions, records int) {
	t.Helper()
	parts := map[string][]byte{}
	whole := map[string][]byte{}
	for name, raw := range r.objects() {
		if strings.HasPrefix(name, "p/") {
			parts[name] = raw
		} else {
			whole[name] = raw
		}
	}
	exactly(t, numbers(t, whole), records, true)
	s, err := r.engine.Stats("parts")
	if err != nil || s.Records != int64(records) || len(parts) < partitions {
		t.Errorf("%d records in %d objects of %d partitions, %v", s.Records, len(parts), partitions, err)
	}
	for name := range parts {
		if format := filepath.Ext(name); format != ".gz" && format != ".zst" {
			delete(parts, name) // which nothing here reads
		}
	}
	if len(parts) > 0 {
		exactly(t, numbers(t, parts), records, false)
	}
	for _, name := range []string{"p", "whole"} {
		if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
