// Package prefix evaluates the custom prefix expressions of Firehose's object
// stores: text with !{timestamp:…}, !{firehose:…}, !{partitionKeyFromQuery:…}
// and !{partitionKeyFromLambda:…} in it.
//
// It owns the grammar, the rules about which expression may stand where, and
// the subset of Java's DateTimeFormatter patterns that timestamps use. It
// reads no clock and no randomness: the instant, the zone and the random
// strings come from the caller, so that the same object always gets the same
// name. Source: the Firehose developer guide, "Custom prefixes for Amazon S3
// objects", and java.time.format.DateTimeFormatterBuilder.
package prefix

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of Firehose: a prefix as written, and after evaluation.
const (
	MaxWritten   = 1024
	MaxEvaluated = 512
)

// Place says which of a destination's prefixes an expression is.
type Place uint8

// The two prefixes of a destination.
const (
	Data  Place = iota // Prefix
	Error              // ErrorOutputPrefix
)

// String is the place's name in a destination.
func (p Place) String() string {
	if p == Error {
		return "ErrorOutputPrefix"
	}
	return "Prefix"
}

type partKind uint8

const (
	literal partKind = iota
	timestamp
	randomString
	errorOutputType
	queryKey
	moduleKey
)

type part struct {
	kind    partKind
	text    string // literal text or key name
	pattern *Pattern
}

// Expression is a parsed prefix. It is immutable and safe for concurrent use.
type Expression struct {
	source string
	place  Place
	parts  []part
}

// Values is what an evaluation needs from its caller.
type Values struct {
	// Instant is the approximate arrival of the oldest record in the object,
	// in the zone that the prefix is to be written in.
	Instant time.Time
	// ErrorType is the value of !{firehose:error-output-type}.
	ErrorType string
	// Keys are the values of partition keys by name: from a query and from
	// a module alike.
	Keys map[string]string
	// Random returns the i-th random string of the object, 11 characters.
	Random func(i int) string
}

// Parse reads a prefix as it is written in a destination. The error names
// the first rule that it breaks; nothing in a prefix that Parse accepted can
// make Evaluate fail but values that are too long.
func Parse(source string, place Place) (*Expression, error) {
	if len(source) > MaxWritten {
		return nil, fmt.Errorf("%s has %d characters; the limit is %d", place, len(source), MaxWritten)
	}
	e := &Expression{source: source, place: place}
	rest := source
	for rest != "" {
		open := strings.Index(rest, "!{")
		if open < 0 {
			e.parts = append(e.parts, part{kind: literal, text: rest})
			break
		}
		if open > 0 {
			e.parts = append(e.parts, part{kind: literal, text: rest[:open]})
		}
		end := strings.IndexByte(rest[open:], '}')
		if end < 0 {
			return nil, fmt.Errorf("%s %q: expression %q is not closed by }", place, source, rest[open:])
		}
		p, err := parsePart(rest[open+2:open+end], place)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", place, source, err)
		}
		e.parts = append(e.parts, p)
		rest = rest[open+end+1:]
	}
	if place == Error && e.hasExpressions() && !e.has(errorOutputType) {
		return nil, fmt.Errorf("%s %q has expressions, so it must also have !{firehose:error-output-type}", place, source)
	}
	if n := e.fixed(); n > MaxEvaluated {
		return nil, fmt.Errorf("%s has %d characters beside its expressions; the limit is %d after evaluation", place, n, MaxEvaluated)
	}
	return e, nil
}

// fixed is how long a prefix is whatever its expressions evaluate to.
func (e *Expression) fixed() int {
	n := 0
	for _, p := range e.parts {
		if p.kind == literal {
			n += len(p.text)
		}
	}
	return n
}

func parsePart(body string, place Place) (part, error) {
	namespace, value, found := strings.Cut(body, ":")
	if !found || value == "" {
		return part{}, fmt.Errorf("expression !{%s} must be namespace:value", body)
	}
	switch namespace {
	case "timestamp":
		pattern, err := ParsePattern(value)
		if err != nil {
			return part{}, fmt.Errorf("expression !{%s}: %w", body, err)
		}
		return part{kind: timestamp, pattern: pattern}, nil
	case "firehose":
		switch value {
		case "random-string":
			return part{kind: randomString}, nil
		case "error-output-type":
			if place == Data {
				return part{}, fmt.Errorf("!{firehose:error-output-type} may only stand in ErrorOutputPrefix")
			}
			return part{kind: errorOutputType}, nil
		}
		return part{}, fmt.Errorf("expression !{%s}: firehose has random-string and error-output-type", body)
	case "partitionKeyFromQuery", "partitionKeyFromLambda":
		if place == Error {
			return part{}, fmt.Errorf("!{%s} may only stand in Prefix", body)
		}
		kind := queryKey
		if namespace == "partitionKeyFromLambda" {
			kind = moduleKey
		}
		return part{kind: kind, text: value}, nil
	}
	return part{}, fmt.Errorf("expression !{%s}: namespace %q is not one of timestamp, firehose, partitionKeyFromQuery, partitionKeyFromLambda", body, namespace)
}

// QueryKeys returns the names of the partition keys taken from a query, in
// order, each once.
func (e *Expression) QueryKeys() []string { return e.keys(queryKey) }

// ModuleKeys returns the names of the partition keys taken from a module
// (partitionKeyFromLambda), in order, each once.
func (e *Expression) ModuleKeys() []string { return e.keys(moduleKey) }

func (e *Expression) keys(kind partKind) []string {
	var names []string
	for _, p := range e.parts {
		if p.kind == kind && !slices.Contains(names, p.text) {
			names = append(names, p.text)
		}
	}
	return names
}

func (e *Expression) has(kind partKind) bool {
	return slices.ContainsFunc(e.parts, func(p part) bool { return p.kind == kind })
}

func (e *Expression) hasExpressions() bool {
	return slices.ContainsFunc(e.parts, func(p part) bool { return p.kind != literal })
}

// HasExpressions says whether the prefix is more than text.
func (e *Expression) HasExpressions() bool { return e.hasExpressions() }

// Evaluate returns the prefix for one object. As Firehose does, it appends
// yyyy/MM/dd/HH/ to a Prefix without a timestamp expression, and
// error-output-type/yyyy/MM/dd/HH/ to an ErrorOutputPrefix without any.
func (e *Expression) Evaluate(v Values) (string, error) {
	var b strings.Builder
	random := 0
	for _, p := range e.parts {
		switch p.kind {
		case literal:
			b.WriteString(p.text)
		case timestamp:
			p.pattern.format(&b, v.Instant)
		case randomString:
			b.WriteString(v.Random(random))
			random++
		case errorOutputType:
			b.WriteString(v.ErrorType)
		case queryKey, moduleKey:
			b.WriteString(v.Keys[p.text])
		}
	}
	switch {
	case e.place == Error && !e.hasExpressions():
		b.WriteString(v.ErrorType)
		b.WriteByte('/')
		defaultTime.format(&b, v.Instant)
	case e.place == Data && !e.has(timestamp):
		defaultTime.format(&b, v.Instant)
	}
	if b.Len() > MaxEvaluated {
		return "", fmt.Errorf("%s %q: evaluates to %d characters; the limit is %d", e.place, e.source, b.Len(), MaxEvaluated)
	}
	return b.String(), nil
}

// defaultTime is what Firehose appends when a prefix has no time of its own.
var defaultTime = mustPattern("yyyy/MM/dd/HH/")

func mustPattern(s string) *Pattern {
	p, err := ParsePattern(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return p
}
