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

// reading is one sensor record of about 200 bytes of JSON.
func reading(rng *rand.Rand, n int) (key string, data []byte) {
	key = fmt.Sprintf("pump-%03d", rng.IntN(400))
	return key, fmt.Appendf(nil, `{"device":"%s","ts":%d,"n":%d,"flow":%.3f,"pressure":%.3f,"level":%.2f,"temp_in":%.2f,"temp_out":%.2f,"vibration":%.4f,"status":"ok","firmware":"2.14.0"}`,
		key, 1_780_000_000_000+n*13, n, 40+rng.NormFloat64(), 3+rng.NormFloat64()/9, 70+rng.NormFloat64(), 18+rng.NormFloat64(), 21+rng.NormFloat64(), rng.Float64()/10)
}

// putRecords is a PutRecords body of n records, putRecord one of one.
func putRecords(rng *rand.Rand, n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"StreamName":"load","Records":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		key, data := reading(rng, i)
		fmt.Fprintf(&b, `{"Data":"%s","PartitionKey":"%s"}`, base64.StdEncoding.EncodeToString(data), key)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func putRecord(rng *rand.Rand, n int) []byte {
	key, data := reading(rng, n)
	return fmt.Appendf(nil, `{"StreamName":"load","Data":"%s","PartitionKey":"%s"}`, base64.StdEncoding.EncodeToString(data), key)
}

// outcome is one round against one server.
type outcome struct {
	records   int
	seconds   float64
	cpuS      float64
	latencies []time.Duration
}

func (o outcome) perSecond() float64 { return float64(o.records) / o.seconds }
func (o outcome) cpuPerM() float64   { return o.cpuS / float64(o.records) * 1e6 }

// drive sends requests of so many records over so many connections, each waiting
// for its answer, for d.
func drive(ctx context.Context, s *server, connections, records int, d time.Duration) (outcome, error) {
	requests := make([][]byte, 64)
	rng := rand.New(rand.NewPCG(uint64(connections), uint64(records)))
	for i := range requests {
		if records == 1 {
			requests[i] = request(s.address, "PutRecord", putRecord(rng, i))
		} else {
			requests[i] = request(s.address, "PutRecords", putRecords(rng, records))
		}
	}
	conns := make([]net.Conn, connections)
	for i := range conns {
		c, err := net.Dial("tcp", s.Address)
		if err != nil {
			return outcome{}, err
		}
		defer c.Close()
		conns[i] = c
	}
	results := make([]outcome, connections)
	errs := make([]error, connections)
	began, cpu := time.Now(), s.cpu()
	deadline := began.Add(d)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { results[i], errs[i] = converse(ctx, c, requests, i, records, deadline) })
	}
	wg.Wait()
	o := outcome{seconds: time.Since(began).Seconds(), cpuS: (s.cpu() - cpu).Seconds()}
	for _, r := range results {
		o.records += r.records
		o.latencies = append(o.latencies, r.latencies...)
	}
	return o, errors.Join(errs...)
}

func converse(ctx context.Context, c net.Conn, requests [][]byte, at, records int, deadline time.Time) (o outcome, err error) {
	in := bufio.NewReaderSize(c, 64<<10)
	for ; time.Now().Before(deadline) && ctx.Err() == nil; at++ {
		start := time.Now()
		if _, err := c.Write(requests[at%len(requests)]); err != nil {
			return o, err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return o, err
		}
		head := make([]byte, 200)
		n, _ := io.ReadFull(res.Body, head)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return o, err
		}
		if res.StatusCode != http.StatusOK || (records > 1 && !bytes.Contains(head[:n], []byte(`"FailedRecordCount":0`))) {
			return o, fmt.Errorf("%s: %s", res.Status, head[:n])
		}
		o.latencies = append(o.latencies, time.Since(start))
		o.records += records
	}
	return o, nil
}
