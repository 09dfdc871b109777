package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ClockFloor is a time that is surely past. A box without a battery clock
// starts in 1970; a certificate dated then would be over before the clock is set.
var ClockFloor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	authorityLife = 30 * 365 * 24 * time.Hour
	serverLife    = 825 * 24 * time.Hour // the longest that Apple's clients take
	renewBefore   = 30 * 24 * time.Hour
)

type authority struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // the name is a label only
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Weir CA " + host},
		NotBefore: ClockFloor.AddDate(-1, 0, 0), NotAfter: later(now).Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	return &authority{cert, key, encodeCert(der), keyPEM}, err
}

// issue makes a server certificate for hosts, names and addresses, and returns
// it in PEM with the authority's behind it and its key at the end.
func (a *authority) issue(hosts []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Weir"},
		NotBefore: a.cert.NotBefore, NotAfter: later(now).Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	return slices.Concat(encodeCert(der), a.certPEM, keyPEM), err
}

// maxHosts bounds the names and addresses of the server certificate. A machine whose
// addresses change, as IPv6's do every day, would have it grow for ever else.
const maxHosts = 64

// Renew issues the server certificate again when it lacks one of the hosts, names or
// addresses, or is near its end at the time now, and says whether it did. The names it
// has stay, as a client may know the box by an old one, but when there are more than 64:
// then the oldest go, addresses first. The new one is on disk on return.
func (t *Trust) Renew(hosts []string, now time.Time) (renewed bool, err error) {
	leaf, err := x509.ParseCertificate(t.Server.Certificate[0])
	if err != nil {
		return false, err
	}
	var have []string // what goes first comes first
	for _, ip := range leaf.IPAddresses {
		have = append(have, ip.String())
	}
	have = append(have, leaf.DNSNames...)
	var want []string
	missing := false
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			h = ip.String() // as it will be found in the certificate
		}
		if !slices.Contains(want, h) {
			want = append(want, h)
			missing = missing || !slices.Contains(have, h)
		}
	}
	if !missing && later(now).Add(renewBefore).Before(leaf.NotAfter) {
		return false, nil
	}
	old := slices.DeleteFunc(have, func(h string) bool { return slices.Contains(want, h) })
	old = old[max(0, min(len(old), len(old)+len(want)-maxHosts)):]
	ca, err := t.authority()
	if err != nil {
		return false, err
	}
	server, err := ca.issue(append(old, want...), now)
	if err != nil {
		return false, err
	}
	return true, t.replaceServer(server)
}

// replaceServer puts a new certificate with its key in the place of the old.
func (t *Trust) replaceServer(server []byte) error {
	pair, err := tls.X509KeyPair(server, server)
	if err != nil {
		return err
	}
	if err := Replace(filepath.Join(t.Dir, serverFile), server, 0o600); err != nil {
		return err
	}
	t.Server = pair
	return nil
}

func (t *Trust) authority() (*authority, error) {
	keyPEM, err := os.ReadFile(filepath.Join(t.Dir, caKeyFile))
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(t.CA, keyPEM)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the authority's key does not sign")
	}
	return &authority{cert: cert, key: key, certPEM: t.CA}, nil
}

// Hosts returns the names and addresses of this machine: its host name, plain
// and under .local, localhost, and each address of an interface that is up.
// Link-local addresses are left out, as no certificate can say their zone.
func Hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" && name != "localhost" {
		hosts = append(hosts, name, name+".local")
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return hosts
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, n.IP.String())
		}
	}
	return hosts
}

func later(now time.Time) time.Time {
	if now.Before(ClockFloor) {
		return ClockFloor
	}
	return now
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("BUG: crypto/rand: " + err.Error()) // documented never to fail
	}
	return n
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
