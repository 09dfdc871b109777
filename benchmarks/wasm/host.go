package wasm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
	wasmguest "github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

func openHost(ctx context.Context, o host.Options) (*host.Runtime, error) {
	o.Imports, o.MemoryBudgetBytes = wasmguest.Imports(), 1<<30
	return host.New(ctx, o)
}

func allowed(string) bool { return true }

// throughHost measures wasm/transform: input written, guest run, answer checked, an output for each record.
func (b *run) throughHost(ctx context.Context) error {
	rt, err := openHost(ctx, host.Options{CacheDir: filepath.Join(b.o.Dir, "through")})
	if err != nil {
		return err
	}
	defer rt.Close(ctx)
	pass, err := os.ReadFile(filepath.Join(b.root, "wasm", "wasmtest", "modules", "pass.wasm"))
	if err != nil {
		return err
	}
	figures := map[string]float64{} // of the least disturbed rounds, in batches of 500
	for _, g := range append(b.guests, &guest{language: "c", example: "pass", wasm: pass}) {
		for _, n := range []int{1, 64, 500} {
			c, err := b.transform(ctx, rt, g, n)
			if err != nil {
				return fmt.Errorf("%s: %w", g.name(), err)
			}
			ns := report.Median(c.ns)
			b.r.Add("through wasm/transform, CPU ns/record", fmt.Sprintf("%s, %d", g.name(), n), "ns/record", ns, "least disturbed", undisturbed(c.ns), "records/s and core", 1e9/ns)
			if n == 500 {
				figures[g.name()] = undisturbed(c.ns)
			}
		}
	}
	figure := func(name string) float64 {
		if v, ok := figures[name]; ok {
			return v
		}
		return math.NaN()
	}
	for _, w := range workloads {
		b.r.AtMost("C "+w.example+" through wasm/transform, batches of 500, ns/record", 180, figure("c "+w.example))
		b.r.AtMost("Go "+w.example+" through wasm/transform, batches of 500, ns/record", 600, figure("go "+w.example))
	}
	b.r.AtMost("pass-through of wasm/transform, batches of 500, ns/record", 30, figure("c pass"))
	return nil
}

func (b *run) transform(ctx context.Context, rt *host.Runtime, g *guest, n int) (*contender, error) {
	c, free, err := b.transformer(ctx, rt, g, n)
	if err != nil {
		return nil, err
	}
	defer free()
	return c, compare(4*b.rounds(), []*contender{c})
}

// transformer makes a contender of a guest in wasm/transform; free it.
func (b *run) transformer(ctx context.Context, rt *host.Runtime, g *guest, n int) (c *contender, free func(), err error) {
	mod, err := rt.Compile(ctx, g.wasm, host.CompileOptions{Grant: allowed})
	if err != nil {
		return nil, nil, err
	}
	lines := "name: bench\nversion: 1.0.0\nkind: transform\n"
	if g.config != "" {
		lines += "config: " + g.config + "\n"
	}
	m, err := manifest.Parse([]byte(lines))
	if err != nil {
		return nil, nil, err
	}
	tr := transform.New(transform.Options{
		Manifest: m, Digest: mod.Digest(), Instances: 1,
		Load: func(_ context.Context, n int) (transform.Engines, error) {
			return transform.NewGuestEngines(mod, n, func() wasmguest.Options { return wasmguest.Options{Manifest: m, Limits: m.Limits} })
		},
	})
	batch := &transform.Batch{Stream: "s", TimeMS: 1_700_000_000_000}
	for i, r := range b.records[:n] {
		batch.Records = append(batch.Records, transform.Record{Key: []byte("k"), Data: r.data, Index: uint64(i), ArrivalMS: 1_700_000_000_000})
	}
	return &contender{name: g.name(), per: n, once: func() error {
		failed := 0
		err := tr.Process(ctx, batch, func(o *transform.Output) error {
			if o.Status == transform.ProcessingFailed {
				failed++
			}
			return nil
		})
		if failed > 0 {
			return fmt.Errorf("%d records failed", failed)
		}
		return err
	}}, tr.Close, nil
}

// undisturbed is what the least disturbed tenth of the rounds took at most: the
// cost of the work itself, where the other thread of the core and other
// programs' use of its cache make the rest.
func undisturbed(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/10]
}

// compileAndInstantiate measures what a module costs before its first record.
func (b *run) compileAndInstantiate(ctx context.Context) error {
	for _, g := range b.guests {
		if g.example != "filter" {
			continue
		}
		dir := filepath.Join(b.o.Dir, "cache-"+g.language)
		cold, _, err := timeCompile(ctx, host.Options{CacheDir: dir}, g.wasm)
		if err != nil {
			return err
		}
		cached, mod, err := timeCompile(ctx, host.Options{CacheDir: dir}, g.wasm)
		if err != nil {
			return err
		}
		interpreted, _, err := timeCompile(ctx, host.Options{Interpreter: true, InterpretedModuleBytes: 8 << 20}, g.wasm)
		if err != nil {
			return err
		}
		best, memory, err := timeInstantiate(ctx, mod)
		if err != nil {
			return err
		}
		var code int64
		if files, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*")); err == nil && len(files) == 1 {
			if info, err := os.Stat(files[0]); err == nil {
				code = info.Size()
			}
		}
		b.r.Add("a module before its first record", g.name(), "compile cold ms", ms(cold), "cached ms", ms(cached), "interpreter ms", ms(interpreted),
			"instantiate µs", float64(best.Nanoseconds())/1e3, "module KiB", len(g.wasm)>>10, "code KiB", code>>10, "memory KiB", memory>>10)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func timeCompile(ctx context.Context, o host.Options, wasm []byte) (time.Duration, *host.Module, error) {
	rt, err := openHost(ctx, o)
	if err != nil {
		return 0, nil, err
	}
	start := time.Now()
	mod, err := rt.Compile(ctx, wasm, host.CompileOptions{Grant: allowed})
	return time.Since(start), mod, err
}

func timeInstantiate(ctx context.Context, mod *host.Module) (best time.Duration, memory int64, err error) {
	best = math.MaxInt64
	for range 20 {
		start := time.Now()
		i, err := mod.Instantiate(ctx, host.InstanceOptions{})
		if err != nil {
			return 0, 0, err
		}
		best, memory = min(best, time.Since(start)), i.MemoryBytes()
		if err := i.Close(); err != nil {
			return 0, 0, err
		}
	}
	return best, memory, nil
}

// sideBySide loads different modules, an idle instance of each, and reads what the process takes, and
// what is left of it when they rest: instances and compiled code freed, as wasm/module does after two minutes.
func (b *run) sideBySide(ctx context.Context) error {
	gate, rest := math.NaN(), math.NaN()
	for _, g := range b.guests {
		if g.example != "filter" {
			continue
		}
		for _, n := range []int{1, 8, 64} {
			if b.o.Quick && n > 1 && g.language != "c" {
				continue
			}
			used, rested, linear, err := b.load(ctx, g, n)
			if err != nil {
				return fmt.Errorf("%d × %s: %w", n, g.name(), err)
			}
			b.r.Add("modules side by side, an idle instance each", fmt.Sprintf("%s × %d", g.name(), n),
				"resident MiB", used, "of it linear memory MiB", float64(linear)/(1<<20), "resident KiB each", used*1024/float64(n), "at rest MiB", rested)
			if g.language == "c" && n == 64 {
				gate = used
			}
			if g.language == "go" && n == 64 {
				rest = rested
			}
		}
	}
	b.r.AtMost("64 idle C modules, resident MiB", 100, gate)
	if !b.o.Quick {
		b.r.AtMost("64 idle Go modules, resident MiB once they rest", 100, rest)
	}
	return nil
}

func (b *run) load(ctx context.Context, g *guest, n int) (used, rested float64, linear int64, err error) {
	rt, err := openHost(ctx, host.Options{CacheDir: filepath.Join(b.o.Dir, "side-"+g.language), CacheBytes: 4 << 30})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { _ = rt.Close(ctx) }() // the instances go with it; a failure would show in the next figure
	before := resident()
	var modules []*host.Module
	var instances []*host.Instance
	for k := range n {
		wasm, err := vary(g.wasm, k)
		if err != nil {
			return 0, 0, 0, err
		}
		mod, err := rt.Compile(ctx, wasm, host.CompileOptions{Grant: allowed})
		if err != nil {
			return 0, 0, 0, err
		}
		i, err := mod.Instantiate(ctx, host.InstanceOptions{})
		if err != nil {
			return 0, 0, 0, err
		}
		modules, instances = append(modules, mod), append(instances, i)
	}
	used = resident() - before
	linear, _ = rt.MemoryUsed()
	for k, i := range instances {
		if err := errors.Join(i.Close(), modules[k].Close(ctx)); err != nil {
			return 0, 0, 0, err
		}
	}
	modules, instances = nil, nil
	return used, settled() - before, linear, nil
}

// settled is resident once that falls no more: wazero gives code back in finalizers,
// which run beside whoever asked for the collection.
func settled() float64 {
	for last := resident(); ; {
		now := resident()
		if last-now < 1 {
			return now
		}
		last = now
	}
}

// resident is the process's resident memory once garbage is returned, MiB.
func resident() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	return process.ResidentMB()
}
