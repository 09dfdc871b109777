package listen

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/weirhq/weir/appliance/api"
)

// Options are the limits and the behaviour of a Server. Each zero value stands for
// the default that the field's comment gives.
type Options struct {
	// Handler serves every request; needed. If it is an api.Refuser it also words
	// the answers to requests that exceed a limit; if it is a Screener it is asked
	// before a large body is read.
	Handler api.Handler

	// Certificate returns the server's certificate; it is asked for every handshake,
	// so a new one is used at once. TLS is refused if it is nil.
	Certificate func() (*tls.Certificate, error)
	// ClientCAs verifies client certificates; SetClientCAs replaces it. Clients are asked for one, and need
	// not have one, if it is set.
	ClientCAs *x509.CertPool
	// Cleartext says who may speak without TLS; everybody by default.
	Cleartext Peers

	// MaxConns bounds open connections; 4096. One more is turned away.
	MaxConns int
	// MaxConnsPerAddress bounds the open connections of one IPv4 address or IPv6
	// /64 network; 1024. Loopback, which counts as one address, may have seven eighths of
	// MaxConns.
	MaxConnsPerAddress int
	// MaxHeaderBytes bounds request line and headers together; 16 KiB. More is
	// answered with 431.
	MaxHeaderBytes int
	// MaxBodyBytes bounds one request body; 16 MiB. More is answered with 413, and up to four
	// times as much is taken and dropped, so that the client sees the answer.
	MaxBodyBytes int
	// MaxBodyMemory bounds the bodies of all requests in flight; 64 MiB. A request
	// waits up to QueueTimeout for its share, first come first served, and is then
	// answered with 503. Bodies above 64 KiB leave an eighth of it to smaller ones, those
	// above 1 MiB a quarter, as far as MaxBodyBytes lets them. One address leaves a sixteenth
	// to others.
	MaxBodyMemory int
	// MaxAnswerMemory bounds the answers with records of all requests in flight, until the
	// clients have taken them; 64 MiB, and room for one of 16 MiB at least. When it is short,
	// an answer has fewer records; for one record a request waits up to QueueTimeout, which
	// for one above 1 MiB is until an eighth is left besides. One address leaves a sixteenth to
	// others.
	MaxAnswerMemory int
	// MaxRequests bounds the requests in flight; 1024. One address may have half of them,
	// loopback seven eighths. More are answered with 503.
	MaxRequests int
	// MaxStreams bounds the streamed answers in flight, which don't count as requests;
	// 2048. One address may have half of them, loopback seven eighths. More are answered with 503.
	MaxStreams int
	// MaxStreamsPerConn bounds the concurrent requests of one HTTP/2 connection; 1024.
	MaxStreamsPerConn int

	// HandshakeTimeout bounds the time from accept to the first byte of a request,
	// TLS handshake included; 10 s.
	HandshakeTimeout time.Duration
	// HeaderTimeout bounds the time from a request's first byte to the end of its
	// headers, and over HTTP/1.1 of a body of up to 8 KiB, which is read with them; 10 s.
	HeaderTimeout time.Duration
	// BodyTimeout bounds the time to read a whole body; 1 min.
	BodyTimeout time.Duration
	// MinRate is how many bytes per second a client has to send or take at least,
	// after a grace of Grace; 4 KiB/s. A client that is slower is answered with 408, or cut off.
	MinRate int
	// Grace is how long a client may be slower than MinRate; 10 s.
	Grace time.Duration
	// IdleTimeout is how long a connection may be without a request; 5 min.
	IdleTimeout time.Duration
	// QueueTimeout bounds the wait for body and answer memory; 5 s.
	QueueTimeout time.Duration
	// DrainTimeout bounds a graceful stop; 20 s.
	DrainTimeout time.Duration

	// quietAfter is how long an HTTP/2 connection without a stream keeps its server; 1 s.
	quietAfter time.Duration

	// Logger gets panics and accept failures; slog.Default() if nil.
	Logger *slog.Logger
}

// Peers is a set of clients by where they are.
type Peers uint8

// The sets of clients.
const (
	AnyPeer      Peers = iota // everybody
	LoopbackPeer              // clients on this machine
	NoPeer                    // nobody
)

// leastAnswerMemory is what a record of 10 MiB needs in base64.
const leastAnswerMemory = 16 << 20

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (o Options) withDefaults() Options {
	orDefault(&o.MaxConns, 4096)
	orDefault(&o.MaxConnsPerAddress, 1024)
	orDefault(&o.MaxHeaderBytes, 16<<10)
	orDefault(&o.MaxBodyBytes, 16<<20)
	orDefault(&o.MaxBodyMemory, 64<<20)
	o.MaxBodyMemory = max(o.MaxBodyMemory, o.MaxBodyBytes+1) // or the largest body would wait for ever
	orDefault(&o.MaxAnswerMemory, 64<<20)
	o.MaxAnswerMemory = max(o.MaxAnswerMemory, leastAnswerMemory)
	orDefault(&o.MaxRequests, 1024)
	orDefault(&o.MaxStreams, 2048)
	orDefault(&o.MaxStreamsPerConn, 1024)
	orDefault(&o.HandshakeTimeout, 10*time.Second)
	orDefault(&o.HeaderTimeout, 10*time.Second)
	orDefault(&o.BodyTimeout, time.Minute)
	orDefault(&o.MinRate, 4<<10)
	orDefault(&o.Grace, 10*time.Second)
	orDefault(&o.IdleTimeout, 5*time.Minute)
	orDefault(&o.QueueTimeout, 5*time.Second)
	orDefault(&o.DrainTimeout, 20*time.Second)
	orDefault(&o.quietAfter, time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}
