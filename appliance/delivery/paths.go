package delivery

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/itchyny/gojq"
)

// paths is a query whose values are plain paths, {site: .site, id: .device.id},
// as most are, or begin with one, {day: (.ts | strftime("%d"))}. Those are read by
// looking at the record's bytes once, without making a document of it; what comes
// after a path is run by gojq on that value alone. Whatever is not plain about a
// record is left to gojq whole, so that both ways have the same outcome.
type paths struct {
	root   *pathNode
	places int // where values are read
	n      int // values
	values []pathValue
}

// pathValue is one value of the query.
type pathValue struct {
	place int
	then  *gojq.Code // what is made of it; nil: nothing
}

// pathNode is a place in documents that values are read from, or below.
type pathNode struct {
	names []string
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
// does not begin with one.
func plainPaths(q *gojq.Query, names []string) *paths {
	if q.Meta != nil || len(q.Imports) > 0 || len(q.FuncDefs) > 0 || len(q.Term.SuffixList) > 0 {
		return nil
	}
	p := &paths{root: &pathNode{value: -1}}
	marks := uint(0)
	for i, kv := range q.Term.Object.KeyVals {
		if strings.HasPrefix(kv.Key, "$") || kv.KeyString != nil && kv.KeyString.Queries != nil {
			return nil
		}
		steps, then := []string{names[i]}, (*gojq.Code)(nil)
		if kv.Val != nil {
			if steps, then = pathAndThen(kv.Val); steps == nil {
				return nil
			}
		}
		for j := range i {
			if names[j] == names[i] {
				return nil
			}
		}
		at := p.root
		for _, s := range steps {
			if s == "" || strings.ContainsAny(s, "\\\"\ufffd") || !utf8.ValidString(s) {
				return nil
			}
			if at.value >= 0 {
				return nil
			}
			if at = at.child(s, &marks); marks > maxPathNodes {
				return nil
			}
		}
		if len(at.names) > 0 {
			return nil // another value is read below
		}
		if at.value < 0 {
			at.value = p.places
			p.places++
		}
		p.values = append(p.values, pathValue{at.value, then})
		p.n++
	}
	return p
}

// pathAndThen takes .a.b | f apart: the names of the path, nil when there is none
// at the beginning, and what comes after it.
func pathAndThen(q *gojq.Query) (steps []string, then *gojq.Code) {
	steps, rest := splitPipe(q)
	if steps == nil || rest == nil {
		return steps, nil
	}
	then, err := gojq.Compile(rest)
	if err != nil {
		return nil, nil
	}
	return steps, then
}

func splitPipe(q *gojq.Query) (steps []string, rest *gojq.Query) {
	for q.Meta == nil && len(q.Imports) == 0 && len(q.FuncDefs) == 0 && q.Left == nil && q.Right == nil &&
		q.Term != nil && q.Term.Type == gojq.TermTypeQuery && len(q.Term.SuffixList) == 0 {
		q = q.Term.Query // parentheses
	}
	if q.Op != gojq.OpPipe || q.Left == nil || q.Right == nil || len(q.Patterns) > 0 || q.Meta != nil || len(q.Imports) > 0 || len(q.FuncDefs) > 0 {
		return pathSteps(q), nil
	}
	steps, rest = splitPipe(q.Left)
	if rest == nil {
		return steps, q.Right
	}
	return steps, &gojq.Query{Left: rest, Op: gojq.OpPipe, Right: q.Right}
}

// pathSteps are the names of .a.b, or nil.
func pathSteps(q *gojq.Query) []string {
	if q.Meta != nil || len(q.Imports) > 0 || len(q.FuncDefs) > 0 || q.Left != nil || q.Right != nil || q.Term == nil {
		return nil
	}
	t := q.Term
	if t.Type != gojq.TermTypeIndex {
		return nil
	}
	var steps []string
	index := []*gojq.Index{t.Index}
	for _, s := range t.SuffixList {
		if s.Index == nil || s.Iter || s.Optional {
			return nil
		}
		index = append(index, s.Index)
	}
	for _, x := range index {
		switch {
		case x.End != nil || x.IsSlice:
			return nil
		case x.Start != nil:
			text := x.Start.Term
			if text == nil || text.Type != gojq.TermTypeString || text.Str.Queries != nil || len(text.SuffixList) > 0 ||
				x.Start.Left != nil || len(x.Start.FuncDefs) > 0 {
				return nil
			}
			steps = append(steps, text.Str.Str)
		case x.Str != nil && x.Str.Queries == nil:
			steps = append(steps, x.Str.Str)
		case x.Str == nil && x.Name != "":
			steps = append(steps, x.Name)
		default:
			return nil
		}
	}
	return steps
}

func (n *pathNode) child(name string, marks *uint) *pathNode {
	for i, have := range n.names {
		if have == name {
			return n.nodes[i]
		}
	}
	c := &pathNode{value: -1, mark: *marks}
	*marks++
	n.names, n.nodes = append(n.names, name), append(n.nodes, c)
	return c
}

// read fills values with the texts of the paths' values and says whether it
// could: false means that gojq has to look at the record. places is memory for
// p.places of them. Values that are texts are slices of data.
func (p *paths) read(values [][]byte, places []pathText, data []byte) bool {
	clear(places)
	s := pathScan{data: data, values: places}
	s.space()
	if !s.object(p.root, 0) {
		return false
	}
	s.space()
	if s.at != len(data) {
		return false
	}
	for i, v := range p.values {
		from := &places[v.place]
		if len(from.text) == 0 {
			return false
		}
		if values[i] = from.text; v.then == nil {
			continue
		}
		text, ok := from.apply(v.then)
		if !ok {
			return false
		}
		values[i] = text
	}
	return true
}

// pathText is a value that was read: its text, and whether that is a string's.
type pathText struct {
	text   []byte
	quoted bool
}

// apply has gojq make a key of the value; false when that fails, or makes several.
func (p *pathText) apply(then *gojq.Code) ([]byte, bool) {
	var in any = string(p.text)
	if !p.quoted {
		switch p.text[0] {
		case 't', 'f':
			in = p.text[0] == 't'
		default:
			f, err := strconv.ParseFloat(string(p.text), 64)
			if err != nil {
				return nil, false
			}
			in = f
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), queryTime)
	defer cancel()
	results := then.RunWithContext(ctx, in)
	out, ok := results.Next()
	if !ok {
		return nil, false
	}
	text, err := keyText(out)
	if err != nil {
		return nil, false
	}
	if _, more := results.Next(); more {
		return nil, false
	}
	return []byte(text), true
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
			for i, name := range node.names {
				if string(key) == name {
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
	case node != nil && node.value < 0:
		return false // a path leads into what isn't an object
	case c == '[':
		return node == nil && s.array(depth)
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

func (s *pathScan) array(depth int) bool {
	if depth > maxPathDepth || !s.take('[') {
		return false
	}
	s.space()
	if s.take(']') {
		return true
	}
	for {
		if !s.value(nil, depth+1) {
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
