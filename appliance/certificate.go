package appliance

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync/atomic"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/trust"
)

// certificate is what the port shows; a reload replaces it.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

func (c *certificate) get() (*tls.Certificate, error) { return c.current.Load(), nil }

// load takes the operator's certificate, or the box's own when none is named.
func (c *certificate) load(l *config.Listen, t *trust.Trust) error {
	if l.TLSCert == "" {
		c.current.Store(&t.Server)
		return nil
	}
	pair, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
	if err != nil {
		return &fault.Error{
			Class: fault.Environment, Subject: "listen.tls_cert", Value: l.TLSCert,
			Expect: "not a certificate with its key in " + l.TLSKey, Err: err, Try: "weir serve without listen.tls_cert, which uses the box's own",
		}
	}
	c.current.Store(&pair)
	return nil
}

// clientAuthorities reads the authorities of client certificates, nil for none.
func clientAuthorities(l *config.Listen) (*x509.CertPool, error) {
	if l.ClientCA == "" {
		return nil, nil
	}
	data, err := os.ReadFile(l.ClientCA)
	pool := x509.NewCertPool()
	if err == nil && pool.AppendCertsFromPEM(data) {
		return pool, nil
	}
	return nil, &fault.Error{Class: fault.Environment, Subject: "listen.client_ca", Value: l.ClientCA, Expect: "expecting a PEM file with certificates", Err: err, Try: "weir config explain listen"}
}
