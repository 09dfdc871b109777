package ingest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Puts is one connection to a box that puts records, for benchmarks of what
// else the box does meanwhile.
type Puts struct {
	c        net.Conn
	in       *bufio.Reader
	requests [][]byte
	at       int
}

// NewPuts makes a stream on the box at address, and a connection whose requests
// are PutRecords of so many records of about 200 bytes, signed beforehand.
func NewPuts(endpoint, key, secret string, records int) (*Puts, error) {
	a := address{Address: endpoint, Key: key, Secret: secret}
	if err := createStream(a); err != nil {
		return nil, err
	}
	p := &Puts{}
	pool := samples(64 * records)
	for i := range 64 {
		p.requests = append(p.requests, request(a, "PutRecords", putRecords(pool[i*records:(i+1)*records])))
	}
	var err error
	p.c, err = net.Dial("tcp", a.Address)
	p.in = bufio.NewReaderSize(p.c, 64<<10)
	return p, err
}

// Put sends one request and returns how long its answer took. Every record has
// been accepted.
func (p *Puts) Put() (time.Duration, error) {
	start := time.Now()
	if _, err := p.c.Write(p.requests[p.at%len(p.requests)]); err != nil {
		return 0, err
	}
	p.at++
	res, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(res.Body)
	took := time.Since(start)
	if err == nil && (res.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"FailedRecordCount":0`))) {
		err = fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return took, err
}

// Close ends the connection.
func (p *Puts) Close() error { return p.c.Close() }
