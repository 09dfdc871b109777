package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	bytesType    = reflect.TypeFor[Bytes]()
	settingsType = reflect.TypeFor[Settings]()
)

// leaf says whether a value of type t is written as one scalar.
func leaf(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64, reflect.String:
		return true
	case reflect.Slice:
		return t.Elem().Kind() == reflect.String || t == settingsType
	}
	return false
}

// fieldsOf returns the fields of a struct type that are keys of the file, those
// of embedded structs among them.
func fieldsOf(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if key := keyOf(f); key != "" && key != "-" {
			out = append(out, f)
		}
	}
	return out
}

// keyOf returns the field's key in the file.
func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key
}

// join appends a key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// visitor is called with each leaf.
type visitor func(path string, field reflect.StructField, v reflect.Value)

// walk calls fn for each leaf under v, in the order of the tree.
func walk(v reflect.Value, path string, fn visitor) {
	walkLists(v, path, fn, func(string, reflect.Value) {})
}

// walkLists is walk that calls empty for each list without elements, with an element
// as it is when the file says nothing about it.
func walkLists(v reflect.Value, path string, fn visitor, empty func(path string, element reflect.Value)) {
	for _, field := range fieldsOf(v.Type()) {
		fv, fp := v.FieldByIndex(field.Index), join(path, keyOf(field))
		switch {
		case leaf(fv.Type()):
			fn(fp, field, fv)
		case fv.Kind() == reflect.Struct:
			walkLists(fv, fp, fn, empty)
		case fv.Kind() == reflect.Slice:
			for j := range fv.Len() {
				walkLists(fv.Index(j), fp+"["+strconv.Itoa(j)+"]", fn, empty)
			}
			if fv.Len() == 0 {
				empty(fp, newElement(fv.Type().Elem()))
			}
		}
	}
}

// newElement returns an addressable element of a list with its defaults.
func newElement(t reflect.Type) reflect.Value {
	element := reflect.New(t).Elem()
	if d, ok := element.Addr().Interface().(interface{ setDefaults() }); ok {
		d.setDefaults()
	}
	return element
}

// setText sets the scalar v from the text of a file or of the environment.
func setText(v reflect.Value, text string) error {
	switch v.Type() {
	case durationType:
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
		return nil
	case bytesType:
		b, err := ParseBytes(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(b))
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		switch text {
		case "true", "false":
			v.SetBool(text == "true")
			return nil
		}
		return fmt.Errorf("%q is not a switch; expecting true or false", text)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
	case reflect.String:
		v.SetString(text)
	case reflect.Slice:
		v.SetZero()
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				v.Set(reflect.Append(v, reflect.ValueOf(part).Convert(v.Type().Elem())))
			}
		}
	}
	return nil
}

// text writes the leaf v as setText reads it, a secret as ***.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case fmt.Stringer:
		return x.String()
	case []string:
		return strings.Join(x, ", ")
	}
	return fmt.Sprint(v.Interface())
}

// bounds checks the leaf v against the field's min, max and oneof. The tags are
// in the field's own notation; one that does not parse is a bug of the tree.
func bounds(field reflect.StructField, v reflect.Value) error {
	if list := field.Tag.Get("oneof"); list != "" {
		for name := range strings.SplitSeq(list, ",") {
			if v.String() == name {
				return nil
			}
		}
		return fmt.Errorf("%q is unknown; expecting one of %s", v.String(), strings.ReplaceAll(list, ",", ", "))
	}
	for _, b := range []struct {
		tag, text string
		wrong     func(value, bound float64) bool
	}{
		{"min", "below", func(value, bound float64) bool { return value < bound }},
		{"max", "above", func(value, bound float64) bool { return value > bound }},
	} {
		limit, ok := field.Tag.Lookup(b.tag)
		if !ok {
			continue
		}
		bound := reflect.New(v.Type()).Elem()
		if err := setText(bound, limit); err != nil {
			panic(fmt.Sprintf("BUG: config field %s: tag %s: %v", field.Name, b.tag, err))
		}
		if b.wrong(number(v), number(bound)) {
			return fmt.Errorf("%s is %s %s", text(v), b.text, limit)
		}
	}
	return nil
}

func number(v reflect.Value) float64 {
	if v.Kind() == reflect.Float64 {
		return v.Float()
	}
	return float64(v.Int())
}

// closest returns the known key that is most like the unknown one, when one is
// near enough to be a slip of the hand.
func closest(unknown string, known []string) string {
	best, distance := "", len(unknown)/3+2
	for _, k := range known {
		if d := editDistance(unknown, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
