package meter

// valueType is a WebAssembly value type by its binary encoding; 0 stands for
// the unknown type of an operand below the reach of unreachable code.
type valueType = byte

const (
	i32       valueType = 0x7f
	i64       valueType = 0x7e
	f32       valueType = 0x7d
	f64       valueType = 0x7c
	v128      valueType = 0x7b
	funcref   valueType = 0x70
	externref valueType = 0x6f
	unknown   valueType = 0
)

// Operators that the rewriter emits or treats apart.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Eq        = 0x46
	opI32LtS       = 0x48
	opI32GtU       = 0x4b
	opI64Eq        = 0x51
	opI64GtU       = 0x56
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32Mul       = 0x6c
	opI32DivS      = 0x6d
	opI32DivU      = 0x6e
	opI32RemS      = 0x6f
	opI32RemU      = 0x70
	opI32And       = 0x71
	opI32Or        = 0x72
	opI32Shl       = 0x74
	opI32ShrU      = 0x76
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Mul       = 0x7e
	opI64DivS      = 0x7f
	opI64DivU      = 0x80
	opI64RemS      = 0x81
	opI64RemU      = 0x82
	opI64Shl       = 0x86
	opI64ExtendU   = 0xad // of i32
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd

	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17

	vectorConst   = 12
	vectorShuffle = 13
)

// What follows an operator of the tables below.
const (
	plain  = iota // nothing
	memory        // memory argument
	lane          // lane number
	both          // memory argument and lane number
)

// operator is an operator with a fixed type: what it takes, what it gives,
// and what follows it. of is the largest alignment (as a power of two) of a
// memory argument; lanes is one more than the largest lane number.
type operator struct {
	known     bool
	follows   uint8
	of, lanes uint8
	in, out   string // value types
}

const (
	tI, tL, tF, tD, tV = "\x7f", "\x7e", "\x7d", "\x7c", "\x7b"
)

// basicOperators are the one-byte operators of fixed type, vectorOperators
// those after 0xfd, both indexed by their number.
var (
	basicOperators  = makeBasicOperators()
	vectorOperators = makeVectorOperators()
	saturating      = [8][2]string{{tF, tI}, {tF, tI}, {tD, tI}, {tD, tI}, {tF, tL}, {tF, tL}, {tD, tL}, {tD, tL}}
)

func makeBasicOperators() (t [256]operator) {
	set := func(first, last int, in, out string) {
		for i := first; i <= last; i++ {
			t[i] = operator{known: true, in: in, out: out}
		}
	}
	access := func(first, last int, of uint8, in, out string) {
		for i := first; i <= last; i++ {
			t[i] = operator{known: true, follows: memory, of: of, in: in, out: out}
		}
	}
	access(0x28, 0x28, 2, tI, tI)
	access(0x29, 0x29, 3, tI, tL)
	access(0x2a, 0x2a, 2, tI, tF)
	access(0x2b, 0x2b, 3, tI, tD)
	access(0x2c, 0x2d, 0, tI, tI)
	access(0x2e, 0x2f, 1, tI, tI)
	access(0x30, 0x31, 0, tI, tL)
	access(0x32, 0x33, 1, tI, tL)
	access(0x34, 0x35, 2, tI, tL)
	access(0x36, 0x36, 2, tI+tI, "")
	access(0x37, 0x37, 3, tI+tL, "")
	access(0x38, 0x38, 2, tI+tF, "")
	access(0x39, 0x39, 3, tI+tD, "")
	access(0x3a, 0x3a, 0, tI+tI, "")
	access(0x3b, 0x3b, 1, tI+tI, "")
	access(0x3c, 0x3c, 0, tI+tL, "")
	access(0x3d, 0x3d, 1, tI+tL, "")
	access(0x3e, 0x3e, 2, tI+tL, "")
	set(0x45, 0x45, tI, tI)
	set(0x46, 0x4f, tI+tI, tI)
	set(0x50, 0x50, tL, tI)
	set(0x51, 0x5a, tL+tL, tI)
	set(0x5b, 0x60, tF+tF, tI)
	set(0x61, 0x66, tD+tD, tI)
	set(0x67, 0x69, tI, tI)
	set(0x6a, 0x78, tI+tI, tI)
	set(0x79, 0x7b, tL, tL)
	set(0x7c, 0x8a, tL+tL, tL)
	set(0x8b, 0x91, tF, tF)
	set(0x92, 0x98, tF+tF, tF)
	set(0x99, 0x9f, tD, tD)
	set(0xa0, 0xa6, tD+tD, tD)
	set(0xa7, 0xa7, tL, tI)
	set(0xa8, 0xa9, tF, tI)
	set(0xaa, 0xab, tD, tI)
	set(0xac, 0xad, tI, tL)
	set(0xae, 0xaf, tF, tL)
	set(0xb0, 0xb1, tD, tL)
	set(0xb2, 0xb3, tI, tF)
	set(0xb4, 0xb5, tL, tF)
	set(0xb6, 0xb6, tD, tF)
	set(0xb7, 0xb8, tI, tD)
	set(0xb9, 0xba, tL, tD)
	set(0xbb, 0xbb, tF, tD)
	set(0xbc, 0xbc, tF, tI)
	set(0xbd, 0xbd, tD, tL)
	set(0xbe, 0xbe, tI, tF)
	set(0xbf, 0xbf, tL, tD)
	set(0xc0, 0xc1, tI, tI)
	set(0xc2, 0xc4, tL, tL)
	return t
}

func makeVectorOperators() (t [256]operator) {
	set := func(in, out string, numbers ...int) {
		for _, n := range numbers {
			t[n] = operator{known: true, in: in, out: out}
		}
	}
	span := func(in, out string, first, last int) {
		for n := first; n <= last; n++ {
			set(in, out, n)
		}
	}
	access := func(n int, of uint8, in, out string) {
		t[n] = operator{known: true, follows: memory, of: of, in: in, out: out}
	}
	access(0, 4, tI, tV)
	for n := 1; n <= 6; n++ {
		access(n, 3, tI, tV)
	}
	for n := range 4 {
		access(7+n, uint8(n), tI, tV)
		t[84+n] = operator{known: true, follows: both, of: uint8(n), lanes: 16 >> n, in: tI + tV, out: tV}
		t[88+n] = operator{known: true, follows: both, of: uint8(n), lanes: 16 >> n, in: tI + tV}
	}
	access(11, 4, tI+tV, "")
	access(92, 2, tI, tV)
	access(93, 3, tI, tV)
	set(tV+tV, tV, 14)
	set(tI, tV, 15, 16, 17)
	set(tL, tV, 18)
	set(tF, tV, 19)
	set(tD, tV, 20)
	lanes := func(n int, lanes uint8, in, out string) {
		t[n] = operator{known: true, follows: lane, lanes: lanes, in: in, out: out}
	}
	lanes(21, 16, tV, tI)
	lanes(22, 16, tV, tI)
	lanes(23, 16, tV+tI, tV)
	lanes(24, 8, tV, tI)
	lanes(25, 8, tV, tI)
	lanes(26, 8, tV+tI, tV)
	lanes(27, 4, tV, tI)
	lanes(28, 4, tV+tI, tV)
	lanes(29, 2, tV, tL)
	lanes(30, 2, tV+tL, tV)
	lanes(31, 4, tV, tF)
	lanes(32, 4, tV+tF, tV)
	lanes(33, 2, tV, tD)
	lanes(34, 2, tV+tD, tV)
	span(tV+tV, tV, 35, 76)
	span(tV+tV, tV, 78, 81)
	set(tV+tV+tV, tV, 82)
	set(tV, tV, 77, 94, 95, 96, 97, 98, 103, 104, 105, 106, 116, 117, 122, 124, 125, 126, 127,
		128, 129, 135, 136, 137, 138, 148, 160, 161, 167, 168, 169, 170, 192, 193, 199, 200, 201, 202,
		224, 225, 227, 236, 237, 239, 248, 249, 250, 251, 252, 253, 254, 255)
	set(tV, tI, 83, 99, 100, 131, 132, 163, 164, 195, 196)
	set(tV+tI, tV, 107, 108, 109, 139, 140, 141, 171, 172, 173, 203, 204, 205)
	set(tV+tV, tV, 101, 102, 110, 111, 112, 113, 114, 115, 118, 119, 120, 121, 123, 130, 133, 134,
		142, 143, 144, 145, 146, 147, 149, 150, 151, 152, 153, 155, 156, 157, 158, 159,
		174, 177, 181, 182, 183, 184, 185, 186, 188, 189, 190, 191, 206, 209)
	span(tV+tV, tV, 213, 223)
	span(tV+tV, tV, 228, 235)
	span(tV+tV, tV, 240, 247)
	return t
}
