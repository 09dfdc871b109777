package kinesis

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/storage"
)

// box is a service over a store in memory, with a clock of its own.
type box struct {
	*Service
	t     testing.TB
	fs    vfs.FS
	clock *apitest.Clock
	who   *api.Identity
	room  int // memory there is for an answer; without end if 0
}

var everybody = &api.Identity{Name: "tester", Policy: api.FullAccess}

func newBox(t testing.TB, o Options) *box {
	t.Helper()
	b := &box{t: t, fs: vfs.NewMem(), clock: apitest.NewClock(), who: everybody}
	b.open(o)
	return b
}

// open opens the store, or opens it again as a restart does.
func (b *box) open(o Options) {
	b.t.Helper()
	start := b.clock.Now()
	store, err := storage.Open(context.Background(), "data", storage.Options{
		FS: b.fs, Clock: b.clock.Now, Uptime: func() time.Duration { return b.clock.Now().Sub(start) }, ReserveBytes: -1,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = store.Close() })
	o.Clock = b.clock.Now
	if b.Service, err = New(context.Background(), store, o); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) restart(o Options) {
	b.t.Helper()
	if err := b.store.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open(o)
}

// answer is a decoded JSON answer.
type answer map[string]any

// at walks into an answer: member names and list indexes.
func (a answer) at(path ...any) any {
	var v any = map[string]any(a)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func (a answer) text(path ...any) string {
	s, _ := a.at(path...).(string)
	return s
}

func (a answer) number(path ...any) int {
	n, _ := a.at(path...).(json.Number)
	i, err := n.Int64()
	if err != nil {
		return -1
	}
	return int(i)
}

func (a answer) list(path ...any) []any {
	l, _ := a.at(path...).([]any)
	return l
}

func (b *box) request(op, body string) *apitest.Request {
	return &apitest.Request{
		Headers: http.Header{"X-Amz-Target": {Target + "." + op}, "Content-Type": {"application/x-amz-json-1.1"}},
		Payload: []byte(body), Who: b.who, Room: b.room,
	}
}

// do calls an operation with a JSON body, fmt.Sprintf of its arguments.
func (b *box) do(op, format string, args ...any) (int, answer) {
	b.t.Helper()
	r := apitest.Do(context.Background(), b.Service, b.request(op, fmt.Sprintf(format, args...)))
	if r.Streamed {
		b.t.Fatalf("%s streams", op)
	}
	out := answer{}
	if len(r.Body) > 0 {
		d := json.NewDecoder(strings.NewReader(string(r.Body)))
		d.UseNumber()
		if err := d.Decode(&out); err != nil {
			b.t.Fatalf("%s: %v in %s", op, err, r.Body)
		}
	}
	return r.Status, out
}

// must is do for a call that has to succeed.
func (b *box) must(op, format string, args ...any) answer {
	b.t.Helper()
	status, out := b.do(op, format, args...)
	if status != 200 {
		b.t.Fatalf("%s: %d %v", op, status, out)
	}
	return out
}

// fails is do for a call that has to fail in a way; it returns the message.
func (b *box) fails(kind, op, format string, args ...any) string {
	b.t.Helper()
	status, out := b.do(op, format, args...)
	if out.text("__type") != kind {
		b.t.Fatalf("%s: %d %v; want %s", op, status, out, kind)
	}
	if status != 400 && status != 500 {
		b.t.Fatalf("%s: status %d; want 400 or 500", op, status)
	}
	return out.text("message") + out.text("Message")
}

// create makes a provisioned stream.
func (b *box) create(name string, shards int) {
	b.t.Helper()
	b.must("CreateStream", `{"StreamName":%q,"ShardCount":%d}`, name, shards)
}

// put writes a record and returns its shard and sequence number.
func (b *box) put(stream, key, data string) (shard, sequence string) {
	b.t.Helper()
	out := b.must("PutRecord", `{"StreamName":%q,"PartitionKey":%q,"Data":%q}`, stream, key, base64.StdEncoding.EncodeToString([]byte(data)))
	return out.text("ShardId"), out.text("SequenceNumber")
}

func (b *box) iterator(stream, shard, kind, more string) string {
	b.t.Helper()
	return b.must("GetShardIterator", `{"StreamName":%q,"ShardId":%q,"ShardIteratorType":%q%s}`, stream, shard, kind, more).text("ShardIterator")
}

// read returns the data of the records from an iterator on, up to the tip or the end.
func (b *box) read(iterator string) (data []string, last answer) {
	b.t.Helper()
	for {
		last = b.must("GetRecords", `{"ShardIterator":%q}`, iterator)
		for i := range last.list("Records") {
			raw, err := base64.StdEncoding.DecodeString(last.text("Records", i, "Data"))
			if err != nil {
				b.t.Fatal(err)
			}
			data = append(data, string(raw))
		}
		next, more := last["NextShardIterator"].(string)
		if !more || last.number("MillisBehindLatest") == 0 {
			return data, last
		}
		iterator = next
	}
}
