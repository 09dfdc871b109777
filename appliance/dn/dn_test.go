package dn

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

// subject is C=DE, O=Acme, Inc. and so on in the order of a certificate.
func subject(t testing.TB) Name {
	t.Helper()
	oid := func(s ...int) asn1.ObjectIdentifier { return s }
	der, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: oid(2, 5, 4, 6), Value: "DE"}},
		{{Type: oid(2, 5, 4, 10), Value: "Acme, Inc."}},
		{{Type: oid(0, 9, 2342, 19200300, 100, 1, 25), Value: "edge"}},
		{{Type: oid(2, 5, 4, 3), Value: "device-17 "}, {Type: oid(2, 5, 4, 5), Value: "Ü7"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := Of(der)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWaysToWriteOneName(t *testing.T) {
	want := subject(t)
	for _, s := range []string{
		`CN=device-17\ +serialNumber=\C3\9C7,DC=edge,O=Acme\, Inc.,C=DE`,
		`serialNumber=Ü7 + cn="device-17 ", dc=edge ; o="Acme, Inc.", c=DE`,
		`2.5.4.3=device-17\20+OID.2.5.4.5=#0C03C39C37,0.9.2342.19200300.100.1.25=edge,O=Acme\2C Inc.,C=DE`,
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, expecting %s", s, got, err, want)
		}
	}
}

func TestOtherNames(t *testing.T) {
	same := subject(t)
	for _, s := range []string{
		`CN=device-17+serialNumber=Ü7,DC=edge,O=Acme\, Inc.,C=DE`,   // without the space
		`C=DE,O=Acme\, Inc.,DC=edge,CN=device-17\ +serialNumber=Ü7`, // the wrong way round
		`CN=device-17\ ,serialNumber=Ü7,DC=edge,O=Acme\, Inc.,C=DE`, // one part too many
		`CN=Device-17\ +serialNumber=Ü7,DC=edge,O=Acme\, Inc.,C=DE`, // another value
		`CN=device-17\ +serialNumber=Ü7,OU=edge,O=Acme\, Inc.,C=DE`, // another type
		`CN=device-17\ +serialNumber=Ü7,DC=edge,O="Acme\"\, Inc.",C=DE`,
	} {
		if got, err := Parse(s); err != nil || got == same {
			t.Errorf("%s: %s, %v, expecting another name", s, got, err)
		}
	}
}

func TestWhatIsNotAName(t *testing.T) {
	for s, want := range map[string]string{
		``:               `""; expecting type=value`,
		`device-17`:      `"device-17"; expecting type=value`,
		`CN=a,b`:         `"b"; expecting type=value`,
		`CN=a,`:          `""; expecting type=value`,
		`CN=`:            `CN is empty; expecting a value`,
		`XY=a`:           `"XY"; expecting CN, OU, O, DC, UID, C, L, ST, emailAddress or another type of RFC 4514, or its number`,
		`CN=a\z`:         `\z; expecting one of , ; + " \ < > = # or a space after a backslash, or two hexadecimal digits`,
		`CN="a`:          `"a"; expecting a closing quote`,
		`CN="a"b`:        `"b" after a quoted value; expecting a comma`,
		`CN=#0C0`:        `#0C0: encoding/hex: odd length hex string`,
		`CN=#0C02C39C37`: `#0C02C39C37; expecting the encoding of one value`,
	} {
		if got, err := Parse(s); err == nil || err.Error() != want {
			t.Errorf("%s: %s, %v, expecting %s", s, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`CN=device-17\ +serialNumber=\C3\9C7,DC=edge,O=Acme\, Inc.,C=DE`)
	f.Add(`cn="a;b" ; 2.5.4.3=#0C03C39C37`)
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err == nil && n == "" {
			t.Errorf("%q: neither a name nor an error", s)
		}
	})
}
