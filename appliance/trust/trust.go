// Package trust is what the box and its clients know each other by: a
// certificate authority of the box's own, a server certificate signed by it, an
// access key and an admin password, all made at first start.
//
// It owns the directory they are kept in:
//
//	ca.pem ca.key            the authority, valid for decades; the key is 0600
//	server.pem               certificate and key for the box's names and addresses, in one file so that one
//	                         rename replaces both; issued again when near its end or when a name is new; 0600
//	credentials              the access key, in the form of an AWS credentials file; 0600
//	admin-password           for the console and the admin API; 0600
//	unshown                  there until the secrets were shown: the first start may end before it comes to that
//
// It never listens, never checks a signature and never prints anything: appliance
// hands what is here to the listener, the command line shows it once.
package trust

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/fault"
)

// Names of the files in the directory.
const (
	CAFile            = "ca.pem"
	CredentialsFile   = "credentials"
	AdminPasswordFile = "admin-password"

	caKeyFile   = "ca.key"
	serverFile  = "server.pem"
	unshownFile = "unshown"
)

// Trust is the content of the directory.
type Trust struct {
	Dir             string
	CA              []byte // PEM
	Server          tls.Certificate
	AccessKeyID     string
	SecretAccessKey string
	AdminPassword   string
	Unshown         bool // nobody was shown the secrets yet
}

// Open reads the directory, and makes it first when it is not there. hosts are
// the names and addresses the certificate must have; it is issued again when
// one is missing or when less than 30 days are left at the time now. What it
// writes is on disk when it returns. A file that is there and can't be read is
// a fault of class Environment: nothing is replaced but the server certificate.
func Open(dir string, hosts []string, now time.Time) (*Trust, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, hosts, now); err != nil {
			return nil, unreadable(dir, "cannot make the box's keys", err)
		}
	}
	t, err := Read(dir)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(dir, unshownFile))
	t.Unshown = err == nil
	if _, err := t.Renew(hosts, now); err != nil {
		return nil, unreadable(filepath.Join(dir, serverFile), "cannot issue the server certificate", err)
	}
	return t, nil
}

// Shown says that the secrets were shown: later starts keep them to themselves.
func (t *Trust) Shown() error {
	t.Unshown = false
	return os.Remove(filepath.Join(t.Dir, unshownFile))
}

// Read reads the directory and changes nothing. It fails with an error that
// is fs.ErrNotExist when there was no first start yet.
func Read(dir string) (*Trust, error) {
	t := &Trust{Dir: dir}
	var err error
	if t.CA, err = os.ReadFile(filepath.Join(dir, CAFile)); err != nil {
		return nil, unreadable(filepath.Join(dir, CAFile), "not readable", err)
	}
	if t.AccessKeyID, t.SecretAccessKey, err = ReadCredentials(filepath.Join(dir, CredentialsFile)); err != nil {
		return nil, err
	}
	password, err := os.ReadFile(filepath.Join(dir, AdminPasswordFile))
	if err != nil {
		return nil, unreadable(filepath.Join(dir, AdminPasswordFile), "not readable", err)
	}
	t.AdminPassword = strings.TrimSpace(string(password))
	t.Server, err = tls.LoadX509KeyPair(filepath.Join(dir, serverFile), filepath.Join(dir, serverFile))
	if err != nil {
		return nil, unreadable(filepath.Join(dir, serverFile), "not a certificate with its key", err)
	}
	return t, nil
}

// ReadCredentials reads the access key from a file in the form of an AWS
// credentials file; the first profile that has both parts counts.
func ReadCredentials(path string) (id, secret string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", "", unreadable(path, "not readable", err)
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "aws_access_key_id":
			id = value
		case "aws_secret_access_key":
			secret = value
		}
		if id != "" && secret != "" {
			return id, secret, nil
		}
	}
	return "", "", &fault.Error{Class: fault.Environment, Subject: path, Expect: "no access key in it; expecting the lines aws_access_key_id = … and aws_secret_access_key = …"}
}

func unreadable(path, expect string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		path, err = p.Path, p.Err
	}
	return &fault.Error{Class: fault.Environment, Subject: path, Expect: expect, Err: err, Try: "weir doctor --dir " + filepath.Dir(filepath.Dir(path))}
}

// create makes the directory whole or not at all: it is filled beside its
// place and renamed into it.
func create(dir string, hosts []string, now time.Time) error {
	part := dir + ".new"
	if err := os.RemoveAll(part); err != nil { // a first start that was cut off
		return err
	}
	if err := os.MkdirAll(part, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	server, err := ca.issue(hosts, now)
	if err != nil {
		return err
	}
	credentials := fmt.Sprintf("[default]\naws_access_key_id = WEIR%s\naws_secret_access_key = %s\n", random(16), random(40))
	for _, f := range []struct {
		name string
		mode os.FileMode
		data []byte
	}{
		{CAFile, 0o644, ca.certPEM},
		{caKeyFile, 0o600, ca.keyPEM},
		{serverFile, 0o600, server},
		{CredentialsFile, 0o600, []byte(credentials)},
		{AdminPasswordFile, 0o600, []byte(random(24) + "\n")},
		{unshownFile, 0o600, nil},
	} {
		if err := writeSynced(filepath.Join(part, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	if err := syncDir(part); err != nil {
		return err
	}
	if err := os.Rename(part, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// random returns n characters of five random bits each, easy to read out.
func random(n int) string {
	bits := make([]byte, n)
	_, _ = rand.Read(bits) // never fails: crypto/rand
	return base32.StdEncoding.EncodeToString(bits)[:n]
}

// Replace writes a file of mode in the place of the one at path, if there is one, as a whole
// or not at all. It is on disk on return.
func Replace(path string, data []byte, mode os.FileMode) error {
	part := path + ".new"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that was cut off, perhaps a link
		return err
	}
	err := writeSynced(part, data, mode)
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part) // else the next one does
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
