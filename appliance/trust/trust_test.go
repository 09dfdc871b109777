package trust

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/fault"
)

var now = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, hosts []string, at time.Time) *Trust {
	t.Helper()
	tr, err := Open(dir, hosts, at)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// verifies says whether a client that trusts the box's authority accepts it
// under the name at the time.
func verifies(t *testing.T, tr *Trust, host string, at time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(tr.CA) {
		t.Fatal("the authority is not PEM")
	}
	leaf, err := x509.ParseCertificate(tr.Server.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at})
	return err
}

func TestFirstStartMakesEverythingOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "trust")
	first := open(t, dir, []string{"box", "192.0.2.7"}, now)
	if !first.Unshown || len(first.AccessKeyID) != 20 || len(first.SecretAccessKey) != 40 || len(first.AdminPassword) != 24 {
		t.Errorf("made %d %d %d, unshown %v", len(first.AccessKeyID), len(first.SecretAccessKey), len(first.AdminPassword), first.Unshown)
	}
	for _, host := range []string{"box", "192.0.2.7"} {
		if err := verifies(t, first, host, now); err != nil {
			t.Error(err)
		}
	}
	second := open(t, dir, []string{"box"}, now)
	if !second.Unshown || second.SecretAccessKey != first.SecretAccessKey || second.AdminPassword != first.AdminPassword ||
		!bytes.Equal(second.CA, first.CA) || !bytes.Equal(second.Server.Certificate[0], first.Server.Certificate[0]) {
		t.Error("the second start made something again, or takes for shown what nobody saw")
	}
	if err := second.Shown(); err != nil || open(t, dir, []string{"box"}, now).Unshown {
		t.Errorf("the secrets are shown twice: %v", err)
	}
	for _, name := range []string{caKeyFile, serverFile, CredentialsFile, AdminPasswordFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestFirstStartThatWasCutOffBeginsAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trust")
	if err := os.MkdirAll(dir+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir+".new", CAFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if tr := open(t, dir, []string{"box"}, now); !tr.Unshown {
		t.Error("not made")
	}
}

func TestCertificateIsIssuedAgainForANewNameOrNearItsEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trust")
	open(t, dir, []string{"box"}, now)
	renamed := open(t, dir, []string{"box", "newname", "198.51.100.3"}, now)
	for _, host := range []string{"box", "newname", "198.51.100.3"} {
		if err := verifies(t, renamed, host, now); err != nil {
			t.Error(err)
		}
	}
	later := now.Add(serverLife - renewBefore + time.Hour)
	renewed := open(t, dir, []string{"box"}, later)
	if err := verifies(t, renewed, "newname", later.Add(renewBefore)); err != nil {
		t.Errorf("renewed: %v", err)
	}
	if renewed.AdminPassword != renamed.AdminPassword {
		t.Error("renewal changed the password")
	}
}

// TestCertificateDoesNotGrowWithEachNewAddress: a year of days with an IPv6 address each.
func TestCertificateDoesNotGrowWithEachNewAddress(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trust")
	tr := open(t, dir, []string{"oldname", "box"}, now)
	for day := range 365 {
		hosts := []string{"box", "192.0.2.7", fmt.Sprintf("2001:DB8::%d", day+1)}
		for again := range 2 {
			if renewed, err := tr.Renew(hosts, now); err != nil || renewed == (again == 1) {
				t.Fatalf("day %d: issued again: %v, %v", day, renewed, err)
			}
		}
	}
	leaf, err := x509.ParseCertificate(tr.Server.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if n := len(leaf.DNSNames) + len(leaf.IPAddresses); n != maxHosts {
		t.Errorf("it has %d names and addresses", n)
	}
	for _, host := range []string{"oldname", "box", "192.0.2.7", "2001:db8::365", "2001:db8::364"} {
		if err := verifies(t, tr, host, now); err != nil {
			t.Error(err)
		}
	}
}

func TestClockIn1970MakesACertificateThatHoldsLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trust")
	tr := open(t, dir, []string{"box"}, time.Unix(60, 0))
	for _, at := range []time.Time{ClockFloor, ClockFloor.AddDate(2, 0, 0)} {
		if err := verifies(t, tr, "box", at); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
}

func TestUnreadablePartsAreNamedAndKept(t *testing.T) {
	for _, name := range []string{CAFile, serverFile, CredentialsFile, AdminPasswordFile} {
		dir := filepath.Join(t.TempDir(), "trust")
		open(t, dir, []string{"box"}, now)
		path := filepath.Join(dir, name)
		if name == AdminPasswordFile || name == CAFile {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, []string{"box"}, now)
		var f *fault.Error
		if !errors.As(err, &f) || f.Class != fault.Environment || f.Subject != path {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestHandshakeWithTheBoxsOwnAuthority(t *testing.T) {
	tr := open(t, filepath.Join(t.TempDir(), "trust"), Hosts(), time.Now())
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{tr.Server}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(tr.CA)
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "localhost"}).Handshake(); err != nil {
		t.Error(err)
	}
}

func TestCredentialsWithoutAKeySaySo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("[default]\naws_access_key_id = X\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := ReadCredentials(path)
	if fault.ClassOf(err) != fault.Environment {
		t.Errorf("%v", err)
	}
}

// TestReplaceIsWholeOrNothing: who has the old file open goes on reading it, and what a
// process that was killed left in the way, a link to nowhere even, is no obstacle.
func TestReplaceIsWholeOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := Replace(path, []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := os.Symlink("https://localhost:4900", path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	was, errOld := io.ReadAll(old)
	is, errNew := os.ReadFile(path)
	if string(was) != "first" || string(is) != "second" || errOld != nil || errNew != nil {
		t.Errorf("%q, %v, and %q, %v", was, errOld, is, errNew)
	}
	if err := Replace(dir, []byte("third"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	for _, left := range []string{path + ".new", dir + ".new"} {
		if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", left, err)
		}
	}
}
