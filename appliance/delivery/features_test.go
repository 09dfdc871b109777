package delivery_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/columnar"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

func soon() delivery.Buffer { return delivery.Buffer{Interval: delivery.Every(20 * time.Millisecond)} }

func append1(t testing.TB, store *storage.Store, st *storage.Stream, key string, data []byte) {
	t.Helper()
	txn, err := store.Begin(t.Context(), len(data)+100)
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Release()
	if err := txn.Append(st, []byte(key), nil, data); err != nil {
		t.Fatal(err)
	}
	if err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPartitionsByQuery(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 2)
	r.put(st, 0, 3000)
	append1(t, r.store, st, "k", []byte("this is not JSON"))
	append1(t, r.store, st, "k", []byte(`{"n":1,"site":null}`))
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Compression: delivery.Compression{Format: codec.Gzip},
		Prefix:      "site=!{partitionKeyFromQuery:site}/device=!{partitionKeyFromQuery:device}/!{timestamp:yyyy}/",
		ErrorPrefix: "failed/!{firehose:error-output-type}/", Partition: &delivery.Partition{Query: "{site: .site, device: .device}"},
	})
	r.drained("d")
	objects := r.objects()
	good := map[string][]byte{}
	failed := 0
	for name, raw := range objects {
		if strings.HasPrefix(name, "failed/processing-failed/") {
			failed += bytes.Count(raw, []byte("\n"))
			continue
		}
		good[name] = raw
		var site, device string
		parts := strings.Split(name, "/")
		site, device = strings.TrimPrefix(parts[0], "site="), strings.TrimPrefix(parts[1], "device=")
		for l := range bytes.Lines(unpack(t, name, raw)) {
			if !bytes.Contains(l, []byte(`"site":"`+site+`"`)) || !bytes.Contains(l, []byte(`"device":"`+device+`"`)) {
				t.Fatalf("%s has %s", name, l)
			}
		}
	}
	exactly(t, numbers(t, good), 3000, false)
	if failed != 2 {
		t.Errorf("%d failed records, want 2", failed)
	}
	if len(good) < 21 {
		t.Errorf("%d objects for 21 partitions", len(good))
	}
}

// TestPartitionsEndAtTheSizeHint: one partition that has most of the records
// gets as many objects as the size hint asks for, in order; the trace of a record
// names the one that has it.
func TestPartitionsEndAtTheSizeHint(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	r.put(st, 0, 3000)
	const hint = 20_000
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: hint, Interval: delivery.Every(0)},
		Prefix: "ok=!{partitionKeyFromQuery:ok}/", ErrorPrefix: "failed/", Partition: &delivery.Partition{Query: "{ok: .ok}"},
	})
	r.drained("d")
	objects := r.objects()
	exactly(t, numbers(t, objects), 3000, false)
	last := map[string]int{}
	for _, name := range names(objects) {
		if len(objects[name]) > hint+200 {
			t.Errorf("%s has %d bytes, the hint is %d", name, len(objects[name]), hint)
		}
		of, _, _ := strings.Cut(name, "/")
		for _, n := range numbers(t, map[string][]byte{name: objects[name]}) {
			last[of] = max(last[of], n)
		}
	}
	if len(last) != 2 || last["ok=true"] != 2998 || last["ok=false"] != 2999 {
		t.Errorf("the partitions end at %v", last)
	}
	places, err := r.engine.Where(t.Context(), "s", 0, 1500)
	if err != nil || len(places) != 1 || len(places[0].Objects) != 1 || places[0].Position == nil {
		t.Fatalf("where: %+v, %v", places, err)
	}
	p := places[0].Position
	if raw := objects[p.Key]; p.Key != places[0].Objects[0].Key || !bytes.HasPrefix(raw[p.Offset:], []byte(`{"n":`)) {
		t.Errorf("the record is said to be at %+v", p)
	}
	if places, err := r.engine.Where(t.Context(), "s", 0, 1<<40); err != nil || places[0].State != "absent" {
		t.Errorf("a record that is not there: %+v, %v", places, err)
	}
}

func TestPartitionLimit(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	r.put(st, 0, 70)
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Prefix: "!{partitionKeyFromQuery:d}/", ErrorPrefix: "failed/",
		Partition: &delivery.Partition{Query: "{d: .device}", MaxActive: 3},
	})
	r.drained("d")
	good, failed := 0, 0
	for name, raw := range r.objects() {
		if strings.HasPrefix(name, "failed/") {
			failed += bytes.Count(raw, []byte("ActivePartitionLimitExceeded"))
		} else {
			good += bytes.Count(raw, []byte("\n"))
		}
	}
	if good != 30 || failed != 40 {
		t.Errorf("%d records in partitions and %d failed, want 30 and 40", good, failed)
	}
}

// TestPartitionValuesThatMakeNoName: whoever puts records chooses the values. What no object
// can be named after fails, and holds nobody up, after a restart neither.
func TestPartitionValuesThatMakeNoName(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	bad := []string{strings.Repeat("x", 600), strings.Repeat("y", 300), "../../../../../../../../out", `a\u0000b`}
	for i := range 3 {
		for _, v := range bad {
			append1(t, r.store, st, "k", fmt.Appendf(nil, `{"n":%d,"v":"%s"}`+"\n", 1000+i, v))
		}
		append1(t, r.store, st, "k", fmt.Appendf(nil, `{"n":%d,"v":"good %d"}`+"\n", i, i))
	}
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Prefix: "!{partitionKeyFromQuery:v}/", ErrorPrefix: "failed/",
		Partition: &delivery.Partition{Query: "{v: .v}"},
	})
	r.drained("d")
	good, failed := map[string][]byte{}, 0
	for name, raw := range r.objects() {
		if !strings.HasPrefix(name, "failed/processing-failed/") {
			good[name] = raw
			continue
		}
		failed += bytes.Count(raw, []byte(`"errorCode":"DynamicPartitioning.InvalidObjectName"`))
	}
	exactly(t, numbers(t, good), 3, false)
	if failed != 3*len(bad) || len(good) != 3 {
		t.Errorf("%d records failed, want %d; objects %v", failed, 3*len(bad), names(good))
	}
	places, err := r.engine.Where(t.Context(), "s", 0, 1)
	if err != nil || len(places) != 1 || len(places[0].Objects) != 1 || !strings.HasPrefix(places[0].Objects[0].Key, "failed/") {
		t.Errorf("a record that failed is said to be at %+v, %v", places, err)
	}
}

// upper is a transform that works without a module: it upper-cases, drops
// every tenth record and fails every hundredth, until it is mended.
type upper struct{ mended *bool }

func (u *upper) Digest() string { return fmt.Sprintf("digest-%t", *u.mended) }

func (u *upper) Process(_ context.Context, b *delivery.TransformBatch, emit func(*delivery.TransformOutput) error) error {
	for i, r := range b.Records {
		var doc struct{ N int }
		if err := json.Unmarshal(r.Data, &doc); err != nil {
			return err
		}
		out := delivery.TransformOutput{Source: i, Data: bytes.ToUpper(r.Data)}
		switch {
		case doc.N%100 == 0 && !*u.mended:
			out = delivery.TransformOutput{Source: i, Status: delivery.TransformFailed, Reason: "not today"}
		case doc.N%10 == 1:
			out = delivery.TransformOutput{Source: i, Status: delivery.TransformDropped}
		}
		if err := emit(&out); err != nil {
			return err
		}
	}
	return nil
}

func TestTransformFailuresAndRedrive(t *testing.T) {
	mended := false
	r := newRig(t, func(o *delivery.Options) {
		o.Transforms = func(string, string) (delivery.Transformer, error) { return &upper{&mended}, nil }
	})
	st := r.stream("s", 1)
	r.put(st, 0, 2000)
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Transform: &delivery.Transform{Module: "upper"},
		Backup: &delivery.Backup{Sink: delivery.Target{Name: "folder"}, Prefix: "backup/", Compression: delivery.Compression{Format: codec.Gzip}},
	})
	r.drained("d")
	objects := r.objects()
	good, failed, backup := 0, 0, map[string][]byte{}
	for name, raw := range objects {
		switch {
		case strings.HasPrefix(name, "processing-failed/"):
			for l := range bytes.Lines(raw) {
				var row struct {
					ErrorCode, ErrorMessage, RawData, LambdaArn string
					AttemptsMade                                int
					ArrivalTimestamp                            int64
				}
				if err := json.Unmarshal(l, &row); err != nil {
					t.Fatal(err)
				}
				raw, err := base64.StdEncoding.DecodeString(row.RawData)
				if err != nil || row.ErrorMessage != "not today" || !bytes.Contains(raw, []byte("00,")) && !bytes.Contains(raw, []byte(":0,")) || row.AttemptsMade != 1 || row.LambdaArn == "" || row.ArrivalTimestamp == 0 {
					t.Errorf("failed record %s (%v)", l, err)
				}
				failed++
			}
		case strings.HasPrefix(name, "backup/"):
			backup[name] = raw
		default:
			good += bytes.Count(raw, []byte(`"DEVICE"`))
		}
	}
	if good != 2000-200-20 || failed != 20 {
		t.Errorf("%d good and %d failed, want 1780 and 20", good, failed)
	}
	exactly(t, numbers(t, backup), 2000, true)

	for index, want := range map[uint64]string{1: "failed processing-failed backup", 2: "dropped backup", 3: "delivered 2 backup"} {
		places, err := r.engine.Where(t.Context(), "s", 0, index)
		if err != nil || len(places) != 1 {
			t.Fatalf("%v, %v", places, err)
		}
		got := places[0].State
		for _, o := range places[0].Objects {
			folder, _, _ := strings.Cut(o.Key, "/")
			if o.Part == "data" {
				folder = folder[:1] // of the year
			}
			got += " " + folder
		}
		if got != want || (places[0].Position != nil) != (index == 3) {
			t.Errorf("record %d is %s, %+v, want %s", index, got, places[0].Position, want)
		}
	}

	mended = true
	n, err := r.engine.Redrive(t.Context(), "d")
	if err != nil || n != 20 {
		t.Fatalf("redrive: %d, %v", n, err)
	}
	r.drained("d")
	until(t, "redriven records", func() bool {
		n := 0
		for name, raw := range r.objects() {
			if !strings.HasPrefix(name, "backup/") && !strings.HasPrefix(name, "processing-failed/") {
				n += bytes.Count(raw, []byte(`"DEVICE"`))
			}
		}
		return n == 1800
	})
	if n, err := r.engine.Redrive(t.Context(), "d"); err != nil || n != 0 {
		t.Errorf("a second redrive finds %d records, %v", n, err)
	}
}

// TestParquet reads the files back with pyarrow.
func TestParquet(t *testing.T) {
	schema := columnar.Schema{{Name: "device", Type: "string"}, {Name: "n", Type: "bigint"}, {Name: "temperature", Type: "double"}, {Name: "ok", Type: "boolean"}}
	for name, s := range map[string]columnar.Schema{"declared": schema, "inferred": nil} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			st := r.stream("s", 1)
			r.put(st, 0, 5000)
			append1(t, r.store, st, "k", []byte(`[1,2]`))
			append1(t, r.store, st, "k", []byte(`{"n":"not a number","temperature":"warm"}`))
			r.create(delivery.Config{
				Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Prefix: "p/", ErrorPrefix: "failed/",
				Parquet: &delivery.Parquet{Schema: s},
			})
			r.drained("d")
			var files []string
			failed := 0
			for name, raw := range r.objects() {
				if strings.HasPrefix(name, "failed/format-conversion-failed/") {
					failed += bytes.Count(raw, []byte("lastErrorCode"))
				} else {
					files = append(files, filepath.Join(r.dir, name))
				}
			}
			sort.Strings(files)
			script := `
import pyarrow.parquet as pq, sys, json
rows=[]
for f in sys.argv[1:]:
    t=pq.read_table(f)
    rows+=t.to_pylist()
print(json.dumps(rows))`
			out, err := exec.Command("python3", append([]string{"-c", script}, files...)...).Output()
			if err != nil {
				t.Fatalf("pyarrow: %v (appliance/delivery/install.sh installs what this test needs)", err)
			}
			var rows []struct {
				N           *int
				Device      *string
				Temperature *float64
				OK          *bool
			}
			if err := json.Unmarshal(out, &rows); err != nil {
				t.Fatal(err)
			}
			for i := range 5000 {
				w := rows[i]
				if *w.N != i || *w.Device != fmt.Sprintf("pump-%d", i%7) || *w.OK != (i%2 == 0) || *w.Temperature != float64(20+i%11)+float64(i%10)/10 {
					t.Fatalf("row %d is %+v", i, w)
				}
			}
			if len(rows)+failed != 5002 {
				t.Errorf("%d rows and %d failed records of 5002", len(rows), failed)
			}
		})
	}
}

func TestPrefixesZonesAndDelimiters(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	append1(t, r.store, st, "k", []byte(`{"a":1}{"a":2} {"a":3}`))
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), TimeZone: "Asia/Tokyo", FileExtension: ".jsonl",
		Prefix: "x/!{timestamp:yyyy-MM-dd'T'HH}/!{firehose:random-string}/", ErrorPrefix: "e/!{firehose:error-output-type}/",
		SubRecords: &delivery.SubRecords{Type: "JSON"}, Delimiter: "\n",
	})
	r.drained("d")
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range r.objects() {
		want := "x/" + time.Now().In(tokyo).Format("2006-01-02T")
		if !strings.HasPrefix(name, want) || !strings.HasSuffix(name, ".jsonl") {
			t.Errorf("object is named %s, want %s…", name, want)
		}
		if string(raw) != "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n" {
			t.Errorf("object is %q", raw)
		}
	}
}

// aggregate packs records as the KPL does.
func aggregate(keys []string, records []string) []byte {
	var body []byte
	for _, k := range keys {
		body = protowire.AppendTag(body, 1, protowire.BytesType)
		body = protowire.AppendString(body, k)
	}
	for i, r := range records {
		var m []byte
		m = protowire.AppendTag(m, 1, protowire.VarintType)
		m = protowire.AppendVarint(m, uint64(i%len(keys)))
		m = protowire.AppendTag(m, 3, protowire.BytesType)
		m = protowire.AppendString(m, r)
		body = protowire.AppendTag(body, 3, protowire.BytesType)
		body = protowire.AppendBytes(body, m)
	}
	sum := md5.Sum(body)
	return append(append([]byte{0xf3, 0x89, 0x9a, 0xc2}, body...), sum[:]...)
}

func TestDeaggregationAndDecompression(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write([]byte(`{"messageType":"DATA_MESSAGE","logEvents":[{"message":"one"},{"message":"two"}]}`))
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	append1(t, r.store, st, "k", aggregate([]string{"a", "b"}, []string{"r1\n", "r2\n", "r3\n"}))
	append1(t, r.store, st, "k", []byte("\xf3\x89\x9a\xc2 only looks like an aggregate\n"))
	r.create(delivery.Config{Name: "kpl", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Deaggregate: true, Prefix: "kpl/"})
	logs := r.stream("logs", 1)
	append1(t, r.store, logs, "k", zipped.Bytes())
	append1(t, r.store, logs, "k", []byte("plain"))
	r.create(delivery.Config{
		Name: "logs", Source: delivery.Source{Stream: "logs"}, Buffer: soon(), Prefix: "logs/",
		Decompress: &delivery.Decompress{Extract: true}, Delimiter: "|",
	})
	r.drained("kpl")
	r.drained("logs")
	var got []string
	for _, name := range names(r.objects()) {
		raw := r.objects()[name]
		switch {
		case strings.HasPrefix(name, "logs/decompression-failed/"):
			got = append(got, "failed")
		default:
			got = append(got, string(raw))
		}
	}
	want := []string{"r1\nr2\nr3\n\xf3\x89\x9a\xc2 only looks like an aggregate\n", "one|two|", "failed"}
	sort.Strings(got)
	sort.Strings(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhere(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	r.put(st, 0, 400)
	r.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon()})
	r.drained("d")
	r.create(delivery.Config{Name: "later", Source: delivery.Source{Stream: "s"}, Prefix: "later/"})
	for _, n := range []int{0, 1, 200, 399} {
		var index uint64
		reader, err := st.NewReader(0, storage.Position{})
		if err != nil {
			t.Fatal(err)
		}
		for index == 0 {
			if _, err := reader.Read(1, 1<<20, func(rec *record.Record) bool {
				if bytes.HasPrefix(rec.Data, fmt.Appendf(nil, `{"n":%d,`, n)) {
					index = rec.Index
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		reader.Close()
		places, err := r.engine.Where(t.Context(), "s", 0, index)
		if err != nil || len(places) != 2 {
			t.Fatalf("record %d: %v, %v", n, places, err)
		}
		p := places[0]
		if p.State != "delivered" || len(p.Objects) != 1 || p.Position == nil || p.Arrival.IsZero() {
			t.Fatalf("record %d: %+v", n, p)
		}
		raw := r.objects()[p.Position.Key]
		got := raw[p.Position.Offset : p.Position.Offset+int64(p.Position.Length)]
		if !bytes.Equal(got, line(n)) {
			t.Errorf("record %d is said to be %q", n, got)
		}
		if places[1].State != "gathered" || places[1].Why == "" {
			t.Errorf("record %d of the other: %+v", n, places[1])
		}
	}
}

func TestDirectPutAndUpdate(t *testing.T) {
	r := newRig(t)
	r.create(delivery.Config{Name: "d", Source: delivery.Source{DirectPut: true}, Buffer: soon(), Prefix: "one/"})
	st, err := r.engine.Buffer("d")
	if err != nil {
		t.Fatal(err)
	}
	r.put(st, 0, 300)
	r.drained("d")
	err = r.engine.Update(t.Context(), "d", 1, func(c *delivery.Config) error {
		c.Prefix = "two/"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Update(t.Context(), "d", 1, func(*delivery.Config) error { return nil }); !errors.Is(err, delivery.ErrVersion) {
		t.Errorf("an update of an old version: %v", err)
	}
	r.put(st, 300, 600)
	r.drained("d")
	until(t, "all records", func() bool { return len(numbers(t, r.objects())) == 600 })
	exactly(t, numbers(t, r.objects()), 600, true)
	two := 0
	for name := range r.objects() {
		if strings.HasPrefix(name, "two/") && strings.Contains(name, "/d-2-") {
			two++
		}
	}
	if two == 0 {
		t.Errorf("nothing was stored by the new version: %v", names(r.objects()))
	}
	if err := r.engine.Pause(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	r.put(st, 600, 700)
	if s, _ := r.engine.Stats("d"); s.Waiting != "paused" {
		until(t, "pause", func() bool { s, _ := r.engine.Stats("d"); return s.Waiting == "paused" && s.LagRecords == 100 })
	}
	if err := r.engine.Resume(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	r.drained("d")
	if err := r.engine.Delete(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Stream("delivery/d"); !errors.Is(err, storage.ErrStreamNotFound) {
		t.Errorf("the buffer is still there: %v", err)
	}
	for _, table := range []storage.Table{storage.TableDelivery, storage.TableRecipe, storage.TableManifest} {
		if err := r.store.Scan(table, nil, nil, 0, func(key, _ []byte) bool {
			if string(key) != "i" {
				t.Errorf("row %q of table %s is left", key, table)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	r := newRig(t)
	r.stream("s", 1)
	for cause, c := range map[string]delivery.Config{
		"give either a stream to read": {Name: "d"},
		"stream not found":             {Name: "d", Source: delivery.Source{Stream: "nope"}},
		`there is no sink "nope"`:      {Name: "d", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: "nope"}},
		"134217728, which is 128 MiB":  {Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 1 << 30}},
		"not an IANA time zone":        {Name: "d", Source: delivery.Source{Stream: "s"}, TimeZone: "Mars/Base"},
		"must be given when prefix":    {Name: "d", Source: delivery.Source{Stream: "s"}, Prefix: "!{timestamp:yyyy}/"},
		"partition is not configured":  {Name: "d", Source: delivery.Source{Stream: "s"}, Prefix: "!{partitionKeyFromQuery:a}/", ErrorPrefix: "e/"},
		"every key must be used": {
			Name: "d", Source: delivery.Source{Stream: "s"}, Prefix: "!{partitionKeyFromQuery:a}/", ErrorPrefix: "e/",
			Partition: &delivery.Partition{Query: "{a:.a,b:.b}"},
		},
		"no look-around": {
			Name: "d", Source: delivery.Source{Stream: "s"}, Prefix: "!{partitionKeyFromQuery:a}/", ErrorPrefix: "e/",
			Partition: &delivery.Partition{Query: `{a: (.a | if . then sub("x(?=y)"; "") else "none" end)}`},
		},
		"must be UNCOMPRESSED": {Name: "d", Source: delivery.Source{Stream: "s"}, Compression: delivery.Compression{Format: codec.Gzip}, Parquet: &delivery.Parquet{}},
		"is not a window":      {Name: "d", Source: delivery.Source{Stream: "s"}, Uplink: delivery.Uplink{Windows: []string{"22-6"}}},
	} {
		if c.Sink.Name == "" {
			c.Sink.Name = "folder"
		}
		err := r.engine.Create(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), cause) {
			t.Errorf("want %q, got %v", cause, err)
		}
	}
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Prefix: "!{partitionKeyFromQuery:a}/", ErrorPrefix: "e/",
		Partition: &delivery.Partition{Query: `{a: (.a | split("(") | .[0] | sub("(?<d>\\d+)$"; "\(.d)") | test("A"; "i"))}`},
	})
}

// TestPartitionsReadTheLogAFewTimes: what is gathered in one pass is several
// times the memory it is gathered in.
func TestPartitionsReadTheLogAFewTimes(t *testing.T) {
	r := newRig(t)
	size := fill(t, r.store, r.stream("s", 1), 24<<20)
	r.create(delivery.Config{
		Name: "parts", Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{SizeBytes: 64 << 20, Interval: delivery.Every(0)},
		Compression: delivery.Compression{Format: codec.Zstd}, Prefix: "!{partitionKeyFromQuery:n}/", ErrorPrefix: "failed/",
		Partition: &delivery.Partition{Query: "{n: (.seq % 100)}"},
	})
	r.drained("parts")
	s, err := r.engine.Stats("parts")
	if err != nil {
		t.Fatal(err)
	}
	if s.Bytes != size || s.Objects < 100 {
		t.Errorf("%d bytes in %d objects of %d bytes", s.Bytes, s.Objects, size)
	}
	if reads := float64(s.ReadBytes) / float64(size); reads > 4.1 {
		t.Errorf("the log was read %.1f times", reads)
	} else {
		t.Logf("the log was read %.1f times", reads)
	}
}

// TestFailuresOfAnObjectThatIsThere: a box that ends between the object of a batch and that of the records
// which failed in it finds the first one stored, and still makes the second.
func TestFailuresOfAnObjectThatIsThere(t *testing.T) {
	for name, query := range map[string]string{"whole": "", "partitions": "{site: .site}"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			st := r.stream("s", 1)
			r.put(st, 0, 10)
			append1(t, r.store, st, "k", []byte("no JSON"))
			r.put(st, 10, 20)
			missing := filepath.Join(t.TempDir(), "missing")
			settings, _ := json.Marshal(map[string]string{"dir": missing})
			c := delivery.Config{
				Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Check: delivery.CheckJSON,
				ErrorSink: &delivery.Target{Kind: "file", Settings: settings},
			}
			if query != "" {
				c.Partition, c.Prefix, c.ErrorPrefix = &delivery.Partition{Query: query}, "!{partitionKeyFromQuery:site}/", "errors/"
			}
			r.create(c)
			until(t, "the failed record can't be stored", func() bool {
				s, err := r.engine.Stats("d")
				return err == nil && s.LastError != nil
			})
			r.stop()
			before := names(r.objects())
			if err := os.Mkdir(missing, 0o755); err != nil {
				t.Fatal(err)
			}
			r.open()
			r.drained("d")
			if after := names(r.objects()); !slices.Equal(before, after) {
				t.Errorf("objects were %v, and are %v", before, after)
			}
			exactly(t, numbers(t, r.objects()), 20, false)
			r.dir = missing
			var failed string
			for _, raw := range r.objects() {
				failed += string(raw)
			}
			if strings.Count(failed, base64.StdEncoding.EncodeToString([]byte("no JSON"))) != 1 {
				t.Errorf("the failed record is not with the errors: %q", failed)
			}
			s, err := r.engine.Stats("d")
			if err != nil || s.Records != 20 || s.Failed != 1 {
				t.Errorf("%d records and %d failed were counted (%v), want 20 and 1", s.Records, s.Failed, err)
			}
			if n, err := r.engine.Redrive(t.Context(), "d"); err != nil || n != 1 {
				t.Errorf("%d records are sent again (%v), want 1", n, err)
			}
		})
	}
}

// TestChecksAndWhereFailuresGo: records that are not what they are to be go to the
// sink for errors and never to the others, and the others come through whole.
func TestChecksAndWhereFailuresGo(t *testing.T) {
	r := newRig(t)
	st := r.stream("s", 1)
	bad := "neither JSON nor \xff text"
	r.put(st, 0, 10)
	append1(t, r.store, st, "k", []byte(bad))
	r.put(st, 10, 20)
	for name, check := range map[string]delivery.Check{"json": delivery.CheckJSON, "text": delivery.CheckUTF8} {
		r.create(delivery.Config{
			Name: name, Source: delivery.Source{Stream: "s"}, Buffer: soon(), Check: check, Compression: delivery.Compression{Format: codec.Zstd},
			Sink: delivery.Target{Name: "folder", Bucket: name}, ErrorSink: &delivery.Target{Name: "folder", Bucket: name + "-errors"},
		})
		r.drained(name)
		if g, err := r.engine.Test(t.Context(), name); err != nil || g["error_sink"].Guarantee != delivery.ExactlyOnce {
			t.Errorf("%v, %v", g, err)
		}
	}
	good, failed := map[string]map[string][]byte{"json": {}, "text": {}}, map[string]int{}
	for name, raw := range r.objects() {
		folder, _, _ := strings.Cut(name, "/")
		if of, is := strings.CutSuffix(folder, "-errors"); is {
			failed[of] += strings.Count(string(raw), `"rawData":"`+base64.StdEncoding.EncodeToString([]byte(bad))+`"`)
			continue
		}
		good[folder][name] = raw
	}
	for name := range good {
		exactly(t, numbers(t, good[name]), 20, true)
		if failed[name] != 1 {
			t.Errorf("%s: %d failed records, want 1", name, failed[name])
		}
	}
	err := r.engine.Create(t.Context(), delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Check: "XML", Sink: delivery.Target{Name: "folder"}})
	if !errors.Is(err, delivery.ErrInvalid) {
		t.Errorf("an unknown check: %v", err)
	}
}
