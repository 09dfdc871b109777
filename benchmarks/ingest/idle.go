package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirhq/weir/benchmarks/report"
)

// protocol is one that the port speaks.
type protocol struct {
	name       string
	http2, tls bool
}

var protocols = []protocol{
	{"HTTP/1.1", false, false},
	{"HTTP/1.1 over TLS", false, true},
	{"HTTP/2", true, false},
	{"HTTP/2 over TLS", true, true},
}

// measureIdle opens connections that make one request each and then wait, and
// looks at how much a server of its own has grown.
func measureIdle(ctx context.Context, o report.Options, r *report.Report, p plan) error {
	worst := 0.0
	for i, kind := range p.protocols {
		grown, err := idle(ctx, filepath.Join(o.Dir, fmt.Sprint("idle-", i)), kind, p.idle, p.settle)
		if err != nil {
			return fmt.Errorf("idle connections over %s: %w", kind.name, err)
		}
		r.Add(fmt.Sprintf("%d idle connections", p.idle), kind.name, "grown_MiB", grown, "KiB each", grown*1024/float64(p.idle))
		worst = max(worst, grown)
		o.Logf("%d idle connections over %s", p.idle, kind.name)
	}
	r.AtMost(fmt.Sprintf("MiB for %d idle connections, of the protocol that needs most", p.idle), 40, worst)
	return nil
}

func idle(ctx context.Context, dir string, kind protocol, n int, settle time.Duration) (grown float64, err error) {
	p, err := startChild(ctx, kindWeir, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	var a address
	if err := p.Hear(&a); err != nil {
		return 0, err
	}
	first, err := kind.connect(a.Address)
	if err != nil {
		return 0, err
	}
	defer first.Close()
	time.Sleep(settle)
	before := p.ResidentMB()
	for range n {
		c, err := kind.connect(a.Address)
		if err != nil {
			return 0, err
		}
		defer c.Close()
	}
	time.Sleep(settle)
	return p.ResidentMB() - before, nil
}

// connect opens a connection and makes one request on it.
func (k protocol) connect(addr string) (c net.Conn, err error) {
	if k.tls {
		conf := &tls.Config{InsecureSkipVerify: true} // the certificate is not what is measured
		if k.http2 {
			conf.NextProtos = []string{http2.NextProtoTLS}
		}
		c, err = tls.Dial("tcp", addr, conf)
	} else {
		c, err = net.Dial("tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	get := getHTTP1
	if k.http2 {
		get = getHTTP2
	}
	if err := get(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func getHTTP1(c net.Conn) error {
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// acknowledge does what a client does that waits, until its connection is closed.
func acknowledge(f *http2.Framer) {
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return
		}
		if fr, ok := fr.(*http2.SettingsFrame); ok && !fr.IsAck() {
			if f.WriteSettingsAck() != nil {
				return
			}
		}
	}
}

// getHTTP2 is done by hand, so that the client costs little.
func getHTTP2(c net.Conn) error {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/healthz"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		return err
	}
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return err
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				if err := f.WriteSettingsAck(); err != nil {
					return err
				}
			}
		case *http2.DataFrame:
			if fr.StreamEnded() {
				go acknowledge(f)
				return nil
			}
		}
	}
}
