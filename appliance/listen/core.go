package listen

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"strconv"

	"github.com/weirhq/weir/appliance/api"
)

// Screener is implemented by a Handler that can turn a request away before its
// body is read. It is asked when the body is large or of unknown length; Body is
// empty then.
type Screener interface {
	Screen(req api.Request) *api.Refusal
}

// screenAbove is the body size from which on a request is screened first.
const screenAbove = 64 << 10

// firstRead is what a body of unknown length is given at first.
const firstRead = 64 << 10

// exchange is one request as both protocols present it to the core.
type exchange interface {
	api.Request
	// conn is what it came over.
	conn() *conn
	// length is the body's length, -1 if unknown.
	length() int
	// beginBody starts the body's time limit; readBody reads under it.
	beginBody()
	readBody(p []byte) (int, error)
	// setBody makes Body return b.
	setBody(b []byte)
	// streamed returns what writes the answer if that is to be a stream, else nil.
	streamed() func(context.Context, api.StreamWriter) error
}

// The answers to requests that are over a limit.
var (
	refuseBusy           = &api.Refusal{Status: 503, Code: "ServiceUnavailable", Message: "Too many requests are in flight. Try again."}
	refuseAddress        = &api.Refusal{Status: 503, Code: "ServiceUnavailable", Message: "Too many requests from this address are in flight. Try again."}
	refuseMemory         = &api.Refusal{Status: 503, Code: "ServiceUnavailable", Message: "Too many bytes are in flight. Try again."}
	refuseStreams        = &api.Refusal{Status: 503, Code: "ServiceUnavailable", Message: "Too many streamed answers are in flight. Try again."}
	refuseAddressStreams = &api.Refusal{Status: 503, Code: "ServiceUnavailable", Message: "Too many streamed answers to this address are in flight. Try again."}
	refuseSize           = &api.Refusal{Status: 413, Code: "RequestEntityTooLargeException", Message: "The request body is larger than this server takes."}
	refuseSlow           = &api.Refusal{Status: 408, Code: "RequestTimeout", Message: "The request body came too slowly."}
	refuseVersion        = &api.Refusal{Status: 505, Code: "HTTPVersionNotSupported", Message: "A streamed answer needs HTTP/1.1 or HTTP/2."}
	refuseCut            = &api.Refusal{Status: 400, Code: "IncompleteBody", Message: "The request body ended before its length."}
)

// rest is what handle has left of a request's body.
type rest uint8

const (
	restNone    rest = iota // all of it was read
	restUnread              // some may be there; its end can be found
	restUnknown             // some may be there, and nobody knows how much
	restBroken              // it does not come, or not in time
)

// handle serves one exchange.
func (s *Server) handle(ctx context.Context, x exchange, res api.Response) rest {
	s.stats.requests.Add(1)
	from := x.conn().network
	if why := s.enter(from); why != nil {
		s.refuse(ctx, x, res, why)
		return restOf(x, why)
	}
	defer s.leave(from)
	body, held, why := s.takeBody(ctx, x)
	defer func() {
		x.setBody(nil)
		if body != nil {
			s.putBuffer(body)
		}
		s.giveBodies(from, &held)
	}()
	if why != nil {
		s.refuse(ctx, x, res, why)
		return restOf(x, why)
	}
	x.setBody(body)
	s.call(ctx, x, res)
	if x.streamed() != nil {
		s.admitStream(ctx, x, res)
	}
	return restNone
}

// enter counts a request in, or tells why there is no room.
func (s *Server) enter(from *network) *api.Refusal {
	all, theirs := s.inFlight.Add(1), from.requests.Add(1)
	switch {
	case all > int64(s.o.MaxRequests):
		s.leave(from)
		return refuseBusy
	case theirs > s.sharesOf(from.prefix).requests:
		s.leave(from)
		return refuseAddress
	}
	return nil
}

func (s *Server) leave(from *network) {
	s.inFlight.Add(-1)
	from.requests.Add(-1)
}

// restOf tells what a refused request has left. Of a body without a length nobody
// knows how much is still to come.
func restOf(x exchange, why *api.Refusal) rest {
	switch {
	case why == refuseSlow || why == refuseCut:
		return restBroken
	case x.length() < 0:
		return restUnknown
	case x.length() > 0:
		return restUnread
	}
	return restNone
}

// admitStream lets a streamed answer begin, or refuses it. What begins has to end
// with endStream.
func (s *Server) admitStream(ctx context.Context, x exchange, res api.Response) {
	why := refuseVersion
	if x.Proto() != "HTTP/1.0" {
		if why = s.beginStream(x.conn().network); why == nil {
			return
		}
	}
	s.giveUp(x, res)
	*res.Body() = (*res.Body())[:0]
	s.refuse(ctx, x, res, why)
}

// giveUp has the answer be no stream after all.
func (s *Server) giveUp(x exchange, res api.Response) {
	fn := x.streamed()
	res.Stream(nil)
	s.endUnsent(fn)
}

// endUnsent calls the function of a stream that is not sent, which may have something to
// give back.
func (s *Server) endUnsent(fn func(context.Context, api.StreamWriter) error) {
	if fn == nil {
		return
	}
	ended, end := context.WithCancel(s.ctx)
	end()
	_ = s.callStream(ended, fn, unsent{}) // that it can't write is all that it could say
}

// unsent is the body of a streamed answer that is not sent.
type unsent struct{}

var errUnsent = errors.New("the streamed answer is not sent")

func (unsent) Write([]byte) (int, error)             { return 0, errUnsent }
func (unsent) Flush() error                          { return errUnsent }
func (unsent) Lend(context.Context, int, int) []byte { return nil }

// beginStream counts a streamed answer in, or tells why there is no room.
func (s *Server) beginStream(to *network) *api.Refusal {
	all, theirs := s.streams.Add(1), to.streams.Add(1)
	switch {
	case all > int64(s.o.MaxStreams):
		s.endStream(to)
		return refuseStreams
	case theirs > s.sharesOf(to.prefix).streams:
		s.endStream(to)
		return refuseAddressStreams
	}
	return nil
}

func (s *Server) endStream(to *network) {
	s.streams.Add(-1)
	to.streams.Add(-1)
}

// call runs the handler; a panic is answered, logged and counted, because one
// request that meets a bug must not end everybody else's.
func (s *Server) call(ctx context.Context, x exchange, res api.Response) {
	defer func() {
		if v := recover(); v != nil {
			s.stats.panics.Add(1)
			s.o.Logger.Error("request handler panicked", "path", string(x.Path()), "target", string(x.Header("X-Amz-Target")),
				"panic", v, "stack", string(debug.Stack()))
			s.giveUp(x, res)
			s.refuse(ctx, x, res, &api.Refusal{Status: 500, Code: "InternalFailure", Message: "Internal Service Failure"})
		}
	}()
	s.o.Handler.Serve(ctx, x, res)
}

// refuse answers in the words of the protocol the request is for.
func (s *Server) refuse(ctx context.Context, x exchange, res api.Response, why *api.Refusal) {
	s.stats.refused.Add(1)
	if why.Status == 503 {
		res.SetHeader("Retry-After", "1")
	}
	if r, ok := s.o.Handler.(api.Refuser); ok {
		r.Refuse(ctx, x, res, why)
		return
	}
	api.WriteError(res, why)
}

// refuseHeaders is for a request whose headers are over the limit.
func (s *Server) refuseHeaders() *api.Refusal {
	return &api.Refusal{
		Status: 431, Code: "RequestHeaderFieldsTooLarge",
		Message: "Request line and headers are larger than " + strconv.Itoa(s.o.MaxHeaderBytes) + " bytes.",
	}
}

// takeBody reads the body under its limits. held is what was taken from the body
// memory, to be given back when the exchange is over.
func (s *Server) takeBody(ctx context.Context, x exchange) (body []byte, held holding, why *api.Refusal) {
	n, from := x.length(), x.conn().network
	if n == 0 {
		return nil, held, nil
	}
	if n > s.o.MaxBodyBytes {
		return nil, held, refuseSize
	}
	if screener, ok := s.o.Handler.(Screener); ok && (n < 0 || n > screenAbove) {
		if why := screener.Screen(x); why != nil {
			return nil, held, why
		}
	}
	if n > 0 {
		if !s.takeBodies(ctx, from, &held, n) {
			return nil, held, refuseMemory
		}
		body = getBuffer(n)[:n]
		x.beginBody()
		if err := readFull(x, body); err != nil {
			return body, held, refusalOf(err)
		}
		return body, held, nil
	}
	body = getBuffer(firstRead)
	x.beginBody()
	for {
		if len(body) == held.all.n && !s.takeBodies(ctx, from, &held, min(max(firstRead, held.all.n), s.o.MaxBodyBytes+1-held.all.n)) {
			return body, held, refuseMemory
		}
		if held.all.n > cap(body) {
			grown := append(getBuffer(held.all.n), body...)
			s.putBuffer(body)
			body = grown
		}
		n, err := x.readBody(body[len(body):held.all.n])
		body = body[:len(body)+n]
		switch {
		case len(body) > s.o.MaxBodyBytes:
			return body, held, refuseSize
		case err == io.EOF:
			return body, held, nil
		case err != nil:
			return body, held, refusalOf(err)
		}
	}
}

func readFull(x exchange, p []byte) error {
	for len(p) > 0 {
		n, err := x.readBody(p)
		p = p[n:]
		if err != nil && len(p) > 0 {
			return err
		}
	}
	return nil
}

func refusalOf(err error) *api.Refusal {
	if errors.Is(err, errSlow) {
		return refuseSlow
	}
	return refuseCut
}

// runStream has fn write a streamed answer that was counted in.
func (s *Server) runStream(ctx context.Context, to *network, fn func(context.Context, api.StreamWriter) error, w api.StreamWriter) error {
	defer s.endStream(to)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.callStream(ctx, fn, w); err != nil {
		return err
	}
	return w.Flush()
}

// callStream calls the function of a streamed answer; a panic is an error, logged and counted.
func (s *Server) callStream(ctx context.Context, fn func(context.Context, api.StreamWriter) error, w api.StreamWriter) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.stats.panics.Add(1)
			s.o.Logger.Error("streamed answer panicked", "panic", v, "stack", string(debug.Stack()))
			err = errors.New("the streamed answer panicked")
		}
	}()
	return fn(ctx, w)
}
