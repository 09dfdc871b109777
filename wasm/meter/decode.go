package meter

import "fmt"

// Section numbers of the binary format.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
)

// Kinds of imports and exports.
const (
	kindFunction = 0
	kindTable    = 1
	kindMemory   = 2
	kindGlobal   = 3
)

type funcType struct{ in, out string }

type limits struct {
	min, max uint32
	hasMax   bool
}

type tableType struct {
	of valueType
	limits
}

type globalType struct {
	of      valueType
	mutable bool
}

type importEntry struct {
	module, name string
	kind         byte
	index        uint32 // type index of a function
	table        tableType
	memory       limits
	global       globalType
}

// item is a constant expression: its bytes without the final end, and, when
// it is a lone ref.func, that function, whose index the rewriter shifts.
type item struct {
	code     []byte
	refFunc  bool
	function uint32
	number   int64 // value of a lone i32.const, unsigned, or -1
}

type globalEntry struct {
	globalType
	init item
}

type exportEntry struct {
	name  string
	kind  byte
	index uint32
}

// element is an element segment. mode is 0 active, 1 passive, 2 declarative.
type element struct {
	mode   byte
	table  uint32
	offset item
	of     valueType
	items  []item
}

type data struct {
	active bool
	offset item
	bytes  []byte
}

// module is a decoded module. Byte slices are parts of the upload.
type module struct {
	types     []funcType
	imports   []importEntry
	functions []uint32 // type index of each function, imported ones first
	tables    []tableType
	memories  []limits
	globals   []globalType
	inits     []globalEntry // of the globals that are not imported
	exports   []exportEntry
	start     int // function index or -1
	elements  []element
	datas     []data
	dataCount int // -1 without the section
	bodies    []reader

	importedFunctions, importedTables, importedMemories, importedGlobals int

	declared map[uint32]bool // functions that ref.func may name
	custom   int             // bytes of custom sections, which are dropped
	caps     Caps
}

// order of the sections: the data count comes before the code.
var sectionOrder = [13]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6,
	secExport: 7, secStart: 8, secElement: 9, secDataCount: 10, secCode: 11, secData: 12,
}

func decode(b []byte, caps Caps) *module {
	r := &reader{b: b, end: len(b), function: -1}
	m := &module{start: -1, dataCount: -1, caps: caps, declared: map[uint32]bool{}}
	if string(r.take(4)) != "\x00asm" {
		r.fail(ErrMalformed, "not a WebAssembly module: it does not begin with \\0asm")
	}
	if v := r.take(4); string(v) != "\x01\x00\x00\x00" {
		r.fail(ErrMalformed, "binary version is %x; only version 1 of core modules is accepted (no components)", v)
	}
	last := 0
	for r.more() {
		id := r.byte()
		size := r.u32()
		s := r.sub(size)
		if id == secCustom {
			s.name()
			m.custom += int(size)
			continue
		}
		if id > secDataCount {
			r.fail(ErrUnsupported, "section number %d", id)
		}
		if sectionOrder[id] <= last {
			r.fail(ErrMalformed, "section number %d is out of order or there twice", id)
		}
		last = sectionOrder[id]
		m.section(id, &s)
		if s.more() {
			s.fail(ErrMalformed, "section number %d has %d bytes too many", id, s.end-s.pos)
		}
	}
	m.checkWhole(r)
	return m
}

func (m *module) section(id byte, r *reader) {
	switch id {
	case secType:
		m.readTypes(r)
	case secImport:
		m.readImports(r)
	case secFunction:
		for range r.count("functions", m.caps.Functions) {
			m.functions = append(m.functions, m.typeIndex(r))
		}
	case secTable:
		for range r.count("tables", m.caps.Tables) {
			m.addTable(r, m.readTable(r))
		}
	case secMemory:
		for range r.count("memories", -1) {
			m.addMemory(r, m.readMemory(r))
		}
	case secGlobal:
		for range r.count("globals", m.caps.Globals) {
			g := globalEntry{globalType: m.readGlobalType(r)}
			g.init = m.constant(r, g.of)
			m.globals, m.inits = append(m.globals, g.globalType), append(m.inits, g)
		}
	case secExport:
		m.readExports(r)
	case secStart:
		m.start = int(m.functionIndex(r))
		if t := m.functionType(uint32(m.start)); t != (funcType{}) {
			r.fail(ErrMalformed, "start function %d has parameters or results", m.start)
		}
		if !m.caps.AllowStart {
			r.fail(ErrUnsupported, "start section (function %d): code that runs before any limit can be set; export _initialize instead", m.start)
		}
	case secElement:
		m.readElements(r)
	case secDataCount:
		m.dataCount = int(r.u32())
	case secCode:
		m.readCode(r)
	case secData:
		m.readDatas(r)
	}
}

// checkWhole holds the sections against each other.
func (m *module) checkWhole(r *reader) {
	if n := len(m.functions) - m.importedFunctions; n != len(m.bodies) {
		r.fail(ErrMalformed, "%d functions are declared and %d have a body", n, len(m.bodies))
	}
	if m.dataCount >= 0 && m.dataCount != len(m.datas) {
		r.fail(ErrMalformed, "the data count is %d and there are %d data segments", m.dataCount, len(m.datas))
	}
}

func (m *module) readTypes(r *reader) {
	for range r.count("types", m.caps.Types) {
		if form := r.byte(); form != 0x60 {
			r.pos--
			r.fail(ErrUnsupported, "type form 0x%02x", form)
		}
		m.types = append(m.types, funcType{in: m.valueTypes(r), out: m.valueTypes(r)})
	}
}

func (m *module) valueTypes(r *reader) string {
	n := r.count("parameters or results", m.caps.Locals)
	for i := range n {
		m.checkValueType(r, r.b[r.pos+i])
	}
	return string(r.take(uint32(n)))
}

func (m *module) checkValueType(r *reader, t byte) {
	switch t {
	case i32, i64, f32, f64, v128, funcref, externref:
	default:
		r.fail(ErrUnsupported, "value type 0x%02x", t)
	}
}

func (m *module) valueType(r *reader) valueType {
	t := r.byte()
	m.checkValueType(r, t)
	return t
}

func (m *module) refType(r *reader) valueType {
	t := r.byte()
	if t != funcref && t != externref {
		r.pos--
		r.fail(ErrMalformed, "reference type 0x%02x", t)
	}
	return t
}

func (m *module) typeIndex(r *reader) uint32 {
	i := r.u32()
	if int64(i) >= int64(len(m.types)) {
		r.fail(ErrMalformed, "type %d; there are %d", i, len(m.types))
	}
	return i
}

func (m *module) functionIndex(r *reader) uint32 {
	i := r.u32()
	if int64(i) >= int64(len(m.functions)) {
		r.fail(ErrMalformed, "function %d; there are %d", i, len(m.functions))
	}
	return i
}

func (m *module) functionType(i uint32) funcType { return m.types[m.functions[i]] }

func (m *module) readImports(r *reader) {
	for range r.count("imports", m.caps.Imports) {
		e := importEntry{module: r.name(), name: r.name(), kind: r.byte()}
		if e.module == ImportModule {
			r.fail(ErrUnsupported, "import %s.%s: this name is the host's own", e.module, e.name)
		}
		switch e.kind {
		case kindFunction:
			e.index = m.typeIndex(r)
			m.functions = append(m.functions, e.index)
			m.importedFunctions++
		case kindTable:
			e.table = m.readTable(r)
			m.addTable(r, e.table)
			m.importedTables++
		case kindMemory:
			e.memory = m.readMemory(r)
			m.addMemory(r, e.memory)
			m.importedMemories++
		case kindGlobal:
			e.global = m.readGlobalType(r)
			m.globals = append(m.globals, e.global)
			m.importedGlobals++
		default:
			r.fail(ErrUnsupported, "import %s.%s of kind %d", e.module, e.name, e.kind)
		}
		if e.kind != kindFunction && m.caps.FunctionImportsOnly {
			r.fail(ErrUnsupported, "import %s.%s: only functions can be imported", e.module, e.name)
		}
		m.imports = append(m.imports, e)
	}
}

func (m *module) readLimits(r *reader, what string) limits {
	flag := r.byte()
	if flag > 1 {
		r.pos--
		r.fail(ErrUnsupported, "%s flag 0x%02x: shared and 64-bit ones are not accepted", what, flag)
	}
	l := limits{min: r.u32(), hasMax: flag == 1}
	if l.hasMax {
		if l.max = r.u32(); l.max < l.min {
			r.fail(ErrMalformed, "%s maximum %d is below its minimum %d", what, l.max, l.min)
		}
	}
	return l
}

func (m *module) readTable(r *reader) tableType {
	t := tableType{of: m.refType(r)}
	t.limits = m.readLimits(r, "table")
	return t
}

func (m *module) addTable(r *reader, t tableType) {
	m.tables = append(m.tables, t)
	if len(m.tables) > m.caps.Tables {
		r.fail(ErrLimit, "%d tables; the limit is %d", len(m.tables), m.caps.Tables)
	}
	if int64(t.min) > int64(m.caps.TableMin) {
		r.fail(ErrLimit, "table of %d elements to begin with; the limit is %d", t.min, m.caps.TableMin)
	}
}

func (m *module) readMemory(r *reader) limits {
	l := m.readLimits(r, "memory")
	if l.min > 1<<16 || l.hasMax && l.max > 1<<16 {
		r.fail(ErrMalformed, "memory of %d to %d pages; 65536 pages are 4 GiB", l.min, l.max)
	}
	return l
}

func (m *module) addMemory(r *reader, l limits) {
	m.memories = append(m.memories, l)
	if len(m.memories) > 1 {
		r.fail(ErrUnsupported, "more than one memory")
	}
	if l.min > m.caps.MemoryPages {
		r.fail(ErrLimit, "memory of %d pages to begin with; the limit is %d", l.min, m.caps.MemoryPages)
	}
}

func (m *module) readGlobalType(r *reader) globalType {
	g := globalType{of: m.valueType(r)}
	c := r.byte()
	if c > 1 {
		r.fail(ErrMalformed, "global mutability 0x%02x", c)
	}
	g.mutable = c == 1
	return g
}

func (m *module) readExports(r *reader) {
	seen := map[string]bool{}
	for range r.count("exports", m.caps.Exports) {
		e := exportEntry{name: r.name(), kind: r.byte(), index: r.u32()}
		have := -1
		switch e.kind {
		case kindFunction:
			have = len(m.functions)
			m.declared[e.index] = true
		case kindTable:
			have = len(m.tables)
		case kindMemory:
			have = len(m.memories)
		case kindGlobal:
			have = len(m.globals)
		default:
			r.fail(ErrUnsupported, "export %q of kind %d", e.name, e.kind)
		}
		if int64(e.index) >= int64(have) {
			r.fail(ErrMalformed, "export %q of number %d; there are %d", e.name, e.index, have)
		}
		if seen[e.name] {
			r.fail(ErrMalformed, "export %q is there twice", e.name)
		}
		if len(e.name) >= len(ExportPrefix) && e.name[:len(ExportPrefix)] == ExportPrefix {
			r.fail(ErrUnsupported, "export %q: names that begin with %s are the host's own", e.name, ExportPrefix)
		}
		seen[e.name] = true
		m.exports = append(m.exports, e)
	}
}

// constant reads a constant expression that gives a value of type want.
func (m *module) constant(r *reader, want valueType) item {
	start := r.pos
	it := item{number: -1}
	var got valueType
	switch op := r.byte(); op {
	case opI32Const:
		it.number = int64(uint32(r.signed(32)))
		got = i32
	case opI64Const:
		r.signed(64)
		got = i64
	case opF32Const:
		r.take(4)
		got = f32
	case opF64Const:
		r.take(8)
		got = f64
	case opVector:
		if n := r.u32(); n != vectorConst {
			r.fail(ErrMalformed, "operator 0xfd %d in a constant expression", n)
		}
		r.take(16)
		got = v128
	case opGlobalGet:
		g := r.u32()
		if int64(g) >= int64(m.importedGlobals) || m.globals[g].mutable {
			r.fail(ErrMalformed, "global %d in a constant expression; only imported constants can be there", g)
		}
		got = m.globals[g].of
	case opRefNull:
		got = m.refType(r)
	case opRefFunc:
		it.refFunc, it.function = true, m.functionIndex(r)
		m.declared[it.function] = true
		got = funcref
	default:
		r.pos--
		r.fail(ErrMalformed, "operator 0x%02x in a constant expression", op)
	}
	it.code = r.b[start:r.pos]
	if end := r.byte(); end != opEnd {
		r.pos--
		r.fail(ErrMalformed, "constant expression goes on with 0x%02x", end)
	}
	if got != want {
		r.fail(ErrMalformed, "constant expression gives %s; %s is wanted", typeName(got), typeName(want))
	}
	return it
}

func (m *module) readElements(r *reader) {
	total := 0
	for range r.count("element segments", m.caps.Segments) {
		flag := r.u32()
		if flag > 7 {
			r.fail(ErrMalformed, "element segment flag %d", flag)
		}
		e := element{of: funcref}
		switch {
		case flag&1 == 0:
			if flag&2 != 0 {
				e.table = r.u32()
			}
			if int64(e.table) >= int64(len(m.tables)) {
				r.fail(ErrMalformed, "table %d; there are %d", e.table, len(m.tables))
			}
			e.offset = m.constant(r, i32)
		case flag&2 != 0:
			e.mode = 2
		default:
			e.mode = 1
		}
		if flag&3 != 0 {
			if flag&4 != 0 {
				e.of = m.refType(r)
			} else if kind := r.byte(); kind != 0 {
				r.fail(ErrMalformed, "element kind 0x%02x", kind)
			}
		}
		n := r.count("elements in a segment", m.caps.Elements)
		if total += n; total > m.caps.Elements {
			r.fail(ErrLimit, "%d elements in all segments; the limit is %d", total, m.caps.Elements)
		}
		for range n {
			if flag&4 != 0 {
				e.items = append(e.items, m.constant(r, e.of))
			} else {
				f := m.functionIndex(r)
				m.declared[f] = true
				e.items = append(e.items, item{refFunc: true, function: f})
			}
		}
		if e.mode == 0 && m.tables[e.table].of != e.of {
			r.fail(ErrMalformed, "%s elements for a table of %s", typeName(e.of), typeName(m.tables[e.table].of))
		}
		if e.mode == 0 {
			m.fits(r, "elements", e.offset, len(e.items), int64(m.tables[e.table].min))
		}
		m.elements = append(m.elements, e)
	}
}

// fits refuses a segment of an upload that does not fit the table or memory it
// goes to: such a module can never be instantiated, and wazero 1.12 panics
// over some of them where int has 32 bits.
func (m *module) fits(r *reader, what string, offset item, n int, size int64) {
	if m.caps.FunctionImportsOnly && offset.number+int64(n) > size {
		r.fail(ErrMalformed, "segment of %d %s at %d; there are %d to begin with", n, what, offset.number, size)
	}
}

func (m *module) readCode(r *reader) {
	n := r.count("function bodies", m.caps.Functions)
	if n != len(m.functions)-m.importedFunctions {
		r.fail(ErrMalformed, "%d functions are declared and %d have a body", len(m.functions)-m.importedFunctions, n)
	}
	for i := range n {
		r.function = m.importedFunctions + i
		size := r.u32()
		if int64(size) > int64(m.caps.BodyBytes) {
			r.fail(ErrLimit, "body of %d bytes; the limit is %d", size, m.caps.BodyBytes)
		}
		m.bodies = append(m.bodies, r.sub(size))
	}
	r.function = -1
}

func (m *module) readDatas(r *reader) {
	total := 0
	for range r.count("data segments", m.caps.Segments) {
		flag := r.u32()
		if flag > 2 {
			r.fail(ErrMalformed, "data segment flag %d", flag)
		}
		d := data{active: flag != 1}
		if d.active {
			index := uint32(0)
			if flag == 2 {
				index = r.u32()
			}
			if int64(index) >= int64(len(m.memories)) {
				r.fail(ErrMalformed, "memory %d; there are %d", index, len(m.memories))
			}
			d.offset = m.constant(r, i32)
		}
		d.bytes = r.take(r.u32())
		if d.active {
			m.fits(r, "bytes", d.offset, len(d.bytes), int64(m.memories[0].min)<<16)
		}
		if total += len(d.bytes); total > m.caps.DataBytes {
			r.fail(ErrLimit, "%d bytes in data segments; the limit is %d", total, m.caps.DataBytes)
		}
		m.datas = append(m.datas, d)
	}
}

func typeName(t valueType) string {
	switch t {
	case i32:
		return "i32"
	case i64:
		return "i64"
	case f32:
		return "f32"
	case f64:
		return "f64"
	case v128:
		return "v128"
	case funcref:
		return "funcref"
	case externref:
		return "externref"
	case unknown:
		return "any type"
	}
	return fmt.Sprintf("type 0x%02x", t)
}
