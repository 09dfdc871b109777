// Package hostile holds guests that attack the box they run on, for tests and
// benchmarks of what they can do to others. Each exports "attack" without
// parameters, and announces itself through the import of Started before it begins.
package hostile

import (
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
)

// Started is the import that the guests announce themselves with.
func Started(fn func()) host.ImportModule {
	return host.ImportModule{Name: "box", Funcs: []host.ImportFunc{{Name: "started", Func: func(*host.Call, []uint64) { fn() }}}}
}

// guest returns a function that makes a module, which write fills. The function
// with the index started tells the box that the attack begins.
func guest(write func(m *asm.Module, started int)) func() *asm.Module {
	return func() *asm.Module {
		m := asm.New()
		write(m, m.Import("box", "started", "", ""))
		return m
	}
}

// Endless are guests whose attack never ends by itself, by name.
func Endless() map[string]func() *asm.Module {
	return map[string]func() *asm.Module{
		"endless loop": guest(func(m *asm.Module, started int) {
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void, asm.Br, 0, asm.End)
		}),
		"endless loop that is not empty": guest(func(m *asm.Module, started int) {
			m.Memory(1, 1)
			m.Func("attack", "", "", "i", asm.Call, started, asm.Loop, asm.Void,
				asm.LocalGet, 0, asm.LocalGet, 0, asm.I32Load, 0, 0, asm.I32Add, asm.I32(65532), asm.I32LtU, asm.LocalSet, 0, asm.Br, 0, asm.End)
		}),
		"calls that double, without a loop": guest(func(m *asm.Module, started int) {
			f := m.Func("", "", "", "", asm.Nop)
			for range 60 {
				f = m.Func("", "", "", "", asm.Call, f, asm.Call, f)
			}
			m.Func("attack", "", "", "", asm.Call, started, asm.Call, f)
		}),
		"indirect calls that double": guest(func(m *asm.Module, started int) {
			m.Table(70, 70)
			table := []int{m.Func("", "", "", "", asm.Nop)}
			for i := range 60 {
				call := []any{asm.I32(i), asm.CallIndirect, m.Type("", ""), 0}
				table = append(table, m.Func("", "", "", "", call, call))
			}
			m.Elements(0, table...)
			m.Func("attack", "", "", "", asm.Call, started, asm.I32(60), asm.CallIndirect, m.Type("", ""), 0)
		}),
		"recursion that doubles": guest(func(m *asm.Module, started int) {
			f := m.Next()
			m.Func("", "i", "", "", asm.LocalGet, 0, asm.If, asm.Void,
				asm.LocalGet, 0, asm.I32(1), asm.I32Sub, asm.Call, f, asm.LocalGet, 0, asm.I32(1), asm.I32Sub, asm.Call, f, asm.End)
			m.Func("attack", "", "", "", asm.Call, started, asm.I32(60), asm.Call, f)
		}),
		"fill of all memory, again and again": guest(func(m *asm.Module, started int) {
			m.Memory(256, 256)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void,
				asm.I32(0), asm.I32(1), asm.I32(256*65536), asm.MemoryFill, 0, asm.Br, 0, asm.End)
		}),
		"straight line of fills": guest(func(m *asm.Module, started int) {
			m.Memory(256, 256)
			var fills []any
			for range 2000 {
				fills = append(fills, asm.I32(0), asm.I32(1), asm.I32(256*65536), asm.MemoryFill, 0)
			}
			f := m.Func("", "", "", "", fills...)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void, asm.Call, f, asm.Br, 0, asm.End)
		}),
		"copies within memory": guest(func(m *asm.Module, started int) {
			m.Memory(256, 256)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void,
				asm.I32(8), asm.I32(0), asm.I32(256*65536-8), asm.MemoryCopy, 0, 0, asm.Br, 0, asm.End)
		}),
		"fill of a table that grew": guest(func(m *asm.Module, started int) {
			m.Table(1, 1<<30)
			null := []any{asm.Op(0xd0), asm.Type(0x70)}
			m.Func("attack", "", "", "", asm.Call, started, null, asm.I32(65535), asm.TableGrow, 0, asm.Drop, asm.Loop, asm.Void,
				asm.I32(0), null, asm.I32(65536), asm.TableFill, 0, asm.Br, 0, asm.End)
		}),
		"growth that is refused, again and again": guest(func(m *asm.Module, started int) {
			m.Memory(1, 65536)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void, asm.I32(1), asm.MemoryGrow, 0, asm.Drop, asm.Br, 0, asm.End)
		}),
	}
}

// Ending are guests whose attack a limit ends soon, by name: to be started over
// and over.
func Ending() map[string]func() *asm.Module {
	return map[string]func() *asm.Module{
		"recursion without end": guest(func(m *asm.Module, started int) {
			m.Memory(1, 1)
			f := m.Next()
			m.Func("", "", "", "", asm.I32(0), asm.I32(0), asm.I32Load, 2, 0, asm.I32(1), asm.I32Add, asm.I32Store, 2, 0, asm.Call, f)
			m.Func("attack", "", "", "", asm.Call, started, asm.Call, f)
		}),
		"growth to the limit, all of it touched": guest(func(m *asm.Module, started int) {
			m.Memory(1, 65536)
			m.Func("attack", "", "", "", asm.Call, started,
				asm.Loop, asm.Void, asm.I32(16), asm.MemoryGrow, 0, asm.I32(-1), asm.I32Ne, asm.BrIf, 0, asm.End,
				asm.I32(0), asm.I32(1), asm.MemorySize, 0, asm.I32(65536), asm.I32Mul, asm.MemoryFill, 0, asm.Unreachable)
		}),
		"output bomb": writer(1, 512<<10),
		"log bomb":    writer(2, 1<<10),
	}
}

// writer writes n bytes to a descriptor again and again.
func writer(fd, n int) func() *asm.Module {
	return guest(func(m *asm.Module, started int) {
		write := m.Import(host.WASIModule, "fd_write", "iiii", "i")
		m.Memory(16, 16)
		m.Data(0, asm.Code([]byte{64, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), 0})) // one vector of n bytes from 64
		m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void,
			asm.I32(fd), asm.I32(0), asm.I32(1), asm.I32(8), asm.Call, write, asm.Drop, asm.Br, 0, asm.End)
	})
}
