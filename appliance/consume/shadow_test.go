package consume_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// shadow uploads a version of c and runs it as its shadow.
func (b *box) shadow(wasm []byte, version string, lines ...string) {
	b.t.Helper()
	ctx := context.Background()
	text := strings.Join(append([]string{"name: c", "version: " + version, "kind: consumer", "inputs: [in]", "batch: {records: 500, wait: 1ms}"}, lines...), "\n")
	d := sha256.Sum256(wasm)
	err := b.modules.Upload(ctx, d[:], bytes.NewReader(wasm))
	if err == nil {
		_, err = b.modules.Add(ctx, module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: []byte(text)})
	}
	if err == nil {
		err = b.modules.Shadow(ctx, "c", version)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) shadowReport() transform.ShadowReport {
	v, err := b.modules.Active("c")
	if err != nil {
		b.t.Fatal(err)
	}
	if r := v.Stats().Shadow; r != nil {
		return *r
	}
	return transform.ShadowReport{}
}

// altered is the counter that keeps its total under another name and writes
// "#" for "=".
func altered(t *testing.T) []byte {
	wasm := wasmtest.Module(t, "counter")
	for _, p := range [][2]string{{"sum", "all"}, {"\x41\x3d", "\x41\x23"}} {
		if n := bytes.Count(wasm, []byte(p[0])); n != 1 {
			t.Fatalf("%q stands %d times in the counter", p[0], n)
		}
		wasm = bytes.Replace(wasm, []byte(p[0]), []byte(p[1]), 1)
	}
	return wasm
}

// openPatient opens a box in which no shadow is given up for the time it takes, which is
// the machine's: a batch that a guest breaks on is run in halves, again and again.
func openPatient(t *testing.T) *box {
	b := openBox(t, t.TempDir(), nil)
	b.stop()
	b.shadows = time.Hour
	b.start()
	return b
}

func TestShadowOfAConsumerThatDoesTheSameReportsNoDifference(t *testing.T) {
	b := openPatient(t)
	in, out := b.stream("in", 4), b.stream("out", 1)
	b.add("counter", "1.0.0", append(counting, "tick: 100ms")...)
	b.shadow(wasmtest.Module(t, "counter"), "1.1.0", append(counting, "tick: 100ms")...)
	total := 0
	for range 10 {
		var recs []string
		for i := range 100 {
			recs = append(recs, fmt.Sprintf("k%d %s", i%30, []string{"x", "f", "x", "s", "T"}[i%5]))
		}
		b.put(in, recs...)
		total += len(recs)
		wasmtest.Until(t, "records compared", func() bool { r := b.shadowReport(); return r.Records+r.Skipped >= uint64(total) })
	}
	r := b.shadowReport()
	if r.Differ != 0 || r.Errors != 0 || r.Records < uint64(total)/2 || r.Version != "1.1.0" {
		t.Fatalf("%+v", r)
	}
	wasmtest.Until(t, "ticks out", func() bool {
		return slices.ContainsFunc(records(t, out), func(r string) bool { return strings.HasSuffix(r, " tick") })
	})
}

func TestShadowOfAConsumerReportsDifferencesAndHasNoEffect(t *testing.T) {
	b := openPatient(t)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.put(in, "a x", "a x")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "a first batch", func() bool { return len(records(t, out)) == 2 })
	b.shadow(altered(t), "1.1.0", counting...)
	b.put(in, "a x", "p T", "b s")
	wasmtest.Until(t, "a comparison", func() bool { return b.shadowReport().Records == 3 })
	r := b.shadowReport()
	var got []string
	for _, d := range r.Examples {
		got = append(got, fmt.Sprintf("%s: %s | %s", d.What, d.Active, d.Shadow))
	}
	// The shadow read the live count of "a"; both dead-lettered p, which isn't a difference.
	want := []string{
		`emitted: to out key="a" data="a=3" | to out key="a" data="a#3"`,
		`state "all": absent | "\x02\x00\x00\x00\x00\x00\x00\x00"`,
		`state "sum": "\x04\x00\x00\x00\x00\x00\x00\x00" | "\x02\x00\x00\x00\x00\x00\x00\x00"`,
	}
	if !slices.Equal(got, want) || r.Differ != 3 || r.Errors != 0 {
		t.Fatalf("%+v\ngot  %q\nwant %q", r, got, want)
	}
	wasmtest.Until(t, "the batch is stored", func() bool { return len(records(t, out)) == 3 })
	if got := records(t, out); !slices.Equal(got, []string{"a a=1", "a a=2", "a a=3"}) {
		t.Fatalf("the shadow emitted: %v", got)
	}
	if b.stateOf("all") != nil || !slices.Equal(b.stateOf("a"), []uint64{3}) {
		t.Fatalf("the shadow wrote: all %v, a %v", b.stateOf("all"), b.stateOf("a"))
	}
	dead, err := b.store.Stream("c-dead-letters")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(records(t, dead)); n != 1 {
		t.Fatalf("%d dead letters", n)
	}

	// Activated, it takes over where the active version was, and is no shadow any more.
	if err := b.modules.Activate(context.Background(), "c", "1.1.0"); err != nil {
		t.Fatal(err)
	}
	b.put(in, "a x")
	wasmtest.Until(t, "the new version at work", func() bool { return len(records(t, out)) == 4 })
	if got := records(t, out)[3]; got != "a a#4" || b.shadowReport().Version != "" {
		t.Fatal(got, b.shadowReport())
	}
}

// TestShadowThatBreaksCostsOnlyItself runs shadows that trap, spin and can't be
// started: the active version handles everything all the same.
func TestShadowThatBreaksCostsOnlyItself(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.add("counter", "1.0.0", counting...)
	n := 0
	for i, s := range []struct{ name, module, data, line string }{
		{"spins", "moods", "L", "outputs: [out]"},
		{"traps", "moods", "T", "outputs: [out]"},
		{"has nowhere to emit to", "counter", "x", "outputs: [nowhere]"},
	} {
		b.shadow(wasmtest.Module(t, s.module), fmt.Sprintf("1.1.%d", i), s.line, "capabilities: {state: true, emit: true}", "limits: {cpu: 5ms}")
		var recs []string
		for range 300 {
			recs = append(recs, "a "+s.data+"!") // not what makes the counter break
		}
		b.put(in, recs...)
		n += len(recs)
		wasmtest.Until(t, s.name+": all out", func() bool { return len(records(t, out)) == n })
		wasmtest.Until(t, s.name+": a report", func() bool {
			r := b.shadowReport()
			return r.Version == fmt.Sprintf("1.1.%d", i) && (r.Errors > 0 || r.Differ > 0) && r.Records+r.Skipped >= 300
		})
	}
	if got := b.stateOf("a"); !slices.Equal(got, []uint64{uint64(n)}) {
		t.Fatalf("a is %v after %d records", got, n)
	}
}

func TestShadowMustKeepItsStateAsTheActiveVersionDoes(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	b.stream("in", 1)
	b.stream("out", 1)
	b.add("counter", "1.0.0", counting...)
	ctx := context.Background()
	wasm := wasmtest.Module(t, "counter")
	d := sha256.Sum256(wasm)
	text := "name: c\nversion: 1.1.0\nkind: consumer\ninputs: [in]\nstate_version: 2\noutputs: [out]\ncapabilities: {state: true, emit: true}\n"
	if _, err := b.modules.Add(ctx, module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: []byte(text)}); err != nil {
		t.Fatal(err)
	}
	err := b.modules.Shadow(ctx, "c", "1.1.0")
	if err == nil || !strings.Contains(err.Error(), "state_version 2") {
		t.Fatal(err)
	}
}
