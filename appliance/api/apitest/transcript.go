package apitest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Exchange is one request and its answer as a golden transcript has them: lines of
// headers, an empty line, the lines of the body. The request of a protocol with
// paths begins with its method and target, the answer with its status. The format
// is described in sdk/transcripts/README.md.
type Exchange struct {
	Title           string
	Pass            time.Duration // how far the server's clock moves before it
	Request, Answer []string
}

// AppendTo writes the exchange.
func (x *Exchange) AppendTo(out *strings.Builder) {
	if x.Pass > 0 {
		fmt.Fprintf(out, "@ %v\n", x.Pass)
	}
	fmt.Fprintf(out, "# %s\n", x.Title)
	for _, l := range x.Request {
		out.WriteString(strings.TrimRight("> "+l, " ") + "\n")
	}
	for _, l := range x.Answer {
		out.WriteString(strings.TrimRight("< "+l, " ") + "\n")
	}
	out.WriteString("\n")
}

// ParseTranscript reads exchanges that AppendTo has written.
func ParseTranscript(text string) ([]Exchange, error) {
	var out []Exchange
	var pass time.Duration
	for i, l := range strings.Split(text, "\n") {
		if l == "" {
			continue
		}
		rest := strings.TrimPrefix(l[1:], " ")
		if (l[0] == '>' || l[0] == '<') && len(out) == 0 {
			return nil, fmt.Errorf("line %d: expecting a title first", i+1)
		}
		switch l[0] {
		case '@':
			d, err := time.ParseDuration(rest)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			pass = d
		case '#':
			out = append(out, Exchange{Title: rest, Pass: pass})
			pass = 0
		case '>':
			x := &out[len(out)-1]
			x.Request = append(x.Request, rest)
		case '<':
			x := &out[len(out)-1]
			x.Answer = append(x.Answer, rest)
		default:
			return nil, fmt.Errorf("line %d: %q begins with none of @ # > <", i+1, l)
		}
	}
	return out, nil
}

// Lines returns a message in the form of a transcript: the first line if there is
// one, the headers, and the body if it has any bytes.
func Lines(first string, headers []string, body []byte) []string {
	var out []string
	if first != "" {
		out = append(out, first)
	}
	out = append(out, headers...)
	if len(body) == 0 {
		return out
	}
	out = append(out, "")
	lines := strings.Split(string(body), "\n")
	if !utf8.Valid(body) || slices.ContainsFunc(lines, func(l string) bool { return strings.ContainsAny(l, "\r\x00") || strings.HasSuffix(l, " ") }) {
		return append(out, "hex:"+hex.EncodeToString(body))
	}
	return append(out, lines...)
}

// Message takes the lines of a message apart: what stands before the empty line,
// and the body behind it.
func Message(lines []string) (head []string, body []byte, err error) {
	at := slices.Index(lines, "")
	if at < 0 {
		return lines, nil, nil
	}
	text := strings.Join(lines[at+1:], "\n")
	if digits, ok := strings.CutPrefix(text, "hex:"); ok {
		body, err = hex.DecodeString(digits)
		return lines[:at], body, err
	}
	return lines[:at], []byte(text), nil
}
