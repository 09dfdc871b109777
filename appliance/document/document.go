// Package document parses the JSON documents that records are.
//
// It owns the bound on how deep they may be nested: jsonlite descends a call
// for each array, so that a record of nothing but a million brackets ends the
// process, which no recover holds up. It never looks at what a document means.
package document

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/jsonlite"
)

// MaxDepth is how many arrays and objects may be around a value.
const MaxDepth = 100

// Parse parses a document that is nested at most MaxDepth deep, and refuses any
// other text. The value, and what is looked up in it, points into text.
func Parse(text string) (*jsonlite.Value, error) {
	if deeper(text, MaxDepth) {
		return nil, fmt.Errorf("arrays and objects are nested deeper than %d", MaxDepth)
	}
	return jsonlite.ParseMaxDepth(text, MaxDepth+1) // at its own limit it would leave an object unparsed
}

// ErrNotObject says that a text is a document and not an object.
var ErrNotObject = errors.New("the document is not an object")

// Members reads the members of objects, one object after the other. A document of each would
// be most of the garbage of who looks at many. The zero value is ready; it is not safe for
// concurrent use.
type Members struct{ it *jsonlite.Iterator }

// Each gives the members of the object that text is, in their order. It takes what Parse takes,
// but tells only at the end that text is not to be taken: with ErrNotObject, or why it is no
// document. Names and values point into text.
func (m *Members) Each(text string, give func(name string, v jsonlite.Value)) error {
	if deeper(text, MaxDepth) {
		return fmt.Errorf("arrays and objects are nested deeper than %d", MaxDepth)
	}
	if m.it == nil {
		m.it = jsonlite.Iterate(text)
	} else {
		m.it.Reset(text)
	}
	object, err := m.each(give)
	if err == nil && (m.it.Next() || m.it.Err() != nil) {
		err = errors.New("there is more than one value")
	}
	if err != nil {
		m.it = nil // it can't begin anew in the middle of a text
		return err
	}
	if !object {
		return ErrNotObject
	}
	return nil
}

// each reads the first value of the text, and says whether it is an object. All values are
// looked at, since that is how they are checked.
func (m *Members) each(give func(name string, v jsonlite.Value)) (object bool, err error) {
	if !m.it.Next() {
		return false, cmp.Or(m.it.Err(), io.ErrUnexpectedEOF)
	}
	if m.it.Kind() != jsonlite.Object {
		_, err := m.it.Value()
		return false, err
	}
	for name, err := range m.it.Object {
		if err != nil {
			return true, err
		}
		v, err := m.it.Value()
		if err != nil {
			return true, fmt.Errorf("%q: %w", name, err)
		}
		give(name, *v)
	}
	return true, nil
}

// deeper tells whether a parser would come to more than limit open brackets
// in text, whether or not that is JSON up to its end.
func deeper(text string, limit int) bool {
	if strings.Count(text, "[")+strings.Count(text, "{") <= limit {
		return false // counted many bytes at a time: most documents are seen once only
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}
