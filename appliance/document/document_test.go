package document

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/parquet-go/jsonlite"
)

// TestWhatIsNestedTooDeepIsRefused: a million brackets would overflow the stack,
// which ends the process.
func TestWhatIsNestedTooDeepIsRefused(t *testing.T) {
	nested := func(n int, open, inner, end string) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	for name, c := range map[string]struct {
		text  string
		taken bool
	}{
		"arrays at the limit":               {nested(MaxDepth, "[", "1", "]"), true},
		"arrays above it":                   {nested(MaxDepth+1, "[", "1", "]"), false},
		"objects at the limit":              {nested(MaxDepth, `{"a":`, "1", "}"), true},
		"objects above it":                  {nested(MaxDepth+1, `{"a":`, "1", "}"), false},
		"both at the limit":                 {nested(MaxDepth/2, `[{"a":`, "1", "}]"), true},
		"both above it":                     {nested(MaxDepth/2, `[{"a":`, "{}", "}]"), false},
		"many side by side":                 {"[" + strings.Repeat(`[[],{"a":[]}],`, 10_000) + "1]", true},
		"brackets in texts":                 {`["` + strings.Repeat(`[\"{\\`, 10_000) + `"]`, true},
		"a million arrays, none closed":     {strings.Repeat("[", 1<<20), false},
		"a million objects, none closed":    {strings.Repeat(`{"":`, 1<<20), false},
		"a million arrays after an escape":  {`["\\",` + strings.Repeat("[", 1<<20), false},
		"a million arrays in an open text":  {`["\",` + strings.Repeat("[", 1<<20), false},
		"a million arrays in a lazy object": {nested(MaxDepth+1, `{"a":`, strings.Repeat("[", 1<<20), "}"), false},
	} {
		if err := new(Members).Each(c.text, func(string, jsonlite.Value) {}); (err == nil || errors.Is(err, ErrNotObject)) != c.taken {
			t.Errorf("%s: members: %v; want it taken: %t", name, err, c.taken)
		}
		if v, err := Parse(c.text); (err == nil) != c.taken {
			t.Errorf("%s: %v; want it taken: %t", name, err, c.taken)
		} else if err == nil {
			walk(v)
		}
	}
}

// walk looks at all of a value: what is taken is parsed whole, and no lookup panics.
func walk(v *jsonlite.Value) {
	switch v.Kind() {
	case jsonlite.Array:
		for child := range v.Array {
			walk(child)
		}
	case jsonlite.Object:
		for _, child := range v.Object {
			walk(child)
		}
	}
}

// FuzzParse: what is taken is JSON, and JSON that is not nested too deep is taken
// unless a member's name is no text.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e+3,true,false,null,"x\u00e9\n\"",{}]}`, `[[],{}]`, `"\ud83d\ude00"`, `01`, `1e`, `[1,]`, `{"a"}`, ``, `nul`, "\"\xff\"", `-`, `0.`,
		`{"a":1,"a":2}`, `["\"[{"]`, `[}`, `{"\ud800":1}`, "\"12345678\x1f\"", "\u00a01", `{"a":1,}`, `{,}`, `[,]`, `1 2`, "\"a\n\"", `"\`, `{"a\":1}`, "[1\v]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if valid := json.Valid([]byte(text)); err == nil && !valid {
			t.Fatalf("%q is no JSON and is taken", text)
		} else if err != nil && valid && !deeper(text, MaxDepth) && !strings.Contains(text, `\u`) {
			t.Fatalf("%q is JSON: %v", text, err)
		}
		names, values := []string{}, []string{}
		var m Members
		for range 2 { // the second time as after another text
			names, values = names[:0], values[:0]
			each := m.Each(text, func(name string, v jsonlite.Value) {
				names, values = append(names, name), append(values, v.JSON())
			})
			if isObject := err == nil && v.Kind() == jsonlite.Object; isObject != (each == nil) || errors.Is(each, ErrNotObject) != (err == nil && !isObject) {
				t.Fatalf("%q: parsed %v, by its members %v", text, err, each)
			}
		}
		if err != nil {
			return
		}
		walk(v)
		if v.Kind() != jsonlite.Object {
			return
		}
		i := 0
		for name, child := range v.Object {
			if i >= len(names) || names[i] != name || values[i] != child.JSON() {
				t.Fatalf("%q: member %d is %q: %s, and not among %q", text, i, name, child.JSON(), names)
			}
			i++
		}
		if i != len(names) {
			t.Fatalf("%q: %d members, not %q", text, i, names)
		}
	})
}
