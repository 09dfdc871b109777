package host_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
	"github.com/weirhq/weir/wasm/wasmtest/hostile"
)

// patience bounds how long a test waits for something that must happen.
const patience = time.Minute

// started is an import that tells the test that the guest is running.
func started(ch chan struct{}) host.ImportModule {
	return hostile.Started(func() { close(ch) })
}

// hostileGuests export "attack", which announces itself and then never ends by itself.
var hostileGuests = hostile.Endless()

// TestHostileGuestsStopAndOthersGoOn runs each hostile guest beside a guest
// that behaves. The neighbour and the garbage collector must get on while the
// hostile one runs, and that one must end when it is told to.
func TestHostileGuestsStopAndOthersGoOn(t *testing.T) {
	for name, build := range hostileGuests {
		t.Run(name, func(t *testing.T) {
			forEngines(t, func(t *testing.T, o host.Options) {
				running := make(chan struct{})
				o.Imports = []host.ImportModule{started(running)}
				r := open(t, o)
				attacker := instantiate(t, compile(t, r, build()), host.InstanceOptions{
					Limits: host.Limits{Fuel: 1 << 62, Wall: patience},
				})
				neighbour := instantiate(t, compile(t, r, counterGuest()), host.InstanceOptions{})

				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				ended := make(chan error, 1)
				go func() {
					_, err := attacker.Function("attack").Call(ctx)
					ended <- err
				}()
				<-running
				count := neighbour.Function("count")
				var last uint64
				for range 20 {
					n, err := count.Call(context.Background(), 1000)
					if err != nil {
						t.Fatalf("neighbour: %v", err)
					}
					last = n
				}
				runtime.GC() // stops the world: it can't while a guest never comes out of its code
				if last != 20*1000 {
					t.Errorf("the neighbour counted to %d; it should be 20000", last)
				}
				select {
				case err := <-ended:
					t.Fatalf("the attack ended by itself: %v", err)
				default:
				}
				cancel()
				if err := <-ended; !errors.Is(err, host.ErrCanceled) {
					t.Errorf("the attack ended with %v; it was canceled", err)
				}
				if attacker.Healthy() {
					t.Error("the attacker is healthy")
				}
			})
		})
	}
}

// counterGuest exports count(n), which adds n to a number in memory one by one and returns it.
func counterGuest() *asm.Module {
	m := asm.New()
	m.Memory(1, 1)
	m.Func("count", "i", "i", "", asm.Loop, asm.Void,
		asm.I32(0), asm.I32(0), asm.I32Load, 2, 0, asm.I32(1), asm.I32Add, asm.I32Store, 2, 0,
		asm.LocalGet, 0, asm.I32(1), asm.I32Sub, asm.LocalTee, 0, asm.BrIf, 0, asm.End,
		asm.I32(0), asm.I32Load, 2, 0)
	return m
}

// TestHostileGuestsEndAtEachLimit runs each hostile guest against its fuel, its time and its caller's deadline.
func TestHostileGuestsEndAtEachLimit(t *testing.T) {
	for name, build := range hostileGuests {
		t.Run(name, func(t *testing.T) {
			forEngines(t, func(t *testing.T, o host.Options) {
				for _, c := range []struct {
					limit  string
					limits host.Limits
					caller time.Duration
					want   error
				}{
					{"fuel", host.Limits{Fuel: 3_000_000, Wall: patience}, patience, host.ErrFuel},
					{"wall", host.Limits{Fuel: 1 << 62, Wall: 5 * time.Millisecond}, patience, host.ErrDeadline},
					{"caller", host.Limits{Fuel: 1 << 62, Wall: patience}, 5 * time.Millisecond, host.ErrDeadline},
				} {
					running := make(chan struct{})
					o := o
					o.Imports = []host.ImportModule{started(running)}
					r := open(t, o)
					i := instantiate(t, compile(t, r, build()), host.InstanceOptions{Limits: c.limits})
					ctx, cancel := context.WithTimeout(context.Background(), c.caller)
					_, err := i.Function("attack").Call(ctx)
					cancel()
					var call *host.CallError
					if !errors.Is(err, c.want) || !errors.As(err, &call) {
						t.Errorf("limit of %s: %v", c.limit, err)
					}
					if c.want == host.ErrFuel && call != nil && call.Fuel > 2*c.limits.Fuel+16<<20/8 {
						t.Errorf("limit of %s: used %d of %d", c.limit, call.Fuel, c.limits.Fuel)
					}
				}
			})
		})
	}
}

func TestRecursionEndsAtTheDepthLimit(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		r := open(t, o)
		m := asm.New()
		m.Memory(1, 1)
		f := m.Next()
		m.Func("", "", "", "", asm.I32(0), asm.I32(0), asm.I32Load, 2, 0, asm.I32(1), asm.I32Add, asm.I32Store, 2, 0, asm.Call, f)
		m.Func("attack", "", "", "", asm.Call, f)
		wide := asm.New() // frames of 900 locals take more of the depth
		wide.Memory(1, 1)
		g := wide.Next()
		wide.FuncWith("", "", "", 1, asm.Code(900, asm.Type(0x7e)), asm.I32(0), asm.I32(0), asm.I32Load, 2, 0, asm.I32(1), asm.I32Add, asm.I32Store, 2, 0, asm.Call, g)
		wide.Func("attack", "", "", "", asm.Call, g)
		for _, c := range []struct {
			m     *asm.Module
			depth uint32
			calls uint32
		}{{m, 0, 1899}, {m, 100, 99}, {wide, 0, 126}} {
			i := instantiate(t, compile(t, r, c.m), host.InstanceOptions{Limits: host.Limits{Depth: c.depth}})
			_, err := i.Function("attack").Call(context.Background())
			if !errors.Is(err, host.ErrDepth) {
				t.Errorf("limit %d: recursion ends with %v", c.depth, err)
			}
			b, _ := i.Read(0, 4)
			if calls := uint32(b[0]) | uint32(b[1])<<8; calls != c.calls {
				t.Errorf("limit %d: %d calls nested; it should be %d", c.depth, calls, c.calls)
			}
		}
	})
}

func TestMemoryEndsAtItsLimit(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		m := asm.New()
		m.Memory(1, 65536)
		// Grows until it is refused, returns the pages it has, or traps when asked to.
		m.Func("attack", "i", "i", "", asm.Loop, asm.Void, asm.I32(1), asm.MemoryGrow, 0, asm.I32(-1), asm.I32Ne, asm.BrIf, 0, asm.End,
			asm.LocalGet, 0, asm.If, asm.Void, asm.Unreachable, asm.End, asm.MemorySize, 0)
		mod := compile(t, open(t, o), m)
		i := instantiate(t, mod, host.InstanceOptions{Limits: host.Limits{MemoryBytes: 40 * 65536}})
		if pages, err := i.Function("attack").Call(context.Background(), 0); err != nil || pages != 40 {
			t.Errorf("it got %d pages of 40, %v", pages, err)
		}
		if i.MemoryBytes() != 40*65536 {
			t.Errorf("memory has %d bytes", i.MemoryBytes())
		}
		if _, err := i.Function("attack").Call(context.Background(), 1); !errors.Is(err, host.ErrMemory) || !errors.Is(err, host.ErrTrap) {
			t.Errorf("trap after growth was refused: %v", err)
		}
		if _, err := mod.Instantiate(context.Background(), host.InstanceOptions{Limits: host.Limits{MemoryBytes: 65535}}); !errors.Is(err, host.ErrMemory) {
			t.Errorf("a page in a limit of less: %v", err)
		}
	})
}

func TestModulesAboveTheCapsAreRefusedBeforeCompiling(t *testing.T) {
	locals := asm.New()
	for range 20_000 {
		locals.FuncWith("", "", "", 1, asm.Code(5000, asm.Type(0x7e)))
	}
	blocks := asm.New()
	var many []any
	for range 70_000 {
		many = append(many, asm.Block, asm.Void, asm.End)
	}
	blocks.Func("", "", "", "", many...)
	nested := asm.New()
	var deep []any
	for range 3000 {
		deep = append(deep, asm.Block, asm.Void)
	}
	for range 3000 {
		deep = append(deep, asm.End)
	}
	nested.Func("", "", "", "", deep...)
	table := asm.New()
	table.Table(1<<24, 1<<24)
	memory := asm.New()
	memory.Memory(65536, 65536)
	start := asm.New()
	start.Start(start.Func("", "", "", "", asm.Loop, asm.Void, asm.Br, 0, asm.End))
	functions := asm.New()
	for range 20_001 {
		functions.Func("", "", "", "")
	}
	stack := asm.New()
	var pushes []any
	for range 5000 {
		pushes = append(pushes, asm.I32(1))
	}
	stack.Func("", "", "", "", pushes, asm.Unreachable)
	far := asm.New()
	far.Memory(1, 1)
	far.Data(65530, []byte("too long"))
	farTable := asm.New()
	farTable.Table(1, 1)
	farTable.Elements(-1<<31, farTable.Func("", "", "", ""))
	// The child would fail: nothing here may get that far.
	r := open(t, host.Options{CacheDir: t.TempDir(), CompileCommand: []string{"/bin/false"}})
	for _, c := range []struct {
		m    *asm.Module
		want string
	}{
		{locals, "function 0, offset 0x4e40: 5000 locals; the limit is 1000"},
		{blocks, "function body"},
		{nested, "blocks nested 1001 deep; the limit is 1000"},
		{table, "table of 16777216 elements to begin with; the limit is 16384"},
		{memory, "memory of 65536 pages to begin with; the limit is 1024"},
		{start, "start section (function 0)"},
		{functions, "20001 functions; the limit is 20000"},
		{far, "segment of 8 bytes at 65530; there are 65536 to begin with"},
		{farTable, "segment of 1 elements at 2147483648; there are 1 to begin with"},
		{stack, "1001 operands on the stack; the limit is 1000"},
	} {
		_, err := r.Compile(context.Background(), c.m.Bytes(), host.CompileOptions{})
		if !errors.Is(err, host.ErrInvalid) {
			t.Errorf("%q: %v", c.want, err)
		} else if c.m != blocks && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; expected %q", err, c.want)
		} else if c.m == blocks && !strings.Contains(err.Error(), "4001 blocks and branch table targets; the limit is 4000") {
			t.Errorf("%v", err)
		}
	}
}

func TestOutputAndLogBombsAreCut(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		m := asm.New()
		write := m.Import(host.WASIModule, "fd_write", "iiii", "i")
		m.Memory(16, 16)
		m.Data(0, asm.Code([]byte{64, 0, 0, 0, 0, 0, 8, 0})) // one vector: 512 KiB from 64
		m.Func("attack", "i", "", "", asm.Loop, asm.Void,
			asm.LocalGet, 0, asm.I32(0), asm.I32(1), asm.I32(8), asm.Call, write, asm.Drop, asm.Br, 0, asm.End)
		mod := compile(t, open(t, o), m)
		var out, lines, longest int
		limits := host.Limits{Fuel: 20_000_000, Wall: patience, OutputBytes: 1 << 20, LogLineBytes: 100, LogLinesPerSecond: 3}
		options := host.InstanceOptions{
			Limits: limits,
			Stdout: writerFunc(func(p []byte) (int, error) { out += len(p); return len(p), nil }),
			Log: func(_ host.Level, line []byte) {
				lines++
				longest = max(longest, len(line))
			},
		}
		i := instantiate(t, mod, options)
		if _, err := i.Function("attack").Call(context.Background(), 1); !errors.Is(err, host.ErrOutput) || out != 1<<20 {
			t.Errorf("output bomb: %v after %d bytes", err, out)
		}
		i = instantiate(t, mod, options)
		for at := range 512 { // 512 KiB of lines of 1 KiB
			if !i.Write(uint32(64+at<<10), []byte{'\n'}) {
				t.Fatal("write")
			}
		}
		if _, err := i.Function("attack").Call(context.Background(), 2); !errors.Is(err, host.ErrFuel) {
			t.Errorf("log bomb: %v", err)
		}
		if lines == 0 || longest > 100 || i.LogLinesDropped() == 0 {
			t.Errorf("log bomb: %d lines of up to %d bytes came through, %d were dropped", lines, longest, i.LogLinesDropped())
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestTrapsAtEveryPhaseDiscardTheInstance(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		r := open(t, o)
		for _, c := range []struct {
			name string
			code []any
			want string
		}{
			{"unreachable", []any{asm.Unreachable}, "unreachable"},
			{"load", []any{asm.I32(65533), asm.I32Load, 2, 0, asm.Drop}, "out of bounds memory access"},
			{"load far", []any{asm.I32(-1), asm.I32Load, 2, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, asm.Drop}, "out of bounds memory access"},
			{"store", []any{asm.I32(65536), asm.I32(1), asm.I32Store8, 0, 0}, "out of bounds memory access"},
			{"fill", []any{asm.I32(1), asm.I32(1), asm.I32(65536), asm.MemoryFill, 0}, "out of bounds memory access"},
			{"division", []any{asm.I32(1), asm.I32(0), asm.I32DivU, asm.Drop}, "integer divide by zero"},
			{"indirect call of nothing", []any{asm.I32(3), asm.CallIndirect, 0, 0}, "invalid table access"},
			{"indirect call of another type", []any{asm.I32(0), asm.CallIndirect, 0, 0}, "indirect call type mismatch"},
			{"indirect call out of the table", []any{asm.I32(99), asm.CallIndirect, 0, 0}, "invalid table access"},
		} {
			for _, phase := range []string{"_initialize", "work"} {
				m := asm.New()
				m.Type("", "")
				m.Memory(1, 1)
				m.Table(4, 4)
				m.Elements(0, m.Func("", "i", "i", "", asm.LocalGet, 0))
				m.Func(phase, "", "", "", c.code...)
				mod := compile(t, r, m)
				i, err := mod.Instantiate(context.Background(), host.InstanceOptions{})
				if phase == "work" {
					if err != nil {
						t.Fatal(err)
					}
					_, err = i.Function("work").Call(context.Background())
					if i.Healthy() {
						t.Errorf("%s: the instance is healthy", c.name)
					}
					if err := i.Close(); err != nil {
						t.Error(err)
					}
				}
				if !errors.Is(err, host.ErrTrap) || !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("%s in %s: %v; expected %q", c.name, phase, err, c.want)
				}
			}
		}
	})
}

// TestWASIStandsHostilePointers calls every WASI function with pointers and
// lengths in and around a memory of one page.
func TestWASIStandsHostilePointers(t *testing.T) {
	r := open(t, host.Options{})
	hostile := []uint64{0, 1, 65528, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff, 1 << 63}
	for _, f := range host.WASIFunctions() {
		if f.Name == "proc_exit" {
			continue
		}
		params := ""
		for _, p := range f.Params {
			params += map[host.ValueType]string{host.I32: "i", host.I64: "l"}[p]
		}
		m := asm.New()
		imp := m.Import(host.WASIModule, f.Name, params, "i")
		m.Memory(1, 1)
		var code []any
		for p := range params {
			code = append(code, asm.LocalGet, p)
		}
		m.Func("attack", params, "i", "", code, asm.Call, imp)
		mod := compile(t, r, m)
		i := instantiate(t, mod, host.InstanceOptions{Args: []string{"a", "bc"}, Env: []string{"X=1"}, Limits: host.Limits{Fuel: 1 << 50}})
		attack := i.Function("attack")
		args := make([]uint64, len(params))
		for n := range 3000 {
			x := uint32(n)*2654435761 + 12345
			for p := range args {
				x = x*1103515245 + 12345
				args[p] = hostile[(x>>16)%uint32(len(hostile))]
			}
			if len(args) > 0 {
				args[0] = hostile[n%4] & 3 // mostly a descriptor that exists, or a low pointer
				if n%3 == 0 {
					args[0] = hostile[n/3%len(hostile)]
				}
			}
			if _, err := attack.Call(context.Background(), args...); err != nil {
				t.Fatalf("%s(%#x): %v", f.Name, args, err)
			}
		}
	}
}

func TestExitEndsTheInstanceWithItsCode(t *testing.T) {
	m := asm.New()
	exit := m.Import(host.WASIModule, "proc_exit", "i", "")
	m.Func("_start", "", "", "", asm.I32(7), asm.Call, exit)
	i := instantiate(t, compile(t, open(t, host.Options{}), m), host.InstanceOptions{})
	_, err := i.Function("_start").Call(context.Background())
	var exited *host.ExitError
	if !errors.Is(err, host.ErrExit) || !errors.As(err, &exited) || exited.Code != 7 {
		t.Errorf("proc_exit(7): %v", err)
	}
}

// TestDamagedModulesAreRefusedOrRun cuts and changes a module everywhere: it
// must be refused, or run within its limits, and never panic.
func TestDamagedModulesAreRefusedOrRun(t *testing.T) {
	ctx := context.Background()
	r := open(t, host.Options{})
	good := hostileGuests["indirect calls that double"]().Bytes()
	o := host.CompileOptions{Grant: func(string) bool { return true }}
	for n := range good {
		if _, err := r.Compile(ctx, good[:n], o); n > 8 && err == nil {
			t.Logf("cut at %d of %d it is still a module", n, len(good))
		}
	}
	running := make(chan struct{})
	r2 := open(t, host.Options{Imports: []host.ImportModule{started(running)}})
	accepted := 0
	for n := range good {
		for bit := range 8 {
			bad := append([]byte(nil), good...)
			bad[n] ^= 1 << bit
			mod, err := r2.Compile(ctx, bad, o)
			if err != nil {
				if !errors.Is(err, host.ErrInvalid) && !errors.Is(err, host.ErrImport) {
					t.Errorf("byte %d bit %d: %v", n, bit, err)
				}
				continue
			}
			accepted++
			if i, err := mod.Instantiate(ctx, host.InstanceOptions{}); err == nil {
				i.Close()
			}
			mod.Close(ctx)
		}
	}
	if accepted == 0 || accepted > len(good)*4 {
		t.Errorf("%d of %d changed modules were accepted", accepted, len(good)*8)
	}
}

// TestOneInstanceServesOneGoroutine has an import call back into its own instance.
func TestOneInstanceServesOneGoroutine(t *testing.T) {
	var i *host.Instance
	var inner error
	r := open(t, host.Options{Imports: []host.ImportModule{{Name: "box", Funcs: []host.ImportFunc{{
		Name: "again",
		Func: func(*host.Call, []uint64) { _, inner = i.Function("work").Call(context.Background()) },
	}}}}})
	m := asm.New()
	again := m.Import("box", "again", "", "")
	m.Func("work", "", "", "", asm.Call, again)
	i = instantiate(t, compile(t, r, m), host.InstanceOptions{})
	if _, err := i.Function("work").Call(context.Background()); err != nil || !errors.Is(inner, host.ErrBusy) {
		t.Errorf("call %v, call within it %v", err, inner)
	}
}
