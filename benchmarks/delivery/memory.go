package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// ChildName is the hidden benchmark that measures memory in a process of its own,
// which has held nothing before but the store.
const ChildName = "delivery-child"

// errand is what the child is to deliver; it comes as JSON on standard input.
type errand struct {
	Store   string `json:"store"`
	Folder  string `json:"folder"`
	Gateway string `json:"gateway"` // URL
	Objects string `json:"objects"` // the gateway's folder
}

// finding is what the child saw.
type finding struct {
	BeforeMB float64 `json:"before_mb"` // resident, the log read once
	GrownMB  float64 `json:"grown_mb"`
	Read     float64 `json:"read"` // bytes read from the log per byte delivered
}

// Memory fills a log and measures the resident memory of deliveries alone, without
// the rest of the benchmark.
func Memory(ctx context.Context, o report.Options, r *report.Report) error {
	b := &bench{o: o, r: r, dir: filepath.Join(o.Dir, "objects")}
	store, err := storage.Open(ctx, filepath.Join(o.Dir, "store"), storage.Options{SoftFreeBytes: 1})
	if err != nil {
		return err
	}
	b.store = store
	_, err = b.fill(ctx, b.size())
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	if b.s3, err = openGateway(ctx, o.Dir, o.Logf); err != nil {
		return err
	}
	return errors.Join(b.memory(ctx), b.s3.close(), os.RemoveAll(b.dir))
}

// memory measures how far the resident memory of a process with the collector
// set as a box sets it grows over what it was while 500 partitions with buffers
// of 128 MiB are delivered.
func (b *bench) memory(ctx context.Context) error {
	p, err := process.Again(ctx, ChildName)
	if err != nil {
		return err
	}
	var f finding
	err = p.Tell(errand{Store: filepath.Join(b.o.Dir, "store"), Folder: b.dir, Gateway: b.s3.url, Objects: b.s3.dir})
	if err = errors.Join(err, p.Hear(&f), p.Stop()); err != nil {
		return err
	}
	b.r.Add("memory", "500 partitions, 128 MiB buffers", "MiB grown", f.GrownMB, "MiB before", f.BeforeMB, "bytes of the log read per byte delivered", f.Read)
	b.r.AtMost("resident memory of deliveries, MiB", 32, f.GrownMB)
	return nil
}

// Child does the errand.
func Child(ctx context.Context, _ report.Options, _ *report.Report) error {
	var e errand
	if err := json.NewDecoder(os.Stdin).Decode(&e); err != nil {
		return fmt.Errorf("errand: %w", err)
	}
	store, err := storage.Open(ctx, e.Store, storage.Options{SoftFreeBytes: 1})
	if err != nil {
		return err
	}
	b := &bench{store: store, dir: e.Folder, s3: &gateway{url: e.Gateway, dir: e.Objects}}
	var f finding
	if b.table, err = b.sinks(); err == nil {
		f, err = b.grow(ctx)
	}
	return errors.Join(err, store.Close(), json.NewEncoder(os.Stdout).Encode(f))
}

// grow delivers and watches.
func (b *bench) grow(ctx context.Context) (f finding, err error) {
	size, err := b.readAll()
	if err != nil {
		return f, err
	}
	runtime.GC()
	debug.FreeOSMemory()
	f.BeforeMB = process.ResidentMB()
	c := delivery.Config{
		Name: "memory", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: store3}, Prefix: "!{partitionKeyFromQuery:n}/", ErrorPrefix: "failed/",
		Buffer: delivery.Buffer{SizeBytes: 128 << 20, Interval: delivery.Every(0)}, Compression: delivery.Compression{Format: codec.Gzip},
		Partition: &delivery.Partition{Query: "{n: (.seq % 500)}"},
	}
	_, _, err = b.run(ctx, c, func(s delivery.Stats) bool {
		f.GrownMB = max(f.GrownMB, process.ResidentMB()-f.BeforeMB)
		f.Read = float64(s.ReadBytes) / float64(size)
		return s.LagRecords == 0
	})
	return f, err
}

// readAll reads the log once, so that what it caches for its readers is not the
// deliveries', and returns its bytes of data.
func (b *bench) readAll() (size int64, err error) {
	st, err := b.store.Stream("s")
	if err != nil {
		return 0, err
	}
	reader, err := st.NewReader(0, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	for n := 1; n > 0; {
		n, err = reader.Read(10_000, 1<<20, func(r *record.Record) bool {
			size += int64(len(r.Data))
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	return size, nil
}
