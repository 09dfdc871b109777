package guesttest

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

// box runs guests as the box does: validated, metered, limited. It is made once for
// each engine, so that each module is compiled once.
type box struct {
	rt      *host.Runtime
	modules map[string]*host.Module
}

var boxes = [2]*box{}

func openBox(t testing.TB, interpreter bool) *box {
	t.Helper()
	i := 0
	if interpreter {
		i = 1
	}
	if boxes[i] == nil {
		o := host.Options{Interpreter: interpreter, InterpretedModuleBytes: 4 << 20, Imports: guest.Imports()}
		rt, err := host.New(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		boxes[i] = &box{rt: rt, modules: map[string]*host.Module{}}
	}
	return boxes[i]
}

func (b *box) compile(t testing.TB, m *manifest.Manifest, language, example string) *host.Module {
	t.Helper()
	name := language + "/" + example
	if b.modules[name] == nil {
		mod, err := b.rt.Compile(context.Background(), dist(t, language, example), host.CompileOptions{Grant: guest.Grant(m)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b.modules[name] = mod
	}
	return b.modules[name]
}

// boxed makes the limits those of a slow machine: the interpreter is up to 60
// times slower, and what is tested here is the answers.
func boxed(m *manifest.Manifest) *manifest.Manifest {
	b := *m
	b.Limits.CPU, b.Limits.Wall = b.Limits.CPU*20, b.Limits.Wall*60
	return &b
}

// openTransform opens a transform, which owns its module. The box keeps another, so
// that wazero has the code already.
func openTransform(t testing.TB, b *box, m *manifest.Manifest, language, example string) *transform.Transform {
	t.Helper()
	digest := b.compile(t, m, language, example).Digest()
	tr := transform.New(transform.Options{
		Manifest: m, Digest: digest, Instances: 1,
		Observe: func(r transform.Report) {
			if r.Aborts > 0 {
				t.Errorf("%s/%s: %d instances aborted: %s", language, example, r.Aborts, r.Poison)
			}
		},
		Load: func(ctx context.Context, n int) (transform.Engines, error) {
			mod, err := b.rt.Compile(ctx, dist(t, language, example), host.CompileOptions{Grant: guest.Grant(m)})
			if err != nil {
				return nil, err
			}
			return transform.NewGuestEngines(mod, n, func() guest.Options { return guest.Options{Manifest: m, Limits: m.Limits} })
		},
	})
	t.Cleanup(tr.Close)
	return tr
}

func inputs(v *manifest.Vector) []guest.Record {
	out := make([]guest.Record, len(v.Records))
	for i, r := range v.Records {
		out[i] = guest.Record{Key: r.Key, Data: r.Data, ArrivalMS: r.TimeMS, Index: 1000 + uint64(i)}
	}
	return out
}

// TestTransformsKeepTheirVectorsOnTheBox runs the transforms through the box's own
// machinery: metering, limits, instance pool, the contract of wasm/transform.
func TestTransformsKeepTheirVectorsOnTheBox(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		b := openBox(t, interpreter)
		for _, example := range []string{"filter", "rename", "router"} {
			m := boxed(readManifest(t, example))
			for _, language := range languages {
				tr := openTransform(t, b, m, language, example)
				for i := range m.Tests {
					v := &m.Tests[i]
					got := make([]Outcome, len(v.Records))
					batch := &transform.Batch{Stream: "s", TimeMS: v.TimeMS, Records: inputs(v)}
					err := tr.Process(t.Context(), batch, func(o *transform.Output) error {
						collect(&got[o.Source], o, &v.Records[o.Source])
						return nil
					})
					if err != nil {
						t.Fatalf("%s/%s: %s: %v", language, example, v.Name, err)
					}
					for k := range got {
						if err := compareOutcome(&v.Expect[k], &got[k]); err != nil {
							t.Errorf("%s/%s interpreter=%v: %s: record %d: %v", language, example, interpreter, v.Name, k, err)
						}
					}
				}
			}
		}
	}
}

func collect(to *Outcome, o *transform.Output, source *manifest.VectorRecord) {
	to.Status = map[transform.Status]abi.Status{
		transform.OkUnchanged: abi.StatusUnchanged, transform.OkReplaced: abi.StatusReplaced,
		transform.Dropped: abi.StatusDropped, transform.ProcessingFailed: abi.StatusFailed,
	}[o.Status]
	to.Code, to.Reason = o.Code, o.Reason
	if o.Status == transform.OkUnchanged && (o.Key != nil || o.PartitionKey != nil || o.Out != 0) {
		to.Status = abi.StatusReplaced // unchanged is about the data; the module said where it goes
	}
	if to.Status != abi.StatusReplaced {
		return
	}
	out := Output{Source: o.Source, Output: o.Out, Key: string(o.Key), Data: string(o.Data), Parts: string(o.PartitionKey)}
	if o.Key == nil {
		out.Key = string(source.Key)
	}
	if o.Data == nil {
		out.Data = string(source.Data)
	}
	to.Outputs = append(to.Outputs, out)
}

// mapState is a consumer's state in memory.
type mapState map[string]string

func (s mapState) Get(key []byte) ([]byte, bool, error) {
	v, ok := s[string(key)]
	return []byte(v), ok, nil
}

func (s mapState) Put(key, value []byte) abi.Code {
	s[string(key)] = string(value)
	return 0
}

func (s mapState) Delete(key []byte) abi.Code {
	delete(s, string(key))
	return 0
}

func (s mapState) Scan(prefix, after []byte, limit int, fn func(key, value []byte) bool) error {
	var keys []string
	for k := range s {
		if strings.HasPrefix(k, string(prefix)) && (len(after) == 0 || k > string(after)) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys[:min(limit, len(keys))] {
		if !fn([]byte(k), []byte(s[k])) {
			return nil
		}
	}
	return nil
}

// TestConsumersKeepTheirVectorsOnTheBox runs the consumers on wasm/guest with
// state in memory.
func TestConsumersKeepTheirVectorsOnTheBox(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		b := openBox(t, interpreter)
		for _, example := range []string{"downsample", "anomaly"} {
			m := boxed(readManifest(t, example))
			for _, language := range languages {
				mod := b.compile(t, m, language, example)
				for i := range m.Tests {
					if err := runConsumer(t.Context(), mod, m, &m.Tests[i]); err != nil {
						t.Errorf("%s/%s interpreter=%v: %s: %v", language, example, interpreter, m.Tests[i].Name, err)
					}
				}
			}
		}
	}
}

func runConsumer(ctx context.Context, mod *host.Module, m *manifest.Manifest, v *manifest.Vector) error {
	state := mapState{}
	g := guest.New(guest.Options{Manifest: m, Limits: m.Limits, Services: guest.Services{State: state}})
	inst, err := mod.Instantiate(ctx, g.InstanceOptions())
	if err != nil {
		return err
	}
	defer inst.Close()
	if err := g.Bind(ctx, inst); err != nil {
		return err
	}
	in := inputs(v)
	res, err := g.Process(ctx, &guest.Batch{Stream: "s", TimeMS: v.TimeMS, Records: in})
	if err != nil {
		return err
	}
	var emitted []Output
	for i := range in {
		e := res.Entry(i)
		got := Outcome{Status: e.Status}
		if e.Status == abi.StatusFailed {
			text, code := res.Reason(e)
			got.Reason, got.Code = string(text), code
		}
		if e.Status == abi.StatusReplaced {
			got.Outputs = readOutputs(&res, int(e.Aux), int(e.Count), in)
		}
		if err := compareOutcome(&v.Expect[i], &got); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		emitted = append(emitted, got.Outputs...)
	}
	if v.TickMS > 0 {
		if res, err = g.Tick(ctx, v.TickMS); err != nil {
			return err
		}
		emitted = append(emitted, readOutputs(&res, 0, res.Outputs(), nil)...)
	}
	if v.Emits != nil {
		if err := compareOutputs(v.Emits, emitted); err != nil {
			return fmt.Errorf("emitted: %w", err)
		}
	}
	for _, s := range v.State {
		if state[string(s.Key)] != string(s.Value) {
			return fmt.Errorf("state %s: %x, expecting %x", s.Key, state[string(s.Key)], s.Value)
		}
	}
	return nil
}

func readOutputs(res *abi.Result, first, count int, in []guest.Record) []Output {
	records := make([]Record, len(in))
	for i, r := range in {
		records[i] = Record{Key: string(r.Key), Data: string(r.Data)}
	}
	out := make([]Output, count)
	for k := range out {
		var o abi.Output
		if res.Output(first+k, &o) != nil {
			return nil
		}
		out[k] = resolve(&o, records)
	}
	return out
}

// TestImportsAreWhatTheExampleUses shows that a linker leaves out what a module
// doesn't call, so that its imports say what it asks for.
func TestImportsAreWhatTheExampleUses(t *testing.T) {
	b := openBox(t, false)
	want := map[string][]string{
		"filter": nil, "rename": nil, "router": nil,
		"anomaly": {"weir_state"}, "downsample": {"weir_metric", "weir_state"},
	}
	for example, modules := range want {
		m := readManifest(t, example)
		for _, language := range languages {
			seen := map[string]bool{}
			for _, i := range b.compile(t, m, language, example).Imports() {
				// every module may log, and Go and AssemblyScript do when they panic or abort
				if strings.HasPrefix(i.Module, "weir_") && i.Module != "weir_log" {
					seen[i.Module] = true
				}
			}
			var got []string
			for name := range seen {
				got = append(got, name)
			}
			sort.Strings(got)
			if !slices.Equal(got, modules) {
				t.Errorf("%s/%s imports %v, expecting %v", language, example, got, modules)
			}
		}
	}
}

// TestFullBatchesFitDefaultLimits runs batches of the default size, 500 records of
// 200 bytes, under the limits of the manifests as they are: nobody should have to
// raise a limit to run an example.
func TestFullBatchesFitDefaultLimits(t *testing.T) {
	b := openBox(t, false)
	for _, w := range workloads {
		m := readManifest(t, w.example)
		m.Config = []byte(w.config)
		for _, language := range languages {
			tr := openTransform(t, b, m, language, w.example)
			batch := &transform.Batch{Stream: "s", TimeMS: 1, Records: boxRecords(sensorRecords(500))}
			err := tr.Process(t.Context(), batch, func(o *transform.Output) error {
				if o.Status == transform.ProcessingFailed {
					return fmt.Errorf("record %d failed with code %#x: %s", o.Source, o.Code, o.Reason)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s/%s: %v", language, w.example, err)
			}
		}
	}
}
