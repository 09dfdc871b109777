// Package columnar converts JSON records to Apache Parquet, the way
// Firehose's record format conversion does.
//
// It owns the schema (declared, or inferred from records), the OpenX and Hive
// reading options and the writer's options. It never reads a stream, and it
// holds at most one row group in memory, whose size is stated by its caller.
package columnar

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Schema is the columns of a table in order, with Hive's types.
type Schema []Column

// Leaves is how many columns a file of the schema has, those inside of lists, maps and
// structs included. A type that can't be read counts as one.
func (s Schema) Leaves() int {
	n := 0
	for _, c := range s {
		if t, err := parseType(c.Type, true); err == nil {
			n += t.leaves()
		} else {
			n++
		}
	}
	return n
}

// Column is one column of a table.
type Column struct {
	Name string `json:"name"`
	// Type is one of Hive's: boolean, tinyint, smallint, int, bigint, float,
	// double, decimal(p,s), string, varchar(n), char(n), binary, date,
	// timestamp, array<T>, map<string,T>, struct<name:T,…>.
	Type string `json:"type"`
}

// Serde is the reader of the JSON: its rules about names and times.
type Serde string

// The readers that Firehose has.
const (
	OpenX Serde = "OpenX"
	Hive  Serde = "Hive"
)

// Options are those of Firehose's DataFormatConversionConfiguration. The zero
// value is its defaults.
type Options struct {
	Serde Serde `json:"serde,omitempty"` // default OpenX
	// CaseSensitive turns off the lower-casing of keys (OpenX CaseInsensitive).
	CaseSensitive bool `json:"case_sensitive,omitempty"`
	// DotsToUnderscores reads the key a.b as column a_b (OpenX).
	DotsToUnderscores bool `json:"dots_to_underscores,omitempty"`
	// Keys maps a column to the JSON key that it is read from (OpenX).
	Keys map[string]string `json:"keys,omitempty"`
	// TimestampFormats are tried in order (Hive): Joda patterns or "millis".
	TimestampFormats []string `json:"timestamp_formats,omitempty"`

	Compression      string `json:"compression,omitempty"`       // UNCOMPRESSED, GZIP, SNAPPY (default), ZSTD
	PageSizeBytes    int    `json:"page_size_bytes,omitempty"`   // default 1 MiB, least 64 KiB; most of a page: all columns together have 1 MiB, but each 64 KiB
	BlockSizeBytes   int    `json:"block_size_bytes,omitempty"`  // most of a row group; the memory bound may make it less
	Dictionary       bool   `json:"dictionary,omitempty"`        // dictionary encoding of all columns
	WriterVersion    string `json:"writer_version,omitempty"`    // V1 (default), or V2, which has delta encodings
	MaxPaddingBytes  int    `json:"max_padding_bytes,omitempty"` // only 0: there are no HDFS blocks to align to
	InferenceRecords int    `json:"inference_records,omitempty"` // read to infer a schema, default 1000
}

// Validate refuses options and schemas that can't be used, naming all problems.
func (o *Options) Validate(s Schema) error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if o.Serde != "" && o.Serde != OpenX && o.Serde != Hive {
		bad("serde %q is not OpenX or Hive", o.Serde)
	}
	if o.Serde == Hive && (o.CaseSensitive || o.DotsToUnderscores || len(o.Keys) > 0) {
		bad("case_sensitive, dots_to_underscores and keys belong to OpenX")
	}
	if o.Serde != Hive && len(o.TimestampFormats) > 0 {
		bad("timestamp_formats belong to Hive")
	}
	for _, f := range o.TimestampFormats {
		if _, err := jodaLayout(f); err != nil {
			bad("timestamp format %q: %v", f, err)
		}
	}
	if _, err := compression(o.Compression); err != nil {
		bad("%v", err)
	}
	if o.PageSizeBytes != 0 && o.PageSizeBytes < 64<<10 {
		bad("page size %d is below 65536", o.PageSizeBytes)
	}
	if o.WriterVersion != "" && o.WriterVersion != "V1" && o.WriterVersion != "V2" {
		bad("writer version %q is not V1 or V2", o.WriterVersion)
	}
	if o.MaxPaddingBytes != 0 {
		bad("max padding %d: only 0 is supported, objects have no HDFS blocks to align to", o.MaxPaddingBytes)
	}
	names := map[string]bool{}
	for _, c := range s {
		switch {
		case c.Name == "":
			bad("a column has no name")
		case names[c.Name]:
			bad("column %q stands twice", c.Name)
		case o.Serde == Hive && strings.Contains(c.Name, "."):
			bad("column %q: the Hive reader has no dots in column names", c.Name)
		}
		names[c.Name] = true
		if _, err := parseType(c.Type, o.CaseSensitive); err != nil {
			bad("column %q: %v", c.Name, err)
		}
	}
	for column := range o.Keys {
		if len(s) > 0 && !names[column] {
			bad("keys: there is no column %q", column)
		}
	}
	return errors.Join(problems...)
}

type kind uint8

const (
	kindBoolean kind = iota
	kindInt32
	kindInt64
	kindFloat
	kindDouble
	kindDecimal
	kindString
	kindBinary
	kindDate
	kindTimestamp
	kindList
	kindMap
	kindStruct
)

// dataType is a parsed Hive type.
type dataType struct {
	kind             kind
	bits             int // of an integer
	precision, scale int
	element          *dataType // list element, map value
	fields           []fieldType
}

type fieldType struct {
	name string
	typ  *dataType
}

var simpleTypes = map[string]dataType{
	"boolean": {kind: kindBoolean}, "tinyint": {kind: kindInt32, bits: 8}, "smallint": {kind: kindInt32, bits: 16},
	"int": {kind: kindInt32, bits: 32}, "integer": {kind: kindInt32, bits: 32}, "bigint": {kind: kindInt64, bits: 64},
	"float": {kind: kindFloat}, "double": {kind: kindDouble}, "string": {kind: kindString}, "binary": {kind: kindBinary},
	"date": {kind: kindDate}, "timestamp": {kind: kindTimestamp}, "decimal": {kind: kindDecimal, precision: 10},
}

var (
	sizedText   = regexp.MustCompile(`^(varchar|char)\(\d+\)$`)
	decimalType = regexp.MustCompile(`^decimal\((\d+)(?:,(\d+))?\)$`)
)

// maxDepth bounds nested types: a type is text from outside.
const maxDepth = 16

// parseType reads a Hive type. The names of fields are lower case unless it is told
// that case matters.
func parseType(text string, caseSensitive bool) (*dataType, error) {
	p := typeParser{rest: strings.ReplaceAll(text, " ", "")}
	if !caseSensitive {
		p.rest = strings.ToLower(p.rest)
	}
	t, err := p.parse(0)
	if err == nil && p.rest != "" {
		err = fmt.Errorf("%q follows the type", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", text, err)
	}
	return t, nil
}

type typeParser struct{ rest string }

func (p *typeParser) parse(depth int) (*dataType, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	end := strings.IndexAny(p.rest, "<>,:")
	if open := strings.IndexByte(p.rest, '('); open >= 0 && (end < 0 || open < end) {
		if closing := strings.IndexByte(p.rest, ')'); closing > 0 {
			end = closing + 1
		}
	}
	if end < 0 {
		end = len(p.rest)
	}
	word := strings.ToLower(p.rest[:end])
	p.rest = p.rest[end:]
	switch word {
	case "array", "map", "struct":
		if !p.take('<') {
			return nil, fmt.Errorf("%s needs <…>", word)
		}
		return p.nested(word, depth+1)
	}
	return simpleType(word)
}

func simpleType(word string) (*dataType, error) {
	if t, ok := simpleTypes[word]; ok {
		return &t, nil
	}
	if sizedText.MatchString(word) {
		return &dataType{kind: kindString}, nil
	}
	if m := decimalType.FindStringSubmatch(word); m != nil {
		t := &dataType{kind: kindDecimal}
		t.precision, _ = strconv.Atoi(m[1])
		t.scale, _ = strconv.Atoi(m[2])
		if t.precision < 1 || t.precision > 18 || t.scale > t.precision {
			return nil, fmt.Errorf("%s: precision must be 1 to 18 and scale at most that", word)
		}
		return t, nil
	}
	return nil, fmt.Errorf("%q is not a supported type", word)
}

func (p *typeParser) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *typeParser) nested(word string, depth int) (*dataType, error) {
	t := &dataType{}
	var err error
	switch word {
	case "array":
		t.kind = kindList
		t.element, err = p.parse(depth)
	case "map":
		t.kind = kindMap
		var key *dataType
		if key, err = p.parse(depth); err == nil && key.kind != kindString {
			return nil, errors.New("keys of a map must be string")
		}
		if err == nil && !p.take(',') {
			return nil, errors.New("map needs a key and a value type")
		}
		if err == nil {
			t.element, err = p.parse(depth)
		}
	case "struct":
		t.kind = kindStruct
		for err == nil {
			name, _, found := strings.Cut(p.rest, ":")
			if !found || name == "" || strings.ContainsAny(name, "<>,") {
				return nil, errors.New("struct needs name:type pairs")
			}
			if slices.ContainsFunc(t.fields, func(f fieldType) bool { return f.name == name }) {
				return nil, fmt.Errorf("field %q stands twice in a struct", name)
			}
			p.rest = p.rest[len(name)+1:]
			var f *dataType
			if f, err = p.parse(depth); err == nil {
				t.fields = append(t.fields, fieldType{name, f})
			}
			if !p.take(',') {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if !p.take('>') {
		return nil, fmt.Errorf("%s is not closed by >", word)
	}
	return t, nil
}
