// Package host runs users' WebAssembly modules inside the process, on wazero.
//
// It owns the one wazero runtime, the compile cache, the memory of all
// instances with the box-wide budget over it, the limits of each call, and
// the WASI preview 1 stubs. It validates and meters every module through
// wasm/meter before anything compiles it, so that a guest can neither stop,
// nor starve, nor outgrow the process:
//
//	module bytes ─ meter.Rewrite ─ compile in a child process ─ cache ─ Module ─ Instance ─ Function.Call
//
// It never interprets what guests are for: the host/guest contract is
// wasm/abi's, and its import functions come in through Options.Imports. It
// never uses WithCloseOnContextDone (see wasm/RATIONALE.md).
//
// An Instance is used by one goroutine at a time; everything else is safe for
// concurrent use. After any error out of a call the instance is discarded.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Options of a Runtime. The zero value is usable: it compiles in this
// process, keeps no cache, and offers guests the WASI stubs only.
type Options struct {
	// Imports are offered to guests beside the WASI stubs, module by module, to those that are granted them.
	Imports []ImportModule
	// MemoryBudgetBytes bounds the linear memories of all instances together. Default 256 MiB.
	MemoryBudgetBytes int64
	// Interpreter runs guests in wazero's interpreter also where it has a compiler.
	Interpreter bool
	// Logger gets what the runtime itself has to say. Default: nothing is logged.
	Logger *slog.Logger
}

// Runtime is the one WebAssembly runtime of a process: Compile makes Modules
// out of bytes, Modules make Instances. Close it after all of them.
type Runtime struct {
	o       Options
	rt      wazero.Runtime
	budget  *budget
	imports map[string]map[string]ImportFunc
	closed  atomic.Bool
}

// New returns a runtime. It runs nothing yet.
func New(ctx context.Context, o Options) (*Runtime, error) {
	if o.MemoryBudgetBytes <= 0 {
		o.MemoryBudgetBytes = 256 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	config := wazero.NewRuntimeConfig()
	if o.Interpreter {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	r := &Runtime{
		o:       o,
		rt:      wazero.NewRuntimeWithConfig(ctx, config.WithDebugInfoEnabled(false)),
		budget:  &budget{limit: o.MemoryBudgetBytes},
		imports: map[string]map[string]ImportFunc{},
	}
	for _, m := range append([]ImportModule{wasiModule()}, o.Imports...) {
		if err := r.offer(ctx, m); err != nil {
			return nil, errors.Join(err, r.rt.Close(ctx))
		}
	}
	return r, nil
}

// offer makes an import module's functions importable.
func (r *Runtime) offer(ctx context.Context, m ImportModule) error {
	if r.imports[m.Name] != nil {
		return fmt.Errorf("wasm host: import module %s is offered twice", m.Name)
	}
	b := r.rt.NewHostModuleBuilder(m.Name)
	funcs := map[string]ImportFunc{}
	for _, f := range m.Funcs {
		call := f.Func
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
			call(ctx.(*Call), stack)
		}), f.Params, f.Results).Export(f.Name)
		funcs[f.Name] = f
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("wasm host: offer import module %s: %w", m.Name, err)
	}
	r.imports[m.Name] = funcs
	return nil
}

// MemoryUsed is the linear memory of all instances now, in bytes, and the budget it counts against.
func (r *Runtime) MemoryUsed() (used, limit int64) { return r.budget.used.Load(), r.budget.limit }

// Close frees everything. No call may be running.
func (r *Runtime) Close(ctx context.Context) error {
	if r.closed.Swap(true) {
		return nil
	}
	return r.rt.Close(ctx)
}

// CompileOptions say what a module may be.
type CompileOptions struct {
	// Grant says whether the module may import from the import module of this
	// name. Nil grants the WASI stubs only.
	Grant func(importModule string) bool
}

// Module is a compiled module, ready to be instantiated any number of times.
type Module struct {
	r        *Runtime
	compiled wazero.CompiledModule
	digest   [32]byte
}

// checkImports refuses imports that are not granted or do not exist.
func (r *Runtime) checkImports(compiled wazero.CompiledModule, o CompileOptions) error {
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		known, offered := r.imports[module]
		granted := module == WASIModule || o.Grant != nil && o.Grant(module)
		if !granted {
			return fmt.Errorf("%w: %s.%s; granted are %s", ErrImport, module, name, r.grantedNames(o))
		}
		if !offered {
			return fmt.Errorf("%w: %s.%s: this host has no import module %s", ErrImport, module, name, module)
		}
		f2, ok := known[name]
		if !ok {
			return fmt.Errorf("%w: %s has no function %s", ErrImport, module, name)
		}
		if !sameTypes(f.ParamTypes(), f2.Params) || !sameTypes(f.ResultTypes(), f2.Results) {
			return fmt.Errorf("%w: %s.%s is imported as %s; its type is %s", ErrImport, module, name,
				signature(f.ParamTypes(), f.ResultTypes()), signature(f2.Params, f2.Results))
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

func sameTypes(a, b []ValueType) bool { return string(a) == string(b) }

func signature(params, results []ValueType) string {
	names := func(ts []ValueType) string {
		var s []string
		for _, t := range ts {
			s = append(s, api.ValueTypeName(t))
		}
		return "(" + strings.Join(s, ", ") + ")"
	}
	return names(params) + " -> " + names(results)
}
