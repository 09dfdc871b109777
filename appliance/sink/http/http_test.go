package http_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/weirhq/weir/appliance/delivery"
	sink "github.com/weirhq/weir/appliance/sink/http"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

// endpoint is a server that is strict about the protocol: what does not
// conform is an error of the test.
type endpoint struct {
	t *testing.T
	sync.Mutex
	key  string
	gzip bool
	got  map[string][]string // records by request id
	next []func(w http.ResponseWriter, id string)
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.Lock()
	defer e.Unlock()
	h := r.Header
	if r.Method != http.MethodPost || r.ContentLength < 0 || h.Get("Content-Type") != "application/json" ||
		h.Get("X-Amz-Firehose-Protocol-Version") != "1.0" || h.Get("X-Amz-Firehose-Access-Key") != e.key ||
		!strings.HasPrefix(h.Get("X-Amz-Firehose-Source-Arn"), "arn:aws:firehose:") ||
		h.Get("X-Amz-Firehose-Common-Attributes") != `{"commonAttributes":{"site":"north"}}` {
		e.t.Errorf("request %s with %d bytes and %v", r.Method, r.ContentLength, h)
	}
	var body io.Reader = r.Body
	if e.gzip {
		z, err := gzip.NewReader(r.Body)
		if err != nil || h.Get("Content-Encoding") != "gzip" {
			e.t.Errorf("content encoding %q: %v", h.Get("Content-Encoding"), err)
			return
		}
		body = z
	}
	var in struct {
		RequestID string `json:"requestId"`
		Timestamp int64  `json:"timestamp"`
		Records   []struct {
			Data string `json:"data"`
		} `json:"records"`
	}
	if err := json.NewDecoder(body).Decode(&in); err != nil || in.Timestamp == 0 || in.RequestID != h.Get("X-Amz-Firehose-Request-Id") {
		e.t.Errorf("body %+v: %v", in, err)
	}
	var records []string
	for _, rec := range in.Records {
		raw, err := base64.StdEncoding.DecodeString(rec.Data)
		if err != nil {
			e.t.Error(err)
		}
		records = append(records, string(raw))
	}
	if before, again := e.got[in.RequestID]; again && fmt.Sprint(before) != fmt.Sprint(records) {
		e.t.Errorf("request %s was %q and is %q", in.RequestID, before, records)
	}
	e.got[in.RequestID] = records
	if len(e.next) > 0 {
		answer := e.next[0]
		e.next = e.next[1:]
		answer(w, in.RequestID)
		return
	}
	accept(w, in.RequestID)
}

func accept(w http.ResponseWriter, id string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"requestId":%q,"timestamp":1}`, id)
}

func open(t *testing.T, s sink.Settings) (*sink.Sink, *endpoint, *sinktest.Proxy) {
	t.Helper()
	e := &endpoint{t: t, key: "secret", gzip: s.ContentEncoding == "GZIP", got: map[string][]string{}}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	p := sinktest.NewProxy(t, server.URL)
	s.URL, s.AccessKey, s.CommonAttributes = p.URL+"/in?x=1", "secret", map[string]string{"site": "north"}
	out, err := sink.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return out, e, p
}

func TestSuite(t *testing.T) {
	for _, encoding := range []string{"NONE", "GZIP"} {
		t.Run(encoding, func(t *testing.T) {
			sinktest.RunRecords(t, func(t *testing.T) sinktest.Records {
				s, e, p := open(t, sink.Settings{ContentEncoding: encoding})
				return sinktest.Records{Sink: s, Faults: p, Received: func() []string {
					e.Lock()
					defer e.Unlock()
					var all []string
					for _, id := range sinktest.RequestIDs {
						all = append(all, e.got[id]...)
					}
					return all
				}}
			})
		})
	}
}

// TestAnswersThatDoNotConform: only HTTP 200 with the request's id in JSON is
// an acknowledgement.
func TestAnswersThatDoNotConform(t *testing.T) {
	s, e, _ := open(t, sink.Settings{})
	plain := func(status int, header, value, body string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, id string) {
			w.Header().Set("Content-Type", "application/json")
			if header != "" {
				w.Header().Set(header, value)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, strings.ReplaceAll(body, "ID", id))
		}
	}
	const good = `{"requestId":"ID","timestamp":1}`
	for _, c := range []struct {
		answer    func(http.ResponseWriter, string)
		code      string
		permanent bool
	}{
		{plain(200, "Content-Type", "text/html", good), "InvalidResponseFromDestination", false},
		{plain(200, "Content-Encoding", "br", good), "InvalidResponseFromDestination", false},
		{plain(200, "", "", "not JSON"), "InvalidResponseFromDestination", false},
		{plain(200, "", "", `{"requestId":"other","timestamp":1}`), "InvalidResponseFromDestination", false},
		{plain(200, "", "", `{"requestId":"ID"}`), "InvalidResponseFromDestination", false},
		{plain(202, "", "", good), "DestinationException", false},
		{plain(302, "Location", "/elsewhere", good), "DestinationException", false},
		{plain(413, "", "", good), "DestinationException", true},
		{plain(500, "", "", `{"requestId":"ID","timestamp":1,"errorMessage":"no"}`), "DestinationException", false},
		{plain(200, "", "", `{"requestId":"ID","timestamp":1,"x":"`+strings.Repeat("y", 1<<20)+`"}`), "ResponseTooLarge", false},
	} {
		e.Lock()
		e.next = append(e.next, c.answer)
		e.Unlock()
		_, err := s.PutRecords(t.Context(), sinktest.Batch(0, "a"))
		got, ok := err.(*delivery.SinkError)
		if !ok || got.Code != "HttpEndpoint."+c.code || got.Permanent != c.permanent {
			t.Errorf("want %s (permanent %t), got %v", c.code, c.permanent, err)
		}
	}
}
