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
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Options of a Runtime. The zero value is usable, but compiles in this process.
type Options struct {
	// CacheDir is the directory of compiled modules, made when it is not
	// there, for this runtime alone. Nothing in it is worth a backup. Modules
	// are compiled in a child process that fills it. Without it modules are
	// compiled in this process, with no limit on what compiling takes: for
	// tools that run their user's own module once. It is not used where
	// guests are interpreted.
	CacheDir string
	// CacheKey authenticates what is in CacheDir. Default: a random key kept there.
	CacheKey []byte
	// CacheBytes bounds CacheDir; what was not used for longest goes first. Default 256 MiB.
	CacheBytes int64
	// CompileCommand starts the compile child; the verb and its arguments are
	// added. Default: this executable, which must call ServeCompile first in main.
	CompileCommand []string
	// CompileMemoryBytes bounds the compile child's memory. Default 512 MiB. Its time is bounded by 60 s.
	CompileMemoryBytes int64
	// InterpretedModuleBytes is the largest module that is accepted where
	// guests are interpreted: the interpreter keeps some 21 bytes for each
	// byte of a module. Default 512 KiB.
	InterpretedModuleBytes int
	// Imports are offered to guests beside the WASI stubs, module by module, to those that are granted them.
	Imports []ImportModule
	// MemoryBudgetBytes bounds the linear memories of all instances together. Default 256 MiB.
	MemoryBudgetBytes int64
	// Guests is how many guests may run at the same moment; others wait for
	// their turn. Default GOMAXPROCS.
	Guests int
	// SpareProcessor raises GOMAXPROCS by one, once in the process and when the
	// first instance is made. Go looks at the network when a processor has
	// nothing to do, and else every 10 ms: with guests on all of them every
	// request would wait for that. With a spare one the operating system shares the cores.
	SpareProcessor bool
	// Interpreter runs guests in wazero's interpreter also where it has a compiler.
	Interpreter bool
	// Logger is told what was compiled, and what in the cache had to be compiled again. Default: nobody.
	Logger *slog.Logger
}

// Runtime is the one WebAssembly runtime of a process: Compile makes Modules
// out of bytes, Modules make Instances. Close it after all of them.
type Runtime struct {
	o           Options
	rt          wazero.Runtime
	interpreted bool
	grant       int32 // fuel from one tick to the next
	cache       *codeCache
	compiling   chan struct{}
	budget      *budget
	imports     map[string]map[string]ImportFunc
	turns       turns
	closed      atomic.Bool
}

// Fuel from one tick to the next: some 50 µs of compiled code, 500 µs of interpreted code.
const (
	grantCompiled    = 100_000
	grantInterpreted = 20_000
)

// hasCompiler says whether wazero compiles for this architecture.
func hasCompiler() bool { return runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" }

func runtimeConfig(interpreted bool) wazero.RuntimeConfig {
	config := wazero.NewRuntimeConfig()
	if interpreted {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	return config.WithDebugInfoEnabled(false)
}

// New returns a runtime. It runs nothing yet.
func New(ctx context.Context, o Options) (*Runtime, error) {
	if os.Getenv(childEnv) != "" {
		return nil, errors.New("wasm host: this process was started to compile a module and must have called ServeCompile")
	}
	o.MemoryBudgetBytes = defaultTo(o.MemoryBudgetBytes, 256<<20)
	o.CacheBytes = defaultTo(o.CacheBytes, 256<<20)
	o.CompileMemoryBytes = defaultTo(o.CompileMemoryBytes, 512<<20)
	o.InterpretedModuleBytes = defaultTo(o.InterpretedModuleBytes, 512<<10)
	if o.Guests <= 0 {
		o.Guests = usable()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runtime{
		o:           o,
		interpreted: o.Interpreter || !hasCompiler(),
		grant:       grantCompiled,
		compiling:   make(chan struct{}, 1),
		budget:      &budget{limit: o.MemoryBudgetBytes},
		imports:     map[string]map[string]ImportFunc{},
		turns:       turns{slots: make(chan struct{}, o.Guests)},
	}
	config := runtimeConfig(r.interpreted)
	if r.interpreted {
		r.grant = grantInterpreted
	} else if o.CacheDir != "" {
		cache, err := r.openCache()
		if err != nil {
			return nil, fmt.Errorf("wasm host: %w", err)
		}
		config = config.WithCompilationCache(cache)
	}
	r.rt = wazero.NewRuntimeWithConfig(ctx, config)
	for _, m := range append([]ImportModule{tickModule(), wasiModule()}, o.Imports...) {
		if err := r.offer(ctx, m); err != nil {
			return nil, errors.Join(err, r.rt.Close(ctx))
		}
	}
	return r, nil
}

func (r *Runtime) openCache() (wazero.CompilationCache, error) {
	if len(r.o.CompileCommand) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this executable: %w", err)
		}
		r.o.CompileCommand = []string{self}
	}
	var err error
	if r.cache, err = openCodeCache(r.o.CacheDir, r.o.CacheKey, r.o.CacheBytes, r.o.Logger); err != nil {
		return nil, err
	}
	return wazero.NewCompilationCacheWithDir(r.o.CacheDir)
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
