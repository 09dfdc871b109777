// Package api is the exchange between the listener and the protocol handlers:
// one request in, one answer out, the same over HTTP/1.1 and HTTP/2.
//
// It owns the shapes of that exchange (Request, Response, Handler), who is
// asking (Identity, Policy) and the table that says which handler serves what
// (Routes). It never reads a socket, never parses a body and knows no protocol:
// appliance/listen implements Request and Response, the packages below this one
// implement Handler.
//
// # Ownership
//
// Every byte slice a Request gives out belongs to the listener, must not be
// modified and is valid until Serve returns. What outlives Serve (a goroutine, the
// function given to Response.Stream) copies first.
package api

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
)

// Request is the input of one exchange. Its methods may be called from one
// goroutine at a time and only until Serve returns; none of them allocates.
type Request interface {
	// Method is the request's method, in upper case.
	Method() string
	// Path is the path as sent, still percent-encoded, without the query.
	Path() []byte
	// RawQuery is what stood behind the first '?', as sent; empty if none.
	RawQuery() []byte
	// Host is the Host header, or :authority in HTTP/2, with the port as sent.
	Host() []byte
	// Header returns the first value of a header, nil if it is absent. name is in
	// canonical form ("Content-Type", "X-Amz-Target").
	Header(name string) []byte
	// VisitHeaders calls fn for each header line in no stated order. Names come in
	// canonical or in lower case; Host is among them only over HTTP/1.1.
	VisitHeaders(fn func(name, value []byte))
	// Body is the whole body, never above the listener's body limit.
	Body() []byte
	// RemoteAddr is the peer's address.
	RemoteAddr() netip.AddrPort
	// TLS is the connection's state, nil in cleartext.
	TLS() *tls.ConnectionState
	// Proto is "HTTP/1.0", "HTTP/1.1" or "HTTP/2.0".
	Proto() string
	// Identity is who asks. It is nil only on routes marked Public, and in Refuse.
	Identity() *Identity
	// SetIdentity records who asks. Only the listener's gate calls it.
	SetIdentity(*Identity)
}

// Response collects the answer. Without Stream the answer is sent, with its
// Content-Length, when Serve returns; the status is 200 unless set.
type Response interface {
	// SetStatus sets the HTTP status code.
	SetStatus(code int)
	// Status returns the status code that is set, 200 if none was.
	Status() int
	// SetHeader sets a header, replacing earlier values; name is in canonical form.
	// Content-Length, Connection, Transfer-Encoding and Date are the listener's.
	SetHeader(name, value string)
	// Write appends to the body; it never fails.
	Write(p []byte) (int, error)
	// Body is the buffer of the answer: append to *Body() to answer without a copy.
	// The buffer comes from a pool and goes back after it was sent.
	Body() *[]byte
	// Reserve takes memory for a body that may be large: want bytes, or fewer, down to
	// least, when there is not plenty. It waits its turn and returns how long the body
	// may become, 0 if there was no room in time: the answer is then to say so. What was
	// reserved before is given back first, and what is reserved once the answer was sent.
	Reserve(ctx context.Context, least, want int) int
	// Stream makes the answer a stream: the header is sent when Serve returns, then
	// fn runs and what it writes is sent as the body. Anything already in Body is
	// sent first. fn must not touch the Request. ctx ends when the client is gone,
	// as far as that can be seen, and when the listener's drain time is over;
	// Draining tells a long stream to end by itself before that. A nil result ends
	// the body cleanly, an error aborts it so that the client sees a broken answer.
	// fn is called in any case, so that it can give back what was taken for it: when the
	// answer can't be streamed after all, with a ctx that has ended and a w that fails.
	Stream(fn func(ctx context.Context, w StreamWriter) error)
}

// StreamWriter is the body of a streamed answer. Writes are buffered; Flush sends
// what is buffered to the client at once. Both fail when the client is gone or
// took longer than the listener's write time limit. One goroutine at a time.
type StreamWriter interface {
	io.Writer
	Flush() error
	// Lend lends an empty buffer to build what is written next: its capacity is want
	// bytes, or fewer, down to least, when there is not plenty. It waits its turn and
	// returns nil if there was no room in time, or ctx ended. The buffer goes back with
	// the next Flush, or Lend, and must not be used after that.
	Lend(ctx context.Context, least, want int) []byte
}

// Handler serves exchanges of one protocol. Serve is called from many goroutines.
// ctx ends when the listener is told to stop at once or the client went away.
type Handler interface {
	Serve(ctx context.Context, req Request, res Response)
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, req Request, res Response)

// Serve calls f.
func (f HandlerFunc) Serve(ctx context.Context, req Request, res Response) { f(ctx, req, res) }

// Refuser is implemented by a Handler whose protocol has its own way to say that
// a request was not let in. Without it the gate answers in plain JSON.
type Refuser interface {
	// Refuse answers a request that has no identity. It must not act on it.
	Refuse(ctx context.Context, req Request, res Response, why *Refusal)
}

// Refusal says why a request was not let in, before its handler saw it.
type Refusal struct {
	// Status is the HTTP status of a plain answer: 401, 403, 413, 429, 503.
	Status int
	// Code is a short name in the words of the AWS services
	// ("MissingAuthenticationTokenException").
	Code string
	// Message is for the person who reads the answer.
	Message string
}

// Error returns code and message.
func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

type drainKey struct{}

// WithDraining returns a context from which Draining gets ch.
func WithDraining(ctx context.Context, ch <-chan struct{}) context.Context {
	return context.WithValue(ctx, drainKey{}, ch)
}

// Draining returns a channel that is closed when the listener has begun to stop:
// a long stream then ends cleanly so that its client goes elsewhere or comes
// back later. It is nil, which blocks for ever, when ctx has none.
func Draining(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return ch
}
