package weir

import (
	"math/bits"
	"unsafe"
)

// Field is one member of a JSON object.
type Field struct {
	NameAt  int    // where the name begins in the document, behind its quote
	ValueAt int    // where the value begins in the document
	Value   []byte // the value's text, a string with its quotes; lies in the document
}

const (
	lows    = 0x0101010101010101
	highs   = 0x8080808080808080
	quotes  = 0x2222222222222222
	slashes = 0x5c5c5c5c5c5c5c5c
	braces  = 0x7b7b7b7b7b7b7b7b
	closers = 0x7d7d7d7d7d7d7d7d // ] is } without the bit of spaces
	commas  = 0x2c2c2c2c2c2c2c2c
	spaces  = 0x2020202020202020
	zeros   = 0x3030303030303030

	points    = 0x1e1e1e1e1e1e1e1e // points ^ zeros
	notDigits = 0x7676767676767676 // carries from what is above 9 into the high bit
)

// Find finds the first member called name of the JSON object in doc. It looks
// at 8 bytes at a time, only at quotes and braces, and reads nothing behind the
// member: it is a scanner, not a validator. A name that the document spells with
// escapes is compared as it is spelt.
func Find(doc []byte, name string) (Field, bool) {
	nameAt, at, end := find(doc, name)
	return Field{NameAt: nameAt, ValueAt: at, Value: doc[at:end:end]}, at != end
}

// find is Find in indexes, all 0 when there is no such member.
//
// The Go compiler makes every call, and every branch taken, an indirect jump in
// WebAssembly, and one that is not foreseen takes as long as looking at 32 bytes.
// So the loop has one, what is usual (a name of 4 to 8 bytes, no space, a number
// behind it) is done without a call, and the rest is left to event and member; and
// nothing is returned that would have to be cleared first.
func find(doc []byte, name string) (nameAt, at, end int) {
	i := 0
	if len(doc) == 0 || doc[0] != '{' {
		i = space(doc, 0)
	}
	if i == len(doc) || doc[i] != '{' || name == "" {
		return 0, 0, 0
	}
	i++
	letter, n := uint64(name[0])*lows, len(name)
	p, np := unsafe.Pointer(unsafe.SliceData(doc)), unsafe.Pointer(unsafe.StringData(name))
	usual := n >= 4 && n <= 8
	seen, last := uint64(0), uint64(0) // the quotes up to i, folded: their parity counts; the one before i
	for i+8 <= len(doc) {
		w := *(*uint64)(unsafe.Add(p, i))
		x := w ^ quotes
		q := ^((x&^highs + ^uint64(highs)) | x) & highs // exactly the quotes
		s, b, l := w^slashes, w^braces, w^letter
		m := ((s-lows)&^s | (b-lows)&^b | (q<<8|last)&(l-lows)&^l) & highs
		if m == 0 {
			seen ^= q
			last = q >> 56
			i += 8
			continue
		}
		below := m&-m - 1
		inside := (bits.OnesCount64(seen) + bits.OnesCount64(q&below)) & 1
		i += bits.TrailingZeros64(m) >> 3
		if end := i + n; usual && inside != 0 && end+10 <= len(doc) && *(*byte)(unsafe.Add(p, i)) != '\\' {
			// A name begins here, as this one does.
			if *(*uint32)(unsafe.Add(p, i)) != *(*uint32)(unsafe.Add(np, 0)) || *(*uint32)(unsafe.Add(p, end-4)) != *(*uint32)(unsafe.Add(np, n-4)) {
				i++
				seen, last = 1<<7, 0
				continue
			}
			v := ends(unsafe.Add(p, end+2))
			if *(*uint16)(unsafe.Add(p, end)) == '"'|':'<<8 && *(*byte)(unsafe.Add(p, end+2))-'-' < 13 && v != 0 && *(*byte)(unsafe.Add(p, i-1)) == '"' {
				return i, end + 2, end + 2 + bits.TrailingZeros64(v)>>3
			}
		}
		if i, nameAt, inside = event(doc, i, inside, name); i < 0 {
			return member(doc, nameAt, n)
		}
		seen, last = uint64(inside)<<7, 0
	}
	return findTail(doc, i, bits.OnesCount64(seen)&1, last != 0, name)
}

// ends returns the high bits of those of the 8 bytes at p that end a number; what is
// above the lowest one set may be others.
func ends(p unsafe.Pointer) uint64 {
	w := *(*uint64)(unsafe.Add(p, 0))
	c, b := w^commas, (w|spaces)^closers
	return ((w-(spaces+lows))&^w | (c-lows)&^c | (b-lows)&^b) & highs
}

// event handles the byte at i that find stopped at: a backslash, a brace, or the
// first letter of a string that begins as name does. It returns where to go on,
// and whether in a string; -1: the member's name is at nameAt.
//
//go:noinline
func event(doc []byte, i, inside int, name string) (next, nameAt, in int) {
	switch c := doc[i]; {
	case inside == 0 && c == '{':
		if i = object(doc, i); i == 0 {
			return len(doc), 0, 0
		}
		return i, 0, 0
	case c == '\\':
		return i + 2, 0, inside
	case inside == 1 && doc[i-1] == '"' && isName(doc, i, name):
		return -1, i, 0
	}
	return i + 1, 0, inside
}

// isName tells whether the string whose first letter is at i is name, before a
// colon.
func isName(doc []byte, i int, name string) bool {
	end := i + len(name)
	if end >= len(doc) || doc[end] != '"' || string(doc[i:end]) != name {
		return false
	}
	end = space(doc, end+1)
	return end < len(doc) && doc[end] == ':'
}

// member returns the indexes of the member whose name is at nameAt.
func member(doc []byte, nameAt, nameLen int) (name, at, end int) {
	at, end = value(doc, space(doc, nameAt+nameLen+1)+1)
	if at == end {
		return 0, 0, 0
	}
	return nameAt, at, end
}

// findTail is find for the last few bytes. opened: the byte before i is the
// quote that opens or closes a string.
func findTail(doc []byte, i, inside int, opened bool, name string) (nameAt, at, end int) {
	for ; i < len(doc); i++ {
		switch c := doc[i]; {
		case c == '\\':
			i++
			opened = false
		case c == '"':
			inside ^= 1
			opened = true
		case inside == 0 && c == '{':
			if i = object(doc, i) - 1; i < 0 {
				return 0, 0, 0
			}
			opened = false
		default:
			if inside == 1 && opened && isName(doc, i, name) {
				return member(doc, i, len(name))
			}
			opened = false
		}
	}
	return 0, 0, 0
}

// object returns what follows the object at i, 0 when it isn't closed.
func object(doc []byte, i int) int {
	depth := 0
	for ; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			i = closing(doc, i+1)
		case '\\':
			i++
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

func space(doc []byte, i int) int {
	for i < len(doc) && doc[i] <= ' ' {
		i++
	}
	return i
}

// closing returns the index of the first unescaped quote from i on, or len(doc).
func closing(doc []byte, i int) int {
	for p := unsafe.Pointer(unsafe.SliceData(doc)); i < len(doc); {
		if i+8 <= len(doc) {
			w := *(*uint64)(unsafe.Add(p, i))
			q, s := w^quotes, w^slashes
			m := ((q-lows)&^q | (s-lows)&^s) & highs
			if m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) >> 3
		}
		switch doc[i] {
		case '"':
			return i
		case '\\':
			i += 2
		default:
			i++
		}
	}
	return len(doc)
}

// value returns where the value at or behind i begins and ends; nothing
// between them: there is no whole one.
func value(doc []byte, i int) (at, end int) {
	at = space(doc, i)
	if at == len(doc) {
		return at, at
	}
	switch c := doc[at]; {
	case c == '"':
		if end = closing(doc, at+1); end == len(doc) {
			return at, at
		}
		return at, end + 1
	case c|0x20 == '{':
		return at, nested(doc, at)
	}
	for end = at; end < len(doc); end++ {
		if c := doc[end]; c <= ' ' || c == ',' || c|0x20 == '}' {
			break
		}
	}
	return at, end
}

// nested returns the end of the object or array at i, or i when it isn't closed.
func nested(doc []byte, i int) int {
	depth := 0
	for j := i; j < len(doc); j++ {
		switch c := doc[j]; {
		case c == '"':
			j = closing(doc, j+1)
		case c|0x20 == '{':
			depth++
		case c|0x20 == '}':
			if depth--; depth == 0 {
				return j + 1
			}
		}
	}
	return i
}

var pow10 = [23]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// Number reads a JSON number; false: v is not one. Up to 15 significant digits
// and exponents within ±22 the result is the nearest float64; beyond, it may be
// off by a few units in the last place. All SDKs give the same bits.
func Number(v []byte) (float64, bool) {
	neg, n := 0, len(v)
	if n > 0 && v[0] == '-' {
		neg = 1
		n--
	}
	if n < 1 || n > 8 {
		return number(v)
	}
	// The usual ones, 1 to 8 bytes without exponent, all at once: a loop takes
	// three times as long.
	p := unsafe.Add(unsafe.Pointer(unsafe.SliceData(v)), neg)
	var w uint64 // the bytes from the lowest on, some of them twice at the same place
	if n >= 4 {
		w = uint64(*(*uint32)(p)) | uint64(*(*uint32)(unsafe.Add(p, n-4)))<<(8*(n-4)&63)
	} else {
		w = uint64(*(*byte)(p)) | uint64(*(*byte)(unsafe.Add(p, n>>1)))<<(8*(n>>1)&63) | uint64(*(*byte)(unsafe.Add(p, n-1)))<<(8*(n-1)&63)
	}
	w = (w ^ zeros) << (8 * (8 - n) & 63) // digits 0 to 9, the last one on top, zeros below the first
	point := w ^ points
	point = ^((point&^highs + ^uint64(highs)) | point) & highs
	at := bits.TrailingZeros64(point) &^ 7 // 64: none
	decimals := 7 - at>>3
	if point != 0 {
		if decimals == 0 || decimals >= n-1 {
			return 0, false
		}
		below := uint64(1)<<(at&63) - 1
		w = w&^(below<<8|0xff) | w&below<<8
	} else {
		decimals = 0
	}
	if ((w+notDigits)|w)&highs != 0 {
		return number(v)
	}
	w = w * (1 + 10<<8) >> 8 & 0x00ff00ff00ff00ff
	w = w * (1 + 100<<16) >> 16 & 0x0000ffff0000ffff
	f := float64(w*(1+10000<<32)>>32) / pow10[decimals]
	if neg != 0 {
		f = -f
	}
	return f, true
}

// number is Number for all others, byte by byte.
func number(v []byte) (float64, bool) {
	const full = 1000000000000000000
	i, neg := 0, len(v) > 0 && v[0] == '-'
	if neg {
		i++
	}
	m, exp, digits := uint64(0), 0, i
	for ; i < len(v) && v[i]-'0' < 10; i++ {
		if m < full {
			m = m*10 + uint64(v[i]-'0')
		} else {
			exp++
		}
	}
	if i == digits {
		return 0, false
	}
	if i < len(v) && v[i] == '.' {
		i++
		digits = i
		for ; i < len(v) && v[i]-'0' < 10; i++ {
			if m < full {
				m = m*10 + uint64(v[i]-'0')
				exp--
			}
		}
		if i == digits {
			return 0, false
		}
	}
	if i < len(v) {
		e, ok := exponent(v[i:])
		if !ok {
			return 0, false
		}
		exp += e
	}
	f := scale(float64(m), exp)
	if neg {
		f = -f
	}
	return f, true
}

// exponent reads what follows the digits of a number, as e-5.
func exponent(v []byte) (int, bool) {
	if v[0]|0x20 != 'e' {
		return 0, false
	}
	i, minus := 1, len(v) > 1 && v[1] == '-'
	if minus || len(v) > 1 && v[1] == '+' {
		i++
	}
	if i == len(v) {
		return 0, false
	}
	e := 0
	for ; i < len(v); i++ {
		if v[i]-'0' >= 10 {
			return 0, false
		}
		if e < 100000 {
			e = e*10 + int(v[i]-'0')
		}
	}
	if minus {
		e = -e
	}
	return e, true
}

// scale returns f times ten to the power of exp.
func scale(f float64, exp int) float64 {
	exp = min(max(exp, -400), 400)
	for ; exp > 22; exp -= 22 {
		f *= 1e22
	}
	for ; exp < -22; exp += 22 {
		f /= 1e22
	}
	if exp < 0 {
		return f / pow10[-exp]
	}
	return f * pow10[exp]
}

// Integer reads a whole number of at most 18 digits, written without point and
// exponent.
func Integer(v []byte) (int64, bool) {
	neg := len(v) > 0 && v[0] == '-'
	if neg {
		v = v[1:]
	}
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range v {
		if c-'0' >= 10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// String returns what stands between the quotes of a JSON string, escapes as
// they are; false: v is not a string.
func String(v []byte) ([]byte, bool) {
	if len(v) < 2 || v[0] != '"' {
		return nil, false
	}
	return v[1 : len(v)-1], true
}

// AppendInt appends v in decimal.
func AppendInt(b []byte, v int64) []byte {
	u := uint64(v)
	if v < 0 {
		b = append(b, '-')
		u = -u
	}
	return appendDigits(b, u, 1)
}

func appendDigits(b []byte, v uint64, least int) []byte {
	var tmp [20]byte
	i := len(tmp)
	for v > 0 || len(tmp)-i < least {
		i--
		tmp[i] = byte('0' + v%10)
		v /= 10
	}
	return append(b, tmp[i:]...)
}

// AppendFixed appends v with at most decimals (0 to 9) digits after the point,
// rounded half away from zero, trailing zeros cut. It appends null for what JSON
// can't hold (NaN, infinities) and when |v|*10^decimals is 9.2e18 or more. All
// SDKs write the same digits.
func AppendFixed(b []byte, v float64, decimals int) []byte {
	if uint(decimals) >= 8 || cap(b)-len(b) < 18 {
		return appendFixed(b, v, decimals)
	}
	size, neg := v, 0
	if v < 0 {
		size, neg = -v, 1
	}
	scaled := size*pow10[decimals] + 0.5
	if !(scaled < 1e8) {
		return appendFixed(b, v, decimals)
	}
	// The usual ones. All digits at once: two of 4, then four of 2, then eight.
	n := uint64(scaled)
	if n == 0 {
		neg = 0
	}
	d := n / 10000
	d |= (n - 10000*d) << 32
	t := d * 10486 >> 20 & 0x0000007f0000007f
	d = t | (d-100*t)<<16
	t = d * 103 >> 10 & 0x000f000f000f000f
	d = t | (d-10*t)<<8
	whole := 8 - decimals
	first := min(bits.TrailingZeros64(d)>>3, whole-1)
	fraction := decimals - min(bits.LeadingZeros64(d)>>3, decimals)
	d += zeros
	p, i := unsafe.Pointer(unsafe.SliceData(b)), len(b)
	*(*byte)(unsafe.Add(p, i)) = '-'
	i += neg
	*(*uint64)(unsafe.Add(p, i)) = d >> (8 * first & 63)
	i += whole - first
	if fraction > 0 {
		*(*byte)(unsafe.Add(p, i)) = '.'
		*(*uint64)(unsafe.Add(p, i+1)) = d >> (8 * whole & 63)
		i += 1 + fraction
	}
	return b[:i]
}

// appendFixed is AppendFixed for all others, digit by digit.
//
//go:noinline
func appendFixed(b []byte, v float64, decimals int) []byte {
	decimals = min(max(decimals, 0), 9)
	size := v
	if v < 0 {
		size = -v
	}
	scaled := size*pow10[decimals] + 0.5
	if !(scaled < 9.2e18) {
		return append(b, "null"...)
	}
	n, unit := uint64(scaled), uint64(pow10[decimals])
	if v < 0 && n > 0 {
		b = append(b, '-')
	}
	b = appendDigits(b, n/unit, 1)
	if n %= unit; n == 0 {
		return b
	}
	b = appendDigits(append(b, '.'), n, decimals)
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// AppendQuoted appends s as a JSON string: quotes around it, and quotes,
// backslashes and control characters escaped. Bytes from 0x80 go through.
func AppendQuoted(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
