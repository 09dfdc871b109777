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

func announce(m *asm.Module) int { return m.Import("box", "started", "", "") }

// Endless are guests whose attack never ends by itself, by name.
func Endless() map[string]func() *asm.Module {
	return map[string]func() *asm.Module{
		"endless loop": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void, asm.Br, 0, asm.End)
			return m
		},
		"endless loop that is not empty": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(1, 1)
			m.Func("attack", "", "", "i", asm.Call, started, asm.Loop, asm.Void,
				asm.LocalGet, 0, asm.LocalGet, 0, asm.I32Load, 0, 0, asm.I32Add, asm.I32(65532), asm.I32LtU, asm.LocalSet, 0, asm.Br, 0, asm.End)
			return m
		},
		"calls that double, without a loop": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			f := m.Func("", "", "", "", asm.Nop)
			for range 60 {
				f = m.Func("", "", "", "", asm.Call, f, asm.Call, f)
			}
			m.Func("attack", "", "", "", asm.Call, started, asm.Call, f)
			return m
		},
		"indirect calls that double": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Table(70, 70)
			table := []int{m.Func("", "", "", "", asm.Nop)}
			for i := range 60 {
				call := []any{asm.I32(i), asm.CallIndirect, m.Type("", ""), 0}
				table = append(table, m.Func("", "", "", "", call, call))
			}
			m.Elements(0, table...)
			m.Func("attack", "", "", "", asm.Call, started, asm.I32(60), asm.CallIndirect, m.Type("", ""), 0)
			return m
		},
		"recursion that doubles": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			f := m.Next()
			m.Func("", "i", "", "", asm.LocalGet, 0, asm.If, asm.Void,
				asm.LocalGet, 0, asm.I32(1), asm.I32Sub, asm.Call, f, asm.LocalGet, 0, asm.I32(1), asm.I32Sub, asm.Call, f, asm.End)
			m.Func("attack", "", "", "", asm.Call, started, asm.I32(60), asm.Call, f)
			return m
		},
		"fill of all memory, again and again": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(256, 256)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void,
				asm.I32(0), asm.I32(1), asm.I32(256*65536), asm.MemoryFill, 0, asm.Br, 0, asm.End)
			return m
		},
		"straight line of fills": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(256, 256)
			var fills []any
			for range 2000 {
				fills = append(fills, asm.I32(0), asm.I32(1), asm.I32(256*65536), asm.MemoryFill, 0)
			}
			f := m.Func("", "", "", "", fills...)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void, asm.Call, f, asm.Br, 0, asm.End)
			return m
		},
		"copies within memory": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(256, 256)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void,
				asm.I32(8), asm.I32(0), asm.I32(256*65536-8), asm.MemoryCopy, 0, 0, asm.Br, 0, asm.End)
			return m
		},
		"fill of a table that grew": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Table(1, 1<<30)
			null := []any{asm.Op(0xd0), asm.Type(0x70)}
			m.Func("attack", "", "", "", asm.Call, started, null, asm.I32(65535), asm.TableGrow, 0, asm.Drop, asm.Loop, asm.Void,
				asm.I32(0), null, asm.I32(65536), asm.TableFill, 0, asm.Br, 0, asm.End)
			return m
		},
		"growth that is refused, again and again": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(1, 65536)
			m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void, asm.I32(1), asm.MemoryGrow, 0, asm.Drop, asm.Br, 0, asm.End)
			return m
		},
	}
}

// Ending are guests whose attack a limit ends soon, by name: to be started over
// and over.
func Ending() map[string]func() *asm.Module {
	return map[string]func() *asm.Module{
		"recursion without end": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(1, 1)
			f := m.Next()
			m.Func("", "", "", "", asm.I32(0), asm.I32(0), asm.I32Load, 2, 0, asm.I32(1), asm.I32Add, asm.I32Store, 2, 0, asm.Call, f)
			m.Func("attack", "", "", "", asm.Call, started, asm.Call, f)
			return m
		},
		"growth to the limit, all of it touched": func() *asm.Module {
			m := asm.New()
			started := announce(m)
			m.Memory(1, 65536)
			m.Func("attack", "", "", "", asm.Call, started,
				asm.Loop, asm.Void, asm.I32(16), asm.MemoryGrow, 0, asm.I32(-1), asm.I32Ne, asm.BrIf, 0, asm.End,
				asm.I32(0), asm.I32(1), asm.MemorySize, 0, asm.I32(65536), asm.I32Mul, asm.MemoryFill, 0, asm.Unreachable)
			return m
		},
		"output bomb": func() *asm.Module { return writer(1, 512<<10) },
		"log bomb":    func() *asm.Module { return writer(2, 1<<10) },
	}
}

// writer writes n bytes to a descriptor again and again.
func writer(fd, n int) *asm.Module {
	m := asm.New()
	started := announce(m)
	write := m.Import(host.WASIModule, "fd_write", "iiii", "i")
	m.Memory(16, 16)
	m.Data(0, asm.Code([]byte{64, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), 0})) // one vector of n bytes from 64
	m.Func("attack", "", "", "", asm.Call, started, asm.Loop, asm.Void,
		asm.I32(fd), asm.I32(0), asm.I32(1), asm.I32(8), asm.Call, write, asm.Drop, asm.Br, 0, asm.End)
	return m
}
