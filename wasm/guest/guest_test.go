package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// recorder is every service a guest can reach; it notes what arrives.
type recorder struct {
	guest.MemoryState
	said []string
}

func (r *recorder) note(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

// EmitChunk implements guest.Emitter.
func (r *recorder) EmitChunk(res *abi.Result) abi.Code {
	var o abi.Output
	for k := range res.Outputs() {
		if err := res.Output(k, &o); err != nil {
			return abi.Invalid
		}
		r.note("emit %d %q", o.Stream, o.Value)
	}
	return 0
}

// Call implements guest.Caller.
func (r *recorder) Call(_ context.Context, request []byte) ([]byte, int32) {
	r.note("call %q", request)
	if bytes.HasPrefix(request, []byte("BAD")) {
		return nil, int32(abi.Denied)
	}
	return []byte("200\n\nresponse"), 200
}

// Enqueue implements guest.Outbox.
func (r *recorder) Enqueue(request []byte) abi.Code {
	r.note("enqueue %q", request)
	return 0
}

const everything = "outputs: [a, b]"

func services(r *recorder, metrics *guest.Metrics) guest.Services {
	return guest.Services{State: r, Emit: r, HTTP: r, Outbox: r, Metrics: metrics, Log: func(l host.Level, line []byte) { r.note("log %d %q", l, line) }}
}

// open instantiates a guest of wasmtest.
func open(t testing.TB, rt *host.Runtime, name string, m *manifest.Manifest, s guest.Services) *guest.Guest {
	t.Helper()
	mod, err := rt.Compile(context.Background(), wasmtest.Module(t, name), host.CompileOptions{Grant: guest.Grant(m)})
	if err != nil {
		t.Fatal(err)
	}
	if err := guest.Check(mod); err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(1800000000000)
	g := guest.New(guest.Options{Manifest: m, Limits: m.Limits, Services: s, Now: func() time.Time { return now }})
	inst, err := mod.Instantiate(context.Background(), g.InstanceOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(inst.Close(), mod.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	if err := g.Bind(context.Background(), inst); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestHostCalls runs the golden transcripts: each record describes a host
// call, the line below it is "code cell data" as the guest saw it, and then
// what arrived at the services. Interpreter and compiler give the same.
func TestHostCalls(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		rt := wasmtest.Runtime(t, host.Options{Interpreter: interpreter})
		datadriven.RunTest(t, "testdata/calls", func(t *testing.T, d *datadriven.TestData) string {
			lines := []string{"inputs: [in]", everything, "capabilities: {state: true, emit: true, http: {hosts: ['a:1']}}"}
			for _, a := range d.CmdArgs {
				lines = append(lines, a.Key+": "+strings.Join(a.Vals, ", "))
			}
			var capabilities string
			for i := len(lines) - 1; i >= 0; i-- { // the last one counts
				if strings.HasPrefix(lines[i], "capabilities") {
					if capabilities != "" {
						lines = append(lines[:i], lines[i+1:]...)
					}
					capabilities = "seen"
				}
			}
			r, metrics := &recorder{}, &guest.Metrics{}
			s := services(r, metrics)
			if d.HasArg("description") { // nothing behind the capabilities
				s = guest.Services{Metrics: metrics}
			}
			g := open(t, rt, "calls", wasmtest.ConsumerManifest(t, "calls", lines...), s)
			var b strings.Builder
			recs := wasmtest.Records(strings.Split(strings.TrimSpace(d.Input), "\n")...)
			for i := range recs {
				res, err := g.Process(context.Background(), &guest.Batch{TimeMS: 1700000000000, Records: recs[i : i+1]})
				if err != nil {
					fmt.Fprintf(&b, "%-40s error: %v\n", recs[i].Data, err)
					break
				}
				var o abi.Output
				if err := res.Output(0, &o); err != nil {
					t.Fatal(err)
				}
				code, data, _ := strings.Cut(string(o.Value), " ")
				fmt.Fprintf(&b, "%-40s %s %q", recs[i].Data, code, data)
				for _, s := range r.said {
					fmt.Fprintf(&b, " | %s", s)
				}
				r.said = nil
				b.WriteByte('\n')
				g.Accept()
			}
			for _, m := range metrics.Snapshot() {
				fmt.Fprintf(&b, "metric %s %s %g count=%d sum=%g\n", m.Kind, m.Name, m.Value, m.Count, m.Sum)
			}
			return b.String()
		})
	}
}

func TestMetricsOfABatchThatIsNotUsedDoNotCount(t *testing.T) {
	r, metrics := &recorder{}, &guest.Metrics{}
	m := wasmtest.ConsumerManifest(t, "calls", "inputs: [in]", everything, "capabilities: {state: true, emit: true, http: {hosts: ['a:1']}}")
	g := open(t, wasmtest.Runtime(t, host.Options{}), "calls", m, services(r, metrics))
	run := func(script ...string) {
		if _, err := g.Process(context.Background(), &guest.Batch{Records: wasmtest.Records(script...)}); err != nil {
			t.Fatal(err)
		}
	}
	run("D 0 seen", "A 0 5")
	run("A 0 7")
	g.Accept()
	if got := metrics.Snapshot()[0].Value; got != 7 {
		t.Fatalf("counter is %g, want 7", got)
	}
}

// TestMemoryStateAgreesWithAMap is the model of what guests see of their state.
func TestMemoryStateAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s guest.MemoryState
		model := map[string]string{}
		key := rapid.StringMatching(`[a-c]{1,3}`)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				v := rapid.String().Draw(t, "value")
				s.Put([]byte(k), []byte(v))
				model[k] = v
			case 1:
				s.Delete([]byte(k))
				delete(model, k)
			default:
				got, ok, err := s.Get([]byte(k))
				if want, have := model[k]; err != nil || ok != have || string(got) != want {
					t.Fatalf("%q = %q %v %v, want %q %v", k, got, ok, err, want, have)
				}
			}
		}
		seen := 0
		if err := s.Scan(nil, nil, 1000, func(k, v []byte) bool { seen++; return model[string(k)] == string(v) }); err != nil || seen != len(model) {
			t.Fatalf("scan saw %d of %d, %v", seen, len(model), err)
		}
	})
}

func TestGuestAsksForLargerRegionsAndRefusesTooLarge(t *testing.T) {
	g := open(t, wasmtest.Runtime(t, host.Options{}), "pass", wasmtest.Manifest(t, "pass"), guest.Services{})
	for _, n := range []int{10, 1000, 100000, 1 << 20, 10} {
		recs := []guest.Record{{Data: make([]byte, n)}}
		if _, err := g.Process(context.Background(), &guest.Batch{Records: recs}); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	_, err := g.Process(context.Background(), &guest.Batch{Records: []guest.Record{{Data: make([]byte, 3<<20)}}})
	if !errors.Is(err, guest.ErrTooLarge) {
		t.Fatalf("above what the guest has: %v", err)
	}
	if _, err := g.Process(context.Background(), &guest.Batch{Records: []guest.Record{{Data: make([]byte, 10)}}}); err != nil {
		t.Fatalf("after that: %v", err)
	}
}
