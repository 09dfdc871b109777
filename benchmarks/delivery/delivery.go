// Package delivery measures the way from the log to a sink: how fast and at what
// cost in CPU, against the compressor alone on the same bytes.
//
// Everything goes into the `file` sink on the measured disk, so that what is
// measured is the engine and not a network. Each kind runs in turn in every round,
// beside its limit; figures are the medians of the rounds.
package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
)

// bench is one run.
type bench struct {
	o     report.Options
	r     *report.Report
	store *storage.Store
	raw   int64 // bytes of record data in the log
	table *sink.Table
	dir   string // of the sink
	n     int
}

// Run measures and writes its rows and gates to r.
func Run(ctx context.Context, o report.Options, r *report.Report) error {
	b := &bench{o: o, r: r}
	store, err := storage.Open(ctx, filepath.Join(o.Dir, "store"), storage.Options{SoftFreeBytes: 1})
	if err != nil {
		return err
	}
	b.store = store
	b.dir = filepath.Join(o.Dir, "objects")
	settings, err := json.Marshal(map[string]any{"dir": b.dir, "create": true})
	if err == nil {
		b.table, err = sink.New([]sink.Config{{Name: "folder", Kind: "file", Settings: settings}}, nil)
	}
	if err == nil {
		err = b.measure(ctx)
	}
	return errors.Join(err, store.Close(), os.RemoveAll(b.dir))
}

// kind is one way of delivering.
type kind struct {
	name   string
	change func(c *delivery.Config)
}

var kinds = []kind{
	{"zstd, stored frames forwarded", func(c *delivery.Config) { c.Compression.Format = codec.Zstd }},
	{"zstd, compressed again", func(c *delivery.Config) { c.Compression = delivery.Compression{Format: codec.Zstd, Level: 1} }},
	{"uncompressed", func(*delivery.Config) {}},
	{"GZIP", func(c *delivery.Config) { c.Compression.Format = codec.Gzip }},
	{"Parquet, inferred schema", func(c *delivery.Config) { c.Parquet = &delivery.Parquet{} }},
	{"GZIP, partitioned by jq into 20", func(c *delivery.Config) {
		c.Compression.Format, c.Prefix, c.ErrorPrefix = codec.Gzip, "!{partitionKeyFromQuery:d}/", "failed/"
		c.Partition = &delivery.Partition{Query: "{d: .device}"}
	}},
}

func (b *bench) measure(ctx context.Context) error {
	size, rounds := int64(256<<20), 5
	if b.o.Quick {
		size, rounds = 48<<20, 1
	}
	ingest, err := b.fill(ctx, size)
	if err != nil {
		return err
	}
	before := b.store.Metrics()
	speed, cpu := map[string][]float64{}, map[string][]float64{}
	for range rounds {
		for _, k := range kinds {
			b.o.Logf("delivery: %s", k.name)
			took, used, err := b.deliver(ctx, k)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			speed[k.name] = append(speed[k.name], float64(b.raw)/1e6/took.Seconds())
			cpu[k.name] = append(cpu[k.name], used.Seconds()/(float64(b.raw)/1e9))
		}
		if err := b.limits(ctx, speed, cpu); err != nil {
			return err
		}
	}
	after := b.store.Metrics()
	const table = "log to folder, record bytes"
	for _, name := range append(names(), "limit: gzip alone, one core", "limit: zstd decompress and compress") {
		b.r.Add(table, name, "MB/s", median(speed[name]), "CPU s/GB", median(cpu[name]))
	}
	delivered := float64(b.raw) * float64(len(kinds)*rounds)
	flash := float64(after.BytesWAL+after.BytesFlushed-before.BytesWAL-before.BytesFlushed) / delivered
	b.r.Add("cost beside the objects", "flash bytes of recipes and manifest per byte delivered", "bytes", flash)
	b.r.AtMost("flash bytes beside the objects per byte delivered", 0.01, flash)
	b.r.AtMost("CPU of forwarding over decompress and compress", 0.15, median(cpu[kinds[0].name])/median(cpu["limit: zstd decompress and compress"]))
	b.r.AtLeast("GZIP throughput over the compressor alone", 0.8, median(speed["GZIP"])/median(speed["limit: gzip alone, one core"]))
	b.r.AtLeast("drain of a backlog over 20 MB/s ingest", 5, median(speed[kinds[0].name])/20)
	b.r.Note("the log was filled at %.0f MB/s; each kind drains all of it as a backlog into 5 MiB-hint objects", ingest)
	return nil
}

func names() []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.name)
	}
	return out
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// fill puts size bytes of sensor records into the log, in batches of 500.
func (b *bench) fill(ctx context.Context, size int64) (float64, error) {
	st, err := b.store.CreateStream(ctx, storage.StreamConfig{Name: "s", Shards: 1, Retention: 24 * time.Hour})
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for b.raw < size {
		txn, err := b.store.Begin(ctx, 500*256)
		if err != nil {
			return 0, err
		}
		for range 500 {
			data := sensor(b.n)
			b.n++
			b.raw += int64(len(data))
			if err := txn.Append(st, []byte("k"), nil, data); err != nil {
				txn.Release()
				return 0, err
			}
		}
		err = txn.Commit(ctx)
		txn.Release()
		if err != nil {
			return 0, err
		}
	}
	return float64(b.raw) / 1e6 / time.Since(start).Seconds(), nil
}

// sensor is a JSON record of about 200 bytes.
func sensor(i int) []byte {
	return fmt.Appendf(nil, `{"device":"pump-%02d","site":"north-%d","seq":%d,"ts":"2026-11-23T%02d:%02d:%02d.%03dZ","temperature":%d.%02d,"pressure":%d.%03d,"vibration":[%d,%d,%d],"status":"ok","firmware":"2.%d.1"}`+"\n",
		i%20, i%3, i, i/3600%24, i/60%60, i%60, i*7%1000, 20+i*31%17, i*17%100, 1+i%4, i*13%1000, i*3%97, i*5%89, i*7%83, i%5)
}

// deliver drains the whole log into the folder.
func (b *bench) deliver(ctx context.Context, k kind) (took, cpu time.Duration, err error) {
	e, err := delivery.New(b.store, delivery.Options{OpenSink: b.table.Open})
	if err != nil {
		return 0, 0, err
	}
	c := delivery.Config{
		Name: "bench", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: "folder"},
		Buffer: delivery.Buffer{Interval: delivery.Every(0)},
	}
	k.change(&c)
	if err := e.Create(ctx, c); err != nil {
		return 0, 0, err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	begin, used := time.Now(), processTime()
	go func() { done <- e.Run(running) }()
	for err == nil {
		var s delivery.Stats
		if s, err = e.Stats(c.Name); s.LagRecords == 0 && err == nil {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	took, cpu = time.Since(begin), processTime()-used
	stop()
	return took, cpu, errors.Join(err, <-done, e.Delete(ctx, c.Name), os.RemoveAll(b.dir))
}

// limits measures what no delivery can beat: the compressor on the same bytes.
func (b *bench) limits(ctx context.Context, speed, cpu map[string][]float64) error {
	note := func(name string, run func() error) error {
		begin, used := time.Now(), processTime()
		if err := run(); err != nil {
			return err
		}
		speed[name] = append(speed[name], float64(b.raw)/1e6/time.Since(begin).Seconds())
		cpu[name] = append(cpu[name], (processTime()-used).Seconds()/(float64(b.raw)/1e9))
		return nil
	}
	sample := b.sample(8 << 20)
	err := note("limit: gzip alone, one core", func() error {
		return b.repeat(ctx, sample, func() (io.WriteCloser, error) { return codec.Gzip.NewWriter(io.Discard, codec.Options{}) })
	})
	if err != nil {
		return err
	}
	packed, err := pack(sample)
	if err != nil {
		return err
	}
	return note("limit: zstd decompress and compress", func() error {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer dec.Close()
		return b.repeat(ctx, sample, func() (io.WriteCloser, error) {
			if _, err := dec.DecodeAll(packed, nil); err != nil {
				return nil, err
			}
			return codec.Zstd.NewWriter(io.Discard, codec.Options{})
		})
	})
}

// sample is n bytes of the records.
func (b *bench) sample(n int) []byte {
	var out bytes.Buffer
	for i := 0; out.Len() < n; i++ {
		out.Write(sensor(i))
	}
	return out.Bytes()
}

// repeat compresses the sample as often as the log has its size.
func (b *bench) repeat(ctx context.Context, sample []byte, open func() (io.WriteCloser, error)) error {
	for done := int64(0); done < b.raw && ctx.Err() == nil; done += int64(len(sample)) {
		w, err := open()
		if err != nil {
			return err
		}
		_, err = w.Write(sample)
		if err = errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func pack(sample []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := codec.Zstd.NewWriter(&out, codec.Options{})
	if err != nil {
		return nil, err
	}
	_, err = w.Write(sample)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// processTime is the CPU time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
