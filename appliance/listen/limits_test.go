//lint:file-ignore SA1019 net/http's transport cannot speak HTTP/2 over TLS without ALPN, as some clients do.

package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// refuser is a handler that words refusals itself, as the AWS services do.
type refuser struct{ api.Handler }

func (refuser) Refuse(_ context.Context, _ api.Request, res api.Response, why *api.Refusal) {
	res.SetStatus(why.Status)
	_, _ = res.Write([]byte("refused: " + why.Code))
}

func TestBodyLimit(t *testing.T) {
	eachClient(t, Options{Handler: refuser{echo}, MaxBodyBytes: 200 << 10, MaxBodyMemory: 1}, func(t *testing.T, s *Server, c *http.Client, url, _ string) {
		for _, known := range []bool{true, false} {
			for size, want := range map[int]int{200 << 10: 200, 200<<10 + 1: 413, 1 << 20: 413} {
				var r io.Reader = strings.NewReader(strings.Repeat("x", size))
				if !known {
					r = io.MultiReader(r)
				}
				req, _ := http.NewRequestWithContext(t.Context(), "POST", url, r)
				res, err := c.Do(req)
				if err != nil {
					if want == 413 { // the connection may be cut while the client still sends
						continue
					}
					t.Fatal(err)
				}
				b, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if res.StatusCode != want || want == 413 && string(b) != "refused: RequestEntityTooLargeException" {
					t.Errorf("%d bytes, length known %v: %d %.50s", size, known, res.StatusCode, b)
				}
			}
		}
		apitest.Until(t, "all body memory is free", func() bool { return s.Stats().BodyBytes == 0 && s.Stats().Requests == 0 })
	})
}

// TestBodyOfGigabytesIsRefused: a length of more than 32 bits is none that is small.
func TestBodyOfGigabytesIsRefused(t *testing.T) {
	eachClient(t, Options{Handler: refuser{echo}}, func(t *testing.T, _ *Server, c *http.Client, url, _ string) {
		r, w := io.Pipe()
		defer func() { _ = w.Close() }()
		go func() { _, _ = io.WriteString(w, strings.Repeat("x", 8<<10)) }() // fasthttp asks for the first bytes
		req, _ := http.NewRequestWithContext(t.Context(), "POST", url, r)
		req.ContentLength = 1<<32 + 4
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode < 400 {
			t.Errorf("%s, expecting a refusal", res.Status)
		}
	})
}

func TestBodyThatIsTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	_, addr := start(t, Options{Handler: echo, MaxBodyBytes: 1000})
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
	c.send(strings.Repeat("x", 8<<10)) // fasthttp asks for the first bytes
	if res, _ := c.answer(); res.StatusCode != 413 || !res.Close {
		t.Errorf("%d, close %v", res.StatusCode, res.Close)
	}
	c.closed()
}

func TestRefusalReachesAClientThatGoesOnSending(t *testing.T) {
	_, addr := start(t, Options{Handler: echo, MaxBodyBytes: 1000})
	for _, tls := range []bool{false, true} {
		for head, want := range map[string]int{
			"Content-Length: 4000000\r\n\r\n": 413, "Transfer-Encoding: chunked\r\n\r\n3d0900\r\n": 413, "X-Endless: ": 431,
		} {
			c := dial(t, addr)
			if tls {
				c = dialTLS(t, addr)
			}
			c.send("POST / HTTP/1.1\r\nHost: h\r\n" + head)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for range 1000 {
					if _, err := io.WriteString(c, strings.Repeat("x", 4000)); err != nil {
						return
					}
				}
			}()
			if res, _ := c.answer(); res.StatusCode != want || !res.Close {
				t.Errorf("%q: %d, close %v, expecting %d", head, res.StatusCode, res.Close, want)
			}
			<-sent
			_ = c.Close()
		}
	}
}

// TestRefusalOfHeadersIsNotFollowedByAReset: a reset may overtake the answer.
func TestRefusalOfHeadersIsNotFollowedByAReset(t *testing.T) {
	_, addr := start(t, Options{Handler: echo})
	c := dial(t, addr)
	defer func() { _ = c.Close() }()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nX-Large: " + strings.Repeat("x", 30<<10))
	if res, _ := c.answer(); res.StatusCode != 431 {
		t.Errorf("%d, expecting 431", res.StatusCode)
	}
	if b, err := io.ReadAll(c.in); err != nil || len(b) > 0 {
		t.Errorf("%q, %v behind the answer, expecting the end", b, err)
	}
}

func TestHeaderLimit(t *testing.T) {
	eachClient(t, Options{Handler: echo, MaxHeaderBytes: 8 << 10}, func(t *testing.T, _ *Server, c *http.Client, url, name string) {
		for size, want := range map[int]int{4 << 10: 200, 12 << 10: 431, 30 << 10: 431, 100 << 10: 431} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
			req.Header.Set("X-Large", strings.Repeat("x", size))
			res, err := c.Do(req)
			if err != nil {
				if size < 100<<10 || !strings.HasPrefix(name, "h2") {
					t.Fatal(err)
				}
				continue // HTTP/2 may end the connection instead
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%d bytes: %d", size, res.StatusCode)
			}
		}
	})
}

func TestRequestsThatAreNotHTTP(t *testing.T) {
	_, addr := start(t, Options{Handler: echo})
	for _, in := range []string{"nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost : x\r\nA\r\n\r\n", "\x00\x01\x02\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"} {
		c := dial(t, addr)
		c.send(in)
		if b, err := io.ReadAll(c.in); err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 400") {
			t.Errorf("%q: %q", in, b)
		}
	}
	c := dial(t, addr)
	c.send("\x16\x03\x01\x00\x05nonsense")
	_, _ = io.ReadAll(c.in)
}

func TestSlowClientsAreCutOffAndOthersServed(t *testing.T) {
	s, addr := start(t, Options{
		Handler: refuser{echo}, HandshakeTimeout: time.Second, HeaderTimeout: time.Second,
		Grace: 200 * time.Millisecond, MinRate: 1 << 20, BodyTimeout: 2 * time.Second, IdleTimeout: 1300 * time.Millisecond,
	})
	cases := []struct{ what, send, want string }{
		{"sends nothing", "", ""},
		{"sends half of TLS", "\x16\x03\x01", ""},
		{"sends half of the preface", preface[:10], ""},
		{"sends half a header", "POST / HTTP/1.1\r\nHost:", "HTTP/1.1 408 "},
		{"sends half a small body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 408 "},
		{"sends half a large body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50000), "HTTP/1.1 408 "},
		{"sends half a chunk", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "HTTP/1.1 408 "},
		{"is idle after a request", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK"},
		{"speaks HTTP/2 and says nothing", preface, ""},
	}
	done := make(chan string, len(cases))
	for _, tc := range cases {
		c := dial(t, addr)
		c.send(tc.send)
		go func() {
			got, err := io.ReadAll(c.in)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() || !strings.HasPrefix(string(got), tc.want) {
				done <- fmt.Sprintf("a client that %s gets %q, %v", tc.what, got, err)
				return
			}
			done <- ""
		}()
	}
	for range cases {
		if status, _, _ := post(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+addr, strings.NewReader("quick")); status != 200 {
			t.Errorf("a quick client gets %d", status)
		}
		if problem := <-done; problem != "" {
			t.Error(problem)
		}
	}
	apitest.Until(t, "nobody is left", func() bool { return s.Stats().Conns == 0 })
}

func TestSlowHTTP2Body(t *testing.T) {
	_, addr := start(t, Options{Handler: refuser{echo}, Grace: 200 * time.Millisecond, BodyTimeout: time.Second})
	for _, known := range []bool{true, false} {
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}
		r, w := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr, r)
		if known {
			req.ContentLength = 100
		}
		go func() { _, _ = w.Write([]byte("half")) }()
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 408 || string(b) != "refused: RequestTimeout" {
			t.Errorf("%d %s", res.StatusCode, b)
		}
		_ = w.Close()
		tr.CloseIdleConnections()
	}
}

// gateKeeper is a handler whose requests wait until they are let go.
func gateKeeper() (h api.Handler, entered, leave chan struct{}) {
	entered, leave = make(chan struct{}, 100), make(chan struct{})
	return refuser{api.HandlerFunc(func(ctx context.Context, req api.Request, res api.Response) {
		if string(req.Path()) == "/stream" {
			res.Stream(func(ctx context.Context, w api.StreamWriter) error {
				if ctx.Err() != nil {
					return ctx.Err() // it was refused
				}
				entered <- struct{}{}
				select {
				case <-leave:
					_, err := w.Write([]byte("left"))
					return err
				case <-api.Draining(ctx):
					_, err := w.Write([]byte("drained"))
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			return
		}
		entered <- struct{}{}
		select {
		case <-leave:
		case <-ctx.Done():
		}
		_, _ = res.Write([]byte("served"))
	})}, entered, leave
}

func TestRequestsInFlightAreLimited(t *testing.T) {
	for _, what := range []string{"requests", "body memory", "streams"} {
		h, entered, leave := gateKeeper()
		o := Options{Handler: h, QueueTimeout: 20 * time.Millisecond}
		path := "/"
		switch what {
		case "requests":
			o.MaxRequests = 2
		case "body memory":
			o.MaxBodyBytes, o.MaxBodyMemory = 1000, 2000
		case "streams":
			o.MaxStreams, path = 2, "/stream"
		}
		t.Run(what, func(t *testing.T) {
			eachClient(t, o, func(t *testing.T, s *Server, c *http.Client, url, _ string) {
				results := make(chan string, 2)
				body := strings.Repeat("x", 900)
				for range 2 {
					go func() {
						res, err := c.Post(url+path, "", strings.NewReader(body))
						if err != nil {
							results <- err.Error()
							return
						}
						b, _ := io.ReadAll(res.Body)
						results <- fmt.Sprint(res.StatusCode, " ", string(b))
					}()
				}
				<-entered
				<-entered
				status, header, got := post(t, c, url+path, strings.NewReader(body))
				if status != 503 || !strings.Contains(got, "ServiceUnavailable") || header.Get("Retry-After") == "" {
					t.Errorf("%d %s %v", status, got, header)
				}
				for range 2 {
					leave <- struct{}{}
				}
				for range 2 {
					if got := <-results; got != "200 served" && got != "200 left" {
						t.Error(got)
					}
				}
				apitest.Until(t, "nothing is held", func() bool { st := s.Stats(); return st.Requests == 0 && st.Streams == 0 && st.BodyBytes == 0 })
			})
		})
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s, addr := start(t, Options{Handler: echo, MaxConns: 3})
	var held []*raw
	for range 3 {
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.answer()
		held = append(held, c)
	}
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if res, got := c.answer(); res.StatusCode != 503 || !strings.Contains(got, "ServiceUnavailable") || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", res.StatusCode, got)
	}
	c.closed()
	c = dialTLS(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if res, got := c.answer(); res.StatusCode != 503 || !strings.Contains(got, "ServiceUnavailable") {
		t.Errorf("through TLS: %d %s", res.StatusCode, got)
	}
	for _, conf := range []*tls.Config{nil, clientTLS("h2"), clientTLS()} {
		if status, body := askHTTP2(t, addr, conf); status != 503 || !strings.Contains(body, "ServiceUnavailable") {
			t.Errorf("HTTP/2: %d %s", status, body)
		}
	}
	held[0].send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if res, _ := held[0].answer(); res.StatusCode != 200 {
		t.Errorf("an old client gets %d", res.StatusCode)
	}
	_ = held[1].Close()
	apitest.Until(t, "there is room again", func() bool { return s.Stats().Conns == 2 })
	c = dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if res, _ := c.answer(); res.StatusCode != 200 {
		t.Errorf("%d after one has left", res.StatusCode)
	}
	if got := s.Stats().TurnedAway; got != (TurnedAway{Full: 5}) {
		t.Errorf("%+v turned away", got)
	}
}

// askHTTP2 sends one request over HTTP/2, through TLS or without, with or without ALPN.
func askHTTP2(t *testing.T, addr string, conf *tls.Config) (status int, body string) {
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil && conf != nil {
			c = tls.Client(c, conf)
		}
		return c, err
	}}
	defer tr.CloseIdleConnections()
	status, _, body = post(t, &http.Client{Transport: tr}, "http://"+addr, strings.NewReader("hello"))
	return status, body
}

// TestACrowdIsToldThatThereIsNoRoom: each of many that come at once is told, those
// that have sent their request before anybody looked as well.
func TestACrowdIsToldThatThereIsNoRoom(t *testing.T) {
	s, addr := start(t, Options{Handler: echo, MaxConns: 1})
	first := dial(t, addr)
	first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	first.answer()
	var crowd []*raw
	for range leastAway {
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000))
		crowd = append(crowd, c)
	}
	for i, c := range crowd {
		if res, _ := c.answer(); res.StatusCode != 503 {
			t.Errorf("the %d. is answered with %d", i, res.StatusCode)
		}
		if b, err := io.ReadAll(c.in); err != nil || len(b) > 0 {
			t.Errorf("the %d. gets %q, %v behind the answer", i, b, err)
		}
		_ = c.Close()
	}
	if got := s.Stats().TurnedAway; got != (TurnedAway{Full: leastAway}) {
		t.Errorf("%+v turned away", got)
	}
}

// TestOneTurnedAwayTakesLittleMemory: a frame that it announces and does not send costs
// nothing.
func TestOneTurnedAwayTakesLittleMemory(t *testing.T) {
	_, addr := start(t, Options{Handler: echo, MaxConns: 1})
	first := dial(t, addr)
	first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	first.answer()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := dial(t, addr)
	c.send(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\xff\xff\xff\x00\x00\x00\x00\x00\x01")
	_, _ = io.ReadAll(c.in)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d MiB for one that is turned away", n>>20)
	}
}

// TestManyOverTLSGetAnAlert: there are no handshakes without end for those who
// can't be served, but still a reason.
func TestManyOverTLSGetAnAlert(t *testing.T) {
	s, addr := start(t, Options{Handler: echo, MaxConns: 1})
	s.away.tls.at = time.Now().Add(time.Hour) // as if there had been many
	first := dial(t, addr)
	first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	first.answer()
	if _, err := tls.Dial("tcp", addr, clientTLS()); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("%v; expecting an alert", err)
	}
}

// TestTheLogTellsOfManyOnce: a line for the first that is turned away, and none for each.
func TestTheLogTellsOfManyOnce(t *testing.T) {
	var out strings.Builder
	s := New(Options{Handler: echo, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	for range 5 {
		s.noteTurnedAway(fullAddress, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 9})
	}
	s.away.logged = time.Time{}
	s.noteTurnedAway(full, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 8), Port: 9})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "count=1") || !strings.Contains(lines[0], "max_connections_per_address") ||
		!strings.Contains(lines[1], "count=5") || !strings.Contains(lines[1], "192.0.2.8") {
		t.Errorf("%q", lines)
	}
}

// farAway is a listener whose connections come from addresses of the test's choice.
type farAway struct {
	net.Listener
	addr func() net.Addr
}

type farConn struct {
	net.Conn
	addr net.Addr
}

func (l farAway) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{c, l.addr()}, nil
}

func (c farConn) RemoteAddr() net.Addr { return c.addr }

func startFar(t *testing.T, o Options, addr func() net.Addr) (s *Server, near string) {
	s, _ = start(t, o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(farAway{ln, addr}) }()
	return s, ln.Addr().String()
}

func TestConnectionsPerAddressAreLimited(t *testing.T) {
	from := make(chan string, 1)
	s, addr := startFar(t, Options{Handler: echo, MaxConnsPerAddress: 2}, func() net.Addr {
		return &net.TCPAddr{IP: net.ParseIP(<-from), Port: 9}
	})
	for _, tc := range []struct {
		ip   string
		want int
	}{
		{"192.0.2.1", 200},
		{"192.0.2.1", 200},
		{"192.0.2.1", 503},
		{"192.0.2.2", 200},
		{"2001:db8::1", 200},
		{"2001:db8::2", 200},
		{"2001:db8::3", 503},
		{"2001:db8:0:1::1", 200},
	} {
		from <- tc.ip
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if res, _ := c.answer(); res.StatusCode != tc.want {
			t.Errorf("%s: %d, want %d", tc.ip, res.StatusCode, tc.want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.byAddr) != 4 {
		t.Errorf("%d addresses", len(s.mu.byAddr))
	}
}

func TestCleartextMayBeRefused(t *testing.T) {
	_, addr := startFar(t, Options{Handler: echo, Cleartext: LoopbackPeer}, func() net.Addr {
		return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	})
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
	if res, got := c.answer(); res.StatusCode != 403 || !strings.Contains(got, "use https") {
		t.Errorf("%d %s", res.StatusCode, got)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS()}}
	defer client.CloseIdleConnections()
	if status, _, _ := post(t, client, "https://"+addr, nil); status != 200 {
		t.Errorf("TLS: %d", status)
	}
	_, near := start(t, Options{Handler: echo, Cleartext: LoopbackPeer})
	if status, _, _ := post(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+near, nil); status != 200 {
		t.Errorf("loopback: %d", status)
	}
}

func TestDrainFinishesRequestsAndEndsStreams(t *testing.T) {
	for name, dialer := range clients() {
		t.Run(name, func(t *testing.T) {
			h, entered, leave := gateKeeper()
			s, addr := start(t, Options{Handler: h})
			c, url := dialer(addr)
			idle := dial(t, addr)
			idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			<-entered
			leave <- struct{}{}
			idle.answer()
			results := make(chan string, 2)
			for _, path := range []string{"/", "/stream"} {
				go func() {
					res, err := c.Get(url + path)
					if err != nil {
						results <- err.Error()
						return
					}
					b, err := io.ReadAll(res.Body)
					results <- fmt.Sprint(string(b), err)
				}()
				<-entered
			}
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(t.Context()) }()
			idle.closed()
			if got := <-results; got != "drained<nil>" {
				t.Errorf("stream: %s", got)
			}
			apitest.Until(t, "no new connection is accepted", func() bool {
				c, err := net.Dial("tcp", addr)
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			leave <- struct{}{}
			if got := <-results; got != "served<nil>" {
				t.Errorf("request: %s", got)
			}
			if err := <-done; err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if got := s.Stats(); got.Conns != 0 || got.Requests != 0 || got.Streams != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestDrainHasATimeLimit(t *testing.T) {
	h, entered, _ := gateKeeper()
	s, addr := start(t, Options{Handler: h, DrainTimeout: 50 * time.Millisecond})
	for _, dialer := range clients() {
		c, url := dialer(addr)
		go func() {
			res, err := c.Get(url + "/")
			if err == nil {
				_ = res.Body.Close()
			}
		}()
		<-entered
	}
	if err := s.Shutdown(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if got := s.Stats(); got.Conns != 0 {
		t.Errorf("%+v", got)
	}
}

// TestClientAuthoritiesAreReplaced has a client come back over TLS session
// resumption, too, which must not outlive the authority that let it in.
func TestClientAuthoritiesAreReplaced(t *testing.T) {
	s, addr := start(t, Options{Handler: testGate(nil), ClientCAs: testAuthority().pool})
	conf := clientTLS()
	conf.Certificates = []tls.Certificate{*testAuthority().issue("device-1")}
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	get := func() string {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		res, err := c.Get("https://" + addr + "/v1/x")
		if err != nil {
			return "error"
		}
		defer func() { _ = res.Body.Close() }()
		return fmt.Sprint(res.StatusCode)
	}
	for _, step := range []struct {
		pool *x509.CertPool
		want string
	}{
		{testAuthority().pool, "200"},
		{newAuthority().pool, "error"}, // a certificate of nobody we know
		{nil, "401"},                   // not asked for one
		{testAuthority().pool, "200"},
	} {
		s.SetClientCAs(step.pool)
		for range 2 {
			if got := get(); got != step.want {
				t.Errorf("%s, expecting %s", got, step.want)
			}
		}
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	current := make(chan *tls.Certificate, 1)
	current <- testServer()
	_, addr := start(t, Options{Handler: echo, Certificate: func() (*tls.Certificate, error) {
		c := <-current
		current <- c
		return c, nil
	}})
	serial := func() string {
		c, err := tls.Dial("tcp", addr, clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	<-current
	current <- testAuthority().issue("localhost")
	if second := serial(); second == first {
		t.Error("the old certificate is still served")
	}
}

// TestSlowLargeBodiesLeaveRoomForOthers has as many clients as fit send half of a large
// body, and others come by with smaller ones.
func TestSlowLargeBodiesLeaveRoomForOthers(t *testing.T) {
	const large, medium, memory = 2 << 20, 128 << 10, 8 << 20
	o := Options{Handler: refuser{echo}, MaxBodyBytes: large, MaxBodyMemory: memory, QueueTimeout: 50 * time.Millisecond}
	s, from := fromAddresses(t, o)
	clients := 0
	client := func() *raw { // each from an address of its own: one alone has less than all
		clients++
		return from(fmt.Sprintf("192.0.2.%d", clients))
	}
	occupy := func(n, size int) {
		t.Helper()
		before := s.Stats().BodyBytes
		for range n {
			c := client()
			c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size/2)))
		}
		apitest.Until(t, "they are being read", func() bool { return s.Stats().BodyBytes == before+int64(n*size) })
	}
	sent := func(size, want int) {
		t.Helper()
		for _, chunked := range []bool{false, true} {
			c := client()
			head := fmt.Sprintf("Content-Length: %d\r\n\r\n", size)
			if chunked {
				head = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)
			}
			c.send("POST / HTTP/1.1\r\nHost: h\r\n" + head + strings.Repeat("x", size))
			if chunked {
				c.send("\r\n0\r\n\r\n")
			}
			if res, _ := c.answer(); res.StatusCode != want {
				t.Errorf("%d bytes, chunked %v: %d, want %d", size, chunked, res.StatusCode, want)
			}
		}
	}
	occupy(3, large) // three quarters of the memory
	sent(large, 503)
	sent(medium, 200)
	sent(100, 200)
	occupy(8, medium) // and an eighth
	sent(medium, 503)
	sent(100, 200)
	sent(32<<10, 200)
}

// TestRefusalReachesAClientThatReadsLast: it sends all of a body that is too large before
// it looks at what comes back, as simple clients do.
func TestRefusalReachesAClientThatReadsLast(t *testing.T) {
	_, addr := start(t, Options{Handler: echo, MaxBodyBytes: 4 << 20})
	const size = 12 << 20 // more than what is on its way at a time, and than maxLinger
	for name, connect := range map[string]func(testing.TB, string) *raw{"cleartext": dial, "TLS": dialTLS} {
		for _, head := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n", size), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)} {
			c := connect(t, addr)
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\n"+head+strings.Repeat("x", size)); err != nil {
				t.Errorf("%s, %.20s: %v", name, head, err)
				continue
			}
			if res, _ := c.answer(); res.StatusCode != 413 {
				t.Errorf("%s, %.20s: %d", name, head, res.StatusCode)
			}
			_ = c.Close()
		}
	}
}

// TestAStopDoesNotWaitForABodyThatNobodyWants: nor does anybody else for one that goes on
// for ever.
func TestAStopDoesNotWaitForABodyThatNobodyWants(t *testing.T) {
	for _, endless := range []bool{false, true} {
		s, addr := start(t, Options{Handler: echo, MaxBodyBytes: 1 << 20})
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 8<<10))
		if res, _ := c.answer(); res.StatusCode != 413 {
			t.Fatal(res.StatusCode)
		}
		if endless {
			part := strings.Repeat("x", 64<<10)
			for sent := 0; sent < 100<<20; sent += len(part) {
				if _, err := io.WriteString(c, part); err != nil {
					break
				}
			}
			apitest.Until(t, "it is cut off", func() bool { return s.Stats().Conns == 0 })
			continue
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
}

// TestRefusalOverHTTP2IsNotFollowedByAReset: curl of the year 2023 forgets the answer then.
func TestRefusalOverHTTP2IsNotFollowedByAReset(t *testing.T) {
	const size, frame = 120 << 10, 10 << 10 // all of it within the windows
	_, addr := start(t, Options{Handler: echo, MaxBodyBytes: 100 << 10})
	c := dial(t, addr)
	c.send(preface)
	f := http2.NewFramer(c, c.in)
	_ = f.WriteSettings()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}, {"content-length", strconv.Itoa(size)}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	dec := hpack.NewDecoder(4096, nil)
	for status, answered := "", false; ; {
		fr, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch fr := fr.(type) {
		case *http2.HeadersFrame:
			fields, _ := dec.DecodeFull(fr.HeaderBlockFragment())
			status = fields[0].Value
		case *http2.DataFrame:
			if !answered { // the answer is here, and only now most of the body is sent
				answered = true
				for sent := frame; sent <= size; sent += frame {
					if err := f.WriteData(1, sent == size, make([]byte, frame)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if fr.StreamEnded() {
				_ = f.WritePing(false, [8]byte{1})
			}
		case *http2.RSTStreamFrame:
			t.Fatalf("a reset with %v behind the answer %s", fr.ErrCode, status)
		case *http2.PingFrame:
			if status != "413" {
				t.Errorf("answer %s", status)
			}
			return
		}
	}
}
