// Package delivery measures the way from the log to a sink: how fast and at what
// cost in CPU, memory and flash, against the compressors alone and Telegraf on the
// same bytes.
//
// The sinks are a folder on the measured disk and versitygw, an S3 server of its
// own process over a folder on the same disk, so that what is measured is the
// engine and not a network. Each kind runs in turn in every round, beside its
// limit; figures are the medians of the rounds.
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
	dir   string // of the folder
	s3    *gateway
	guest *module
	peer  *telegraf // nil when it is not measured
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
	err = b.open(ctx)
	if err == nil {
		err = b.measure(ctx)
	}
	err = errors.Join(err, store.Close())
	if err == nil {
		err = b.memory(ctx)
	}
	if b.s3 != nil {
		err = errors.Join(err, b.s3.close())
	}
	if b.guest != nil {
		err = errors.Join(err, b.guest.close(ctx))
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// open starts what records are delivered to and through.
func (b *bench) open(ctx context.Context) error {
	var err error
	if b.guest, err = openModule(ctx, b.o.Dir); err != nil {
		return err
	}
	if b.s3, err = openGateway(ctx, b.o.Dir, b.o.Logf); err != nil {
		return err
	}
	if b.o.Peers {
		b.openTelegraf(ctx)
	}
	b.table, err = b.sinks()
	return err
}

// sinks opens the folder and the gateway as sinks.
func (b *bench) sinks() (*sink.Table, error) {
	dir, err := json.Marshal(map[string]any{"dir": b.dir, "create": true})
	if err != nil {
		return nil, err
	}
	s3, err := b.s3.settings()
	if err != nil {
		return nil, err
	}
	return sink.New([]sink.Config{{Name: folder, Kind: "file", Settings: dir}, {Name: store3, Kind: "s3", Settings: s3}}, nil)
}

// The sinks.
const (
	folder = "folder"
	store3 = "versitygw"
)

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
	{"GZIP, through a C guest", func(c *delivery.Config) {
		c.Compression.Format, c.Transform = codec.Gzip, &delivery.Transform{Module: "filter"}
	}},
	{"GZIP, partitioned by jq into 20", func(c *delivery.Config) {
		c.Compression.Format, c.Prefix, c.ErrorPrefix = codec.Gzip, "!{partitionKeyFromQuery:d}/", "failed/"
		c.Partition = &delivery.Partition{Query: "{d: .device}"}
	}},
}

func (b *bench) measure(ctx context.Context) error {
	rounds := 5
	if b.o.Quick {
		rounds = 1
	}
	ingest, err := b.fill(ctx, b.size())
	if err != nil {
		return err
	}
	if _, _, err := b.deliver(ctx, kinds[0], folder); err != nil { // what is cold after filling is nobody's
		return err
	}
	if err := b.peer.prepare(b.n); err != nil {
		return err
	}
	before := b.store.Metrics()
	speed, cpu := map[string][]float64{}, map[string][]float64{}
	for range rounds {
		for _, to := range []string{folder, store3} {
			for _, k := range kinds {
				b.o.Logf("delivery: %s to %s", k.name, to)
				took, used, err := b.deliver(ctx, k, to)
				if err != nil {
					return fmt.Errorf("%s to %s: %w", k.name, to, err)
				}
				name := to + ": " + k.name
				speed[name] = append(speed[name], float64(b.raw)/1e6/took.Seconds())
				cpu[name] = append(cpu[name], used.Seconds()/(float64(b.raw)/1e9))
			}
		}
		if err := b.limits(ctx, speed, cpu); err != nil {
			return err
		}
		if err := b.runTelegraf(ctx, speed, cpu); err != nil {
			return err
		}
	}
	after := b.store.Metrics()
	const gzipLimit, zstdLimit = "limit: gzip alone, one core", "limit: zstd decompress and compress"
	for _, to := range []string{folder, store3} {
		for _, k := range kinds {
			name := to + ": " + k.name
			b.r.Add("log to "+to+", record bytes", k.name, "over gzip alone", report.Median(speed[name])/report.Median(speed[gzipLimit]),
				"MB/s", report.Median(speed[name]), "CPU s/GB", report.Median(cpu[name]))
		}
	}
	for _, name := range []string{gzipLimit, zstdLimit} {
		b.r.Add("limits", name, "over gzip alone", report.Median(speed[name])/report.Median(speed[gzipLimit]), "MB/s", report.Median(speed[name]), "CPU s/GB", report.Median(cpu[name]))
	}
	b.reportTelegraf(speed, cpu)
	delivered := float64(b.raw) * float64(2*len(kinds)*rounds)
	flash := float64(after.BytesWAL+after.BytesFlushed-before.BytesWAL-before.BytesFlushed) / delivered
	forward := folder + ": " + kinds[0].name
	b.r.Add("cost beside the objects", "flash bytes of recipes and manifest per byte delivered", "bytes", flash)
	b.r.AtMost("flash bytes beside the objects per byte delivered", 0.01, flash)
	b.r.AtMost("CPU of forwarding over decompress and compress", 0.15, report.Median(cpu[forward])/report.Median(cpu[zstdLimit]))
	b.r.AtLeast("GZIP throughput over the compressor alone on one core", 0.8, report.Median(speed[folder+": GZIP"])/report.Median(speed[gzipLimit]))
	b.r.AtLeast("drain of a backlog into a folder over 20 MB/s ingest", 5, report.Median(speed[forward])/20)
	b.r.Note("the log was filled at %.0f MB/s; each kind drains all of it as a backlog into objects of 5 MiB; versitygw shares the machine's cores, its CPU is not counted", ingest)
	if err := b.first(ctx); err != nil {
		return err
	}
	return b.busy(ctx)
}

// size is how many bytes of records are in the log.
func (b *bench) size() int64 {
	if b.o.Quick {
		return 48 << 20
	}
	return 192 << 20
}

// first measures how long after its creation a delivery stream with a hint of
// one second has its first object.
func (b *bench) first(ctx context.Context) error {
	most := 0.0
	for _, to := range []string{folder, store3} {
		c := delivery.Config{
			Name: "first", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: to},
			Buffer: delivery.Buffer{SizeBytes: 128 << 20, Interval: delivery.Every(time.Second)}, Compression: delivery.Compression{Format: codec.Zstd},
		}
		took, _, err := b.run(ctx, c, func(s delivery.Stats) bool { return s.Objects > 0 })
		if err != nil {
			return err
		}
		b.r.Add("first object, buffer hint 1 s", to, "s after create", took.Seconds())
		most = max(most, took.Seconds())
	}
	b.r.AtMost("first object after create with a 1 s hint, s", 10, most)
	return nil
}

// fill puts size bytes of sensor records into the log, in batches of 500.
func (b *bench) fill(ctx context.Context, size int64) (float64, error) {
	st, err := b.store.CreateStream(ctx, storage.StreamConfig{Name: "s", Shards: 1, Retention: 24 * time.Hour})
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for b.raw < size {
		n, err := put(ctx, b.store, st, b.n)
		if err != nil {
			return 0, err
		}
		b.n += batch
		b.raw += n
	}
	return float64(b.raw) / 1e6 / time.Since(start).Seconds(), nil
}

// batch is how many records are put at a time.
const batch = 500

// put appends a batch of records, from the i-th on, and returns its bytes.
func put(ctx context.Context, store *storage.Store, st *storage.Stream, i int) (bytes int64, err error) {
	txn, err := store.Begin(ctx, batch*256)
	if err != nil {
		return 0, err
	}
	defer txn.Release()
	for k := range batch {
		data := sensor(i + k)
		bytes += int64(len(data))
		if err := txn.Append(st, []byte("k"), nil, data); err != nil {
			return 0, err
		}
	}
	return bytes, txn.Commit(ctx)
}

// sensor is a JSON record of about 200 bytes.
func sensor(i int) []byte {
	return fmt.Appendf(nil, `{"device":"pump-%02d","site":"north-%d","seq":%d,"ts":"2026-11-23T%02d:%02d:%02d.%03dZ","temp":%d.%02d,"pressure":%d.%03d,"vibration":[%d,%d,%d],"status":"ok","firmware":"2.%d.1"}`+"\n",
		i%20, i%3, i, i/3600%24, i/60%60, i%60, i*7%1000, 25+i*31%17, i*17%100, 1+i%4, i*13%1000, i*3%97, i*5%89, i*7%83, i%5)
}

// deliver drains the whole log into a sink.
func (b *bench) deliver(ctx context.Context, k kind, to string) (took, cpu time.Duration, err error) {
	c := delivery.Config{
		Name: "bench", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: to},
		Buffer: delivery.Buffer{Interval: delivery.Every(0)},
	}
	k.change(&c)
	return b.run(ctx, c, func(s delivery.Stats) bool { return s.LagRecords == 0 })
}

// run delivers until done says so, and removes what was delivered.
func (b *bench) run(ctx context.Context, c delivery.Config, done func(delivery.Stats) bool) (took, cpu time.Duration, err error) {
	e, err := delivery.New(b.store, delivery.Options{
		OpenSink: b.table.Open, Transforms: func(string, string) (delivery.Transformer, error) { return b.guest, nil },
	})
	if err != nil {
		return 0, 0, err
	}
	begin, used := time.Now(), processTime()
	if err := e.Create(ctx, c); err != nil {
		return 0, 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(running) }()
	for err == nil {
		var s delivery.Stats
		if s, err = e.Stats(c.Name); err == nil && done(s) {
			break
		}
		if err == nil && s.LastError != nil {
			err = errors.New(s.LastError.Error)
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	took, cpu = time.Since(begin), processTime()-used
	stop()
	return took, cpu, errors.Join(err, <-ended, e.Delete(ctx, c.Name), os.RemoveAll(b.dir), b.s3.empty())
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
