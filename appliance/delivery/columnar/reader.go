package columnar

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/parquet-go/jsonlite"
	"github.com/parquet-go/parquet-go"

	"github.com/weirhq/weir/appliance/document"
)

// ErrNotRow is the cause of a RowError for a record that isn't a JSON object.
var ErrNotRow = errors.New("the record is not a JSON object")

// RowError says why a record can't become a row.
type RowError struct {
	Column string // "" for the whole record
	Err    error
}

// Error names the column, when there is one, and the cause.
func (e *RowError) Error() string {
	if e.Column == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("column %q: %v", e.Column, e.Err)
}

// Unwrap returns the cause.
func (e *RowError) Unwrap() error { return e.Err }

// Reader makes rows of JSON records by a schema. It is not safe for
// concurrent use.
type Reader struct {
	options *Options
	columns []column
	byKey   map[string]int
	formats []timeFormat
	nested  bool // some column is a list, map or struct
	schema  *parquet.Schema
	row     parquet.Row
	members document.Members
	values  []jsonlite.Value // of the record at hand, by column
}

type column struct {
	name string
	typ  *dataType
	leaf int // index of its first leaf
}

// NewReader returns a Reader for a validated schema.
func NewReader(s Schema, o *Options) (*Reader, error) {
	r := &Reader{options: o, byKey: map[string]int{}}
	leaf := 0
	for i, c := range s {
		t, err := parseType(c.Type, o.CaseSensitive)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", c.Name, err)
		}
		r.columns = append(r.columns, column{name: c.Name, typ: t, leaf: leaf})
		leaf += t.leaves()
		key := c.Name
		if mapped, ok := o.Keys[c.Name]; ok {
			key = mapped
		}
		r.byKey[r.options.fold(key)] = i
		r.nested = r.nested || t.kind >= kindList
	}
	for _, f := range o.TimestampFormats {
		layout, err := jodaLayout(f)
		if err != nil {
			return nil, err
		}
		r.formats = append(r.formats, layout)
	}
	r.schema = parquetSchema(r.columns, o)
	r.values = make([]jsonlite.Value, len(r.columns))
	return r, nil
}

// fold is the form in which keys are compared.
func (o *Options) fold(key string) string {
	if o.DotsToUnderscores {
		key = strings.ReplaceAll(key, ".", "_")
	}
	if o.CaseSensitive {
		return key
	}
	return strings.ToLower(key)
}

// Row makes a row of one JSON object. The row is valid until the next call,
// and it may point into data. The error is a *RowError.
func (r *Reader) Row(data []byte) (parquet.Row, error) {
	clear(r.values) // null is the zero value
	err := r.members.Each(unsafe.String(unsafe.SliceData(data), len(data)), r.member)
	if errors.Is(err, document.ErrNotObject) {
		return nil, &RowError{Err: ErrNotRow}
	}
	if err != nil {
		return nil, &RowError{Err: fmt.Errorf("the record is not JSON: %w", err)}
	}
	r.row = r.row[:0]
	for i := range r.columns {
		c := &r.columns[i]
		if err := r.value(c.typ, &r.values[i], 0, 0, 0, c.leaf); err != nil {
			return nil, &RowError{Column: c.name, Err: err}
		}
	}
	if r.nested {
		// The leaves of a list's elements belong together by column.
		slices.SortStableFunc(r.row, func(a, b parquet.Value) int { return cmp.Compare(a.Column(), b.Column()) })
	}
	return r.row, nil
}

// member takes a value that a column has.
func (r *Reader) member(key string, v jsonlite.Value) {
	i, ok := r.byKey[key]
	if !ok {
		i, ok = r.byKey[r.options.fold(key)]
	}
	if ok {
		r.values[i] = v
	}
}

// leaves is how many Parquet columns a type takes.
func (t *dataType) leaves() int {
	switch t.kind {
	case kindList:
		return t.element.leaves()
	case kindMap:
		return 1 + t.element.leaves()
	case kindStruct:
		n := 0
		for _, f := range t.fields {
			n += f.typ.leaves()
		}
		return n
	}
	return 1
}

// value appends the leaves of v, which is optional: rep and def are the levels
// it is at, depth the number of lists around it.
func (r *Reader) value(t *dataType, v *jsonlite.Value, rep, def, depth, leaf int) error {
	if v == nil || v.Kind() == jsonlite.Null {
		r.null(t, rep, def, leaf)
		return nil
	}
	switch t.kind {
	case kindStruct:
		return r.structure(t, v, rep, def+1, depth, leaf)
	case kindList:
		if v.Kind() != jsonlite.Array {
			return fmt.Errorf("%.70s is not an array", v.JSON())
		}
		return r.list(t, v, rep, def+1, depth+1, leaf)
	case kindMap:
		if v.Kind() != jsonlite.Object {
			return fmt.Errorf("%.70s is not an object", v.JSON())
		}
		return r.mapping(t, v, rep, def+1, depth+1, leaf)
	}
	p, err := r.scalar(t, v)
	if err != nil {
		return err
	}
	r.row = append(r.row, p.Level(rep, def+1, leaf))
	return nil
}

func (r *Reader) null(t *dataType, rep, def, leaf int) {
	for i := range t.leaves() {
		r.row = append(r.row, parquet.NullValue().Level(rep, def, leaf+i))
	}
}

func (r *Reader) structure(t *dataType, v *jsonlite.Value, rep, def, depth, leaf int) error {
	if v.Kind() != jsonlite.Object {
		return fmt.Errorf("%.70s is not an object", v.JSON())
	}
	for _, f := range t.fields {
		var found *jsonlite.Value
		for key, child := range v.Object {
			if key == f.name || r.options.fold(key) == r.options.fold(f.name) {
				found = child
			}
		}
		if err := r.value(f.typ, found, rep, def, depth, leaf); err != nil {
			return fmt.Errorf("field %q: %w", f.name, err)
		}
		leaf += f.typ.leaves()
	}
	return nil
}

// list appends a list's elements, each with its leaves together.
func (r *Reader) list(t *dataType, v *jsonlite.Value, rep, def, depth, leaf int) error {
	n := 0
	var bad error
	for child := range v.Array {
		if n > 0 {
			rep = depth
		}
		n++
		if bad = r.value(t.element, child, rep, def+1, depth, leaf); bad != nil {
			return bad
		}
	}
	if n == 0 {
		r.null(t, rep, def, leaf)
	}
	return nil
}

func (r *Reader) mapping(t *dataType, v *jsonlite.Value, rep, def, depth, leaf int) error {
	n := 0
	for key, child := range v.Object {
		if n > 0 {
			rep = depth
		}
		n++
		r.row = append(r.row, parquet.ByteArrayValue([]byte(key)).Level(rep, def+1, leaf))
		if err := r.value(t.element, child, rep, def+1, depth, leaf+1); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	if n == 0 {
		r.null(t, rep, def, leaf)
	}
	return nil
}

// scalar reads one value. As the OpenX reader does, texts that are numbers or
// booleans are taken as such, and nested JSON as a text; the Hive reader refuses them.
func (r *Reader) scalar(t *dataType, v *jsonlite.Value) (parquet.Value, error) {
	text := v.JSON()
	quoted := v.Kind() == jsonlite.String
	if quoted {
		text = v.String()
	}
	if quoted && r.options.Serde == Hive && t.kind <= kindDecimal {
		return parquet.Value{}, fmt.Errorf("%q is a text, not a %s", text, kindNames[t.kind])
	}
	switch t.kind {
	case kindString:
		if k := v.Kind(); r.options.Serde == Hive && (k == jsonlite.Object || k == jsonlite.Array) {
			return parquet.Value{}, fmt.Errorf("%.70s is not a text: the Hive reader makes none of nested JSON", text)
		}
		return parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(text), len(text))), nil
	case kindBinary:
		b, err := base64.StdEncoding.DecodeString(text)
		return parquet.ByteArrayValue(b), err
	case kindBoolean:
		b, err := strconv.ParseBool(text)
		return parquet.BooleanValue(b), err
	case kindInt32, kindInt64:
		return integer(t, text)
	case kindFloat:
		f, err := strconv.ParseFloat(text, 32)
		return parquet.FloatValue(float32(f)), err
	case kindDouble:
		f, err := strconv.ParseFloat(text, 64)
		return parquet.DoubleValue(f), err
	case kindDecimal:
		return decimal(t, text)
	case kindDate:
		d, err := time.Parse(time.DateOnly, text)
		return parquet.Int32Value(int32(math.Floor(float64(d.Unix()) / 86400))), err
	case kindTimestamp:
		at, err := r.timestamp(text, quoted)
		return parquet.Int64Value(at.UnixMicro()), err
	}
	return parquet.Value{}, fmt.Errorf("BUG: type %d is not a scalar", t.kind)
}

var kindNames = [...]string{"boolean", "int", "bigint", "float", "double", "decimal", "string", "binary", "date", "timestamp", "array", "map", "struct"}

func integer(t *dataType, text string) (parquet.Value, error) {
	n, err := strconv.ParseInt(text, 10, t.bits)
	if err != nil {
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) >= math.Ldexp(1, t.bits-1) {
			return parquet.Value{}, err
		}
		n = int64(f)
	}
	if t.kind == kindInt32 {
		return parquet.Int32Value(int32(n)), nil
	}
	return parquet.Int64Value(n), nil
}

func decimal(t *dataType, text string) (parquet.Value, error) {
	// An exponent is looked at before it is raised: 1e999999999 is a number.
	const most = 64
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		if n, err := strconv.Atoi(text[i+1:]); err != nil || n < -most || n > most {
			return parquet.Value{}, fmt.Errorf("%.70q is not a number of at most %d digits", text, t.precision)
		}
	}
	q, ok := (*big.Rat)(nil), len(text) <= most && !strings.ContainsAny(text, "/_xXpP")
	if ok {
		q, ok = new(big.Rat).SetString(text)
	}
	if !ok {
		return parquet.Value{}, fmt.Errorf("%.70q is not a number", text)
	}
	q.Mul(q, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.scale)), nil)))
	if !q.IsInt() {
		return parquet.Value{}, fmt.Errorf("%s has more than %d decimal places", text, t.scale)
	}
	n := q.Num()
	if !n.IsInt64() || len(strings.TrimPrefix(n.String(), "-")) > t.precision {
		return parquet.Value{}, fmt.Errorf("%s has more than %d digits", text, t.precision)
	}
	return parquet.Int64Value(n.Int64()), nil
}

// timestamp reads the forms that Firehose documents: ISO 8601 with Z, the
// SQL form, epoch seconds with or without a fraction, epoch milliseconds; or
// the Hive reader's own formats.
func (r *Reader) timestamp(text string, quoted bool) (time.Time, error) {
	for _, f := range r.formats {
		if at, ok := f.parse(text); ok {
			return at, nil
		}
	}
	if r.options.Serde == Hive && len(r.formats) > 0 {
		return time.Time{}, fmt.Errorf("%q has none of the timestamp formats", text)
	}
	if quoted {
		for _, layout := range []string{time.RFC3339Nano, "2006-1-2 15:04:05.999999999", "2006-01-02T15:04:05.999999999"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at.UTC(), nil
			}
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(f) > 1e15 {
		return time.Time{}, fmt.Errorf("%q is not a timestamp", text)
	}
	if math.Abs(f) >= 1e11 { // milliseconds: as seconds it would be after the year 5000
		return time.UnixMilli(int64(f)).UTC(), nil
	}
	whole := math.Floor(f)
	return time.Unix(int64(whole), int64(math.Round((f-whole)*1e6))*1000).UTC(), nil
}
