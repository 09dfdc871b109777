// Package http is the sink that posts records to an endpoint of Firehose's
// HTTP endpoint delivery protocol, version 1.0: Datadog, New Relic, Vector, and
// whoever else takes records from Firehose.
//
// It owns the requests: body, headers, what counts as an acknowledgement. It
// never follows a redirect, never retries by itself, and sends the same request
// id for the same records. Source: Firehose developer guide, "Appendix: HTTP
// endpoint delivery request and response specifications".
package http

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink/client"
)

// Settings of an http sink.
type Settings struct {
	URL       string          `json:"url" yaml:"url"`
	Name      string          `json:"name,omitempty" yaml:"name"` // for people
	AccessKey delivery.Secret `json:"access_key,omitempty" yaml:"access_key"`
	// ContentEncoding is NONE (default) or GZIP.
	ContentEncoding string `json:"content_encoding,omitempty" yaml:"content_encoding"`
	// CommonAttributes go with every request.
	CommonAttributes map[string]string `json:"common_attributes,omitempty" yaml:"common_attributes"`
	CAFile           string            `json:"ca_file,omitempty" yaml:"ca_file"`
	// Timeout of one answer. Default 3 minutes, as Firehose has it.
	Timeout delivery.Duration `json:"timeout,omitempty" yaml:"timeout"`
	// RequestBytes is the most record data in a request. Default 4 MiB.
	RequestBytes int `json:"request_bytes,omitempty" yaml:"request_bytes"`
}

// Limits of the protocol.
const (
	maxRecords    = 10_000
	maxAnswer     = 1 << 20
	maxAttributes = 50
	defaultBytes  = 4 << 20
)

// Validate returns every problem of the settings, or nil.
func (s *Settings) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		bad("url: %q must be an http or https URL", s.URL)
	}
	if len(s.AccessKey) > 4096 {
		bad("access_key: longer than 4096")
	}
	if s.ContentEncoding != "" && s.ContentEncoding != "NONE" && s.ContentEncoding != "GZIP" {
		bad("content_encoding: %q is not NONE or GZIP", s.ContentEncoding)
	}
	if len(s.CommonAttributes) > maxAttributes {
		bad("common_attributes: %d, the limit is %d", len(s.CommonAttributes), maxAttributes)
	}
	for k, v := range s.CommonAttributes {
		if len(k) < 1 || len(k) > 256 || len(v) > 1024 {
			bad("common_attributes: %q: names have 1 to 256 characters, values up to 1024", k)
		}
	}
	if s.RequestBytes < 0 || s.RequestBytes > 48<<20 {
		bad("request_bytes: %d is not between 0 and %d", s.RequestBytes, 48<<20)
	}
	return errors.Join(problems...)
}

// Sink is an open http sink.
type Sink struct {
	settings   Settings
	client     *http.Client
	attributes string
	gzips      sync.Pool
}

var _ delivery.RecordSink = (*Sink)(nil)

// Open returns the sink. It connects to nothing.
func Open(s Settings) (*Sink, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Timeout == 0 {
		s.Timeout = delivery.Duration(3 * time.Minute)
	}
	if s.RequestBytes == 0 {
		s.RequestBytes = defaultBytes
	}
	c, err := client.New(s.CAFile, time.Duration(s.Timeout))
	if err != nil {
		return nil, err
	}
	out := &Sink{settings: s, client: c}
	if len(s.CommonAttributes) > 0 {
		raw, err := json.Marshal(map[string]any{"commonAttributes": s.CommonAttributes})
		if err != nil {
			return nil, err
		}
		out.attributes = string(raw)
	}
	return out, nil
}

// Close drops idle connections.
func (s *Sink) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// Metered says that the endpoint is reached over the uplink.
func (s *Sink) Metered() bool { return true }

// Limits are the protocol's.
func (s *Sink) Limits() delivery.BatchLimits {
	return delivery.BatchLimits{Records: maxRecords, DataBytes: s.settings.RequestBytes}
}

// body streams the request: {"requestId":…,"timestamp":…,"records":[…]}.
type body struct {
	head    string
	records []delivery.OutRecord
}

func newBody(b *delivery.Batch, at time.Time) *body {
	return &body{head: fmt.Sprintf(`{"requestId":%q,"timestamp":%d,"records":[`, b.RequestID, at.UnixMilli()), records: b.Records}
}

const (
	recordHead = `{"data":"`
	recordTail = `"}`
	bodyTail   = `]}`
)

func (b *body) size() int64 {
	n := len(b.head) + len(bodyTail) + max(len(b.records)-1, 0)
	for i := range b.records {
		n += len(recordHead) + len(recordTail) + base64.StdEncoding.EncodedLen(len(b.records[i].Data))
	}
	return int64(n)
}

func (b *body) writeTo(w io.Writer) error {
	if _, err := io.WriteString(w, b.head); err != nil {
		return err
	}
	var text []byte
	for i := range b.records {
		text = text[:0]
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, recordHead...)
		text = base64.StdEncoding.AppendEncode(text, b.records[i].Data)
		text = append(text, recordTail...)
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, bodyTail)
	return err
}

// PutRecords posts b. All of it is acknowledged or nothing is known to be.
func (s *Sink) PutRecords(ctx context.Context, b *delivery.Batch) (int, error) {
	req, end, err := s.request(ctx, b)
	if err != nil {
		return 0, err
	}
	defer end()
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, sendError(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, sendError(err)
	}
	if err := checkAnswer(resp.StatusCode, resp.Header, raw, b.RequestID); err != nil {
		if err.RetryAfter == 0 {
			if n, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && n > 0 {
				err.RetryAfter = time.Duration(min(n, 3600)) * time.Second
			}
		}
		return 0, err
	}
	return len(b.Records), nil
}

// request makes the request of b. end has to be called when it is over: no record of b is
// read after it, whatever becomes of the request.
func (s *Sink) request(ctx context.Context, b *delivery.Batch) (req *http.Request, end func(), err error) {
	content := newBody(b, time.Now())
	var size int64
	var reader io.Reader
	end = func() {}
	gzipped := s.settings.ContentEncoding == "GZIP"
	if gzipped {
		var buffer bytes.Buffer
		z, _ := s.gzips.Get().(*gzip.Writer)
		if z == nil {
			z = gzip.NewWriter(&buffer)
		} else {
			z.Reset(&buffer)
		}
		if err := errors.Join(content.writeTo(z), z.Close()); err != nil {
			return nil, nil, err
		}
		s.gzips.Put(z)
		size, reader = int64(buffer.Len()), &buffer
	} else {
		var written sync.WaitGroup
		r, w := io.Pipe()
		written.Go(func() { _ = w.CloseWithError(content.writeTo(w)) })
		// Nobody else closes r: what Throttle makes of it can only be read.
		end = func() { _ = r.Close(); written.Wait() }
		size, reader = content.size(), r
	}
	if req, err = http.NewRequestWithContext(ctx, http.MethodPost, s.settings.URL, b.Throttle(reader)); err != nil {
		end()
		return nil, nil, err
	}
	req.ContentLength = size
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("X-Amz-Firehose-Protocol-Version", "1.0")
	h.Set("X-Amz-Firehose-Request-Id", b.RequestID)
	h.Set("X-Amz-Firehose-Source-Arn", "arn:aws:firehose:us-east-1:000000000000:deliverystream/"+b.Delivery)
	if s.settings.AccessKey != "" {
		h.Set("X-Amz-Firehose-Access-Key", string(s.settings.AccessKey))
	}
	if s.attributes != "" {
		h.Set("X-Amz-Firehose-Common-Attributes", s.attributes)
	}
	if gzipped {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("User-Agent", "Amazon Kinesis Data Firehose Agent/1.0")
	return req, end, nil
}

// checkAnswer decides whether an answer acknowledges the request. Whatever
// does not conform counts as a failure of the endpoint.
func checkAnswer(status int, h http.Header, raw []byte, requestID string) *delivery.SinkError {
	fail := func(code, format string, args ...any) *delivery.SinkError {
		return &delivery.SinkError{Code: "HttpEndpoint." + code, Err: fmt.Errorf(format, args...)}
	}
	if len(raw) > maxAnswer {
		return fail("ResponseTooLarge", "the answer has more than %d bytes", maxAnswer)
	}
	var answer struct {
		RequestID    string          `json:"requestId"`
		Timestamp    json.RawMessage `json:"timestamp"`
		ErrorMessage string          `json:"errorMessage"`
	}
	parsed := json.Unmarshal(raw, &answer)
	if status != http.StatusOK {
		message := answer.ErrorMessage
		if parsed != nil || message == "" {
			message = http.StatusText(status)
		}
		e := fail("DestinationException", "HTTP %d: %s", status, message[:min(len(message), 8192)])
		e.Permanent = status == http.StatusRequestEntityTooLarge
		return e
	}
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case err != nil || kind != "application/json":
		return fail("InvalidResponseFromDestination", "content type %q, expected application/json", h.Get("Content-Type"))
	case h.Get("Content-Encoding") != "":
		return fail("InvalidResponseFromDestination", "content encoding %q, expected none", h.Get("Content-Encoding"))
	case parsed != nil:
		return fail("InvalidResponseFromDestination", "the answer is not JSON: %v", parsed)
	case answer.RequestID != requestID:
		return fail("InvalidResponseFromDestination", "requestId %q, expected %q", answer.RequestID, requestID)
	case len(answer.Timestamp) == 0:
		return fail("InvalidResponseFromDestination", "the answer has no timestamp")
	}
	return nil
}

func sendError(err error) error {
	out := &delivery.SinkError{Code: "HttpEndpoint.ConnectionFailed", Err: err}
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &op) && op.Op == "dial":
		out.Refused = true
	case errors.As(err, &timeout) && timeout.Timeout():
		out.Code = "HttpEndpoint.RequestTimeout"
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		out.Code = "HttpEndpoint.ConnectionReset"
	case strings.Contains(err.Error(), "certificate"):
		out.Code, out.Refused = "HttpEndpoint.SSLHandshake", true
	}
	return out
}

// Probe posts a request without records: it has everything that an endpoint can
// refuse, the address, the certificate, the access key, and leaves nothing there.
func (s *Sink) Probe(ctx context.Context) (delivery.Probed, error) {
	const empty = "a request without records"
	_, err := s.PutRecords(ctx, &delivery.Batch{RequestID: strings.ToLower(rand.Text()), Delivery: "probe", Throttle: func(r io.Reader) io.Reader { return r }})
	var refused *delivery.SinkError
	if errors.As(err, &refused) && refused.Code == "HttpEndpoint.DestinationException" {
		refused.Err = fmt.Errorf("%w (the answer to %s, which is what is tried)", refused.Err, empty)
	}
	if err != nil {
		return delivery.Probed{}, err
	}
	return delivery.Probed{Guarantee: delivery.AtLeastOnce, Tried: "reached; " + empty + " was acknowledged, nothing was stored"}, nil
}
