package aws

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Encoding is one of the two body encodings of the AWS services.
type Encoding uint8

// The encodings.
const (
	JSON Encoding = iota
	CBOR
)

// Writer builds a body in either encoding without intermediate structures: maps
// of named members, lists, and the value types of the services. It appends to Buf
// and allocates only when Buf has to grow. The caller keeps maps and lists
// balanced; maps and lists are of indefinite length in CBOR, as AWS writes them.
type Writer struct {
	// Buf is what has been written, after what it held before.
	Buf []byte
	// Encoding is set before the first write.
	Encoding Encoding
	// comma is set when the next JSON element of the open map or list needs one.
	comma bool
}

// BeginMap opens a map or structure.
func (w *Writer) BeginMap() { w.begin('{', 0xbf) }

// EndMap closes it.
func (w *Writer) EndMap() { w.end('}') }

// BeginList opens a list.
func (w *Writer) BeginList() { w.begin('[', 0x9f) }

// EndList closes it.
func (w *Writer) EndList() { w.end(']') }

func (w *Writer) begin(json, cbor byte) {
	if w.Encoding == CBOR {
		w.Buf = append(w.Buf, cbor)
		return
	}
	w.separate()
	w.Buf = append(w.Buf, json)
	w.comma = false
}

func (w *Writer) end(json byte) {
	if w.Encoding == CBOR {
		w.Buf = append(w.Buf, 0xff)
		return
	}
	w.Buf = append(w.Buf, json)
	w.comma = true
}

func (w *Writer) separate() {
	if w.comma {
		w.Buf = append(w.Buf, ',')
	}
	w.comma = true
}

// Key writes a member's name; its value has to follow.
func (w *Writer) Key(name string) {
	if w.Encoding == CBOR {
		w.cborHead(3, uint64(len(name)))
		w.Buf = append(w.Buf, name...)
		return
	}
	w.separate()
	w.Buf = appendJSONString(w.Buf, name)
	w.Buf = append(w.Buf, ':')
	w.comma = false
}

// String writes a text. Invalid UTF-8 becomes U+FFFD.
func (w *Writer) String(s string) {
	if w.Encoding == CBOR {
		if !utf8.ValidString(s) {
			s = string([]rune(s))
		}
		w.cborHead(3, uint64(len(s)))
		w.Buf = append(w.Buf, s...)
		return
	}
	w.separate()
	w.Buf = appendJSONString(w.Buf, s)
}

// Text is String for bytes.
func (w *Writer) Text(s []byte) {
	if w.Encoding == CBOR {
		if !utf8.Valid(s) {
			s = []byte(string([]rune(string(s))))
		}
		w.cborHead(3, uint64(len(s)))
		w.Buf = append(w.Buf, s...)
		return
	}
	w.separate()
	w.Buf = appendJSONString(w.Buf, s)
}

// Blob writes bytes: base64 in JSON, a byte string in CBOR.
func (w *Writer) Blob(b []byte) {
	if w.Encoding == CBOR {
		w.cborHead(2, uint64(len(b)))
		w.Buf = append(w.Buf, b...)
		return
	}
	w.separate()
	w.Buf = append(w.Buf, '"')
	w.Buf = base64.StdEncoding.AppendEncode(w.Buf, b)
	w.Buf = append(w.Buf, '"')
}

// Int writes an integer.
func (w *Writer) Int(n int64) {
	if w.Encoding == CBOR {
		w.cborInt(n)
		return
	}
	w.separate()
	w.Buf = strconv.AppendInt(w.Buf, n, 10)
}

// Float writes a number; JSON has no infinities and no NaN, they become null.
func (w *Writer) Float(f float64) {
	if w.Encoding == CBOR {
		w.Buf = append(w.Buf, 0xfb)
		w.Buf = binary.BigEndian.AppendUint64(w.Buf, math.Float64bits(f))
		return
	}
	w.separate()
	if math.IsInf(f, 0) || math.IsNaN(f) {
		w.Buf = append(w.Buf, "null"...)
		return
	}
	w.Buf = strconv.AppendFloat(w.Buf, f, 'g', -1, 64)
}

// Bool writes a truth value.
func (w *Writer) Bool(v bool) {
	if w.Encoding == CBOR {
		b := byte(0xf4)
		if v {
			b = 0xf5
		}
		w.Buf = append(w.Buf, b)
		return
	}
	w.separate()
	w.Buf = strconv.AppendBool(w.Buf, v)
}

// Time writes a timestamp with millisecond resolution: JSON has seconds with a
// fraction, CBOR tag 1 with an integer of milliseconds. The latter is not what
// the CBOR standard says tag 1 is, but what AWS's Java SDK writes and reads.
func (w *Writer) Time(t time.Time) { w.TimeMS(t.UnixMilli()) }

// TimeMS is Time for milliseconds since 1970.
func (w *Writer) TimeMS(ms int64) {
	if w.Encoding == CBOR {
		w.Buf = append(w.Buf, 0xc1)
		w.cborInt(ms)
		return
	}
	w.separate()
	if ms < 0 {
		w.Buf = append(w.Buf, '-')
		ms = -ms
	}
	w.Buf = strconv.AppendInt(w.Buf, ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		w.Buf = append(w.Buf, '.', byte('0'+frac/100))
		if frac%100 != 0 {
			w.Buf = append(w.Buf, byte('0'+frac/10%10))
		}
		if frac%10 != 0 {
			w.Buf = append(w.Buf, byte('0'+frac%10))
		}
	}
}

func (w *Writer) cborInt(n int64) {
	if n < 0 {
		w.cborHead(1, uint64(-(n + 1)))
		return
	}
	w.cborHead(0, uint64(n))
}

func (w *Writer) cborHead(major byte, n uint64) {
	major <<= 5
	switch {
	case n < 24:
		w.Buf = append(w.Buf, major|byte(n))
	case n <= math.MaxUint8:
		w.Buf = append(w.Buf, major|24, byte(n))
	case n <= math.MaxUint16:
		w.Buf = binary.BigEndian.AppendUint16(append(w.Buf, major|25), uint16(n))
	case n <= math.MaxUint32:
		w.Buf = binary.BigEndian.AppendUint32(append(w.Buf, major|26), uint32(n))
	default:
		w.Buf = binary.BigEndian.AppendUint64(append(w.Buf, major|27), n)
	}
}

// plainInJSON has the bytes that stand for themselves in a JSON string.
var plainInJSON = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

const hexDigits = "0123456789abcdef"

// appendJSONString appends s in quotes. Only what JSON demands is escaped.
func appendJSONString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plainInJSON[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			end := min(len(s), i+utf8.UTFMax)
			r, size := utf8.DecodeRuneInString(string(s[i:end]))
			if r != utf8.RuneError || size != 1 {
				i += size
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
