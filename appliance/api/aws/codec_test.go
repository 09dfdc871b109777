package aws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// FuzzJSON compares the reader with encoding/json. It is stricter: texts have to
// be UTF-8 with surrogates in pairs, and nesting is bounded.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e+3,true,false,null,"x\u00e9\n\"",{}]}`, `[[],{}]`, `"\ud83d\ude00"`, `01`, `1e`, `[1,]`, `{"a"}`, ``, `nul`, "\"\xff\"", `-`, `0.`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := wellFormed(JSON, b), json.Valid(b)
		if ours && !theirs {
			t.Fatalf("%q is no JSON", b)
		}
		if theirs && !ours && utf8.Valid(b) && !bytes.Contains(b, []byte(`\u`)) && bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) < maxDepth {
			t.Fatalf("%q is JSON", b)
		}
	})
}

// FuzzCBOR checks that what the reader takes is CBOR, and that it reads what fxamacker/cbor writes.
func FuzzCBOR(f *testing.F) {
	f.Add(putRecordsCBOR())
	for _, v := range []any{1, -1, 1.5, "text", []byte("bytes"), []any{nil, true, uint64(1 << 40)}, map[string]any{"a": []int{1, 2}}, time.Unix(1, 0)} {
		b, err := cbor.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x9f\x7f\x61a\xff\x5f\x41b\xff\xbf\x61k\xf9\x3e\x00\xff\xff"))
	f.Add(append(bytes.Repeat([]byte{0xcb}, 2000), 0))
	f.Add(append(bytes.Repeat(append(bytes.Repeat([]byte{0xcb}, maxTags), 0x81), 64), 0)) // for the library a tag is a level
	magic := []byte("\xd9\xd9\xf7")                                                       // the tag that says "this is CBOR", which the library takes off
	f.Add(append(bytes.Repeat(magic, maxTags+1), "\x61a"...))
	mode, err := cbor.DecOptions{MaxNestedLevels: 65535, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := wellFormed(CBOR, b), mode.Wellformed(b)
		if ours && theirs != nil {
			t.Fatalf("%x is taken: %v", b, theirs)
		}
		var v any
		if theirs != nil || cbor.Unmarshal(b, &v) != nil || bytes.HasPrefix(b, bytes.Repeat(magic, maxTags+1)) {
			return
		}
		switch v := v.(type) { // what the services have
		case string, []byte, bool, float64, int64:
			if !ours {
				t.Fatalf("%x is %T and refused", b, v)
			}
		}
	})
}

// FuzzWriter writes one value of each kind and reads it back with other libraries.
func FuzzWriter(f *testing.F) {
	f.Add("text \x00\"\\\u2028 é", []byte{1, 2}, int64(-5), 1.5, int64(1700000000123))
	f.Add("\xff\xfe", []byte{}, int64(math.MaxInt64), math.Inf(1), int64(-1))
	f.Fuzz(func(t *testing.T, s string, blob []byte, n int64, fl float64, ms int64) {
		ms %= 1 << 45
		write := func(enc Encoding) []byte {
			w := Writer{Encoding: enc}
			w.BeginMap()
			w.Key("s")
			w.String(s)
			w.Key("x")
			w.Text([]byte(s))
			w.Key("b")
			w.Blob(blob)
			w.Key("l")
			w.BeginList()
			w.Int(n)
			w.Float(fl)
			w.TimeMS(ms)
			w.Bool(n > 0)
			w.EndList()
			w.EndMap()
			return w.Buf
		}
		js := write(JSON)
		var got struct {
			S, X string
			B    []byte
			L    []json.Number
		}
		if i := bytes.LastIndexByte(js, ','); i > 0 {
			if err := json.Unmarshal(append(bytes.Clone(js[:i]), "]}"...), &got); err != nil {
				t.Fatalf("%s: %v", js, err)
			}
		}
		want := string([]rune(s))
		if got.S != want || got.X != want || !bytes.Equal(got.B, blob) || got.L[0].String() != itoa64(n) {
			t.Fatalf("%q became %q", s, got)
		}
		if sec, err := got.L[2].Float64(); err != nil || int64(math.Round(sec*1000)) != ms {
			t.Fatalf("%d ms became %s", ms, got.L[2])
		}
		if !wellFormed(JSON, js) {
			t.Fatalf("%s", js)
		}
		cb := write(CBOR)
		if err := cbor.Wellformed(cb); err != nil || !wellFormed(CBOR, cb) {
			t.Fatalf("%x: %v", cb, err)
		}
		var m struct {
			S string `cbor:"s"`
			X string `cbor:"x"`
			B []byte `cbor:"b"`
		}
		if err := cbor.Unmarshal(cb, &m); err != nil || m.S != want || m.X != want || !bytes.Equal(m.B, blob) {
			t.Fatalf("%q became %q, %v", s, m, err)
		}
	})
}

func itoa64(n int64) string { w := Writer{}; w.Int(n); return string(w.Buf) }

func TestTimestampsInJSON(t *testing.T) {
	for ms, want := range map[int64]string{0: "0", 1: "0.001", 1700000000100: "1700000000.1", 1700000000120: "1700000000.12", 1700000000123: "1700000000.123", -1500: "-1.5"} {
		w := Writer{}
		w.TimeMS(ms)
		r := jsonReader{b: w.Buf}
		if back := r.millis(); string(w.Buf) != want || back != ms {
			t.Errorf("%d: %s, %d", ms, w.Buf, back)
		}
	}
	if base64Len([]byte(base64.StdEncoding.EncodeToString(make([]byte, 7)))) != 7 {
		t.Error("length of base64")
	}
}
