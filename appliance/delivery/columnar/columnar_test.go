package columnar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// write converts records and returns the file and how many were refused.
func write(t testing.TB, s Schema, o *Options, group int64, records ...string) (file []byte, refused int) {
	t.Helper()
	if err := o.Validate(s); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(s, o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, r, o, group)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		row, err := r.Row([]byte(rec))
		if err != nil {
			var e *RowError
			if !errors.As(err, &e) && !errors.Is(err, ErrNotRow) {
				t.Errorf("%s: %v is no RowError", rec, err)
			}
			refused++
			continue
		}
		if err := w.Write(row, len(rec)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), refused
}

const script = `
import pyarrow.parquet as pq, sys, json
f=pq.ParquetFile(sys.argv[1])
t=f.read()
g=f.metadata.row_group(0) if f.metadata.num_row_groups else None
c=g.column(0) if g else None
print(json.dumps({"rows":json.loads(json.dumps(t.to_pylist(),default=lambda v: v.hex() if isinstance(v,bytes) else str(v))),
 "types":[str(x).split(" ('")[0].rstrip(">")+">" if str(x).startswith("map") else str(x) for x in t.schema.types],"names":t.schema.names,"groups":f.metadata.num_row_groups,
 "codec":c.compression if c else "","encodings":[str(e) for e in c.encodings] if c else []}))`

// contents is what pyarrow reads in a file.
type contents struct {
	Rows      []map[string]any
	Types     []string
	Names     []string
	Groups    int
	Codec     string
	Encodings []string
}

func pyarrow(t testing.TB, file []byte) contents {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.parquet")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("python3", "-c", script, path).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("pyarrow: %s", exit.Stderr)
	}
	if err != nil {
		t.Fatalf("%v (appliance/delivery/install.sh installs what this test needs)", err)
	}
	var c contents
	if err := json.Unmarshal(out, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func same(t *testing.T, what string, got any, want string) {
	t.Helper()
	var w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var g any
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s: pyarrow reads\n%s\nwant\n%s", what, raw, want)
	}
}

// TestEveryType writes each of Hive's types, its nulls and its limits.
func TestEveryType(t *testing.T) {
	s := Schema{
		{"b", "boolean"},
		{"t", "tinyint"},
		{"s", "smallint"},
		{"i", "int"},
		{"l", "bigint"},
		{"f", "float"},
		{"d", "double"},
		{"m", "decimal(10,3)"},
		{"c", "varchar(5)"},
		{"x", "binary"},
		{"day", "date"},
		{"at", "timestamp"},
		{"list", "array<int>"},
		{"map", "map<string,double>"},
		{"st", "struct<a:int,b:array<struct<c:string>>>"},
	}
	file, refused := write(t, s, &Options{}, 1<<20,
		`{"b":true,"t":-128,"s":32767,"i":-2147483648,"l":9223372036854775807,"f":1.5,"d":-0.1,"m":1234567.891,"c":"ü","x":"AQI=","day":"2026-11-23","at":"2026-11-23T10:00:00.123456Z","list":[1,null,3],"map":{"k":0.5,"n":null},"st":{"a":1,"b":[{"c":"x"},{"c":null},null]}}`,
		`{}`,
		`{"list":[],"map":{},"st":{},"l":"42","m":"-0.5","at":1700000000}`,
		`{"t":128}`, `{"m":1.2345}`, `{"m":1e999999999}`, `{"m":12345678}`, `{"day":"23.11.2026"}`, `{"at":"noon"}`, `{"list":{}}`, `{"st":[]}`, `[]`, `nope`, `{"x":"%"}`,
	)
	if refused != 11 {
		t.Errorf("%d records were refused, want 11", refused)
	}
	c := pyarrow(t, file)
	same(t, "types", c.Types, `["bool","int8","int16","int32","int64","float","double","decimal128(10, 3)","string","binary","date32[day]","timestamp[us, tz=UTC]",
		"list<element: int32>","map<string, double>","struct<a: int32, b: list<element: struct<c: string>>>"]`)
	same(t, "first row", c.Rows[0], `{"b":true,"t":-128,"s":32767,"i":-2147483648,"l":9223372036854775807,"f":1.5,"d":-0.1,"m":"1234567.891","c":"ü","x":"0102","day":"2026-11-23",
		"at":"2026-11-23 10:00:00.123456+00:00","list":[1,null,3],"map":[["k",0.5],["n",null]],"st":{"a":1,"b":[{"c":"x"},{"c":null},null]}}`)
	for k, v := range c.Rows[1] {
		if v != nil {
			t.Errorf("column %s of an empty record is %v", k, v)
		}
	}
	if r := c.Rows[2]; fmt.Sprintf("%v %v %v %v", r["list"], r["map"], r["m"], r["at"]) != "[] [] -0.500 2023-11-14 22:13:20+00:00" {
		t.Errorf("third row: %v", r)
	}
}

func TestOpenXOptions(t *testing.T) {
	s := Schema{{"device_id", "string"}, {"a_b", "int"}, {"ts", "bigint"}}
	o := &Options{DotsToUnderscores: true, Keys: map[string]string{"ts": "timestamp"}}
	file, refused := write(t, s, o, 1<<20, `{"Device_ID":"x","a.b":1,"timestamp":5}`, `{"DEVICE_id":7,"A.B":2}`)
	if refused != 0 {
		t.Errorf("%d refused", refused)
	}
	same(t, "rows", pyarrow(t, file).Rows, `[{"device_id":"x","a_b":1,"ts":5},{"device_id":"7","a_b":2,"ts":null}]`)

	file, _ = write(t, Schema{{"Id", "string"}}, &Options{CaseSensitive: true}, 1<<20, `{"Id":"x","id":"y"}`, `{"id":"y"}`)
	same(t, "case sensitive", pyarrow(t, file).Rows, `[{"Id":"x"},{"Id":null}]`)
}

func TestHiveOptions(t *testing.T) {
	s := Schema{{"at", "timestamp"}, {"n", "int"}}
	o := &Options{Serde: Hive, TimestampFormats: []string{"dd/MM/yyyy HH:mm:ss", "yyyy-MM-dd'T'HH:mm:ss.SSSZ", "millis"}}
	file, refused := write(t, s, o, 1<<20,
		`{"at":"23/11/2026 10:11:12","n":1}`, `{"at":"2026-11-23T10:11:12.500+0100"}`, `{"at":"1700000000123"}`, `{"at":"2026-11-23 10:11:12"}`, `{"n":"1"}`)
	if refused != 2 {
		t.Errorf("%d refused, want the time of no format and the number as a text", refused)
	}
	same(t, "rows", pyarrow(t, file).Rows, `[{"at":"2026-11-23 10:11:12+00:00","n":1},{"at":"2026-11-23 09:11:12.500000+00:00","n":null},{"at":"2023-11-14 22:13:20.123000+00:00","n":null}]`)
	file, refused = write(t, Schema{{"s", "string"}, {"n", "int"}}, &Options{Serde: Hive}, 1<<20, `{"s":{"a":1},"n":1}`, `{"s":[1],"n":2}`, `{"s":"x","n":3}`, `{"s":5,"n":4}`)
	if refused != 2 {
		t.Errorf("%d refused, want the two with nested JSON for a text", refused)
	}
	same(t, "texts", pyarrow(t, file).Rows, `[{"s":"x","n":3},{"s":"5","n":4}]`)
	if err := o.Validate(Schema{{"a.b", "int"}}); err == nil || !strings.Contains(err.Error(), "dots") {
		t.Errorf("a dot in a column's name: %v", err)
	}
}

// TestWriterOptions reads compression, dictionary, version and row groups off
// the file.
func TestWriterOptions(t *testing.T) {
	var records []string
	for i := range 2000 {
		records = append(records, fmt.Sprintf(`{"a":"value-%d","n":%d}`, i%5, i))
	}
	s := Schema{{"a", "string"}, {"n", "bigint"}}
	for codec, name := range map[string]string{"": "SNAPPY", "SNAPPY": "SNAPPY", "GZIP": "GZIP", "ZSTD": "ZSTD", "UNCOMPRESSED": "UNCOMPRESSED"} {
		for _, version := range []string{"V1", "V2"} {
			file, _ := write(t, s, &Options{Compression: codec, WriterVersion: version, Dictionary: true}, 1<<20, records...)
			c := pyarrow(t, file)
			if c.Codec != name || len(c.Rows) != 2000 || c.Rows[1999]["n"] != 1999.0 || c.Rows[7]["a"] != "value-2" || !strings.Contains(fmt.Sprint(c.Encodings), "DICTIONARY") {
				t.Errorf("%s %s: %s, %d rows, %v", codec, version, c.Codec, len(c.Rows), c.Encodings)
			}
		}
	}
	for o, want := range map[string][2]bool{"V1": {true, false}, "V2": {false, true}} {
		file, _ := write(t, s, &Options{WriterVersion: o}, 1<<20, records...)
		e := fmt.Sprint(pyarrow(t, file).Encodings)
		if strings.Contains(e, "PLAIN") != want[0] || strings.Contains(e, "DELTA") != want[1] {
			t.Errorf("%s has the encodings %s", o, e)
		}
	}
	pages := map[int]int{}
	for _, page := range []int{0, 64 << 10, 256 << 10} {
		var long []string
		for i := range 20_000 {
			long = append(long, fmt.Sprintf(`{"a":"%s%d"}`, strings.Repeat("x", 40), i))
		}
		file, _ := write(t, s[:1], &Options{PageSizeBytes: page, Compression: "UNCOMPRESSED"}, 4<<20, long...)
		f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		index, err := f.RowGroups()[0].ColumnChunks()[0].OffsetIndex()
		if err != nil {
			t.Fatal(err)
		}
		pages[page] = index.NumPages()
	}
	if pages[0] > 2 || pages[256<<10] < 4 || pages[64<<10] < 14 {
		t.Errorf("pages by their size: %v", pages)
	}
	file, _ := write(t, s, &Options{}, 10_000, records...)
	if c := pyarrow(t, file); c.Groups < 3 || len(c.Rows) != 2000 {
		t.Errorf("%d row groups, %d rows", c.Groups, len(c.Rows))
	}
}

func TestInferredSchema(t *testing.T) {
	f := NewInference(&Options{})
	for _, rec := range []string{`{"a":1,"b":"x","c":[1,2.5],"d":{"e":true}}`, `{"a":2.5,"c":[],"d":{"f":null,"g":"y"},"h":null}`, `nope`} {
		f.Add([]byte(rec))
	}
	if got := fmt.Sprint(f.Schema()); got != "[{a double} {b string} {c array<double>} {d struct<e:boolean,f:string,g:string>} {h string}]" {
		t.Errorf("inferred %s", got)
	}
}

// TestRecordsNestedTooDeepAreNoRows: such a record is in the log and comes again
// after a restart, so it must not end the process.
func TestRecordsNestedTooDeepAreNoRows(t *testing.T) {
	deep := []byte(`{"a":` + strings.Repeat("[", 1<<20))
	r, err := NewReader(Schema{{"a", "string"}}, &Options{})
	if err != nil {
		t.Fatal(err)
	}
	if row, err := r.Row(deep); err == nil {
		t.Errorf("row %v", row)
	}
	f := NewInference(&Options{})
	f.Add(deep)
	if s := f.Schema(); len(s) != 0 {
		t.Errorf("inferred %v", s)
	}
}

// TestInferredSchemaHasTheColumnsOfKeys: a schema that is found in the records is the only one that
// the Firehose API can have, and its mappings are those of columns to keys.
func TestInferredSchemaHasTheColumnsOfKeys(t *testing.T) {
	o := &Options{Keys: map[string]string{"ts": "timestamp", "b": "A"}}
	records := []string{`{"timestamp":1,"a":"x","ts":"lost","c":1}`, `{"TimeStamp":2,"b":"lost"}`}
	f := NewInference(o)
	for _, rec := range records {
		f.Add([]byte(rec))
	}
	s := f.Schema()
	if got := fmt.Sprint(s); got != "[{b string} {c bigint} {ts bigint}]" {
		t.Errorf("inferred %s", got)
	}
	file, _ := write(t, s, o, 1<<20, records...)
	same(t, "rows", pyarrow(t, file).Rows, `[{"b":"x","c":1,"ts":1},{"b":null,"c":null,"ts":2}]`)
}

// FuzzRow: no record makes a reader panic or run away, and what is taken as a
// row can be written.
func FuzzRow(f *testing.F) {
	s := Schema{{"b", "boolean"}, {"l", "bigint"}, {"m", "decimal(18,4)"}, {"day", "date"}, {"at", "timestamp"}, {"x", "binary"}, {"st", "struct<a:array<map<string,int>>>"}}
	for _, seed := range []string{`{"b":true,"l":1,"m":1.5,"day":"2026-01-01","at":"23/11/2026","st":{"a":[{"k":1}]}}`, `{"m":1e64}`, `{"m":"1/3"}`, `{"at":9e99,"l":1e18}`, `{"st":{"a":[[]]}}`} {
		f.Add([]byte(seed))
	}
	var readers []*Reader
	for _, o := range []*Options{{}, {DotsToUnderscores: true}, {Serde: Hive, TimestampFormats: []string{"dd/MM/yyyy", "millis"}}} {
		r, err := NewReader(s, o)
		if err != nil {
			f.Fatal(err)
		}
		readers = append(readers, r)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, r := range readers {
			row, err := r.Row(data)
			if err != nil {
				continue
			}
			w, err := NewWriter(&bytes.Buffer{}, r, r.options, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Write(row, len(data)), w.Close()); err != nil {
				t.Fatalf("%q: %v", data, err)
			}
		}
	})
}

// FuzzJoda: a pattern is translated or refused, and what it makes of a text it
// makes each time.
func FuzzJoda(f *testing.F) {
	f.Add("dd/MM/yyyy HH:mm:ss", "23/11/2026 10:11:12")
	f.Add("yyyy-MM-dd'T'HH:mm:ss.SSSZZ", "2026-11-23T10:11:12.500+01:00")
	f.Add("millis", "-1")
	f.Add("millis", "9223372036854775807")
	f.Add("'quoted' E", "quoted Mon")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		p, err := jodaLayout(pattern)
		if err != nil {
			return
		}
		at, ok := p.parse(text)
		again, ok2 := p.parse(text)
		if ok != ok2 || !at.Equal(again) || ok && !time.UnixMicro(at.UnixMicro()).Equal(at.Truncate(time.Microsecond)) {
			t.Errorf("%q of %q: %v, then %v", pattern, text, at, again)
		}
	})
}

// FuzzType: a type is read or refused.
func FuzzType(f *testing.F) {
	f.Add("struct<a:array<map<string,decimal(10,2)>>,b:varchar(3)>")
	f.Add("array<")
	f.Fuzz(func(t *testing.T, text string) {
		for _, caseSensitive := range []bool{false, true} {
			if d, err := parseType(text, caseSensitive); err == nil && d.leaves() < 1 {
				t.Errorf("%q has no leaf", text)
			}
		}
	})
}

// TestFieldsOfStructsStandOnce: with two of a name there were more leaves than Parquet
// columns, which a writer found out by a panic.
func TestFieldsOfStructsStandOnce(t *testing.T) {
	for text, want := range map[string][2]bool{ // by whether case matters
		"struct<a:int,b:int>": {true, true}, "struct<a:int,A:int>": {false, true}, "struct<a:int,a:int>": {false, false},
		"STRUCT<a:array<Struct<x:INT,y:int,x:int>>>": {false, false}, "struct<a:struct<a:int>>": {true, true},
	} {
		for i, o := range []*Options{{}, {CaseSensitive: true}} {
			if err := o.Validate(Schema{{"c", text}}); (err == nil) != want[i] {
				t.Errorf("%s, case sensitive %t: %v", text, o.CaseSensitive, err)
			}
		}
	}
	o := &Options{CaseSensitive: true}
	f, rec := NewInference(o), `{"s":{"a":1,"A":"x"}}`
	f.Add([]byte(rec))
	file, _ := write(t, f.Schema(), o, 1<<20, rec)
	same(t, "rows", pyarrow(t, file).Rows, `[{"s":{"A":"x","a":1}}]`)
}

// FuzzInfer: the schema that is found in records is valid, and they are rows of it.
func FuzzInfer(f *testing.F) {
	for _, s := range []string{`{"a":1,"B":{"C":[{"d":1}],"e f":1},"g.h":null}`, `{"A":1,"a":2,"":3}`, `{"x":[[[]]],"y":{"":1}}`, `{"k<":{"a":1},"n":{"a<":1,"q":true}}`, "{\"\xff\":{\"\xfe\":1,\"Q\":2}}", `{"a":{"b\n":1}}`, `{"n":1e5,"m":12345678901234567890,"o":-0,"p":6e890}`} {
		f.Add([]byte(s), []byte(s), uint8(0))
		f.Add([]byte(s), []byte(`{"a":"x"}`), uint8(3))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, opt uint8) {
		o := &Options{CaseSensitive: opt&1 != 0, DotsToUnderscores: opt&2 != 0}
		in := NewInference(o)
		in.Add(a)
		in.Add(b)
		s := in.Schema()
		if len(s) == 0 {
			return
		}
		if err := o.Validate(s); err != nil {
			t.Fatalf("%q %q: %v: %v", a, b, s, err)
		}
		r, err := NewReader(s, o)
		if err != nil {
			t.Fatalf("%q %q: %v: %v", a, b, s, err)
		}
		w, err := NewWriter(&bytes.Buffer{}, r, o, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range [][]byte{a, b} {
			row, err := r.Row(d)
			if err != nil {
				var re *RowError
				if !errors.As(err, &re) || re.Column != "" {
					t.Fatalf("%q %q: %v: %v", a, b, s, err)
				}
				continue
			}
			if err := w.Write(row, len(d)); err != nil {
				t.Fatalf("%q %q: %v: %v", a, b, s, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatalf("%q %q: %v: %v", a, b, s, err)
		}
	})
}
