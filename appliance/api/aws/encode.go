package aws

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// Encode appends v, a structure of the service's model or a pointer to one, to w.
func (m *Model) Encode(w *Writer, v any) {
	rv := reflect.ValueOf(v)
	encode(w, m.planOf(rv.Type()), rv)
}

func encode(w *Writer, p *plan, v reflect.Value) {
	if p.ptr {
		v = v.Elem()
	}
	switch p.kind {
	case planText:
		w.String(v.String())
	case planBool:
		w.Bool(v.Bool())
	case planInt:
		w.Int(v.Int())
	case planFloat:
		w.Float(v.Float())
	case planBlob:
		w.Blob(v.Bytes())
	case planTime:
		w.Time(v.Interface().(time.Time))
	case planList:
		w.BeginList()
		for i := range v.Len() {
			encode(w, p.elem, v.Index(i))
		}
		w.EndList()
	case planMap:
		w.BeginMap()
		for _, key := range sortedKeys(v) {
			w.Key(key.String())
			encode(w, p.elem, v.MapIndex(key))
		}
		w.EndMap()
	case planStruct:
		w.BeginMap()
		for i := range p.fields {
			f := &p.fields[i]
			field := v.Field(f.index)
			if f.absent(field) {
				continue
			}
			w.Key(f.name)
			encode(w, f.plan, field)
		}
		w.EndMap()
	}
}

// absent tells whether a member is left out of an answer.
func (f *fieldPlan) absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	}
	return (f.omitEmpty || f.kind == planTime) && v.IsZero()
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
