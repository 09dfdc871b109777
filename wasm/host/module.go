package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
)

// Compile validates wasm, an uploaded module, and compiles it. wasm is not
// kept. Errors are ErrInvalid, ErrImport and ErrCompile.
func (r *Runtime) Compile(ctx context.Context, wasm []byte, o CompileOptions) (*Module, error) {
	if r.closed.Load() {
		return nil, fmt.Errorf("compile module: runtime: %w", ErrClosed)
	}
	compiled, err := r.rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
	}
	if err := r.checkImports(compiled, o); err != nil {
		compiled.Close(ctx)
		return nil, fmt.Errorf("compile module: %w", err)
	}
	return &Module{r: r, compiled: compiled, digest: sha256.Sum256(wasm)}, nil
}

// Digest is the SHA-256 of the bytes given to Compile, in hex: the module's identity.
func (m *Module) Digest() string { return hex.EncodeToString(m.digest[:]) }

// Export is a function that a module exports.
type Export struct {
	Name            string
	Params, Results []ValueType
}

// Exports are the module's exported functions by name.
func (m *Module) Exports() []Export {
	var out []Export
	for name, d := range m.compiled.ExportedFunctions() {
		out = append(out, Export{Name: name, Params: d.ParamTypes(), Results: d.ResultTypes()})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// HasExport reports whether the module exports a function of this name and type.
func (m *Module) HasExport(name string, params, results []ValueType) bool {
	d, ok := m.compiled.ExportedFunctions()[name]
	return ok && sameTypes(d.ParamTypes(), params) && sameTypes(d.ResultTypes(), results)
}

// Import names a function that a module imports.
type Import struct{ Module, Name string }

// Imports are the functions the module imports, in its own order.
func (m *Module) Imports() []Import {
	var out []Import
	for _, f := range m.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		out = append(out, Import{module, name})
	}
	return out
}

// Close frees the compiled code. Its instances must be closed before.
func (m *Module) Close(ctx context.Context) error { return m.compiled.Close(ctx) }
