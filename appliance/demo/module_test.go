package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// TestCommittedModuleIsBuiltFromItsSource builds the demo's module anew. Another
// compiler may make other bytes of it: then both must do the same with every
// kind of record.
func TestCommittedModuleIsBuiltFromItsSource(t *testing.T) {
	rebuilt := filepath.Join(t.TempDir(), "module.wasm")
	if out, err := exec.Command("bash", "module/build.sh", rebuilt).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, err := os.ReadFile(rebuilt)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("module/module.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(want, committed) {
		return
	}
	var records []string
	for _, value := range []string{"0", "0.499", "0.5", "79.999", "80", "80.0", "1e3", "-3", `"high"`, "null", ""} {
		records = append(records, fmt.Sprintf(`{"sensor":"cpu0","seq":1,"at":1,"value":%s,"unit":"%%"}`, value), fmt.Sprintf(`{"value":%s}`, value))
	}
	records = append(records, "", "{}", "[]", "not JSON", `{"value":81`, `{"inner":{"value":90},"value":1}`)
	if got, want := behaviour(t, committed, records), behaviour(t, want, records); !slices.Equal(got, want) {
		t.Fatalf("module.wasm is not what module.c says; run module/build.sh\nit does    %q\nthe source %q", got, want)
	}
}

// behaviour is what a module with the demo's manifest makes of records.
func behaviour(t *testing.T, wasm []byte, records []string) (out []string) {
	ctx := context.Background()
	text, err := os.ReadFile("module/module.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := wasmtest.Runtime(t, host.Options{}).Compile(ctx, wasm, host.CompileOptions{Grant: guest.Grant(m)})
	if err != nil {
		t.Fatal(err)
	}
	tr := transform.New(transform.Options{Manifest: m, Digest: mod.Digest(), Instances: 1, Load: func(_ context.Context, n int) (transform.Engines, error) {
		return transform.NewGuestEngines(mod, n, func() guest.Options { return guest.Options{Manifest: m, Limits: m.Limits} })
	}})
	defer tr.Close()
	b := &transform.Batch{Stream: "s"}
	for i, r := range records {
		b.Records = append(b.Records, transform.Record{Key: []byte("k"), Data: []byte(r), Index: uint64(i)})
	}
	err = tr.Process(ctx, b, func(o *transform.Output) error {
		out = append(out, fmt.Sprintf("%d %s %s %d", o.Source, o.Status, o.Data, o.Code))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
