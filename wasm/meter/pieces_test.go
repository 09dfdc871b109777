package meter_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/weirhq/weir/wasm/meter"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
)

// bulk is one instance of a module that exports memory.fill and memory.copy.
type bulk struct {
	mod     api.Module
	ticks   int
	overrun int32 // the most fuel that was used beyond a grant
	fuel    uint64
	granted int32
}

const bulkPages = 20

func openBulk(ctx context.Context, t *testing.T, config wazero.RuntimeConfig, rewrite bool) *bulk {
	m := asm.New()
	m.Memory(bulkPages, bulkPages)
	m.Func("fill", "iii", "", "", asm.LocalGet, 0, asm.LocalGet, 1, asm.LocalGet, 2, asm.MemoryFill, 0)
	m.Func("copy", "iii", "", "", asm.LocalGet, 0, asm.LocalGet, 1, asm.LocalGet, 2, asm.MemoryCopy, 0, 0)
	wasm := m.Bytes()
	if rewrite {
		res, err := meter.Rewrite(wasm, meter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		wasm = res.Wasm
	}
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	t.Cleanup(func() { rt.Close(ctx) })
	b := &bulk{}
	_, err := rt.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().WithFunc(func(left int32) int32 {
		b.ticks++
		b.overrun = max(b.overrun, -left)
		b.fuel += uint64(b.granted - left)
		b.granted = 1000
		return b.granted
	}).Export(meter.ImportTick).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if b.mod, err = rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig()); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bulk) memory() []byte {
	mem, _ := b.mod.Memory().Read(0, b.mod.Memory().Size())
	return mem
}

// TestLargeFillsAndCopiesInPieces compares memory.fill and memory.copy of any
// length, overlapping and out of bounds, plain and rewritten, in compiler and
// interpreter, and that limits are looked at between the pieces.
func TestLargeFillsAndCopiesInPieces(t *testing.T) {
	ctx := context.Background()
	plain := openBulk(ctx, t, wazero.NewRuntimeConfig(), false)
	compiled := openBulk(ctx, t, wazero.NewRuntimeConfig(), true)
	interpreted := openBulk(ctx, t, wazero.NewRuntimeConfigInterpreter(), true)
	all := []*bulk{plain, compiled, interpreted}
	for _, b := range all {
		for i, mem := 0, b.memory(); i < len(mem); i++ {
			mem[i] = byte(i*7 ^ i>>8)
		}
	}
	const piece, size = 256 << 10, bulkPages << 16
	address := rapid.Custom(func(t *rapid.T) uint32 {
		at := rapid.SampledFrom([]int64{0, 1, 8, piece - 1, piece, piece + 1, 2 * piece, size - piece, size - 1, size, size + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1}).Draw(t, "near")
		return uint32(at + int64(rapid.IntRange(0, 3).Draw(t, "more")))
	})
	length := rapid.Custom(func(t *rapid.T) uint32 {
		n := rapid.SampledFrom([]int64{0, 7, piece - 1, piece, piece + 1, 2 * piece, 2*piece + 9, 3*piece + 1, size - 8, size, 1<<32 - 1}).Draw(t, "length")
		return uint32(n - int64(rapid.IntRange(0, 2).Draw(t, "less")))
	})
	done := 0
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"fill", "copy"}).Draw(t, "operator")
		to, from, n := address.Draw(t, "to"), address.Draw(t, "from"), length.Draw(t, "n")
		var errs []error
		for _, b := range all {
			b.fuel, b.granted, b.ticks = 0, 0, 0
			if g, ok := b.mod.ExportedGlobal(meter.ExportFuel).(api.MutableGlobal); ok {
				g.Set(0)
			}
			_, err := b.mod.ExportedFunction(name).Call(ctx, uint64(to), uint64(from), uint64(n))
			errs = append(errs, err)
			if err == nil && b != plain && n > piece && b.ticks < int(n/piece) {
				t.Errorf("%s of %d bytes: %d looks at the limits", name, n, b.ticks)
			}
			if b.overrun > piece/8+1000 {
				t.Errorf("%s of %d bytes: %d of fuel at once", name, n, b.overrun)
			}
		}
		for i, b := range all[1:] {
			if (errs[i+1] == nil) != (errs[0] == nil) {
				t.Fatalf("%s(%d, %d, %d): plain %v, rewritten %v", name, to, from, n, errs[0], errs[i+1])
			}
			if !bytes.Equal(b.memory(), plain.memory()) {
				t.Fatalf("%s(%d, %d, %d): the memories differ", name, to, from, n)
			}
		}
		if compiled.fuel != interpreted.fuel || compiled.ticks != interpreted.ticks {
			t.Errorf("%s(%d, %d, %d): compiled %d fuel, interpreted %d", name, to, from, n, compiled.fuel, interpreted.fuel)
		}
		if errs[0] == nil && n > piece {
			done++
		}
	})
	if done == 0 {
		t.Error("nothing large was done")
	}
}
