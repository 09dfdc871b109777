package meter_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/weirhq/weir/wasm/meter"
)

// FuzzRewrite feeds bytes to the decoder and the rewriter. They must give an
// *Error or a module that wazero takes, the same each time, and wazero must
// take the original too: the rewriter makes nothing valid that was not. Custom
// sections are set aside for that: what is in them makes no module invalid
// (core specification 5.5.3), but wazero refuses names that it can't read.
func FuzzRewrite(f *testing.F) {
	for seed := range 8 {
		f.Add(rapid.Custom(generateModule).Example(seed))
	}
	dir, err := specDir()
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"block.0", "br_table.0", "bulk.0", "call_indirect.0", "elem.0", "select.0", "simd_lane.0", "table_copy.0", "ref_func.1", "func.0", "loop.0", "global.0"} {
		b, err := os.ReadFile(filepath.Join(dir, "v2", "testdata", name+".wasm"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\x07\x04name\x30\x7f")) // a subsection that goes on behind its end
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		o := meter.Options{ReplaceRemainder: true, ReplaceSelect: true}
		res, err := meter.Rewrite(wasm, o)
		if err != nil {
			var e *meter.Error
			if !errors.As(err, &e) || res != nil {
				t.Fatalf("error %v, result %v", err, res)
			}
			return
		}
		if again, err := meter.Rewrite(wasm, o); err != nil || !bytes.Equal(again.Wasm, res.Wasm) {
			t.Fatalf("rewriting again gives another module (%v)", err)
		}
		plain, err := rt.CompileModule(ctx, withoutCustom(wasm))
		if err != nil {
			t.Fatalf("the original is not valid: %v", err)
		}
		plain.Close(ctx)
		compiled, err := rt.CompileModule(ctx, res.Wasm)
		if err != nil {
			t.Fatalf("the rewritten module is not valid: %v", err)
		}
		compiled.Close(ctx)
	})
}

// withoutCustom gives a module, which the decoder has taken, without its custom
// sections.
func withoutCustom(wasm []byte) []byte {
	const preamble = 8
	out := bytes.Clone(wasm[:preamble])
	for rest := wasm[preamble:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		end := 1 + n + int(size)
		if rest[0] != 0 {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out
}
