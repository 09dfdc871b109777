package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/weirhq/weir/appliance/api"
	"golang.org/x/net/http2"
)

// Server serves the one port. Make it with New, run it with Serve, end it with
// Shutdown.
type Server struct {
	o     Options
	tls   atomic.Pointer[tls.Config] // nil if TLS is refused
	h1    *fasthttp.Server
	h2    *h2Server
	base2 *http.Server

	ctx      context.Context // of every request; ends when the server stops at once
	stopNow  context.CancelFunc
	draining chan struct{}

	bodies   *lanes
	answers  *allowance
	inFlight atomic.Int64
	streams  atomic.Int64
	away     away
	stats    counters
	tidy     tidier

	mu struct {
		sync.Mutex
		drained   bool
		listeners map[*net.Listener]struct{}
		conns     map[*conn]struct{}
		byAddr    map[netip.Prefix]*network
	}
	wg sync.WaitGroup // connections
}

type counters struct {
	accepted, handshakes, requests, refused, panics atomic.Int64
}

// Stats is what a Server has seen and holds.
type Stats struct {
	Conns         int   // open connections
	Parked        int   // of these, connections that have been idle and hold no buffers
	Requests      int64 // in flight
	Streams       int64 // streamed answers in flight
	BodyBytes     int64 // bytes of request bodies in flight
	AnswerBytes   int64 // bytes of answers with records in flight
	Accepted      int64 // connections since the start
	TurnedAway    TurnedAway
	BadHandshakes int64 // TLS handshakes that failed
	TotalRequests int64 // requests since the start
	Refused       int64 // requests over a limit or unreadable
	Panics        int64 // requests that ended in a panic
}

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("listen: server closed")

// New returns a Server that listens to nothing yet.
func New(o Options) *Server {
	if o.Handler == nil {
		panic("BUG: a server needs a handler")
	}
	s := &Server{o: o.withDefaults(), draining: make(chan struct{})}
	s.ctx, s.stopNow = context.WithCancel(api.WithDraining(context.Background(), s.draining))
	s.bodies = newLanes(s.o.MaxBodyMemory, s.o.MaxBodyBytes+1, s.o.QueueTimeout)
	s.answers = newAllowance(s.o.MaxAnswerMemory, s.o.QueueTimeout)
	s.answers.reserve = s.o.MaxAnswerMemory / 8
	s.mu.listeners = map[*net.Listener]struct{}{}
	s.mu.conns = map[*conn]struct{}{}
	s.mu.byAddr = map[netip.Prefix]*network{}
	s.h1 = s.newHTTP1()
	s.base2, s.h2 = s.newHTTP2()
	if o.Certificate != nil {
		s.tls.Store(s.tlsConfig(o.ClientCAs))
	}
	return s
}

// SetClientCAs replaces Options.ClientCAs for the connections that are opened from
// here on; nil asks clients for no certificate. A connection that is open keeps the
// certificate it was let in with, and no session is resumed that began before.
func (s *Server) SetClientCAs(pool *x509.CertPool) {
	if s.tls.Load() != nil {
		s.tls.Store(s.tlsConfig(pool))
	}
}

func (s *Server) tlsConfig(clientCAs *x509.CertPool) *tls.Config {
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.o.Certificate() },
	}
	if clientCAs != nil {
		c.ClientCAs, c.ClientAuth = clientCAs, tls.VerifyClientCertIfGiven
	}
	return c
}

// Stats returns the present figures.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	conns, parked := len(s.mu.conns), 0
	for c := range s.mu.conns {
		if c.isWaiting.Load() {
			parked++
		}
	}
	s.mu.Unlock()
	return Stats{
		Conns: conns, Parked: parked, Requests: s.inFlight.Load(), Streams: s.streams.Load(), BodyBytes: s.bodies.all.used.Load(), AnswerBytes: s.answers.used.Load(),
		Accepted: s.stats.accepted.Load(), TurnedAway: s.away.stats(), BadHandshakes: s.stats.handshakes.Load(),
		TotalRequests: s.stats.requests.Load(), Refused: s.stats.refused.Load(), Panics: s.stats.panics.Load(),
	}
}

// Serve accepts connections from ln, which it closes in the end, until Shutdown
// (then it returns ErrClosed) or until ln fails for good. It may be called for
// several listeners.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.mu.drained {
		s.mu.Unlock()
		_ = ln.Close()
		return ErrClosed
	}
	s.mu.listeners[&ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.listeners, &ln)
		s.mu.Unlock()
		_ = ln.Close()
	}()
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.accept(nc)
		case s.isDraining():
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of file descriptors, mostly: it passes
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.o.Logger.Warn("accept", "error", err, "retry in", pause)
			select {
			case <-time.After(pause):
			case <-s.draining:
			}
		}
	}
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// accept takes the connection into account and starts serving it.
func (s *Server) accept(nc net.Conn) {
	s.stats.accepted.Add(1)
	c := &conn{s: s}
	c.Conn = nc
	c.setPhase(phaseIdle)
	if addr, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := addr.AddrPort()
		c.remote = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	prefix := networkOf(c.remote.Addr())
	why := noReason
	s.mu.Lock()
	switch {
	case s.mu.drained:
		s.mu.Unlock()
		_ = nc.Close()
		return
	case len(s.mu.conns) >= s.o.MaxConns:
		why = full
	case s.mu.byAddr[prefix].connections() >= s.sharesOf(prefix).conns:
		why = fullAddress
		if c.remote.Addr().IsLoopback() {
			why = fullLocal
		}
	default:
		s.mu.conns[c] = struct{}{}
		if c.network = s.mu.byAddr[prefix]; c.network == nil {
			c.network = s.newNetwork(prefix)
			s.mu.byAddr[prefix] = c.network
		}
		c.network.conns++
	}
	s.wg.Add(1)
	s.mu.Unlock()
	if why != noReason {
		s.turnAway(c, why)
		return
	}
	go c.run((*conn).begin)
}

func (s *Server) forget(c *conn) {
	_ = c.shut()
	c.releaseOut()
	s.mu.Lock()
	delete(s.mu.conns, c)
	if n := c.network; n != nil {
		if n.conns--; n.conns <= 0 {
			delete(s.mu.byAddr, n.prefix)
		}
	}
	s.mu.Unlock()
}

// step is a part of a connection's life. It returns the next one, nil at the end.
type step func(c *conn) step

// run takes the connection through its life, each step in a goroutine of its own:
// a stack that a handshake or a request has made large is given up when the
// connection starts to wait, which it mostly does.
func (c *conn) run(do step) {
	if next := do(c); next != nil {
		go c.run(next)
		return
	}
	c.s.forget(c)
	c.s.wg.Done()
}

// begin finds out whether the client speaks TLS.
func (c *conn) begin() step {
	s := c.s
	_ = c.SetDeadline(time.Now().Add(s.o.HandshakeTimeout))
	first, err := c.firstByte()
	switch {
	case err != nil:
		return nil
	case first == recordHandshake && s.tls.Load() != nil:
		if !s.handshake(c) {
			s.stats.handshakes.Add(1)
			return nil
		}
		return (*conn).choose
	case !s.mayCleartext(c.remote.Addr()):
		s.noteTurnedAway(noTLS, c.RemoteAddr())
		_ = c.SetDeadline(time.Now().Add(awayTime))
		finish(c.Conn, needsTLS)
		return nil
	}
	return c.choose()
}

// choose finds out which HTTP the client speaks.
func (c *conn) choose() step {
	h2 := c.tls != nil && c.tls.ConnectionState().NegotiatedProtocol == http2.NextProtoTLS
	if !h2 {
		var err error
		if h2, err = c.hasPreface(); err != nil {
			return nil
		}
	}
	if h2 {
		return (*conn).serveHTTP2
	}
	return c.serve()
}

func (s *Server) mayCleartext(a netip.Addr) bool {
	return s.o.Cleartext == AnyPeer || s.o.Cleartext == LoopbackPeer && a.IsLoopback()
}

// handshake puts TLS on the connection.
func (s *Server) handshake(c *conn) bool {
	under := &sniffed{Conn: c.Conn, ahead: c.ahead, n: c.n}
	c.tls = tls.Server(under, s.tls.Load())
	if c.tls.HandshakeContext(s.ctx) != nil {
		return false
	}
	c.off, c.n = 0, 0
	s.mu.Lock() // Shutdown may be about to close it
	c.Conn = c.tls
	s.mu.Unlock()
	return true
}

// serve lends the connection to fasthttp while requests come.
func (c *conn) serve() step {
	c.setPhase(phaseIdle)
	if c.s.isDraining() && c.n == 0 {
		return nil
	}
	err := c.s.h1.ServeConn(c)
	c.releaseOut()
	if err != nil || !c.parked {
		return nil
	}
	return (*conn).park
}

// park waits, without buffers, for the next request.
func (c *conn) park() step {
	if !c.wait() {
		return nil
	}
	return c.serve()
}

// Shutdown stops in good order: no new connections, idle ones closed, streams told
// to end (api.Draining), requests in flight finished. What is left when ctx or the
// drain time ends is cut off, and ctx's error or DeadlineExceeded returned.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.DrainTimeout)
	defer cancel()
	s.mu.Lock()
	if !s.mu.drained {
		s.mu.drained = true
		close(s.draining)
	}
	for ln := range s.mu.listeners {
		_ = (*ln).Close()
	}
	for c := range s.mu.conns {
		c.shutIdle()
	}
	s.mu.Unlock()
	_ = s.base2.Shutdown(ctx) // has no connections of its own: sends GOAWAY on all of HTTP/2

	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.stopNow()
	s.tidy.close()
	s.mu.Lock()
	for c := range s.mu.conns {
		_ = c.shut()
	}
	s.mu.Unlock()
	<-done
	return err
}
