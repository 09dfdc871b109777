package appliance

import (
	"context"
	"errors"
	"testing"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// TestBatchesOfAnAttemptAreCountedOnce runs batches as a delivery does: all of them for the
// records that come through, and all again for those that fail.
func TestBatchesOfAnAttemptAreCountedOnce(t *testing.T) {
	m, err := manifest.Parse([]byte("name: m\nversion: 1.0.0\nkind: transform"))
	if err != nil {
		t.Fatal(err)
	}
	runtime := wasmtest.Runtime(t, host.Options{})
	counted, runs := 0, 0
	tr := transform.New(transform.Options{
		Manifest: m, Digest: "d", Instances: 1,
		Load: func(ctx context.Context, n int) (transform.Engines, error) {
			mod, err := runtime.Compile(ctx, wasmtest.Module(t, "pass"), host.CompileOptions{Grant: guest.Grant(m)})
			if err != nil {
				return nil, err
			}
			return transform.NewGuestEngines(mod, n, func() guest.Options { return guest.Options{Manifest: m, Limits: m.Limits} })
		},
		Observe: func(r transform.Report) {
			runs++
			if !r.Repeat && r.Err == nil {
				counted += r.Records
			}
		},
	})
	t.Cleanup(tr.Close)
	d := &transformer{t: tr}
	broken := errors.New("the sink failed")
	process := func(id uint64, then error) {
		t.Helper()
		b := &delivery.TransformBatch{Stream: "s", ID: 7<<20 | id, Records: []delivery.TransformRecord{{Data: []byte("a")}, {Data: []byte("b")}}}
		if err := d.Process(t.Context(), b, func(*delivery.TransformOutput) error { return then }); !errors.Is(err, then) {
			t.Fatal(err)
		}
	}
	process(0, nil)
	process(1, broken)
	process(0, nil)
	process(1, nil)
	process(2, nil)
	for id := range uint64(3) {
		process(id, nil)
	}
	if counted != 6 || runs != 8 {
		t.Errorf("%d records counted in %d runs, want 6 in 8", counted, runs)
	}
}
