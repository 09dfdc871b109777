package kinesis_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	service "github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/delivery"
	sink "github.com/weirhq/weir/appliance/sink/kinesis"
	"github.com/weirhq/weir/appliance/sink/sinktest"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// upstream is another Weir: its Kinesis service over a store of its own.
type upstream struct {
	store  *storage.Store
	stream *storage.Stream
	server *httptest.Server
	mu     sync.Mutex
	fail   map[int]bool // entries of the next answer that are made to have failed
	calls  int
	lock   bool // the sink's token has expired
	policy api.Policy
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	store, err := storage.Open(t.Context(), t.TempDir(), storage.Options{SoftFreeBytes: 1, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	st, err := store.CreateStream(t.Context(), storage.StreamConfig{Name: "up", Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(t.Context(), store, service.Options{})
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{store: store, stream: st, policy: api.FullAccess}
	u.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { u.serve(s, w, r) }))
	t.Cleanup(u.server.Close)
	return u
}

func (u *upstream) serve(s api.Handler, w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls++
	if u.lock {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`)
		return
	}
	fail := u.fail
	u.fail = nil
	if fail != nil {
		body = without(body, fail)
	}
	res := apitest.Do(r.Context(), s, &apitest.Request{
		Headers: r.Header, Payload: body, Who: &api.Identity{Name: "test", Policy: u.policy},
	})
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.Status)
	if fail != nil {
		res.Body = with(res.Body, fail)
	}
	_, _ = w.Write(res.Body)
}

// without takes entries out of a request; with puts their failures back into
// the answer: so does a shard that is over its quota.
func without(body []byte, fail map[int]bool) []byte {
	var in struct {
		StreamName string
		Records    []json.RawMessage
	}
	_ = json.Unmarshal(body, &in)
	var kept []json.RawMessage
	for i, r := range in.Records {
		if !fail[i] {
			kept = append(kept, r)
		}
	}
	in.Records = kept
	out, _ := json.Marshal(in)
	return out
}

func with(body []byte, fail map[int]bool) []byte {
	var out struct {
		FailedRecordCount int
		Records           []json.RawMessage
	}
	_ = json.Unmarshal(body, &out)
	var all []json.RawMessage
	for i := 0; len(all) < len(out.Records)+len(fail) && len(fail) > 0; i++ {
		if fail[i] {
			all = append(all, json.RawMessage(`{"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"slow down"}`))
			out.FailedRecordCount++
		} else if len(all)-out.FailedRecordCount < len(out.Records) {
			all = append(all, out.Records[len(all)-out.FailedRecordCount])
		}
		if i > 1000 {
			break
		}
	}
	out.Records = all
	raw, _ := json.Marshal(out)
	return raw
}

// received reads everything that is in the stream, by shard.
func (u *upstream) received(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, info := range u.stream.Shards() {
		r, err := u.stream.NewReader(info.Number, storage.Position{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(10_000, 10<<20, func(rec *record.Record) bool {
			out = append(out, string(rec.Data))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return out
}

func settings(endpoint string) sink.Settings {
	return sink.Settings{Stream: "up", Endpoint: endpoint, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}
}

func TestSuite(t *testing.T) {
	sinktest.RunRecords(t, func(t *testing.T) sinktest.Records {
		u := newUpstream(t)
		p := sinktest.NewProxy(t, u.server.URL)
		s, err := sink.Open(settings(p.URL))
		if err != nil {
			t.Fatal(err)
		}
		lock := func(locked bool) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.lock = locked
		}
		return sinktest.Records{Sink: s, Faults: p, Lock: lock, Received: func() []string { return u.received(t) }}
	})
}

// TestOnlyFailedEntriesAreSentAgain, in order, with their keys.
func TestOnlyFailedEntriesAreSentAgain(t *testing.T) {
	u := newUpstream(t)
	s, err := sink.Open(settings(u.server.URL))
	if err != nil {
		t.Fatal(err)
	}
	b := sinktest.Batch(0, "0", "1", "2", "3", "4")
	hash, err := record.ParseHashKey("340282366920938463463374607431768211455")
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Records {
		b.Records[i].HasExplicitHash, b.Records[i].ExplicitHashKey = true, hash
	}
	u.fail = map[int]bool{1: true, 3: true}
	_, err = s.PutRecords(t.Context(), b)
	if e, ok := err.(*delivery.SinkError); !ok || e.Code != "Kinesis.ProvisionedThroughputExceededException" {
		t.Fatalf("got %v", err)
	}
	if done, err := s.PutRecords(t.Context(), b); err != nil || done != 5 {
		t.Fatalf("the second attempt: %d, %v", done, err)
	}
	if got := fmt.Sprint(u.received(t)); got != "[0 2 4 1 3]" {
		t.Errorf("received %s", got)
	}
	info, err := u.stream.Shard(1)
	if err != nil || info.Last-info.First+1 != 5 {
		t.Errorf("the explicit hash key leads to shard 1, which has %+v, %v", info, err)
	}
}

// TestProbeTriesTheRightToPut and leaves nothing.
func TestProbeTriesTheRightToPut(t *testing.T) {
	u := newUpstream(t)
	s, err := sink.Open(settings(u.server.URL))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		actions []string
		tried   string
		code    string
	}{
		{[]string{"kinesis:*"}, "stream up is ACTIVE, and a put was allowed", ""},
		{[]string{"kinesis:PutRecords"}, "without the right to describe stream up, and a put was allowed", ""},
		{[]string{"kinesis:DescribeStreamSummary"}, "", "Kinesis.AccessDeniedException"},
	} {
		u.policy = api.Policy{{Actions: c.actions, Streams: []string{"*"}}}
		found, err := s.Probe(t.Context())
		e, _ := err.(*delivery.SinkError)
		if (e == nil) != (c.code == "") || e != nil && e.Code != c.code || !strings.Contains(found.Tried, c.tried) {
			t.Errorf("with %s: %+v, %v", c.actions, found, err)
		}
	}
	if got := u.received(t); len(got) != 0 {
		t.Errorf("the probes left %q", got)
	}
}

// TestErrorsAreOneParagraph, whatever the service has to say about signatures, or says nothing.
func TestErrorsAreOneParagraph(t *testing.T) {
	for _, c := range []struct {
		status             int
		answer, code, text string
	}{
		{400, `{"__type":"InvalidSignatureException","message":"The signature does not match.\n\nThe Canonical String was\n'POST\n/'"}`, "Kinesis.InvalidSignatureException", "The signature does not match. (HTTP 400)"},
		{502, `<html>`, "Kinesis.Status502", "Bad Gateway (HTTP 502)"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.answer)
		}))
		s, err := sink.Open(settings(server.URL))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Probe(t.Context())
		if e, ok := err.(*delivery.SinkError); !ok || e.Code != c.code || e.Err.Error() != c.text {
			t.Errorf("%v, want %s: %s", err, c.code, c.text)
		}
		server.Close()
	}
}
