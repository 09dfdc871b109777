package aws

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Shape is the constraint table's row for one named shape of a service's model.
// The zero Shape constrains nothing.
type Shape struct {
	// Min and Max bound what Bound says for the type the shape is used for: a number's
	// value, a text's length in characters, a blob's in bytes, a list's or map's in entries.
	Min, Max Bound
	// Pattern is a regular expression that the whole text has to match.
	Pattern string
	// Enum lists the values a text may have.
	Enum []string
	// Member names the shape of a list's elements or a map's values, Key that of a
	// map's keys, if they are constrained.
	Member, Key string
}

// Bound is a limit that is included in what it allows; the zero Bound is none.
type Bound struct {
	set bool
	n   int64
}

// At returns the Bound n.
func At(n int64) Bound { return Bound{true, n} }

// Shapes is a constraint table by shape name.
type Shapes map[string]Shape

// Model is a service's constraint table together with the plans, made once per Go
// type, by which inputs are read and checked and outputs are written. It may be
// used from many goroutines.
type Model struct {
	shapes map[string]*shape
	mu     sync.RWMutex
	plans  map[planKey]*plan
}

type shape struct {
	Shape
	pattern     *regexp.Regexp
	member, key *shape
}

// NewModel compiles a table. A pattern that does not compile or a shape that is
// named and not there is a bug in the table: it panics.
func NewModel(shapes Shapes) *Model {
	m := &Model{shapes: map[string]*shape{}, plans: map[planKey]*plan{}}
	for name, s := range shapes {
		c := &shape{Shape: s}
		if s.Pattern != "" {
			c.pattern = regexp.MustCompile(`\A(?:` + s.Pattern + `)\z`)
		}
		m.shapes[name] = c
	}
	for _, c := range m.shapes {
		c.member, c.key = m.shape(c.Member), m.shape(c.Key)
	}
	return m
}

func (m *Model) shape(name string) *shape {
	if name == "" {
		return nil
	}
	s := m.shapes[name]
	if s == nil {
		panic("BUG: no shape named " + name)
	}
	return s
}

type planType uint8

const (
	planText planType = iota
	planBool
	planInt
	planFloat
	planBlob
	planTime
	planList
	planMap
	planStruct
)

// plan says how values of one Go type are read, checked and written.
type plan struct {
	kind   planType
	typ    reflect.Type // without the pointer
	ptr    bool         // a pointer to typ
	shape  *shape
	elem   *plan // of lists and maps
	fields []fieldPlan
	byName map[string]int
}

type fieldPlan struct {
	name      string
	index     int
	required  bool
	omitEmpty bool
	*plan
}

type planKey struct {
	typ   reflect.Type
	shape *shape
}

// planOf returns the plan of a type, making it when it is new.
func (m *Model) planOf(t reflect.Type) *plan {
	m.mu.RLock()
	p := m.plans[planKey{t, nil}]
	m.mu.RUnlock()
	if p != nil {
		return p
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.planLocked(t, nil)
}

var timeType = reflect.TypeFor[time.Time]()

func (m *Model) planLocked(t reflect.Type, s *shape) *plan {
	key := planKey{t, s}
	if p := m.plans[key]; p != nil {
		return p
	}
	p := &plan{typ: t, shape: s}
	m.plans[key] = p // before the members: types may contain themselves
	if t.Kind() == reflect.Pointer {
		p.ptr, p.typ = true, t.Elem()
	}
	switch k := p.typ.Kind(); {
	case p.typ == timeType:
		p.kind = planTime
	case k == reflect.String:
		p.kind = planText
	case k == reflect.Bool:
		p.kind = planBool
	case k == reflect.Int || k == reflect.Int32 || k == reflect.Int64:
		p.kind = planInt
	case k == reflect.Float64:
		p.kind = planFloat
	case k == reflect.Slice && p.typ.Elem().Kind() == reflect.Uint8:
		p.kind = planBlob
	case k == reflect.Slice || k == reflect.Map && p.typ.Key().Kind() == reflect.String:
		p.kind = planList
		if k == reflect.Map {
			p.kind = planMap
		}
		var member *shape
		if s != nil {
			member = s.member
		}
		p.elem = m.planLocked(p.typ.Elem(), member)
	case k == reflect.Struct:
		p.kind = planStruct
		m.planFieldsLocked(p)
	default:
		panic(fmt.Sprintf("BUG: type %v has no place in a service model", t))
	}
	return p
}

func (m *Model) planFieldsLocked(p *plan) {
	p.byName = map[string]int{}
	for f := range p.typ.Fields() {
		if !f.IsExported() {
			continue
		}
		fp := fieldPlan{name: f.Name, index: f.Index[0]}
		shapeName := ""
		for _, opt := range strings.Split(f.Tag.Get("aws"), ",") {
			key, value, _ := strings.Cut(opt, "=")
			switch key {
			case "":
			case "required":
				fp.required = true
			case "omitempty":
				fp.omitEmpty = true
			case "name":
				fp.name = value
			case "shape":
				shapeName = value
			default:
				panic(fmt.Sprintf("BUG: %v.%s: unknown aws option %q", p.typ, f.Name, opt))
			}
		}
		fp.plan = m.planLocked(f.Type, m.shape(shapeName))
		p.byName[fp.name] = len(p.fields)
		p.fields = append(p.fields, fp)
	}
}
