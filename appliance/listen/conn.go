package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// phase is where an HTTP/1.1 connection is between two requests. Only the
// connection's goroutine moves it, but for the last step.
type phase int32

const (
	phaseBusy   phase = iota // a request is served; its answer is written
	phaseIdle                // waiting for the first byte of a request
	phaseHeader              // reading a request's headers
	phaseBody                // reading a request's body
	phaseGone                // closed by drain while idle
)

// conn is a connection above TLS, with the deadlines that keep a slow client from
// holding it for ever. fasthttp reads and writes through it. It is also what
// makes an idle connection cheap: after parkAfter without a byte, Read tells
// fasthttp that the connection is over, so that it gives back its buffers, and
// Server waits for the next byte itself.
type conn struct {
	sniffed
	s       *Server
	remote  netip.AddrPort
	network *network  // what its address is counted as; nil if it was turned away
	tls     *tls.Conn // nil in cleartext
	h2      *h2Conn   // nil if it does not speak HTTP/2

	phase      atomic.Int32
	parked     bool // Read has given up waiting, and the connection is open
	lingers    bool // the client may still be sending what was refused
	patient    bool // and has the time for it that it would have had were it wanted
	isWaiting  atomic.Bool
	until      time.Time // end of the header or of the whole body
	bodyFrom   time.Time
	bodyBytes  int64
	out        []byte       // the answer's buffer, until it is written
	held       int          // what of it is reserved
	lastOut    atomic.Int32 // length of the last answer, which the next may well have, too
	stateOnce  sync.Once
	stateOfTLS *tls.ConnectionState
	closed     atomic.Bool
}

// parkAfter is how long an idle connection keeps its buffers.
const parkAfter = 50 * time.Millisecond

// maxGuess bounds the buffer that an answer is given at first.
const maxGuess = 1 << 20

// errSlow is what a read fails with when the client is below its rate.
var errSlow = errors.New("client is too slow")

func (c *conn) setPhase(p phase) { c.phase.Store(int32(p)) }

func (c *conn) getPhase() phase { return phase(c.phase.Load()) }

// connectionState returns the state of TLS, nil in cleartext.
func (c *conn) connectionState() *tls.ConnectionState {
	if c.tls != nil {
		c.stateOnce.Do(func() {
			st := c.tls.ConnectionState()
			c.stateOfTLS = &st
		})
	}
	return c.stateOfTLS
}

// Read is called by fasthttp.
func (c *conn) Read(p []byte) (int, error) {
	switch c.getPhase() {
	case phaseIdle:
		return c.readIdle(p)
	case phaseBody:
		return c.readBody(p)
	case phaseGone:
		return 0, io.EOF
	}
	n, err := c.sniffed.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}

// readIdle waits for a request's first bytes.
func (c *conn) readIdle(p []byte) (int, error) {
	if c.off == c.n {
		if err := c.SetReadDeadline(time.Now().Add(parkAfter)); err != nil {
			return 0, io.EOF
		}
	}
	n, err := c.sniffed.Read(p)
	if n == 0 {
		c.parked = errors.Is(err, os.ErrDeadlineExceeded)
		return 0, io.EOF
	}
	if !c.beginRequest() {
		return 0, io.EOF
	}
	return n, nil
}

// beginRequest starts the time for a request's headers. It fails when drain has
// closed the connection before the request began.
func (c *conn) beginRequest() bool {
	if !c.phase.CompareAndSwap(int32(phaseIdle), int32(phaseHeader)) {
		return false
	}
	c.until = time.Now().Add(c.s.o.HeaderTimeout)
	return c.SetReadDeadline(c.until) == nil
}

// wait parks the connection until the next request begins.
func (c *conn) wait() bool {
	c.parked = false
	c.off, c.n = 0, 0
	c.s.tidy.parked()
	c.isWaiting.Store(true)
	defer c.isWaiting.Store(false)
	if c.SetReadDeadline(time.Now().Add(c.s.o.IdleTimeout)) != nil {
		return false
	}
	return c.readAhead() == nil
}

// watch returns a context that ends when the client goes away while an answer is
// streamed to it: until unwatch is called, it reads what the client sends, which is
// nothing, or the beginning of the next request, which is kept.
func (c *conn) watch(parent context.Context) (ctx context.Context, unwatch func()) {
	if c.off < c.n { // the next request is here already
		return parent, func() {}
	}
	ctx, cancel := context.WithCancel(parent)
	c.off, c.n = 0, 0
	_ = c.SetReadDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.readAhead(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	}()
	return ctx, func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-done
		cancel()
	}
}

// beginBody starts the time for a body.
func (c *conn) beginBody() {
	c.setPhase(phaseBody)
	c.bodyFrom = time.Now()
	c.until = c.bodyFrom.Add(c.s.o.BodyTimeout)
	c.bodyBytes = 0
}

// extend returns until when the next byte of a body has to come.
func (s *Server) extend(from time.Time, bytes int64) time.Time {
	until := from.Add(s.o.Grace + time.Duration(bytes)*time.Second/time.Duration(s.o.MinRate))
	if whole := from.Add(s.o.BodyTimeout); until.After(whole) {
		return whole
	}
	return until
}

func (c *conn) readBody(p []byte) (int, error) {
	if err := c.SetReadDeadline(c.s.extend(c.bodyFrom, c.bodyBytes)); err != nil {
		return 0, err
	}
	n, err := c.sniffed.Read(p)
	c.bodyBytes += int64(n)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}

// Write gives the client Grace and what MinRate takes for p.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(c.s.writeUntil(len(p))); err != nil {
		return 0, err
	}
	return c.sniffed.Write(p)
}

func (s *Server) writeUntil(n int) time.Time {
	return time.Now().Add(s.o.Grace + time.Duration(n)*time.Second/time.Duration(s.o.MinRate))
}

// Close is for fasthttp, which closes what it is done with: a parked connection
// stays open.
func (c *conn) Close() error {
	if c.parked {
		return nil
	}
	if c.lingers && !c.closed.Load() {
		c.linger()
	}
	return c.shut()
}

// lingerBodies is how many of the largest bodies are taken of a client that sends more
// than it may, so that it sees why it was refused even if it reads only after it has
// sent all.
const lingerBodies = 4

// linger ends our side and takes what the client still sends, a body for as long as one
// that is wanted, anything else for a moment: closing with input unread would reset the
// connection, and the client might never see why it was refused.
func (c *conn) linger() {
	under := c.Conn
	if c.tls != nil {
		_ = c.tls.SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.tls.CloseWrite()
		under = c.tls.NetConn().(*sniffed).Conn
	}
	_ = under.SetDeadline(time.Now().Add(time.Second))
	if !c.patient {
		finish(under, "")
		return
	}
	if half, ok := under.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	c.setPhase(phaseIdle) // a stop does not wait for it
	sink := getBuffer(lingerBuffer)[:lingerBuffer]
	defer putBuffer(sink)
	from, limit := time.Now(), lingerBodies*int64(c.s.o.MaxBodyBytes)
	for total := int64(0); total < limit && !c.s.isDraining(); {
		if under.SetReadDeadline(c.s.extend(from, total)) != nil {
			return
		}
		n, err := under.Read(sink)
		if total += int64(n); err != nil {
			return
		}
	}
}

// lingerBuffer is how much of that is read at a time.
const lingerBuffer = 16 << 10

// shut closes the connection, once.
func (c *conn) shut() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.Conn.Close()
}

// shutIdle closes the connection if no request is under way. Over HTTP/2 it wakes
// the goroutine that waits, which says goodbye first.
func (c *conn) shutIdle() {
	switch {
	case !c.phase.CompareAndSwap(int32(phaseIdle), int32(phaseGone)):
	case c.h2 != nil:
		_ = c.SetReadDeadline(time.Unix(1, 0))
	default:
		_ = c.shut()
	}
}
