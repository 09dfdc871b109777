package appliance

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/trust"
)

// certificate is what the port shows; a reload replaces it. What is shown is kept in a
// file, too, so that the command line on this machine knows the box by it.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
	file    string // none if empty
}

func (c *certificate) get() (*tls.Certificate, error) { return c.current.Load(), nil }

// load takes the certificate that the configuration names.
func (c *certificate) load(l *config.Listen, t *trust.Trust) error {
	pair, err := pickCertificate(l, t)
	if err == nil {
		c.show(pair)
	}
	return err
}

// pickCertificate returns the operator's certificate, or the box's own when none is named.
func pickCertificate(l *config.Listen, t *trust.Trust) (*tls.Certificate, error) {
	if l.TLSCert == "" {
		return &t.Server, nil
	}
	return ReadCertificate(l)
}

func (c *certificate) show(cert *tls.Certificate) {
	c.current.Store(cert)
	if c.file == "" {
		return
	}
	shown := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	if last, err := os.ReadFile(c.file); err != nil || !bytes.Equal(last, shown) {
		// Without the file, on a full disk say, the command line asks for --ca.
		_ = trust.Replace(c.file, shown, 0o644)
	}
}

// certificateLook is how often the box looks whether its certificate needs to be another.
const certificateLook = time.Hour

// renewals keeps the box's own certificate good while it runs, which may be for years:
// for new addresses of the machine, for its end, for a clock that was set.
func (b *box) renewals(ctx context.Context) error {
	tick := time.NewTicker(certificateLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := b.renewCertificate(trust.Hosts(), time.Now()); err != nil {
				b.log.Warn("the certificate is not renewed; tried again in an hour", "error", err)
			}
		}
	}
}

func (b *box) renewCertificate(hosts []string, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &b.mu.config.Listen
	renewed, err := b.trust.Renew(append(hosts, l.Names...), now)
	if err != nil || !renewed {
		return err
	}
	b.log.Info("server certificate issued again", "names", append(hosts, l.Names...))
	return b.cert.load(l, b.trust)
}

// ReadCertificate reads the operator's certificate, listen.tls_cert with its key, as a start
// does: a fault of class Environment says what is wrong with it.
func ReadCertificate(l *config.Listen) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
	if err != nil {
		return nil, &fault.Error{
			Class: fault.Environment, Subject: "listen.tls_cert", Value: l.TLSCert,
			Expect: "not a certificate with its key in " + l.TLSKey, Err: err, Try: "weir serve without listen.tls_cert, which uses the box's own",
		}
	}
	return &pair, nil
}

// NamedFile is a file that a configuration names.
type NamedFile struct {
	Setting, Name string
	Until         time.Time // when the certificate in it ends, zero for another kind of file
	Err           error     // what keeps a box from starting with it
}

// Files reads the files that the configuration names, as a start does.
func Files(c *config.Config) []NamedFile {
	var out []NamedFile
	if c.Listen.TLSCert != "" {
		f := NamedFile{Setting: "listen.tls_cert", Name: c.Listen.TLSCert}
		var pair *tls.Certificate
		if pair, f.Err = ReadCertificate(&c.Listen); f.Err == nil {
			f.Until = pair.Leaf.NotAfter
		}
		out = append(out, f)
	}
	if c.Listen.ClientCA != "" {
		_, err := clientAuthorities(&c.Listen)
		out = append(out, NamedFile{Setting: "listen.client_ca", Name: c.Listen.ClientCA, Err: err})
	}
	for i, name := range c.Wasm.TrustedKeys {
		_, err := trustedKey(i, name)
		out = append(out, NamedFile{Setting: fmt.Sprintf("wasm.trusted_keys[%d]", i), Name: name, Err: err})
	}
	return out
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
	return nil, &fault.Error{Class: fault.Environment, Subject: "listen.client_ca", Value: l.ClientCA, Expect: "expecting a PEM file with certificates", Err: fault.Cause(err), Try: "weir config explain listen"}
}
