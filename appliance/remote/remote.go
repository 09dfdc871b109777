// Package remote is a running box as a client program sees it: the calls of the
// control API, signed with one access key, and the unmodified AWS SDK pointed at
// the same port.
//
// It owns the signature of a call and the wording of what went wrong on the way.
// It never looks for a box or for keys: the command line does.
package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
)

// Region is written into signatures; a box takes any.
const Region = "us-east-1"

// Box is a running appliance at an URL. It is safe for concurrent use.
type Box struct {
	Endpoint string
	http     *http.Client
	key      aws.Credentials
	signer   *v4.Signer
	skew     atomic.Int64 // how far the box's clock is ahead of ours, once it is known to matter
}

// New returns the box at the endpoint. It trusts the authorities in roots, the
// system's if nil, and signs every request with the access key. It makes no
// connection yet. A fault of class Usage says that the endpoint is no URL.
func New(endpoint, accessKeyID, secretAccessKey string, roots *x509.CertPool) (*Box, error) {
	endpoint = strings.TrimSuffix(endpoint, "/")
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, &fault.Error{Class: fault.Usage, Subject: "endpoint", Value: endpoint, Expect: "expecting a URL such as https://weir.local:4567"}
	}
	return &Box{
		Endpoint: endpoint, signer: v4.NewSigner(),
		key: aws.Credentials{AccessKeyID: accessKeyID, SecretAccessKey: secretAccessKey},
		http: &http.Client{Transport: Steady(&http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 16,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		})},
	}, nil
}

// Kinesis returns the unmodified AWS SDK's client, pointed at the box.
func (b *Box) Kinesis(options ...func(*kinesis.Options)) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region: Region, BaseEndpoint: &b.Endpoint, HTTPClient: b.http,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return b.key, nil }),
	}, options...)
}

// Call sends in as JSON to a path of the admin API and reads the answer into
// out; either may be nil.
func (b *Box) Call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	res, err := b.Send(ctx, method, path, "application/json", body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of %s: %w", b.Endpoint, err)
	}
	return nil
}

// Send makes one signed request to a path of the admin API. The caller closes
// the body of the answer, which is a success. A request that is refused because
// the clocks differ is signed once more, by the clock of the box, as AWS's SDKs
// do: a box that starts in 1970 can still be looked at.
func (b *Box) Send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	res, err := b.signed(ctx, method, path, contentType, body)
	if err == nil && res.StatusCode/100 == 4 {
		if date, wrong := http.ParseTime(res.Header.Get("Date")); wrong == nil && b.differs(date) {
			res.Body.Close()
			res, err = b.signed(ctx, method, path, contentType, body)
		}
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, refused(res)
}

// differs notes the box's clock and says whether the one before was more than
// a minute off.
func (b *Box) differs(date time.Time) bool {
	skew := time.Until(date)
	before := time.Duration(b.skew.Swap(int64(skew)))
	return (skew - before).Abs() > time.Minute
}

func (b *Box) signed(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.Endpoint+admin.Prefix+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	hash := sha256.Sum256(body)
	digest := hex.EncodeToString(hash[:])
	req.Header.Set("X-Amz-Content-Sha256", digest)
	if err := b.signer.SignHTTP(ctx, b.key, req, digest, "weir", Region, time.Now().Add(time.Duration(b.skew.Load()))); err != nil {
		return nil, err
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, b.explain(err)
	}
	return res, nil
}

// advice is what helps with an answer of the control API, by its code.
var advice = map[string]string{
	"StreamNotFound":   "weir stream list",
	"StreamExists":     "weir stream list; with --if-missing, one that is there is well",
	"ShardNotFound":    "weir stream describe STREAM, which shows the shards",
	"ShardClosed":      "weir stream describe STREAM, which shows the open shards",
	"DeliveryNotFound": "weir delivery list",
	"DeliveryExists":   "weir delivery list",
	"DeliveryVersion":  "weir delivery describe NAME --json, to change what stands now",
	"ModuleNotFound":   "weir module list",
	"ReadOnly":         "weir doctor",

	"ModuleSignatureRefused":      "weir module sign --help",
	"InvalidSignatureException":   keyAdvice,
	"UnrecognizedClientException": keyAdvice,
	"AccessDeniedException":       policyAdvice,
	"AccessDenied":                policyAdvice,
}

const (
	keyAdvice    = "weir trust, which shows the access key of a data directory"
	policyAdvice = "a key that may: auth.keys of the box's configuration, or the key that weir trust shows"
)

// told is what an answer says to people: a refused signature is followed by pages of
// what was signed, for who writes a client.
func told(message string) string {
	if first, rest, _ := strings.Cut(message, "\n"); strings.Contains(rest, "Canonical String") {
		return strings.TrimSpace(first)
	}
	return message
}

// refused turns an error answer into a fault.
func refused(res *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var body struct {
		Error struct{ Code, Message string }
	}
	if err != nil || json.Unmarshal(data, &body) != nil || body.Error.Message == "" {
		return fmt.Errorf("the box answered %s: %.200s", res.Status, data)
	}
	f := &fault.Error{Class: fault.Runtime, Err: errors.New(told(body.Error.Message))}
	f.Try = advice[body.Error.Code]
	switch res.StatusCode {
	case 400, 404, 405, 409:
		f.Class = fault.Usage
	case 401, 403:
		if f.Class = fault.Environment; f.Try == "" {
			f.Try = keyAdvice
		}
	case 507:
		f.Class, f.Try = fault.Environment, "weir doctor"
	}
	return f
}

// explain says what a connection that failed means.
func (b *Box) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	f := &fault.Error{Class: fault.Environment, Subject: "box", Value: b.Endpoint, Expect: "does not answer", Err: fault.Cause(err), Try: "weir doctor"}
	var wrongHost x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &wrongHost):
		f.Expect, f.Try = "its certificate is for other names", "one of them in the URL, or this one under listen.names of the box's configuration"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.Expect, f.Try = "its certificate is not valid now", "date, for this machine's clock; a restart of the box issues its own certificate again, and listen.tls_cert is its operator's"
	case errors.As(err, &verify):
		f.Expect, f.Try = "its certificate is not trusted", "--ca with the ca.pem of the box, which weir trust prints there, or with the authority that signed listen.tls_cert"
	}
	return f
}

// Explain turns an error of the AWS SDK into a fault: the service's own
// answer, or what is wrong with the connection.
func (b *Box) Explain(err error) error {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		f := &fault.Error{Class: fault.Runtime, Subject: answer.ErrorCode(), Expect: told(answer.ErrorMessage()), Try: advice[answer.ErrorCode()]}
		switch f.Try {
		case keyAdvice, policyAdvice:
			f.Class = fault.Environment
			return f
		}
		if answer.ErrorFault() == smithy.FaultClient || strings.HasPrefix(answer.ErrorCode(), "ResourceNotFound") {
			f.Class = fault.Usage
		}
		if strings.HasPrefix(answer.ErrorCode(), "ResourceNotFound") {
			f.Try = "weir stream list"
			if strings.HasPrefix(answer.ErrorMessage(), "Shard ") {
				f.Try = "weir stream describe STREAM, which shows the shards"
			}
		}
		return f
	}
	var u *url.Error
	if errors.As(err, &u) {
		return b.explain(err)
	}
	return err
}
