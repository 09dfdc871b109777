package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/sink/client"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

func TestTrustsTheGivenCertificatesOnly(t *testing.T) {
	s, cert := sinktest.TLSServer(t, func(http.ResponseWriter, *http.Request) {})
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

// TestSessionsAreTakenUp: a connection that was idle too long is not paid for in full again.
func TestSessionsAreTakenUp(t *testing.T) {
	var resumed []bool
	s, ca := sinktest.TLSServer(t, func(w http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.TLS.DidResume)
	})
	h, err := client.New(ca, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		resp, err := h.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		h.CloseIdleConnections()
	}
	if fmt.Sprint(resumed) != "[false true true]" {
		t.Errorf("sessions were taken up: %v", resumed)
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
