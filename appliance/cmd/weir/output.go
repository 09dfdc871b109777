package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
)

// emit prints v as indented JSON with --json, and what human writes without.
func (a *app) emit(v any, human func(w io.Writer)) error {
	if !a.JSON {
		human(a.out)
		return nil
	}
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints rows under a head, in columns as wide as they need. A column
// whose head ends in a space is set flush right.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = utf8.RuneCountInString(strings.TrimSpace(h))
	}
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, c := range cells {
			c = strings.TrimSpace(c)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if strings.HasSuffix(t.head[i], " ") {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
			b.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(t.head)
	for _, row := range t.rows {
		line(row)
	}
}

// size writes a byte count for people: 812 B, 3.4 KiB, 12.0 MiB.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f /= 1024; f < 1024 || u == "TiB" {
			unit = u
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// count writes a number with its thousands apart: 1,234,567.
func count[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ago writes how long before now t was, to two digits, and - for no time.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t))
}

// span writes a duration to about two digits: 850ms, 12s, 5m, 3h, 9d.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// plural writes a count with its noun: 1 shard, 4 shards, 2 batches, 3 retries.
func plural[T int | int64 | uint64](n T, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "ch") {
		return count(n) + " " + noun + "es"
	}
	if stem, ok := strings.CutSuffix(noun, "ry"); ok {
		return count(n) + " " + stem + "ries"
	}
	return count(n) + " " + noun + "s"
}

// parseSize reads a flag's size.
func parseSize(flag, text string) (int64, error) {
	n, err := config.ParseBytes(text)
	if err != nil {
		return 0, &fault.Error{Class: fault.Usage, Subject: flag, Err: err}
	}
	return int64(n), nil
}
