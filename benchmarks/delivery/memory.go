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
	Load    load   `json:"load"`
}

// load is what is delivered while memory is watched.
type load struct {
	Partitions int         `json:"partitions"`
	Format     codec.Codec `json:"format"` // "" is Parquet
}

func (l load) String() string {
	name := string(l.Format)
	if name == "" {
		name = "Parquet"
	}
	return fmt.Sprintf("%d partitions, %s, 128 MiB buffers", l.Partitions, name)
}

// loads are the formats, and partitions that are gathered many at a time or need
// several row groups and blocks each.
var loads = []load{
	{500, codec.Gzip}, {500, ""}, {500, codec.Zstd}, {20, codec.Gzip}, {20, ""}, {20, codec.Zip}, {20, codec.Zstd}, {20, codec.HadoopSnappy},
}

// finding is what the child saw.
type finding struct {
	BeforeMB float64 `json:"before_mb"` // resident, the log read once
	GrownMB  float64 `json:"grown_mb"`
	Speed    float64 `json:"speed"` // MB of records per second
	Read     float64 `json:"read"`  // bytes read from the log per byte delivered
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

// memory measures, for each load, how far the resident memory of a process with the
// collector set as a box sets it grows over what it was while it delivers.
func (b *bench) memory(ctx context.Context) error {
	most := 0.0
	for _, l := range loads {
		b.o.Logf("delivery: memory, %v", l)
		f, err := b.watch(ctx, l)
		if err != nil {
			return fmt.Errorf("%v: %w", l, err)
		}
		b.r.Add("memory", l.String(), "MiB grown", f.GrownMB, "MiB before", f.BeforeMB, "MB/s", f.Speed, "bytes of the log read per byte delivered", f.Read)
		most = max(most, f.GrownMB)
	}
	b.r.AtMost("resident memory of deliveries, MiB", 32, most)
	return nil
}

// watch runs one load in a process of its own.
func (b *bench) watch(ctx context.Context, l load) (f finding, err error) {
	p, err := process.Again(ctx, ChildName)
	if err != nil {
		return f, err
	}
	err = p.Tell(errand{Store: filepath.Join(b.o.Dir, "store"), Folder: b.dir, Gateway: b.s3.url, Objects: b.s3.dir, Load: l})
	return f, errors.Join(err, p.Hear(&f), p.Stop())
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
		f, err = b.grow(ctx, e.Load)
	}
	return errors.Join(err, store.Close(), json.NewEncoder(os.Stdout).Encode(f))
}

// grow delivers and watches.
func (b *bench) grow(ctx context.Context, l load) (f finding, err error) {
	size, err := b.readAll()
	if err != nil {
		return f, err
	}
	runtime.GC()
	debug.FreeOSMemory()
	f.BeforeMB = process.ResidentMB()
	c := delivery.Config{
		Name: "memory", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: store3}, Prefix: "!{partitionKeyFromQuery:n}/", ErrorPrefix: "failed/",
		Buffer: delivery.Buffer{SizeBytes: 128 << 20, Interval: delivery.Every(0)}, Compression: delivery.Compression{Format: l.Format},
		Partition: &delivery.Partition{Query: fmt.Sprintf("{n: (.seq %% %d)}", l.Partitions)},
	}
	if l.Format == "" {
		c.Parquet = &delivery.Parquet{}
	}
	took, _, err := b.run(ctx, c, func(s delivery.Stats) bool {
		f.GrownMB = max(f.GrownMB, process.ResidentMB()-f.BeforeMB)
		f.Read = float64(s.ReadBytes) / float64(size)
		return s.LagRecords == 0
	})
	f.Speed = float64(size) / 1e6 / took.Seconds()
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
