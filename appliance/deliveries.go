package appliance

import (
	"context"
	"encoding/json"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/wasm/transform"
)

// Sinks returns the sinks of a configuration as their package takes them.
func Sinks(c *config.Config) []sink.Config {
	var out []sink.Config
	for _, s := range c.Sinks {
		out = append(out, sink.Config{Name: s.Name, Kind: s.Kind, Default: s.Default, Settings: s.Settings.JSON()})
	}
	return out
}

// CheckSinks is a check for config.Load, which does not know what the kinds of sinks need.
func CheckSinks(c *config.Config) config.Problems {
	var out config.Problems
	for _, p := range sink.Check(Sinks(c)) {
		out = append(out, config.Problem{Path: p.Path, Text: p.Text})
	}
	return out
}

// openDeliveries opens the sinks of the configuration and the delivery engine.
func (b *box) openDeliveries(_ context.Context, c *config.Loaded) error {
	sinks := Sinks(c.Config)
	if len(sinks) == 0 {
		// Without a sink of its own the box keeps objects beside its log.
		settings, err := json.Marshal(map[string]any{"dir": filepath.Join(c.Dir, "objects"), "create": true})
		if err != nil {
			return err
		}
		sinks = []sink.Config{{Name: "folder", Kind: "file", Default: true, Settings: settings}}
	}
	table, err := sink.New(sinks, nil)
	if err != nil {
		return &fault.Error{Class: fault.Usage, Subject: "sinks", Err: err, Try: "weir check"}
	}
	b.sinks = table
	b.deliveries, err = delivery.New(b.store, delivery.Options{
		MemoryBytes: int64(c.Delivery.Memory), UplinkBytesPerSecond: int64(c.Delivery.BytesPerSecond),
		OpenSink: table.Open, Transforms: b.transformer, Logger: b.log,
	})
	return err
}

// transformer finds a module's version for a delivery stream: by digest, or the
// active one.
func (b *box) transformer(name, digest string) (delivery.Transformer, error) {
	var t *transform.Transform
	var err error
	if digest == "" {
		t, err = b.modules.Transform(name)
	} else {
		t, err = b.modules.TransformByDigest(name, digest)
	}
	if err != nil {
		return nil, err // it names the module
	}
	return &transformer{t: t}, nil
}

// transformer is a module's version as one attempt of a delivery sees it. The attempt may
// run a batch several times: for the records that come through, for those that fail.
type transformer struct {
	t       *transform.Transform
	ended   atomic.Uint64 // highest ID of a batch that was run to its end; they ascend
	batches sync.Pool     // of *transform.Batch
}

// Digest implements delivery.Transformer.
func (t *transformer) Digest() string { return t.t.Digest() }

// Process implements delivery.Transformer.
func (t *transformer) Process(ctx context.Context, in *delivery.TransformBatch, emit func(*delivery.TransformOutput) error) error {
	b, ok := t.batches.Get().(*transform.Batch)
	if !ok {
		b = &transform.Batch{}
	}
	defer t.batches.Put(b)
	records := b.Records[:0]
	for i := range in.Records {
		r := &in.Records[i]
		records = append(records, transform.Record{Key: r.Key, Data: r.Data, ArrivalMS: r.ArrivalMS, Index: r.Index})
	}
	*b = transform.Batch{Stream: in.Stream, Shard: in.Shard, TimeMS: in.TimeMS, ID: in.ID, Attempt: in.Attempt, Repeat: in.ID <= t.ended.Load(), Records: records}
	var out delivery.TransformOutput
	err := t.t.Process(ctx, b, func(o *transform.Output) error {
		out = delivery.TransformOutput{Source: o.Source, Status: delivery.TransformOk, Data: o.Data, PartitionKey: o.PartitionKey, Reason: o.Reason}
		switch o.Status {
		case transform.Dropped:
			out.Status = delivery.TransformDropped
		case transform.ProcessingFailed:
			out.Status = delivery.TransformFailed
		}
		return emit(&out)
	})
	if err == nil {
		for have := t.ended.Load(); have < in.ID && !t.ended.CompareAndSwap(have, in.ID); have = t.ended.Load() {
		}
	}
	return err
}
