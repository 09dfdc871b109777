//lint:file-ignore SA1019 net/http's transport cannot speak HTTP/2 over TLS without ALPN, as some clients do.

package listen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"golang.org/x/net/http2"
)

// authority is a certificate authority for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var (
	testAuthority = sync.OnceValue(newAuthority)
	testServer    = sync.OnceValue(func() *tls.Certificate { return testAuthority().issue("localhost") })
)

func newAuthority() *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(name string) *tls.Certificate {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, a.key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

func clientTLS(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: testAuthority().pool, ServerName: "localhost", NextProtos: protos}
}

// start runs a server on a free port until the test ends.
func start(t testing.TB, o Options) (s *Server, addr string) {
	t.Helper()
	if o.Certificate == nil {
		o.Certificate = func() (*tls.Certificate, error) { return testServer(), nil }
	}
	o.Logger = slog.New(slog.DiscardHandler)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, ln.Addr().String()
}

// echo says what it was asked, over what.
var echo = api.HandlerFunc(func(_ context.Context, req api.Request, res api.Response) {
	res.SetHeader("X-Echo", string(req.Header("X-Echo")))
	res.SetHeader("Content-Type", "text/plain")
	_, _ = fmt.Fprintf(res, "%s %s?%s %s tls=%v host=%s ", req.Method(), req.Path(), req.RawQuery(), req.Proto(), req.TLS() != nil, req.Host())
	*res.Body() = append(*res.Body(), req.Body()...)
})

// clients are the ways to reach the port.
func clients() map[string]func(addr string) (*http.Client, string) {
	h2 := func(tr *http2.Transport, scheme string) func(string) (*http.Client, string) {
		return func(addr string) (*http.Client, string) { return &http.Client{Transport: tr}, scheme + addr }
	}
	h1 := func(tr *http.Transport, scheme string) func(string) (*http.Client, string) {
		return func(addr string) (*http.Client, string) { return &http.Client{Transport: tr}, scheme + addr }
	}
	return map[string]func(string) (*http.Client, string){
		"h1 cleartext": h1(&http.Transport{}, "http://"),
		"h1 TLS ALPN":  h1(&http.Transport{TLSClientConfig: clientTLS("http/1.1")}, "https://"),
		"h1 TLS":       h1(&http.Transport{TLSClientConfig: clientTLS()}, "https://"),
		"h2 TLS ALPN":  h2(&http2.Transport{TLSClientConfig: clientTLS("h2")}, "https://"),
		"h2 TLS": h2(&http2.Transport{DialTLSContext: func(_ context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return tls.Dial(network, addr, clientTLS())
		}}, "https://"),
		"h2 cleartext": h2(&http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}, "http://"),
	}
}

func eachClient(t *testing.T, o Options, f func(t *testing.T, s *Server, c *http.Client, url, name string)) {
	for name, dial := range clients() {
		t.Run(name, func(t *testing.T) {
			s, addr := start(t, o)
			c, url := dial(addr)
			defer c.CloseIdleConnections()
			f(t, s, c, url, name)
		})
	}
}

func post(t testing.TB, c *http.Client, url string, body io.Reader) (status int, header http.Header, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Echo", "é value")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

func TestOnePortSpeaksEverything(t *testing.T) {
	big := strings.Repeat("x", 3<<20)
	eachClient(t, Options{Handler: echo}, func(t *testing.T, s *Server, c *http.Client, url, name string) {
		proto := "HTTP/1.1"
		if strings.HasPrefix(name, "h2") {
			proto = "HTTP/2.0"
		}
		head := func(method, path string) string {
			return fmt.Sprintf("%s %s %s tls=%v host=%s ", method, path, proto, strings.Contains(name, "TLS"), url[strings.Index(url, "//")+2:])
		}
		for _, body := range []string{"", "small", strings.Repeat("y", 9000), big} {
			for _, known := range []bool{true, false} {
				var r io.Reader = strings.NewReader(body)
				if !known {
					r = io.MultiReader(r) // hides the length
				}
				status, h, got := post(t, c, url+"/a%20b/c?d=e&f", r)
				if want := head("POST", "/a%20b/c?d=e&f") + body; status != 200 || got != want {
					t.Fatalf("%d, %d bytes: %.100q, want %.100q", status, len(got), got, want)
				}
				if h.Get("X-Echo") != "é value" || h.Get("Date") == "" || h.Get("Content-Length") == "" || h.Get("Server") != "" {
					t.Errorf("header %v", h)
				}
				if at, err := http.ParseTime(h.Get("Date")); err != nil || time.Since(at).Abs() > time.Hour {
					t.Errorf("date %q", h.Get("Date"))
				}
			}
		}
		res, err := c.Head(url + "/x")
		if err != nil || res.StatusCode != 200 || res.ContentLength <= 0 {
			t.Errorf("HEAD: %v, %v", res, err)
		}
		if got := s.Stats(); got.Conns != 1 || got.Requests != 0 || got.BodyBytes != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestStreamedAnswerArrivesFrameByFrame(t *testing.T) {
	next := make(chan string)
	handler := api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) {
		res.SetHeader("Content-Type", "text/event-stream")
		_, _ = res.Write([]byte("begin"))
		res.Stream(func(ctx context.Context, w api.StreamWriter) error {
			for s := range next {
				if s == "fail" {
					return errors.New("as asked")
				}
				if _, err := w.Write([]byte(s)); err != nil {
					return err
				}
				if err := w.Flush(); err != nil {
					return err
				}
			}
			return nil
		})
	})
	eachClient(t, Options{Handler: handler}, func(t *testing.T, s *Server, c *http.Client, url, _ string) {
		for _, end := range []string{"", "fail"} {
			next = make(chan string)
			go func() { next <- "one" }()
			res, err := c.Post(url, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			expect := func(want string) {
				t.Helper()
				got := make([]byte, len(want))
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
					t.Fatalf("%q, %v, want %q", got, err, want)
				}
			}
			expect("beginone")
			big := strings.Repeat("b", 100<<10)
			for _, frame := range []string{"two", big, "three"} {
				next <- frame
				expect(frame) // before the next one is written
			}
			if got := s.Stats(); got.Streams != 1 || got.Requests != 0 {
				t.Errorf("stats %+v", got)
			}
			if end != "" {
				next <- end
			} else {
				close(next)
			}
			rest, err := io.ReadAll(res.Body)
			if (err != nil) != (end != "") || len(rest) != 0 {
				t.Errorf("end %q: %q, %v", end, rest, err)
			}
			_ = res.Body.Close()
			apitest.Until(t, "no stream is left", func() bool { return s.Stats().Streams == 0 })
		}
		next = make(chan string)
		close(next)
		if status, _, got := post(t, c, url, nil); status != 200 || got != "begin" {
			t.Errorf("%d %q after the streams", status, got)
		}
	})
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("this test needs curl with HTTP/2 (apt-get install curl)")
	}
	_, addr := start(t, Options{Handler: echo})
	f := func(want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sSk", "--max-time", "20", "-d", "body", "-w", " %{http_version}"}, args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("curl %v: %v: %s, want %s", args, err, out, want)
		}
	}
	f("POST /p? HTTP/1.1 tls=false host="+addr+" body 1.1", "http://"+addr+"/p")
	f("HTTP/1.1 tls=false host="+addr+" body 1.1", "--http2", "http://"+addr+"/p") // offers an upgrade, which may be ignored
	f("HTTP/2.0 tls=false host="+addr+" body 2", "--http2-prior-knowledge", "http://"+addr+"/p")
	f("HTTP/1.1 tls=true host="+addr+" body 1.1", "--http1.1", "https://"+addr+"/p")
	f("HTTP/1.1 tls=true host="+addr+" body 1.1", "--http1.1", "--no-alpn", "https://"+addr+"/p")
	f("HTTP/2.0 tls=true host="+addr+" body 2", "--http2", "https://"+addr+"/p")
	f("HTTP/2.0 tls=true host="+addr+" body 2", "--http2", "https://"+addr+"/p")
	f("POST /p? HTTP/1.0 tls=false", "--http1.0", "http://"+addr+"/p")
	f("body 1.1", "-H", "Expect: 100-continue", "--http1.1", "http://"+addr+"/p")
}

// raw is a connection that a test speaks by hand.
type raw struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func dial(t testing.TB, addr string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{c, t, bufio.NewReader(c)}
}

func dialTLS(t testing.TB, addr string) *raw {
	t.Helper()
	c, err := tls.Dial("tcp", addr, clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{c, t, bufio.NewReader(c)}
}

func (c *raw) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *raw) answer() (*http.Response, string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, string(b)
}

// closed fails unless the server ends the connection.
func (c *raw) closed() {
	c.t.Helper()
	if b, err := io.ReadAll(c.in); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") || len(b) > 0 {
		c.t.Errorf("expected the end, got %q, %v", b, err)
	}
}

func TestConnectionIsReusedAfterItWasParked(t *testing.T) {
	t.Run("cleartext", func(t *testing.T) { reuseParked(t, dial) })
	t.Run("TLS", func(t *testing.T) { reuseParked(t, dialTLS) })
}

func reuseParked(t *testing.T, dial func(testing.TB, string) *raw) {
	s, addr := start(t, Options{Handler: echo})
	c := dial(t, addr)
	parked := func() bool { return s.Stats().Parked == 1 }
	for range 3 {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
		if res, got := c.answer(); res.StatusCode != 200 || !strings.HasSuffix(got, "host=h hi") {
			t.Fatalf("%d %q", res.StatusCode, got)
		}
		apitest.Until(t, "the connection is parked", parked)
	}
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi" + "GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if res, _ := c.answer(); res.StatusCode != 200 {
		t.Error(res.StatusCode)
	}
	if res, got := c.answer(); res.StatusCode != 200 || !strings.HasPrefix(got, "GET /2?") {
		t.Errorf("pipelined: %d %s", res.StatusCode, got)
	}
	c.closed()
}

func TestStreamEndsWhenTheClientIsGone(t *testing.T) {
	gone := make(chan error, 1)
	handler := api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) {
		res.Stream(func(ctx context.Context, w api.StreamWriter) error {
			if _, err := w.Write([]byte("begun")); err != nil {
				return err
			}
			if err := w.Flush(); err != nil {
				return err
			}
			<-ctx.Done()
			gone <- ctx.Err()
			return nil
		})
	})
	eachClient(t, Options{Handler: handler}, func(t *testing.T, s *Server, c *http.Client, url, _ string) {
		res, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close() // ends the connection or resets the stream
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		apitest.Until(t, "no stream is left", func() bool { return s.Stats().Streams == 0 })
	})
}

func TestRequestSentDuringAStreamIsServedAfterIt(t *testing.T) {
	next := make(chan struct{})
	handler := api.HandlerFunc(func(_ context.Context, req api.Request, res api.Response) {
		if string(req.Path()) != "/stream" {
			_, _ = res.Write(req.Body())
			return
		}
		res.Stream(func(ctx context.Context, w api.StreamWriter) error {
			_, err := w.Write([]byte("streamed"))
			_ = w.Flush()
			<-next
			return errors.Join(err, ctx.Err())
		})
	})
	for _, dial := range []func(testing.TB, string) *raw{dial, dialTLS} {
		_, addr := start(t, Options{Handler: handler})
		c := dial(t, addr)
		for range 3 {
			c.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
			if _, err := c.in.Peek(len("HTTP/1.1 200")); err != nil {
				t.Fatal(err)
			}
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nafter")
			next <- struct{}{}
			if res, got := c.answer(); res.StatusCode != 200 || got != "streamed" {
				t.Fatalf("%d %q", res.StatusCode, got)
			}
			if res, got := c.answer(); res.StatusCode != 200 || got != "after" {
				t.Fatalf("%d %q", res.StatusCode, got)
			}
		}
	}
}

func TestHandlerPanicIsAnswered(t *testing.T) {
	handler := api.HandlerFunc(func(_ context.Context, req api.Request, res api.Response) {
		_, _ = res.Write([]byte("half"))
		if string(req.Path()) == "/bug" {
			panic("as asked")
		}
	})
	eachClient(t, Options{Handler: handler}, func(t *testing.T, s *Server, c *http.Client, url, _ string) {
		if status, _, got := post(t, c, url+"/bug", nil); status != 500 || !strings.Contains(got, "InternalFailure") || strings.Contains(got, "half") {
			t.Errorf("%d %s", status, got)
		}
		if status, _, got := post(t, c, url, nil); status != 200 || got != "half" {
			t.Errorf("%d %s", status, got)
		}
		if s.Stats().Panics != 1 {
			t.Error(s.Stats())
		}
	})
}

// TestStreamThatIsNotSentIsEnded: what was taken for a stream is given back by its function.
func TestStreamThatIsNotSentIsEnded(t *testing.T) {
	var taken atomic.Int32
	s, addr := start(t, Options{Handler: api.HandlerFunc(func(_ context.Context, req api.Request, res api.Response) {
		taken.Add(1)
		res.Stream(func(ctx context.Context, w api.StreamWriter) error {
			defer taken.Add(-1)
			if _, err := w.Write([]byte("sent")); err == nil || ctx.Err() == nil || w.Flush() == nil || w.Lend(ctx, 1, 1) != nil {
				t.Errorf("%s: a stream that is not sent can be written", req.Path())
			}
			return nil
		})
		if string(req.Path()) == "/bug" {
			panic("as asked")
		}
	})})
	for request, want := range map[string]int{"GET / HTTP/1.0\r\n\r\n": 505, "GET /bug HTTP/1.1\r\nHost: h\r\n\r\n": 500} {
		c := dial(t, addr)
		c.send(request)
		if res, body := c.answer(); res.StatusCode != want || strings.Contains(body, "sent") {
			t.Errorf("%q: %d %s", request, res.StatusCode, body)
		}
		_ = c.Close()
	}
	if n := taken.Load(); n != 0 || s.Stats().Streams != 0 {
		t.Errorf("%d streams hold what they took, %d are counted", n, s.Stats().Streams)
	}
}

func FuzzPreface(f *testing.F) {
	f.Add([]byte(preface), 1)
	f.Add([]byte(preface[:10]), 3)
	f.Add([]byte("PRI / HTTP/1.1\r\n"), 2)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 24)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		c := &sniffed{Conn: &pieces{in: in, step: max(1, step%32)}}
		if _, err := c.firstByte(); err != nil {
			if len(in) > 0 {
				t.Fatal(err)
			}
			return
		}
		is, err := c.hasPreface()
		if want := bytes.HasPrefix(in, []byte(preface)); is != want {
			t.Fatalf("%q: %v", in, is)
		}
		if cut := len(in) < len(preface) && preface[:len(in)] == string(in); (err != nil) != cut {
			t.Fatalf("%q: %v", in, err)
		}
		if all, _ := io.ReadAll(c); !bytes.Equal(all, in) {
			t.Fatalf("%q became %q", in, all)
		}
	})
}

// pieces is a connection whose input comes a few bytes at a time.
type pieces struct {
	net.Conn
	in   []byte
	step int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.step)], p.in)
	p.in = p.in[n:]
	return n, nil
}
