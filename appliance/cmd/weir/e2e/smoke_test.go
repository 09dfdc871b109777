package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSmoke is the whole path once, quickly: it also runs under an emulator, for
// the binaries of other processors.
func TestSmoke(t *testing.T) {
	dir, objects := t.TempDir(), t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "s", "--shards", "2")
	must(t, "--dir", dir, "module", "push", demoModule(t), "--activate")
	must(t, "--dir", dir, "delivery", "create", "d", "--stream", "s", "--to", "file://"+objects, "--interval", "1s", "--module", "demo")
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf(`{"sensor":"s%d","seq":%d,"at":1,"value":%d.000,"unit":"C"}`, i%7, i, i%2))
	}
	text := strings.Join(lines, "\n") + "\n"
	if r := weirIn(t, text, nil, "--dir", dir, "put", "s", "--key-field", "sensor"); r.code != 0 {
		t.Fatalf("put: exit code %d\n%s", r.code, r.errout)
	}
	b.kill(t)
	b = serve(t, dir)
	if got := must(t, "--dir", dir, "tail", "s", "--from", "trim-horizon", "--no-follow", "--raw"); strings.Count(got, "\n") != 300 {
		t.Errorf("after a kill %d records are there, want 300", strings.Count(got, "\n"))
	}
	must(t, "--dir", dir, "delivery", "flush", "d", "--wait", "60s")
	delivered := 0
	for _, line := range objectLines(t, objects) {
		var reading struct {
			Value float64
			State string
		}
		if err := json.Unmarshal([]byte(line), &reading); err != nil || reading.State != "ok" || reading.Value != 1 {
			t.Errorf("delivered %s", line)
		}
		delivered++
	}
	if delivered != 150 {
		t.Errorf("%d records delivered, want 150", delivered)
	}
	if code := b.stop(t); code != 0 {
		t.Errorf("SIGTERM: exit code %d\n%s", code, b.log)
	}
	if out := parse[verified](t, must(t, "--dir", dir, "verify", "--json")); !out.OK {
		t.Error("verify found damage")
	}
}

// demoModule lays out the demo's module as a project and returns its folder.
func demoModule(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"module.wasm", "module.yaml"} {
		data, err := os.ReadFile(filepath.Join("../../../demo/module", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
