package guesttest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
)

// TestBatchesDoNotAllocate runs batch after batch of the same records. Once its
// buffers have grown no example may take more memory, and in Go, where garbage
// would be found and used again, no collection may begin: the runtime traces them.
func TestBatchesDoNotAllocate(t *testing.T) {
	b := openBox(t, false)
	for _, example := range []string{"filter", "rename", "downsample", "anomaly", "router"} {
		m := *readManifest(t, example)
		m.Env = append(m.Env, "GODEBUG=gctrace=1")
		var records []guest.Record
		for len(records) < 400 {
			records = append(records, inputs(&m.Tests[0])...)
		}
		for i := range records {
			records[i].Index = uint64(i)
		}
		for _, language := range languages {
			if err := runBatches(t.Context(), b.compile(t, &m, language, example), &m, records); err != nil {
				t.Errorf("%s/%s: %v", language, example, err)
			}
		}
	}
}

// runBatches runs the same batch 20 times, then 300 times without more memory.
func runBatches(ctx context.Context, mod *host.Module, m *manifest.Manifest, records []guest.Record) error {
	collections := 0
	g := guest.New(guest.Options{Manifest: m, Limits: m.Limits, Services: guest.Services{
		State: mapState{}, Metrics: &guest.Metrics{},
		Log: func(_ host.Level, line []byte) {
			if bytes.HasPrefix(line, []byte("gc ")) {
				collections++
			}
		},
	}})
	inst, err := mod.Instantiate(ctx, g.InstanceOptions())
	if err != nil {
		return err
	}
	defer inst.Close()
	if err := g.Bind(ctx, inst); err != nil {
		return err
	}
	memory, before := int64(0), 0
	for n := range 320 {
		if n == 20 {
			memory, before = inst.MemoryBytes(), collections
		}
		if _, err := g.Process(ctx, &guest.Batch{Stream: "s", TimeMS: int64(n), ID: uint64(n), Records: records}); err != nil {
			return err
		}
		g.Accept()
	}
	if inst.MemoryBytes() != memory || collections != before {
		return fmt.Errorf("300 batches took %d bytes of memory and %d collections", inst.MemoryBytes()-memory, collections-before)
	}
	return nil
}
