package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/weirhq/weir/sdk/guest/go/weir"
	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/meter"
)

// loaded is a guest on bare wazero, with its input in place: the calls measure the guest alone.
type loaded struct {
	rt      wazero.Runtime
	process api.Function
	stack   [2]uint64
	input   [2]uint64
}

// load instantiates a module with stubs for weir/1's imports, configures it and hands it a batch.
func load(ctx context.Context, config wazero.RuntimeConfig, wasm []byte, conf string, records []record) (*loaded, error) {
	l := &loaded{rt: wazero.NewRuntimeWithConfig(ctx, config)}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, l.rt); err != nil {
		return nil, err
	}
	if err := offerStubs(ctx, l.rt); err != nil {
		return nil, err
	}
	mod, err := l.rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err != nil {
		return nil, err
	}
	put := func(b []byte) (uint64, error) {
		p, err := mod.ExportedFunction(abi.ExportBuffer).Call(ctx, uint64(len(b)))
		if err != nil {
			return 0, err
		}
		if !mod.Memory().Write(uint32(p[0]), b) {
			return 0, errors.New("the guest's buffer is outside its memory")
		}
		return p[0], nil
	}
	if fn := mod.ExportedFunction(abi.ExportConfigure); fn != nil {
		p, err := put([]byte(conf))
		if err != nil {
			return nil, err
		}
		if res, err := fn.Call(ctx, p, uint64(len(conf))); err != nil || int32(res[0]) < 0 {
			return nil, fmt.Errorf("configure: %v, %w", res, err)
		}
	}
	region, err := inputRegion(records)
	if err != nil {
		return nil, err
	}
	p, err := put(region)
	if err != nil {
		return nil, err
	}
	l.process, l.input = mod.ExportedFunction(abi.ExportProcess), [2]uint64{p, uint64(len(region))}
	return l, nil
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
		for _, batch := range []int{1, 64, 500} {
			overhead, err := b.ways(ctx, g, batch)
			if err != nil {
				return fmt.Errorf("%s: %w", g.name(), err)
			}
			if batch == 500 {
				worst = max(worst, overhead)
			}
		}
	}
	b.r.AtMost("metered / plain, batches of 500, the worst guest", 1.30, worst)
	native := &contender{name: "native", per: 500, once: func() error { return nativeFilter(b.records) }}
	if err := compare(b.rounds(), []*contender{native}); err != nil {
		return err
	}
	b.r.Add("guest alone, CPU ns/record", "native Go filter, 500", "plain", median(native.ns))
	return nil
}

func (b *run) rounds() int {
	if b.o.Quick {
		return 7
	}
	return 40
}

// ways measures one guest in batches of one size and returns metered / plain.
func (b *run) ways(ctx context.Context, g *guest, batch int) (float64, error) {
	metered, err := meter.Rewrite(g.wasm, meter.Options{ReplaceSelect: true})
	if err != nil {
		return 0, err
	}
	var all []*contender
	for _, w := range []struct {
		name   string
		config wazero.RuntimeConfig
		wasm   []byte
	}{
		{"plain", wazero.NewRuntimeConfig(), g.wasm},
		{"metered", wazero.NewRuntimeConfig(), metered.Wasm},
		{"closing", wazero.NewRuntimeConfig().WithCloseOnContextDone(true), g.wasm},
		{"interpreted", wazero.NewRuntimeConfigInterpreter(), metered.Wasm},
	} {
		l, err := load(ctx, w.config.WithDebugInfoEnabled(false), w.wasm, g.config, b.records[:batch])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", w.name, err)
		}
		defer l.rt.Close(ctx)
		all = append(all, &contender{name: w.name, per: batch, once: func() error { return l.call(ctx) }})
	}
	if err := compare(b.rounds(), all); err != nil {
		return 0, err
	}
	plain := all[0]
	b.r.Add("guest alone, CPU ns/record", fmt.Sprintf("%s, %d", g.name(), batch),
		"metered/plain", ratio(all[1], plain), "closing/plain", ratio(all[2], plain), "interpreted/plain", ratio(all[3], plain),
		"plain", median(plain.ns), "metered", median(all[1].ns), "closing", median(all[2].ns), "interpreted", median(all[3].ns))
	return ratio(all[1], plain), nil
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
