package config

import (
	"fmt"
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

// Problems is every problem of one configuration, in the order of the file.
type Problems []Problem

// Error lists the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = "config: " + p.String()
	}
	return strings.Join(lines, "\n")
}
