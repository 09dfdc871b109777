package demo

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"golang.org/x/sync/errgroup"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/wasm/module"
)

//go:embed module/module.wasm
var moduleBytes []byte

//go:embed module/module.yaml
var moduleManifest string

// Names of what the demo makes.
const (
	streamName   = "telemetry"
	deliveryName = "objects"
	moduleName   = "demo"
	moduleVer    = "1.0.0"
)

// Options of a demo. The zero value feeds this machine's sensors only, until
// the context ends.
type Options struct {
	// Dir is the data directory, made if missing; it must hold no box yet.
	Dir string
	// Objects is where objects go. Empty for the folder objects in Dir.
	Objects *S3
	// Duration ends the demo; 0 only with the context.
	Duration time.Duration
	// Sensors and Rate are the simulated fleet: so many, and so many readings
	// per second of all of them together.
	Sensors int
	Rate    float64
	// Show gets lines for people as it goes; nil for none.
	Show func(line string)
	// Log gets the box's log; nil for none.
	Log io.Writer
	// Version is what the box calls itself.
	Version string
}

// Summary is the outcome. Counts of records are exact: they come from reading
// the log and the objects back.
type Summary struct {
	RecordsIn          int64   `json:"records_in"`          // acknowledged by the box
	RecordsTransformed int64   `json:"records_transformed"` // replaced by the module
	RecordsDropped     int64   `json:"records_dropped"`     // left out by the module
	RecordsDelivered   int64   `json:"records_delivered"`   // found in objects
	Objects            int     `json:"objects"`
	BytesIn            int64   `json:"bytes_in"`        // of record data
	BytesDelivered     int64   `json:"bytes_delivered"` // of objects as stored
	FlashBytesPerByte  float64 `json:"flash_bytes_per_byte"`
	Seconds            float64 `json:"seconds"`
	FirstObjectSeconds float64 `json:"first_object_seconds"` // from the start of the demo
	ResidentMiB        float64 `json:"resident_mib"`         // of the process at its highest: box, fleet and reader
	Sensors            int     `json:"sensors"`
	Missing            int64   `json:"missing"`  // acknowledged and in no object, though not dropped
	Repeated           int64   `json:"repeated"` // more than once
	Disordered         int64   `json:"out_of_order"`
	Verified           bool    `json:"verified"` // the log and all objects were read back to their end
}

// run is one demo at work.
type run struct {
	o       Options
	begin   time.Time
	first   time.Time // when the first object was seen
	box     *remote.Box
	client  *kinesis.Client
	ledger  *ledger
	objects objectStore
	shown   map[string]bool // objects that were printed
}

// Run runs the demo: starts a box on a free loopback port, feeds it until the
// duration is over or ctx ends, delivers the rest, reads everything back and
// compares. It returns the summary, with a fault of class Runtime when an
// acknowledged record is missing, repeated or out of order.
func Run(ctx context.Context, o Options) (*Summary, error) {
	r := &run{o: o, begin: time.Now(), ledger: newLedger(), shown: map[string]bool{}}
	if _, err := os.Stat(appliance.StorePath(o.Dir)); err == nil {
		return nil, &fault.Error{Class: fault.Usage, Subject: "--dir", Value: o.Dir, Expect: "holds a box already; the demo makes its own", Try: "another --dir, or none for a temporary one"}
	}

	// The box outlives ctx: what was taken in is delivered and checked.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ready := make(chan struct{})
	group, life := errgroup.WithContext(life)
	group.Go(func() error {
		return appliance.Run(life, boxConfig(o.Dir), appliance.Options{
			Log: o.Log, Version: o.Version,
			Ready: func(endpoint string, t *trust.Trust) {
				defer close(ready)
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(t.CA)
				r.box, _ = remote.New(endpoint, t.AccessKeyID, t.SecretAccessKey, roots) // an URL of ours
			},
		})
	})
	select {
	case <-ready:
	case <-life.Done():
		return nil, group.Wait()
	}
	summary, err := r.work(ctx, life)
	end()
	if stopped := group.Wait(); err == nil {
		err = stopped
	}
	return summary, err
}

func boxConfig(dir string) *config.Loaded {
	c := config.Default()
	c.Dir, c.Listen.Address, c.Telemetry.LogLevel = dir, "127.0.0.1:0", "warn"
	return &config.Loaded{Config: c}
}

func (r *run) show(format string, args ...any) {
	if r.o.Show != nil {
		r.o.Show(fmt.Sprintf(format, args...))
	}
}

// work feeds the box while feeding lasts, then finishes within life.
func (r *run) work(feeding, life context.Context) (*Summary, error) {
	// A request that failed is not repeated behind our back: a record counts
	// as acknowledged when its own request was answered.
	r.client = r.box.Kinesis(func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
	if err := r.prepare(life); err != nil {
		return nil, err
	}
	if r.o.Duration > 0 {
		var stop context.CancelFunc
		feeding, stop = context.WithTimeout(feeding, time.Until(r.begin.Add(r.o.Duration)))
		defer stop()
	}
	batches := make(chan []queued, senders)
	source := &source{ledger: r.ledger, machine: newMachine("/proc", "/sys"), fleet: fleet{r.o.Sensors}, rate: r.o.Rate}
	group, sending := errgroup.WithContext(life)
	group.Go(func() error { source.run(feeding, batches); return nil })
	group.Go(func() error { return send(sending, r.client, streamName, r.ledger, batches) })
	watching, stopWatching := context.WithCancel(life)
	watched := make(chan struct{})
	go func() { defer close(watched); r.watch(watching) }()
	err := group.Wait()
	stopWatching()
	<-watched
	if err != nil {
		return nil, err
	}
	return r.finish(life)
}

// prepare makes the stream, uploads the module and makes the delivery stream.
func (r *run) prepare(ctx context.Context) error {
	shards := int32(2)
	if _, err := r.client.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: aws.String(streamName), ShardCount: &shards}); err != nil {
		return fmt.Errorf("create stream: %w", err)
	}
	wait := kinesis.NewStreamExistsWaiter(r.client, func(o *kinesis.StreamExistsWaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := wait.Wait(ctx, &kinesis.DescribeStreamInput{StreamName: aws.String(streamName)}, 10*time.Second); err != nil {
		return fmt.Errorf("create stream: %w", err)
	}
	if err := Upload(ctx, r.box, moduleBytes, moduleManifest, nil); err != nil {
		return err
	}
	if err := r.box.Call(ctx, "POST", "modules/"+moduleName+"/activate", admin.ModuleVersion{Version: moduleVer}, nil); err != nil {
		return fmt.Errorf("activate module: %w", err)
	}
	target, store, err := r.target()
	if err != nil {
		return err
	}
	r.objects = store
	err = r.box.Call(ctx, "POST", "deliveries", delivery.Config{
		Name: deliveryName, Source: delivery.Source{Stream: streamName}, Sink: target, Delimiter: "\n",
		Buffer:      delivery.Buffer{SizeBytes: 4 << 20, Interval: delivery.Every(3 * time.Second)},
		Compression: delivery.Compression{Format: codec.Zstd}, Transform: &delivery.Transform{Module: moduleName},
	}, nil)
	if err != nil {
		return fmt.Errorf("create delivery stream: %w", err)
	}
	if err := r.box.Call(ctx, "POST", "deliveries/"+deliveryName+"/test", nil, nil); err != nil {
		return &fault.Error{Class: fault.Environment, Subject: "objects", Value: store.String(), Expect: "can't be written", Err: err, Try: "a bucket that is there, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY that may write to it"}
	}
	r.show("Box at %s, data in %s.", r.box.Endpoint, r.o.Dir)
	r.show("Stream %s with 2 shards -> module %s (WebAssembly, %d bytes) -> zstd objects in %s", streamName, moduleName, len(moduleBytes), store)
	return nil
}

// Upload sends a module to the box in pieces and makes it a version, inactive.
func Upload(ctx context.Context, b *remote.Box, wasm []byte, manifest string, signature []byte) error {
	sum := sha256.Sum256(wasm)
	digest := hex.EncodeToString(sum[:])
	for n := 0; n*module.ChunkBytes < len(wasm); n++ {
		piece := wasm[n*module.ChunkBytes : min((n+1)*module.ChunkBytes, len(wasm))]
		res, err := b.Send(ctx, "PUT", fmt.Sprintf("module-pieces/%s/%d", digest, n), "application/wasm", piece)
		if err != nil {
			return fmt.Errorf("upload module: %w", err)
		}
		res.Body.Close()
	}
	in := admin.ModuleAddition{Digest: digest, Size: int64(len(wasm)), Manifest: manifest, Signature: signature}
	if err := b.Call(ctx, "POST", "modules", in, nil); err != nil {
		return fmt.Errorf("add module: %w", err)
	}
	return nil
}

// target is where objects go, for the box, and how to read them back.
func (r *run) target() (delivery.Target, objectStore, error) {
	if r.o.Objects != nil {
		return r.o.Objects.target()
	}
	dir := filepath.Join(r.o.Dir, "objects")
	settings, err := json.Marshal(map[string]any{"dir": dir, "create": true})
	return delivery.Target{Kind: "file", Settings: settings}, folder(dir), err
}

// watch prints what goes through, every two seconds.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last, count := int64(0), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		status, err := r.look(ctx)
		if err != nil {
			continue // the box is stopping, or ctx has ended
		}
		if count++; count%4 == 0 {
			in := r.ledger.acked.Load()
			r.showStatus(status, in, float64(in-last)/2)
			last = in
		}
	}
}

// look asks the box how it is, and shows the objects that are new.
func (r *run) look(ctx context.Context) (*admin.Status, error) {
	var status admin.Status
	if err := r.box.Call(ctx, "GET", "status", nil, &status); err != nil {
		return nil, err
	}
	var objects admin.Objects
	if err := r.box.Call(ctx, "GET", "deliveries/"+deliveryName+"/objects?limit=20", nil, &objects); err != nil {
		return nil, err
	}
	for i := len(objects.Objects) - 1; i >= 0; i-- {
		r.showObject(&objects.Objects[i])
	}
	return &status, nil
}

func (r *run) showObject(o *delivery.Manifest) {
	if r.shown[o.Key] {
		return
	}
	r.shown[o.Key] = true
	if r.first.IsZero() {
		r.first = time.Now()
	}
	r.show("  object %s  %d records, %.1f KiB stored", o.Key, o.Records, float64(o.Stored)/1024)
}

func (r *run) showStatus(s *admin.Status, in int64, rate float64) {
	var m module.Stats
	for _, i := range s.Modules {
		if i.Name == moduleName && len(i.Versions) > 0 {
			m = i.Versions[0].Stats
		}
	}
	var d delivery.Stats
	for _, x := range s.Deliveries {
		if x.Name == deliveryName {
			d = x
		}
	}
	r.show("%4.0fs  in %d (%.0f/s)  transformed %d  dropped %d  delivered %d in %d objects  lag %d  flash %.2f B/B",
		time.Since(r.begin).Seconds(), in, rate, m.Outputs, m.Dropped, d.Records, d.Objects, d.LagRecords, s.Wear.Ratio)
}

// finish delivers what is left and reads everything back.
func (r *run) finish(ctx context.Context) (*Summary, error) {
	seconds := time.Since(r.begin).Seconds()
	r.show("Feeding ended after %.0f s: %d records acknowledged. Delivering the rest.", seconds, r.ledger.acked.Load())
	if err := r.drain(ctx); err != nil {
		return nil, err
	}
	status, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	r.show("Reading the log and the objects back.")
	s := &Summary{
		RecordsIn: r.ledger.acked.Load(), BytesIn: r.ledger.bytes.Load(), Seconds: seconds, Sensors: len(r.ledger.mu.sensors),
		FlashBytesPerByte: status.Wear.Ratio,
	}
	if !r.first.IsZero() {
		s.FirstObjectSeconds = r.first.Sub(r.begin).Seconds()
	}
	if err := r.verify(ctx, s); err != nil {
		return s, fmt.Errorf("read back: %w", err)
	}
	s.ResidentMiB, s.Verified = peakResident(), true
	if s.Missing+s.Repeated+s.Disordered > 0 {
		return s, &fault.Error{Class: fault.Runtime, Subject: "demo", Expect: fmt.Sprintf("%d records missing, %d repeated, %d out of order", s.Missing, s.Repeated, s.Disordered)}
	}
	return s, nil
}

// drain flushes until nothing is left to deliver.
func (r *run) drain(ctx context.Context) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		var info delivery.Info
		if err := r.box.Call(ctx, "POST", "deliveries/"+deliveryName+"/flush", nil, &info); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if info.Stats.LagRecords == 0 && info.Stats.Pending == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return &fault.Error{Class: fault.Runtime, Subject: "delivery", Value: fmt.Sprintf("%d records", info.Stats.LagRecords), Expect: "not delivered after two minutes"}
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
