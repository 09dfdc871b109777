package delivery

import (
	"fmt"
	"slices"
	"testing"
)

// both runs a query the short way and by gojq, and compares: what the short
// way decides has to be what gojq says.
func both(t *testing.T, q *query, data []byte) (short bool) {
	t.Helper()
	if q.plain == nil {
		t.Fatalf("the paths %q are not seen as plain", q.names)
	}
	values := make([][]byte, q.plain.n)
	if !q.plain.read(values, make([]pathText, q.plain.places), data) {
		return false
	}
	want, err := q.run(nil, data)
	if err != nil {
		t.Fatalf("%q: the short way gives %q, gojq says %v", data, values, err)
	}
	for i := range want {
		if string(values[i]) != want[i] {
			t.Fatalf("%q: the short way gives %q, gojq %q", data, values, want)
		}
	}
	return true
}

func mustCompile(t testing.TB, source string) *query {
	t.Helper()
	q, err := compileQuery(source)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestPlainPathsAgreeWithGojq(t *testing.T) {
	q := mustCompile(t, `{a: .a, b: .b.c, "a b": ."d e"["f"]}`)
	for text, short := range map[string]bool{
		`{"a":"x","b":{"c":1},"d e":{"f":true}}`:                                                true,
		` { "z":[1,{"a":2},[]], "b" : {"x":null,"c":-1.50}, "a":0.1 , "d e":{"f":"ü"}} ` + "\n": true,
		`{"a":12345678901234567890,"b":{"c":1000000000000000},"d e":{"f":false}}`:               true,
		`{"a":"x","b":{"c":1},"d e":{"f":true}} {}`:                                             false,
		`{"a":"x","a":"y","b":{"c":1},"d e":{"f":true}}`:                                        false,
		`{"a":"x","b":{"c":1},"b":{},"d e":{"f":true}}`:                                         false,
		`{"a":"x\n","b":{"c":1},"d e":{"f":true}}`:                                              false,
		`{"a":"","b":{"c":1},"d e":{"f":true}}`:                                                 false,
		`{"a":null,"b":{"c":1},"d e":{"f":true}}`:                                               false,
		`{"a":[],"b":{"c":1},"d e":{"f":true}}`:                                                 false,
		`{"a":1e3,"b":{"c":1},"d e":{"f":true}}`:                                                false,
		`{"a":01,"b":{"c":1},"d e":{"f":true}}`:                                                 false,
		`{"a":1,"b":"c","d e":{"f":true}}`:                                                      false,
		`{"a":1,"b":{"c":1},"d e":{"f":true},}`:                                                 false,
		`{"a":1,"b":{"c":1},"d e":{"f":tru}}`:                                                   false,
		`{"a":"` + "\xff" + `","b":{"c":1},"d e":{"f":true}}`:                                   false,
		``: false, `[]`: false, `{}`: false, `{"a":"x"`: false,
	} {
		if got := both(t, q, []byte(text)); got != short {
			t.Errorf("%s: decided %t, want %t", text, got, short)
		}
	}
}

func TestPlainPathsAreFound(t *testing.T) {
	for source, plain := range map[string]bool{
		`{a: .a}`: true, `{a}`: true, `{"a b"}`: true, `{a: .b.c.d, b: .b.e}`: true, `{a: .["x"]}`: true,
		`{a: .a, b: .a}`: true, `{a: .ts|todate}`: true, `{y: (.ts|floor|strftime("%Y")), m: (.ts|strftime("%m"))}`: true,
		`{a: ((.a|tostring)|length)}`: true, `{a: (.a as $x|$x)}`: false, `{a: (1|.a)}`: false,
		`{a: .a, a: .b}`: false, `{a: .a, b: .a.b}`: false, `{a: .a[0]}`: false, `{a: .a?}`: false,
		`{a: (.a)}`: true, `{a: (.a|tostring)}`: true, `{a: .a[]}`: false, `{a: "x"}`: false, `{a: .}`: false, `{a: .a}.a`: false,
	} {
		if q := mustCompile(t, source); (q.plain != nil) != plain {
			t.Errorf("%s: plain %t, want %t", source, q.plain != nil, plain)
		}
	}
}

// TestWhatComesAfterAPathAgreesWithGojq, also where it fails or makes several values.
func TestWhatComesAfterAPathAgreesWithGojq(t *testing.T) {
	for _, then := range []string{
		"tostring", "floor", "todate", `strftime("%Y-%m-%d")`, `floor|strftime("%Y")`, "ascii_downcase", ". / 3", ". + 1 | tostring", "length",
		"not", "empty", "., .", "error", "type", `split("-")[0]`, ".x", ". % 7", `sub("a";"b")`, "-.", "tojson", `if . == "A" then "yes" else null end`, "ltrimstr(\"p\")",
	} {
		q := mustCompile(t, `{k: (.a | `+then+`), l: .b.c, m: .a}`)
		decided := 0
		for _, a := range []string{`"Pump-7"`, `"A"`, `1763900000`, `1763900000.25`, `-3`, `0.1`, `12345678901234567890`, `true`, `false`, `"1e3"`, `null`, `[1]`} {
			if both(t, q, []byte(`{"a":`+a+`,"b":{"c":1}}`)) {
				decided++
			}
		}
		if decided == 0 && !slices.Contains([]string{"empty", "., .", "error", ".x"}, then) {
			t.Errorf("%s: nothing was decided the short way", then)
		}
	}
}

// FuzzPlainPaths: whatever a record holds, the short way and gojq agree.
func FuzzPlainPaths(f *testing.F) {
	f.Add([]byte(`{"a":"x","b":{"c":1,"d":[true,null,{"a":-0.5e3}]}}`))
	f.Add([]byte(`{"b":{"c":"\u0061"},"a":9007199254740993}`))
	f.Add([]byte(`{"a":-0,"b":{"c":0.10}}`))
	f.Add([]byte("{\"a\":\"\xc3\x28\",\"b\":{\"c\":false}}"))
	q := mustCompile(f, `{a: .a, c: .b.c}`)
	then := mustCompile(f, `{a: (.a|tostring), t: (.a|todate), c: (.b.c|ascii_downcase)}`)
	f.Fuzz(func(t *testing.T, data []byte) {
		both(t, q, data)
		both(t, then, data)
	})
}

// go test -run - -bench Query -benchtime 2s ./appliance/delivery
func BenchmarkQuery(b *testing.B) {
	data := fmt.Appendf(nil, `{"device":"pump-%02d","site":"north-%d","seq":%d,"ts":"2026-11-23T10:00:00.000Z","temperature":21.53,"pressure":3.212,"vibration":[12,21,40],"status":"ok","firmware":"2.1.1"}`+"\n", 7, 3, 123456)
	for name, source := range map[string]string{"plain": `{d: .device, s: .site}`, "then": `{d: (.device|tostring), s: .site}`, "gojq": `{d: (.device,.x|tostring), s: .site}`} {
		b.Run(name, func(b *testing.B) {
			s := &queryStage{query: mustCompile(b, source)}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				s.values = s.values[:0]
				if _, err := s.read(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
