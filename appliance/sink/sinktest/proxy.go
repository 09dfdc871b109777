package sinktest

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
)

// Fault is something that goes wrong with one request.
type Fault struct {
	Name string
	// Status answers without asking the server.
	Status int
	// Code is the S3 error code of such an answer.
	Code string
	// CutBody ends the connection inside the request's body.
	CutBody bool
	// RetryAfter is sent along with Status.
	RetryAfter string
	// LoseAnswer has the server do the work and ends the connection.
	LoseAnswer bool
}

// Faults are what every sink has to live through.
var Faults = []Fault{
	{Name: "500", Status: 500, Code: "InternalError"},
	{Name: "503", Status: 503, Code: "SlowDown"},
	{Name: "409", Status: 409, Code: "ConditionalRequestConflict"},
	{Name: "412 without an object", Status: 412, Code: "PreconditionFailed"},
	{Name: "a connection cut in the body", CutBody: true},
	{Name: "a lost answer", LoseAnswer: true},
}

// Proxy stands between a sink and its server and makes faults.
type Proxy struct {
	URL    string
	target *url.URL
	server *httptest.Server

	mu struct {
		sync.Mutex
		armed []Fault
		every func(*http.Request) *Fault // decides for each request
		write func(*http.Request)        // changes what is forwarded
		down  bool
		seen  int
		conns int
	}
}

// NewProxy starts a proxy in front of target for the time of the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: u}
	p.server = httptest.NewUnstartedServer(p)
	p.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.mu.conns++
		}
	}
	p.server.Start()
	p.URL = p.server.URL
	t.Cleanup(p.server.Close)
	return p
}

// Arm makes the next writing request meet f.
func (p *Proxy) Arm(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.armed = append(p.mu.armed, f)
}

// Every has decide choose the fault of each request from now on; nil ends it.
func (p *Proxy) Every(decide func(*http.Request) *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.every = decide
}

// Contradicting starts a proxy in front of target that refuses every name as taken
// that is to be created, as a store does which a kill has left with metadata only.
func Contradicting(t testing.TB, target string) *Proxy {
	t.Helper()
	p := NewProxy(t, target)
	p.Every(func(r *http.Request) *Fault {
		if r.Header.Get("If-None-Match") == "" {
			return nil
		}
		return &Fault{Status: http.StatusPreconditionFailed, Code: "PreconditionFailed"}
	})
	return p
}

// Rewrite has change see each request before it is forwarded.
func (p *Proxy) Rewrite(change func(*http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.write = change
}

// Down cuts or restores the line as a whole.
func (p *Proxy) Down(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.down = down
}

// Requests is how many there were.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.seen
}

// Connections is how many were made.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.conns
}

func (p *Proxy) next(r *http.Request) (f *Fault, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.seen++
	if p.mu.every != nil {
		f = p.mu.every(r)
	}
	writes := r.Method == http.MethodPut || r.Method == http.MethodPost
	if f == nil && len(p.mu.armed) > 0 && writes {
		f = &p.mu.armed[0]
		p.mu.armed = p.mu.armed[1:]
	}
	return f, p.mu.down
}

// ServeHTTP forwards a request as it is, or makes its fault.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, down := p.next(r)
	switch {
	case down:
		hangUp(w)
	case f != nil && f.Status != 0:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>`+f.Code+`</Code><Message>made by the proxy</Message></Error>`)
	case f != nil && f.CutBody:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		hangUp(w)
	default:
		p.forward(w, r, f != nil && f.LoseAnswer)
	}
}

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, lose bool) {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = p.target.Scheme, p.target.Host
	// The host stays what was signed.
	p.mu.Lock()
	change := p.mu.write
	p.mu.Unlock()
	if change != nil {
		change(out)
	}
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		hangUp(w)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if lose {
		_, _ = io.Copy(io.Discard, resp.Body)
		hangUp(w)
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// hangUp ends the connection the hard way.
func hangUp(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
