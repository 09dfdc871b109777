package columnar

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/parquet-go/jsonlite"

	"github.com/weirhq/weir/appliance/document"
)

// Inference finds a schema in records: the columns in the order of their
// names, with the narrowest type that holds all values seen. Numbers are
// bigint or double; values of different kinds become string; nested objects
// and arrays stay nested.
type Inference struct {
	options *Options
	columns map[string]string // that have another name than their key, by the key
	left    int
	root    *seen
}

// maxColumns bounds an inferred schema; keys beyond it are left out.
const maxColumns = 1000

// seen is what was found at one place of the documents.
type seen struct {
	boolean, integer, number, text bool
	object                         map[string]*seen
	list                           *seen
}

// NewInference returns an Inference that wants up to o.InferenceRecords.
func NewInference(o *Options) *Inference {
	n := o.InferenceRecords
	if n == 0 {
		n = 1000
	}
	f := &Inference{options: o, columns: map[string]string{}, left: n, root: &seen{object: map[string]*seen{}}}
	for column, key := range o.Keys {
		f.columns[o.fold(key)] = column
	}
	return f
}

// Add looks at a record and says whether it wants more. What isn't a JSON
// object is passed over.
func (f *Inference) Add(data []byte) bool {
	doc, err := document.Parse(unsafe.String(unsafe.SliceData(data), len(data)))
	if err != nil || doc.Kind() != jsonlite.Object {
		return true
	}
	f.root.add(doc, f.options, 0)
	f.left--
	return f.left > 0
}

func (s *seen) add(v *jsonlite.Value, o *Options, depth int) {
	switch v.Kind() {
	case jsonlite.True, jsonlite.False:
		s.boolean = true
	case jsonlite.Number:
		switch text := v.JSON(); {
		case !strings.ContainsAny(text, ".eE") && len(text) <= 18:
			s.integer = true
		case tooLarge(text):
			s.text = true
		default:
			s.number = true
		}
	case jsonlite.String:
		s.text = true
	case jsonlite.Array:
		if depth >= maxDepth-1 {
			s.text = true
			return
		}
		if s.list == nil {
			s.list = &seen{}
		}
		for child := range v.Array {
			s.list.add(child, o, depth+1)
		}
	case jsonlite.Object:
		if depth >= maxDepth-1 {
			s.text = true
			return
		}
		s.addObject(v, o, depth)
	}
}

// tooLarge tells whether a number is none of a double's.
func tooLarge(number string) bool {
	_, err := strconv.ParseFloat(number, 64)
	return err != nil
}

func (s *seen) addObject(v *jsonlite.Value, o *Options, depth int) {
	if s.object == nil {
		s.object = map[string]*seen{}
	}
	for key, child := range v.Object {
		key = o.fold(key)
		if key == "" || !utf8.ValidString(key) || depth > 0 && strings.ContainsAny(key, "<>,:() ") {
			continue // can't be written as a Hive type
		}
		c := s.object[key]
		if c == nil {
			if len(s.object) >= maxColumns {
				continue
			}
			c = &seen{}
			s.object[strings.Clone(key)] = c
		}
		c.add(child, o, depth+1)
	}
}

// Schema is what was found; empty when no record was a JSON object.
func (f *Inference) Schema() Schema {
	var s Schema
	for _, name := range sortedKeys(f.root.object) {
		column, mapped := f.columns[name]
		if _, claimed := f.options.Keys[name]; !mapped && claimed {
			continue // the column of that name is read from another key
		} else if !mapped {
			column = name
		}
		s = append(s, Column{Name: column, Type: f.root.object[name].hive()})
	}
	return s
}

func sortedKeys(m map[string]*seen) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// hive is the type that holds everything seen.
func (s *seen) hive() string {
	kinds := 0
	for _, is := range []bool{s.boolean, s.integer || s.number, s.text, s.object != nil, s.list != nil} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1 || s.text:
		return "string"
	case s.boolean:
		return "boolean"
	case s.number:
		return "double"
	case s.integer:
		return "bigint"
	case s.list != nil:
		return "array<" + s.list.hive() + ">"
	case len(s.object) == 0:
		return "string"
	}
	var fields []string
	for _, name := range sortedKeys(s.object) {
		fields = append(fields, name+":"+s.object[name].hive())
	}
	return "struct<" + strings.Join(fields, ",") + ">"
}
