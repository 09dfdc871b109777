package manifest

import (
	"encoding/json"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Parse reads a manifest of at most MaxBytes. The error is a Problems with
// every problem found.
func Parse(text []byte) (*Manifest, error) {
	tree, err := decode(text)
	if err != nil {
		return nil, Problems{{Text: err.Error()}}
	}
	m := Default()
	p := &reader{}
	root := p.node("", tree)
	m.read(root)
	root.done()
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return &m, nil
}

// decode turns YAML into maps, slices and scalars. Anchors and aliases are
// refused: a few hundred bytes of them expand to gigabytes.
func decode(text []byte) (any, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%d bytes; expecting at most %d", len(text), MaxBytes)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errSyntax, firstLine(yaml.FormatError(err, false, false)))
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, fmt.Errorf("%d documents; expecting one with name, version and kind", len(file.Docs))
	}
	v := &shapeVisitor{}
	ast.Walk(v, file.Docs[0].Body)
	if v.bad != "" {
		return nil, fmt.Errorf("%s are not accepted", v.bad)
	}
	var tree any
	if err := yaml.NodeToValue(file.Docs[0].Body, &tree); err != nil {
		return nil, fmt.Errorf("%w: %s", errSyntax, firstLine(yaml.FormatError(err, false, false)))
	}
	return tree, nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

type shapeVisitor struct{ bad string }

func (v *shapeVisitor) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		v.bad = "anchors, aliases and merge keys"
	case *ast.TagNode:
		v.bad = "tags"
	case *ast.DirectiveNode:
		v.bad = "directives"
	}
	if v.bad != "" {
		return nil
	}
	return v
}

// reader collects problems while a manifest's tree is read key by key. What is
// left unread at the end is unknown.
type reader struct{ problems Problems }

// node is a mapping at a path.
type node struct {
	r    *reader
	path string
	m    map[string]any
	read map[string]bool
}

func (r *reader) problem(path, format string, args ...any) {
	r.problems = append(r.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

func (r *reader) node(path string, v any) *node {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		r.problem(path, "%s; expecting a mapping", show(v))
	}
	return &node{r: r, path: path, m: m, read: map[string]bool{}}
}

// show prints a value for a problem, short.
func show(v any) string {
	s := fmt.Sprintf("%v", v)
	switch v := v.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		s = strconv.Quote(v)
	case nil:
		return "nothing"
	}
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return s
}

func (n *node) at(key string) string {
	if n.path == "" {
		return key
	}
	return n.path + "." + key
}

func (n *node) problem(key, format string, args ...any) { n.r.problem(n.at(key), format, args...) }

func (n *node) get(key string) (any, bool) {
	n.read[key] = true
	v, ok := n.m[key]
	return v, ok && v != nil
}

// done reports the keys nobody asked for.
func (n *node) done() {
	var unknown []string
	for k := range n.m {
		if !n.read[k] {
			unknown = append(unknown, k)
		}
	}
	sort.Strings(unknown)
	known := make([]string, 0, len(n.read))
	for k := range n.read {
		known = append(known, k)
	}
	sort.Strings(known)
	for _, k := range unknown {
		n.problem(k, "unknown key; expecting one of %s", strings.Join(known, ", "))
	}
}

func (n *node) child(key string) *node {
	v, _ := n.get(key)
	return n.r.node(n.at(key), v)
}

// list calls fn for each element of the list at key.
func (n *node) list(key string, limit int, fn func(path string, v any)) bool {
	v, ok := n.get(key)
	if !ok {
		return false
	}
	l, ok := v.([]any)
	if !ok {
		n.problem(key, "%s; expecting a list", show(v))
		return false
	}
	if len(l) > limit {
		n.problem(key, "%d entries; expecting at most %d", len(l), limit)
		return false
	}
	for i, e := range l {
		fn(fmt.Sprintf("%s[%d]", n.at(key), i), e)
	}
	return true
}

func (n *node) str(key string, dst *string) bool {
	v, ok := n.get(key)
	if !ok {
		return false
	}
	s, ok := v.(string)
	if !ok {
		n.problem(key, "%s; expecting a string", show(v))
		return false
	}
	*dst = s
	return true
}

// bytes reads a string value as bytes, or NAME_base64.
func (n *node) bytes(key string, dst *[]byte) bool {
	var s string
	if v, ok := n.get(key); ok {
		switch v := v.(type) {
		case string:
			*dst = []byte(v)
		case map[string]any, []any:
			b, err := json.Marshal(v)
			if err != nil {
				n.problem(key, "%v", err)
				return false
			}
			*dst = b
		default:
			n.problem(key, "%s; expecting a string, or a mapping or list to be written as JSON", show(v))
			return false
		}
		return true
	}
	if !n.str(key+"_base64", &s) {
		return false
	}
	b, err := decodeBase64(s)
	if err != nil {
		n.problem(key+"_base64", "%v", err)
		return false
	}
	*dst = b
	return true
}

func (n *node) boolean(key string, dst *bool) {
	v, ok := n.get(key)
	if !ok {
		return
	}
	b, ok := v.(bool)
	if !ok {
		n.problem(key, "%s; expecting true or false", show(v))
		return
	}
	*dst = b
}

func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= 1<<62
	case int:
		return int64(v), true
	}
	return 0, false
}

func (n *node) integer(key string, lowest, highest int64, set func(int64)) {
	v, ok := n.get(key)
	if !ok {
		return
	}
	i, ok := asInt(v)
	if !ok || i < lowest || i > highest {
		n.problem(key, "%s; expecting a whole number from %d to %d", show(v), lowest, highest)
		return
	}
	set(i)
}

func (n *node) duration(key string, lowest, highest time.Duration, dst *time.Duration) {
	v, ok := n.get(key)
	if !ok {
		return
	}
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < lowest || d > highest {
		n.problem(key, "%s; expecting a duration from %v to %v, as 100ms", show(v), lowest, highest)
		return
	}
	*dst = d
}

func (n *node) size(key string, lowest, highest int64, dst *int64) {
	v, ok := n.get(key)
	if !ok {
		return
	}
	b, ok := asInt(v)
	if s, isText := v.(string); isText {
		b, ok = parseSize(s)
	}
	if !ok || b < lowest || b > highest {
		n.problem(key, "%s; expecting a size from %s to %s, as 16MiB", show(v), FormatSize(lowest), FormatSize(highest))
		return
	}
	*dst = b
}

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1}}

func parseSize(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	factor := int64(1)
	for _, u := range units {
		if t, ok := strings.CutSuffix(s, u.name); ok {
			s, factor = strings.TrimSpace(t), u.bytes
			break
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/factor {
		return 0, false
	}
	return v * factor, true
}

// FormatSize prints a number of bytes with the largest binary unit that keeps
// it whole.
func FormatSize(b int64) string {
	for _, u := range units[:3] {
		if b >= u.bytes && b%u.bytes == 0 {
			return fmt.Sprintf("%d%s", b/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", b)
}

// names reads a list of strings of one form, without duplicates.
func (n *node) names(key string, limit int, valid func(string) error) []string {
	var out []string
	seen := map[string]bool{}
	n.list(key, limit, func(path string, v any) {
		s, ok := v.(string)
		if !ok {
			n.r.problem(path, "%s; expecting a string", show(v))
			return
		}
		if err := valid(s); err != nil {
			n.r.problem(path, "%v", err)
			return
		}
		if seen[s] {
			n.r.problem(path, "%q stands here twice", s)
			return
		}
		seen[s] = true
		out = append(out, s)
	})
	return out
}

func streamName(s string) error {
	if !streamForm.MatchString(s) {
		return fmt.Errorf("%q; expecting a stream name: 1 to 128 letters, digits, _ . -", s)
	}
	return nil
}

func hostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, "*/@ ") {
		return fmt.Errorf("%q; expecting host:port, without wildcards", s)
	}
	if p, err := strconv.Atoi(port); err != nil || p < 1 || p > 65535 {
		return fmt.Errorf("%q; expecting a port from 1 to 65535", s)
	}
	return nil
}

func secretName(s string) error {
	if !secretForm.MatchString(s) {
		return fmt.Errorf("%q; expecting a secret's name: 1 to 64 letters, digits, _ -", s)
	}
	return nil
}
