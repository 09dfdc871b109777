package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// signer is the transport that signs. Signing happens here, below the
// client, because the time in a signature has to be the server's: a box
// without a battery clock may be years off, and every answer has a Date.
type signer struct {
	base   http.RoundTripper
	creds  *credentials.Credentials // nil: the store asks for none
	client *http.Client             // for the credentials' own requests
	region string
	v4     *v4.Signer
	clock  func() time.Time

	skew       atomic.Int64 // nanoseconds that the server is ahead of us
	skewed     atomic.Bool  // it was found out in the last answer
	retryAfter atomic.Int64 // nanoseconds, of the last 429 or 503
}

// payloadHash carries the SHA-256 of a body to the signer. Without it the
// payload is not signed, which SigV4 allows and TLS makes safe.
type payloadHash struct{}

// noCredentials says that whoever issues the credentials gave none, so that nothing
// was sent to the store. It keeps its cause to itself: minio-go takes one that has
// EOF in its text for a connection that the store closed.
type noCredentials struct{ cause error }

func (*noCredentials) Error() string { return "no credentials" }

// skewLimit is what stores tolerate at least.
const skewLimit = 2 * time.Minute

func (s *signer) RoundTrip(req *http.Request) (*http.Response, error) {
	now := s.clock().Add(time.Duration(s.skew.Load()))
	if s.creds != nil {
		value, err := s.creds.GetWithContext(&credentials.CredContext{Client: s.client})
		if err != nil {
			return nil, &noCredentials{err}
		}
		req = req.Clone(req.Context())
		hash, _ := req.Context().Value(payloadHash{}).(string)
		if hash == "" {
			hash = "UNSIGNED-PAYLOAD"
		}
		req.Header.Set("X-Amz-Content-Sha256", hash)
		key := aws.Credentials{AccessKeyID: value.AccessKeyID, SecretAccessKey: value.SecretAccessKey, SessionToken: value.SessionToken}
		if err := s.v4.SignHTTP(req.Context(), key, req, hash, "s3", s.region, now.UTC()); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
	}
	resp, err := s.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	s.learn(resp, now)
	return resp, nil
}

// learn takes the server's time and its wish to be left alone from an answer.
func (s *signer) learn(resp *http.Response, signed time.Time) {
	s.skewed.Store(false)
	if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusBadRequest {
		date, err := http.ParseTime(resp.Header.Get("Date"))
		if err == nil && date.Sub(signed).Abs() > skewLimit {
			s.skew.Store(int64(date.Sub(s.clock())))
			s.skewed.Store(true)
		}
	}
	s.retryAfter.Store(0)
	if resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests {
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			s.retryAfter.Store(int64(time.Duration(min(n, 3600)) * time.Second))
		}
	}
}

// roleTransport carries the requests for credentials. Those that are signed,
// for a role, are signed once more: with the credentials that it is assumed with, which may
// be issued themselves, and with the server's clock, which a refusal teaches here as it does there.
type roleTransport struct {
	signer *signer
	own    *credentials.Credentials // nil without a role
}

// maxRoleRequest bounds a request for credentials.
const maxRoleRequest = 64 << 10

func (t *roleTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.own == nil || req.Header.Get("Authorization") == "" || req.Body == nil {
		return t.signer.base.RoundTrip(req)
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxRoleRequest))
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return nil, err
	}
	own, err := t.own.GetWithContext(&credentials.CredContext{Context: req.Context(), Client: t.signer.client})
	if err != nil {
		return nil, fmt.Errorf("credentials to assume the role with: %w", err)
	}
	key := aws.Credentials{AccessKeyID: own.AccessKeyID, SecretAccessKey: own.SecretAccessKey, SessionToken: own.SessionToken}
	for again := false; ; again = true {
		now := t.signer.clock().Add(time.Duration(t.signer.skew.Load()))
		signed := req.Clone(req.Context())
		signed.Header.Del("Authorization")
		signed.Body = io.NopCloser(bytes.NewReader(body))
		sum := sha256.Sum256(body)
		if err := t.signer.v4.SignHTTP(req.Context(), key, signed, hex.EncodeToString(sum[:]), "sts", t.signer.region, now.UTC()); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		resp, err := t.signer.base.RoundTrip(signed)
		if err != nil {
			return nil, err
		}
		t.signer.learn(resp, now)
		if again || !t.signer.skewed.Load() {
			if resp.StatusCode == http.StatusForbidden {
				t.own.Expire() // they may have been withdrawn; the next attempt asks for others
			}
			return resp, nil
		}
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
	}
}

// sessions is how many servers, of the store and of the credentials, the TLS session is
// remembered of: a connection that takes one up costs a fraction of a handshake, and
// stores end what was idle for some seconds.
const sessions = 4

// newTransport is an HTTP transport that gives up on a line that stands still.
func newTransport(s *Settings) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(sessions)}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no PEM certificate", s.CAFile)
		}
		config.RootCAs = pool
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: c, timeout: time.Duration(s.Timeout)}, nil
		},
		TLSClientConfig: config, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: time.Duration(s.Timeout),
		IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, WriteBufferSize: 64 << 10, DisableCompression: true,
	}, nil
}

// stallConn fails a write that makes no progress.
type stallConn struct {
	net.Conn
	timeout time.Duration
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
