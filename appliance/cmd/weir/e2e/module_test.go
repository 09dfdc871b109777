package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirhq/weir/wasm/wasmtest"
)

// project lays a test guest out as weir module sees it, and returns the folder.
func project(t *testing.T, guest string, manifest ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"module.yaml": []byte(strings.Join(manifest, "\n") + "\n"), "module.wasm": wasmtest.Module(t, guest),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestModuleFromTrialToRollback goes the way of a module's author: try it, sign
// it, upload it, switch over, look, go back, remove; the box is killed in between.
func TestModuleFromTrialToRollback(t *testing.T) {
	box := serve(t, t.TempDir())
	at := func(args ...string) []string { return append(args, "--dir", box.dir) }
	must(t, at("stream", "create", "in")...)
	must(t, at("stream", "create", "out")...)
	manifest := []string{
		"name: counter", "version: 1.0.0", "kind: consumer", "inputs: [in]", "outputs: [out]", "capabilities: {state: true, emit: true}",
		"tests: [{name: counts, records: [{key: a, data: x}], expect: [{status: replaced}], emits: [{key: a, data: a=1}]}]",
	}
	dir := project(t, "counter", manifest...)
	records := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(records, []byte("x\nf\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "module", "test", dir, "--records", records); !strings.Contains(out, "ok    counts") || !strings.Contains(out, "+ test=1") || !strings.Contains(out, "failed code 42") {
		t.Fatalf("module test:\n%s", out)
	}
	key := filepath.Join(t.TempDir(), "key.pem")
	must(t, "module", "keygen", key)
	must(t, "module", "sign", dir, "--key", key)
	must(t, at("module", "push", dir, "--activate")...)
	if out := must(t, at("module", "push", dir)...); !strings.Contains(out, "active.") || strings.Contains(out, "Switch over") {
		t.Fatalf("module push of the active version: %s", out)
	}
	must(t, at("put", "in", "x", "x", "--key", "k")...)
	counted := func(limit, want string) {
		t.Helper()
		if out := must(t, at("tail", "out", "--from", "trim-horizon", "--limit", limit)...); !strings.Contains(out, want) {
			t.Fatalf("the consumer emitted\n%swithout %s", out, want)
		}
	}
	counted("2", "k=2")
	box.kill(t)
	box = serve(t, box.dir)
	must(t, at("put", "in", "x", "--key", "k")...)
	counted("3", "k=3")

	box.stop(t)
	box = serve(t, box.dir)
	if out := must(t, at("module", "stats", "counter")...); !strings.Contains(out, "since 2") || strings.Contains(out, ": 0 records") {
		t.Fatalf("module stats after a restart:\n%s", out)
	}

	must(t, at("put", "in", "f", "T", "--key", "k")...)
	if out := must(t, at("tail", "counter-dead-letters", "--from", "trim-horizon", "--limit", "2")...); !strings.Contains(out, `"code":42`) || !strings.Contains(out, "unreachable") {
		t.Fatalf("dead letters:\n%s", out)
	}
	if out := must(t, at("doctor", "--only", "modules")...); !strings.Contains(out, "WARNING  modules        counter 1.0.0: 2 records failed, last: ") || !strings.Contains(out, "Try: weir module logs counter") {
		t.Fatalf("doctor:\n%s", out)
	}
	if out := must(t, at("module", "stats", "counter")...); !strings.Contains(out, "weir tail counter-dead-letters") {
		t.Fatalf("module stats doesn't say where dead letters are:\n%s", out)
	}
	if err := os.WriteFile(records, []byte("x\nT\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "module", "test", dir, "--records", records); !strings.Contains(out, "#1    failed code 0xffff0001") || !strings.Contains(out, "+ test=2") {
		t.Fatalf("module test of a consumer that breaks on a record:\n%s", out)
	}

	next := project(t, "counter", append([]string{"name: counter", "version: 1.1.0"}, manifest[2:]...)...)
	must(t, at("module", "push", next)...)
	must(t, at("module", "activate", "counter", "1.1.0")...)
	if out := must(t, at("module", "list")...); !strings.Contains(out, "1.1.0    active") {
		t.Fatalf("module list:\n%s", out)
	}
	if out := must(t, at("module", "rollback", "counter")...); !strings.Contains(out, "counter is back at 1.0.0") {
		t.Fatalf("module rollback: %s", out)
	}
	fails(t, 2, nil, at("module", "activate", "counter", "9.9.9"), "9.9.9", "version not found", "Try: weir module list")
	fails(t, 2, nil, at("module", "rm", "counter", "1.0.0", "--yes"), "version is active", "Try: weir module rollback counter, or weir module deactivate counter")
	must(t, at("module", "rm", "counter", "--state", "--yes")...)
	if out := must(t, at("module", "list")...); !strings.Contains(out, "No modules") {
		t.Fatalf("module list:\n%s", out)
	}
}
