package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// poolSize is how many different records there are.
const poolSize = 32_000

// sample is one record of the load.
type sample struct {
	key  string
	data []byte
}

// samples makes n sensor records of about 200 bytes of JSON.
func samples(n int) []sample {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]sample, n)
	for i := range out {
		key := fmt.Sprintf("pump-%03d", rng.IntN(400))
		out[i] = sample{key, fmt.Appendf(nil, `{"device":"%s","ts":%d,"n":%d,"flow":%.3f,"pressure":%.3f,"level":%.2f,"temp_in":%.2f,"temp_out":%.2f,"vibration":%.4f,"status":"ok","firmware":"2.14.0"}`,
			key, 1_780_000_000_000+int64(i)*13, i, 40+rng.NormFloat64(), 3+rng.NormFloat64()/9, 70+rng.NormFloat64(), 18+rng.NormFloat64(), 21+rng.NormFloat64(), rng.Float64()/10)}
	}
	return out
}

// request encodes and signs one Kinesis request, whole, as it goes on the wire.
func request(a address, action string, body []byte) []byte {
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	sum := sha256.Sum256(body)
	const names = "content-type;host;x-amz-date;x-amz-target"
	headers := "content-type:application/x-amz-json-1.1\nhost:" + a.Address + "\nx-amz-date:" + stamp + "\nx-amz-target:Kinesis_20131202." + action + "\n"
	canonical := sha256.Sum256([]byte("POST\n/\n\n" + headers + "\n" + names + "\n" + hex.EncodeToString(sum[:])))
	scope := day + "/us-east-1/kinesis/aws4_request"
	toSign := "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(canonical[:])
	key := []byte("AWS4" + a.Secret)
	for _, part := range []string{day, "us-east-1", "kinesis", "aws4_request", toSign} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	return fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Date: %s\r\nX-Amz-Target: Kinesis_20131202.%s\r\n"+
		"Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s\r\nContent-Length: %d\r\n\r\n%s",
		a.Address, stamp, action, a.Key, scope, names, hex.EncodeToString(key), len(body), body)
}

// putRecords is a PutRecords body of the records, putRecord a PutRecord one.
func putRecords(records []sample) []byte {
	var b bytes.Buffer
	b.WriteString(`{"StreamName":"load","Records":[`)
	for i, r := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Data":"%s","PartitionKey":"%s"}`, base64.StdEncoding.EncodeToString(r.data), r.key)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func putRecord(r sample) []byte {
	return fmt.Appendf(nil, `{"StreamName":"load","Data":"%s","PartitionKey":"%s"}`, base64.StdEncoding.EncodeToString(r.data), r.key)
}

// load is one round: connections that each wait for the answer to one request of
// so many records before they send the next.
type load struct {
	Connections int           `json:"connections"`
	Records     int           `json:"records"`
	For         time.Duration `json:"for"`
}

// outcome is what one system did in one round.
type outcome struct {
	Records   int             `json:"records"`
	Seconds   float64         `json:"seconds"`
	Latencies []time.Duration `json:"latencies"`
	Error     string          `json:"error,omitempty"`

	cpuS   float64
	allocs float64 // NaN if not known
}

func (o outcome) perSecond() float64       { return float64(o.Records) / o.Seconds }
func (o outcome) cpuPerM() float64         { return o.cpuS / float64(o.Records) * 1e6 }
func (o outcome) allocsPerRecord() float64 { return o.allocs / float64(o.Records) }

// together runs one conversation per connection and adds up what they did.
func together(connections int, talk func(i int) (outcome, error)) (o outcome, err error) {
	results, errs := make([]outcome, connections), make([]error, connections)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() { results[i], errs[i] = talk(i) })
	}
	wg.Wait()
	o.Seconds = time.Since(began).Seconds()
	for _, r := range results {
		o.Records += r.Records
		o.Latencies = append(o.Latencies, r.Latencies...)
	}
	return o, errors.Join(errs...)
}

// overHTTP drives a server that speaks the Kinesis protocol.
func overHTTP(ctx context.Context, a address, l load) (outcome, error) {
	pool := samples(poolSize)
	requests := make([][]byte, 64)
	for i := range requests {
		if l.Records == 1 {
			requests[i] = request(a, "PutRecord", putRecord(pool[i]))
		} else {
			requests[i] = request(a, "PutRecords", putRecords(pool[i*l.Records%(poolSize-l.Records):][:l.Records]))
		}
	}
	conns := make([]net.Conn, l.Connections)
	for i := range conns {
		c, err := net.Dial("tcp", a.Address)
		if err != nil {
			return outcome{}, err
		}
		defer c.Close()
		conns[i] = c
	}
	deadline := time.Now().Add(l.For)
	return together(l.Connections, func(i int) (outcome, error) { return converse(ctx, conns[i], requests, i, l.Records, deadline) })
}

func converse(ctx context.Context, c net.Conn, requests [][]byte, at, records int, deadline time.Time) (o outcome, err error) {
	in := bufio.NewReaderSize(c, 16<<10)
	for head := make([]byte, 200); time.Now().Before(deadline) && ctx.Err() == nil; at++ {
		start := time.Now()
		if _, err := c.Write(requests[at%len(requests)]); err != nil {
			return o, err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return o, err
		}
		n, _ := io.ReadFull(res.Body, head)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return o, err
		}
		if res.StatusCode != http.StatusOK || (records > 1 && !bytes.Contains(head[:n], []byte(`"FailedRecordCount":0`))) {
			return o, fmt.Errorf("%s: %s", res.Status, head[:n])
		}
		o.Latencies = append(o.Latencies, time.Since(start))
		o.Records += records
	}
	return o, nil
}

// call makes one request of the Kinesis protocol.
func call(a address, action, body string) (string, error) {
	c, err := net.Dial("tcp", a.Address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write(request(a, action, []byte(body))); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", action, res.Status, text)
	}
	return string(text), err
}

// createStream makes the stream of the load, with four shards, and waits until
// it takes records.
func createStream(a address) error {
	if err := eventually(func() error {
		_, err := call(a, "CreateStream", `{"StreamName":"load","ShardCount":4}`)
		return err
	}); err != nil {
		return err
	}
	return eventually(func() error {
		_, err := call(a, "PutRecord", `{"StreamName":"load","Data":"eA==","PartitionKey":"k"}`)
		return err
	})
}

// eventually tries until it works, for 30 s.
func eventually(try func() error) (err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}
