// Package kinesis is the sink that puts records into a Kinesis data stream: of
// AWS, or of another Weir.
//
// It owns the PutRecords requests. Partition keys and explicit hash keys go
// along, so records meet in the same shards. Of an answer with failed entries
// only those are sent again, in order, and before anything that comes after.
package kinesis

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink/client"
)

// Settings of a kinesis sink.
type Settings struct {
	Stream string `json:"stream" yaml:"stream"` // name
	Region string `json:"region,omitempty" yaml:"region"`
	// Endpoint is the URL of the service. Default: AWS's in Region.
	Endpoint        string            `json:"endpoint,omitempty" yaml:"endpoint"`
	AccessKeyID     string            `json:"access_key_id,omitempty" yaml:"access_key_id"`
	SecretAccessKey delivery.Secret   `json:"secret_access_key,omitempty" yaml:"secret_access_key"`
	SessionToken    delivery.Secret   `json:"session_token,omitempty" yaml:"session_token"`
	Source          string            `json:"source,omitempty" yaml:"source"` // instance: the machine's role
	CAFile          string            `json:"ca_file,omitempty" yaml:"ca_file"`
	Timeout         delivery.Duration `json:"timeout,omitempty" yaml:"timeout"` // default 30 s
}

// Limits of PutRecords. 4 MiB leaves room under AWS's 5 MiB for keys.
const (
	maxRecords = 500
	maxBytes   = 4 << 20
)

// Validate returns every problem of the settings, or nil.
func (s *Settings) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if s.Stream == "" {
		bad("stream: must be given")
	}
	if s.Region == "" && s.Endpoint == "" {
		bad("region: must be given when endpoint is not")
	}
	if s.Endpoint != "" {
		if u, err := url.Parse(s.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			bad("endpoint: %q must be an http or https URL", s.Endpoint)
		}
	}
	if (s.AccessKeyID == "") == (s.Source == "") {
		bad("credentials: give access_key_id and secret_access_key, or source: instance")
	}
	if (s.AccessKeyID == "") != (s.SecretAccessKey == "") {
		bad("access_key_id and secret_access_key belong together")
	}
	if s.Source != "" && s.Source != "instance" {
		bad("source: %q is not instance", s.Source)
	}
	return errors.Join(problems...)
}

// Sink is an open kinesis sink.
type Sink struct {
	settings Settings
	client   *http.Client
	creds    *credentials.Credentials
	signer   *v4.Signer

	mu struct {
		sync.Mutex
		skew time.Duration
		// left are the records of the last request that failed in part.
		request string
		left    []int
	}
}

var _ delivery.RecordSink = (*Sink)(nil)

// Open returns the sink. It connects to nothing.
func Open(s Settings) (*Sink, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Region == "" {
		s.Region = "us-east-1"
	}
	if s.Endpoint == "" {
		s.Endpoint = "https://kinesis." + s.Region + ".amazonaws.com"
	}
	if s.Timeout == 0 {
		s.Timeout = delivery.Duration(30 * time.Second)
	}
	c, err := client.New(s.CAFile, time.Duration(s.Timeout))
	if err != nil {
		return nil, err
	}
	out := &Sink{settings: s, signer: v4.NewSigner(), client: c}
	if s.Source == "instance" {
		out.creds = credentials.NewIAM("")
	} else {
		out.creds = credentials.NewStaticV4(s.AccessKeyID, string(s.SecretAccessKey), string(s.SessionToken))
	}
	return out, nil
}

// Close drops idle connections.
func (s *Sink) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// Metered says that the stream is reached over the uplink.
func (s *Sink) Metered() bool { return true }

// Limits are those of PutRecords.
func (s *Sink) Limits() delivery.BatchLimits {
	return delivery.BatchLimits{Records: maxRecords, DataBytes: maxBytes}
}

// PutRecords puts b. When some entries fail it remembers which, and the next
// call with the same request id sends those alone; it reports nothing done
// until all are.
func (s *Sink) PutRecords(ctx context.Context, b *delivery.Batch) (int, error) {
	left := s.remembered(b)
	failed, err := s.put(ctx, b, left)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.request, s.mu.left = "", nil
	if len(failed.entries) == 0 {
		return len(b.Records), nil
	}
	s.mu.request, s.mu.left = b.RequestID, failed.entries
	return 0, &delivery.SinkError{
		Code: "Kinesis." + failed.code,
		Err:  fmt.Errorf("%d of %d records were not taken: %s", len(failed.entries), len(left), failed.message),
	}
}

// remembered is which records of b are to be sent.
func (s *Sink) remembered(b *delivery.Batch) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.request == b.RequestID && len(s.mu.left) > 0 && s.mu.left[len(s.mu.left)-1] < len(b.Records) {
		return s.mu.left
	}
	all := make([]int, len(b.Records))
	for i := range all {
		all[i] = i
	}
	return all
}

// failures are the entries that an answer calls failed.
type failures struct {
	entries       []int
	code, message string
}

func (s *Sink) put(ctx context.Context, b *delivery.Batch, left []int) (failures, error) {
	if len(left) == 0 {
		return failures{}, nil
	}
	raw, err := s.call(ctx, "PutRecords", s.body(b, left), b.Throttle)
	if err != nil {
		return failures{}, err
	}
	return parseAnswer(raw, left)
}

func parseAnswer(raw []byte, left []int) (failures, error) {
	var answer struct {
		FailedRecordCount int
		Records           []struct{ SequenceNumber, ErrorCode, ErrorMessage string }
	}
	if err := json.Unmarshal(raw, &answer); err != nil || len(answer.Records) != len(left) {
		return failures{}, &delivery.SinkError{Code: "Kinesis.InvalidResponse", Err: fmt.Errorf("the answer has %d entries for %d records", len(answer.Records), len(left))}
	}
	var f failures
	for i, r := range answer.Records {
		switch {
		case r.ErrorCode == "" && r.SequenceNumber != "":
			continue
		case r.ErrorCode == "":
			r.ErrorCode, r.ErrorMessage = "InvalidResponse", "an entry has neither a SequenceNumber nor an ErrorCode"
		}
		if len(f.entries) == 0 {
			f.code, f.message = r.ErrorCode, r.ErrorMessage
		}
		f.entries = append(f.entries, left[i])
	}
	return f, nil
}

// body writes the request. Partition keys are quoted as JSON has it.
func (s *Sink) body(b *delivery.Batch, left []int) []byte {
	size := 64
	for _, i := range left {
		size += base64.StdEncoding.EncodedLen(len(b.Records[i].Data)) + len(b.Records[i].PartitionKey) + 128
	}
	out := make([]byte, 0, size)
	out = append(out, `{"StreamName":`...)
	out = appendJSON(out, s.settings.Stream)
	out = append(out, `,"Records":[`...)
	for n, i := range left {
		r := &b.Records[i]
		if n > 0 {
			out = append(out, ',')
		}
		key := r.PartitionKey
		if len(key) == 0 {
			key = []byte("-") // DirectPut records have none, and Kinesis wants one
		}
		out = append(out, `{"PartitionKey":`...)
		out = appendJSON(out, string(key))
		if r.HasExplicitHash {
			out = append(out, `,"ExplicitHashKey":"`...)
			out = append(out, r.ExplicitHashKey.String()...)
			out = append(out, '"')
		}
		out = append(out, `,"Data":"`...)
		out = base64.StdEncoding.AppendEncode(out, r.Data)
		out = append(out, `"}`...)
	}
	return append(out, `]}`...)
}

func appendJSON(out []byte, s string) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(out, raw...)
}

// maxAnswer bounds an answer to 500 records.
const maxAnswer = 4 << 20

// call makes one request of the service.
func (s *Sink) call(ctx context.Context, action string, body []byte, throttle func(io.Reader) io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.settings.Endpoint, throttle(bytes.NewReader(body)))
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Kinesis_20131202."+action)
	value, err := s.creds.GetWithContext(&credentials.CredContext{Client: s.client})
	if err != nil {
		return nil, &delivery.SinkError{Code: "Kinesis.Credentials", Refused: true, Err: err}
	}
	sum := sha256.Sum256(body)
	s.mu.Lock()
	at := time.Now().Add(s.mu.skew)
	s.mu.Unlock()
	key := aws.Credentials{AccessKeyID: value.AccessKeyID, SecretAccessKey: value.SecretAccessKey, SessionToken: value.SessionToken}
	if err := s.signer.SignHTTP(ctx, key, req, hex.EncodeToString(sum[:]), "kinesis", s.settings.Region, at.UTC()); err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, sendError(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, sendError(err)
	}
	if resp.StatusCode != http.StatusOK {
		s.learn(resp, at)
		failed := s.serviceError(resp.StatusCode, raw)
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			failed.RetryAfter = time.Duration(min(n, 3600)) * time.Second
		}
		return nil, failed
	}
	return raw, nil
}

// learn takes the server's time when ours is far off.
func (s *Sink) learn(resp *http.Response, signed time.Time) {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err == nil && date.Sub(signed).Abs() > 2*time.Minute {
		s.mu.Lock()
		s.mu.skew = time.Until(date)
		s.mu.Unlock()
	}
}

func (s *Sink) serviceError(status int, raw []byte) *delivery.SinkError {
	var e struct {
		Type     string `json:"__type"`
		Message  string `json:"message"`
		Message2 string `json:"Message"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Type == "" {
		e.Type = fmt.Sprintf("Status%d", status)
	}
	if e.Message == "" {
		e.Message = e.Message2
	}
	// After a wrong signature come pages about how to sign.
	e.Message, _, _ = strings.Cut(strings.TrimSpace(e.Message), "\n\n")
	if e.Message == "" {
		e.Message = http.StatusText(status)
	}
	if i := strings.LastIndexByte(e.Type, '#'); i >= 0 {
		e.Type = e.Type[i+1:]
	}
	if strings.HasPrefix(e.Type, "ExpiredToken") || e.Type == "UnrecognizedClientException" {
		s.creds.Expire()
	}
	return &delivery.SinkError{Code: "Kinesis." + e.Type, Refused: status < 500, Err: fmt.Errorf("%s (HTTP %d)", e.Message, status)}
}

func sendError(err error) error {
	out := &delivery.SinkError{Code: "Kinesis.ConnectionFailed", Err: err}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		out.Refused = true
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		out.Code = "Kinesis.RequestTimeout"
	}
	return out
}

// Probe asks for the stream, and puts a record that no service can take, which
// shows that the sink may put: what it stored could not be removed. Who may not
// ask, and may put, is fine.
func (s *Sink) Probe(ctx context.Context) (delivery.Probed, error) {
	state, err := s.state(ctx)
	switch {
	case err != nil:
		return delivery.Probed{}, err
	case state != "" && state != "ACTIVE" && state != "UPDATING":
		return delivery.Probed{}, &delivery.SinkError{Code: "Kinesis.StreamNotActive", Refused: true, Err: fmt.Errorf("stream %s is %s", s.settings.Stream, state)}
	}
	if err := s.mayPut(ctx); err != nil {
		return delivery.Probed{}, err
	}
	tried := "reached; stream " + s.settings.Stream + " is " + state
	if state == "" {
		tried = "reached, without the right to describe stream " + s.settings.Stream
	}
	return delivery.Probed{Guarantee: delivery.AtLeastOnce, Tried: tried + ", and a put was allowed and refused for its hash key, nothing was stored"}, nil
}

func unthrottled(r io.Reader) io.Reader { return r }

// state is the stream's; "" when the sink has no right to know it.
func (s *Sink) state(ctx context.Context) (string, error) {
	body := append(appendJSON([]byte(`{"StreamName":`), s.settings.Stream), '}')
	raw, err := s.call(ctx, "DescribeStreamSummary", body, unthrottled)
	var refused *delivery.SinkError
	if errors.As(err, &refused) && strings.HasPrefix(refused.Code, "Kinesis.AccessDenied") {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		StreamDescriptionSummary struct{ StreamStatus string }
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.StreamDescriptionSummary.StreamStatus == "" {
		return "", &delivery.SinkError{Code: "Kinesis.InvalidResponse", Err: fmt.Errorf("the answer has no stream status: %.100q", raw)}
	}
	return answer.StreamDescriptionSummary.StreamStatus, nil
}

// noHashKey is above all hash keys, and as long as the longest: it gets past the
// checks of form, and the right to put is checked before what comes after those.
const noHashKey = "999999999999999999999999999999999999999"

// mayPut puts a record that must be refused. A stream that takes no notice of hash
// keys is told that it is a dry run.
func (s *Sink) mayPut(ctx context.Context) error {
	body := appendJSON([]byte(`{"StreamName":`), s.settings.Stream)
	body = append(body, `,"DryRun":true,"Records":[{"PartitionKey":"weir-probe","ExplicitHashKey":"`+noHashKey+`","Data":""}]}`...)
	raw, err := s.call(ctx, "PutRecords", body, unthrottled)
	var refused *delivery.SinkError
	if errors.As(err, &refused) {
		switch refused.Code {
		case "Kinesis.InvalidArgumentException", "Kinesis.ValidationException", "Kinesis.DryRunOperationException":
			return nil
		}
	}
	if err != nil {
		return err
	}
	if f, err := parseAnswer(raw, []int{0}); err != nil || len(f.entries) == 1 {
		return err // refused as an entry
	}
	return &delivery.SinkError{Code: "Kinesis.InvalidResponse", Err: fmt.Errorf("a record with the hash key %s, which is none, was taken", noHashKey)}
}
