package adapter_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirhq/weir/wasm/adapter"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

func open(t testing.TB, wasm []byte, m *manifest.Manifest) *transform.Transform {
	t.Helper()
	rt := wasmtest.Runtime(t, host.Options{})
	tr := transform.New(transform.Options{Manifest: m, Load: func(ctx context.Context, n int) (transform.Engines, error) {
		mod, err := rt.Compile(ctx, wasm, host.CompileOptions{})
		if err != nil {
			return nil, err
		}
		return adapter.NewLines(mod, n, guest.Options{Manifest: m, Limits: m.Limits})
	}})
	t.Cleanup(tr.Close)
	return tr
}

func run(t testing.TB, tr *transform.Transform, recs []transform.Record) string {
	t.Helper()
	var b strings.Builder
	err := tr.Process(context.Background(), &transform.Batch{Records: recs}, func(o *transform.Output) error {
		fmt.Fprintf(&b, "%d %s", o.Source, o.Status)
		if o.Data != nil {
			fmt.Fprintf(&b, " %q", o.Data)
		}
		if o.Code != 0 {
			fmt.Fprintf(&b, " %#x", o.Code)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLinesBelongToTheRecordTheyWereReadFor(t *testing.T) {
	tr := open(t, wasmtest.Module(t, "lines"), wasmtest.Manifest(t, "lines", "abi: wasi-lines"))
	for range 2 { // the probe, then at full size
		recs := wasmtest.Records("abc", "#comment", "+twice", "UPPER", "", "two\nlines", "boom", "last")
		want := "0 replaced \"ABC\"\n1 dropped\n2 replaced \"+TWICE\"\n2 replaced \"+TWICE\"\n3 unchanged\n4 unchanged\n5 failed 0xffff0007\n6 failed 0xffff0001\n7 replaced \"LAST\"\n"
		if got := run(t, tr, recs); got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
	}
	var data []string
	for i := range 300 {
		data = append(data, fmt.Sprintf("line%d", i))
	}
	got := run(t, tr, wasmtest.Records(data...))
	for i := range 300 {
		if line := fmt.Sprintf("%d replaced \"LINE%d\"\n", i, i); !strings.Contains(got, line) {
			t.Fatalf("no %q in\n%s", line, got)
		}
	}
}

// TestRecordThatBecomesTooManyLinesFails: lines cost the host memory that the module's
// limit doesn't cover.
func TestRecordThatBecomesTooManyLinesFails(t *testing.T) {
	tr := open(t, wasmtest.Module(t, "lines"), wasmtest.Manifest(t, "lines", "abi: wasi-lines", "limits: {outputs_per_record: 1}"))
	want := "0 replaced \"ABC\"\n1 failed 0xffff0003\n2 replaced \"LAST\"\n"
	if got := run(t, tr, wasmtest.Records("abc", "+twice", "last")); got != want {
		t.Fatalf("got\n%swant\n%s", got, want)
	}
}

func TestCommandThatHoldsOutputBackRunsOncePerRecord(t *testing.T) {
	tr := open(t, wasmtest.Module(t, "sorted"), wasmtest.Manifest(t, "sorted", "abi: wasi-lines"))
	want := "0 replaced \"1:c\"\n1 replaced \"1:a\"\n2 replaced \"1:b\"\n"
	for range 2 {
		if got := run(t, tr, wasmtest.Records("c", "a", "b")); got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
	}
}

// TestGoCommand runs an ordinary Go program, built as wasip1 and otherwise
// untouched, that buffers its output.
func TestGoCommand(t *testing.T) {
	dir := t.TempDir()
	src := `package main

import (
	"bufio"
	"os"
	"strings"
)

func main() {
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if !strings.HasPrefix(in.Text(), os.Args[1]) {
			w.WriteString(os.Getenv("PREFIX") + strings.ToUpper(in.Text()) + "\n")
		}
	}
}
`
	for name, text := range map[string]string{"main.go": src, "go.mod": "module command\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", "command.wasm", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wasm, err := os.ReadFile(filepath.Join(dir, "command.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	tr := open(t, wasm, wasmtest.Manifest(t, "upper", "abi: wasi-lines", "args: ['#']", "env: {PREFIX: '> '}", "limits: {cpu: 10s, wall: 1m}"))
	want := "0 replaced \"> A\"\n1 dropped\n2 replaced \"> B\"\n"
	if got := run(t, tr, wasmtest.Records("a", "#", "b")); got != want {
		t.Fatalf("got\n%swant\n%s", got, want)
	}
}

func TestReactorIsNotACommand(t *testing.T) {
	rt := wasmtest.Runtime(t, host.Options{})
	mod, err := rt.Compile(context.Background(), wasmtest.Module(t, "pass"), host.CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := wasmtest.Manifest(t, "pass", "abi: wasi-lines")
	if _, err := adapter.NewLines(mod, 1, guest.Options{Manifest: m}); err == nil || !strings.Contains(err.Error(), "_start") {
		t.Fatalf("err = %v", err)
	}
}
