package aws

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// cborReader is a reader over a CBOR item (RFC 8949), definite and indefinite
// lengths alike. Tag 1 makes a timestamp: an integer of milliseconds, as AWS's
// Java SDK writes it, or a float of seconds, as the standard has it. Other tags
// are read over.
type cborReader struct {
	b     []byte
	i     int
	err   error
	depth int
}

func (r *cborReader) fail() error { return r.err }

func (r *cborReader) bad(what string) {
	if r.err == nil {
		r.err = syntaxError("CBOR: " + what + " at byte " + strconv.Itoa(r.i))
	}
}

const indefinite = -1

// peek returns the initial byte of the next item.
func (r *cborReader) peek() (byte, bool) {
	if r.err != nil {
		return 0, false
	}
	if r.i >= len(r.b) {
		r.bad("unexpected end")
		return 0, false
	}
	return r.b[r.i], true
}

// head consumes an initial byte and its argument. n is indefinite for lengths of that kind.
func (r *cborReader) head() (major byte, n int64) {
	c, ok := r.peek()
	if !ok {
		return 0xff, 0
	}
	size := 0
	switch info := c & 31; {
	case info < 24:
		r.i++
		return c >> 5, int64(info)
	case info <= 27:
		size = 1 << (info - 24)
	case info == 31 && c>>5 >= 2 && c>>5 <= 5:
		r.i++
		return c >> 5, indefinite
	default:
		r.bad("reserved initial byte")
		return 0xff, 0
	}
	if len(r.b)-r.i-1 < size {
		r.bad("unexpected end")
		return 0xff, 0
	}
	var buf [8]byte
	copy(buf[8-size:], r.b[r.i+1:])
	u := binary.BigEndian.Uint64(buf[:])
	if u > math.MaxInt64 {
		r.bad("integer or length out of range")
		return 0xff, 0
	}
	r.i += 1 + size
	return c >> 5, int64(u)
}

// maxTags bounds the tags before one item: a tag is a level of nesting, too.
const maxTags = 16

// next reads over tags that mean nothing here.
func (r *cborReader) next() valueKind {
	for tags := 0; ; tags++ {
		c, ok := r.peek()
		if !ok {
			return kindInvalid
		}
		switch c >> 5 {
		case 0, 1:
			return kindNumber
		case 2:
			return kindBytes
		case 3:
			return kindText
		case 4:
			return kindList
		case 5:
			return kindMap
		case 6:
			if c == 0xc1 {
				return kindTime
			}
			if r.head(); tags == maxTags {
				r.bad("too many tags")
			}
			continue
		}
		switch c {
		case 0xf4, 0xf5:
			return kindBool
		case 0xf6, 0xf7:
			return kindNull
		case 0xf9, 0xfa, 0xfb:
			return kindNumber
		}
		r.bad("unsupported simple value")
		return kindInvalid
	}
}

func (r *cborReader) null() {
	if r.next() != kindNull {
		r.bad("null expected")
		return
	}
	r.i++
}

func (r *cborReader) boolean() bool {
	if r.next() != kindBool {
		r.bad("boolean expected")
		return false
	}
	r.i++
	return r.b[r.i-1] == 0xf5
}

func (r *cborReader) number() number {
	if r.next() != kindNumber {
		r.bad("number expected")
		return number{}
	}
	size := 0
	switch r.b[r.i] {
	case 0xf9:
		size = 2
	case 0xfa:
		size = 4
	case 0xfb:
		size = 8
	default:
		major, n := r.head()
		if major == 1 {
			n = -1 - n
		}
		return number{isInt: true, i: n}
	}
	if len(r.b)-r.i-1 < size {
		r.bad("unexpected end")
		return number{}
	}
	p := r.b[r.i+1:]
	r.i += 1 + size
	switch size {
	case 2:
		return number{f: halfFloat(binary.BigEndian.Uint16(p))}
	case 4:
		return number{f: float64(math.Float32frombits(binary.BigEndian.Uint32(p)))}
	}
	return number{f: math.Float64frombits(binary.BigEndian.Uint64(p))}
}

func halfFloat(h uint16) float64 {
	exp, mant := int(h>>10&31), float64(h&1023)
	var f float64
	switch exp {
	case 0:
		f = math.Ldexp(mant, -24)
	case 31:
		f = math.Inf(1)
		if mant != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(mant+1024, exp-25)
	}
	if h>>15 == 1 {
		f = -f
	}
	return f
}

func (r *cborReader) millis() int64 {
	tagged := r.next() == kindTime
	if tagged {
		r.i++
	}
	n := r.number()
	switch {
	case n.isInt && tagged:
		return n.i
	case n.isInt:
		n.f = float64(n.i)
	}
	return saturate(math.Round(n.f * 1000))
}

func (r *cborReader) text() []byte {
	s := r.str(3)
	if r.err == nil && !utf8.Valid(s) {
		r.bad("invalid UTF-8 in the string before the byte")
		return nil
	}
	return s
}

func (r *cborReader) blob() []byte {
	if r.next() == kindText {
		r.bad("byte string expected")
		return nil
	}
	return r.str(2)
}

// str consumes a string of the major type, 2 or 3.
func (r *cborReader) str(major byte) []byte {
	r.next()
	m, n := r.head()
	if r.err != nil {
		return nil
	}
	if m != major {
		r.bad("string expected")
		return nil
	}
	if n != indefinite {
		return r.take(n)
	}
	var out []byte
	for {
		c, ok := r.peek()
		if !ok {
			return nil
		}
		if c == 0xff {
			r.i++
			return out
		}
		m, n := r.head()
		if r.err == nil && (m != major || n == indefinite) {
			r.bad("chunk of a string expected")
		}
		out = append(out, r.take(n)...)
		if r.err != nil {
			return nil
		}
	}
}

func (r *cborReader) take(n int64) []byte {
	if r.err != nil {
		return nil
	}
	if n > int64(len(r.b)-r.i) {
		r.bad("string longer than the body")
		return nil
	}
	s := r.b[r.i : r.i+int(n) : r.i+int(n)]
	r.i += int(n)
	return s
}

func (r *cborReader) enter() int {
	if k := r.next(); k != kindList && k != kindMap {
		r.bad("list or structure expected")
		return 0
	}
	_, n := r.head()
	if r.depth++; r.depth > maxDepth {
		r.bad("too deeply nested")
	}
	if n > int64(len(r.b)-r.i) {
		r.bad("list or structure longer than the body")
		return 0
	}
	return int(n)
}

func (r *cborReader) more(length, i int, _ valueKind) bool {
	if r.err != nil {
		return false
	}
	if length != indefinite {
		if i < length {
			return true
		}
		r.depth--
		return false
	}
	c, ok := r.peek()
	if ok && c == 0xff {
		r.i++
		r.depth--
		return false
	}
	return ok
}

func (r *cborReader) key() []byte { return r.text() }

func (r *cborReader) skip() {
	switch r.next() {
	case kindMap:
		n := r.enter()
		for i := 0; r.more(n, i, kindMap); i++ {
			r.skip() // names are texts in every service, other keys are read over
			r.skip()
		}
	case kindList:
		n := r.enter()
		for i := 0; r.more(n, i, kindList); i++ {
			r.skip()
		}
	case kindText:
		r.text()
	case kindBytes:
		r.blob()
	case kindBool:
		r.boolean()
	case kindNull:
		r.null()
	case kindNumber:
		r.number()
	case kindTime:
		r.millis()
	}
}

func (r *cborReader) end() {
	if r.err == nil && r.i != len(r.b) {
		r.bad("bytes after the end")
	}
}
