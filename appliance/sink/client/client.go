// Package client makes the HTTP client of the sinks that post requests. It owns
// how long a connection may take to come about and whom it trusts, and never
// makes a request.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// dialTime bounds making a connection, and the TLS handshake after it.
const dialTime = 15 * time.Second

// sessions is how many servers a client remembers the TLS session of.
const sessions = 4

// New returns a client that waits so long for an answer at most. With caFile,
// PEM certificates, it trusts those and no others. It follows no redirect: the
// requests carry keys. A connection is kept for a minute; the one after it takes up
// its TLS session, which is a fraction of a handshake.
func New(caFile string, timeout time.Duration) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(sessions)}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no PEM certificate", caFile)
		}
	}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: dialTime,
			DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
