package delivery

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// FuzzSubRecords: what a record is split into is in it, in order, and nothing but
// delimiters and space is left out.
func FuzzSubRecords(f *testing.F) {
	f.Add([]byte(`{"a":1} {"b":[2]}`+"\n"+`{"c":"}"}`), []byte("\n"))
	f.Add([]byte(`{"a":1}[`), []byte("}"))
	f.Add([]byte("a||b|||c"), []byte("||"))
	f.Fuzz(func(t *testing.T, data, delimiter []byte) {
		if docs, ok := splitJSON(nil, data); ok {
			rest := data
			for _, d := range docs {
				before, after, found := bytes.Cut(rest, d)
				if !found || !json.Valid(d) || len(bytes.TrimSpace(before)) > 0 {
					t.Fatalf("document %q of %q", d, data)
				}
				rest = after
			}
			if len(bytes.TrimSpace(rest)) > 0 {
				t.Fatalf("%q of %q is left out", rest, data)
			}
		}
		if len(delimiter) == 0 {
			return // refused by Validate
		}
		parts, _ := splitDelimited(nil, data, delimiter)
		size := 0
		for _, p := range parts {
			size += len(p)
			if len(p) == 0 || bytes.Contains(p, delimiter) {
				t.Fatalf("part %q of %q by %q", p, data, delimiter)
			}
		}
		if want := len(bytes.ReplaceAll(data, delimiter, nil)); size != want {
			t.Fatalf("parts of %d bytes of %d", size, want)
		}
	})
}

// FuzzWindows: a window that is taken opens within a day, and is open then.
func FuzzWindows(f *testing.F) {
	for _, s := range []string{"22:00-06:00", "00:00-24:00", "9:5-9:6", "24:00-01:00", "-1:00-2:00", "1:00-2:00x", "06:00"} {
		f.Add(s, uint16(600))
	}
	f.Add("24:00-00:00", uint16(0))
	f.Fuzz(func(t *testing.T, text string, minute uint16) {
		windows, err := parseWindows([]string{text})
		if err != nil {
			return
		}
		now := time.Date(2026, 3, 10, 0, int(minute)%1440, 30, 0, time.UTC)
		d := untilOpen(windows, now)
		if d < 0 || d > 24*time.Hour || untilOpen(windows, now.Add(d)) != 0 {
			t.Errorf("%q at %v: opens in %v, and then in %v", text, now, d, untilOpen(windows, now.Add(d)))
		}
	})
}
