//lint:file-ignore SA1019 x/net's ServeConn is deprecated in favour of net/http serving a
// listener. That costs another buffer and goroutine for each idle connection, and
// net/http does not look for the preface behind TLS without ALPN.

package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/weirhq/weir/appliance/api"
	"golang.org/x/net/http2"
)

// windowBytes is how much of bodies a client may send ahead of our reading, per
// connection and per stream.
const windowBytes = 256 << 10

// readHeaders is how many times the limit of headers x/net reads before it gives up on the
// connection, with all that is under way on it. What is within that is answered.
const readHeaders = 4

// newHTTP2 makes the HTTP/2 server and the base it is configured by, whose
// Shutdown tells clients to open no more streams.
func (s *Server) newHTTP2() (*http.Server, *h2Server) {
	base := &http.Server{
		Handler: http.HandlerFunc(s.exchangeHTTP2), ConnState: noteState,
		MaxHeaderBytes: readHeaders * s.o.MaxHeaderBytes, ErrorLog: log.New(io.Discard, "", 0),
	}
	h2 := &h2Server{
		MaxConcurrentStreams:         uint32(s.o.MaxStreamsPerConn),
		MaxReadFrameSize:             16 << 10, // a connection keeps a buffer of this size
		IdleTimeout:                  s.o.IdleTimeout,
		ReadIdleTimeout:              time.Minute,
		PingTimeout:                  15 * time.Second,
		WriteByteTimeout:             s.o.Grace,
		MaxUploadBufferPerConnection: windowBytes,
		MaxUploadBufferPerStream:     windowBytes,
	}
	if err := http2.ConfigureServer(base, h2); err != nil {
		panic("BUG: " + err.Error()) // only a TLS configuration can be wrong, and there is none
	}
	return base, h2
}

// h2Server serves single connections.
type h2Server = http2.Server

type connKey struct{}

// serveHTTP2 serves HTTP/2 until the connection ends or is quiet.
func (c *conn) serveHTTP2() step {
	_ = c.SetDeadline(time.Time{})
	c.setPhase(phaseBusy)
	if c.h2 == nil {
		c.h2 = newH2Conn(c)
	}
	var nc net.Conn = c.h2
	if c.tls != nil {
		nc = tlsH2Conn{c.h2}
	}
	c.s.h2.ServeConn(nc, &http2.ServeConnOpts{
		Context:    context.WithValue(c.s.ctx, connKey{}, c),
		BaseConfig: c.s.base2,
	})
	if !c.h2.retired {
		return nil
	}
	return (*conn).parkHTTP2
}

// parkHTTP2 waits for the next frame.
func (c *conn) parkHTTP2() step { return c.h2.park() }

// http2x is one exchange over HTTP/2.
type http2x struct {
	w        http.ResponseWriter
	r        *http.Request
	c        *conn
	ctl      *http.ResponseController
	path     string
	query    string
	body     []byte
	out      []byte
	held     int // what of out is reserved
	status   int
	from     time.Time
	read     int64
	identity *api.Identity
	stream   func(context.Context, api.StreamWriter) error
}

type response2 http2x

func (s *Server) exchangeHTTP2(w http.ResponseWriter, r *http.Request) {
	x := &http2x{w: w, r: r, ctl: http.NewResponseController(w), status: 200}
	x.c, _ = r.Context().Value(connKey{}).(*conn)
	x.path, x.query, _ = strings.Cut(r.RequestURI, "?")
	left := restNone
	if headerBytes(r) > s.o.MaxHeaderBytes {
		s.refuse(r.Context(), x, (*response2)(x), s.refuseHeaders())
	} else {
		left = s.handle(r.Context(), x, (*response2)(x))
	}
	if x.stream != nil {
		s.stream2(x)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(x.out)))
	_ = x.ctl.SetWriteDeadline(s.writeUntil(len(x.out)))
	w.WriteHeader(x.status)
	if len(x.out) > 0 && r.Method != http.MethodHead {
		_, _ = w.Write(x.out)
	}
	x.c.lastOut.Store(int32(min(len(x.out), maxGuess)))
	x.release()
	if left == restUnread || left == restUnknown {
		_ = x.ctl.Flush()
		x.linger()
	}
}

// linger takes what the client still sends of a body that is not wanted, as conn.linger
// does: some clients forget the answer when the stream is reset before they have sent all.
// A second without a byte ends it, so that a stop does not wait.
func (x *http2x) linger() {
	s := x.c.s
	sink := getBuffer(lingerBuffer)[:lingerBuffer]
	defer putBuffer(sink)
	from, limit := time.Now(), lingerBodies*int64(s.o.MaxBodyBytes)
	for total := int64(0); total < limit && !s.isDraining(); {
		until := time.Now().Add(time.Second)
		if last := s.extend(from, total); last.Before(until) {
			until = last
		}
		if x.ctl.SetReadDeadline(until) != nil {
			return
		}
		n, err := x.r.Body.Read(sink)
		if total += int64(n); err != nil {
			return
		}
	}
}

// release gives up the answer's buffer.
func (x *http2x) release() {
	x.c.s.putBuffer(x.out)
	x.c.s.giveAnswer(x.c.network, x.held)
	x.out, x.held = nil, 0
}

// headerBytes is how long the request line and the headers would be in HTTP/1.1.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}

// stream2 sends a streamed answer.
func (s *Server) stream2(x *http2x) {
	x.w.WriteHeader(x.status)
	w := &stream2{loan: loan{s: s, to: x.c.network}, x: x}
	defer w.loan.back()
	if len(x.out) > 0 {
		_, _ = w.Write(x.out)
	}
	x.release()
	_ = w.Flush()
	if err := s.runStream(x.r.Context(), x.c.network, x.stream, w); err != nil {
		panic(http.ErrAbortHandler) // resets the stream
	}
}

// view returns s as bytes that must not be written to.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func (x *http2x) Method() string { return x.r.Method }

func (x *http2x) Path() []byte { return view(x.path) }

func (x *http2x) RawQuery() []byte { return view(x.query) }

func (x *http2x) Host() []byte { return view(x.r.Host) }

func (x *http2x) Header(name string) []byte {
	if vs := x.r.Header[name]; len(vs) > 0 {
		return view(vs[0])
	}
	if name == "Content-Length" && x.r.ContentLength >= 0 {
		return strconv.AppendInt(nil, x.r.ContentLength, 10)
	}
	return nil
}

func (x *http2x) VisitHeaders(fn func(name, value []byte)) {
	for k, vs := range x.r.Header {
		for _, v := range vs {
			fn(view(k), view(v))
		}
	}
}

func (x *http2x) Body() []byte { return x.body }

func (x *http2x) RemoteAddr() netip.AddrPort { return x.c.remote }

func (x *http2x) TLS() *tls.ConnectionState { return x.c.connectionState() }

func (x *http2x) Identity() *api.Identity { return x.identity }

func (x *http2x) SetIdentity(id *api.Identity) { x.identity = id }

func (x *http2x) Proto() string { return "HTTP/2.0" }

func (x *http2x) conn() *conn { return x.c }

// length is the body's, or a huge one's where an int has 32 bits: cut off, 4 GiB and a few bytes
// would be taken for a few bytes.
func (x *http2x) length() int { return int(min(x.r.ContentLength, math.MaxInt32)) }

func (x *http2x) beginBody() { x.from = time.Now() }

func (x *http2x) readBody(p []byte) (int, error) {
	if err := x.ctl.SetReadDeadline(x.c.s.extend(x.from, x.read)); err != nil {
		return 0, err
	}
	n, err := x.r.Body.Read(p)
	x.read += int64(n)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errSlow
	case err == io.EOF && n == 0 && x.r.ContentLength > x.read:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (x *http2x) setBody(b []byte) { x.body = b }

func (x *http2x) streamed() func(context.Context, api.StreamWriter) error { return x.stream }

func (x *response2) SetStatus(code int) { x.status = code }

func (x *response2) Status() int { return x.status }

func (x *response2) SetHeader(name, value string) { x.w.Header().Set(name, value) }

func (x *response2) Body() *[]byte {
	if x.out == nil {
		x.out = getBuffer(int(x.c.lastOut.Load()))
	}
	return &x.out
}

func (x *response2) Write(p []byte) (int, error) {
	b := x.Body()
	*b = append(*b, p...)
	return len(p), nil
}

func (x *response2) Reserve(ctx context.Context, least, want int) int {
	x.c.s.reserve(ctx, x.c.network, &x.out, &x.held, least, want)
	return x.held
}

func (x *response2) Stream(fn func(context.Context, api.StreamWriter) error) { x.stream = fn }

// stream2 is the body of a streamed answer.
type stream2 struct {
	loan
	x *http2x
}

// Write buffers p, or sends it when there is much.
func (w *stream2) Write(p []byte) (int, error) {
	if err := w.x.ctl.SetWriteDeadline(w.s.writeUntil(len(p))); err != nil {
		return 0, err
	}
	return w.x.w.Write(p)
}

// Flush sends what is buffered.
func (w *stream2) Flush() error {
	defer w.loan.back()
	if err := w.x.ctl.SetWriteDeadline(w.s.writeUntil(0)); err != nil {
		return err
	}
	return w.x.ctl.Flush()
}
