package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Source string `json:"source"`         // the file, "environment", or empty when the tree was built in a program
	Line   int    `json:"line,omitempty"` // in the file, from 1; 0 when there is none
	Path   string `json:"path"`           // such as streams[1].retention
	Text   string `json:"text"`           // the value and the expectation
}

// String is "file:line: path: value and expectation".
func (p Problem) String() string {
	var b strings.Builder
	if p.Source != "" {
		b.WriteString(p.Source)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is every problem of one configuration: those of the file by line, then those
// of the environment and of values that nobody set.
type Problems []Problem

// sort brings them into their order; file is the one that was read.
func (ps Problems) sort(file string) {
	rank := func(p Problem) int {
		if p.Source == file && p.Line > 0 {
			return p.Line
		}
		return math.MaxInt
	}
	slices.SortStableFunc(ps, func(a, b Problem) int { return cmp.Compare(rank(a), rank(b)) })
}

// Error lists the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = "config: " + p.String()
	}
	return strings.Join(lines, "\n")
}
