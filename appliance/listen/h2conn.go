package listen

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// What every HTTP/2 connection begins with (RFC 9113, 6.9.2 and 4.1).
const (
	initialWindow = 65535
	frameHead     = 9
)

// h2Conn is an HTTP/2 connection as x/net's server sees it, and remembers what a
// later server needs to go on where this one ends: the client's settings, what
// each side may still send on the connection, and the highest stream. Thus a
// connection that is quiet costs no server:
//
//	server ── quiet ──► SETTINGS: header table 0 ── acknowledged ──► server ends
//	                                                                      │
//	   a new server, told what the old one knew ◄── the next byte ◄── the connection is parked
//
// The client's header table is the one part of the state that can't be handed on,
// so it is emptied first, and stays empty. Our own needs nothing: entries are
// counted from the newest, and the client drops the oldest first.
type h2Conn struct {
	c *conn

	// Of the goroutine that reads.
	ready []byte // comes before what the connection says
	rest  int    // bytes left of the frame that is being read
	small [frameHead + 10*6]byte
	acked uint32 // of our SETTINGS, by the client

	writing sync.Mutex // held while bytes go out
	skip    int        // bytes that Write has seen in a call that wrote only a part
	out     frames
	held    []byte // what a new server has said, up to the end of a frame
	prelude int    // frames still to come of those that it says first
	grow    uint32 // by how much its first WINDOW_UPDATE enlarges the client's window
	retired bool   // the server has ended, the connection has not

	more chan struct{} // the client lets us send more

	mu        sync.Mutex // guards what follows, and the deadline to read
	idle      bool       // no stream is open
	idleSince time.Time
	settings  [8]http2.Setting // the client's
	known     int              // how many of them are there
	send      int64            // bytes of DATA that the client lets us send
	recv      int64            // bytes of DATA that we let the client send
	debt      int64            // by how much the server believes send to be larger
	last      uint32           // the client's highest stream
	before    uint32           // last, when this server began
	begun     uint32           // streams the client has begun
	ended     uint32           // streams we have ended
	sent      uint32           // our SETTINGS
	asked     uint32           // which of them empties the header table; 0 before
	emptied   bool             // the client has acknowledged it
	odd       bool             // something has happened that is not kept track of
}

func newH2Conn(c *conn) *h2Conn {
	return &h2Conn{c: c, rest: len(preface), send: initialWindow, recv: initialWindow, idleSince: time.Now()}
}

// resume prepares the connection for a new server, which is told what the client has
// said, and whose first words the client does not need to hear again.
func (n *h2Conn) resume() {
	n.retired, n.prelude, n.held, n.skip = false, preludeFrames, nil, 0
	n.grow = uint32(max(0, windowBytes-n.recv)) // of now: what comes from here on, the server sees
	n.before, n.idle = n.last, false
	n.ready = append(n.ready[:0], preface...)
	n.ready = appendHead(n.ready, n.known*6, http2.FrameSettings, 0)
	for _, s := range n.settings[:n.known] {
		n.ready = appendSetting(n.ready, s)
	}
	switch grow := n.send - initialWindow; {
	case grow > 0:
		n.ready = appendWindowUpdate(n.ready, uint32(grow))
	case grow < 0:
		n.debt = -grow
		n.more = make(chan struct{}, 1)
	}
}

func appendHead(b []byte, length int, kind http2.FrameType, flags http2.Flags) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return append(b, 0, 0, 0, 0)
}

func appendSetting(b []byte, s http2.Setting) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(s.ID)), s.Val)
}

func appendWindowUpdate(b []byte, grow uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, http2.FrameWindowUpdate, 0), grow)
}

// frame is the head of one.
type frame struct {
	length int
	kind   http2.FrameType
	flags  http2.Flags
	stream uint32
}

func headOf(b []byte) frame {
	return frame{
		int(b[0])<<16 | int(b[1])<<8 | int(b[2]), http2.FrameType(b[3]), http2.Flags(b[4]),
		binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
}

// frames finds the heads of frames in bytes as they pass by.
type frames struct {
	head [frameHead + 4]byte
	n    int // bytes of head that are there
	rest int // bytes until the next head
}

// between tells whether the last frame is complete.
func (s *frames) between() bool { return s.n == 0 && s.rest == 0 }

// scan calls fn with each head, and with the increment of a WINDOW_UPDATE.
func (s *frames) scan(p []byte, fn func(f frame, grow uint32)) {
	for len(p) > 0 {
		if s.rest > 0 {
			k := min(s.rest, len(p))
			s.rest, p = s.rest-k, p[k:]
			continue
		}
		want := frameHead
		if s.n >= frameHead {
			want += 4
		}
		k := copy(s.head[s.n:want], p)
		if s.n, p = s.n+k, p[k:]; s.n < want {
			return
		}
		f, grow := headOf(s.head[:]), uint32(0)
		if s.rest = f.length; f.kind == http2.FrameWindowUpdate && f.length == 4 {
			if s.rest = 0; want == frameHead {
				continue
			}
			grow = binary.BigEndian.Uint32(s.head[frameHead:])
		}
		s.n = 0
		fn(f, grow)
	}
}

// Read gives the server whole frames' bytes, without those that are only for
// remembering, and io.EOF once it is not needed any more.
func (n *h2Conn) Read(p []byte) (int, error) {
	for {
		switch {
		case len(n.ready) > 0:
			k := copy(p, n.ready)
			n.ready = n.ready[k:]
			return k, nil
		case n.rest > 0:
			k, err := n.c.sniffed.Read(p[:min(len(p), n.rest)])
			n.rest -= k
			if k == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				n.stayAwake()
				continue
			}
			return k, err
		}
		if err := n.readFrame(); err != nil {
			return 0, err
		}
	}
}

// stayAwake ends the wait for silence.
func (n *h2Conn) stayAwake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.c.SetReadDeadline(time.Time{})
}

// readFull reads len(p) bytes of a frame.
func (n *h2Conn) readFull(p []byte) error {
	for at := 0; at < len(p); {
		k, err := n.c.sniffed.Read(p[at:])
		if at += k; k > 0 {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if at == 0 && &p[0] == &n.small[0] && n.quiet() {
			return io.EOF
		}
		n.stayAwake()
	}
	return nil
}

// readFrame reads the head of the next frame, and all of a small one that
// has to be remembered, and makes it ready unless nobody else needs it.
func (n *h2Conn) readFrame() error {
	n.mu.Lock()
	if n.idle {
		_ = n.c.SetReadDeadline(time.Now().Add(n.c.s.o.quietAfter))
	}
	n.mu.Unlock()
	if err := n.readFull(n.small[:frameHead]); err != nil {
		return err
	}
	f := headOf(n.small[:])
	n.ready, n.rest = n.small[:frameHead], f.length
	switch f.kind {
	case http2.FrameSettings, http2.FrameWindowUpdate, http2.FrameRSTStream, http2.FramePriority:
		if frameHead+f.length <= len(n.small) {
			if err := n.readFull(n.small[frameHead : frameHead+f.length]); err != nil {
				return err
			}
			n.ready, n.rest = n.small[:frameHead+f.length], 0
		}
	}
	if n.received(f) {
		return nil
	}
	n.ready = nil
	if n.emptied && f.kind == http2.FrameSettings && n.quiet() {
		return io.EOF
	}
	return nil
}

// received takes note of a frame from the client and tells whether it is meant for
// the server.
func (n *h2Conn) received(f frame) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch f.kind {
	case http2.FrameHeaders:
		if f.stream > n.last {
			n.last = f.stream
			n.begun++
		}
	case http2.FrameData:
		n.recv -= int64(f.length)
	case http2.FrameSettings:
		return n.receivedSettings(f)
	case http2.FrameWindowUpdate:
		if f.stream == 0 && f.length == 4 {
			return n.receivedWindow()
		}
		return f.stream > n.before || f.length != 4
	case http2.FrameRSTStream, http2.FramePriority:
		if f.stream <= n.before && n.rest == 0 {
			return false // about a stream that an earlier server has ended
		}
		n.odd = n.odd || f.kind == http2.FrameRSTStream
	case http2.FrameGoAway:
		n.odd = true
	}
	return true
}

func (n *h2Conn) receivedSettings(f frame) bool {
	if f.flags.Has(http2.FlagSettingsAck) {
		n.acked++
		n.emptied = n.emptied || n.acked == n.asked
		return n.acked != n.asked
	}
	if n.rest > 0 || f.length%6 != 0 { // more than a client has reason to say
		n.odd = true
		return true
	}
	for at := frameHead; at < frameHead+f.length; at += 6 {
		n.learn(http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(n.small[at:])), Val: binary.BigEndian.Uint32(n.small[at+2:])})
	}
	return true
}

func (n *h2Conn) learn(s http2.Setting) {
	at := slices.IndexFunc(n.settings[:n.known], func(have http2.Setting) bool { return have.ID == s.ID })
	switch {
	case at >= 0:
		n.settings[at] = s
	case n.known < len(n.settings):
		n.settings[n.known] = s
		n.known++
	default:
		n.odd = true
	}
}

// receivedWindow lets us send more. What the server believes it may send already
// is taken off.
func (n *h2Conn) receivedWindow() bool {
	grow := binary.BigEndian.Uint32(n.small[frameHead:]) &^ (1 << 31)
	n.send += int64(grow)
	if n.debt == 0 {
		return true
	}
	select {
	case n.more <- struct{}{}:
	default:
	}
	paid := min(n.debt, int64(grow))
	n.debt -= paid
	binary.BigEndian.PutUint32(n.small[frameHead:], grow-uint32(paid))
	return int64(grow) > paid
}

// quiet tells whether the connection can do without its server, which it then
// retires. Before, it asks the client to empty its header table.
func (n *h2Conn) quiet() bool {
	if !n.writing.TryLock() {
		return false
	}
	defer n.writing.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.c.SetReadDeadline(time.Time{})
	if !n.idle || n.odd || n.begun != n.ended || n.prelude > 0 || !n.out.between() {
		return false
	}
	if n.c.s.isDraining() {
		n.sayGoAway()
		return true
	}
	if n.emptied {
		n.retired = true
		return true
	}
	if n.asked == 0 {
		n.sent++
		n.asked = n.sent
		n.say(appendSetting(appendHead(nil, 6, http2.FrameSettings, 0), http2.Setting{ID: http2.SettingHeaderTableSize}))
	}
	return false
}

// sayGoAway tells the client that no further stream will be served.
func (n *h2Conn) sayGoAway() {
	b := binary.BigEndian.AppendUint32(appendHead(nil, 8, http2.FrameGoAway, 0), n.last)
	n.say(append(b, 0, 0, 0, byte(http2.ErrCodeNo)))
}

// say sends a frame of our own on a connection that nothing else is sent on.
func (n *h2Conn) say(b []byte) {
	_ = n.c.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := n.c.sniffed.Write(b); err != nil {
		_ = n.c.shut()
	}
	_ = n.c.SetWriteDeadline(time.Time{})
}

// Write takes note of what the server sends.
func (n *h2Conn) Write(p []byte) (int, error) {
	n.writing.Lock()
	defer n.writing.Unlock()
	if n.retired {
		return 0, net.ErrClosed
	}
	b, changed := p, n.prelude > 0
	if changed {
		b = n.withoutPrelude(p)
	}
	again := min(n.skip, len(b))
	n.skip -= again
	n.mu.Lock()
	n.out.scan(b[again:], n.said)
	n.mu.Unlock()
	if err := n.awaitWindow(); err != nil {
		return 0, err
	}
	written, err := n.c.sniffed.Write(b)
	switch {
	case changed && err == nil:
		return len(p), nil
	case changed:
		return 0, err
	}
	n.skip += len(b) - written
	return written, err
}

// said takes note of a frame that the server sends.
func (n *h2Conn) said(f frame, grow uint32) {
	switch f.kind {
	case http2.FrameData:
		n.send -= int64(f.length)
	case http2.FrameSettings:
		if !f.flags.Has(http2.FlagSettingsAck) {
			n.sent++
		}
	case http2.FrameWindowUpdate:
		if f.stream == 0 {
			n.recv += int64(grow)
		}
	case http2.FrameGoAway, http2.FrameRSTStream:
		n.odd = true
	}
	if (f.kind == http2.FrameData || f.kind == http2.FrameHeaders) && f.flags.Has(http2.FlagDataEndStream) {
		n.ended++
	}
}

// awaitWindow waits until the client takes the DATA that is about to be sent. It
// has to only while there is a debt.
func (n *h2Conn) awaitWindow() error {
	for {
		n.mu.Lock()
		enough := n.send >= 0
		n.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-n.more:
		case <-time.After(n.c.s.o.Grace):
			return os.ErrDeadlineExceeded
		}
	}
}

// preludeFrames is how many frames withoutPrelude takes away.
const preludeFrames = 3

// withoutPrelude takes away what each server says first: its SETTINGS, which the
// client knows, and the acknowledgement of those that we have told it. The
// window is grown by what is missing only.
func (n *h2Conn) withoutPrelude(p []byte) (b []byte) {
	n.held = append(n.held, p...)
	for n.prelude > 0 && len(n.held) >= frameHead {
		f := headOf(n.held)
		end := frameHead + f.length
		if len(n.held) < end {
			return b
		}
		switch {
		case f.kind == http2.FrameSettings:
			n.prelude--
		case f.kind == http2.FrameWindowUpdate && f.stream == 0:
			n.prelude--
			if n.grow > 0 {
				b = appendWindowUpdate(b, n.grow)
			}
		default:
			b = append(b, n.held[:end]...)
		}
		n.held = n.held[end:]
	}
	if n.prelude == 0 {
		b = append(b, n.held...)
		n.held = nil
	}
	return b
}

// noteState is told by the server when the last stream ends and the first begins.
func noteState(nc net.Conn, state http.ConnState) {
	var n *h2Conn
	switch nc := nc.(type) {
	case *h2Conn:
		n = nc
	case tlsH2Conn:
		n = nc.h2Conn
	default:
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch n.idle = state == http.StateIdle; {
	case !n.idle:
		_ = n.c.SetReadDeadline(time.Time{})
	default:
		if n.last > n.before {
			n.idleSince = time.Now()
		}
		_ = n.c.SetReadDeadline(time.Now().Add(n.c.s.o.quietAfter))
	}
}

// Close closes the connection, unless only the server is at its end.
func (n *h2Conn) Close() error {
	n.writing.Lock()
	defer n.writing.Unlock()
	if n.retired {
		return nil
	}
	return n.c.shut()
}

// LocalAddr and the others are the connection's.
func (n *h2Conn) LocalAddr() net.Addr { return n.c.LocalAddr() }

// RemoteAddr is the client's.
func (n *h2Conn) RemoteAddr() net.Addr { return n.c.sniffed.RemoteAddr() }

// SetDeadline is not for the server: the deadline to read is its own.
func (n *h2Conn) SetDeadline(t time.Time) error { return n.SetWriteDeadline(t) }

// SetReadDeadline does nothing.
func (n *h2Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline bounds the next Write.
func (n *h2Conn) SetWriteDeadline(t time.Time) error { return n.c.SetWriteDeadline(t) }

// tlsH2Conn is one over TLS. It shows the TLS state, for which http2 checks
// that the cipher is good enough.
type tlsH2Conn struct{ *h2Conn }

// ConnectionState returns the state of TLS.
func (n tlsH2Conn) ConnectionState() tls.ConnectionState { return *n.c.connectionState() }

// park waits for the client's next frame without a server.
func (n *h2Conn) park() step {
	c := n.c
	c.off, c.n = 0, 0
	n.ready = nil
	if c.SetReadDeadline(n.idleSince.Add(c.s.o.IdleTimeout)) != nil {
		return nil
	}
	c.setPhase(phaseIdle)
	c.s.tidy.parked()
	c.isWaiting.Store(true)
	defer c.isWaiting.Store(false)
	var err error
	if !c.s.isDraining() {
		err = c.readAhead()
	}
	if c.s.isDraining() || !c.phase.CompareAndSwap(int32(phaseIdle), int32(phaseBusy)) || errors.Is(err, os.ErrDeadlineExceeded) {
		n.sayGoAway()
		return nil
	}
	if err != nil {
		return nil
	}
	n.resume()
	return (*conn).serveHTTP2
}
