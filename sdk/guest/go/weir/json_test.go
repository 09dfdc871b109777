package weir

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// reference finds the first member of the object in doc whose name is spelt as
// name is, by parsing all of it.
func reference(doc []byte, name string) (value []byte, ok bool) {
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		if _, err := d.Token(); err != nil {
			return nil, false
		}
		end := d.InputOffset()
		spelt := bytes.HasSuffix(doc[:end], []byte(`"`+name+`"`)) && !strings.Contains(name, `"`)
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, false
		}
		// the suffix may be the end of a longer name with an escaped quote
		if at := int(end) - len(name) - 2; spelt && (doc[at-1] != '\\') {
			return v, true
		}
	}
	return nil, false
}

func FuzzFind(f *testing.F) {
	for _, doc := range []string{
		`{"temp":25.5}`, `{"a":{"temp":1},"temp":2}`, `{"a":[{"temp":1}],"temp":"x\"y"}`, ` { "temp" : [1,{"b":"]"}] } `,
		`{"a\\":1,"temp":null}`, `{"a":"\\\"temp\":1","temp":-1e5}`, `{"device":"pump-1","temperature":3,"temp":4,"z":5}`,
		`{`, `{"temp`, `{"temp":`, `[]`, `"temp":1`, `{"temp":}`, `{\"temp":1,"temp":2}`, `{"x":1}}{"temp":1`,
		`{"t":1,"te":2,"tem":3,"temperature":4,"temp":-5.25 ,"x":"a value that is longer"}`, `{"a":"x\\","temp":12345678,"b":"\"temp\":9,"}`,
		`{"a":{"b":{"temp":1}},"temp":[1],"temp":2,"and more behind it":0}`, `{"temp":"25,5 in a string that is long enough"}`,
	} {
		f.Add([]byte(doc), "temp")
	}
	f.Fuzz(func(t *testing.T, doc []byte, name string) {
		got, ok := Find(doc, name)
		if ok {
			if at := got.ValueAt; at+len(got.Value) > len(doc) || len(got.Value) == 0 || &doc[at] != &got.Value[0] {
				t.Fatalf("Find(%q, %q): value %q is not at %d", doc, name, got.Value, at)
			}
			if string(doc[got.NameAt:got.NameAt+len(name)]) != name {
				t.Fatalf("Find(%q, %q): name is not at %d", doc, name, got.NameAt)
			}
		}
		if !json.Valid(doc) || name == "" || strings.ContainsAny(name, `"\`) {
			return
		}
		want, wantOK := reference(doc, name)
		if ok != wantOK || ok && string(got.Value) != string(want) {
			t.Fatalf("Find(%q, %q) = %q, %v; expecting %q, %v", doc, name, got.Value, ok, want, wantOK)
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, v := range []string{"0", "-0", "25.5", "1e22", "123456789012345", "1e-22", "0.1", "-", ".5", "5.", "1e", "1e+", "00", "1e400", "99999999999999999999", "1.7976931348623157e308"} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		got, ok := Number(v)
		want, err := strconv.ParseFloat(string(v), 64)
		if json.Valid(v) && len(v) > 0 && (v[0] == '-' || v[0]-'0' < 10) && v[len(v)-1]-'0' < 10 && !ok {
			t.Fatalf("Number(%q): refused", v)
		}
		if !ok || math.IsInf(want, 0) || err != nil {
			return
		}
		if math.IsInf(got, 0) && math.Abs(want) > math.MaxFloat64*(1-1e-12) {
			return // off by a few units in the last place, at the end of what there is
		}
		if diff := math.Abs(got - want); diff > 1e-12*math.Abs(want) && diff > 5e-300 {
			t.Fatalf("Number(%q) = %v, expecting %v", v, got, want)
		}
	})
}

func TestNumberIsExactWithin15Digits(t *testing.T) {
	for _, s := range []string{"0.1", "25.5", "-273.15", "123456789012.345", "1e22", "9007199254740991", "0.000001", "3e-20"} {
		want, err := strconv.ParseFloat(s, 64)
		if got, ok := Number([]byte(s)); err != nil || !ok || got != want {
			t.Errorf("Number(%s) = %v, %v; expecting %v", s, got, ok, want)
		}
	}
}

func TestAppendFixed(t *testing.T) {
	for _, c := range []struct {
		v        float64
		decimals int
		want     string
	}{
		{0, 2, "0"},
		{-0.001, 2, "0"},
		{0.005, 2, "0.01"},
		{-0.005, 2, "-0.01"},
		{1.5, 0, "2"},
		{12.3456, 3, "12.346"},
		{100, 9, "100"},
		{1e9, 9, "1000000000"},
		{1e10, 9, "null"},
		{math.NaN(), 1, "null"},
		{math.Inf(-1), 1, "null"},
		{1.05, 12, "1.05"},
		{2, -1, "2"},
		{99.995, 2, "100"},
	} {
		if got := string(AppendFixed(nil, c.v, c.decimals)); got != c.want {
			t.Errorf("AppendFixed(%v, %d) = %s, expecting %s", c.v, c.decimals, got, c.want)
		}
	}
}

// TestShortcutsAgree: what is done at once for usual numbers gives what goes digit
// by digit for all others.
func TestShortcutsAgree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const alphabet = "0123456789.-e,"
	text := make([]byte, 0, 12)
	for range 300_000 {
		text = text[:0]
		for range rnd.IntN(11) {
			text = append(text, alphabet[rnd.IntN(len(alphabet)-rnd.IntN(4))])
		}
		got, ok := Number(text)
		want, wantOK := number(text)
		if ok != wantOK || math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("Number(%q) = %v, %v; digit by digit it is %v, %v", text, got, ok, want, wantOK)
		}
	}
	room := make([]byte, 3, 40)
	for range 300_000 {
		v := (rnd.Float64()*2 - 1) * math.Pow(10, float64(rnd.IntN(12)-3))
		if rnd.IntN(2) == 0 {
			v = math.Round(v*100) / 100
		}
		decimals := rnd.IntN(11)
		got, want := AppendFixed(room, v, decimals)[3:], appendFixed(nil, v, decimals)
		if string(got) != string(want) {
			t.Fatalf("AppendFixed(%v, %d) = %s; digit by digit it is %s", v, decimals, got, want)
		}
	}
}

func TestAppendQuotedIsJSON(t *testing.T) {
	for _, s := range []string{"", "plain", "a\"b\\c", "tab\tnew\nline\x00", "grüße"} {
		var back string
		if err := json.Unmarshal(AppendQuoted(nil, []byte(s)), &back); err != nil || back != s {
			t.Errorf("AppendQuoted(%q) reads back as %q: %v", s, back, err)
		}
	}
}
