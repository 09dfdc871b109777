package appliance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/trust"
)

// TestCertificateIsKnownByEachOfItsMarks gives a device one mark after the other and
// takes the entry it had before away.
func TestCertificateIsKnownByEachOfItsMarks(t *testing.T) {
	name := pkix.Name{CommonName: "device-17", OrganizationalUnit: []string{"Sensors"}, Organization: []string{"Acme, Inc."}, Country: []string{"DE"}}
	raw, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse("spiffe://plant/device-17")
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		RawSubject: raw, Subject: name, URIs: []*url.URL{uri}, DNSNames: []string{"other.plant", "Device-17.plant"}, EmailAddresses: []string{"d17@plant"},
	}
	marks := []config.Certificate{ // what says least first
		{CommonName: "device-17"},
		{Email: "d17@plant"},
		{DNS: "device-17.PLANT"},
		{URI: "spiffe://plant/device-17"},
		{Subject: `CN=device-17,OU=Sensors,O=Acme\, Inc.,C=DE`},
		{Name: "seventeen", Subject: `CN=device-17,OU=Sensors,O=Acme\, Inc.,C=DE`},
	}
	names := []string{"device-17", "d17@plant", "device-17.PLANT", "spiffe://plant/device-17", `CN=device-17,OU=Sensors,O=Acme\, Inc.,C=DE`, "seventeen"}
	var a access
	for i := range marks {
		known := append([]config.Certificate{{CommonName: "device-18"}, {URI: "spiffe://plant/device-1"}, {Subject: "CN=device-17"}}, marks[:i+1]...)
		if i == len(marks)-1 {
			known = append(known[:3+i-1], marks[i])
		}
		a.fill(&trust.Trust{}, &config.Auth{Certificates: known})
		if id := a.Certificate(cert); id == nil || id.Name != names[i] {
			t.Errorf("with %+v: %+v, expecting %s", marks[i], id, names[i])
		}
	}
	a.fill(&trust.Trust{}, &config.Auth{Certificates: []config.Certificate{{CommonName: "device-18"}, {Subject: "CN=device-17"}, {DNS: "plant"}}})
	if id := a.Certificate(cert); id != nil {
		t.Errorf("%+v, expecting nobody", id)
	}
}
