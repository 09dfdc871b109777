package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/storage"
)

// errNoBox means that no process has the data directory open.
var errNoBox = errors.New("no box runs on it")

// box finds the appliance: by --endpoint, or by what the one that runs on the
// data directory has written there.
func (a *app) box() (*remote.Box, error) {
	endpoint := a.Endpoint
	if endpoint == "" {
		var err error
		if endpoint, err = a.localEndpoint(); err != nil {
			return nil, err
		}
	}
	id, secret, err := a.accessKey()
	if err != nil {
		return nil, err
	}
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	return remote.New(endpoint, id, secret, roots)
}

// localEndpoint reads the URL of the box that runs on the data directory. One that was
// killed leaves its URL behind, and what answers there now may be another box: so the
// lock on the directory is asked, too, where it can be.
func (a *app) localEndpoint() (string, error) {
	url, err := appliance.ReadEndpoint(a.Dir)
	if err == nil {
		if held, _, unknown := storage.Holder(appliance.StorePath(a.Dir)); held || unknown != nil {
			return url, nil
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", appliance.DirectoryFault(a.Dir, err)
	}
	return "", &fault.Error{
		Class: fault.Environment, Subject: "data directory", Value: a.Dir, Err: errNoBox,
		Try: fmt.Sprintf("weir serve --dir %s, or --endpoint URL for a box elsewhere", a.Dir),
	}
}

// accessKey finds the access key: the environment's, or the data directory's.
func (a *app) accessKey() (id, secret string, err error) {
	if id, secret = a.env("WEIR_ACCESS_KEY_ID"), a.env("WEIR_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		return id, secret, nil
	}
	id, secret, err = trust.ReadCredentials(filepath.Join(a.trustDir(), trust.CredentialsFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = &fault.Error{Class: fault.Environment, Subject: "access key", Expect: "none found", Try: "set WEIR_ACCESS_KEY_ID and WEIR_SECRET_ACCESS_KEY, or name the box's data directory with --dir"}
	}
	return id, secret, err
}

const caAdvice = "--ca with a file that weir trust ca has written on the box"

// roots returns the authorities to trust: --ca, or the data directory's and the very
// certificate that its box shows, whoever signed that, or, for a box elsewhere, the
// system's.
func (a *app) roots() (*x509.CertPool, error) {
	file := a.CA
	if file == "" {
		file = filepath.Join(a.trustDir(), trust.CAFile)
		if !exists(file) {
			return nil, nil
		}
	}
	data, err := readFile(file, caAdvice)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		f := &fault.Error{Class: fault.Environment, Subject: "authority", Value: file, Expect: "no certificate in it; expecting PEM", Try: caAdvice}
		if a.CA != "" {
			f.Class = fault.Usage
		}
		return nil, f
	}
	if a.CA == "" {
		if shown, err := os.ReadFile(filepath.Join(a.Dir, appliance.ShownCertificateFile)); err == nil {
			pool.AppendCertsFromPEM(shown)
		}
	}
	return pool, nil
}

func (a *app) trustDir() string { return filepath.Join(a.Dir, appliance.TrustDir) }
