package meter_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/weirhq/weir/wasm/meter"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
)

// generator makes valid functions that end: loops count down a local of their
// own, and functions call earlier ones only. Bits of NaNs never get into
// integers or memory, where engines may differ.
type generator struct {
	t       *rapid.T
	m       *asm.Module
	earlier []string // parameters of the functions made so far; each returns an i32
	locals  string
	free    int      // first local that is a loop counter
	labels  []string // types that a branch takes, innermost last
	budget  int      // operators that may still be made, about
	loops   int
}

const genCounters = 6

func (g *generator) pick(n int) int {
	g.budget--
	return rapid.IntRange(0, n-1).Draw(g.t, "pick")
}

func (g *generator) number() int32 {
	return rapid.SampledFrom([]int32{0, 1, -1, 2, 3, 7, 64, 255, 65535, 65536, 1<<31 - 1, -1 << 31, 12345678}).Draw(g.t, "number")
}

// local returns a local of this type.
func (g *generator) local(t byte) int {
	var have []int
	for i := range g.free {
		if g.locals[i] == t {
			have = append(have, i)
		}
	}
	return have[g.pick(len(have))]
}

// expr makes code that leaves a value of type t.
func (g *generator) expr(t byte) []any {
	if g.budget <= 0 {
		return g.leaf(t)
	}
	switch g.pick(9) {
	case 0, 1:
		return g.leaf(t)
	case 2: // both operands are always computed
		return []any{g.expr(t), g.expr(t), g.expr('i'), asm.Select}
	case 3:
		g.labels = append(g.labels, string(t))
		then, otherwise := g.expr(t), g.expr(t)
		g.labels = g.labels[:len(g.labels)-1]
		return []any{g.expr('i'), asm.If, valueByte(t), then, asm.Else, otherwise, asm.End}
	case 4: // a block left early or not
		g.labels = append(g.labels, string(t))
		body := []any{g.expr(t), g.expr('i'), asm.BrIf, 0}
		g.labels = g.labels[:len(g.labels)-1]
		return []any{asm.Block, valueByte(t), body, asm.End}
	}
	return g.operator(t)
}

func valueByte(t byte) asm.Type {
	return asm.Type(map[byte]byte{'i': 0x7f, 'l': 0x7e, 'f': 0x7d, 'd': 0x7c, 'v': 0x7b}[t])
}

func (g *generator) leaf(t byte) []any {
	if g.pick(2) == 0 {
		return []any{asm.LocalGet, g.local(t)}
	}
	switch t {
	case 'i':
		if g.pick(4) == 0 {
			return []any{asm.GlobalGet, 0}
		}
		return []any{asm.I32(g.number())}
	case 'l':
		return []any{asm.I64(int64(g.number()) * 4294967297)}
	case 'f':
		return []any{asm.I32(g.number()), asm.Op(0xb2)} // f32.convert_i32_s
	case 'd':
		return []any{asm.F64(float64(g.number()) / 8)}
	}
	return []any{asm.I64(int64(g.number())), asm.Op(0xfd), 18} // i64x2.splat
}

// operator makes an operator of type t with its operands.
func (g *generator) operator(t byte) []any {
	two := func(first, last int) []any {
		return []any{g.expr(t), g.expr(t), asm.Op(first + g.pick(last-first+1))}
	}
	switch t {
	case 'i':
		switch g.pick(8) {
		case 0:
			return []any{g.expr('l'), g.expr('l'), asm.Op(0x51 + g.pick(10))}
		case 1:
			return []any{g.expr('d'), g.expr('d'), asm.Op(0x61 + g.pick(6))}
		case 2:
			return []any{g.expr('f'), asm.Misc(g.pick(2))}
		case 3:
			return []any{g.address(), asm.I32Load, g.pick(3), g.pick(16)}
		case 4:
			return g.call()
		case 5:
			return []any{g.expr('v'), asm.Op(0xfd), 27, g.pick(4)} // i32x4.extract_lane
		case 6:
			return []any{asm.MemorySize, 0}
		}
		return two(0x6a, 0x78)
	case 'l':
		if g.pick(3) == 0 {
			return []any{g.expr('i'), asm.Op(0xac + g.pick(2))}
		}
		return two(0x7c, 0x8a)
	case 'f':
		return []any{g.expr('f'), g.expr('f'), asm.Op(0x92 + g.pick(3))}
	case 'd':
		if g.pick(3) == 0 {
			return []any{g.expr('l'), asm.Op(0xb9 + g.pick(2))}
		}
		return []any{g.expr('d'), g.expr('d'), asm.Op(0xa0 + g.pick(4))}
	}
	return []any{g.expr('v'), g.expr('v'), asm.Op(0xfd), 174, 1} // i32x4.add
}

// address makes an address that is mostly inside the memory.
func (g *generator) address() []any {
	if g.pick(12) == 0 {
		return g.expr('i')
	}
	return []any{g.expr('i'), asm.I32(0xffff), asm.Op(0x71)}
}

func (g *generator) call() []any {
	if len(g.earlier) == 0 {
		return g.leaf('i')
	}
	f := g.pick(len(g.earlier))
	var code []any
	for i := range g.earlier[f] {
		code = append(code, g.expr(g.earlier[f][i]))
	}
	if g.pick(3) == 0 {
		return append(code, asm.I32(f), asm.CallIndirect, g.m.Type(g.earlier[f], "i"), 0)
	}
	return append(code, asm.Call, f)
}

// statements make code that leaves nothing.
func (g *generator) statements() []any {
	var code []any
	for range 1 + g.pick(4) {
		code = append(code, g.statement())
		if g.budget <= 0 {
			break
		}
	}
	return code
}

func (g *generator) statement() []any {
	types := "ilfdv"
	switch g.pick(13) {
	case 0, 1, 2:
		t := types[g.pick(5)]
		return []any{g.expr(t), asm.LocalSet, g.local(t)}
	case 3:
		return []any{g.expr('i'), asm.GlobalSet, 0}
	case 4:
		return []any{g.address(), g.expr('i'), asm.I32Store, g.pick(3), 0}
	case 5:
		g.labels = append(g.labels, "")
		code := []any{g.expr('i'), asm.If, asm.Void, g.statements()}
		if g.pick(2) == 0 {
			code = append(code, asm.Else, g.statements())
		}
		g.labels = g.labels[:len(g.labels)-1]
		return append(code, asm.End)
	case 6, 7:
		return g.loop()
	case 8:
		return g.valueLoop()
	case 9:
		return g.branch()
	case 10:
		length := []any{g.expr('i'), asm.I32(255), asm.Op(0x71)}
		if g.pick(2) == 0 {
			return []any{g.address(), g.expr('i'), length, asm.MemoryFill, 0}
		}
		return []any{g.address(), g.address(), length, asm.MemoryCopy, 0, 0}
	case 11:
		if g.pick(3) == 0 {
			return []any{g.expr('i'), asm.Return}
		}
		return []any{asm.I32(int32(g.pick(3))), asm.MemoryGrow, 0, asm.Drop}
	}
	return []any{g.call(), asm.Drop}
}

// loop makes a loop of a few turns, left by its counter or by a branch.
func (g *generator) loop() []any {
	if g.loops >= genCounters || g.budget <= 0 {
		return []any{asm.Nop}
	}
	c := g.free + g.loops
	g.loops++
	g.labels = append(g.labels, "", "")
	code := []any{
		asm.I32(int32(g.pick(4))), asm.LocalSet, c, asm.Block, asm.Void, asm.Loop, asm.Void,
		asm.LocalGet, c, asm.I32Eqz, asm.BrIf, 1, asm.LocalGet, c, asm.I32(1), asm.I32Sub, asm.LocalSet, c,
		g.statements(),
	}
	if g.pick(3) > 0 {
		code = append(code, asm.Br, 0)
	}
	g.labels = g.labels[:len(g.labels)-2]
	g.loops--
	return append(code, asm.End, asm.End)
}

// valueLoop makes a loop with a parameter and a result.
func (g *generator) valueLoop() []any {
	if g.loops >= genCounters || g.budget <= 0 {
		return []any{asm.Nop}
	}
	c, t := g.free+g.loops, g.m.Type("i", "i")
	g.loops++
	start := g.expr('i')
	g.labels = append(g.labels, "i", "i")
	code := []any{
		start, asm.I32(int32(g.pick(4))), asm.LocalSet, c, asm.Block, t, asm.Loop, t,
		asm.LocalGet, c, asm.I32Eqz, asm.BrIf, 1, asm.LocalGet, c, asm.I32(1), asm.I32Sub, asm.LocalSet, c,
		g.expr('i'), asm.I32Add, g.expr('i'), asm.BrIf, 0, asm.End, asm.End, asm.LocalSet, g.local('i'),
	}
	g.labels = g.labels[:len(g.labels)-2]
	g.loops--
	return code
}

// branch leaves any number of blocks and loops, or turns one of them.
func (g *generator) branch() []any {
	var fit []int
	for d := range g.labels {
		if g.labels[len(g.labels)-1-d] == "" {
			fit = append(fit, d)
		}
	}
	if len(fit) == 0 {
		return []any{asm.Nop}
	}
	to := func() int { return fit[g.pick(len(fit))] }
	if g.pick(3) == 0 {
		n := g.pick(4)
		code := []any{asm.Block, asm.Void, g.expr('i'), asm.BrTable, n}
		for range n + 1 {
			code = append(code, to()+1)
		}
		return append(code, asm.End)
	}
	return []any{g.expr('i'), asm.BrIf, to()}
}

// module makes a module whose last function is exported as "run".
func generateModule(t *rapid.T) []byte {
	g := &generator{t: t, m: asm.New()}
	g.m.Memory(1, 4)
	g.m.Global(5)
	n := rapid.IntRange(1, 5).Draw(t, "functions")
	g.m.Table(n, n)
	var table []int
	for f := range n {
		params := rapid.StringOfN(rapid.RuneFrom([]rune("ilfdv")), 0, 3, -1).Draw(t, "params")
		if f == n-1 {
			params = "il"
		}
		name := ""
		if f == n-1 {
			name = "run"
		}
		g.locals, g.budget, g.loops = params+"ilfdvi", 80, 0
		g.free = len(g.locals)
		g.labels = nil
		body := []any{g.statements(), g.expr('i')}
		table = append(table, g.m.Func(name, params, "i", "ilfdvi"+strings.Repeat("i", genCounters), body...))
		g.earlier = append(g.earlier, params)
	}
	g.m.Elements(0, table...)
	return g.m.Bytes()
}

// outcome is what a run came to.
type outcome struct {
	result string
	memory uint64
	fuel   uint64
}

func runGenerated(ctx context.Context, t *rapid.T, config wazero.RuntimeConfig, o *meter.Options, wasm []byte) outcome {
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	defer rt.Close(ctx)
	var out outcome
	var granted int32
	_, err := rt.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().WithFunc(func(left int32) int32 {
		out.fuel += uint64(granted - left)
		granted = 50
		if out.fuel > 1<<24 {
			t.Fatal("the module does not end")
		}
		return granted
	}).Export(meter.ImportTick).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if o != nil {
		res, err := meter.Rewrite(wasm, *o)
		if err != nil {
			t.Fatalf("rewrite: %v", err)
		}
		wasm = res.Wasm
	}
	mod, err := rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig())
	if err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	for _, args := range [][]uint64{{0, 0}, {7, 1 << 40}, {1 << 31, 3}} {
		res, err := mod.ExportedFunction("run").Call(ctx, args...)
		if err != nil {
			text, _, _ := strings.Cut(err.Error(), "\n")
			out.result += text + ";"
			break // a trap ends an instance
		}
		out.result += fmt.Sprint(uint32(res[0]), ";")
	}
	h := fnv.New64a()
	b, _ := mod.Memory().Read(0, mod.Memory().Size())
	h.Write(b)
	out.memory = h.Sum64()
	if g := mod.ExportedGlobal(meter.ExportFuel); g != nil {
		out.fuel += uint64(granted - int32(uint32(g.Get())))
	}
	return out
}

// TestGeneratedModulesRunTheSame compares generated modules plain and
// rewritten, in compiler and interpreter; the fuel used must not depend on the engine either.
func TestGeneratedModulesRunTheSame(t *testing.T) {
	ctx := context.Background()
	compiler := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2)
	interpreter := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2)
	rapid.Check(t, func(t *rapid.T) {
		wasm := generateModule(t)
		caps := meter.DefaultCaps()
		replaced := &meter.Options{Caps: &caps, ReplaceRemainder: true, ReplaceSelect: true}
		want := runGenerated(ctx, t, compiler, nil, wasm)
		metered := runGenerated(ctx, t, compiler, &meter.Options{}, wasm)
		interpreted := runGenerated(ctx, t, interpreter, &meter.Options{}, wasm)
		for name, got := range map[string]outcome{
			"metered": metered, "replaced": runGenerated(ctx, t, compiler, replaced, wasm),
			"interpreted": interpreted, "interpreted, replaced": runGenerated(ctx, t, interpreter, replaced, wasm),
		} {
			if got.result != want.result || got.memory != want.memory {
				t.Errorf("%s gives %s (memory %x), plain gives %s (memory %x)", name, got.result, got.memory, want.result, want.memory)
			}
		}
		if metered.fuel != interpreted.fuel {
			t.Errorf("compiled it took %d fuel, interpreted %d", metered.fuel, interpreted.fuel)
		}
	})
}
