package meter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/weirhq/weir/wasm/meter"
)

// specDir is where the wazero module in the module cache keeps the
// WebAssembly core test suite (version 2), converted by wast2json.
var specDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		return "", fmt.Errorf("find the wazero module: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest"), nil
})

type specCommand struct {
	Type       string `json:"type"`
	Line       int    `json:"line"`
	Name       string `json:"name"`
	Filename   string `json:"filename"`
	As         string `json:"as"`
	ModuleType string `json:"module_type"`
	Text       string `json:"text"`
	Action     struct {
		Type   string      `json:"type"`
		Field  string      `json:"field"`
		Module string      `json:"module"`
		Args   []specValue `json:"args"`
	} `json:"action"`
	Expected []specValue `json:"expected"`
}

type specValue struct {
	Type  string `json:"type"`
	Lane  string `json:"lane_type"`
	Value any    `json:"value"`
}

// slots are the 64-bit slots of an argument.
func (v specValue) slots(t *testing.T) []uint64 {
	number := func(s string, bits int) uint64 {
		n, err := strconv.ParseUint(s, 10, bits)
		if err != nil {
			t.Fatalf("spec value %q: %v", s, err)
		}
		return n
	}
	if v.Type == "v128" {
		lanes := v.Value.([]any)
		width := 128 / len(lanes)
		var out [2]uint64
		for i, l := range lanes {
			out[i*width/64] |= number(l.(string), width) << (i * width % 64)
		}
		return out[:]
	}
	s, _ := v.Value.(string)
	switch {
	case s == "" || s == "null":
		return []uint64{0}
	case v.Type == "externref":
		return []uint64{number(s, 64) + 1} // wazero takes 0 for null
	case strings.HasSuffix(v.Type, "32"):
		return []uint64{number(s, 32)}
	}
	return []uint64{number(s, 64)}
}

// variant is one way to run the suite; all must agree with the first.
type variant struct {
	name    string
	config  wazero.RuntimeConfig
	rewrite bool
	options meter.Options
	grant   int32 // fuel per tick

	rt      wazero.Runtime
	modules map[string]api.Module
	last    api.Module
	ticks   int
}

func specCaps() *meter.Caps {
	const many = 1 << 30
	return &meter.Caps{
		ModuleBytes: many, Types: many, Imports: many, Functions: many, BodyBytes: many, Blocks: many,
		Nesting: many, Locals: many, TotalLocals: many, Stack: many, Globals: many, Tables: many, TableMin: many,
		Elements: many, Segments: many, DataBytes: many, MemoryPages: 1 << 16, Exports: many, AllowStart: true,
	}
}

func specVariants() []*variant {
	features := api.CoreFeaturesV2
	compiler := wazero.NewRuntimeConfig().WithCoreFeatures(features)
	interpreter := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features)
	replace := meter.Options{Caps: specCaps(), ReplaceRemainder: true, ReplaceSelect: true}
	return []*variant{
		{name: "compiler", config: compiler},
		{name: "compiler, metered", config: compiler, rewrite: true, options: meter.Options{Caps: specCaps()}, grant: 10_000},
		{name: "compiler, metered, replaced", config: compiler, rewrite: true, options: replace, grant: 1},
		{name: "interpreter, metered, replaced", config: interpreter, rewrite: true, options: replace, grant: 10_000},
	}
}

func (v *variant) open(ctx context.Context, t *testing.T, spectest []byte) {
	v.rt, v.modules = wazero.NewRuntimeWithConfig(ctx, v.config), map[string]api.Module{}
	_, err := v.rt.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().WithFunc(func(left int32) int32 {
		if left >= v.grant {
			t.Errorf("%s: tick with %d left", v.name, left)
		}
		v.ticks++
		return v.grant
	}).Export(meter.ImportTick).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.rt.InstantiateWithConfig(ctx, spectest, wazero.NewModuleConfig().WithName("spectest")); err != nil {
		t.Fatal(err)
	}
}

// instantiate takes a panic of wazero for a refusal: where int has 32 bits it
// panics over some segments that don't fit.
func (v *variant) instantiate(ctx context.Context, wasm []byte, name string) (mod api.Module, err error) {
	defer func() {
		if p := recover(); p != nil {
			mod, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	if v.rewrite {
		res, err := meter.Rewrite(wasm, v.options)
		if err != nil {
			return nil, err
		}
		wasm = res.Wasm
	}
	return v.rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName(name).WithStartFunctions())
}

// act runs a command's action and describes what came of it.
func (v *variant) act(ctx context.Context, t *testing.T, c *specCommand) string {
	mod := v.last
	if c.Action.Module != "" {
		mod = v.modules[c.Action.Module]
	}
	if c.Action.Type == "get" {
		return fmt.Sprint(mod.ExportedGlobal(c.Action.Field).Get())
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.slots(t)...)
	}
	if v.rewrite { // a trap before left the depth where it was
		mod.ExportedGlobal(meter.ExportDepth).(api.MutableGlobal).Set(meter.DefaultDepth)
	}
	fn := mod.ExportedFunction(c.Action.Field)
	res, err := fn.Call(ctx, args...)
	if err != nil {
		if d := mod.ExportedGlobal(meter.ExportDepth); v.rewrite && int32(d.Get()) < 0 {
			return "stack overflow"
		}
		text, _, _ := strings.Cut(err.Error(), "\n")
		return strings.TrimPrefix(text, "wasm error: ")
	}
	if v.rewrite {
		if d := mod.ExportedGlobal(meter.ExportDepth); int32(d.Get()) != meter.DefaultDepth {
			t.Errorf("line %d: %s: depth is %d after the call, not %d", c.Line, v.name, int32(d.Get()), meter.DefaultDepth)
		}
	}
	return fmt.Sprint(describeResults(res, fn.Definition().ResultTypes(), c.Expected))
}

// describeResults makes results comparable: which NaN came out, and where a reference points, is left open.
func describeResults(res []uint64, types []api.ValueType, expected []specValue) []string {
	var out []string
	for i, t := range types {
		switch t {
		case api.ValueTypeI32:
			out = append(out, fmt.Sprint(uint32(res[0])))
		case api.ValueTypeF32: // the slot's upper half is not part of the value
			out = append(out, floatText(res[0]&0xffffffff, 32))
		case api.ValueTypeF64:
			out = append(out, floatText(res[0], 64))
		case 0x7b:
			lanes := 0
			if i < len(expected) && (expected[i].Lane == "f32" || expected[i].Lane == "f64") {
				lanes, _ = strconv.Atoi(expected[i].Lane[1:])
			}
			for _, half := range res[:2] {
				switch lanes {
				case 32:
					out = append(out, floatText(half&0xffffffff, 32), floatText(half>>32, 32))
				case 64:
					out = append(out, floatText(half, 64))
				default:
					out = append(out, fmt.Sprint(half))
				}
			}
			res = res[1:]
		case api.ValueTypeExternref:
			out = append(out, fmt.Sprint(res[0]))
		case 0x70:
			out = append(out, fmt.Sprint("null: ", res[0] == 0))
		default:
			out = append(out, fmt.Sprint(res[0]))
		}
		res = res[1:]
	}
	return out
}

func floatText(bits uint64, size int) string {
	if size == 32 && bits&0x7f800000 == 0x7f800000 && bits&0x7fffff != 0 ||
		size == 64 && bits&0x7ff0000000000000 == 0x7ff0000000000000 && bits&0xfffffffffffff != 0 {
		return "nan"
	}
	return fmt.Sprint(bits)
}

// TestRewrittenModulesPassTheSpecSuite runs the WebAssembly core test suite on
// plain and rewritten modules, in compiler and interpreter, and compares every
// result. What the suite calls invalid or malformed, Rewrite must refuse itself.
func TestRewrittenModulesPassTheSpecSuite(t *testing.T) {
	dir, err := specDir()
	if err != nil {
		t.Fatal(err)
	}
	spectest, err := os.ReadFile(filepath.Join(dir, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "v2", "testdata", "*.json"))
	if len(files) < 100 {
		t.Fatalf("%d suites in %s; there should be 148", len(files), dir)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			runSpecFile(t, file, spectest)
		})
	}
}

func runSpecFile(t *testing.T, file string, spectest []byte) {
	ctx := context.Background()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Commands []specCommand `json:"commands"`
	}
	if err := json.Unmarshal(raw, &suite); err != nil {
		t.Fatal(err)
	}
	variants := specVariants()
	for _, v := range variants {
		v.open(ctx, t, spectest)
		defer v.rt.Close(ctx)
	}
	for i := range suite.Commands {
		c := &suite.Commands[i]
		var wasm []byte
		if c.Filename != "" && c.ModuleType != "text" {
			if wasm, err = os.ReadFile(filepath.Join(filepath.Dir(file), c.Filename)); err != nil {
				t.Fatal(err)
			}
		}
		specStep(ctx, t, variants, suite.Commands, i, wasm)
	}
}

func specStep(ctx context.Context, t *testing.T, variants []*variant, commands []specCommand, i int, wasm []byte) {
	c := &commands[i]
	switch c.Type {
	case "module":
		name := ""
		if i+1 < len(commands) && commands[i+1].Type == "register" {
			name = commands[i+1].As
		}
		for _, v := range variants {
			mod, err := v.instantiate(ctx, wasm, name)
			if err != nil {
				t.Fatalf("line %d: %s: %v", c.Line, v.name, err)
			}
			v.last = mod
			if c.Name != "" {
				v.modules[c.Name] = mod
			}
		}
	case "register": // done with the module
	case "assert_return", "action", "assert_trap", "assert_exhaustion":
		want := variants[0].act(ctx, t, c)
		for _, v := range variants[1:] {
			if got := v.act(ctx, t, c); got != want {
				t.Errorf("line %d: %s %s: %s gives %s, %s gives %s", c.Line, c.Type, c.Action.Field, variants[0].name, want, v.name, got)
			}
		}
	case "assert_malformed", "assert_invalid":
		if c.ModuleType == "text" {
			return
		}
		_, err := meter.Rewrite(wasm, meter.Options{Caps: specCaps()})
		var e *meter.Error
		if !errors.As(err, &e) {
			t.Errorf("line %d: %s (%s): Rewrite gives %v", c.Line, c.Type, c.Text, err)
		}
	case "assert_unlinkable", "assert_uninstantiable":
		if c.ModuleType == "text" {
			return
		}
		_, want := variants[0].instantiate(ctx, wasm, "")
		for _, v := range variants[1:] {
			if _, err := v.instantiate(ctx, wasm, ""); (err == nil) != (want == nil) {
				t.Errorf("line %d: %s: %s gives %v, %s gives %v", c.Line, c.Type, variants[0].name, want, v.name, err)
			}
		}
	default:
		t.Fatalf("line %d: command %s", c.Line, c.Type)
	}
}
