package meter

import "strings"

// A region is a stretch of a function that is charged at one point: the
// function itself, at its entry, or a loop, at its header, each without the
// loops inside. Control flows forward only within a region, so each of its
// operators runs at most once per charge.
type region struct {
	cost   uint32
	callee []uint32 // direct calls to functions of the module; their cost is added when they don't charge themselves
	in     string   // parameters of the loop
}

// A point is a place in a body where the rewriter inserts or replaces. It
// covers the operator, or is empty and lies after a loop's end.
type point struct {
	offset, size int
	kind         pointKind
	arg          uint32
}

type pointKind uint8

const (
	atLoop      pointKind = iota // arg is the loop's region
	atLoopEnd                    // after it; arg is the loop's region
	atBranch                     // br or br_if out of a loop; arg is its depth in the rewritten function
	atTable                      // br_table out of a loop; arg is where its depths begin in body.depths
	atFunction                   // call or ref.func; arg is the function
	atReturn                     // arg is the depth in the rewritten function of the block around the body
	atBulk                       // arg is how the length on top of the stack is charged: bulkMemory…
	atRemainder                  // arg is the operator
	atSelect                     // arg is the value type
)

const (
	bulkMemory = iota // bytes of a data segment
	bulkFill          // bytes, in pieces
	bulkCopy          // bytes, in pieces
	bulkTable         // elements
	bulkPages         // pages to grow by
)

// body is what validation has learnt of a function.
type body struct {
	function uint32
	code     reader // from the first local declaration to the end
	typ      funcType
	locals   uint32 // parameters included
	declared int    // local declaration groups
	groups   int    // offset of the first of them
	start    int    // offset of the first operator
	regions  []region
	points   []point
	depths   []uint32 // of branch tables: how many, then each, the default last
	indirect bool     // has call_indirect
	// first is the region of a loop that is always entered, before anything
	// can branch, or 0: the entry's cost is charged with it.
	first uint32
	slots uint32 // locals and most operands: a bound of the frame's size

	settled uint8 // costs: 0 not yet, 1 under way, 2 done
	counted bool  // counts depth and charges its entry; see settleCosts
	charged bool  // charges its entry
	height  uint8 // of the calls below a function that isn't counted
	cost    uint32
}

type frame struct {
	op          byte
	in, out     string
	height      int
	unreachable bool
	region      uint32
	loops       uint32 // how many loops are open, this frame included
}

// loopBlocks is how many blocks the rewriter puts around each loop.
const loopBlocks = 3

// validator checks one function at a time; it is reused for all of them.
type validator struct {
	m        *module
	o        Options
	r        *reader
	b        *body
	stack    []valueType
	frames   []frame
	locals   []valueType
	maxStack int
	blocks   int
	branched bool // something before this point may have branched or called
}

// validate checks every function body.
func (m *module) validate(o Options) []body {
	v := &validator{m: m, o: o}
	bodies := make([]body, len(m.bodies))
	total := 0
	for i := range bodies {
		f := uint32(m.importedFunctions + i)
		bodies[i] = body{function: f, code: m.bodies[i], typ: m.functionType(f)}
		v.function(&bodies[i])
		total += int(bodies[i].locals) - len(bodies[i].typ.in)
		if total > m.caps.TotalLocals {
			v.r.fail(ErrLimit, "%d locals in the functions so far; the limit is %d", total, m.caps.TotalLocals)
		}
	}
	return bodies
}

func (v *validator) function(b *body) {
	r := b.code
	v.r, v.b = &r, b
	v.readLocals()
	b.start = r.pos
	v.stack, v.frames = v.stack[:0], v.frames[:0]
	v.maxStack, v.blocks, v.branched = 0, 0, false
	b.regions = append(b.regions, region{})
	v.push(opBlock, "", b.typ.out, 0)
	for len(v.frames) > 0 {
		v.operator()
	}
	if r.more() {
		r.fail(ErrMalformed, "%d bytes after the function's end", r.end-r.pos)
	}
	b.slots = b.locals + uint32(v.maxStack)
}

func (v *validator) readLocals() {
	v.locals = append(v.locals[:0], v.b.typ.in...)
	v.b.declared = v.r.count("local declarations", v.m.caps.Locals)
	v.b.groups = v.r.pos
	for range v.b.declared {
		n := v.r.u32()
		if total := int64(len(v.locals)) + int64(n); total > int64(v.m.caps.Locals) {
			v.r.fail(ErrLimit, "%d locals; the limit is %d", total, v.m.caps.Locals)
		}
		t := v.m.valueType(v.r)
		for range n {
			v.locals = append(v.locals, t)
		}
	}
	v.b.locals = uint32(len(v.locals))
}

func (v *validator) push(op byte, in, out string, reg uint32) {
	if len(v.frames) > v.m.caps.Nesting {
		v.r.fail(ErrLimit, "blocks nested %d deep; the limit is %d", len(v.frames), v.m.caps.Nesting)
	}
	f := frame{op: op, in: in, out: out, height: len(v.stack), region: reg}
	if len(v.frames) > 0 {
		f.loops = v.top().loops
	}
	if op == opLoop {
		f.loops++
	}
	v.frames = append(v.frames, f)
	v.give(in)
}

func (v *validator) top() *frame { return &v.frames[len(v.frames)-1] }

func (v *validator) give(types string) {
	for i := range len(types) {
		v.giveOne(types[i])
	}
}

func (v *validator) giveOne(t valueType) {
	v.stack = append(v.stack, t)
	if n := len(v.stack); n > v.maxStack {
		if v.maxStack = n; n > v.m.caps.Stack {
			v.r.fail(ErrLimit, "%d operands on the stack; the limit is %d", n, v.m.caps.Stack)
		}
	}
}

// takeAny pops an operand; it is unknown below the reach of unreachable code.
func (v *validator) takeAny() valueType {
	f := v.top()
	if len(v.stack) == f.height {
		if f.unreachable {
			return unknown
		}
		v.r.fail(ErrMalformed, "operand is missing")
	}
	t := v.stack[len(v.stack)-1]
	v.stack = v.stack[:len(v.stack)-1]
	return t
}

func (v *validator) takeOne(want valueType) valueType {
	t := v.takeAny()
	if t != want && t != unknown && want != unknown {
		v.r.fail(ErrMalformed, "operand is %s; %s is wanted", typeName(t), typeName(want))
	}
	return t
}

func (v *validator) take(types string) {
	for i := len(types) - 1; i >= 0; i-- {
		v.takeOne(types[i])
	}
}

func (v *validator) unreachable() {
	f := v.top()
	v.stack = v.stack[:f.height]
	f.unreachable = true
	v.branched = true
}

// label returns the types a branch of this depth takes.
func (v *validator) label(depth uint32) string {
	if int64(depth) >= int64(len(v.frames)) {
		v.r.fail(ErrMalformed, "branch out of %d blocks; there are %d", depth, len(v.frames))
	}
	f := &v.frames[len(v.frames)-1-int(depth)]
	if f.op == opLoop {
		return f.in
	}
	return f.out
}

// rewritten gives the depth that a branch will have with the blocks added around the loops it leaves.
func (v *validator) rewritten(depth uint32) uint32 {
	return depth + loopBlocks*(v.top().loops-v.frames[len(v.frames)-1-int(depth)].loops)
}

func (v *validator) countBlocks(n int) {
	if v.blocks += n; v.blocks > v.m.caps.Blocks {
		v.r.fail(ErrLimit, "%d blocks and branch table targets; the limit is %d", v.blocks, v.m.caps.Blocks)
	}
}

func (v *validator) blockType() funcType {
	switch c := v.r.byte(); {
	case c == 0x40:
		return funcType{}
	case c >= 0x40 && c < 0x80:
		v.m.checkValueType(v.r, c)
		return funcType{out: string([]byte{c})}
	}
	v.r.pos--
	i := v.r.signed(33)
	if i < 0 || i >= int64(len(v.m.types)) {
		v.r.fail(ErrMalformed, "block type %d; there are %d types", i, len(v.m.types))
	}
	return v.m.types[i]
}

func (v *validator) mark(start int, kind pointKind, arg uint32) {
	v.b.points = append(v.b.points, point{offset: start, size: v.r.pos - start, kind: kind, arg: arg})
}

func (v *validator) operator() {
	start := v.r.pos
	v.b.regions[v.top().region].cost++
	op := v.r.byte()
	if o := &basicOperators[op]; o.known {
		v.fixed(o)
		if v.o.ReplaceRemainder && (op == opI32RemS || op == opI32RemU || op == opI64RemS || op == opI64RemU) {
			v.mark(start, atRemainder, uint32(op))
		}
		return
	}
	switch op {
	case opUnreachable:
		v.unreachable()
	case 0x01: // nop
	case opBlock, opLoop, opIf:
		v.block(op, start)
	case opElse, opEnd:
		v.end(op)
	case opBr, opBrIf, opBrTable, opReturn:
		v.branch(op, start)
	case opCall, opCallIndirect:
		v.call(op, start)
	case opDrop:
		v.takeAny()
	case opSelect, opSelectTyped:
		v.choose(op, start)
	case opLocalGet, opLocalSet, opLocalTee, opGlobalGet, opGlobalSet:
		v.variable(op)
	case opTableGet, opTableSet:
		t := v.table()
		if op == opTableGet {
			v.takeOne(i32)
			v.giveOne(t)
		} else {
			v.takeOne(t)
			v.takeOne(i32)
		}
	case opMemorySize, opMemoryGrow:
		v.zero()
		v.needMemory()
		if op == opMemoryGrow {
			v.mark(start, atBulk, bulkPages)
			v.takeOne(i32)
		}
		v.giveOne(i32)
	case opI32Const:
		v.r.signed(32)
		v.giveOne(i32)
	case opI64Const:
		v.r.signed(64)
		v.giveOne(i64)
	case opF32Const:
		v.r.take(4)
		v.giveOne(f32)
	case opF64Const:
		v.r.take(8)
		v.giveOne(f64)
	case opRefNull:
		v.giveOne(v.m.refType(v.r))
	case opRefIsNull:
		if t := v.takeAny(); t != funcref && t != externref && t != unknown {
			v.r.fail(ErrMalformed, "operand is %s; a reference is wanted", typeName(t))
		}
		v.giveOne(i32)
	case opRefFunc:
		f := v.m.functionIndex(v.r)
		if !v.m.declared[f] {
			v.r.fail(ErrMalformed, "ref.func of function %d, which no element segment or export declares", f)
		}
		v.mark(start, atFunction, f)
		v.giveOne(funcref)
	case opMisc:
		v.misc(start)
	case opVector:
		v.vector()
	default:
		v.r.pos--
		v.r.fail(ErrUnsupported, "operator 0x%02x", op)
	}
}

// fixed handles an operator of fixed type.
func (v *validator) fixed(o *operator) {
	if o.follows == memory || o.follows == both {
		v.needMemory()
		if align := v.r.u32(); align > uint32(o.of) {
			v.r.fail(ErrMalformed, "alignment 2^%d; it is 2^%d at most", align, o.of)
		}
		v.r.u32()
	}
	if o.follows == lane || o.follows == both {
		if n := v.r.byte(); n >= o.lanes {
			v.r.fail(ErrMalformed, "lane %d of %d", n, o.lanes)
		}
	}
	v.take(o.in)
	v.give(o.out)
}

func (v *validator) block(op byte, start int) {
	t := v.blockType()
	v.countBlocks(1)
	if op == opIf {
		v.takeOne(i32)
		v.branched = true
	}
	v.take(t.in)
	reg := v.top().region
	if op == opLoop {
		v.b.regions = append(v.b.regions, region{in: t.in})
		reg = uint32(len(v.b.regions) - 1)
		v.mark(start, atLoop, reg)
		if !v.branched && v.b.first == 0 {
			v.b.first = reg
		}
		v.branched = true
	}
	v.push(op, t.in, t.out, reg)
}

func (v *validator) end(op byte) {
	f := *v.top()
	v.take(f.out)
	if len(v.stack) != f.height {
		v.r.fail(ErrMalformed, "%d operands too many at the end of a block", len(v.stack)-f.height)
	}
	if op == opElse {
		if f.op != opIf {
			v.r.fail(ErrMalformed, "else without if")
		}
		v.frames = v.frames[:len(v.frames)-1]
		v.push(opElse, f.in, f.out, f.region)
		return
	}
	if f.op == opIf && f.in != f.out {
		v.r.fail(ErrMalformed, "if without else must leave what it takes")
	}
	v.frames = v.frames[:len(v.frames)-1]
	if f.op == opLoop {
		v.mark(v.r.pos, atLoopEnd, f.region)
	}
	if len(v.frames) > 0 {
		v.give(f.out)
	}
}

func (v *validator) branch(op byte, start int) {
	v.branched = true
	switch op {
	case opReturn:
		v.mark(start, atReturn, v.rewritten(uint32(len(v.frames)-1)))
		v.take(v.frames[0].out)
		v.unreachable()
	case opBr:
		v.take(v.target(start))
		v.unreachable()
	case opBrIf:
		t := v.target(start)
		v.takeOne(i32)
		v.take(t)
		v.give(t)
	case opBrTable:
		v.branchTable(start)
	}
}

// target reads the depth of a branch and returns the types it takes.
func (v *validator) target(start int) string {
	depth := v.r.u32()
	t := v.label(depth)
	if d := v.rewritten(depth); d != depth {
		v.mark(start, atBranch, d)
	}
	return t
}

func (v *validator) branchTable(start int) {
	n := v.r.count("branch table targets", v.m.caps.Blocks)
	v.countBlocks(n + 1)
	targets := v.r.pos
	for range n {
		v.r.u32()
	}
	depth := v.r.u32()
	def := v.label(depth)
	v.takeOne(i32)
	if v.top().loops > 0 {
		v.mark(start, atTable, uint32(len(v.b.depths)))
		v.b.depths = append(v.b.depths, uint32(n))
	}
	r := *v.r
	v.r.pos = targets
	// Each target takes the same operands; those that are unknown fit any type.
	saved := strings.Clone(string(v.stack[v.top().height:]))
	for range n {
		depth := v.r.u32()
		t := v.label(depth)
		if v.top().loops > 0 {
			v.b.depths = append(v.b.depths, v.rewritten(depth))
		}
		if len(t) != len(def) {
			v.r.fail(ErrMalformed, "branch table targets take %d and %d operands", len(t), len(def))
		}
		if t != def {
			v.take(t)
			v.stack = append(v.stack[:v.top().height], saved...)
		}
	}
	*v.r = r
	if v.top().loops > 0 {
		v.b.depths = append(v.b.depths, v.rewritten(depth))
	}
	v.take(def)
	v.unreachable()
}

func (v *validator) call(op byte, start int) {
	var t funcType
	v.branched = true
	reg := &v.b.regions[v.top().region]
	if op == opCall {
		f := v.m.functionIndex(v.r)
		v.mark(start, atFunction, f)
		if int(f) >= v.m.importedFunctions {
			reg.callee = append(reg.callee, f)
		}
		t = v.m.functionType(f)
	} else {
		ti := v.m.typeIndex(v.r)
		if tt := v.table(); tt != funcref {
			v.r.fail(ErrMalformed, "call_indirect through a table of %s", typeName(tt))
		}
		v.takeOne(i32)
		v.b.indirect = true
		reg.cost += freeCost
		t = v.m.types[ti]
	}
	v.take(t.in)
	v.give(t.out)
}

func (v *validator) choose(op byte, start int) {
	t := unknown
	if op == opSelectTyped {
		if n := v.r.byte(); n != 1 {
			v.r.fail(ErrMalformed, "select of %d types; 1 is wanted, in one byte", n)
		}
		t = v.m.valueType(v.r)
	}
	v.takeOne(i32)
	if op == opSelectTyped {
		v.takeOne(t)
		v.takeOne(t)
	} else {
		a := v.takeAny()
		b := v.takeAny()
		if a == funcref || a == externref || b == funcref || b == externref {
			v.r.fail(ErrMalformed, "select of references must name its type")
		}
		if a != b && a != unknown && b != unknown {
			v.r.fail(ErrMalformed, "select between %s and %s", typeName(b), typeName(a))
		}
		if t = a; t == unknown {
			t = b
		}
	}
	if v.o.ReplaceSelect && (t == f32 || t == f64 || t == v128) {
		v.mark(start, atSelect, uint32(t))
	}
	v.giveOne(t)
}

func (v *validator) variable(op byte) {
	i := v.r.u32()
	if op == opGlobalGet || op == opGlobalSet {
		if int64(i) >= int64(len(v.m.globals)) {
			v.r.fail(ErrMalformed, "global %d; there are %d", i, len(v.m.globals))
		}
		g := v.m.globals[i]
		if op == opGlobalGet {
			v.giveOne(g.of)
			return
		}
		if !g.mutable {
			v.r.fail(ErrMalformed, "global %d is constant", i)
		}
		v.takeOne(g.of)
		return
	}
	if int64(i) >= int64(len(v.locals)) {
		v.r.fail(ErrMalformed, "local %d; there are %d", i, len(v.locals))
	}
	if op != opLocalGet {
		v.takeOne(v.locals[i])
	}
	if op != opLocalSet {
		v.giveOne(v.locals[i])
	}
}

// table reads a table index and returns the type of its elements.
func (v *validator) table() valueType {
	i := v.r.u32()
	if int64(i) >= int64(len(v.m.tables)) {
		v.r.fail(ErrMalformed, "table %d; there are %d", i, len(v.m.tables))
	}
	return v.m.tables[i].of
}

func (v *validator) needMemory() {
	if len(v.m.memories) == 0 {
		v.r.fail(ErrMalformed, "memory is used and there is none")
	}
}

func (v *validator) zero() {
	if c := v.r.byte(); c != 0 {
		v.r.fail(ErrMalformed, "memory 0x%02x; there is one", c)
	}
}

func (v *validator) segment(what string, have int) uint32 {
	i := v.r.u32()
	if int64(i) >= int64(have) {
		v.r.fail(ErrMalformed, "%s segment %d; there are %d", what, i, max(have, 0))
	}
	return i
}

// misc handles the operators after 0xfc.
func (v *validator) misc(start int) {
	op := v.r.u32()
	if op < uint32(len(saturating)) {
		v.take(saturating[op][0])
		v.give(saturating[op][1])
		return
	}
	const three = "\x7f\x7f\x7f"
	bulk := -1
	switch op {
	case miscMemoryInit:
		v.segment("data", v.m.dataCount)
		v.zero()
		v.needMemory()
		bulk = bulkMemory
	case miscDataDrop:
		v.segment("data", v.m.dataCount)
	case miscMemoryCopy:
		v.zero()
		v.zero()
		v.needMemory()
		bulk = bulkCopy
	case miscMemoryFill:
		v.zero()
		v.needMemory()
		bulk = bulkFill
	case miscTableInit:
		e := v.segment("element", len(v.m.elements))
		if t := v.table(); t != v.m.elements[e].of {
			v.r.fail(ErrMalformed, "%s elements for a table of %s", typeName(v.m.elements[e].of), typeName(t))
		}
		bulk = bulkTable
	case miscElemDrop:
		v.segment("element", len(v.m.elements))
	case miscTableCopy:
		if a, b := v.table(), v.table(); a != b {
			v.r.fail(ErrMalformed, "copy of %s elements to a table of %s", typeName(b), typeName(a))
		}
		bulk = bulkTable
	case miscTableGrow:
		t := v.table()
		v.mark(start, atBulk, bulkTable)
		v.takeOne(i32)
		v.takeOne(t)
		v.giveOne(i32)
	case miscTableSize:
		v.table()
		v.giveOne(i32)
	case miscTableFill:
		t := v.table()
		v.mark(start, atBulk, bulkTable)
		v.takeOne(i32)
		v.takeOne(t)
		v.takeOne(i32)
	default:
		v.r.fail(ErrUnsupported, "operator 0xfc %d", op)
	}
	if bulk >= 0 {
		v.mark(start, atBulk, uint32(bulk))
		v.take(three)
	}
}

// vector handles the operators after 0xfd.
func (v *validator) vector() {
	op := v.vectorOperator()
	switch {
	case op == vectorConst:
		v.r.take(16)
		v.giveOne(v128)
	case op == vectorShuffle:
		for _, n := range v.r.take(16) {
			if n >= 32 {
				v.r.fail(ErrMalformed, "shuffle lane %d of 32", n)
			}
		}
		v.take(tV + tV)
		v.giveOne(v128)
	case op < 256 && vectorOperators[op].known:
		v.fixed(&vectorOperators[op])
	default:
		v.r.fail(ErrUnsupported, "operator 0xfd %d", op)
	}
}

// vectorOperator reads the number of a vector operator, in its shortest form only.
// For wazero it is one byte, and the second one, 1, is a nop: of a longer form it
// would make other operators than those that are charged here.
func (v *validator) vectorOperator() uint32 {
	start := v.r.pos
	op := v.r.u32()
	short := 1
	if op >= 0x80 {
		short = 2
	}
	if n := v.r.pos - start; n > short && op < 256 {
		v.r.fail(ErrUnsupported, "operator 0xfd %d in %d bytes; %d are enough", op, n, short)
	}
	return op
}
