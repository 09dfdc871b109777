package meter

import (
	"encoding/binary"
	"unicode/utf8"
)

// reader walks the bytes of a module. pos and end are offsets into the whole
// module, so that every error names an offset that a hex dump shows. A read
// past the end panics with *Error, which Rewrite turns into its result.
type reader struct {
	b        []byte
	pos, end int
	function int // index of the function whose body is being read, or -1
}

func (r *reader) fail(kind error, format string, args ...any) {
	panic(newError(kind, r.function, r.pos, format, args...))
}

func (r *reader) more() bool { return r.pos < r.end }

func (r *reader) byte() byte {
	if r.pos >= r.end {
		r.fail(ErrMalformed, "unexpected end")
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

// take returns the next n bytes.
func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(r.end-r.pos) {
		r.fail(ErrMalformed, "unexpected end: %d bytes wanted, %d left", n, r.end-r.pos)
	}
	b := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() uint32 {
	if c := r.byte(); c < 0x80 {
		return uint32(c)
	}
	r.pos--
	var v uint32
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			r.fail(ErrMalformed, "number is longer than 32 bits")
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads a signed LEB128 number of at most bits bits.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if left := bits - shift; left < 7 {
			// The bits above the number's must repeat its sign, and nothing may follow.
			high := int8(c<<1) >> left // sign and surplus bits
			if c >= 0x80 || high != 0 && high != -1 {
				r.fail(ErrMalformed, "number is longer than %d bits", bits)
			}
		}
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if shift+7 < 64 && c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// count reads the length of a vector, of which each entry takes a byte at
// least, and holds it against the cap.
func (r *reader) count(what string, limit int) int {
	n := r.u32()
	if limit >= 0 && int64(n) > int64(limit) {
		r.fail(ErrLimit, "%d %s; the limit is %d", n, what, limit)
	}
	if int64(n) > int64(r.end-r.pos) {
		r.fail(ErrMalformed, "unexpected end: %d %s do not fit in %d bytes", n, what, r.end-r.pos)
	}
	return int(n)
}

func (r *reader) name() string {
	b := r.take(r.u32())
	if !utf8.Valid(b) {
		r.fail(ErrMalformed, "name is not UTF-8")
	}
	return string(b)
}

// sub returns a reader of the next n bytes alone and steps over them.
func (r *reader) sub(n uint32) reader {
	start := r.pos
	r.take(n)
	return reader{b: r.b, pos: start, end: r.pos, function: r.function}
}

func appendU32(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

func appendS32(b []byte, v int32) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
