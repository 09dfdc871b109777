package delivery

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/benchmarks/process"
	wasmguest "github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

// module is the checked-in C guest that finds a field in each record and passes
// on those that have it with another field appended.
type module struct {
	runtime *host.Runtime
	t       *transform.Transform
}

func openModule(ctx context.Context, dir string) (*module, error) {
	path, err := process.Repository(ctx, "wasm", "wasmtest", "modules", "filter.wasm")
	if err != nil {
		return nil, err
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rt, err := host.New(ctx, host.Options{CacheDir: filepath.Join(dir, "modules"), Imports: wasmguest.Imports(), MemoryBudgetBytes: 256 << 20})
	if err != nil {
		return nil, err
	}
	mod, err := rt.Compile(ctx, wasm, host.CompileOptions{Grant: func(string) bool { return true }})
	if err != nil {
		return nil, errors.Join(err, rt.Close(ctx))
	}
	m, err := manifest.Parse([]byte("name: filter\nversion: 1.0.0\nkind: transform\n"))
	if err != nil {
		return nil, errors.Join(err, rt.Close(ctx))
	}
	t := transform.New(transform.Options{
		Manifest: m, Digest: mod.Digest(), Instances: 2,
		Load: func(_ context.Context, n int) (transform.Engines, error) {
			return transform.NewGuestEngines(mod, n, func() wasmguest.Options { return wasmguest.Options{Manifest: m, Limits: m.Limits} })
		},
	})
	return &module{runtime: rt, t: t}, nil
}

func (m *module) close(ctx context.Context) error {
	m.t.Close()
	return m.runtime.Close(ctx)
}

// Digest implements delivery.Transformer.
func (m *module) Digest() string { return m.t.Digest() }

// Process implements delivery.Transformer.
func (m *module) Process(ctx context.Context, in *delivery.TransformBatch, emit func(*delivery.TransformOutput) error) error {
	b := &transform.Batch{Stream: in.Stream, Shard: in.Shard, TimeMS: in.TimeMS, ID: in.ID, Attempt: in.Attempt}
	for i := range in.Records {
		r := &in.Records[i]
		b.Records = append(b.Records, transform.Record{Key: r.Key, Data: r.Data, ArrivalMS: r.ArrivalMS, Index: r.Index})
	}
	var out delivery.TransformOutput
	return m.t.Process(ctx, b, func(o *transform.Output) error {
		out = delivery.TransformOutput{Source: o.Source, Data: o.Data, PartitionKey: o.PartitionKey, Reason: o.Reason}
		switch o.Status {
		case transform.Dropped:
			out.Status = delivery.TransformDropped
		case transform.ProcessingFailed:
			out.Status = delivery.TransformFailed
		}
		return emit(&out)
	})
}
