package kinesis

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/api/aws"
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

// exchanged is one request and its answer as a transcript has them.
type exchanged struct {
	title           string
	pass            time.Duration
	request, answer []string
}

func (x *exchanged) write(out *strings.Builder) {
	if x.pass > 0 {
		fmt.Fprintf(out, "@ %v\n", x.pass)
	}
	fmt.Fprintf(out, "# %s\n", x.title)
	for _, l := range x.request {
		out.WriteString(strings.TrimRight("> "+l, " ") + "\n")
	}
	for _, l := range x.answer {
		out.WriteString(strings.TrimRight("< "+l, " ") + "\n")
	}
	out.WriteString("\n")
}

// send sends a transcript's request and returns the answer in its form.
func (b *box) send(request []string) ([]string, *apitest.Result) {
	b.t.Helper()
	r := &apitest.Request{Headers: http.Header{}, Who: b.who, Version: "HTTP/2.0"}
	for i, l := range request {
		if l == "" {
			if i+1 < len(request) {
				r.Payload = unbody(b.t, request[i+1])
			}
			break
		}
		name, value, _ := strings.Cut(l, ": ")
		r.Headers.Set(name, value)
	}
	got := apitest.Do(context.Background(), b.Service, r)
	if got.Err != nil {
		b.t.Fatal(got.Err)
	}
	answer := []string{fmt.Sprint(got.Status)}
	var names []string
	for name := range got.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := got.Header.Get(name)
		if name == "X-Amzn-Requestid" || name == "X-Amz-Id-2" {
			value = "*"
		}
		answer = append(answer, name+": "+value)
	}
	if len(got.Body) > 0 {
		answer = append(answer, "", body(got.Header.Get("Content-Type"), got.Body))
	}
	return answer, got
}

func body(contentType string, b []byte) string {
	if strings.HasSuffix(contentType, "json-1.1") {
		return string(b)
	}
	return "hex:" + hex.EncodeToString(b)
}

func unbody(t testing.TB, l string) []byte {
	digits, ok := strings.CutPrefix(l, "hex:")
	if !ok {
		return []byte(l)
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
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
func perform(t *testing.T, sc script, enc aws.Encoding) []exchanged {
	b := newTranscriptBox(t)
	saved := map[string]string{}
	var out []exchanged
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
		x := exchanged{title: st.title, pass: st.pass, request: []string{
			"Content-Type: " + contentType, "X-Amz-Target: " + Target + "." + st.op, "", body(contentType, payload),
		}}
		var got *apitest.Result
		x.answer, got = b.send(x.request)
		for _, path := range st.save {
			saved[path] = member(t, got, path)
		}
		out = append(out, x)
	}
	return out
}

func parseTranscript(t *testing.T, text string) []exchanged {
	var out []exchanged
	var pass time.Duration
	for _, l := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(l, "@ "):
			d, err := time.ParseDuration(l[2:])
			if err != nil {
				t.Fatal(err)
			}
			pass = d
		case strings.HasPrefix(l, "# "):
			out = append(out, exchanged{title: l[2:], pass: pass})
			pass = 0
		case strings.HasPrefix(l, ">"):
			x := &out[len(out)-1]
			x.request = append(x.request, strings.TrimPrefix(l[1:], " "))
		case strings.HasPrefix(l, "<"):
			x := &out[len(out)-1]
			x.answer = append(x.answer, strings.TrimPrefix(l[1:], " "))
		}
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
						x.write(&text)
					}
					if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				replay(t, op, parseTranscript(t, string(text)))
			})
		}
	}
}

// replay sends the requests of a transcript and compares the answers. A transcript
// has to hold a good and a bad exchange of its operation.
func replay(t *testing.T, op string, xs []exchanged) {
	b := newTranscriptBox(t)
	good, bad := false, false
	for _, x := range xs {
		b.clock.Pass(x.pass)
		got, _ := b.send(x.request)
		if !slices.Equal(got, x.answer) {
			t.Fatalf("%s:\ngot  %s\nwant %s", x.title, strings.Join(got, "\n     "), strings.Join(x.answer, "\n     "))
		}
		if slices.Contains(x.request, "X-Amz-Target: "+Target+"."+op) {
			good = good || got[0] == "200"
			bad = bad || got[0] == "400"
		}
	}
	if !good || !bad {
		t.Fatalf("a good exchange of %s: %v; a bad one: %v", op, good, bad)
	}
}
