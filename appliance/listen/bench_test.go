package listen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/weirhq/weir/appliance/api/aws"
)

// benchKinesis parses, decodes into one buffer and answers like the real service.
func benchKinesis() *aws.Service {
	put := aws.NewBatchSchema[toyPutInput](toyModel)
	return aws.NewService(aws.ServiceOptions{Target: "Kinesis_20131202", Name: "kinesis", Model: toyModel},
		aws.RawOp("PutRecords", func(_ context.Context, c *aws.Call) error {
			b, err := put.Parse(c.Encoding, c.Body())
			if err != nil {
				return err
			}
			defer b.Release()
			if err := c.Authorize("sensors"); err != nil {
				return err
			}
			var data [4096]byte
			w := c.Writer()
			w.BeginMap()
			w.Key("FailedRecordCount")
			w.Int(0)
			w.Key("Records")
			w.BeginList()
			for i := range b.Records {
				if err := b.Records[i].Data.Decode(data[:b.Records[i].Data.Len()]); err != nil {
					return err
				}
				w.BeginMap()
				w.Key("SequenceNumber")
				w.String("49650000000000000000000000000000000000000000000000000000")
				w.Key("ShardId")
				w.String("shardId-000000000000")
				w.EndMap()
			}
			w.EndList()
			w.EndMap()
			c.Finish(w)
			return nil
		}))
}

// signedPut is a whole PutRecords request over HTTP/1.1.
func signedPut(b *testing.B, addr string, records int) []byte {
	data := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(`{"sensor":"t-17","v":21.75}`), 8)[:200])
	var body bytes.Buffer
	body.WriteString(`{"StreamName":"sensors","Records":[`)
	for i := range records {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"Data":"%s","PartitionKey":"k%d"}`, data, i)
	}
	body.WriteString(`]}`)
	req, err := http.NewRequestWithContext(b.Context(), "POST", "http://"+addr+"/", bytes.NewReader(body.Bytes()))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	sum := sha256.Sum256(body.Bytes())
	cred := awssdk.Credentials{AccessKeyID: "AKIDTEST", SecretAccessKey: "secret"}
	if err := v4.NewSigner().SignHTTP(b.Context(), cred, req, hex.EncodeToString(sum[:]), "kinesis", "eu-central-1", time.Now()); err != nil {
		b.Fatal(err)
	}
	var raw bytes.Buffer
	if err := req.Write(&raw); err != nil {
		b.Fatal(err)
	}
	return raw.Bytes()
}

// BenchmarkPutRecords sends signed batches through the whole front door, without
// storage. The client allocates nothing, so all allocations are the server's.
//
//	go test -run xxx -bench BenchmarkPutRecords ./appliance/listen
func BenchmarkPutRecords(b *testing.B) {
	for _, records := range []int{1, 500} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			g := testGate(func(o *GateOptions) { o.Routes[0].Handler = benchKinesis() })
			_, addr := start(b, Options{Handler: g})
			c := dial(b, addr)
			_ = c.SetDeadline(time.Time{})
			request := signedPut(b, addr, records)
			c.send(string(request))
			res, got := c.answer()
			if res.StatusCode != 200 {
				b.Fatal(got)
			}
			length := len(got)
			in := bufio.NewReaderSize(c.Conn, 256<<10)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				skipAnswer(b, in, length)
			}
			runtime.ReadMemStats(&after)
			per := float64(b.N) * float64(records)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/per, "ns/record")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/per, "allocs/record")
		})
	}
}

// skipAnswer reads a header up to its empty line, then the body.
func skipAnswer(b *testing.B, in *bufio.Reader, length int) {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if len(line) == 2 {
			break
		}
	}
	if _, err := in.Discard(length); err != nil && err != io.EOF {
		b.Fatal(err)
	}
}
