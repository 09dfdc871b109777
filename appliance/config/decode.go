package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFileBytes bounds the configuration file. A tree of this size is far past
// any real one; a larger file is a wrong file.
const maxFileBytes = 1 << 20

// decoder fills the tree from a parsed file. It goes on after a problem, so
// that one run reports all of them.
type decoder struct {
	source   string
	refs     *references
	problems Problems
	origins  map[string]string
}

// decode fills tree, a pointer to a struct, from the YAML text and what it refers
// to, and returns the origin ("file:line") of each leaf that it set.
func decode(tree any, source string, data []byte, refs *references) (map[string]string, Problems) {
	d := &decoder{source: source, refs: refs, origins: map[string]string{}}
	if len(data) > maxFileBytes {
		d.add(0, "", fmt.Sprintf("the file has %d bytes; expecting at most %d", len(data), maxFileBytes))
		return nil, d.problems
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.syntax(err)
		return nil, d.problems
	}
	found := false
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		switch doc.Body.(type) {
		case *ast.DirectiveNode, *ast.CommentGroupNode:
			continue
		}
		if found {
			d.add(lineOf(doc.Body), "", "a second document begins; expecting one document")
			return nil, d.problems
		}
		found = true
		d.value(reflect.ValueOf(tree).Elem(), "", doc.Body)
	}
	return d.origins, d.problems
}

func (d *decoder) add(line int, path, text string) {
	d.problems = append(d.problems, Problem{Source: d.source, Line: line, Path: path, Text: text})
}

// syntax reports an error of the parser, which carries a picture of the place;
// only its first line and the position are kept.
func (d *decoder) syntax(err error) {
	line, message := 0, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		message = y.GetMessage()
		if tok := y.GetToken(); tok != nil && tok.Position != nil {
			line = tok.Position.Line
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	d.add(line, "", "not YAML: "+message)
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

const notPlain = "anchors, aliases and tags are not read here; expecting plain YAML"

// plain looks for what is not plain in what is read as a whole: a few hundred
// bytes of aliases expand to gigabytes.
type plain struct{ except ast.Node }

// Visit is called for a node of a tree, and for those below as long as it returns p.
func (p *plain) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		p.except = n
	}
	if p.except != nil {
		return nil
	}
	return p
}

// value sets v from the node. A null leaves the default.
func (d *decoder) value(v reflect.Value, path string, n ast.Node) {
	switch x := n.(type) {
	case *ast.NullNode:
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		d.add(lineOf(n), path, notPlain)
		return
	case *ast.MappingValueNode:
		d.value(v, path, &ast.MappingNode{BaseNode: x.BaseNode, Start: x.GetToken(), Values: []*ast.MappingValueNode{x}})
		return
	}
	switch {
	case v.Type() == settingsType:
		d.settings(v, path, n)
	case v.Kind() == reflect.Slice:
		d.sequence(v, path, n)
	case leaf(v.Type()):
		d.scalar(v, path, n)
	default:
		d.mapping(v, path, n)
	}
}

func (d *decoder) mapping(v reflect.Value, path string, n ast.Node) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.add(lineOf(n), path, fmt.Sprintf("%s; expecting a mapping of keys", describe(n)))
		return
	}
	var known []string
	fields := map[string]reflect.Value{}
	for _, f := range fieldsOf(v.Type()) {
		known = append(known, keyOf(f))
		fields[keyOf(f)] = v.FieldByIndex(f.Index)
	}
	for _, pair := range m.Values {
		key, ok := pair.Key.(*ast.StringNode)
		if !ok {
			d.add(lineOf(pair), path, fmt.Sprintf("%s as a key; expecting a name", describe(pair.Key)))
			continue
		}
		field, ok := fields[key.Value]
		if !ok {
			d.unknown(lineOf(key), join(path, key.Value), key.Value, known)
			continue
		}
		d.value(field, join(path, key.Value), pair.Value)
	}
}

func (d *decoder) unknown(line int, path, key string, known []string) {
	if near := closest(key, known); near != "" {
		d.add(line, path, fmt.Sprintf("unknown key; did you mean %q?", near))
		return
	}
	known = slices.Sorted(slices.Values(known))
	d.add(line, path, "unknown key; expecting one of "+strings.Join(known, ", "))
}

func (d *decoder) sequence(v reflect.Value, path string, n ast.Node) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.add(lineOf(n), path, fmt.Sprintf("%s; expecting a list", describe(n)))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(s.Values)))
	for i, item := range s.Values {
		at := path + "[" + strconv.Itoa(i) + "]"
		element := newElement(v.Type().Elem())
		d.value(element, at, item)
		v.Set(reflect.Append(v, element))
	}
	d.origins[path] = d.source + ":" + strconv.Itoa(lineOf(n))
}

// settings keeps a mapping as JSON, for the package that knows its keys.
func (d *decoder) settings(v reflect.Value, path string, n ast.Node) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.add(lineOf(n), path, fmt.Sprintf("%s; expecting a mapping of keys", describe(n)))
		return
	}
	var p plain
	if ast.Walk(&p, n); p.except != nil {
		d.add(lineOf(p.except), path, notPlain)
		return
	}
	var value map[string]any
	if err := yaml.NodeToValue(n, &value); err != nil {
		d.add(lineOf(n), path, "expecting a mapping of keys")
		return
	}
	lines := map[string]int{}
	for _, pair := range m.Values {
		lines[join(path, pair.Key.GetToken().Value)] = lineOf(pair.Key)
	}
	d.refs.values(value, path, func(at string, err error) {
		line := lineOf(n)
		for key, l := range lines {
			if at == key || strings.HasPrefix(at, key+".") || strings.HasPrefix(at, key+"[") {
				line = l
			}
		}
		d.add(line, at, err.Error())
	})
	data, err := json.Marshal(value)
	if err != nil {
		d.add(lineOf(n), path, "can't be written as JSON: "+err.Error())
		return
	}
	v.SetBytes(data)
	d.origins[path] = d.source + ":" + strconv.Itoa(lineOf(n))
	for key, line := range lines {
		d.origins[key] = d.source + ":" + strconv.Itoa(line)
	}
}

func (d *decoder) scalar(v reflect.Value, path string, n ast.Node) {
	var text string
	switch x := n.(type) {
	case *ast.StringNode:
		text = x.Value
	case *ast.LiteralNode:
		text = x.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = n.GetToken().Value
	default:
		d.add(lineOf(n), path, fmt.Sprintf("%s; expecting one value", describe(n)))
		return
	}
	text, err := d.refs.value(text)
	if err == nil {
		err = setText(v, text)
	}
	if err != nil {
		d.add(lineOf(n), path, err.Error())
		return
	}
	d.origins[path] = d.source + ":" + strconv.Itoa(lineOf(n))
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return quoted(n.GetToken().Value)
}

// quoted writes a text for a message: it may be a whole file that is no YAML.
func quoted(text string) string {
	const most = 60 // bytes
	if len(text) > most {
		return strconv.Quote(strings.ToValidUTF8(text[:most], "")) + "…"
	}
	return strconv.Quote(text)
}
