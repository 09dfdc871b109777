package aws

// reader pulls values out of a body; jsonReader and cborReader implement it. After
// an error every method returns its zero value and iteration ends, so that callers
// check fail() once at the end. Every step consumes input or fails.
type reader interface {
	// next tells the kind of the next value without consuming it.
	next() valueKind
	// null, boolean, number, text consume a value of that kind.
	null()
	boolean() bool
	number() number
	// text returns a string that is valid UTF-8. It aliases the body, or memory of
	// the reader's own when it had to be put together; both outlive the reader.
	text() []byte
	// blob returns a string that is to be a blob: base64 text in JSON (checked by
	// whoever decodes it), the bytes themselves in CBOR.
	blob() []byte
	// millis consumes a timestamp or number as milliseconds since 1970.
	millis() int64
	// enter consumes the head of a list or map and returns a length for more.
	enter() int
	// more tells whether element number i (from 0) exists in the entered list or
	// map of the given length; it consumes separators and the end.
	more(length, i int, kind valueKind) bool
	// key consumes a member's name.
	key() []byte
	// skip consumes any value.
	skip()
	// end fails unless the whole body was consumed.
	end()
	// fail returns the first error, nil if there was none.
	fail() error
}

type valueKind uint8

const (
	kindInvalid valueKind = iota
	kindNull
	kindBool
	kindNumber
	kindTime
	kindText
	kindBytes
	kindList
	kindMap
)

// number is a JSON or CBOR number: an integer if it is one, else a float.
type number struct {
	isInt bool
	i     int64
	f     float64
}

// maxDepth bounds the nesting of a body, so that recursion is bounded.
const maxDepth = 128

type syntaxError string

func (e syntaxError) Error() string { return string(e) }

func newReader(enc Encoding, body []byte) reader {
	if enc == CBOR {
		return &cborReader{b: body}
	}
	return &jsonReader{b: body}
}

// wellFormed tells whether body is exactly one value.
func wellFormed(enc Encoding, body []byte) bool {
	r := newReader(enc, body)
	r.skip()
	r.end()
	return r.fail() == nil
}
