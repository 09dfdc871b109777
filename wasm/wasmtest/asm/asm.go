// Package asm assembles small WebAssembly modules in Go, for tests that need a
// guest of an exact shape: hostile ones, huge ones, invalid ones. Nothing is
// checked. It is imported by tests only.
//
//	m := asm.New()
//	m.Memory(1, 1)
//	m.Func("spin", "", "", "", asm.Loop, asm.Void, asm.Br, 0, asm.End)
//	wasm := m.Bytes()
package asm

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Op is an operator's byte, put into code as it is.
type Op byte

// Operators, and the empty block type.
const (
	Unreachable  Op = 0x00
	Nop          Op = 0x01
	Block        Op = 0x02
	Loop         Op = 0x03
	If           Op = 0x04
	Else         Op = 0x05
	End          Op = 0x0b
	Br           Op = 0x0c
	BrIf         Op = 0x0d
	BrTable      Op = 0x0e
	Return       Op = 0x0f
	Call         Op = 0x10
	CallIndirect Op = 0x11
	Drop         Op = 0x1a
	Select       Op = 0x1b
	LocalGet     Op = 0x20
	LocalSet     Op = 0x21
	LocalTee     Op = 0x22
	GlobalGet    Op = 0x23
	GlobalSet    Op = 0x24
	I32Load      Op = 0x28
	I32Load8U    Op = 0x2d
	I32Store     Op = 0x36
	I32Store8    Op = 0x3a
	MemorySize   Op = 0x3f
	MemoryGrow   Op = 0x40
	I32Eqz       Op = 0x45
	I32Ne        Op = 0x47
	I32LtU       Op = 0x49
	I32Add       Op = 0x6a
	I32Sub       Op = 0x6b
	I32Mul       Op = 0x6c
	I32DivU      Op = 0x6e
	Void         Op = 0x40
)

// Misc is an operator after 0xfc.
type Misc uint32

// Bulk operators.
const (
	MemoryCopy Misc = 10
	MemoryFill Misc = 11
	TableGrow  Misc = 15
	TableFill  Misc = 17
)

// I32 is an i32.const.
type I32 int32

// I64 is an i64.const.
type I64 int64

// F64 is an f64.const.
type F64 float64

// Type is a value type's byte, for block types and typed operators.
type Type byte

// Code puts parts into bytes: Op and Type as one byte, Misc, I32, I64 and F64 as
// their operator with its operand, int as unsigned LEB128 (an index, an
// alignment, an offset), []byte and nested []any as they are.
func Code(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case Op:
			b = append(b, byte(p))
		case Type:
			b = append(b, byte(p))
		case Misc:
			b = binary.AppendUvarint(append(b, 0xfc), uint64(p))
		case I32:
			b = signed(append(b, 0x41), int64(p))
		case I64:
			b = signed(append(b, 0x42), int64(p))
		case F64:
			b = binary.LittleEndian.AppendUint64(append(b, 0x44), math.Float64bits(float64(p)))
		case int:
			b = binary.AppendUvarint(b, uint64(p))
		case []byte:
			b = append(b, p...)
		case []any:
			b = append(b, Code(p...)...)
		default:
			panic(fmt.Sprintf("BUG: asm.Code of %T", p))
		}
	}
	return b
}

func signed(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Module collects the parts of a module. Types are written as letters:
// i i32, l i64, f f32, d f64, v v128, r funcref, e externref.
type Module struct {
	types    []string
	imports  [][]byte
	funcs    []int
	bodies   [][]byte
	tables   [][]byte
	memories [][]byte
	globals  [][]byte
	exports  [][]byte
	elements [][]byte
	datas    [][]byte
	start    int
	imported int
}

// New returns an empty module.
func New() *Module { return &Module{start: -1} }

func valueTypes(letters string) []byte {
	b := make([]byte, len(letters))
	for i := range letters {
		switch letters[i] {
		case 'i':
			b[i] = 0x7f
		case 'l':
			b[i] = 0x7e
		case 'f':
			b[i] = 0x7d
		case 'd':
			b[i] = 0x7c
		case 'v':
			b[i] = 0x7b
		case 'r':
			b[i] = 0x70
		case 'e':
			b[i] = 0x6f
		default:
			panic("BUG: asm: type letter " + letters[i:i+1])
		}
	}
	return b
}

// Type returns the index of a function type.
func (m *Module) Type(params, results string) int {
	key := params + ">" + results
	for i, t := range m.types {
		if t == key {
			return i
		}
	}
	m.types = append(m.types, key)
	return len(m.types) - 1
}

func bytesOf(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// Import imports a function and returns its index. Imports come before functions.
func (m *Module) Import(module, name, params, results string) int {
	if len(m.bodies) > 0 {
		panic("BUG: asm: import after a function")
	}
	m.imports = append(m.imports, Code(bytesOf([]byte(module)), bytesOf([]byte(name)), Op(0), m.Type(params, results)))
	m.imported++
	return m.imported - 1
}

// Next is the index the next Func will have.
func (m *Module) Next() int { return m.imported + len(m.bodies) }

// Func adds a function with these types and locals and returns its index; the
// final end is added. A name exports it.
func (m *Module) Func(name, params, results, locals string, code ...any) int {
	var groups []byte
	n := 0
	for _, t := range valueTypes(locals) {
		groups = append(groups, 1, t)
		n++
	}
	return m.FuncWith(name, params, results, n, groups, code...)
}

// FuncWith is Func with the local declarations written out.
func (m *Module) FuncWith(name, params, results string, groups int, declarations []byte, code ...any) int {
	index := m.Next()
	m.funcs = append(m.funcs, m.Type(params, results))
	m.bodies = append(m.bodies, Code(groups, declarations, Code(code...), End))
	if name != "" {
		m.Export(name, 0, index)
	}
	return index
}

// Export exports something of a kind (0 function, 1 table, 2 memory, 3 global).
func (m *Module) Export(name string, kind, index int) {
	m.exports = append(m.exports, Code(bytesOf([]byte(name)), kind, index))
}

// Memory adds a memory, exported as "memory".
func (m *Module) Memory(pages, maxPages int) {
	m.memories = append(m.memories, Code(1, pages, maxPages))
	m.Export("memory", 2, 0)
}

// Table adds a table of functions.
func (m *Module) Table(elements, maxElements int) {
	m.tables = append(m.tables, Code(Type(0x70), 1, elements, maxElements))
}

// Elements puts functions into table 0 from an offset on.
func (m *Module) Elements(offset int32, functions ...int) {
	b := Code(0, I32(offset), End, len(functions))
	for _, f := range functions {
		b = Code(b, f)
	}
	m.elements = append(m.elements, b)
}

// Global adds a mutable i32 global and returns its index.
func (m *Module) Global(v int32) int {
	m.globals = append(m.globals, Code(Type(0x7f), 1, I32(v), End))
	return len(m.globals) - 1
}

// Data puts bytes into the memory.
func (m *Module) Data(offset int32, b []byte) {
	m.datas = append(m.datas, Code(0, I32(offset), End, bytesOf(b)))
}

// Start sets the start function.
func (m *Module) Start(function int) { m.start = function }

// Bytes returns the module in the binary format.
func (m *Module) Bytes() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id int, entries [][]byte) {
		if len(entries) == 0 {
			return
		}
		content := binary.AppendUvarint(nil, uint64(len(entries)))
		for _, e := range entries {
			content = append(content, e...)
		}
		b = append(append(b, byte(id)), bytesOf(content)...)
	}
	var types, funcs, bodies [][]byte
	for _, t := range m.types {
		for i := range t {
			if t[i] == '>' {
				types = append(types, Code(Op(0x60), bytesOf(valueTypes(t[:i])), bytesOf(valueTypes(t[i+1:]))))
			}
		}
	}
	for i, f := range m.funcs {
		funcs = append(funcs, Code(f))
		bodies = append(bodies, bytesOf(m.bodies[i]))
	}
	section(1, types)
	section(2, m.imports)
	section(3, funcs)
	section(4, m.tables)
	section(5, m.memories)
	section(6, m.globals)
	section(7, m.exports)
	if m.start >= 0 {
		b = append(append(b, 8), bytesOf(Code(m.start))...)
	}
	section(9, m.elements)
	section(10, bodies)
	section(11, m.datas)
	return b
}
