// Package apitest runs an api.Handler without a listener, for the unit tests of
// handlers. What it passes in and takes out has the lifetimes the listener gives:
// the request's slices are overwritten when Serve has returned, so a handler that
// keeps one fails its test.
package apitest

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"

	"github.com/weirhq/weir/appliance/api"
)

// Request is an api.Request in memory. The zero value is a POST of nothing to "/"
// over HTTP/1.1 from 127.0.0.1:1 with no identity.
type Request struct {
	Verb     string // method; POST if empty
	Target   string // path, with the query behind '?' if any; "/" if empty
	Headers  http.Header
	HostName string
	Payload  []byte
	Remote   netip.AddrPort
	State    *tls.ConnectionState
	Version  string // HTTP/1.1 if empty
	Who      *api.Identity
	// Room is the memory there is for a large answer; without end if 0.
	Room int
	// Flushed, unless nil, is told of the whole Body at each flush of a streamed answer.
	Flushed func(body []byte)
}

// Result is what a handler answered. Body has the streamed part, too.
type Result struct {
	Status   int
	Header   http.Header
	Body     []byte
	Streamed bool
	// Flushes are the lengths of Body at each flush of a streamed answer.
	Flushes []int
	// Err is what the stream function returned.
	Err error
}

// Do serves r with h and returns the whole answer. A streamed answer runs to its
// end or until ctx is done.
func Do(ctx context.Context, h api.Handler, r *Request) *Result {
	req := newRequest(r)
	res := &response{Result: Result{Status: 200, Header: http.Header{}}, room: r.Room, flushed: r.Flushed}
	h.Serve(ctx, req, res)
	req.spoil()
	if res.stream != nil {
		res.Streamed = true
		res.Err = res.stream(ctx, res)
	}
	return &res.Result
}

type request struct {
	r           *Request
	path, query []byte
	host, body  []byte
	header      map[string][][]byte
	who         *api.Identity
}

func newRequest(r *Request) *request {
	q := &request{r: r, host: []byte(r.HostName), body: bytes.Clone(r.Payload), who: r.Who, header: map[string][][]byte{}}
	path, query, _ := bytes.Cut([]byte(r.Target), []byte("?"))
	q.path, q.query = bytes.Clone(path), bytes.Clone(query)
	if len(q.path) == 0 {
		q.path = []byte("/")
	}
	for k, vs := range r.Headers {
		for _, v := range vs {
			k = http.CanonicalHeaderKey(k)
			q.header[k] = append(q.header[k], []byte(v))
		}
	}
	return q
}

// spoil overwrites what the handler was lent.
func (q *request) spoil() {
	spoil := func(b []byte) {
		for i := range b {
			b[i] = 0xdb
		}
	}
	spoil(q.path)
	spoil(q.query)
	spoil(q.host)
	spoil(q.body)
	for _, vs := range q.header {
		for _, v := range vs {
			spoil(v)
		}
	}
}

func (q *request) Method() string {
	if q.r.Verb == "" {
		return http.MethodPost
	}
	return q.r.Verb
}

func (q *request) Proto() string {
	if q.r.Version == "" {
		return "HTTP/1.1"
	}
	return q.r.Version
}

func (q *request) RemoteAddr() netip.AddrPort {
	if !q.r.Remote.IsValid() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1)
	}
	return q.r.Remote
}

func (q *request) Header(name string) []byte {
	if vs := q.header[name]; len(vs) > 0 {
		return vs[0]
	}
	return nil
}

func (q *request) VisitHeaders(fn func(name, value []byte)) {
	for k, vs := range q.header {
		for _, v := range vs {
			fn([]byte(k), v)
		}
	}
}

func (q *request) Path() []byte                 { return q.path }
func (q *request) RawQuery() []byte             { return q.query }
func (q *request) Host() []byte                 { return q.host }
func (q *request) Body() []byte                 { return q.body }
func (q *request) TLS() *tls.ConnectionState    { return q.r.State }
func (q *request) Identity() *api.Identity      { return q.who }
func (q *request) SetIdentity(id *api.Identity) { q.who = id }

type response struct {
	Result
	stream  func(context.Context, api.StreamWriter) error
	room    int
	flushed func(body []byte)
}

func (p *response) SetStatus(code int)           { p.Result.Status = code }
func (p *response) Status() int                  { return p.Result.Status }
func (p *response) SetHeader(name, value string) { p.Result.Header.Set(name, value) }
func (p *response) Body() *[]byte                { return &p.Result.Body }

func (p *response) Write(b []byte) (int, error) {
	p.Result.Body = append(p.Result.Body, b...)
	return len(b), nil
}

func (p *response) Reserve(_ context.Context, least, want int) int {
	switch want = max(least, want); {
	case p.room == 0 || want <= p.room:
		return want
	case least <= p.room:
		return p.room
	}
	return 0
}

func (p *response) Lend(ctx context.Context, least, want int) []byte {
	n := p.Reserve(ctx, least, want)
	if n == 0 {
		return nil
	}
	return make([]byte, 0, n)
}

func (p *response) Stream(fn func(context.Context, api.StreamWriter) error) { p.stream = fn }

func (p *response) Flush() error {
	p.Flushes = append(p.Flushes, len(p.Result.Body))
	if p.flushed != nil {
		p.flushed(p.Result.Body)
	}
	return nil
}
