package delivery

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/itchyny/gojq"
)

// paths is a query whose values are plain paths, {site: .site, id: .device.id},
// as most are, or are made of nothing but them, {day: (.ts | strftime("%d")), at:
// "\(.site)-\(.n % 100)"}. Those are read by looking at the record's bytes once,
// without making a document of it; what is made of them is computed by gojq from
// their values alone, once for each that repeats. Whatever is not plain about a
// record is left to gojq whole, so that both ways have the same outcome.
type paths struct {
	root   *pathNode
	marks  uint // given out
	places int  // where values are read
	values []pathValue
}

// pathValue is one value of the query: what is read at a place, or what is made
// of what is read at several.
type pathValue struct {
	place int
	then  *gojq.Code // of a pathRun; nil: it is as it is read
	from  []int      // places that are its variables
}

// pathStep is a member of an object or, with element set, an element of an array.
type pathStep struct {
	name    string
	index   int
	element bool
}

// pathNode is a place in documents that values are read from, or below.
type pathNode struct {
	steps []pathStep
	nodes []*pathNode
	value int  // number of the place that is read here; -1: none
	mark  uint // its bit in pathScan.met
}

// maxPathNodes is how many places a pathScan can mark.
const maxPathNodes = 64

// maxPathDepth bounds how deep documents are looked at: deeper ones are
// gojq's.
const maxPathDepth = 64

// plainPaths returns the paths of an object construction; nil when some value
// is not made of them.
func plainPaths(q *gojq.Query, names []string) *paths {
	if q.Meta != nil || len(q.Imports) > 0 || len(q.FuncDefs) > 0 || len(q.Term.SuffixList) > 0 {
		return nil
	}
	p := &paths{root: &pathNode{value: -1}}
	for i, kv := range q.Term.Object.KeyVals {
		if strings.HasPrefix(kv.Key, "$") || kv.KeyString != nil && kv.KeyString.Queries != nil || slices.Contains(names[:i], names[i]) {
			return nil
		}
		v, ok := p.value(kv.Val, names[i])
		if !ok {
			return nil
		}
		p.values = append(p.values, v)
	}
	return p
}

// value adds the value that q is; a nil one is the member of that name.
func (p *paths) value(q *gojq.Query, name string) (v pathValue, ok bool) {
	if q == nil {
		v.place, ok = p.place([]pathStep{{name: name}})
		return v, ok
	}
	for isPlain(q) && q.Term != nil && q.Term.Type == gojq.TermTypeQuery && len(q.Term.SuffixList) == 0 {
		q = q.Term.Query // parentheses
	}
	if isPlain(q) && q.Term != nil {
		if steps, rest := pathSteps(q.Term); steps != nil && len(rest) == 0 {
			v.place, ok = p.place(steps)
			return v, ok
		}
	}
	own, err := gojq.Parse(q.String()) // it is changed, and q is still to be compiled
	if err != nil {
		return v, false
	}
	l := lifter{paths: p}
	if !l.query(own) || len(l.from) == 0 {
		return v, false
	}
	v.from = l.from
	v.then, err = compileRun(own.String(), l.names)
	return v, err == nil
}

// isPlain says whether q is an expression and nothing besides.
func isPlain(q *gojq.Query) bool {
	return q.Meta == nil && len(q.Imports) == 0 && len(q.FuncDefs) == 0 && len(q.Patterns) == 0
}

// place is where what is at a path is read; false when it can't be told from what
// is read above or below it, or when there are too many.
func (p *paths) place(steps []pathStep) (int, bool) {
	at := p.root
	for _, s := range steps {
		if !s.element && s.name == "" || strings.ContainsAny(s.name, "\\\"\ufffd") || !utf8.ValidString(s.name) || at.value >= 0 {
			return 0, false
		}
		if at = at.child(s, &p.marks); p.marks > maxPathNodes {
			return 0, false
		}
	}
	if len(at.steps) > 0 {
		return 0, false
	}
	if at.value < 0 {
		at.value = p.places
		p.places++
	}
	return at.value, true
}

// lifter replaces the paths in an expression by variables. What is left of it
// must not look at the record in any other way.
type lifter struct {
	paths *paths
	names []string // of the variables
	from  []int    // their places
}

func (l *lifter) query(q *gojq.Query) bool {
	switch {
	case q == nil:
		return true
	case !isPlain(q):
		return false
	case q.Term != nil:
		return l.term(q.Term)
	}
	switch q.Op {
	case gojq.OpPipe:
		return l.query(q.Left) // and that is what the right one looks at
	case gojq.OpAdd, gojq.OpSub, gojq.OpMul, gojq.OpDiv, gojq.OpMod, gojq.OpEq, gojq.OpNe, gojq.OpGt, gojq.OpLt, gojq.OpGe, gojq.OpLe,
		gojq.OpAnd, gojq.OpOr, gojq.OpAlt:
		return l.query(q.Left) && l.query(q.Right)
	}
	return false
}

// elements is query for what makes an array, in which there may be several values.
func (l *lifter) elements(q *gojq.Query) bool {
	if q != nil && isPlain(q) && q.Term == nil && q.Op == gojq.OpComma {
		return l.elements(q.Left) && l.elements(q.Right)
	}
	return l.query(q)
}

func (l *lifter) term(t *gojq.Term) bool {
	ok := false
	switch t.Type {
	case gojq.TermTypeIndex:
		ok = l.path(t)
	case gojq.TermTypeNull, gojq.TermTypeTrue, gojq.TermTypeFalse, gojq.TermTypeNumber:
		ok = true
	case gojq.TermTypeQuery:
		ok = l.query(t.Query)
	case gojq.TermTypeUnary:
		ok = l.term(t.Unary.Term)
	case gojq.TermTypeArray:
		ok = l.elements(t.Array.Query)
	case gojq.TermTypeTry:
		ok = t.Try.Catch == nil && l.query(t.Try.Body) // what is caught is no path of the record
	case gojq.TermTypeString, gojq.TermTypeFormat:
		ok = t.Str != nil
		for i := 0; ok && i < len(t.Str.Queries); i++ {
			ok = l.query(t.Str.Queries[i])
		}
	case gojq.TermTypeIf:
		ok = t.If.Else != nil && l.query(t.If.Cond) && l.query(t.If.Then) && l.query(t.If.Else)
		for i := 0; ok && i < len(t.If.Elif); i++ {
			ok = l.query(t.If.Elif[i].Cond) && l.query(t.If.Elif[i].Then)
		}
	}
	for i := 0; ok && i < len(t.SuffixList); i++ {
		s := t.SuffixList[i]
		// A part of a text; anything else is of an array or an object.
		ok = s.Index != nil && s.Index.IsSlice && !s.Iter && !s.Optional && l.query(s.Index.Start) && l.query(s.Index.End)
	}
	return ok
}

// path makes a variable of the path that t begins with.
func (l *lifter) path(t *gojq.Term) bool {
	steps, rest := pathSteps(t)
	if steps == nil {
		return false
	}
	place, ok := l.paths.place(steps)
	if !ok {
		return false
	}
	i := slices.Index(l.from, place)
	if i < 0 {
		i = len(l.from)
		l.from, l.names = append(l.from, place), append(l.names, "$__path"+strconv.Itoa(i))
	}
	*t = gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: l.names[i]}, SuffixList: rest}
	return true
}

// pathSteps are the steps of .a.b[0], and what comes after it; nil when t is none. A ? has no part in
// it: where it would have an effect, the record isn't plain.
func pathSteps(t *gojq.Term) (steps []pathStep, rest []*gojq.Suffix) {
	if t.Type != gojq.TermTypeIndex {
		return nil, nil
	}
	step, ok := stepOf(t.Index)
	if !ok || step.element {
		return nil, nil
	}
	steps = append(steps, step)
	for i, s := range t.SuffixList {
		if s.Optional && s.Index == nil && !s.Iter {
			continue
		}
		if step, ok = stepOf(s.Index); !ok || s.Iter || s.Optional {
			return steps, t.SuffixList[i:]
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// stepOf is the step in .a, ."a", .["a"] or .[0].
func stepOf(x *gojq.Index) (pathStep, bool) {
	switch {
	case x == nil || x.End != nil || x.IsSlice:
		return pathStep{}, false
	case x.Start != nil:
		t := x.Start.Term
		if !isPlain(x.Start) || x.Start.Left != nil || t == nil || len(t.SuffixList) > 0 {
			return pathStep{}, false
		}
		if t.Type == gojq.TermTypeNumber {
			i, err := strconv.ParseUint(t.Number, 10, 16)
			return pathStep{index: int(i), element: true}, err == nil
		}
		if t.Type != gojq.TermTypeString || t.Str.Queries != nil {
			return pathStep{}, false
		}
		return pathStep{name: t.Str.Str}, true
	case x.Str != nil:
		return pathStep{name: x.Str.Str}, x.Str.Queries == nil
	}
	return pathStep{name: x.Name}, x.Name != ""
}

func (n *pathNode) child(s pathStep, marks *uint) *pathNode {
	if i := slices.Index(n.steps, s); i >= 0 {
		return n.nodes[i]
	}
	c := &pathNode{value: -1, mark: *marks}
	*marks++
	n.steps, n.nodes = append(n.steps, s), append(n.nodes, c)
	return c
}

// pathReader reads the values of records one after the other.
type pathReader struct {
	paths  *paths
	time   *queryTimer
	values [][]byte
	places []pathText
	args   []any
	key    []byte
	runs   []pathRun         // of the values that are computed
	made   map[string][]byte // what gojq made of what was read, by what was read
}

func newPathReader(p *paths, t *queryTimer) *pathReader {
	return &pathReader{
		paths: p, time: t, values: make([][]byte, len(p.values)), places: make([]pathText, p.places),
		runs: make([]pathRun, len(p.values)), made: map[string][]byte{},
	}
}

// read returns the texts of the values of a record, valid until the next call, and
// whether it could: false means that gojq has to look at the record. Values that
// are texts are slices of data.
func (r *pathReader) read(data []byte) ([][]byte, bool) {
	clear(r.places)
	s := pathScan{data: data, values: r.places}
	s.space()
	if !s.object(r.paths.root, 0) {
		return nil, false
	}
	s.space()
	if s.at != len(data) {
		return nil, false
	}
	for i := range r.places {
		if len(r.places[i].text) == 0 {
			return nil, false
		}
	}
	for i := range r.paths.values {
		v := &r.paths.values[i]
		if v.then == nil {
			r.values[i] = r.places[v.place].text
			continue
		}
		text, ok := r.compute(byte(i), v)
		if !ok {
			return nil, false
		}
		r.values[i] = text
	}
	return r.values, true
}

// compute is what the i-th value is made to be of what was read.
func (r *pathReader) compute(i byte, v *pathValue) ([]byte, bool) {
	r.key = append(r.key[:0], i)
	for _, n := range v.from {
		r.key = r.places[n].appendKey(r.key)
	}
	if text, known := r.made[string(r.key)]; known {
		return text, true
	}
	r.args = r.args[:0]
	for _, n := range v.from {
		value, ok := r.places[n].value()
		if !ok {
			return nil, false
		}
		r.args = append(r.args, value)
	}
	out, ok := r.runs[i].one(r.time.context(), v.then, r.args)
	if !ok {
		return nil, false
	}
	text, err := keyText(out)
	if err != nil {
		return nil, false
	}
	made := []byte(text)
	if len(r.made) < maxSeen && len(r.key)+len(made) <= maxSeenBytes {
		r.made[string(r.key)] = made
	}
	return made, true
}

// pathRun is a value's program under way: the values of one record after the other go
// into it, since to begin a program for each allocates a kilobyte. The zero value is ready.
type pathRun struct {
	ctx     context.Context
	results gojq.Iter // nil: to be begun
	args    []any     // of the next record
	asked   bool      // they were taken
}

// endOfRow comes from a program when a record has had all its results.
var endOfRow any = new(struct{ _ byte })

// compileRun compiles an expression of variables for a pathRun.
func compileRun(expression string, names []string) (*gojq.Code, error) {
	q, err := gojq.Parse("__rows($__run) as [" + strings.Join(names, ", ") + "] | (" + expression + "), __end")
	if err != nil {
		return nil, err
	}
	return gojq.Compile(q, gojq.WithVariables([]string{"$__run"}),
		gojq.WithIterFunction("__rows", 1, 1, func(_ any, args []any) gojq.Iter { return args[0].(*pathRun) }),
		gojq.WithFunction("__end", 0, 0, func(any, []any) any { return endOfRow }))
}

// Next gives the program the values of a record; gojq asks.
func (r *pathRun) Next() (any, bool) {
	if r.asked {
		return nil, false
	}
	r.asked = true
	return r.args, true
}

// one returns what code makes of a record's values; false unless that is one result.
func (r *pathRun) one(ctx context.Context, code *gojq.Code, args []any) (out any, ok bool) {
	r.args, r.asked = args, false
	if r.results == nil || r.ctx != ctx {
		r.ctx, r.results = ctx, code.RunWithContext(ctx, nil, r)
	}
	out, ok = r.results.Next()
	if _, failed := out.(error); ok && !failed && out != endOfRow {
		if end, more := r.results.Next(); more && end == endOfRow {
			return out, true
		}
	}
	r.results = nil // wherever it is
	return nil, false
}

// pathText is a value that was read: its text, and whether that is a string's.
type pathText struct {
	text   []byte
	quoted bool
}

// appendKey appends the value so that no two lists of values are alike.
func (p *pathText) appendKey(b []byte) []byte {
	kind := byte('v')
	if p.quoted {
		kind = 's'
	}
	b = binary.AppendUvarint(append(b, kind), uint64(len(p.text)))
	return append(b, p.text...)
}

// value is what gojq takes for it.
func (p *pathText) value() (any, bool) {
	switch {
	case p.quoted:
		return string(p.text), true
	case p.text[0] == 't' || p.text[0] == 'f':
		return p.text[0] == 't', true
	}
	f, err := strconv.ParseFloat(string(p.text), 64)
	return f, err == nil
}

// pathScan is a pass over a document. Its methods return false at anything
// that isn't JSON (RFC 8259), or that they don't decide about.
type pathScan struct {
	data   []byte
	at     int
	values []pathText
	met    uint64 // places met so far: gojq decides about one that is met twice
}

func (s *pathScan) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *pathScan) take(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// object reads an object that stands at node; nil: nothing of it is wanted.
func (s *pathScan) object(node *pathNode, depth int) bool {
	if depth > maxPathDepth || !s.take('{') {
		return false
	}
	s.space()
	if s.take('}') {
		return true
	}
	for {
		key, ok := s.text()
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		var below *pathNode
		if node != nil {
			for i := range node.steps {
				if node.steps[i].element {
					return false // what is asked of an array
				}
				if string(key) == node.steps[i].name {
					below = node.nodes[i]
				}
			}
		}
		if below != nil {
			if s.met&(1<<below.mark) != 0 {
				return false
			}
			s.met |= 1 << below.mark
		}
		if !s.value(below, depth+1) {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// value reads a value that stands at node.
func (s *pathScan) value(node *pathNode, depth int) bool {
	if s.at >= len(s.data) {
		return false
	}
	begin := s.at
	switch c := s.data[s.at]; {
	case c == '{':
		if node != nil && node.value >= 0 {
			return false // a key that is no text, number or boolean
		}
		return s.object(node, depth)
	case c == '[':
		if node != nil && node.value >= 0 {
			return false // the same
		}
		return s.array(node, depth)
	case node != nil && node.value < 0:
		return false // a path leads into what is neither an object nor an array
	case c == '"':
		text, ok := s.text()
		if !ok || node != nil && !utf8.Valid(text) {
			return false
		}
		if node != nil {
			s.values[node.value] = pathText{text, true}
		}
		return true
	case c == 't':
		return s.literal("true") && s.found(node, s.data[begin:s.at])
	case c == 'f':
		return s.literal("false") && s.found(node, s.data[begin:s.at])
	case c == 'n':
		return node == nil && s.literal("null")
	default:
		if !s.number() {
			return false
		}
		if node != nil {
			return s.found(node, canonical(s.data[begin:s.at]))
		}
		return true
	}
}

// found notes a value that is no string.
func (s *pathScan) found(node *pathNode, text []byte) bool {
	if node != nil {
		s.values[node.value] = pathText{text: text}
	}
	return true
}

// array reads an array that stands at node; nil: nothing of it is wanted.
func (s *pathScan) array(node *pathNode, depth int) bool {
	if depth > maxPathDepth || !s.take('[') {
		return false
	}
	s.space()
	if s.take(']') {
		return true
	}
	for n := 0; ; n++ {
		var below *pathNode
		if node != nil {
			for i := range node.steps {
				if !node.steps[i].element {
					return false // what is asked of an object
				}
				if n == node.steps[i].index {
					below = node.nodes[i]
				}
			}
		}
		if !s.value(below, depth+1) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// text reads a string without escapes and returns what is between its quotes.
func (s *pathScan) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	begin := s.at
	for i, c := range s.data[begin:] {
		switch {
		case c == '"':
			s.at = begin + i + 1
			return s.data[begin : begin+i], true
		case c == '\\' || c < ' ':
			return nil, false
		}
	}
	return nil, false
}

func (s *pathScan) literal(word string) bool {
	if len(s.data)-s.at < len(word) || string(s.data[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

func (s *pathScan) digits() bool {
	begin := s.at
	for s.at < len(s.data) && s.data[s.at] >= '0' && s.data[s.at] <= '9' {
		s.at++
	}
	return s.at > begin
}

// maxPathNumber is the longest number that is decided about here.
const maxPathNumber = 64

// number reads a number without an exponent.
func (s *pathScan) number() bool {
	begin := s.at
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.at < len(s.data) && (s.data[s.at] == 'e' || s.data[s.at] == 'E') {
		return false
	}
	return s.at-begin <= maxPathNumber
}

// canonical is a number as gojq's would be written: through a float64.
func canonical(text []byte) []byte {
	const exact = 15 // decimal digits that a float64 keeps
	if len(text) <= exact && text[0] != '-' {
		plain := true
		for _, c := range text {
			plain = plain && c != '.'
		}
		if plain {
			return text
		}
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return nil
	}
	return strconv.AppendFloat(nil, f, 'f', -1, 64)
}
