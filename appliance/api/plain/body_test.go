package plain

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/appliance/api"
)

func status(err error) int {
	var why *api.Refusal
	if errors.As(err, &why) {
		return why.Status
	}
	return 0
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zstded(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

func TestDecompressStopsAtTheLimit(t *testing.T) {
	bomb := make([]byte, 64<<20)
	for name, body := range map[string][]byte{"gzip": gzipped(bomb), "zstd": zstded(bomb), "identity": bomb} {
		if _, err := decompress(body, name, 1<<20); status(err) != 413 {
			t.Errorf("%s bomb of %d bytes: %v; want 413", name, len(body), err)
		}
		exact, err := decompress(map[string][]byte{"gzip": gzipped(bomb[:1<<20]), "zstd": zstded(bomb[:1<<20]), "identity": bomb[:1<<20]}[name], name, 1<<20)
		if err != nil || len(exact) != 1<<20 {
			t.Errorf("%s at the limit: %d bytes, %v", name, len(exact), err)
		}
	}
}

func TestDecompressRefusesWhatItCannotRead(t *testing.T) {
	for name, want := range map[string]int{"gzip": 400, "zstd": 400, "br": 415, "gzip, gzip": 415} {
		if _, err := decompress([]byte("not compressed"), name, 1<<20); status(err) != want {
			t.Errorf("%s: %v; want %d", name, err, want)
		}
	}
	cut := gzipped([]byte("some text that is cut off"))
	if _, err := decompress(cut[:len(cut)-6], "gzip", 1<<20); status(err) != 400 {
		t.Errorf("cut gzip: %v; want 400", err)
	}
}

func batchOf(entries ...entry) []byte {
	b := []byte(batchMagic)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(e.key)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.data)))
		b = append(append(b, e.key...), e.data...)
	}
	return b
}

func TestParseBatch(t *testing.T) {
	want := []entry{{[]byte("k"), []byte("one")}, {nil, []byte{}}, {[]byte("key two"), []byte("\n\x00")}}
	got, err := parse(batchOf(want...), typeBatch, 10)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range want {
		if !bytes.Equal(got[i].key, want[i].key) || !bytes.Equal(got[i].data, want[i].data) {
			t.Errorf("record %d: %q", i, got[i])
		}
	}
	whole := batchOf(want...)
	for n := range len(whole) {
		got, err := parseBatch(whole[:n], 10)
		// A cut between records is a batch of fewer records; any other is an error.
		if err == nil && !bytes.Equal(batchOf(got...), whole[:n]) {
			t.Errorf("cut at %d: %q", n, got)
		}
	}
	if _, err := parseBatch(whole, 2); status(err) != 413 {
		t.Errorf("three records where two are allowed: %v", err)
	}
}

func TestParseLines(t *testing.T) {
	got, err := parse([]byte("{\"a\":1}\r\n\n  \t\nb\nlast"), "Application/X-NDJSON; charset=utf-8", 10)
	if err != nil || len(got) != 3 || string(got[0].data) != `{"a":1}` || string(got[1].data) != "b" || string(got[2].data) != "last" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := parseLines([]byte("a\nb\nc"), 2); status(err) != 413 {
		t.Errorf("three lines where two are allowed: %v", err)
	}
}

func TestPointerFindsTextsAndNumbers(t *testing.T) {
	document := `{"id":"dev-1","n":4.50,"a/b":{"~":["x",{"k":"\u00e9\n"}]},"t":true,"e":"","z":null}`
	for p, want := range map[string]string{"/id": "dev-1", "/n": "4.50", "/a~1b/~0/0": "x", "/a~1b/~0/1/k": "é\n", "/e": ""} {
		at, err := parsePointer(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := at.find(document); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", p, got, err, want)
		}
	}
	for document, want := range map[string]string{`{"id":"first","id":"last"}`: "last", `{"id":"a","\u0069d":2}`: "2", `{"id":"\ud83d\ude00"}`: "\U0001f600"} {
		if got, err := (pointer{"id"}).find(document); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", document, got, err, want)
		}
	}
	for _, document := range []string{`{"id":"a\ud83d"}`, `{"id":"a","x":` + strings.Repeat("[", 1<<20), `{"id":"a"} 1`, `{"id":"a",}`} {
		if got, err := (pointer{"id"}).find(document); err == nil {
			t.Errorf("%.40s: %q; want it refused", document, got)
		}
	}
	for _, p := range []string{"/missing", "/t", "/z", "/a~1b", "/a~1b/~0/2", "/a~1b/~0/00", "/id/x"} {
		at, err := parsePointer(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := at.find(document); !errors.Is(err, errNoKey) {
			t.Errorf("%s: %q, %v; want no key", p, got, err)
		}
	}
	if _, err := parsePointer("id"); err == nil {
		t.Error("a pointer without / is accepted")
	}
}

func FuzzParseBatch(f *testing.F) {
	f.Add(batchOf(entry{[]byte("k"), []byte("data")}))
	f.Add([]byte(batchMagic))
	f.Add([]byte("WRB\x01\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseBatch(body, 100)
		if err == nil && !bytes.Equal(batchOf(got...), body) {
			t.Fatalf("%q parsed as %q", body, got)
		}
	})
}

func FuzzParseLines(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n\r\n{}\n"))
	f.Add([]byte("\n\n\r\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseLines(body, 100)
		if err != nil {
			return
		}
		var want []string
		for _, line := range strings.Split(string(body), "\n") {
			if line = strings.TrimSuffix(line, "\r"); len(bytes.TrimSpace([]byte(line))) > 0 {
				want = append(want, line)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d records of %q; want %d", len(got), body, len(want))
		}
		for i := range got {
			if string(got[i].data) != want[i] {
				t.Fatalf("record %d: %q; want %q", i, got[i].data, want[i])
			}
		}
	})
}

// pointed is what a pointer finds by encoding/json.
func pointed(at pointer, document string) (string, bool) {
	var v any
	d := json.NewDecoder(strings.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return "", false
	}
	for _, part := range at {
		switch have := v.(type) {
		case map[string]any:
			v = have[part]
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || strconv.Itoa(n) != part || n < 0 || n >= len(have) {
				return "", false
			}
			v = have[n]
		default:
			return "", false
		}
	}
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	}
	return "", false
}

var surrogate = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

// FuzzPointer: what a pointer finds is what it finds by encoding/json. That puts
// U+FFFD for bytes that are no text and for half a surrogate, which is not compared.
func FuzzPointer(f *testing.F) {
	f.Add("/a/0/b", `{"a":[{"b":"c"}]}`)
	f.Add("/~01", `{"~1":1e5}`)
	f.Add("/x", `{"x":`)
	f.Add("/a/b", `{"a":{"b":1},"a":{"c":1}}`)
	f.Add("/a", `{"\u0061":"\u00e9\/","a":"last"}`)
	f.Add("/a/00", `{"a":["x"]}`)
	f.Add("/", `{"":-0.0E+5}`)
	f.Add("/a", `{"a":"\ud83d\ude00\ud83d"}`)
	f.Fuzz(func(t *testing.T, p, document string) {
		at, err := parsePointer(p)
		if err != nil {
			return
		}
		got, err := at.find(document)
		if !json.Valid([]byte(document)) {
			if err == nil {
				t.Fatalf("%s in %q, which is no JSON: %q", p, document, got)
			}
			return
		}
		if !utf8.ValidString(document) || !utf8.ValidString(p) || surrogate.MatchString(document) || strings.Count(document, "[")+strings.Count(document, "{") > 100 {
			return
		}
		if want, found := pointed(at, document); found != (err == nil) || got != want {
			t.Fatalf("%s in %q: %q, %v; encoding/json has %q, %t", p, document, got, err, want, found)
		}
	})
}
