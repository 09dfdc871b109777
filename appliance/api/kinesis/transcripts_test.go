package kinesis

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/listen"
)

var rewrite = flag.Bool("rewrite", false, "write the golden transcripts anew")

const transcripts = "../../../sdk/transcripts/kinesis"

// newTranscriptBox is the server that a transcript begins with. Nothing in it is
// random.
func newTranscriptBox(t *testing.T) *box {
	b := newBox(t, Options{Channels: &testChannels{open: map[string]ChannelSpec{}}})
	s, err := newSealer(make([]byte, tokenKeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	clear(s.start[:])
	b.sealer = s
	return b
}

// send sends a transcript's request and returns the answer in its form.
func (b *box) send(request []string) ([]string, *apitest.Result) {
	b.t.Helper()
	head, payload, err := apitest.Message(request)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &apitest.Request{Headers: http.Header{}, Who: b.who, Version: "HTTP/2.0", Payload: payload}
	for _, l := range head {
		name, value, _ := strings.Cut(l, ": ")
		r.Headers.Set(name, value)
	}
	got := apitest.Do(context.Background(), b.Service, r)
	if got.Err != nil {
		b.t.Fatal(got.Err)
	}
	return answerLines(got), got
}

// answerLines is an answer in the form of a transcript.
func answerLines(got *apitest.Result) []string {
	var headers []string
	for _, name := range slices.Sorted(maps.Keys(got.Header)) {
		value := got.Header.Get(name)
		if name == "X-Amzn-Requestid" || name == "X-Amz-Id-2" {
			value = "*"
		}
		headers = append(headers, name+": "+value)
	}
	out := apitest.Lines(fmt.Sprint(got.Status), headers, nil)
	if len(got.Body) > 0 {
		out = append(out, "", body(got.Header.Get("Content-Type"), got.Body))
	}
	return out
}

func body(contentType string, b []byte) string {
	if strings.HasSuffix(contentType, "json-1.1") {
		return string(b)
	}
	return "hex:" + hex.EncodeToString(b)
}

// encode turns the JSON of a script into a request body.
func encode(t testing.TB, enc aws.Encoding, text string) []byte {
	t.Helper()
	if enc == aws.JSON {
		var out bytes.Buffer
		if err := json.Compact(&out, []byte(text)); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		return out.Bytes()
	}
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	w := &aws.Writer{Encoding: enc}
	encodeValue(t, w, "", v)
	return w.Buf
}

func encodeValue(t testing.TB, w *aws.Writer, name string, v any) {
	switch v := v.(type) {
	case map[string]any:
		w.BeginMap()
		for _, k := range keysOf(v) {
			w.Key(k)
			encodeValue(t, w, k, v[k])
		}
		w.EndMap()
	case []any:
		w.BeginList()
		for _, e := range v {
			encodeValue(t, w, "", e)
		}
		w.EndList()
	case string:
		if name == "Data" {
			w.Blob([]byte(decoded(t, v)))
			return
		}
		w.String(v)
	case bool:
		w.Bool(v)
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "Timestamp") {
			w.TimeMS(int64(f * 1000))
			return
		}
		w.Int(int64(f))
	default:
		t.Fatalf("%T in a script", v)
	}
}

var placeholder = regexp.MustCompile(`\{\{([A-Za-z0-9.]+)\}\}`)

// member finds a text in an answer by its path ("Shards.0.ShardId").
func member(t testing.TB, got *apitest.Result, path string) string {
	t.Helper()
	var v any
	if strings.HasSuffix(got.Header.Get("Content-Type"), "json-1.1") {
		if err := json.Unmarshal(got.Body, &v); err != nil {
			t.Fatal(err)
		}
	} else {
		mode, err := cbor.DecOptions{TimeTag: cbor.DecTagIgnored}.DecMode()
		if err != nil {
			t.Fatal(err)
		}
		if err := mode.Unmarshal(got.Body, &v); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range strings.Split(path, ".") {
		switch have := v.(type) {
		case map[string]any:
			v = have[p]
		case map[any]any:
			v = have[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(have) {
				t.Fatalf("no %s", path)
			}
			v = have[i]
		}
	}
	s, ok := v.(string)
	if !ok {
		t.Fatalf("%s is %v", path, v)
	}
	return s
}

// perform runs a script and returns what was exchanged.
func perform(t *testing.T, sc script, enc aws.Encoding) []apitest.Exchange {
	b := newTranscriptBox(t)
	saved := map[string]string{}
	var out []apitest.Exchange
	for _, st := range sc.steps {
		b.clock.Pass(st.pass)
		text := placeholder.ReplaceAllStringFunc(st.in, func(p string) string {
			v, ok := saved[strings.Trim(p, "{}")]
			if !ok {
				t.Fatalf("%s: %s is not saved", sc.op, p)
			}
			return v
		})
		contentType := "application/x-amz-json-1.1"
		if enc == aws.CBOR {
			contentType = "application/x-amz-cbor-1.1"
		}
		var payload []byte
		if raw, ok := strings.CutPrefix(text, "raw:"); ok {
			payload = []byte(raw)
		} else {
			payload = encode(t, enc, text)
		}
		x := apitest.Exchange{Title: st.title, Pass: st.pass, Request: []string{
			"Content-Type: " + contentType, "X-Amz-Target: " + Target + "." + st.op, "", body(contentType, payload),
		}}
		var got *apitest.Result
		x.Answer, got = b.send(x.Request)
		for _, path := range st.save {
			saved[path] = member(t, got, path)
		}
		out = append(out, x)
	}
	return out
}

// TestTranscripts replays the golden transcripts.
func TestTranscripts(t *testing.T) {
	byOp := map[string]script{}
	for _, sc := range scripts() {
		byOp[sc.op] = sc
	}
	for _, op := range newTranscriptBox(t).Operations() {
		for enc, name := range map[aws.Encoding]string{aws.JSON: "json", aws.CBOR: "cbor"} {
			t.Run(op+"/"+name, func(t *testing.T) {
				path := filepath.Join(transcripts, op+"."+name+".txt")
				if *rewrite {
					var text strings.Builder
					for _, x := range perform(t, byOp[op], enc) {
						x.AppendTo(&text)
					}
					if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				replay(t, op, readTranscript(t, path))
			})
		}
	}
}

func readTranscript(t *testing.T, path string) []apitest.Exchange {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	xs, err := apitest.ParseTranscript(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return xs
}

// replay sends the requests of a transcript and compares the answers. A transcript
// has to hold a good and a bad exchange of its operation.
func replay(t *testing.T, op string, xs []apitest.Exchange) {
	b := newTranscriptBox(t)
	good, bad := false, false
	for _, x := range xs {
		b.clock.Pass(x.Pass)
		got, _ := b.send(x.Request)
		compare(t, &x, got)
		if slices.Contains(x.Request, "X-Amz-Target: "+Target+"."+op) {
			good = good || got[0] == "200"
			bad = bad || got[0] == "400"
		}
	}
	if !good || !bad {
		t.Fatalf("a good exchange of %s: %v; a bad one: %v", op, good, bad)
	}
}

func compare(t *testing.T, x *apitest.Exchange, got []string) {
	t.Helper()
	if !slices.Equal(got, x.Answer) {
		t.Fatalf("%s:\ngot  %s\nwant %s", x.Title, strings.Join(got, "\n     "), strings.Join(x.Answer, "\n     "))
	}
}

// TestTranscriptsOverTheListener replays the transcripts through the one port, over
// both versions of HTTP: the answers are the same, but for what HTTP adds.
func TestTranscriptsOverTheListener(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(transcripts, "*.txt"))
	if err != nil || len(files) != 2*len(newTranscriptBox(t).Operations()) {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	for _, client := range []*http.Client{{Transport: &http.Transport{}}, {Transport: h2}} {
		for _, path := range files {
			b := newTranscriptBox(t)
			url := b.listen()
			for _, x := range readTranscript(t, path) {
				b.clock.Pass(x.Pass)
				compare(t, &x, b.sendTo(client, url, x.Request))
			}
		}
		client.CloseIdleConnections()
	}
}

// listen puts the service behind a port of its own, where everybody is let in, and
// returns its URL.
func (b *box) listen() string {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	s := listen.New(listen.Options{DrainTimeout: time.Millisecond, Handler: api.HandlerFunc(func(ctx context.Context, req api.Request, res api.Response) {
		req.SetIdentity(b.who)
		b.Serve(ctx, req, res)
	})})
	go func() { _ = s.Serve(ln) }()
	b.t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return "http://" + ln.Addr().String() + "/"
}

// sendTo is send over a real connection.
func (b *box) sendTo(client *http.Client, url string, request []string) []string {
	b.t.Helper()
	head, payload, err := apitest.Message(request)
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.(*testing.T).Context(), http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range head {
		name, value, _ := strings.Cut(l, ": ")
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	got := &apitest.Result{Status: res.StatusCode, Header: res.Header}
	if got.Body, err = io.ReadAll(res.Body); err != nil {
		b.t.Fatal(err)
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err != nil || time.Since(date).Abs() > time.Hour {
		b.t.Fatalf("Date is %q: %v", res.Header.Get("Date"), err)
	}
	for _, name := range []string{"Date", "Content-Length"} {
		res.Header.Del(name)
	}
	return answerLines(got)
}
