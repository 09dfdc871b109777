package appliance

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/trust"
)

// TestCertificateIsRenewedWhileTheBoxRuns: it may run for longer than a certificate
// holds, and its address may change meanwhile.
func TestCertificateIsRenewedWhileTheBoxRuns(t *testing.T) {
	started := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	hosts := []string{"box", "192.0.2.7"}
	b := &box{log: slog.New(slog.DiscardHandler)}
	b.cert.file = filepath.Join(t.TempDir(), ShownCertificateFile)
	b.mu.config = &config.Loaded{Config: config.Default()}
	var err error
	if b.trust, err = trust.Open(filepath.Join(t.TempDir(), "trust"), hosts, started); err != nil {
		t.Fatal(err)
	}
	if err := b.cert.load(&b.mu.config.Listen, b.trust); err != nil {
		t.Fatal(err)
	}
	shown := func() *x509.Certificate {
		pair, err := b.cert.get()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	first := shown()
	open, err := os.Open(b.cert.file) // as the command line may have it just then
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, c := range []struct {
		what  string
		hosts []string
		at    time.Time
		again bool
	}{
		{"nothing new", hosts, started.Add(time.Hour), false},
		{"another address", []string{"box", "192.0.2.8"}, started.Add(time.Hour), true},
		{"near its end", hosts, started.Add(810 * 24 * time.Hour), true},
	} {
		before := shown()
		if err := b.renewCertificate(c.hosts, c.at); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if again := !shown().Equal(before); again != c.again {
			t.Errorf("%s: another certificate is shown: %v", c.what, again)
		}
	}
	last := shown()
	was, err := io.ReadAll(open)
	if err != nil {
		t.Fatal(err)
	}
	is, err := os.ReadFile(b.cert.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		what string
		data []byte
		want *x509.Certificate
	}{{"before", was, first}, {"after", is, last}} {
		if block, _ := pem.Decode(f.data); block == nil || !bytes.Equal(block.Bytes, f.want.Raw) {
			t.Errorf("the file that shows the certificate, %s: %q", f.what, f.data)
		}
	}
	if err := last.VerifyHostname("192.0.2.8"); err != nil || !last.NotAfter.After(first.NotAfter.AddDate(2, 0, 0)) {
		t.Errorf("it ends at %v, the first at %v; %v", last.NotAfter, first.NotAfter, err)
	}
}
