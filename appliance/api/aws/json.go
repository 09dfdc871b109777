package aws

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonReader is a reader over a JSON text (RFC 8259). It is as strict as
// encoding/json, and stricter in that texts have to be valid UTF-8 and surrogates paired.
type jsonReader struct {
	b     []byte
	i     int
	err   error
	depth int
	// arena holds texts that had escapes.
	arena []byte
}

func (r *jsonReader) fail() error { return r.err }

func (r *jsonReader) bad(what string) {
	if r.err == nil {
		r.err = syntaxError("JSON: " + what + " at byte " + strconv.Itoa(r.i))
	}
}

// space skips white space and returns the next byte, 0 at the end or after an error.
func (r *jsonReader) space() byte {
	if r.err != nil {
		return 0
	}
	for r.i < len(r.b) {
		switch c := r.b[r.i]; c {
		case ' ', '\t', '\r', '\n':
			r.i++
		default:
			return c
		}
	}
	return 0
}

func (r *jsonReader) next() valueKind {
	switch c := r.space(); c {
	case '{':
		return kindMap
	case '[':
		return kindList
	case '"':
		return kindText
	case 't', 'f':
		return kindBool
	case 'n':
		return kindNull
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return kindNumber
	}
	r.bad("value expected")
	return kindInvalid
}

func (r *jsonReader) word(s string) {
	r.space()
	if r.err == nil && len(r.b)-r.i >= len(s) && string(r.b[r.i:r.i+len(s)]) == s {
		r.i += len(s)
		return
	}
	r.bad(s + " expected")
}

func (r *jsonReader) null() { r.word("null") }

func (r *jsonReader) boolean() bool {
	if r.space() == 't' {
		r.word("true")
		return r.err == nil
	}
	r.word("false")
	return false
}

// digits skips a run of digits and fails if there is none.
func (r *jsonReader) digits() {
	start := r.i
	for r.i < len(r.b) && r.b[r.i]-'0' <= 9 {
		r.i++
	}
	if r.i == start {
		r.bad("digit expected")
	}
}

// scanNumber consumes a number and returns its text.
func (r *jsonReader) scanNumber() (s []byte, isInt bool) {
	r.space()
	if r.err != nil {
		return nil, false
	}
	start := r.i
	isInt = true
	if r.at('-') {
		r.i++
	}
	if r.at('0') {
		r.i++
	} else {
		r.digits()
	}
	if r.at('.') {
		isInt = false
		r.i++
		r.digits()
	}
	if r.at('e') || r.at('E') {
		isInt = false
		r.i++
		if r.at('+') || r.at('-') {
			r.i++
		}
		r.digits()
	}
	return r.b[start:r.i], isInt
}

func (r *jsonReader) number() number {
	s, isInt := r.scanNumber()
	if r.err != nil {
		return number{}
	}
	if isInt {
		if n, err := strconv.ParseInt(string(s), 10, 64); err == nil {
			return number{isInt: true, i: n}
		}
	}
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil {
		r.bad("number out of range")
	}
	return number{f: f}
}

func (r *jsonReader) at(c byte) bool { return r.i < len(r.b) && r.b[r.i] == c }

func (r *jsonReader) millis() int64 {
	n := r.number()
	if n.isInt {
		n.f = float64(n.i)
	}
	return saturate(math.Round(n.f * 1000))
}

// saturate converts to the nearest int64.
func saturate(f float64) int64 {
	switch {
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	case f != f:
		return 0
	}
	return int64(f)
}

// text scans a string. What has no escapes is returned in place.
func (r *jsonReader) text() []byte {
	if r.space() != '"' {
		r.bad("string expected")
		return nil
	}
	start := r.i + 1
	ascii := true
	for i := start; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			r.i = i + 1
			s := r.b[start:i]
			if !ascii && !utf8.Valid(s) {
				r.bad("invalid UTF-8 in the string before the byte")
				return nil
			}
			return s
		case c == '\\':
			return r.escaped(start)
		case c < 0x20:
			r.i = i
			r.bad("control character in string")
			return nil
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.i = len(r.b)
	r.bad("unterminated string")
	return nil
}

// blob finds the end of a string of base64 by its quote alone: whatever else may
// not stand in a string is no base64 either and is refused by its decoder. Base64
// may come with escapes (\/ and \u002b), which the slow way undoes.
func (r *jsonReader) blob() []byte {
	if r.space() != '"' {
		r.bad("string expected")
		return nil
	}
	start := r.i + 1
	n := bytes.IndexByte(r.b[start:], '"')
	if n < 0 {
		r.i = len(r.b)
		r.bad("unterminated string")
		return nil
	}
	s := r.b[start : start+n]
	if bytes.IndexByte(s, '\\') >= 0 {
		return r.text()
	}
	r.i = start + n + 1
	return s
}

// escaped decodes the string that begins at start into the arena.
func (r *jsonReader) escaped(start int) []byte {
	if r.arena == nil {
		r.arena = make([]byte, 0, 256)
	}
	if cap(r.arena)-len(r.arena) < 64 {
		r.arena = make([]byte, 0, 2*cap(r.arena))
	}
	out := r.arena[len(r.arena):]
	r.i = start
	for r.i < len(r.b) {
		c := r.b[r.i]
		switch {
		case c == '"':
			r.i++
			if !utf8.Valid(out) {
				r.bad("invalid UTF-8 in the string before the byte")
				return nil
			}
			if len(r.arena)+len(out) <= cap(r.arena) {
				r.arena = r.arena[:len(r.arena)+len(out)]
			} else {
				r.arena = out // grew out of the arena, which it replaces
			}
			return out[:len(out):len(out)]
		case c == '\\':
			out = r.escape(out)
			if r.err != nil {
				return nil
			}
		case c < 0x20:
			r.bad("control character in string")
			return nil
		default:
			out = append(out, c)
			r.i++
		}
	}
	r.bad("unterminated string")
	return nil
}

// escape decodes the escape sequence at r.i and appends it to out.
func (r *jsonReader) escape(out []byte) []byte {
	if r.i+1 >= len(r.b) {
		r.i = len(r.b)
		r.bad("unterminated string")
		return nil
	}
	c := r.b[r.i+1]
	r.i += 2
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		u := r.hex4()
		if utf16.IsSurrogate(u) {
			if r.i+1 < len(r.b) && r.b[r.i] == '\\' && r.b[r.i+1] == 'u' {
				r.i += 2
				u = utf16.DecodeRune(u, r.hex4())
			} else {
				u = utf8.RuneError
			}
			if u == utf8.RuneError {
				r.bad("unpaired surrogate in string")
				return nil
			}
		}
		return utf8.AppendRune(out, u)
	}
	r.bad("unknown escape in string")
	return nil
}

func (r *jsonReader) hex4() rune {
	if r.i+4 > len(r.b) {
		r.bad("four hexadecimal digits expected")
		return 0
	}
	var u rune
	for _, c := range r.b[r.i : r.i+4] {
		switch {
		case c-'0' <= 9:
			u = u<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			u = u<<4 | rune(c|0x20-'a'+10)
		default:
			r.bad("four hexadecimal digits expected")
			return 0
		}
	}
	r.i += 4
	return u
}

func (r *jsonReader) enter() int {
	if c := r.space(); c != '{' && c != '[' {
		r.bad("list or structure expected")
		return 0
	}
	r.i++
	if r.depth++; r.depth > maxDepth {
		r.bad("too deeply nested")
	}
	return -1
}

func (r *jsonReader) more(_, i int, kind valueKind) bool {
	c := r.space()
	if c == ']' && kind == kindList || c == '}' && kind == kindMap {
		r.i++
		r.depth--
		return false
	}
	if i == 0 {
		if c == 0 {
			r.bad("unexpected end")
		}
		return r.err == nil
	}
	if c != ',' {
		r.bad("comma or end of list or structure expected")
		return false
	}
	r.i++
	return true
}

func (r *jsonReader) key() []byte {
	k := r.text()
	if r.space() != ':' {
		r.bad("colon expected")
		return nil
	}
	r.i++
	return k
}

func (r *jsonReader) skip() {
	switch r.next() {
	case kindMap:
		n := r.enter()
		for i := 0; r.more(n, i, kindMap); i++ {
			r.key()
			r.skip()
		}
	case kindList:
		n := r.enter()
		for i := 0; r.more(n, i, kindList); i++ {
			r.skip()
		}
	case kindText:
		arena := len(r.arena)
		r.text()
		r.arena = r.arena[:min(arena, len(r.arena))]
	case kindBool:
		r.boolean()
	case kindNull:
		r.null()
	case kindNumber:
		r.scanNumber()
	}
}

func (r *jsonReader) end() {
	if r.space(); r.err == nil && r.i != len(r.b) {
		r.bad("text after the end")
	}
}
