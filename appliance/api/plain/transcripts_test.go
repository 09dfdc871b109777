package plain

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden transcripts anew")

const transcripts = "../../../sdk/transcripts/plain"

// step is one request of a script.
type step struct {
	title   string
	pass    time.Duration
	line    string // method and target
	body    string
	headers []string // "Name: value"
}

const posted = "POST /v1/streams/s/records"

// scripts are what the transcripts are made from, by name. In a line, {{2}} is the
// sequence number of the stream's second record.
func scripts() map[string][]step {
	return map[string][]step{
		"put": {
			{title: "a body is a record; the key is the caller's name", line: posted, body: `{"t":21}`},
			{title: "a key in the query", line: posted + "?key=pump%207", body: `{"t":22}`},
			{title: "a key in a header", line: posted, body: "21.5", headers: []string{headerKey + ": pump 7"}},
			{title: "a record a line", line: posted + "?key=k", body: "{\"t\":1}\n\n{\"t\":2}\n", headers: []string{"Content-Type: " + typeNDJSON}},
			{title: "a record a line, each with the key that it holds", line: posted + "?key_pointer=/device/id", body: "{\"device\":{\"id\":\"a\"}}\n{\"device\":{\"id\":17}}", headers: []string{"Content-Type: " + typeNDJSON}},
			{title: "a binary batch: one record with a key, one without", line: posted, body: string(batchOf(entry{[]byte("own"), []byte("1")}, entry{nil, []byte("2")})), headers: []string{"Content-Type: " + typeBatch}},
			{title: "gzip", line: posted, body: string(gzipped([]byte("zipped"))), headers: []string{"Content-Encoding: gzip"}},
			{title: "zstd", line: posted, body: string(zstded([]byte("a\nb"))), headers: []string{"Content-Encoding: zstd", "Content-Type: " + typeNDJSON}},
			{title: "no such stream", line: "POST /v1/streams/none/records", body: "x"},
			{title: "a coding that is not known", line: posted, body: "x", headers: []string{"Content-Encoding: br"}},
			{title: "not gzip", line: posted, body: "x", headers: []string{"Content-Encoding: gzip"}},
			{title: "not a batch", line: posted, body: "WRB", headers: []string{"Content-Type: " + typeBatch}},
			{title: "not JSON, where a key is looked for", line: posted + "?key_pointer=/id", body: "t=21"},
			{title: "a key that is not there", line: posted + "?key_pointer=/id", body: "{}"},
			{title: "a key that is too long", line: posted + "?key=" + strings.Repeat("k", 257), body: "x"},
			{title: "too many records: none is stored", line: posted, body: strings.Repeat("x\n", 7), headers: []string{"Content-Type: " + typeNDJSON}},
			{title: "another method", line: "DELETE /v1/streams/s/records"},
			{title: "another path", line: "POST /v1/streams/s/other", body: "x"},
		},
		"retry": {
			{title: "with an idempotency key", line: posted, body: "reading 1", headers: []string{headerRetry + ": boot-3/1"}},
			{title: "again: it is stored once", pass: time.Hour, line: posted, body: "reading 1", headers: []string{headerRetry + ": boot-3/1"}},
			{title: "the same key with another body", line: posted, body: "reading 2", headers: []string{headerRetry + ": boot-3/1"}},
			{title: "a key that is too long", line: posted, body: "x", headers: []string{headerRetry + ": " + strings.Repeat("k", 129)}},
		},
		"read": {
			{title: "three records", line: posted, body: "{\"t\":1}\n{\"t\":2}\n{\"t\":3}", headers: []string{"Content-Type: " + typeNDJSON}},
			{title: "a page", line: "GET /v1/streams/s/records?limit=2"},
			{title: "the page after it", line: "GET /v1/streams/s/records?limit=2&after={{2}}"},
			{title: "a record a line", line: "GET /v1/streams/s/records", headers: []string{"Accept: " + typeNDJSON}},
			{title: "the tip", line: "GET /v1/streams/s/records?from=latest"},
			{title: "from a time", line: "GET /v1/streams/s/records?from=2027-01-15T08:00:01Z"},
			{title: "no such shard", line: "GET /v1/streams/s/records?shard=9"},
			{title: "not a shard", line: "GET /v1/streams/s/records?shard=x"},
			{title: "not a position", line: "GET /v1/streams/s/records?from=then"},
			{title: "not a sequence number of this shard", line: "GET /v1/streams/s/records?after=1"},
			{title: "not a limit", line: "GET /v1/streams/s/records?limit=0"},
		},
		"tail": {
			{title: "two records", line: posted, body: "1\n2", headers: []string{"Content-Type: " + typeNDJSON}},
			{title: "all of them; the server stops, which ends the tail", line: "GET /v1/streams/s/tail?from=oldest"},
			{title: "a third", line: posted, body: "3"},
			{title: "the tail goes on where it was", line: "GET /v1/streams/s/tail", headers: []string{"Last-Event-Id: 0:3"}},
			{title: "not an event id", line: "GET /v1/streams/s/tail", headers: []string{"Last-Event-Id: x"}},
			{title: "no such stream", line: "GET /v1/streams/none/tail"},
		},
	}
}

// send sends the request of a transcript; the server is about to stop, so that a
// tail comes to its end.
func (b *box) send(request []string) *apitest.Result {
	b.t.Helper()
	head, payload, err := apitest.Message(request)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &apitest.Request{Headers: http.Header{}, Who: device, Payload: payload}
	r.Verb, r.Target, _ = strings.Cut(head[0], " ")
	for _, l := range head[1:] {
		name, value, _ := strings.Cut(l, ": ")
		r.Headers.Set(name, value)
	}
	stopping := make(chan struct{})
	close(stopping)
	got := apitest.Do(api.WithDraining(context.Background(), stopping), b.Service, r)
	if got.Err != nil {
		b.t.Fatal(got.Err)
	}
	return got
}

func answerLines(got *apitest.Result) []string {
	var headers []string
	for _, name := range slices.Sorted(maps.Keys(got.Header)) {
		headers = append(headers, name+": "+got.Header.Get(name))
	}
	return apitest.Lines(fmt.Sprint(got.Status), headers, got.Body)
}

// perform runs a script and returns what was exchanged.
func perform(t *testing.T, steps []step) (out []apitest.Exchange) {
	b := newBox(t, Options{MaxRecords: 6}, 1)
	st, err := b.store.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		b.clock.Pass(s.pass)
		line := strings.ReplaceAll(s.line, "{{2}}", st.Sequence(0, 2, b.clock.Now()).String())
		x := apitest.Exchange{Title: s.title, Pass: s.pass, Request: apitest.Lines(line, s.headers, []byte(s.body))}
		x.Answer = answerLines(b.send(x.Request))
		out = append(out, x)
	}
	return out
}

// TestTranscripts replays the golden transcripts.
func TestTranscripts(t *testing.T) {
	for name, steps := range scripts() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(transcripts, name+".txt")
			if *rewrite {
				var text strings.Builder
				for _, x := range perform(t, steps) {
					x.AppendTo(&text)
				}
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			xs, err := apitest.ParseTranscript(string(text))
			if err != nil || len(xs) != len(steps) {
				t.Fatalf("%d exchanges, %v; want %d", len(xs), err, len(steps))
			}
			b := newBox(t, Options{MaxRecords: 6}, 1)
			for _, x := range xs {
				b.clock.Pass(x.Pass)
				if got := answerLines(b.send(x.Request)); !slices.Equal(got, x.Answer) {
					t.Fatalf("%s:\ngot  %s\nwant %s", x.Title, strings.Join(got, "\n     "), strings.Join(x.Answer, "\n     "))
				}
			}
		})
	}
}
