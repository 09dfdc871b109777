package http_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
	lock bool // the access key is no longer good
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return // the line was cut
	}
	e.Lock()
	defer e.Unlock()
	h := r.Header
	if r.Method != http.MethodPost || r.ContentLength < 0 || h.Get("Content-Type") != "application/json" ||
		h.Get("X-Amz-Firehose-Protocol-Version") != "1.0" || h.Get("X-Amz-Firehose-Access-Key") != e.key ||
		!strings.HasPrefix(h.Get("X-Amz-Firehose-Source-Arn"), "arn:aws:firehose:") ||
		h.Get("X-Amz-Firehose-Common-Attributes") != `{"commonAttributes":{"site":"north"}}` {
		e.t.Errorf("request %s with %d bytes and %v", r.Method, r.ContentLength, h)
	}
	var body io.Reader = bytes.NewReader(raw)
	if e.gzip {
		z, err := gzip.NewReader(body)
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
	if e.lock {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"requestId":%q,"timestamp":1,"errorMessage":"access key"}`, in.RequestID)
		return
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
				lock := func(locked bool) {
					e.Lock()
					defer e.Unlock()
					e.lock = locked
				}
				return sinktest.Records{Sink: s, Faults: p, Lock: lock, Received: func() []string {
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

// TestOwnAuthority posts over TLS to a server whose certificate only its own
// authority has signed: with that authority it is trusted, without it refused.
func TestOwnAuthority(t *testing.T) {
	certFile, keyFile := sinktest.Certificate(t)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept(w, r.Header.Get("X-Amz-Firehose-Request-Id"))
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	for ca, code := range map[string]string{certFile: "", "": "HttpEndpoint.SSLHandshake"} {
		s, err := sink.Open(sink.Settings{URL: server.URL, CAFile: ca})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.PutRecords(t.Context(), sinktest.Batch(0, "one"))
		e, _ := err.(*delivery.SinkError)
		if code == "" && err != nil || code != "" && (e == nil || e.Code != code || !e.Refused) {
			t.Errorf("authority %q: %v, want %q", ca, err, code)
		}
	}
}

// nginx ends TLS, holds bodies back in its own way, and answers for itself
// when a body is too large or nobody is behind it.
const nginxConf = `
daemon off; pid DIR/pid; error_log DIR/error.log; worker_processes 1;
events { worker_connections 64; }
http {
	access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	server {
		listen ADDR ssl; ssl_certificate CERT; ssl_certificate_key KEY; client_max_body_size 1m;
		location /in { proxy_pass BACKEND; proxy_http_version 1.1; }
		location /dead { proxy_pass http://127.0.0.1:1; }
		location /moved { return 301 https://ADDR/in; }
	}
}`

// TestBehindNginx posts through a real nginx: what it answers itself is told
// apart from what the endpoint answers.
func TestBehindNginx(t *testing.T) {
	e := &endpoint{t: t, key: "secret", gzip: true, got: map[string][]string{}}
	backend := httptest.NewServer(e)
	t.Cleanup(backend.Close)
	dir, addr := t.TempDir(), freeAddress(t)
	certFile, keyFile := sinktest.Certificate(t)
	conf := strings.NewReplacer("DIR", dir, "ADDR", addr, "CERT", certFile, "KEY", keyFile, "BACKEND", backend.URL).Replace(nginxConf)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:"+os.Getenv("PATH"))
	if path, err := exec.LookPath("/usr/sbin/nginx"); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (appliance/delivery/install.sh installs what this test needs)", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	listening(t, addr)
	put := func(path string, data ...string) *delivery.SinkError {
		t.Helper()
		s, err := sink.Open(sink.Settings{
			URL: "https://" + addr + path, CAFile: certFile, ContentEncoding: "GZIP", AccessKey: "secret",
			CommonAttributes: map[string]string{"site": "north"},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.PutRecords(t.Context(), sinktest.Batch(0, data...))
		got, _ := err.(*delivery.SinkError)
		return got
	}
	if err := put("/in", "one", "two"); err != nil || fmt.Sprint(e.got[sinktest.RequestIDs[0]]) != "[one two]" {
		t.Errorf("through nginx: %v, received %q", err, e.got)
	}
	random := make([]byte, 2<<20)
	_, _ = rand.Read(random)
	for what, got := range map[string]*delivery.SinkError{
		"HTTP 413": put("/in", string(random)), "HTTP 502": put("/dead", "one"), "HTTP 301": put("/moved", "one"),
	} {
		if got == nil || !strings.Contains(got.Error(), what) || got.Permanent != (what == "HTTP 413") {
			t.Errorf("want %s, got %v", what, got)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// listening waits until there is a server at addr.
func listening(t *testing.T, addr string) {
	t.Helper()
	deadline, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("nothing listens at %s", addr)
		case <-tick.C:
		}
	}
}
