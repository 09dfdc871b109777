package remote

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/weirhq/weir/appliance/fault"
)

// server answers with handle over TLS; the box returned trusts it.
func server(t *testing.T, handle http.HandlerFunc) (*Box, *httptest.Server) {
	t.Helper()
	s := httptest.NewTLSServer(handle)
	t.Cleanup(s.Close)
	b, err := New(s.URL+"/", "AKID", "secret", trusting(s))
	if err != nil {
		t.Fatal(err)
	}
	return b, s
}

func trusting(s *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return roots
}

// wants checks the class, the advice and words of an error.
func wants(t *testing.T, err error, class fault.Class, try string, words ...string) {
	t.Helper()
	if err == nil || fault.ClassOf(err) != class || !strings.Contains(fault.TryOf(err), try) {
		t.Errorf("%v: class %d, advice %q; want class %d, advice with %q", err, fault.ClassOf(err), fault.TryOf(err), class, try)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in %q", w, err)
		}
	}
}

func TestCallSendsAndReadsJSON(t *testing.T) {
	b, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "PATCH" || r.URL.Path != "/admin/v1/streams/a" || string(body) != `{"n":1}` || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %s", r.Method, r.URL, body)
		}
		if auth := r.Header.Get("Authorization"); !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKID/") {
			t.Errorf("Authorization %q", auth)
		}
		_, _ = io.WriteString(w, `{"n":2}`)
	})
	var out struct{ N int }
	if err := b.Call(t.Context(), "PATCH", "streams/a", map[string]int{"n": 1}, &out); err != nil || out.N != 2 {
		t.Errorf("%v, %+v", err, out)
	}
}

// The time of a request is signed; a box with another clock refuses it.
func TestRequestIsSignedOnceMoreByTheClockOfTheBox(t *testing.T) {
	var requests atomic.Int32
	clock := time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC)
	b, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Date", clock.Format(http.TimeFormat))
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || signed.Sub(clock).Abs() > time.Minute {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":{"code":"InvalidSignatureException","message":"Signature not yet current"}}`)
			return
		}
		_, _ = io.WriteString(w, `{}`)
	})
	for n, want := range []int32{2, 3} { // once known, the clock is right at once
		if err := b.Call(t.Context(), "GET", "status", nil, nil); err != nil || requests.Load() != want {
			t.Errorf("call %d: %v, %d requests, want %d", n, err, requests.Load(), want)
		}
	}
}

func TestWrongKeyIsNotTriedTwice(t *testing.T) {
	var requests atomic.Int32
	b, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"error":{"code":"AccessDenied","message":"admin:GetStatus: not allowed for this access key"}}`)
	})
	wants(t, b.Call(t.Context(), "GET", "status", nil, nil), fault.Environment, "weir trust", "not allowed for this access key")
	if requests.Load() != 1 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestAnswersHaveTheirClassAndAdvice(t *testing.T) {
	for _, row := range []struct {
		status int
		code   string
		class  fault.Class
		try    string
	}{
		{400, "InvalidArgument", fault.Usage, ""},
		{404, "StreamNotFound", fault.Usage, "weir stream list"},
		{404, "DeliveryNotFound", fault.Usage, "weir delivery list"},
		{404, "ModuleNotFound", fault.Usage, "weir module list"},
		{409, "StreamExists", fault.Usage, "--if-missing"},
		{400, "InvalidSignatureException", fault.Usage, "weir trust"},
		{403, "ModuleSignatureRefused", fault.Environment, "weir module sign"},
		{401, "MissingAuthenticationToken", fault.Environment, "weir trust"},
		{507, "DiskFull", fault.Environment, "weir doctor"},
		{500, "InternalFailure", fault.Runtime, ""},
	} {
		b, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(row.status)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": row.code, "message": "the message"}})
		})
		wants(t, b.Call(t.Context(), "GET", "x", nil, nil), row.class, row.try, "the message")
	}
}

func TestWhatIsNoBoxIsSaid(t *testing.T) {
	b, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>proxy</html>")
	})
	wants(t, b.Call(t.Context(), "GET", "status", nil, nil), fault.Runtime, "", "502 Bad Gateway", "<html>proxy</html>")

	b, _ = server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	var out struct{}
	wants(t, b.Call(t.Context(), "GET", "status", nil, &out), fault.Runtime, "", "answer of "+b.Endpoint)
}

func TestConnectionsThatFailAreExplained(t *testing.T) {
	b, s := server(t, func(http.ResponseWriter, *http.Request) {})
	stranger, err := New(s.URL, "AKID", "secret", x509.NewCertPool())
	if err != nil {
		t.Fatal(err)
	}
	wants(t, stranger.Call(t.Context(), "GET", "status", nil, nil), fault.Environment, "--ca", "its certificate is not trusted")
	other, err := New(strings.Replace(s.URL, "127.0.0.1", "localhost", 1), "AKID", "secret", trusting(s))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, other.Call(t.Context(), "GET", "status", nil, nil), fault.Environment, "listen.names", "its certificate is for other names")
	later, err := New(s.URL, "AKID", "secret", trusting(s))
	if err != nil {
		t.Fatal(err)
	}
	later.http.Transport.(steady).RoundTripper.(*http.Transport).TLSClientConfig.Time = func() time.Time { return s.Certificate().NotAfter.Add(time.Hour) }
	wants(t, later.Call(t.Context(), "GET", "status", nil, nil), fault.Environment, "clock", "its certificate is not valid now")
	_, err = stranger.Kinesis(func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }).ListStreams(t.Context(), nil)
	wants(t, stranger.Explain(err), fault.Environment, "--ca", "its certificate is not trusted")
	s.Close()
	wants(t, b.Call(t.Context(), "GET", "status", nil, nil), fault.Environment, "weir doctor", "box: "+b.Endpoint+": does not answer", "refused")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Call(ctx, "GET", "status", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want a plain cancellation: Ctrl-C is no fault of the box", err)
	}
}

func TestEndpointIsAURL(t *testing.T) {
	for _, endpoint := range []string{"", "localhost:4567", "ftp://box", "https://", "https://%zz"} {
		_, err := New(endpoint, "a", "b", nil)
		wants(t, err, fault.Usage, "", "endpoint: ", "expecting a URL")
	}
}

func TestErrorsOfTheServiceAreExplained(t *testing.T) {
	for _, row := range []struct {
		status     int
		code       string
		class      fault.Class
		try, words string
	}{
		{400, "ResourceNotFoundException", fault.Usage, "weir stream list", "Stream x not found"},
		{400, "InvalidArgumentException", fault.Usage, "", "Stream x not found"},
	} {
		b, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(row.status)
			_ = json.NewEncoder(w).Encode(map[string]string{"__type": row.code, "message": "Stream x not found"})
		})
		_, err := b.Kinesis(func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }).DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("x")})
		wants(t, b.Explain(err), row.class, row.try, row.code, row.words)
	}
	b, _ := server(t, nil)
	if err := errors.New("of our own"); b.Explain(err) != err {
		t.Error("an error that is not the service's is changed")
	}
}

// The body is whole before the request goes out, so closing it early harms nothing.
func TestSteadyReadsTheBodyBeforehand(t *testing.T) {
	body := &closing{Reader: strings.NewReader("all of it")}
	transport := Steady(roundTrip(func(req *http.Request) (*http.Response, error) {
		if !body.closed || req.ContentLength != 9 {
			t.Errorf("closed %v, length %d", body.closed, req.ContentLength)
		}
		data, err := io.ReadAll(req.Body)
		if err != nil || string(data) != "all of it" {
			t.Errorf("%q, %v", data, err)
		}
		again, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		if data, _ := io.ReadAll(again); string(data) != "all of it" {
			t.Errorf("again %q", data)
		}
		return &http.Response{StatusCode: 204}, nil
	}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://box", body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil || res.StatusCode != 204 {
		t.Errorf("%v, %v", res, err)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
