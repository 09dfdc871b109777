package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/storage"
)

// rig is a store with an engine that delivers into a folder.
type rig struct {
	t       testing.TB
	store   *storage.Store
	options delivery.Options
	engine  *delivery.Engine
	dir     string // of the file sink
	stop    func()
}

type rigOption func(*delivery.Options)

func newRig(t testing.TB, options ...rigOption) *rig {
	t.Helper()
	store, err := storage.Open(t.Context(), t.TempDir(), storage.Options{SoftFreeBytes: 1, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return newRigOn(t, store, t.TempDir(), options...)
}

func newRigOn(t testing.TB, store *storage.Store, dir string, options ...rigOption) *rig {
	t.Helper()
	settings, err := json.Marshal(map[string]any{"dir": dir})
	if err != nil {
		t.Fatal(err)
	}
	table, err := sink.New([]sink.Config{{Name: "folder", Kind: "file", Default: true, Settings: settings}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := delivery.Options{OpenSink: table.Open, MaxBackoff: 200 * time.Millisecond, Workers: 1}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for _, f := range options {
		f(&o)
	}
	r := &rig{t: t, store: store, options: o, dir: dir}
	r.open()
	return r
}

// open runs an engine on what the store holds.
func (r *rig) open() {
	r.t.Helper()
	e, err := delivery.New(r.store, r.options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.engine = e
	r.start()
}

// start runs the engine until the test ends or stop is called.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
	r.t.Cleanup(func() { r.stop() })
}

func (r *rig) stream(name string, shards int) *storage.Stream {
	r.t.Helper()
	st, err := r.store.CreateStream(r.t.Context(), storage.StreamConfig{Name: name, Shards: shards, Retention: 30 * 24 * time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// put appends records with the numbers from to to-1, in batches.
func (r *rig) put(st *storage.Stream, from, to int) {
	r.t.Helper()
	put(r.t, r.store, st, from, to)
}

func put(t testing.TB, store *storage.Store, st *storage.Stream, from, to int) {
	t.Helper()
	for from < to {
		n := min(to-from, 200)
		txn, err := store.Begin(t.Context(), n*100)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := txn.Append(st, fmt.Appendf(nil, "key-%d", (from+i)%7), nil, line(from+i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := txn.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		txn.Release()
		from += n
	}
}

func line(i int) []byte {
	return fmt.Appendf(nil, `{"n":%d,"device":"pump-%d","site":"s%d","temperature":%d.%d,"ok":%t}`+"\n", i, i%7, i%3, 20+i%11, i%10, i%2 == 0)
}

func (r *rig) create(c delivery.Config) {
	r.t.Helper()
	if c.Sink.Name == "" && c.Sink.Kind == "" {
		c.Sink = delivery.Target{Name: "folder"}
	}
	if err := r.engine.Create(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
}

// until polls a condition; it is the only waiting that tests do.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}

// drained waits until nothing is left to deliver.
func (r *rig) drained(name string) {
	r.t.Helper()
	until(r.t, "drain "+name, func() bool {
		s, err := r.engine.Stats(name)
		if err != nil {
			r.t.Fatal(err)
		}
		return s.LagRecords == 0
	})
}

// objects returns the files of the sink by name, without bookkeeping.
func (r *rig) objects() map[string][]byte {
	r.t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.Name() == ".weir":
			return filepath.SkipDir
		case d.IsDir() || strings.HasSuffix(d.Name(), ".part"): // which is no object yet
			return nil
		}
		raw, err := os.ReadFile(path)
		rel, _ := filepath.Rel(r.dir, path)
		out[rel] = raw
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func names(objects map[string][]byte) []string {
	var out []string
	for n := range objects {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

func unpack(t testing.TB, name string, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch {
	case strings.HasSuffix(name, ".gz"):
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err == nil {
			_, err = out.ReadFrom(z)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(bytes.NewReader(raw))
		if err == nil {
			_, err = out.ReadFrom(z)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	default:
		return raw
	}
	return out.Bytes()
}

// numbers reads the record numbers out of objects of lines, in name order.
func numbers(t testing.TB, objects map[string][]byte) []int {
	t.Helper()
	var out []int
	for _, name := range names(objects) {
		for l := range bytes.Lines(unpack(t, name, objects[name])) {
			var doc struct{ N int }
			if err := json.Unmarshal(l, &doc); err != nil {
				t.Fatalf("%s: %q: %v", name, l, err)
			}
			out = append(out, doc.N)
		}
	}
	return out
}

// exactly checks that each of the numbers 0 to n-1 is there once, and, for
// streams of one shard, in order.
func exactly(t testing.TB, got []int, n int, ordered bool) {
	t.Helper()
	seen := make([]int, n)
	for i, v := range got {
		if v < 0 || v >= n {
			t.Fatalf("record %d was never put", v)
		}
		seen[v]++
		if ordered && v != i {
			t.Fatalf("record %d stands at place %d", v, i)
		}
	}
	for v, times := range seen {
		if times != 1 {
			t.Fatalf("record %d is there %d times (%d of %d in all)", v, times, len(got), n)
		}
	}
}

func TestDeliverByCodec(t *testing.T) {
	for _, c := range []codec.Codec{codec.Uncompressed, codec.Gzip, codec.Zstd} {
		t.Run(string(c), func(t *testing.T) {
			r := newRig(t)
			st := r.stream("s", 1)
			r.put(st, 0, 1000)
			r.create(delivery.Config{
				Name: "d", Source: delivery.Source{Stream: "s"}, Compression: delivery.Compression{Format: c},
				Buffer: delivery.Buffer{SizeBytes: 20_000, Interval: delivery.Every(50 * time.Millisecond)},
			})
			r.put(st, 1000, 3000)
			r.drained("d")
			objects := r.objects()
			exactly(t, numbers(t, objects), 3000, true)
			if len(objects) < 3 {
				t.Errorf("only %d objects: %v", len(objects), names(objects))
			}
			for name := range objects {
				if !strings.HasSuffix(name, c.Extension()) || !strings.Contains(name, "/d-1-") {
					t.Errorf("object is named %s", name)
				}
			}
		})
	}
}

func TestShardsKeepOrderAcrossReshard(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 2)
	r.put(st, 0, 500)
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{Interval: delivery.Every(0)},
	})
	if err := st.UpdateShardCount(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	r.put(st, 500, 1000)
	if err := st.UpdateShardCount(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.put(st, 1000, 1500)
	r.drained("d")
	until(t, "all records", func() bool { return len(numbers(t, r.objects())) >= 1500 })
	got := numbers(t, r.objects())
	exactly(t, got, 1500, false)
	last := map[int]int{}
	for _, n := range got { // one key is number modulo 7
		if before, ok := last[n%7]; ok && before > n {
			t.Fatalf("record %d of key %d comes after %d", n, n%7, before)
		}
		last[n%7] = n
	}
}
