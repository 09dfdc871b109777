package meter

func (e *emitter) codeSection(bodies []body) []byte {
	total := 0
	for i := range bodies {
		total += bodies[i].code.end - bodies[i].code.pos
	}
	out := appendU32(make([]byte, 0, total+total/4+64), uint32(len(bodies))+4)
	for i := range bodies {
		e.body(&bodies[i])
		out = appendBytes(out, e.code)
	}
	out = appendBytes(appendBytes(out, e.refillBody()), e.enterBody())
	return appendBytes(appendBytes(out, e.piecesBody(miscMemoryFill)), e.piecesBody(miscMemoryCopy))
}

// refillBody: fuel = tick(fuel).
func (e *emitter) refillBody() []byte {
	e.code = append(e.code[:0], 0)
	e.op(opGlobalGet, e.fuel())
	e.op(opCall, e.tick())
	e.op(opGlobalSet, e.fuel())
	return append(e.code, opEnd)
}

// enterBody is what an entry comes to when depth or fuel is used up: a trap,
// or a refill. The host tells the trap by the depth global.
func (e *emitter) enterBody() []byte {
	e.code = append(e.code[:0], 0)
	e.op(opGlobalGet, e.depth())
	e.isNegative()
	e.code = append(e.code, opIf, 0x40, opUnreachable, opEnd)
	e.op(opCall, e.refill())
	return append(e.code, opEnd)
}

// op appends an operator with an index.
func (e *emitter) op(op byte, index uint32) { e.code = appendU32(append(e.code, op), index) }

func (e *emitter) constant(v int32) { e.code = appendS32(append(e.code, opI32Const), v) }

func (e *emitter) isNegative() { e.code = append(e.code, opI32Const, 0, opI32LtS) }

// body writes one function's body to e.code.
func (e *emitter) body(b *body) {
	e.b = b
	e.locals()
	if b.charged {
		e.entry()
	}
	if b.counted {
		e.code = e.appendBlockType(append(e.code, opBlock), b.typ.out)
	}
	src, pos := b.code.b, b.start
	for _, p := range b.points {
		e.code = append(e.code, src[pos:p.offset]...)
		pos = e.point(p, src)
	}
	e.code = append(e.code, src[pos:b.code.end]...)
	if b.counted {
		// The function's own end now ends the block around its body, which
		// every way out of the function but a trap leads to.
		e.op(opGlobalGet, e.depth())
		e.constant(e.b.weight())
		e.code = append(e.code, opI32Add)
		e.op(opGlobalSet, e.depth())
		e.code = append(e.code, opEnd)
	}
}

// weight is how much depth a call of the function takes.
func (b *body) weight() int32 { return int32(1 + b.slots/slotsPerDepth) }

func (e *emitter) appendBlockType(b []byte, out string) []byte {
	switch len(out) {
	case 0:
		return append(b, 0x40)
	case 1:
		return append(b, out[0])
	}
	// A type index is signed with 33 bits; ours are small.
	return appendS32(b, int32(e.typeIndex("", out)))
}

// locals writes the local declarations and adds the scratch locals that the body's points need.
func (e *emitter) locals() {
	b := e.b
	count := map[valueType]uint32{}
	for _, p := range b.points {
		switch p.kind {
		case atBulk:
			count[i32] = max(count[i32], 1)
		case atRemainder:
			if p.arg == opI32RemS || p.arg == opI32RemU {
				count[i32] = 2
			} else {
				count[i64] = 2
			}
		case atSelect:
			count[valueType(p.arg)] = 1
		}
	}
	e.scratch = map[valueType]uint32{}
	next, groups := b.locals, b.declared
	var added []byte
	for _, t := range []valueType{i32, i64, f32, f64, v128} {
		if n := count[t]; n > 0 {
			e.scratch[t] = next
			next += n
			groups++
			added = append(appendU32(added, n), t)
		}
	}
	e.code = appendU32(e.code[:0], uint32(groups))
	e.code = append(e.code, b.code.b[b.groups:b.start]...)
	e.code = append(e.code, added...)
}

// spend takes cost from the fuel.
func (e *emitter) spend(cost uint32) {
	e.op(opGlobalGet, e.fuel())
	e.constant(int32(cost))
	e.code = append(e.code, opI32Sub)
	e.op(opGlobalSet, e.fuel())
}

// check refills the fuel when it is used up.
func (e *emitter) check() {
	e.op(opGlobalGet, e.fuel())
	e.isNegative()
	e.code = append(e.code, opIf, 0x40)
	e.op(opCall, e.refill())
	e.code = append(e.code, opEnd)
}

// entry charges the function's entry and, when it counts, takes its depth.
func (e *emitter) entry() {
	b := e.b
	if b.first == 0 {
		e.spend(b.cost)
	}
	if !b.counted {
		if b.first == 0 {
			e.check()
		}
		return
	}
	e.op(opGlobalGet, e.depth())
	e.constant(b.weight())
	e.code = append(e.code, opI32Sub)
	e.op(opGlobalSet, e.depth())
	e.op(opGlobalGet, e.depth())
	if b.first != 0 { // the loop looks at the fuel
		e.isNegative()
		e.code = append(e.code, opIf, 0x40, opUnreachable, opEnd)
		return
	}
	e.op(opGlobalGet, e.fuel())
	e.code = append(e.code, opI32Or)
	e.isNegative()
	e.code = append(e.code, opIf, 0x40)
	e.op(opCall, e.enter())
	e.code = append(e.code, opEnd)
}

// point writes what a point calls for and returns where the original goes on.
func (e *emitter) point(p point, src []byte) int {
	switch p.kind {
	case atLoop:
		e.loop(p, src)
	case atLoopEnd:
		e.loopEnd(p.arg)
	case atBranch:
		e.op(src[p.offset], p.arg)
	case atTable:
		depths := e.b.depths[p.arg:]
		e.op(opBrTable, depths[0])
		for _, d := range depths[1 : depths[0]+2] {
			e.code = appendU32(e.code, d)
		}
	case atFunction:
		e.op(src[p.offset], e.shift(p.arg))
	case atReturn:
		if !e.b.counted {
			return p.offset
		}
		e.op(opBr, p.arg)
	case atBulk:
		if p.arg == bulkFill || p.arg == bulkCopy {
			e.pieces(p.arg, src[p.offset:p.offset+p.size])
			break
		}
		e.bulk(p.arg)
		return p.offset
	case atRemainder:
		e.remainder(byte(p.arg))
	case atSelect:
		e.selectFloat(valueType(p.arg))
	}
	return p.offset + p.size
}

// loop writes a loop's beginning. The refill stands outside of the loop:
//
//	block $exit
//	  loop $again
//	    block $empty
//	      loop            ;; the original
//	        fuel -= cost
//	        br_if $empty (fuel < 0)
//	        …
//	      end
//	      br $exit
//	    end
//	    refill
//	    fuel += cost        ;; to be taken again
//	    br $again
//	  end
//	end
//
// because wazero allocates registers without regard to how often a block runs: a
// call inside the loop, though it almost never happens, would have the loop
// keep its values in memory (measured: 1.4 times plain instead of 1.1 for Go guests).
func (e *emitter) loop(p point, src []byte) {
	kind := src[p.offset+1 : p.offset+p.size]
	e.code = append(append(e.code, opBlock), kind...)
	e.code = append(append(e.code, opLoop), kind...)
	e.code = append(e.code, opBlock)
	if in := e.b.regions[p.arg].in; in == "" {
		e.code = append(e.code, 0x40)
	} else {
		e.code = appendS32(e.code, int32(e.typeIndex(in, in)))
	}
	e.code = append(append(e.code, opLoop), kind...)
	e.spend(e.b.regions[p.arg].cost)
	e.op(opGlobalGet, e.fuel())
	e.isNegative()
	e.op(opBrIf, 1)
}

// loopEnd writes what follows a loop.
func (e *emitter) loopEnd(reg uint32) {
	e.op(opBr, 2)
	e.code = append(e.code, opEnd)
	e.op(opCall, e.refill())
	e.op(opGlobalGet, e.fuel())
	e.constant(int32(e.b.regions[reg].cost))
	e.code = append(e.code, opI32Add)
	e.op(opGlobalSet, e.fuel())
	e.op(opBr, 0)
	e.code = append(e.code, opEnd, opEnd)
}

// bulk charges by the length that lies on top of the stack and stays there:
// a unit for 8 bytes or 4 elements, and 8,192 for a page to grow by. The
// shifts keep it in 31 bits, so that no length can turn the account around.
func (e *emitter) bulk(how uint32) {
	length := e.scratch[i32]
	e.op(opLocalTee, length)
	e.op(opGlobalGet, e.fuel())
	e.op(opLocalGet, length)
	switch how {
	case bulkMemory:
		e.code = append(e.code, opI32Const, 3, opI32ShrU)
	case bulkTable:
		e.code = append(e.code, opI32Const, 2, opI32ShrU)
	case bulkPages:
		e.constant(0xffff)
		e.code = append(e.code, opI32And, opI32Const, 13, opI32Shl)
	}
	e.code = append(e.code, opI32Sub)
	e.op(opGlobalSet, e.fuel())
	e.check()
}

// piece is how many bytes of memory are filled or copied at once: some 20 µs
// of memory that is there, 250 µs of memory that is touched for the first time.
const piece = 256 << 10

// pieces writes memory.fill or memory.copy: itself, charged, up to a piece, and
// beyond that a call of the function that does it in pieces. Nothing looks at
// limits, and no collection can begin, while one of them runs.
func (e *emitter) pieces(how uint32, operator []byte) {
	length := e.scratch[i32]
	e.op(opLocalTee, length)
	e.op(opLocalGet, length)
	e.constant(piece)
	e.code = append(e.code, opI32GtU)
	e.code = appendS32(append(e.code, opIf), int32(e.typeIndex(tI+tI+tI, "")))
	if how == bulkFill {
		e.op(opCall, e.fill())
	} else {
		e.op(opCall, e.copy())
	}
	e.code = append(e.code, opElse)
	e.chargeLength(length)
	e.code = append(append(e.code, operator...), opEnd)
}

// chargeLength takes an eighth of a local from the fuel.
func (e *emitter) chargeLength(local uint32) {
	e.op(opGlobalGet, e.fuel())
	e.op(opLocalGet, local)
	e.code = append(e.code, opI32Const, 3, opI32ShrU, opI32Sub)
	e.op(opGlobalSet, e.fuel())
	e.check()
}

// piecesBody is memory.fill or memory.copy of (to, from or value, n) in pieces.
// What doesn't fit in the memory traps first, with nothing written. A copy to a
// higher address begins at the end.
func (e *emitter) piecesBody(op uint32) []byte {
	const to, from, n = 0, 1, 2
	if len(e.m.memories) == 0 {
		return []byte{0, opUnreachable, opEnd}
	}
	e.code = append(e.code[:0], 0)
	whole := func() {
		e.op(opLocalGet, to)
		e.op(opLocalGet, from)
		e.op(opLocalGet, n)
		e.memoryOperator(op)
	}
	e.outside(to, n)
	if op == miscMemoryCopy {
		e.outside(from, n)
		e.code = append(e.code, opI32Or)
	}
	e.code = append(e.code, opIf, 0x40)
	whole()
	e.code = append(e.code, opEnd)
	if op == miscMemoryCopy {
		e.op(opLocalGet, to)
		e.op(opLocalGet, from)
		e.code = append(e.code, opI32GtU, opIf, 0x40, opLoop, 0x40)
		e.chargePiece()
		e.move(n, opI32Sub)
		for _, base := range []uint32{to, from} {
			e.op(opLocalGet, base)
			e.op(opLocalGet, n)
			e.code = append(e.code, opI32Add)
		}
		e.constant(piece)
		e.memoryOperator(op)
		e.again(n)
		e.chargeLength(n)
		whole()
		e.code = append(e.code, opReturn, opEnd)
	}
	e.code = append(e.code, opLoop, 0x40)
	e.chargePiece()
	e.op(opLocalGet, to)
	e.op(opLocalGet, from)
	e.constant(piece)
	e.memoryOperator(op)
	e.move(to, opI32Add)
	if op == miscMemoryCopy {
		e.move(from, opI32Add)
	}
	e.move(n, opI32Sub)
	e.again(n)
	e.chargeLength(n)
	whole()
	return append(e.code, opEnd)
}

// outside leaves whether n bytes from base don't all lie in the memory.
func (e *emitter) outside(base, n uint32) {
	e.op(opLocalGet, base)
	e.code = append(e.code, opI64ExtendU)
	e.op(opLocalGet, n)
	e.code = append(e.code, opI64ExtendU, opI64Add)
	e.op(opMemorySize, 0)
	e.code = append(e.code, opI64ExtendU, opI64Const, 16, opI64Shl, opI64GtU)
}

func (e *emitter) memoryOperator(op uint32) {
	e.code = append(appendU32(append(e.code, opMisc), op), 0)
	if op == miscMemoryCopy {
		e.code = append(e.code, 0)
	}
}

func (e *emitter) chargePiece() {
	e.spend(piece >> 3)
	e.check()
}

// move adds a piece to a local, or takes one from it.
func (e *emitter) move(local uint32, how byte) {
	e.op(opLocalGet, local)
	e.constant(piece)
	e.code = append(e.code, how)
	e.op(opLocalSet, local)
}

// again ends a loop that goes on while more than a piece is left.
func (e *emitter) again(n uint32) {
	e.op(opLocalGet, n)
	e.constant(piece)
	e.code = append(e.code, opI32GtU)
	e.op(opBrIf, 0)
	e.code = append(e.code, opEnd)
}

// remainder writes a-(a/b)*b in place of a remainder. The remainder by -1 is
// always 0, as by 1, but the quotient may overflow: so -1 becomes 1.
func (e *emitter) remainder(op byte) {
	t, number, divide, subtract, multiply, equal := i32, byte(opI32Const), byte(opI32DivS), byte(opI32Sub), byte(opI32Mul), byte(opI32Eq)
	if op == opI64RemS || op == opI64RemU {
		t, number, divide, subtract, multiply, equal = i64, opI64Const, opI64DivS, opI64Sub, opI64Mul, opI64Eq
	}
	a, b := e.scratch[t], e.scratch[t]+1
	e.op(opLocalSet, b)
	e.op(opLocalSet, a)
	if op == opI32RemS || op == opI64RemS {
		e.code = append(e.code, number, 1)
		e.op(opLocalGet, b)
		e.op(opLocalGet, b)
		e.code = append(e.code, number, 0x7f, equal, opSelect)
		e.op(opLocalSet, b)
	} else {
		divide++ // the unsigned division follows the signed one
	}
	e.op(opLocalGet, a)
	e.op(opLocalGet, a)
	e.op(opLocalGet, b)
	e.code = append(e.code, divide)
	e.op(opLocalGet, b)
	e.code = append(e.code, multiply, subtract)
}

// selectFloat writes an if in place of a select: either way one of the two
// operands below the condition stays.
func (e *emitter) selectFloat(t valueType) {
	one := string([]byte{t})
	e.code = appendS32(append(e.code, opIf), int32(e.typeIndex(one+one, one)))
	e.code = append(e.code, opDrop, opElse)
	e.op(opLocalSet, e.scratch[t])
	e.code = append(e.code, opDrop)
	e.op(opLocalGet, e.scratch[t])
	e.code = append(e.code, opEnd)
}
