package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"github.com/valyala/fasthttp"
	"github.com/weirhq/weir/appliance/api"
)

// newHTTP1 makes the HTTP/1.1 server. Its deadlines are those of conn; bodies are
// read by the core.
func (s *Server) newHTTP1() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                      s.serveHTTP1,
		ErrorHandler:                 s.failHTTP1,
		ConnState:                    s.stateHTTP1,
		Concurrency:                  2*s.o.MaxConns + 1024, // the bound is the Server's own
		ReadBufferSize:               s.o.MaxHeaderBytes,
		WriteBufferSize:              4 << 10,
		StreamRequestBody:            true,
		MaxRequestBodySize:           s.o.MaxBodyBytes,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		LazyRequestTime:              true,
		Logger:                       quiet{},
	}
}

// quiet drops fasthttp's log: what it has to say is about clients' connections,
// and they are counted.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// stateHTTP1 is called between requests: the answer has been written.
func (s *Server) stateHTTP1(nc net.Conn, state fasthttp.ConnState) {
	if c, ok := nc.(*conn); ok && state == fasthttp.StateIdle {
		c.releaseOut()
		c.setPhase(phaseIdle)
		if s.isDraining() { // drain may have looked before
			c.shutIdle()
		}
	}
}

func (c *conn) releaseOut() {
	if c.out != nil {
		c.lastOut.Store(int32(min(len(c.out), maxGuess)))
		c.s.putBuffer(c.out)
		c.out = nil
	}
	if c.held > 0 {
		c.s.giveAnswer(c.network, c.held)
		c.held = 0
	}
}

// failHTTP1 answers a request that could not be read.
func (s *Server) failHTTP1(ctx *fasthttp.RequestCtx, err error) {
	s.stats.refused.Add(1)
	why := &api.Refusal{Status: 400, Code: "BadRequest", Message: "The request is not HTTP/1.1."}
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		why = s.refuseHeaders()
	case errors.Is(err, errSlow):
		why = &api.Refusal{Status: 408, Code: "RequestTimeout", Message: "The request came too slowly."}
	}
	x := &http1{ctx: ctx}
	if c, ok := ctx.Conn().(*conn); ok {
		x.c = c
		c.lingers = true
	} else {
		x.c = &conn{s: s}
	}
	api.WriteError((*response1)(x), why)
	ctx.Response.SetBodyRaw(x.c.out)
}

// http1 is one exchange over HTTP/1.1.
type http1 struct {
	ctx      *fasthttp.RequestCtx
	c        *conn
	body     []byte
	identity *api.Identity
	stream   func(context.Context, api.StreamWriter) error
}

// response1 is http1 as a Response: the two share a method name.
type response1 http1

var exchanges1 = sync.Pool{New: func() any { return new(http1) }}

func (s *Server) serveHTTP1(ctx *fasthttp.RequestCtx) {
	c := ctx.Conn().(*conn)
	c.setPhase(phaseBusy)
	x := exchanges1.Get().(*http1)
	*x = http1{ctx: ctx, c: c}
	left := s.handle(s.ctx, x, (*response1)(x))
	stream := x.stream
	*x = http1{}
	exchanges1.Put(x)

	c.lingers, c.patient = left != restNone, left == restUnread || left == restUnknown
	if left == restUnknown || left == restBroken || s.isDraining() {
		ctx.SetConnectionClose()
	}
	if c.getPhase() != phaseBody {
		c.beginBody() // for what fasthttp reads of a body that nobody wanted
	}
	if stream == nil {
		ctx.Response.SetBodyRaw(c.out)
		return
	}
	ctx.Response.ImmediateHeaderFlush = true
	ctx.Response.SetBodyStream(&stream1{c: c, fn: stream}, -1)
}

// Method returns constants for the usual methods.
func (x *http1) Method() string {
	switch m := x.ctx.Method(); string(m) {
	case "POST":
		return "POST"
	case "GET":
		return "GET"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	default:
		return string(m)
	}
}

func (x *http1) Path() []byte { return x.ctx.Request.URI().PathOriginal() }

func (x *http1) RawQuery() []byte { return x.ctx.Request.URI().QueryString() }

func (x *http1) Host() []byte { return x.ctx.Request.Header.Host() }

func (x *http1) Header(name string) []byte { return x.ctx.Request.Header.Peek(name) }

func (x *http1) VisitHeaders(fn func(name, value []byte)) {
	for name, value := range x.ctx.Request.Header.All() {
		fn(name, value)
	}
}

func (x *http1) Body() []byte { return x.body }

func (x *http1) RemoteAddr() netip.AddrPort { return x.c.remote }

func (x *http1) TLS() *tls.ConnectionState { return x.c.connectionState() }

func (x *http1) Identity() *api.Identity { return x.identity }

func (x *http1) SetIdentity(id *api.Identity) { x.identity = id }

func (x *http1) Proto() string {
	if x.ctx.Request.Header.IsHTTP11() {
		return "HTTP/1.1"
	}
	return "HTTP/1.0"
}

func (x *http1) conn() *conn { return x.c }

func (x *http1) length() int {
	switch n := x.ctx.Request.Header.ContentLength(); n {
	case -1: // chunked
		return -1
	case -2: // none
		return 0
	default:
		return n
	}
}

func (x *http1) beginBody() { x.c.beginBody() }

func (x *http1) readBody(p []byte) (int, error) {
	n, err := x.ctx.RequestBodyStream().Read(p)
	if err == io.EOF && n == 0 && x.length() > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (x *http1) setBody(b []byte) { x.body = b }

func (x *http1) streamed() func(context.Context, api.StreamWriter) error { return x.stream }

func (x *response1) SetStatus(code int) { x.ctx.SetStatusCode(code) }

func (x *response1) Status() int { return x.ctx.Response.StatusCode() }

func (x *response1) SetHeader(name, value string) { x.ctx.Response.Header.Set(name, value) }

func (x *response1) Body() *[]byte {
	if x.c.out == nil {
		x.c.out = getBuffer(int(x.c.lastOut.Load()))
	}
	return &x.c.out
}

func (x *response1) Write(p []byte) (int, error) {
	b := x.Body()
	*b = append(*b, p...)
	return len(p), nil
}

func (x *response1) Reserve(ctx context.Context, least, want int) int {
	x.c.s.reserve(ctx, x.c.network, &x.c.out, &x.c.held, least, want)
	return x.c.held
}

func (x *response1) Stream(fn func(context.Context, api.StreamWriter) error) { x.stream = fn }

// stream1 is the body of a streamed answer. fasthttp calls WriteTo once the
// header has been sent, and ends the body after it. The chunks are written to the
// connection right here, one for each flush, because fasthttp flushes only bodies
// it reads itself.
type stream1 struct {
	c   *conn
	fn  func(context.Context, api.StreamWriter) error
	ran bool
}

// Close is called in the end, also when the header could not be sent.
func (b *stream1) Close() error {
	if !b.ran {
		b.ran = true
		b.c.s.endStream(b.c.network)
		b.c.s.endUnsent(b.fn)
	}
	return nil
}

// SupportsBodyWriteTo makes fasthttp call WriteTo.
func (b *stream1) SupportsBodyWriteTo() bool { return true }

// Read is never called.
func (b *stream1) Read([]byte) (int, error) {
	return 0, errors.New("BUG: a stream is written, not read")
}

// WriteTo runs the stream.
func (b *stream1) WriteTo(io.Writer) (int64, error) {
	s := b.c.s
	b.ran = true
	w := &chunks{c: b.c, loan: loan{s: s, to: b.c.network}, buf: getBuffer(smallestBuffer)[:chunkHead]}
	w.buf = append(w.buf, b.c.out...)
	b.c.releaseOut()
	ctx, unwatch := b.c.watch(s.ctx)
	err := s.runStream(ctx, b.c.network, b.fn, w)
	unwatch()
	putBuffer(w.buf)
	w.loan.back()
	if err != nil {
		_ = b.c.shut() // so that the client does not take what it has for all
	}
	return 0, err
}

const (
	// chunkHead is the room for a chunk's length in hexadecimal and a line end.
	chunkHead = 10
	// flushAt is how much is buffered before it is sent without being asked to.
	flushAt = 32 << 10
)

// chunks writes chunked transfer coding to the connection.
type chunks struct {
	loan
	c   *conn
	buf []byte // chunkHead bytes, then data
	err error
}

// Write buffers p, or sends it at once if it is large.
func (w *chunks) Write(p []byte) (int, error) {
	if len(p) > flushAt {
		w.send()
		w.sendLarge(p)
	} else if w.buf = append(w.buf, p...); len(w.buf) > flushAt {
		w.send()
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Flush sends what is buffered.
func (w *chunks) Flush() error {
	w.send()
	w.loan.back()
	return w.err
}

// sendLarge sends p as one chunk, without a copy.
func (w *chunks) sendLarge(p []byte) {
	for _, part := range [][]byte{append(strconv.AppendUint(nil, uint64(len(p)), 16), "\r\n"...), p, []byte("\r\n")} {
		if w.err == nil {
			_, w.err = w.c.Write(part)
		}
	}
}

// send sends what is buffered as one chunk.
func (w *chunks) send() {
	n := len(w.buf) - chunkHead
	if w.err != nil || n == 0 {
		return
	}
	var head [chunkHead]byte
	hex := strconv.AppendUint(head[:0], uint64(n), 16)
	hex = append(hex, '\r', '\n')
	start := chunkHead - len(hex)
	copy(w.buf[start:], hex)
	w.buf = append(w.buf, '\r', '\n')
	_, w.err = w.c.Write(w.buf[start:])
	if cap(w.buf) > 2*flushAt {
		w.buf = getBuffer(smallestBuffer)
	}
	w.buf = w.buf[:chunkHead]
}
