package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/sdk/guest/go/weir"
	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/meter"
)

// loaded is a guest on bare wazero. Its input is in place before it is called: the calls measure the guest alone.
type loaded struct {
	rt      wazero.Runtime
	mod     api.Module
	process api.Function
	stack   [2]uint64
	input   [2]uint64
}

// load instantiates a module with stubs for weir/1's imports and configures it.
func load(ctx context.Context, config wazero.RuntimeConfig, wasm []byte, conf string) (*loaded, error) {
	l := &loaded{rt: wazero.NewRuntimeWithConfig(ctx, config)}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, l.rt); err != nil {
		return nil, err
	}
	if err := offerStubs(ctx, l.rt); err != nil {
		return nil, err
	}
	var err error
	if l.mod, err = l.rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")); err != nil {
		return nil, err
	}
	l.process = l.mod.ExportedFunction(abi.ExportProcess)
	if fn := l.mod.ExportedFunction(abi.ExportConfigure); fn != nil {
		p, err := l.put(ctx, []byte(conf))
		if err != nil {
			return nil, err
		}
		if res, err := fn.Call(ctx, p, uint64(len(conf))); err != nil || int32(res[0]) < 0 {
			return nil, fmt.Errorf("configure: %v, %w", res, err)
		}
	}
	return l, nil
}

// put writes b into the guest's buffer.
func (l *loaded) put(ctx context.Context, b []byte) (uint64, error) {
	p, err := l.mod.ExportedFunction(abi.ExportBuffer).Call(ctx, uint64(len(b)))
	if err != nil {
		return 0, err
	}
	if !l.mod.Memory().Write(uint32(p[0]), b) {
		return 0, errors.New("the guest's buffer is outside its memory")
	}
	return p[0], nil
}

// feed puts a batch in place.
func (l *loaded) feed(ctx context.Context, records []record) error {
	region, err := inputRegion(records)
	if err != nil {
		return err
	}
	p, err := l.put(ctx, region)
	l.input = [2]uint64{p, uint64(len(region))}
	return err
}

func (l *loaded) call(ctx context.Context) error {
	l.stack = l.input
	if err := l.process.CallWithStack(ctx, l.stack[:]); err != nil {
		return err
	}
	if int64(l.stack[0]) < 0 {
		return fmt.Errorf("weir_process gave %d", int64(l.stack[0]))
	}
	return nil
}

func inputRegion(records []record) ([]byte, error) {
	size := abi.InputHeaderLen
	for _, r := range records {
		size += abi.RecordSize(1, len(r.data))
	}
	var w abi.InputWriter
	b := make([]byte, size)
	if err := w.Begin(b, abi.InputHeader{Records: len(records), TimeMS: 1_700_000_000_000}); err != nil {
		return nil, err
	}
	for i, r := range records {
		if err := w.Record(uint64(i), 1_700_000_000_000, []byte("k"), r.data); err != nil {
			return nil, err
		}
	}
	n, err := w.Finish()
	return b[:n], err
}

// offerStubs offers weir/1's imports, which do nothing, and the meter's tick.
func offerStubs(ctx context.Context, rt wazero.Runtime) error {
	modules := map[string]wazero.HostModuleBuilder{}
	offer := func(module, name string, params, results []api.ValueType, fn api.GoModuleFunc) {
		if modules[module] == nil {
			modules[module] = rt.NewHostModuleBuilder(module)
		}
		modules[module].NewFunctionBuilder().WithGoModuleFunction(fn, params, results).Export(name)
	}
	types := func(ts []abi.ValueType) []api.ValueType {
		out := make([]api.ValueType, len(ts))
		for i, t := range ts {
			out[i] = api.ValueType(t)
		}
		return out
	}
	for _, f := range abi.Imports() {
		offer(f.Module, f.Name, types(f.Params), types(f.Results), func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = 0 })
	}
	i32 := []api.ValueType{api.ValueTypeI32}
	offer(meter.ImportModule, meter.ImportTick, i32, i32, func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = 100_000 })
	for _, m := range modules {
		if _, err := m.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// perRecord measures weir_process alone: the same module plain, metered, with
// wazero's own way to stop guests, and interpreted, beside native Go.
func (b *run) perRecord(ctx context.Context) error {
	worst := 0.0
	for _, g := range b.guests {
		overhead, err := b.ways(ctx, g)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name(), err)
		}
		worst = max(worst, overhead)
	}
	b.r.AtMost("metered / plain, batches of 500, the worst guest", 1.30, worst)
	natives := []*contender{
		{name: "native Go filter, 500", per: 500, once: func() error { return nativeFilter(b.records) }},
		{name: "native Go rename, 500", per: 500, once: func() error { return nativeRename(b.records) }},
	}
	if err := compare(b.rounds(), natives); err != nil {
		return err
	}
	for _, c := range natives {
		b.r.Add("guest alone, CPU ns/record", c.name, "plain", report.Median(c.ns))
	}
	return nil
}

func (b *run) rounds() int {
	if b.o.Quick {
		return 5
	}
	return 30
}

// ways measures one guest and returns metered / plain in batches of 500.
func (b *run) ways(ctx context.Context, g *guest) (overhead float64, err error) {
	metered, err := meter.Rewrite(g.wasm, meter.Options{ReplaceSelect: true})
	if err != nil {
		return 0, err
	}
	names := []string{"plain", "metered", "closing", "interpreted"}
	var all []*loaded
	for i, w := range []struct {
		config wazero.RuntimeConfig
		wasm   []byte
	}{
		{wazero.NewRuntimeConfig(), g.wasm},
		{wazero.NewRuntimeConfig(), metered.Wasm},
		{wazero.NewRuntimeConfig().WithCloseOnContextDone(true), g.wasm},
		{wazero.NewRuntimeConfigInterpreter(), metered.Wasm},
	} {
		l, err := load(ctx, w.config.WithDebugInfoEnabled(false), w.wasm, g.config)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", names[i], err)
		}
		defer l.rt.Close(ctx)
		all = append(all, l)
	}
	for _, batch := range []int{1, 64, 500} {
		var c []*contender
		for i, l := range all {
			if err := l.feed(ctx, b.records[:batch]); err != nil {
				return 0, err
			}
			c = append(c, &contender{name: names[i], per: batch, once: func() error { return l.call(ctx) }})
		}
		if err := compare(b.rounds(), c); err != nil {
			return 0, err
		}
		overhead = ratio(c[1], c[0])
		b.r.Add("guest alone, CPU ns/record", fmt.Sprintf("%s, %d", g.name(), batch),
			"metered/plain", overhead, "closing/plain", ratio(c[2], c[0]), "interpreted/plain", ratio(c[3], c[0]),
			"plain", report.Median(c[0].ns), "metered", report.Median(c[1].ns), "closing", report.Median(c[2].ns), "interpreted", report.Median(c[3].ns))
	}
	return overhead, nil
}

// nativeFilter is the Go filter example compiled into this process: the same scanner over the same records.
func nativeFilter(records []record) error {
	kept := 0
	for _, r := range records {
		f, ok := weir.Find(r.data, "temp")
		v, number := weir.Number(f.Value)
		if !ok || !number {
			return errors.New("native filter: a record has no temp")
		}
		if v >= 25 {
			kept++
		}
	}
	runtime.KeepAlive(kept)
	return nil
}

// nativeRename is the Go rename example compiled into this process.
func nativeRename(records []record) error {
	var b []byte
	for _, r := range records {
		f, ok := weir.Find(r.data, "temp")
		v, number := weir.Number(f.Value)
		if !ok || !number {
			return errors.New("native rename: a record has no temp")
		}
		b = append(append(b[:0], r.data[:f.NameAt]...), "temp_f"...)
		b = append(b, r.data[f.NameAt+len("temp"):f.ValueAt]...)
		b = weir.AppendFixed(b, (v+17.77777777777778)*1.8, 2)
		b = append(b, r.data[f.ValueAt+len(f.Value):]...)
	}
	runtime.KeepAlive(b)
	return nil
}
