package kinesis

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
)

// exchange is an api.Request and api.Response that costs nothing of its own, so
// that what a benchmark counts is the service's.
type exchange struct {
	api.Request
	target, contentType, body []byte
	answer                    []byte
	status                    int
}

func (e *exchange) Method() string          { return "POST" }
func (e *exchange) Body() []byte            { return e.body }
func (e *exchange) Identity() *api.Identity { return everybody }
func (e *exchange) Proto() string           { return "HTTP/1.1" }
func (e *exchange) Header(name string) []byte {
	switch name {
	case "X-Amz-Target":
		return e.target
	case "Content-Type":
		return e.contentType
	}
	return nil
}

// response is exchange as a Response: the two share a method name.
type response exchange

func (r *response) SetStatus(code int)       { r.status = code }
func (r *response) Status() int              { return r.status }
func (r *response) SetHeader(string, string) {}
func (r *response) Body() *[]byte            { return &r.answer }
func (r *response) Write(p []byte) (int, error) {
	r.answer = append(r.answer, p...)
	return len(p), nil
}

func (e *response) Reserve(_ context.Context, least, want int) int { return max(least, want) }
func (r *response) Stream(func(context.Context, api.StreamWriter) error) {
	panic("BUG: no stream here")
}

func (e *exchange) do(tb testing.TB, s *Service) {
	e.answer, e.status = e.answer[:0], http.StatusOK
	s.Serve(context.Background(), e, (*response)(e))
	if e.status != http.StatusOK {
		tb.Fatalf("%d %s", e.status, e.answer)
	}
}

// sensorRecord is a JSON sensor record of about 200 bytes.
func sensorRecord(i int) []byte {
	return fmt.Appendf(nil, `{"device":"sensor-%04d","ts":%d,"temperature":%d.%02d,"humidity":%d,"battery":3.%02d,"site":"plant-7/hall-3","status":"ok","sequence":%d,"firmware":"2.14.1-edge","rssi":-%d}`,
		i%97, 1_800_000_000_000+int64(i)*137, 18+i%9, i%100, 40+i%30, i%100, i, 40+i%50)
}

// putRequest is a PutRecords of n sensor records.
func putRequest(enc aws.Encoding, n int) *exchange {
	w := &aws.Writer{Encoding: enc}
	w.BeginMap()
	w.Key("StreamName")
	w.String("s")
	w.Key("Records")
	w.BeginList()
	for i := range n {
		w.BeginMap()
		w.Key("Data")
		w.Blob(sensorRecord(i))
		w.Key("PartitionKey")
		w.String(fmt.Sprintf("sensor-%04d", i%97))
		w.EndMap()
	}
	w.EndList()
	w.EndMap()
	e := &exchange{target: []byte(Target + ".PutRecords"), contentType: []byte("application/x-amz-json-1.1"), body: w.Buf}
	if enc == aws.CBOR {
		e.contentType = []byte("application/x-amz-cbor-1.1")
	}
	return e
}

func TestPutRecordsAllocatesNothingPerRecord(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 4)
	for _, enc := range []aws.Encoding{aws.JSON, aws.CBOR} {
		few, many := putRequest(enc, 50), putRequest(enc, 500)
		count := func(e *exchange) float64 {
			e.do(t, b.Service)
			return testing.AllocsPerRun(150, func() { e.do(t, b.Service) })
		}
		base, all := count(few), count(many)
		if perRecord := (all - base) / 450; perRecord > allocationsPerRecord {
			t.Errorf("encoding %d: %.0f allocations for 50 records, %.0f for 500: %.3f per record", enc, base, all, perRecord)
		}
	}
}

func TestPutRecordsAnswersTheSameInBothEncodings(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 4)
	for _, enc := range []aws.Encoding{aws.JSON, aws.CBOR} {
		e := putRequest(enc, 3)
		e.do(t, b.Service)
		if n := bytes.Count(e.answer, []byte("shardId-00000000000")); n != 3 || !bytes.Contains(e.answer, []byte("FailedRecordCount")) {
			t.Errorf("encoding %d: %q", enc, e.answer)
		}
	}
	total := 0
	for shard := range 4 {
		got, _ := b.read(b.iterator("s", fmt.Sprint(shard), "TRIM_HORIZON", ""))
		total += len(got)
	}
	if total != 6 {
		t.Errorf("%d records; want 6", total)
	}
}

// Run with: go test ./appliance/api/kinesis -run xxx -bench PutRecords -benchmem
func BenchmarkPutRecords(b *testing.B) {
	for _, enc := range []aws.Encoding{aws.JSON, aws.CBOR} {
		for _, n := range []int{1, 500} {
			b.Run(fmt.Sprintf("encoding=%s/records=%d", map[aws.Encoding]string{aws.JSON: "json", aws.CBOR: "cbor"}[enc], n), func(b *testing.B) {
				box := newBox(b, Options{})
				box.create("s", 4)
				e := putRequest(enc, n)
				b.SetBytes(int64(n * len(sensorRecord(0))))
				b.ReportAllocs()
				for b.Loop() {
					e.do(b, box.Service)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
			})
		}
	}
}

// Run with: go test ./appliance/api/kinesis -run xxx -bench GetRecords -benchmem
func BenchmarkGetRecords(b *testing.B) {
	box := newBox(b, Options{})
	box.create("s", 1)
	for range 20 {
		putRequest(aws.JSON, 500).do(b, box.Service)
	}
	it := box.iterator("s", "0", "TRIM_HORIZON", "")
	e := &exchange{target: []byte(Target + ".GetRecords"), contentType: []byte("application/x-amz-json-1.1"), body: fmt.Appendf(nil, `{"ShardIterator":%q}`, it)}
	e.do(b, box.Service)
	if n := bytes.Count(e.answer, []byte(base64.StdEncoding.EncodeToString([]byte(`{"device"`))[:10])); n != 10000 {
		b.Fatalf("%d records in an answer", n)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.do(b, box.Service)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*10000), "ns/record")
}
