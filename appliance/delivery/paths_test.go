package delivery

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// both runs a query the short way and by gojq, and compares: what the short
// way decides has to be what gojq says.
func both(t *testing.T, q *query, data []byte) (short bool) {
	t.Helper()
	if q.plain == nil {
		t.Fatalf("the paths %q are not seen as plain", q.names)
	}
	r := newPathReader(q.plain, &queryTimer{})
	values, ok := r.read(data)
	if !ok {
		return false
	}
	for range 2 {
		if again, ok := r.read(data); !ok || !slices.EqualFunc(values, again, bytes.Equal) {
			t.Fatalf("%q: read again it gives %q, %t", data, again, ok)
		}
		clear(r.made) // the next time it is computed, and not remembered
	}
	want, err := q.run(t.Context(), nil, data)
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
		`{a: .a, a: .b}`: false, `{a: .a, b: .a.b}`: false, `{a: .a[0]}`: true, `{a: .a?}`: true, `{a: .a[0].b[7].c?}`: true, `{a: .a[-1]}`: false, `{a: .[0]}`: false, `{a: .a[0], b: .a}`: false, `{a: .a[.5]}`: false,
		`{a: .ts[0:10]}`: true, `{a: .ts[:-1]}`: true, `{a: (.n % 500)}`: true, `{a: (.a + "-" + .b.c)}`: true, `{a: "\(.a)/\(.n|floor)"}`: true,
		`{a: (if .n > 5 then "high" else .a end)}`: true, `{a: (.a // "none")}`: true, `{a: @text "x\(.a)"}`: true, `{a: (.a + .)}`: false,
		`{a: (.n | if . > 5 then 1 end)}`: true, `{a: (if .n > 5 then 1 end)}`: false, `{a: (.a, .b)}`: false, `{a: ([.a]|length)}`: true, `{a: ([.a, .b[1]]|join("-"))}`: true, `{a: ([.[]]|length)}`: false, `{a: (.a|@base64)}`: true, `{a: @base64}`: false,
		`{a: .a[.b]}`: false, `{a: .a, b: (.a.b + 1)}`: false, `{a: (.n + now)}`: false, `{a: ($ENV.HOME + .a)}`: false, `{a: (try .a)}`: true, `{a: (try (.a|tonumber) catch .x)}`: false, `{a: (.a|try tonumber catch 0)}`: true, `{a: (-.n)}`: true,
		`{a: (.a)}`: true, `{a: (.a|tostring)}`: true, `{a: .a[]}`: false, `{a: "x"}`: false, `{a: .}`: false, `{a: .a}.a`: false,
	} {
		if q := mustCompile(t, source); (q.plain != nil) != plain {
			t.Errorf("%s: plain %t, want %t", source, q.plain != nil, plain)
		}
	}
}

// TestElementsAgreeWithGojq: what is asked of an array that isn't there, or is none, is gojq's.
func TestElementsAgreeWithGojq(t *testing.T) {
	q := mustCompile(t, `{a: .a[0], b: .a[2].b, c: .b.c[1][0]?}`)
	for text, short := range map[string]bool{
		`{"a":["x",null,{"b":7}],"b":{"c":[[],[true]]}}`:                          true,
		`{"z":[[1],{"a":[3]}],"a":[0.5,[[]],{"b":7},9],"b":{"c":[0,["y",2],{}]}}`: true,
		`{"a":["x",null],"b":{"c":[[],[true]]}}`:                                  false,
		`{"a":[null,null,{"b":7}],"b":{"c":[[],[true]]}}`:                         false,
		`{"a":[["x"],null,{"b":7}],"b":{"c":[[],[true]]}}`:                        false,
		`{"a":{"0":"x"},"b":{"c":[[],[true]]}}`:                                   false,
		`{"a":"x","b":{"c":[[],[true]]}}`:                                         false,
		`{"a":["x",null,{"b":7}],"b":{"c":[[],true]}}`:                            false,
		`{"a":["x",null,{"b":7},],"b":{"c":[[],[true]]}}`:                         false,
		`{"a":["x",null,{"b":7}],"b":[{"c":[[],[true]]}]}`:                        false,
		`{"a":["x",null,{"b":7,"b":8}],"b":{"c":[[],[true]]}}`:                    false,
	} {
		if got := both(t, q, []byte(text)); got != short {
			t.Errorf("%s: decided %t, want %t", text, got, short)
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

// TestWhatIsMadeOfPathsAgreesWithGojq, too.
func TestWhatIsMadeOfPathsAgreesWithGojq(t *testing.T) {
	for _, made := range []string{
		".a % 500", ".a + .b.c", ".a[0:4]", ".a[:-1]", ".a[2:]", `"\(.a)-\(.b.c)"`, `if .a == 7 then "seven" elif .a then .b.c else 0 end`, ".a // .b.c", "-.a", ".a / .b.c",
		".a and .b.c", `.a == "A" or .b.c > 3`, `@uri "x=\(.a)"`, "(.a | tostring) + (.b.c | tostring)", ".a * 2 - .b.c", ".a as $x | .b.c", `[.a, .b.c, 1] | join("/")`, `[.a + .b.c] | tojson`, "try (.a + .b.c)", `.a | try tonumber catch "none"`, `.a + "" | ascii_downcase`, ".a[.b.c:]",
	} {
		q := mustCompile(t, `{k: (`+made+`), m: .a}`)
		if strings.Contains(made, " as ") {
			if q.plain != nil {
				t.Errorf("%s is seen as plain", made)
			}
			continue
		}
		decided := 0
		for _, a := range []string{`"Pump-7"`, `"A"`, `""`, `7`, `1763900000.25`, `-3`, `-0`, `0`, `true`, `false`, `null`, `[1,2]`, `{"x":1}`, `"1e3"`} {
			for _, c := range []string{`1`, `"x"`, `0`, `false`, `-2.5`} {
				if both(t, q, []byte(`{"a":`+a+`,"b":{"c":`+c+`}}`)) {
					decided++
				}
			}
		}
		if decided == 0 {
			t.Errorf("%s: nothing was decided the short way", made)
		}
	}
}

// TestWhatIsRememberedOfValuesIsBounded: records may be large, and each another.
// TestARecordTellsTheNextNothing: a program goes on from record to record, also when one has
// no result, two, or an error.
func TestARecordTellsTheNextNothing(t *testing.T) {
	q := mustCompile(t, `{n: (.a | if . == 3 then error("three") elif . == 4 then empty elif . == 5 then (1, 2) elif . == 6 then null else . * 2 + .5 end), s: "\(.b)-\(.a % 2)"}`)
	r := newPathReader(q.plain, &queryTimer{})
	for i := range 40 {
		data := fmt.Appendf(nil, `{"a":%d,"b":"%d"}`, i%8, i)
		values, ok := r.read(data)
		if n := i % 8; ok != (n < 3 || n == 7) {
			t.Fatalf("%s: %q, %t", data, values, ok)
		}
		if want := fmt.Sprintf("[%d.5 %d-%d]", i%8*2, i, i%2); ok && fmt.Sprintf("%s", values) != want {
			t.Errorf("%s: %s, want %s", data, values, want)
		}
		if i%3 == 0 {
			r.time.stop() // the next record has another context
			clear(r.made)
		}
	}
}

func TestWhatIsRememberedOfValuesIsBounded(t *testing.T) {
	s := &queryStage{query: mustCompile(t, `{short: .text[0:8], whole: .text}`)}
	for i := range 2 * maxSeen {
		s.values = s.values[:0]
		long := fmt.Sprintf(`{"text":"%8d%s"}`, i, strings.Repeat("x", i%2*4000))
		if _, err := s.read([]byte(long)); err != nil {
			t.Fatal(err)
		}
	}
	size := 0
	for k, v := range s.plain.made {
		size += len(k) + len(v)
	}
	for k := range s.seen {
		size += len(k)
	}
	if len(s.plain.made) == 0 || len(s.seen) == 0 || size > 2*maxSeen*maxSeenBytes {
		t.Errorf("%d results and %d values are remembered, of %d bytes", len(s.plain.made), len(s.seen), size)
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
	made := mustCompile(f, `{n: (.a % 7), s: "\(.a)/\(.b.c)", d: (if .a == .b.c then .a else .b.c end)}`)
	f.Add([]byte(`{"a":["x",{"b":2},[3,4]],"b":[]}`))
	element := mustCompile(f, `{a: .a[0], b: .a[1].b, c: .a[2][1]?, d: .b.c?, e: ([.a[0], .a[2][0]] | join("-")), f: (try .b.c)}`)
	slice := mustCompile(f, `{d: .a[1:3], e: (.b.c // "none")}`)
	f.Fuzz(func(t *testing.T, data []byte) {
		both(t, q, data)
		both(t, made, data)
		both(t, slice, data)
		both(t, element, data)
		both(t, then, data)
	})
}

// go test -run - -bench Query -benchtime 2s ./appliance/delivery
func BenchmarkQuery(b *testing.B) {
	record := func(seq int) []byte {
		return fmt.Appendf(nil, `{"device":"pump-%02d","site":"north-%d","seq":%d,"ts":"2026-11-23T10:00:00.000Z","temperature":21.53,"pressure":3.212,"vibration":[12,21,40],"status":"ok","firmware":"2.1.1"}`+"\n", 7, 3, seq)
	}
	var data [10_000][]byte
	for i := range data {
		data[i] = record(100_000 + i)
	}
	for name, source := range map[string]string{
		"plain": `{d: .device, s: .site}`, "of few values": `{d: (.device|tostring), s: .ts[0:10]}`, "of many values": `{d: (.seq % 500), s: .site}`,
		"of elements": `{d: .vibration[1], s: .site?}`, "gojq": `{d: (.device,.x|tostring), s: .site}`,
	} {
		b.Run(name, func(b *testing.B) {
			s := &queryStage{query: mustCompile(b, source)}
			b.SetBytes(int64(len(data[0])))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.values = s.values[:0]
				if _, err := s.read(data[i%len(data)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
