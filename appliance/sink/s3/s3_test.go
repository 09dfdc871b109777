package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink/s3"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

func settings(g *sinktest.Gateway, endpoint string) s3.Settings {
	return s3.Settings{Endpoint: endpoint, Bucket: "bucket", AccessKeyID: g.Access, SecretAccessKey: delivery.Secret(g.Secret), Timeout: delivery.Duration(10 * time.Second)}
}

func TestSuite(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	n := 0
	sinktest.RunObjects(t, func(t *testing.T) sinktest.Objects {
		n++
		p := sinktest.NewProxy(t, g.URL)
		s := settings(g, p.URL)
		sink, err := s3.Open(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := sinktest.Prefixed(sink, n)
		return sinktest.Objects{
			Sink: dir, Faults: p, Guarantee: delivery.ExactlyOnce,
			Lock: func(locked bool) {
				if !locked {
					p.Every(nil)
					return
				}
				p.Every(func(*http.Request) *sinktest.Fault { return &sinktest.Fault{Status: 400, Code: "ExpiredToken"} })
			},
			Read: func(key string) ([]byte, bool) { return g.Read("bucket", dir.Key(key)) },
		}
	})
}

// TestWrongClock signs with a clock that is years off: the first refusal
// teaches the sink the server's time.
func TestWrongClock(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	for _, off := range []time.Duration{-20 * 365 * 24 * time.Hour, time.Hour} {
		sink, err := s3.Open(settings(g, g.URL), func() time.Time { return time.Now().Add(off) })
		if err != nil {
			t.Fatal(err)
		}
		key := "clock" + off.String()
		if _, err := sink.PutObject(t.Context(), sinktest.Object(key, "r", []byte("x"))); err != nil {
			t.Errorf("off by %v: %v", off, err)
		}
		if _, found := g.Read("bucket", key); !found {
			t.Errorf("off by %v: nothing was stored", off)
		}
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	for _, c := range []struct {
		change func(*s3.Settings)
		code   string
	}{
		{func(s *s3.Settings) { s.Bucket = "nothere" }, "S3.NoSuchBucket"},
		{func(s *s3.Settings) { s.SecretAccessKey = "wrong" }, "S3.SignatureDoesNotMatch"},
		{func(s *s3.Settings) { s.AccessKeyID = "unknown" }, "S3.XAdminUserNotFound"},
		{func(s *s3.Settings) { s.Endpoint = "http://127.0.0.1:1" }, "S3.ConnectionFailed"},
	} {
		s := settings(g, g.URL)
		c.change(&s)
		sink, err := s3.Open(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := sinktest.Object("k", "r", []byte("x"))
		for _, o.MayExist = range []bool{false, true} { // asked first, a store only says 403
			_, err = sink.PutObject(t.Context(), o)
			e, ok := err.(*delivery.SinkError)
			if !ok || e.Code != c.code || !e.Refused {
				t.Errorf("MayExist %t: want %s refused, got %v", o.MayExist, c.code, err)
			}
		}
	}
}

// TestCredentialsThatMayOnlyWrite: S3 answers 403 to whoever asks for an object and may not read. Objects are
// stored all the same, and one that is there already is not taken for ours.
func TestCredentialsThatMayOnlyWrite(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	p := sinktest.NewProxy(t, g.URL)
	p.Every(func(r *http.Request) *sinktest.Fault {
		if r.Method == http.MethodHead {
			return &sinktest.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
		}
		return nil
	})
	sink, err := s3.Open(settings(g, p.URL), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := sinktest.Object("k", "r", []byte("x"))
	o.MayExist = true
	if stored, err := sink.PutObject(t.Context(), o); err != nil || stored.Duplicate {
		t.Fatalf("%+v %v", stored, err)
	}
	_, err = sink.PutObject(t.Context(), o)
	var e *delivery.SinkError
	if !errors.As(err, &e) || e.Refused || !strings.Contains(err.Error(), "bucket/k is there") || !strings.Contains(err.Error(), "s3:GetObject") {
		t.Errorf("again: %v", err)
	}
}

// TestBucketNamesNoStoreTakesAreRefused when the delivery stream is made, not
// when the first object is.
func TestBucketNamesNoStoreTakesAreRefused(t *testing.T) {
	for _, name := range []string{"b", "a/b", "..", "bücket", strings.Repeat("b", 64)} {
		s := s3.Settings{Bucket: name}
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "bucket: ") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"bkt", "my.bucket-1", "Old_Style"} {
		s := s3.Settings{Bucket: name}
		if err := s.Validate(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestStoreThatContradictsItself has a store that refuses a name as taken and
// has nothing under it, as versitygw does when a kill left metadata only.
func TestStoreThatContradictsItself(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	p := sinktest.Contradicting(t, g.URL)
	sink, err := s3.Open(settings(g, p.URL), nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, size := range map[string]int{"one": 10, "parts": 6 << 20} {
		o := sinktest.Object(key, "r", bytes.Repeat([]byte("x"), size))
		o.Buffer = make([]byte, 0, 5<<20)
		_, err = sink.PutObject(t.Context(), o)
		var s *delivery.SinkError
		if !errors.As(err, &s) || !s.Torn || s.Refused || s.Code != "S3.ObjectTorn" || !strings.Contains(err.Error(), "bucket/"+key+" is there") {
			t.Fatalf("%s: %v", key, err)
		}
		o.MayExist, o.Replace = true, true
		if stored, err := sink.PutObject(t.Context(), o); err != nil || stored.Duplicate {
			t.Fatalf("%s: %+v %v", key, stored, err)
		}
		if got, _ := g.Read("bucket", key); len(got) != size {
			t.Errorf("%s: %d bytes of %d were stored", key, len(got), size)
		}
		if stored, err := sink.PutObject(t.Context(), o); err != nil || !stored.Duplicate {
			t.Errorf("%s again: %+v %v", key, stored, err)
		}
	}
}

// TestSessionsAreTakenUp: a connection that the store or the minute between two objects
// ended is not paid for in full again.
func TestSessionsAreTakenUp(t *testing.T) {
	var resumed []bool
	server, ca := sinktest.TLSServer(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		resumed = append(resumed, r.TLS.DidResume)
	})
	sink, err := s3.Open(s3.Settings{Endpoint: server.URL, Bucket: "bucket", CAFile: ca}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := sink.PutObject(t.Context(), sinktest.Object("k", "r", []byte("x"))); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil { // which drops what is idle
			t.Fatal(err)
		}
	}
	if fmt.Sprint(resumed) != "[false true true]" {
		t.Errorf("sessions were taken up: %v", resumed)
	}
}
