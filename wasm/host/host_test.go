package host_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
)

func TestMain(m *testing.M) {
	host.ServeCompile()
	os.Exit(m.Run())
}

// engines are the ways a module is run here: each test of guests runs on all of them.
var engines = map[string]func(t testing.TB) host.Options{
	"compiler":    func(t testing.TB) host.Options { return host.Options{CacheDir: t.TempDir()} },
	"interpreter": func(testing.TB) host.Options { return host.Options{Interpreter: true} },
}

func forEngines(t *testing.T, test func(t *testing.T, o host.Options)) {
	for name, options := range engines {
		t.Run(name, func(t *testing.T) { test(t, options(t)) })
	}
}

func open(t testing.TB, o host.Options) *host.Runtime {
	t.Helper()
	r, err := host.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Errorf("close runtime: %v", err)
		}
		if used, _ := r.MemoryUsed(); used != 0 {
			t.Errorf("%d bytes of guest memory in use after the end", used)
		}
	})
	return r
}

func compile(t testing.TB, r *host.Runtime, m *asm.Module) *host.Module {
	t.Helper()
	mod, err := r.Compile(context.Background(), m.Bytes(), host.CompileOptions{Grant: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mod.Close(context.Background()) })
	return mod
}

func instantiate(t testing.TB, m *host.Module, o host.InstanceOptions) *host.Instance {
	t.Helper()
	i, err := m.Instantiate(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("close instance: %v", err)
		}
	})
	return i
}

func TestCallReturnsTheFirstResult(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		m := asm.New()
		m.Func("add", "ii", "i", "", asm.LocalGet, 0, asm.LocalGet, 1, asm.I32Add)
		i := instantiate(t, compile(t, open(t, o), m), host.InstanceOptions{})
		got, err := i.Function("add").Call(context.Background(), 40, 2)
		if err != nil || uint32(got) != 42 {
			t.Fatalf("40 + 2 = %d, %v", got, err)
		}
		if i.Function("sub") != nil {
			t.Error("a function that is not exported was found")
		}
		if _, err := i.Function("add").Call(context.Background(), 1); !errors.Is(err, host.ErrExport) {
			t.Errorf("call with one argument of two: %v", err)
		}
	})
}

func TestImportsNeedAGrant(t *testing.T) {
	log := host.ImportModule{Name: "weir_log", Funcs: []host.ImportFunc{{Name: "write", Params: []host.ValueType{host.I32}, Func: func(*host.Call, []uint64) {}}}}
	r := open(t, host.Options{Imports: []host.ImportModule{log}})
	granted := func(name string) bool { return name == "weir_log" }
	for _, c := range []struct {
		module, name, params, want string
		grant                      func(string) bool
	}{
		{"weir_log", "write", "i", "", granted},
		{"weir_log", "write", "i", "weir_log.write; granted are wasi_snapshot_preview1", nil},
		{"weir_log", "write", "ii", "its type is (i32) -> ()", granted},
		{"weir_log", "read", "i", "has no function read", granted},
		{"weir_http", "call", "i", "weir_http.call; granted are wasi_snapshot_preview1, weir_log", granted},
		{"weir_sys", "tick", "i", "the host's own", func(string) bool { return true }},
		{"env", "abort", "i", "no import module env", func(string) bool { return true }},
	} {
		m := asm.New()
		m.Import(c.module, c.name, c.params, "")
		mod, err := r.Compile(context.Background(), m.Bytes(), host.CompileOptions{Grant: c.grant})
		if c.want == "" && err == nil {
			mod.Close(context.Background())
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, host.ErrImport) && !errors.Is(err, host.ErrInvalid) {
			t.Errorf("import of %s.%s %s: %v; expected %q", c.module, c.name, c.params, err, c.want)
		}
	}
}

func TestImportFunctionsSeeTheCall(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		type user struct{ got string }
		o.Imports = []host.ImportModule{{Name: "box", Funcs: []host.ImportFunc{{
			Name: "say", Params: []host.ValueType{host.I32, host.I32}, Results: []host.ValueType{host.I32},
			Func: func(c *host.Call, stack []uint64) {
				b, ok := c.Read(uint32(stack[0]), uint32(stack[1]))
				if !ok {
					stack[0] = 1
					return
				}
				c.User().(*user).got = string(b)
				if string(b) == "quit" {
					c.Abort(os.ErrPermission)
				}
				stack[0] = 0
			},
		}}}}
		m := asm.New()
		say := m.Import("box", "say", "ii", "i")
		m.Memory(1, 1)
		m.Data(16, []byte("hello quit"))
		m.Func("say", "ii", "i", "", asm.LocalGet, 0, asm.LocalGet, 1, asm.Call, say)
		u := &user{}
		i := instantiate(t, compile(t, open(t, o), m), host.InstanceOptions{User: u})
		fn := i.Function("say")
		if res, err := fn.Call(context.Background(), 16, 5); err != nil || res != 0 || u.got != "hello" {
			t.Fatalf("say = %d, %v, heard %q", res, err, u.got)
		}
		for _, p := range [][2]uint64{{65536, 1}, {65535, 2}, {0xffffffff, 0xffffffff}, {1, 0xffffffff}, {0x80000000, 8}} {
			if res, err := fn.Call(context.Background(), p[0], p[1]); err != nil || res != 1 {
				t.Errorf("say(%#x, %#x) = %d, %v; memory ends at 65536", p[0], p[1], res, err)
			}
		}
		_, err := fn.Call(context.Background(), 22, 4)
		var call *host.CallError
		if !errors.Is(err, os.ErrPermission) || !errors.As(err, &call) || call.Function != "say" {
			t.Errorf("abort gives %v", err)
		}
		if i.Healthy() {
			t.Error("the instance is healthy after an abort")
		}
		if _, err := fn.Call(context.Background(), 16, 5); !errors.Is(err, host.ErrClosed) {
			t.Errorf("call after an abort: %v", err)
		}
	})
}

func TestPoolRecyclesWornInstances(t *testing.T) {
	ctx := context.Background()
	m := asm.New()
	m.Memory(1, 100)
	m.Func("trap", "", "", "", asm.Unreachable)
	m.Func("grow", "i", "i", "", asm.LocalGet, 0, asm.MemoryGrow, 0)
	mod := compile(t, open(t, host.Options{}), m)
	p := mod.NewPool(2, func() host.InstanceOptions { return host.InstanceOptions{Limits: host.Limits{MemoryBytes: 1 << 20}} })
	get := func() *host.Instance {
		t.Helper()
		i, err := p.Get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	put := func(i *host.Instance) {
		t.Helper()
		if err := p.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	a, b := get(), get()
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := p.Get(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("third of two instances: %v", err)
	}
	if _, err := a.Function("trap").Call(ctx); !errors.Is(err, host.ErrTrap) {
		t.Errorf("trap gives %v", err)
	}
	put(a)
	if c := get(); c == a {
		t.Error("an instance that trapped was handed out again")
	} else {
		put(c)
	}
	if pages, err := b.Function("grow").Call(ctx, 12); err != nil || pages != 1 {
		t.Fatalf("grow = %d, %v", pages, err)
	}
	put(b)
	s := p.Stats()
	if s.Recycled["failed"] != 1 || s.Recycled["memory"] != 1 || s.Made != 3 || s.Idle != 1 {
		t.Errorf("stats are %+v", s)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Get(ctx); !errors.Is(err, host.ErrClosed) {
		t.Errorf("get from a closed pool: %v", err)
	}
}

func TestMemoryBudgetHoldsOverAllInstances(t *testing.T) {
	ctx := context.Background()
	m := asm.New()
	m.Memory(4, 100)
	m.Func("grow", "i", "i", "", asm.LocalGet, 0, asm.MemoryGrow, 0)
	mod := compile(t, open(t, host.Options{MemoryBudgetBytes: 10 * 65536}), m)
	a := instantiate(t, mod, host.InstanceOptions{})
	b := instantiate(t, mod, host.InstanceOptions{})
	if _, err := mod.Instantiate(ctx, host.InstanceOptions{}); !errors.Is(err, host.ErrBudget) {
		t.Errorf("third instance of 4 pages in a budget of 10: %v", err)
	}
	if res, err := a.Function("grow").Call(ctx, 2); err != nil || uint32(res) != 4 {
		t.Errorf("grow into the budget = %d, %v", int32(res), err)
	}
	if res, err := b.Function("grow").Call(ctx, 1); err != nil || int32(res) != -1 {
		t.Errorf("grow past the budget = %d, %v", int32(res), err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if res, err := b.Function("grow").Call(ctx, 6); err != nil || uint32(res) != 4 {
		t.Errorf("grow after room was made = %d, %v", int32(res), err)
	}
}
