package meter

// emitter writes the rewritten module.
type emitter struct {
	m     *module
	o     Options
	types []funcType
	index map[string]uint32 // of types that were added
	code  []byte            // body under way
	b     *body
	// scratch locals of the body under way, by value type
	scratch map[valueType]uint32
}

func (m *module) emit(bodies []body, o Options) []byte {
	e := &emitter{m: m, o: o, types: m.types[:len(m.types):len(m.types)], index: map[string]uint32{}}
	code := e.codeSection(bodies) // first: it adds types
	out := append(make([]byte, 0, len(code)+m.size()), "\x00asm\x01\x00\x00\x00"...)
	tick, none, three := e.typeIndex(tI, tI), e.typeIndex("", ""), e.typeIndex(tI+tI+tI, "")
	for _, s := range []struct {
		id      byte
		content []byte
	}{
		{secType, e.typeSection()},
		{secImport, e.importSection(tick)},
		{secFunction, e.functionSection(none, three)},
		{secTable, e.tableSection()},
		{secMemory, e.memorySection()},
		{secGlobal, e.globalSection()},
		{secExport, e.exportSection()},
		{secStart, e.startSection()},
		{secElement, e.elementSection()},
		{secDataCount, e.dataCountSection()},
		{secCode, code},
		{secData, e.dataSection()},
	} {
		if s.content != nil {
			out = appendU32(append(out, s.id), uint32(len(s.content)))
			out = append(out, s.content...)
		}
	}
	return out
}

// size is about how large everything but the code will be.
func (m *module) size() int {
	n := 4096
	for _, d := range m.datas {
		n += len(d.bytes) + 16
	}
	for _, s := range m.elements {
		n += 5 * len(s.items)
	}
	return n
}

// shift gives the index a function has in the rewritten module: one import more comes before.
func (e *emitter) shift(f uint32) uint32 {
	if int(f) < e.m.importedFunctions {
		return f
	}
	return f + 1
}

func (e *emitter) tick() uint32   { return uint32(e.m.importedFunctions) }
func (e *emitter) refill() uint32 { return uint32(len(e.m.functions)) + 1 }
func (e *emitter) enter() uint32  { return uint32(len(e.m.functions)) + 2 }
func (e *emitter) fill() uint32   { return uint32(len(e.m.functions)) + 3 }
func (e *emitter) copy() uint32   { return uint32(len(e.m.functions)) + 4 }
func (e *emitter) fuel() uint32   { return uint32(len(e.m.globals)) }
func (e *emitter) depth() uint32  { return uint32(len(e.m.globals)) + 1 }

func (e *emitter) typeIndex(in, out string) uint32 {
	key := in + "\x00" + out
	if i, ok := e.index[key]; ok {
		return i
	}
	i := uint32(len(e.types))
	e.types = append(e.types, funcType{in, out})
	e.index[key] = i
	return i
}

func (e *emitter) typeSection() []byte {
	b := appendU32(nil, uint32(len(e.types)))
	for _, t := range e.types {
		b = appendBytes(append(b, 0x60), t.in)
		b = appendBytes(b, t.out)
	}
	return b
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}

func (e *emitter) importSection(tick uint32) []byte {
	b := appendU32(nil, uint32(len(e.m.imports))+1)
	for _, i := range e.m.imports {
		b = append(appendBytes(appendBytes(b, i.module), i.name), i.kind)
		switch i.kind {
		case kindFunction:
			b = appendU32(b, i.index)
		case kindTable:
			b = appendLimits(append(b, i.table.of), i.table.limits)
		case kindMemory:
			b = appendLimits(b, i.memory)
		case kindGlobal:
			b = appendGlobal(b, i.global)
		}
	}
	b = append(appendBytes(appendBytes(b, ImportModule), ImportTick), kindFunction)
	return appendU32(b, tick)
}

func appendLimits(b []byte, l limits) []byte {
	if !l.hasMax {
		return appendU32(append(b, 0), l.min)
	}
	return appendU32(appendU32(append(b, 1), l.min), l.max)
}

func appendGlobal(b []byte, g globalType) []byte {
	if g.mutable {
		return append(b, g.of, 1)
	}
	return append(b, g.of, 0)
}

// functionSection lists the module's functions and those that are added, which
// take nothing (refill, enter) or three i32 (fill, copy).
func (e *emitter) functionSection(none, three uint32) []byte {
	own := e.m.functions[e.m.importedFunctions:]
	b := appendU32(nil, uint32(len(own))+4)
	for _, t := range own {
		b = appendU32(b, t)
	}
	return appendU32(appendU32(appendU32(appendU32(b, none), none), three), three)
}

// bounded forces a maximum; a limit of 0 leaves it.
func (l limits) bounded(limit uint32) limits {
	if limit > 0 && (!l.hasMax || l.max > limit) {
		l.hasMax, l.max = true, limit
	}
	return l
}

func (e *emitter) tableSection() []byte {
	own := e.m.tables[e.m.importedTables:]
	if len(own) == 0 {
		return nil
	}
	b := appendU32(nil, uint32(len(own)))
	for _, t := range own {
		b = appendLimits(append(b, t.of), t.bounded(uint32(e.m.caps.TableMax)))
	}
	return b
}

func (e *emitter) memorySection() []byte {
	own := e.m.memories[e.m.importedMemories:]
	if len(own) == 0 {
		return nil
	}
	return appendLimits([]byte{1}, own[0].bounded(e.m.caps.MemoryPages))
}

func (e *emitter) globalSection() []byte {
	b := appendU32(nil, uint32(len(e.m.inits))+2)
	for _, g := range e.m.inits {
		b = e.appendItem(appendGlobal(b, g.globalType), g.init)
	}
	b = append(b, i32, 1, opI32Const, 0, opEnd)
	b = append(b, i32, 1, opI32Const)
	return append(appendS32(b, DefaultDepth), opEnd)
}

// appendItem writes a constant expression.
func (e *emitter) appendItem(b []byte, it item) []byte {
	if it.refFunc {
		b = appendU32(append(b, opRefFunc), e.shift(it.function))
	} else {
		b = append(b, it.code...)
	}
	return append(b, opEnd)
}

func (e *emitter) exportSection() []byte {
	b := appendU32(nil, uint32(len(e.m.exports))+2)
	for _, x := range e.m.exports {
		b = append(appendBytes(b, x.name), x.kind)
		if x.kind == kindFunction {
			x.index = e.shift(x.index)
		}
		b = appendU32(b, x.index)
	}
	b = appendU32(append(appendBytes(b, ExportFuel), kindGlobal), e.fuel())
	return appendU32(append(appendBytes(b, ExportDepth), kindGlobal), e.depth())
}

func (e *emitter) startSection() []byte {
	if e.m.start < 0 {
		return nil
	}
	return appendU32(nil, e.shift(uint32(e.m.start)))
}

// elementSection writes each segment in its most general form: with a table
// index where active, with its type, and with expressions for items.
func (e *emitter) elementSection() []byte {
	if len(e.m.elements) == 0 {
		return nil
	}
	b := appendU32(nil, uint32(len(e.m.elements)))
	for _, s := range e.m.elements {
		switch s.mode {
		case 0:
			b = e.appendItem(appendU32(append(b, 6), s.table), s.offset)
		case 1:
			b = append(b, 5)
		case 2:
			b = append(b, 7)
		}
		b = appendU32(append(b, s.of), uint32(len(s.items)))
		for _, it := range s.items {
			b = e.appendItem(b, it)
		}
	}
	return b
}

func (e *emitter) dataCountSection() []byte {
	if e.m.dataCount < 0 {
		return nil
	}
	return appendU32(nil, uint32(e.m.dataCount))
}

func (e *emitter) dataSection() []byte {
	if len(e.m.datas) == 0 {
		return nil
	}
	b := appendU32(nil, uint32(len(e.m.datas)))
	for _, d := range e.m.datas {
		if d.active {
			b = e.appendItem(append(b, 0), d.offset)
		} else {
			b = append(b, 1)
		}
		b = appendBytes(b, d.bytes)
	}
	return b
}
