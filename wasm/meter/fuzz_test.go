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
	for _, code := range longForms {
		f.Add(moduleOf(code))
	}
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

// longForms are functions with operators in more bytes than they need. For wazero,
// what is a constant in the first one is the end of a block and a loop without end.
var longForms = []string{
	"\x02\x40\x0c\x00\xfd\x8c\x00\x0b\x02\x40\x03\x40\x0c\x00\x0b\x41\x00\x01\x01\x01\x01\x01\x01\x1a\x0b\x0b",
	"\x00\xfd\xae\x81\x00\x1a\x0b",
	"\x00\xfd\xf7\x80\x00\x1a\x0b",
	"\x00\x1c\x81\x00\x7f\x1a\x0b",
}

// moduleOf is a module of one function.
func moduleOf(code string) []byte {
	body := "\x00" + code
	return []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a" + string(rune(len(body)+2)) + "\x01" + string(rune(len(body))) + body)
}

// TestOperatorsStandInTheirShortestForm: wazero reads longer ones as something else,
// which would not be what is charged.
func TestOperatorsStandInTheirShortestForm(t *testing.T) {
	for _, code := range longForms {
		var e *meter.Error
		if _, err := meter.Rewrite(moduleOf(code), meter.Options{}); !errors.As(err, &e) {
			t.Errorf("%x: %v", code, err)
		}
	}
	for _, code := range []string{"\xfd\x0c0123456789abcdef\x1a\x0b", "\x00\xfd\xae\x01\x1a\x0b", "\x00\xfd\x77\x1a\x0b", "\x00\x1c\x01\x7f\x1a\x0b"} {
		if _, err := meter.Rewrite(moduleOf(code), meter.Options{}); err != nil {
			t.Errorf("%x: %v", code, err)
		}
	}
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
