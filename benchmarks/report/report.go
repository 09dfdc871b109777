// Package report is the form of every benchmark's outcome: rows of figures,
// gates with their bars, and the machine they were taken on.
//
// It owns the printed tables and the JSON object
//
//	{"name": …, "machine": {…}, "rows": [{…}], "gates": [{"gate", "bar", "measured", "ok"}]}
//
// It never measures. A gate is a figure held against a bar, not a test: missing
// one is printed and changes no exit code.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Options is what the command line asks of a benchmark.
type Options struct {
	Quick    bool      // end within 50 s
	Peers    bool      // measure the peers too
	Dir      string    // an empty directory for data, on the disk to be measured; removed afterwards
	Progress io.Writer // lines for someone who waits
}

// Logf writes one line of progress.
func (o Options) Logf(format string, args ...any) {
	fmt.Fprintf(o.Progress, format+"\n", args...)
}

// Report is the outcome of one benchmark.
type Report struct {
	Name    string   `json:"name"`
	Machine Machine  `json:"machine"`
	Command string   `json:"command"`
	Quick   bool     `json:"quick"`
	Rows    []Row    `json:"rows"`
	Gates   []Gate   `json:"gates"`
	Notes   []string `json:"notes,omitempty"` // what a reader must know to read the figures
}

// Row is the figures of one case. Rows of one Table have the same columns and
// are printed together; ratios come first.
type Row struct {
	Table string // such as "append"
	Case  string // such as "16 writers × 500 records"
	Cells []Cell
}

// Cell is one figure.
type Cell struct {
	Column string // name with its unit, such as "records/s" or "p99_ms"
	Value  float64
}

// Gate is a figure with the bar that it is held to.
type Gate struct {
	Gate     string  `json:"gate"`     // what is measured, with its unit
	Bar      string  `json:"bar"`      // such as "≥ 0.90" or "≤ 45 MB"
	Measured float64 `json:"measured"` // NaN, printed as "not measured", when this run did not
	OK       bool    `json:"ok"`
}

// Add appends a row. Columns and values alternate: "records/s", 1.2e6, ….
func (r *Report) Add(table, name string, columns ...any) {
	row := Row{Table: table, Case: name}
	for i := 0; i+1 < len(columns); i += 2 {
		row.Cells = append(row.Cells, Cell{columns[i].(string), asFloat(columns[i+1])})
	}
	r.Rows = append(r.Rows, row)
}

// AtLeast appends a gate that is passed by measured ≥ bar.
func (r *Report) AtLeast(gate string, bar, measured float64) {
	r.Gates = append(r.Gates, Gate{gate, "≥ " + figure(bar), measured, measured >= bar})
}

// AtMost appends a gate that is passed by measured ≤ bar.
func (r *Report) AtMost(gate string, bar, measured float64) {
	r.Gates = append(r.Gates, Gate{gate, "≤ " + figure(bar), measured, measured <= bar})
}

// Note appends a line for the reader.
func (r *Report) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func asFloat(v any) float64 {
	switch x := v.(type) {
	case float64:
		return x
	case int:
		return float64(x)
	case int64:
		return float64(x)
	case uint64:
		return float64(x)
	}
	panic(fmt.Sprintf("BUG: report: figure of type %T", v))
}

// MarshalJSON writes the row as one object: table, case, then its columns in order.
func (r Row) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	head, err := json.Marshal(struct {
		Table string `json:"table"`
		Case  string `json:"case"`
	}{r.Table, r.Case})
	if err != nil {
		return nil, err
	}
	b.Write(head[:len(head)-1])
	for _, c := range r.Cells {
		name, err := json.Marshal(c.Column)
		if err != nil {
			return nil, err
		}
		b.WriteByte(',')
		b.Write(name)
		b.WriteByte(':')
		b.WriteString(number(c.Value))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// MarshalJSON writes the gate; a figure that was not measured is null.
func (g Gate) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Gate     string          `json:"gate"`
		Bar      string          `json:"bar"`
		Measured json.RawMessage `json:"measured"`
		OK       bool            `json:"ok"`
	}{g.Gate, g.Bar, json.RawMessage(number(g.Measured)), g.OK})
}

func number(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "null"
	}
	return strconv.FormatFloat(f, 'g', 6, 64)
}

// figure writes a number to about four digits, without an exponent.
func figure(f float64) string {
	switch a := math.Abs(f); {
	case math.IsNaN(f):
		return "not measured"
	case f == math.Trunc(f) && a < 1e15 || a >= 1000:
		return thousands(strconv.FormatFloat(f, 'f', 0, 64))
	case a >= 100:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(f, 'f', 2, 64)
	default:
		return strconv.FormatFloat(f, 'g', 3, 64)
	}
}

func thousands(s string) string {
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Print writes the tables, the gates and the notes for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", r.Name, r.Machine)
	fmt.Fprintf(w, "%s\n", r.Command)
	var tables []string
	for _, row := range r.Rows {
		if !slices.Contains(tables, row.Table) {
			tables = append(tables, row.Table)
		}
	}
	for _, name := range tables {
		var lines [][]string
		for _, row := range r.Rows {
			if row.Table != name {
				continue
			}
			if lines == nil {
				head := []string{name}
				for _, c := range row.Cells {
					head = append(head, c.Column)
				}
				lines = append(lines, head)
			}
			line := []string{row.Case}
			for _, c := range row.Cells {
				line = append(line, figure(c.Value))
			}
			lines = append(lines, line)
		}
		columns(w, lines)
	}
	if len(r.Gates) > 0 {
		lines := [][]string{{"gate", "bar", "measured", ""}}
		for _, g := range r.Gates {
			verdict := "ok"
			if !g.OK {
				verdict = "MISSED"
			}
			if math.IsNaN(g.Measured) {
				verdict = ""
			}
			lines = append(lines, []string{g.Gate, g.Bar, figure(g.Measured), verdict})
		}
		columns(w, lines)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

// columns prints lines with the first column flush left, the others flush right.
func columns(w io.Writer, lines [][]string) {
	var widths []int
	for _, l := range lines {
		for i, c := range l {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	fmt.Fprintln(w)
	for _, l := range lines {
		var b strings.Builder
		for i, c := range l {
			pad := strings.Repeat(" ", widths[i]-len([]rune(c)))
			if i == 0 {
				b.WriteString(c + pad)
			} else {
				b.WriteString("  " + pad + c)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
