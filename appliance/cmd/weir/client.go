package main

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
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/trust"
)

// region is written into signatures; a box takes any.
const region = "us-east-1"

// box is a running appliance as the online verbs see it. It signs every request
// with one access key, and trusts the box's own authority only.
type box struct {
	endpoint   string
	http       *http.Client
	key        aws.Credentials
	signer     *v4.Signer
	configured string // where the endpoint came from, for errors
}

// box finds the appliance: by --endpoint, or by what the one that runs on the
// data directory has written there.
func (a *app) box() (*box, error) {
	b := &box{endpoint: strings.TrimSuffix(a.Endpoint, "/"), signer: v4.NewSigner(), configured: "--endpoint"}
	if b.endpoint == "" {
		data, err := os.ReadFile(filepath.Join(a.Dir, appliance.EndpointFile))
		if err != nil {
			return nil, &fault.Error{
				Class: fault.Environment, Subject: "data directory", Value: a.Dir, Expect: "no box runs on it",
				Try: fmt.Sprintf("weir serve --dir %s, or --endpoint URL for a box elsewhere", a.Dir),
			}
		}
		b.endpoint, b.configured = strings.TrimSpace(string(data)), a.Dir
	}
	if u, err := url.Parse(b.endpoint); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, &fault.Error{Class: fault.Usage, Subject: "endpoint", Value: b.endpoint, Expect: "expecting a URL such as https://weir.local:4567"}
	}
	if err := b.identify(a); err != nil {
		return nil, err
	}
	roots, err := b.roots(a)
	if err != nil {
		return nil, err
	}
	b.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 16,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	}}
	return b, nil
}

// identify finds the access key: the environment's, or the data directory's.
func (b *box) identify(a *app) error {
	b.key = aws.Credentials{AccessKeyID: a.env("WEIR_ACCESS_KEY_ID"), SecretAccessKey: a.env("WEIR_SECRET_ACCESS_KEY")}
	if b.key.AccessKeyID != "" && b.key.SecretAccessKey != "" {
		return nil
	}
	id, secret, err := trust.ReadCredentials(filepath.Join(a.trustDir(), trust.CredentialsFile))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &fault.Error{Class: fault.Environment, Subject: "access key", Expect: "none found", Try: "set WEIR_ACCESS_KEY_ID and WEIR_SECRET_ACCESS_KEY, or name the box's data directory with --dir"}
		}
		return err
	}
	b.key = aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}
	return nil
}

// roots returns the authorities to trust: --ca, or the data directory's, or,
// for a box elsewhere, the system's.
func (b *box) roots(a *app) (*x509.CertPool, error) {
	file := a.CA
	if file == "" {
		file = filepath.Join(a.trustDir(), trust.CAFile)
		if !exists(file) {
			return nil, nil
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, &fault.Error{Class: fault.Environment, Subject: "authority", Value: file, Expect: "not readable", Err: err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, &fault.Error{Class: fault.Environment, Subject: "authority", Value: file, Expect: "no certificate in it; expecting PEM"}
	}
	return pool, nil
}

func (a *app) trustDir() string { return filepath.Join(a.Dir, appliance.TrustDir) }

// kinesis returns the unmodified AWS SDK's client, pointed at the box.
func (b *box) kinesis() *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region: region, BaseEndpoint: &b.endpoint, HTTPClient: b.http,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return b.key, nil }),
	})
}

// call sends in as JSON to a path of the admin API and reads the answer into
// out; either may be nil.
func (b *box) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	res, err := b.send(ctx, method, path, "application/json", body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of %s: %w", b.endpoint, err)
	}
	return nil
}

// send makes one signed request to a path of the admin API. The caller closes
// the body of the answer, which is a success.
func (b *box) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.endpoint+admin.Prefix+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	hash := sha256.Sum256(body)
	digest := hex.EncodeToString(hash[:])
	req.Header.Set("X-Amz-Content-Sha256", digest)
	if err := b.signer.SignHTTP(ctx, b.key, req, digest, "weir", region, time.Now()); err != nil {
		return nil, err
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, b.explain(err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, refused(res)
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
	f := &fault.Error{Class: fault.Runtime, Err: errors.New(body.Error.Message)}
	switch res.StatusCode {
	case 400, 404, 405, 409:
		f.Class = fault.Usage
	case 401, 403:
		f.Class, f.Try = fault.Environment, "weir trust, which shows the access key of a data directory"
	case 507:
		f.Class, f.Try = fault.Environment, "weir doctor"
	}
	return f
}

// explain says what a connection that failed means.
func (b *box) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	f := &fault.Error{Class: fault.Environment, Subject: "box", Value: b.endpoint, Expect: "does not answer", Err: root(err), Try: "weir doctor"}
	var unknown x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown), errors.As(err, &wrongHost), errors.As(err, &verify):
		f.Expect, f.Try = "its certificate is not trusted", "--ca with the ca.pem of the box; weir trust prints it there"
	}
	return f
}

// root drops the layers that repeat the URL.
func root(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err
}

// explainSDK turns an error of the AWS SDK into a fault: the service's own
// answer, or what is wrong with the connection.
func (b *box) explainSDK(err error) error {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		f := &fault.Error{Class: fault.Runtime, Subject: answer.ErrorCode(), Expect: answer.ErrorMessage()}
		if answer.ErrorFault() == smithy.FaultClient || strings.HasPrefix(answer.ErrorCode(), "ResourceNotFound") {
			f.Class = fault.Usage
		}
		if strings.HasPrefix(answer.ErrorCode(), "ResourceNotFound") {
			f.Try = "weir stream list"
		}
		return f
	}
	var u *url.Error
	if errors.As(err, &u) {
		return b.explain(err)
	}
	return err
}
