package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/weirhq/weir/wasm/meter"
)

// CompileOptions say what a module may be.
type CompileOptions struct {
	// Grant says whether the module may import from the import module of this
	// name. Nil grants the WASI stubs only.
	Grant func(importModule string) bool
	// Ask ends the error about an import module that isn't granted: how to have it granted. Nil says nothing.
	Ask func(importModule string) string
}

// Module is a compiled module, ready to be instantiated any number of times.
type Module struct {
	r        *Runtime
	compiled wazero.CompiledModule
	digest   [32]byte
	info     *meter.Result
}

// Compile validates an uploaded module against meter.DefaultCaps, rewrites it
// to be metered, and compiles it: in a child process, unless the cache has it
// or Options.CacheDir is empty. wasm is not kept. Errors are ErrInvalid (they
// wrap a *meter.Error when the module is at fault), ErrImport and ErrCompile.
func (r *Runtime) Compile(ctx context.Context, wasm []byte, o CompileOptions) (*Module, error) {
	if r.closed.Load() {
		return nil, fmt.Errorf("compile module: runtime: %w", ErrClosed)
	}
	if r.interpreted && len(wasm) > r.o.InterpretedModuleBytes {
		return nil, fmt.Errorf("compile module: %w", fmt.Errorf("%w: %d bytes, to be interpreted; the limit is %d",
			ErrInvalid, len(wasm), r.o.InterpretedModuleBytes))
	}
	info, err := meter.Rewrite(wasm, meter.Options{
		ReplaceRemainder: runtime.GOARCH == "arm64" && !r.interpreted,
		ReplaceSelect:    runtime.GOARCH == "amd64" && !r.interpreted,
	})
	if err != nil {
		return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
	}
	if err := r.checkImports(info.Imports, o); err != nil {
		return nil, fmt.Errorf("compile module: %w", err)
	}
	m := &Module{r: r, digest: sha256.Sum256(wasm), info: info}
	if m.compiled, err = r.compile(ctx, info.Wasm); err != nil {
		return nil, fmt.Errorf("compile module: %w", err)
	}
	info.Wasm = nil
	return m, nil
}

// compile compiles a rewritten module, or loads it from the cache.
func (r *Runtime) compile(ctx context.Context, wasm []byte) (wazero.CompiledModule, error) {
	if r.cache == nil {
		return r.compileHere(ctx, wasm)
	}
	select { // one at a time: memory and CPU of compiling are bounded by one child's limits
	case r.compiling <- struct{}{}:
		defer func() { <-r.compiling }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrCompile, ctx.Err())
	}
	sum := sha256.Sum256(wasm)
	if ok, err := r.cache.verify(sum); err != nil {
		return nil, fmt.Errorf("%w: cache: %w", ErrCompile, err)
	} else if ok {
		if c, err := r.load(wasm); err == nil {
			return c, nil
		}
		r.o.Logger.Info("compiled module in the cache is for another processor or version; compiling it again")
	}
	work, err := os.MkdirTemp(r.cache.dir, "work-")
	if err != nil {
		return nil, fmt.Errorf("%w: cache: %w", ErrCompile, err)
	}
	defer os.RemoveAll(work)
	start := time.Now()
	if err := r.compileInChild(ctx, wasm, work); err != nil {
		return nil, err
	}
	r.o.Logger.Info("module compiled", "bytes", len(wasm), "seconds", time.Since(start).Seconds())
	adopted, err := r.cache.adopt(sum, work)
	if err != nil {
		return nil, fmt.Errorf("%w: cache: %w", ErrCompile, err)
	}
	if !adopted { // this machine forbids executable memory: wazero interprets, and there is nothing to load
		return r.compileHere(ctx, wasm)
	}
	c, err := r.load(wasm)
	if err != nil {
		return nil, fmt.Errorf("load compiled code: %w", err)
	}
	return c, nil
}

// compileHere compiles in this process. A module must not end the process
// however it makes wazero panic.
func (r *Runtime) compileHere(ctx context.Context, wasm []byte) (c wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, fmt.Errorf("%w: wazero panicked: %v", ErrCompile, p)
		}
	}()
	if c, err = r.rt.CompileModule(ctx, wasm); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCompile, err)
	}
	return c, nil
}

// load takes a module's code from the cache and compiles nothing: wazero's
// compiler, with more than one worker, gives up at once under a context that
// is done, and what loads from the cache never looks at the context.
func (r *Runtime) load(wasm []byte) (wazero.CompiledModule, error) {
	done, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the cache has no code for this machine"))
	return r.compileHere(experimental.WithCompilationWorkers(done, 2), wasm)
}

// checkImports refuses imports that are not granted or do not exist.
func (r *Runtime) checkImports(imports []meter.Function, o CompileOptions) error {
	for _, f := range imports {
		if f.Module != WASIModule && (o.Grant == nil || !o.Grant(f.Module)) {
			ask := ""
			if o.Ask != nil {
				ask = o.Ask(f.Module)
			}
			return fmt.Errorf("%w: %s.%s; granted are %s%s", ErrImport, f.Module, f.Name, r.grantedNames(o), ask)
		}
		known, offered := r.imports[f.Module]
		if !offered {
			return fmt.Errorf("%w: %s.%s: this host has no import module %s", ErrImport, f.Module, f.Name, f.Module)
		}
		have, ok := known[f.Name]
		if !ok {
			return fmt.Errorf("%w: %s has no function %s", ErrImport, f.Module, f.Name)
		}
		if string(f.Params) != string(have.Params) || string(f.Results) != string(have.Results) {
			return fmt.Errorf("%w: %s.%s is imported as %s; its type is %s", ErrImport, f.Module, f.Name,
				signature(f.Params, f.Results), signature(have.Params, have.Results))
		}
	}
	return nil
}

func (r *Runtime) grantedNames(o CompileOptions) string {
	names := []string{WASIModule}
	for _, m := range r.o.Imports {
		if o.Grant != nil && o.Grant(m.Name) {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, ", ")
}

// Digest is the SHA-256 of the bytes given to Compile, in hex: the module's identity.
func (m *Module) Digest() string { return hex.EncodeToString(m.digest[:]) }

// Export is a function that a module exports.
type Export struct {
	Name            string
	Params, Results []ValueType
}

// Exports are the module's exported functions in its own order.
func (m *Module) Exports() []Export {
	var out []Export
	for _, f := range m.info.Exports {
		out = append(out, Export{Name: f.Name, Params: f.Params, Results: f.Results})
	}
	return out
}

// HasExport reports whether the module exports a function of this name and type.
func (m *Module) HasExport(name string, params, results []ValueType) bool {
	for _, f := range m.info.Exports {
		if f.Name == name {
			return string(f.Params) == string(params) && string(f.Results) == string(results)
		}
	}
	return false
}

// Import names a function that a module imports.
type Import struct{ Module, Name string }

// Imports are the functions the module imports, in its own order.
func (m *Module) Imports() []Import {
	var out []Import
	for _, f := range m.info.Imports {
		out = append(out, Import{f.Module, f.Name})
	}
	return out
}

// Close frees the compiled code. Its instances must be closed before.
func (m *Module) Close(ctx context.Context) error { return m.compiled.Close(ctx) }
