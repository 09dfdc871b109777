package aws

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxElements bounds how many list and map elements one decoded input may have,
// so that a body of brackets cannot become a hundred times its size in memory.
const maxElements = 100_000

// Decode reads body into dst, a pointer to an input structure, and checks it
// against the tables. The order of complaints is AWS's: a body that is no JSON or
// CBOR gives a SerializationException without text, a member of the wrong type a
// SerializationException, constraints one ValidationException that lists up to
// ten. dst holds nothing of body afterwards.
func (m *Model) Decode(enc Encoding, body []byte, dst any) error {
	v := reflect.ValueOf(dst).Elem()
	d := decoder{r: newReader(enc, body), enc: enc}
	present, vs := d.value(m.planOf(v.Type()), v)
	if d.err == nil {
		d.r.end()
	}
	switch {
	case d.r.fail() != nil, d.err != nil && !wellFormed(enc, body):
		return &Error{Kind: Serialization, Cause: d.r.fail()}
	case d.err != nil:
		return d.err
	case !present:
		return &Error{Kind: Serialization}
	case len(vs) > 0:
		return ValidationError(vs[:min(len(vs), maxViolations)]...)
	}
	return nil
}

// decoder is one run of Decode.
type decoder struct {
	r        reader
	enc      Encoding
	err      *Error // the first type error
	elements int
}

// refuse records a type error; d.ok is false from then on.
func (d *decoder) refuse(format string, args ...any) {
	if d.err == nil {
		d.err = Serialization.New(format, args...)
	}
}

func (d *decoder) ok() bool { return d.err == nil && d.r.fail() == nil }

// value reads one value into v, which is zero, and returns whether it was there
// (not null) and what inside of it violates constraints, with paths relative to it.
func (d *decoder) value(p *plan, v reflect.Value) (present bool, vs []Violation) {
	kind := d.r.next()
	if kind == kindInvalid {
		return false, nil
	}
	if kind == kindNull {
		d.r.null()
		return false, nil
	}
	if !p.accepts(kind, d.enc) {
		d.mismatch(p, kind)
		return false, nil
	}
	if p.ptr {
		v.Set(reflect.New(p.typ))
		v = v.Elem()
	}
	switch p.kind {
	case planText:
		v.SetString(string(d.r.text()))
	case planBool:
		v.SetBool(d.r.boolean())
	case planInt:
		d.integer(v)
	case planFloat:
		n := d.r.number()
		if n.isInt {
			n.f = float64(n.i)
		}
		v.SetFloat(n.f)
	case planBlob:
		d.blob(v)
	case planTime:
		v.Set(reflect.ValueOf(time.UnixMilli(d.r.millis()).UTC()))
	case planList:
		vs = d.list(p, v)
	case planMap:
		vs = d.mapping(p, v)
	case planStruct:
		vs = d.structure(p, v)
	}
	return true, vs
}

func (d *decoder) integer(v reflect.Value) {
	n := d.r.number()
	if !n.isInt {
		n.i = saturate(math.Floor(n.f))
	}
	if v.Kind() != reflect.Int64 { // Integer in the models
		n.i = max(math.MinInt32, min(n.i, math.MaxInt32))
	}
	v.SetInt(n.i)
}

func (d *decoder) blob(v reflect.Value) {
	raw := d.r.blob()
	if d.enc == CBOR {
		v.SetBytes(append(make([]byte, 0, len(raw)), raw...))
		return
	}
	data := make([]byte, base64Len(raw))
	if _, err := decodeBase64(data, raw); err != nil {
		if d.r.fail() == nil && d.err == nil {
			d.err = err
		}
		return
	}
	v.SetBytes(data)
}

// count takes one element from the budget.
func (d *decoder) count() bool {
	if d.elements++; d.elements > maxElements {
		d.refuse("The request has more than %d list and map elements", maxElements)
	}
	return d.ok()
}

func (d *decoder) list(p *plan, v reflect.Value) (vs []Violation) {
	v.Set(reflect.MakeSlice(p.typ, 0, 0))
	n := d.r.enter()
	for i := 0; d.r.more(n, i, kindList); i++ {
		if !d.count() {
			return nil
		}
		if i == v.Cap() {
			v.Grow(max(4, min(i, 1024)))
		}
		v.SetLen(i + 1)
		present, inner := d.value(p.elem, v.Index(i))
		switch {
		case !present:
			inner = []Violation{{Value: Null, Constraint: MustNotBeNull}}
		case !p.elem.scalar():
			inner = p.elem.check(inner, indirect(v.Index(i)), "")
		}
		vs = under(vs, strconv.Itoa(i+1)+".member", inner)
		if !d.ok() {
			return nil
		}
	}
	return vs
}

func (d *decoder) mapping(p *plan, v reflect.Value) (vs []Violation) {
	v.Set(reflect.MakeMap(p.typ))
	n := d.r.enter()
	for i := 0; d.r.more(n, i, kindMap); i++ {
		if !d.count() {
			return nil
		}
		key := string(d.r.key())
		elem := reflect.New(p.typ.Elem()).Elem()
		present, inner := d.value(p.elem, elem)
		if !d.ok() {
			return nil
		}
		if !present {
			continue
		}
		if !p.elem.scalar() {
			inner = p.elem.check(inner, indirect(elem), "")
		}
		vs = under(vs, key+".member", inner)
		v.SetMapIndex(reflect.ValueOf(key).Convert(p.typ.Key()), elem)
	}
	return vs
}

func (d *decoder) structure(p *plan, v reflect.Value) (vs []Violation) {
	present := make([]bool, len(p.fields))
	var inner [][]Violation // by field; nil while there is none
	n := d.r.enter()
	for i := 0; d.r.more(n, i, kindMap); i++ {
		at, known := p.byName[string(d.r.key())]
		if !known {
			d.r.skip()
			continue
		}
		f := &p.fields[at]
		field := v.Field(f.index)
		field.SetZero() // of a member that comes twice the last counts
		there, found := d.value(f.plan, field)
		if !d.ok() {
			return nil
		}
		present[at] = there
		if inner == nil && found != nil {
			inner = make([][]Violation, len(p.fields))
		}
		if inner != nil {
			inner[at] = found
		}
	}
	for i := range p.fields {
		f := &p.fields[i]
		switch {
		case present[i]:
			vs = f.check(vs, indirect(v.Field(f.index)), lowerFirst(f.name))
			if inner != nil {
				vs = under(vs, lowerFirst(f.name), inner[i])
			}
		case f.required:
			vs = append(vs, Violation{Value: Null, Path: lowerFirst(f.name), Constraint: MustNotBeNull})
		}
	}
	return vs
}

func indirect(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		return v.Elem()
	}
	return v
}

// under appends inner to vs with their paths put below path.
func under(vs []Violation, path string, inner []Violation) []Violation {
	for _, v := range inner {
		if v.Path == "" {
			v.Path = path
		} else {
			v.Path = path + "." + v.Path
		}
		vs = append(vs, v)
	}
	return vs
}

func (p *plan) accepts(kind valueKind, enc Encoding) bool {
	switch p.kind {
	case planText:
		return kind == kindText
	case planBool:
		return kind == kindBool
	case planInt, planFloat:
		return kind == kindNumber
	case planBlob:
		return enc == JSON && kind == kindText || kind == kindBytes
	case planTime:
		return kind == kindTime || kind == kindNumber
	case planList:
		return kind == kindList
	}
	return kind == kindMap
}

// mismatch records that a value is of the wrong type, in the front end's own words.
func (d *decoder) mismatch(p *plan, kind valueKind) {
	switch {
	case kind == kindList:
		d.refuse("Start of list found where not expected")
		return
	case kind == kindMap:
		d.refuse("Start of structure or map found where not expected.")
		return
	case p.kind == planList:
		d.refuse("Expected list or null")
		return
	case p.kind == planMap:
		d.refuse("Expected map or null")
		return
	case p.kind == planStruct:
		d.refuse("Expected null")
		return
	case p.kind == planBool && kind == kindText:
		d.refuse("'%s' can not be converted to an Boolean", strings.ToUpper(string(d.r.text())))
		return
	}
	from := map[valueKind]string{
		kindBool: "java.lang.Boolean", kindNumber: "java.math.BigDecimal", kindText: "java.lang.String",
		kindBytes: "java.nio.ByteBuffer", kindTime: "java.util.Date",
	}[kind]
	d.refuse("class %s can not be converted to %s", from, p.javaName())
}

func (p *plan) javaName() string {
	switch p.kind {
	case planText:
		return "an String"
	case planBool:
		return "an Boolean"
	case planFloat:
		return "an Double"
	case planBlob:
		return "a Blob"
	case planTime:
		return "milliseconds since epoch"
	}
	if p.typ.Kind() == reflect.Int64 {
		return "an Long"
	}
	return "an Integer"
}
