package client_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/sink/client"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

func TestTrustsTheGivenCertificatesOnly(t *testing.T) {
	cert, key := sinktest.Certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	for _, c := range []struct {
		ca, fails string
	}{{"", "certificate"}, {cert, ""}} {
		h, err := client.New(c.ca, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Get(s.URL)
		if err == nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("ca %q: %v", c.ca, err)
		}
		h.CloseIdleConnections()
	}
}

func TestRefusesWhatIsNoCertificate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ca.pem")
	if _, err := client.New(name, 0); err == nil || !strings.Contains(err.Error(), "ca_file: ") {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(name, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.New(name, 0); err == nil || !strings.Contains(err.Error(), name+" has no PEM certificate") {
		t.Errorf("a file without one: %v", err)
	}
}
