package aws

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxViolations is how many constraint violations one answer lists, as AWS does.
const maxViolations = 10

// maxShownBytes bounds how much of a refused value an error text repeats.
const maxShownBytes = 1024

// Violation is one constraint that a member does not satisfy.
type Violation struct {
	// Value is the value as Java prints it; Null for a member that is absent.
	Value string
	// Path is the member's place: "records.1.member.data".
	Path string
	// Constraint is what it should satisfy: "Member must not be null".
	Constraint string
}

// Null is the Value of an absent member.
const Null = "\x00null"

// Constraint texts that services need outside of the tables.
const (
	MustNotBeNull = "Member must not be null"
)

// ValidationError returns the error AWS answers for the violations.
func ValidationError(vs ...Violation) *Error {
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(vs)))
	b.WriteString(" validation error")
	if len(vs) > 1 {
		b.WriteByte('s')
	}
	b.WriteString(" detected: ")
	for i, v := range vs {
		if i > 0 {
			b.WriteString("; ")
		}
		if v.Value == Null {
			b.WriteString("Value null at '")
		} else {
			b.WriteString("Value '")
			b.WriteString(v.Value)
			b.WriteString("' at '")
		}
		b.WriteString(v.Path)
		b.WriteString("' failed to satisfy constraint: ")
		b.WriteString(v.Constraint)
	}
	return &Error{Kind: Validation, Message: b.String()}
}

// check appends to vs what v, at path, violates. v is the value behind the
// pointer, and it was present in the input.
func (p *plan) check(vs []Violation, v reflect.Value, path string) []Violation {
	s := p.shape
	if s == nil {
		return vs
	}
	add := func(constraint string) {
		if constraint != "" {
			vs = append(vs, Violation{Value: show(p, v), Path: path, Constraint: constraint})
		}
	}
	add(s.patternMiss(p, v))
	add(s.minMiss(p, v))
	add(s.maxMiss(p, v))
	add(s.enumMiss(p, v))
	if p.kind == planList && p.elem.scalar() && s.member != nil {
		for i := range v.Len() {
			if elemMisses(p.elem, s.member, v.Index(i)) {
				add("Member must satisfy constraint: " + s.member.all(p.elem))
				break
			}
		}
	}
	if p.kind == planMap {
		p.checkMap(v, add)
	}
	return vs
}

func (p *plan) checkMap(v reflect.Value, add func(string)) {
	key := &plan{kind: planText, typ: v.Type().Key()}
	var badKey, badValue bool
	for it := v.MapRange(); it.Next(); {
		badKey = badKey || p.shape.key != nil && elemMisses(key, p.shape.key, it.Key())
		badValue = badValue || p.shape.member != nil && p.elem.scalar() && elemMisses(p.elem, p.shape.member, it.Value())
	}
	if badKey {
		add("Map keys must satisfy constraint: " + p.shape.key.all(key))
	}
	if badValue {
		add("Map value must satisfy constraint: " + p.shape.member.all(p.elem))
	}
}

func (p *plan) scalar() bool { return p.kind < planList }

func elemMisses(p *plan, s *shape, v reflect.Value) bool {
	if p.ptr {
		if v.IsNil() {
			return false
		}
		v = v.Elem()
	}
	return s.patternMiss(p, v) != "" || s.minMiss(p, v) != "" || s.maxMiss(p, v) != "" || s.enumMiss(p, v) != ""
}

// size is what Min and Max are about, and whether that is a length.
func size(p *plan, v reflect.Value) (n int64, length bool) {
	switch p.kind {
	case planInt:
		return v.Int(), false
	case planText:
		return int64(utf8.RuneCountInString(v.String())), true
	case planBlob, planList, planMap:
		return int64(v.Len()), true
	}
	return 0, false
}

func (s *shape) minMiss(p *plan, v reflect.Value) string {
	if n, _ := size(p, v); !s.Min.set || n >= s.Min.n {
		return ""
	}
	return s.minText(p)
}

func (s *shape) minText(p *plan) string {
	if p.kind == planInt {
		return fmt.Sprintf("Member must have value greater than or equal to %d", s.Min.n)
	}
	return fmt.Sprintf("Member must have length greater than or equal to %d", s.Min.n)
}

func (s *shape) maxMiss(p *plan, v reflect.Value) string {
	if n, _ := size(p, v); !s.Max.set || n <= s.Max.n {
		return ""
	}
	return s.maxText(p)
}

func (s *shape) maxText(p *plan) string {
	if p.kind == planInt {
		return fmt.Sprintf("Member must have value less than or equal to %d", s.Max.n)
	}
	return fmt.Sprintf("Member must have length less than or equal to %d", s.Max.n)
}

func (s *shape) patternMiss(p *plan, v reflect.Value) string {
	if s.pattern == nil || p.kind != planText || s.pattern.MatchString(v.String()) {
		return ""
	}
	return "Member must satisfy regular expression pattern: " + s.Pattern
}

func (s *shape) enumMiss(p *plan, v reflect.Value) string {
	if len(s.Enum) == 0 || p.kind != planText {
		return ""
	}
	for _, e := range s.Enum {
		if e == v.String() {
			return ""
		}
	}
	return "Member must satisfy enum value set: [" + strings.Join(s.Enum, ", ") + "]"
}

// all is the shape's constraints in one bracket, the form for elements.
func (s *shape) all(p *plan) string {
	var all []string
	if s.Max.set {
		all = append(all, s.maxText(p))
	}
	if s.Min.set {
		all = append(all, s.minText(p))
	}
	if s.pattern != nil {
		all = append(all, "Member must satisfy regular expression pattern: "+s.Pattern)
	}
	if len(s.Enum) > 0 {
		all = append(all, "Member must satisfy enum value set: ["+strings.Join(s.Enum, ", ")+"]")
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// show prints a value as Java does, cut when it is long.
func show(p *plan, v reflect.Value) string {
	s := showAll(p, v)
	if len(s) > maxShownBytes {
		return strings.ToValidUTF8(s[:maxShownBytes], "") + "..."
	}
	return s
}

func showAll(p *plan, v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "null"
		}
		v = v.Elem()
	}
	switch p.kind {
	case planBlob:
		return fmt.Sprintf("java.nio.HeapByteBuffer[pos=0 lim=%d cap=%[1]d]", v.Len())
	case planTime:
		return v.Interface().(time.Time).UTC().Format(time.RFC3339Nano)
	case planStruct:
		return v.Type().Name()
	case planList:
		var b strings.Builder
		b.WriteByte('[')
		for i := 0; i < v.Len() && b.Len() <= maxShownBytes; i++ {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(showAll(p.elem, v.Index(i)))
		}
		return b.String() + "]"
	case planMap:
		var b strings.Builder
		b.WriteByte('{')
		for i, key := range sortedKeys(v) {
			if b.Len() > maxShownBytes {
				break
			}
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(key.String() + "=" + showAll(p.elem, v.MapIndex(key)))
		}
		return b.String() + "}"
	}
	return fmt.Sprint(v.Interface())
}

// lowerFirst makes a member's name the way validation errors write it.
func lowerFirst(s string) string {
	if s != "" && s[0] >= 'A' && s[0] <= 'Z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}
