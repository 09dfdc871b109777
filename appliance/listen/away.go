package listen

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A connection that is turned away is told so in the protocol it speaks, as far as
// that costs little: a 503 over HTTP/1.1 and HTTP/2, through TLS while there are few of
// them, and a fatal alert instead of TLS when there are many.
const (
	// awayTime bounds how long a connection is kept to be told.
	awayTime = 2 * time.Second
	// awayAtOnce is how many of MaxConns, one in so many, are told at a time, and at
	// least leastAway. More are closed without a word, as a reset.
	awayAtOnce = 8
	leastAway  = 64
	// awayHandshakes is how many TLS handshakes a second are made only to say no.
	awayHandshakes = 20
	// awayLogged is how often the log tells of connections turned away.
	awayLogged = 10 * time.Second
)

// reason is why a connection is turned away.
type reason uint8

const (
	noReason reason = iota
	full
	fullAddress
	fullLocal
	noTLS
	reasons
)

// text is what is logged, with what to do.
func (r reason) text() string {
	switch r {
	case full:
		return "listen.max_connections are open"
	case fullAddress:
		return "listen.max_connections_per_address are open from there"
	case fullLocal:
		return "listen.max_connections, less what is kept for others, are open from this machine"
	default:
		return "listen.cleartext does not allow a client from there to speak without TLS"
	}
}

// TurnedAway counts connections that were turned away, by the reason.
type TurnedAway struct {
	Full      int64 // MaxConns were open
	Address   int64 // the share of the client's address was open
	Cleartext int64 // the client may not speak without TLS
}

// away keeps account of the connections turned away.
type away struct {
	counts [reasons]atomic.Int64
	told   atomic.Int64 // being told at the moment
	tls    pace

	mu     sync.Mutex
	logged time.Time
	unsaid int64 // since it was logged
}

func (a *away) stats() TurnedAway {
	return TurnedAway{a.counts[full].Load(), a.counts[fullAddress].Load() + a.counts[fullLocal].Load(), a.counts[noTLS].Load()}
}

// noteTurnedAway counts a connection and logs it, unless the log has told of
// others a moment ago: then the next line tells how many there were.
func (s *Server) noteTurnedAway(why reason, remote net.Addr) {
	a := &s.away
	a.counts[why].Add(1)
	a.mu.Lock()
	a.unsaid++
	n, now := a.unsaid, time.Now()
	say := now.Sub(a.logged) >= awayLogged
	if say {
		a.unsaid, a.logged = 0, now
	}
	a.mu.Unlock()
	if say {
		s.o.Logger.Warn("connections turned away", "count", n, "reason of the last", why.text(), "from", remote)
	}
}

// pace lets through so many a second, and as many at once.
type pace struct {
	mu    sync.Mutex
	level float64
	at    time.Time
}

func (p *pace) allow(perSecond float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.level = min(perSecond, p.level+now.Sub(p.at).Seconds()*perSecond)
	p.at = now
	if p.level < 1 {
		return false
	}
	p.level--
	return true
}

var (
	noRoomBody = lastBody("ServiceUnavailable", "Too many connections are open. Try again soon.")
	noRoom     = lastAnswer("503 Service Unavailable", noRoomBody)
	needsTLS   = lastAnswer("403 Forbidden", lastBody("AccessDeniedException", "This server wants TLS: use https."))
	// noRoomTLS is the fatal alert internal_error: of those there are, no client takes it
	// for a fault of its own.
	noRoomTLS = "\x15\x03\x03\x00\x02\x02\x50"
)

func lastBody(code, message string) string {
	return `{"__type":"` + code + `","message":"` + message + `"}` + "\n"
}

// lastAnswer is what a connection gets that is not served.
func lastAnswer(status, body string) string {
	return "HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// turnAway tells a client that there is no room, and closes its connection.
func (s *Server) turnAway(c *conn, why reason) {
	s.noteTurnedAway(why, c.RemoteAddr())
	if s.away.told.Add(1) > int64(max(leastAway, s.o.MaxConns/awayAtOnce)) {
		c.leave()
		return
	}
	go func() {
		defer c.leave()
		_ = c.SetDeadline(time.Now().Add(awayTime))
		c.sayNoRoom()
	}()
}

// leave ends a connection that was turned away.
func (c *conn) leave() {
	_ = c.Conn.Close()
	c.s.away.told.Add(-1)
	c.s.wg.Done()
}

// sayNoRoom finds out what the client speaks, and says it in that.
func (c *conn) sayNoRoom() {
	first, err := c.firstByte()
	switch {
	case err != nil:
		return
	case first == recordHandshake && (c.s.tls.Load() == nil || !c.s.away.tls.allow(awayHandshakes)):
		finish(c.Conn, noRoomTLS)
		return
	case first == recordHandshake && !c.s.handshake(c):
		return
	}
	h2 := c.tls != nil && c.tls.ConnectionState().NegotiatedProtocol == http2.NextProtoTLS
	if !h2 {
		if h2, err = c.hasPreface(); err != nil {
			return
		}
	}
	if h2 {
		c.sayNoRoomHTTP2()
		return
	}
	finish(c.Conn, noRoom)
}

const (
	// awayFrames is how many frames may come before the first request.
	awayFrames = 32
	// awayFrameBytes is the largest frame that a client may send which was told of no
	// other limit (RFC 9113, section 4.2).
	awayFrameBytes = 16 << 10
)

// sayNoRoomHTTP2 answers the first request with the 503, and no other.
func (c *conn) sayNoRoomHTTP2() {
	var begin [len(preface)]byte
	if _, err := io.ReadFull(&c.sniffed, begin[:]); err != nil {
		return
	}
	f := http2.NewFramer(c.Conn, &c.sniffed)
	f.SetMaxReadFrameSize(awayFrameBytes) // memory of that size is taken before a frame has come
	_ = f.WriteSettings()
	for range awayFrames {
		fr, err := f.ReadFrame()
		if err != nil {
			return
		}
		head, ok := fr.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for _, h := range [][2]string{{":status", "503"}, {"content-type", "application/json"}, {"retry-after", "1"}, {"content-length", strconv.Itoa(len(noRoomBody))}} {
			_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1], Sensitive: true}) // needs no header table
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: head.StreamID, BlockFragment: block.Bytes(), EndHeaders: true})
		_ = f.WriteData(head.StreamID, true, []byte(noRoomBody))
		_ = f.WriteGoAway(head.StreamID, http2.ErrCodeNo, nil)
		finish(c.Conn, "")
		return
	}
}

// maxLinger bounds what is read from a client that is not listened to any more.
const maxLinger = 8 << 20

// finish writes a last answer to a connection whose input nobody reads, in such a
// way that the answer arrives: closing with unread input would reset it.
func finish(nc net.Conn, answer string) {
	if answer != "" {
		_, _ = nc.Write([]byte(answer))
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	var sink [1024]byte
	for total := 0; total < maxLinger; {
		n, err := nc.Read(sink[:])
		if total += n; err != nil {
			return
		}
	}
}
