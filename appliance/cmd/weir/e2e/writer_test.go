package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/firehose"
	fhtypes "github.com/aws/aws-sdk-go-v2/service/firehose/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/appliance/trust"
)

// line is what a writer puts into each record.
type line struct {
	Writer int    `json:"writer"`
	Seq    uint64 `json:"seq"`
}

// sender makes one request of a client program: it writes the records, all with
// one partition key, and says of each whether it was acknowledged. An error means
// that no answer came, or that nothing was written.
type sender func(ctx context.Context, key string, records []string) ([]bool, error)

// connect makes a client for the box as it runs now.
type connect func(t *testing.T, b *box) sender

// writer is a client that writes records with growing numbers, each once, and
// remembers which were acknowledged. A request whose answer is lost is not sent
// again, as its records may be on disk.
type writer struct {
	id      int
	kind    string
	connect connect
	next    uint64
	acked   map[uint64]bool
}

// key spreads the writers over the shards; all records of a writer go to one.
func (w *writer) key() string { return fmt.Sprintf("writer-%d", w.id) }

// run writes until the box is gone.
func (w *writer) run(ctx context.Context, send sender) {
	for ctx.Err() == nil {
		first := w.next
		var records []string
		for range 1 + rand.IntN(40) {
			data, _ := json.Marshal(line{w.id, w.next}) // two numbers
			records = append(records, string(data))
			w.next++
		}
		acked, err := send(ctx, w.key(), records)
		if err != nil {
			return
		}
		for i, ok := range acked {
			if ok {
				w.acked[first+uint64(i)] = true
			}
		}
	}
}

// viaKinesis writes with the AWS SDK for Go.
func viaKinesis(stream string) connect {
	return func(t *testing.T, b *box) sender {
		client := b.kinesis(t)
		return func(ctx context.Context, key string, records []string) ([]bool, error) {
			var entries []types.PutRecordsRequestEntry
			for _, r := range records {
				entries = append(entries, types.PutRecordsRequestEntry{Data: []byte(r), PartitionKey: &key})
			}
			out, err := client.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &stream, Records: entries})
			if err != nil {
				return nil, err
			}
			acked := make([]bool, len(out.Records))
			for i, r := range out.Records {
				acked[i] = r.ErrorCode == nil
			}
			return acked, nil
		}
	}
}

// viaFirehose writes to a delivery stream with the AWS SDK for Go.
func viaFirehose(delivery string) connect {
	return func(t *testing.T, b *box) sender {
		id, secret := b.accessKey(t)
		client := firehose.New(firehose.Options{
			Region: "eu-central-1", BaseEndpoint: &b.endpoint, Retryer: aws.NopRetryer{},
			HTTPClient: &http.Client{Transport: remote.Steady(b.http(t).Transport)},
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
			}),
		})
		return func(ctx context.Context, _ string, records []string) ([]bool, error) {
			var entries []fhtypes.Record
			for _, r := range records {
				entries = append(entries, fhtypes.Record{Data: []byte(r)})
			}
			out, err := client.PutRecordBatch(ctx, &firehose.PutRecordBatchInput{DeliveryStreamName: &delivery, Records: entries})
			if err != nil {
				return nil, err
			}
			acked := make([]bool, len(out.RequestResponses))
			for i, r := range out.RequestResponses {
				acked[i] = r.ErrorCode == nil
			}
			return acked, nil
		}
	}
}

// viaHTTP writes lines with a POST and a password, as a device without an AWS
// client does.
func viaHTTP(stream string) connect {
	return func(t *testing.T, b *box) sender {
		password, client := b.password(t), b.http(t)
		return func(ctx context.Context, key string, records []string) ([]bool, error) {
			url := b.endpoint + "/v1/streams/" + stream + "/records?key=" + key
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(strings.Join(records, "\n")))
			if err != nil {
				return nil, err
			}
			req.Header.Set("Content-Type", "application/x-ndjson")
			req.SetBasicAuth("admin", password)
			res, err := client.Do(req)
			if err != nil {
				return nil, err
			}
			defer res.Body.Close()
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return nil, err
			}
			acked := make([]bool, len(records)) // all or none
			for i := range acked {
				acked[i] = res.StatusCode == http.StatusOK
			}
			return acked, nil
		}
	}
}

// viaBoto3 writes with AWS's SDK for Python: one process for the whole test, told
// what to write.
func viaBoto3(t *testing.T, stream string) connect {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "testdata/writer.py") // Debian's: it has python3-boto3
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // its sign to end
		if err := cmd.Wait(); err != nil {
			t.Errorf("boto3: %v", err)
		}
	})
	answers := bufio.NewReader(out)
	return func(t *testing.T, b *box) sender {
		id, secret := b.accessKey(t)
		return func(_ context.Context, key string, records []string) ([]bool, error) {
			ask, err := json.Marshal(map[string]any{
				"endpoint": b.endpoint, "ca": filepath.Join(b.dir, "trust", trust.CAFile), "id": id, "secret": secret,
				"stream": stream, "key": key, "records": records,
			})
			if err != nil {
				return nil, err
			}
			if _, err := in.Write(append(ask, '\n')); err != nil {
				return nil, err
			}
			text, err := answers.ReadBytes('\n')
			if err != nil {
				return nil, err
			}
			var answer struct {
				Acked []bool
				Error string
			}
			if err := json.Unmarshal(text, &answer); err != nil {
				return nil, err
			}
			if answer.Error != "" {
				return nil, errors.New(answer.Error)
			}
			return answer.Acked, nil
		}
	}
}
