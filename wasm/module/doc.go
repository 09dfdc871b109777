// Package module is the catalogue of a box's modules: it takes uploads, checks
// their signatures, compiles and tries them before they are accepted, keeps
// three versions of each, and says which one is active.
//
// It owns the module rows and bytes in a small Store it declares. Activation
// and rollback write one row and swap one pointer; a version that fails more
// than its budget soon after it became active is rolled back by itself. A
// shadow version sees live batches and has no effect but a count of what it
// did otherwise. It never runs a module that the signature policy refuses, accepted under another policy or not, and
// never hands out module bytes whose SHA-256 isn't the row's.
//
//	m/NAME              one JSON row a module: versions, active, shadow
//	s/NAME/VERSION      one JSON row a version: its counters and last log lines
//	b/DIGEST/CHUNK      256 KiB of a module's bytes (32-byte digest, u32 number)
package module

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weirhq/weir/wasm/manifest"
)

// Limits of the catalogue.
const (
	DefaultMaxBytes = 8 << 20 // size of a module
	MaxModules      = 256
	MaxVersions     = 3
	// ChunkBytes is the size of the pieces a module is uploaded and stored in.
	ChunkBytes = 256 << 10
	// maxUploads bounds uploads that were begun and not finished.
	maxUploads = 4
)

// What the catalogue refuses, and why.
var (
	ErrNotFound    = errors.New("module not found")
	ErrNoVersion   = errors.New("module version not found")
	ErrExists      = errors.New("module version exists with other content")
	ErrTooLarge    = errors.New("module too large")
	ErrFull        = errors.New("module catalogue is full")
	ErrUpload      = errors.New("module upload is not complete")
	ErrSignature   = errors.New("module signature refused")
	ErrVectors     = errors.New("module does not pass its test vectors")
	ErrKind        = errors.New("module is of another kind")
	ErrActive      = errors.New("module version is active")
	ErrShadow      = errors.New("module version can't run as a shadow of the active one")
	ErrNoPrevious  = errors.New("no previous version to go back to")
	ErrUnsupported = errors.New("module contract not supported here")
	ErrClosed      = errors.New("module catalogue is closed")
)

// Change is one write of a Store's Commit. A nil Value deletes the key.
type Change struct{ Key, Value []byte }

// Store keeps the catalogue's rows. Commit makes all of its changes durable or
// none, and has synced them when it returns. Get answers nil, nil for a key
// that isn't there. Keys passed to fn are valid during the call.
type Store interface {
	Get(ctx context.Context, key []byte) ([]byte, error)
	Scan(ctx context.Context, prefix []byte, fn func(key, value []byte) error) error
	Commit(ctx context.Context, changes []Change) error
}

// row is a module as it is stored.
type row struct {
	Name     string       `json:"name"`
	Active   string       `json:"active,omitempty"`   // version
	Previous string       `json:"previous,omitempty"` // version that was active before
	Shadow   string       `json:"shadow,omitempty"`
	Versions []versionRow `json:"versions"` // oldest first
}

type versionRow struct {
	Version   string    `json:"version"`
	Digest    string    `json:"digest"` // hex SHA-256 of the module
	Size      int64     `json:"size"`
	Manifest  []byte    `json:"manifest"` // the YAML as it was signed
	Signature []byte    `json:"signature,omitempty"`
	SignedBy  string    `json:"signed_by,omitempty"` // fingerprint of the trusted key
	Warning   string    `json:"warning,omitempty"`
	Uploaded  time.Time `json:"uploaded"`
	Activated time.Time `json:"activated,omitzero"`
	Failure   string    `json:"failure,omitempty"` // why it was rolled back
}

// Info describes a module for people.
type Info struct {
	Name     string        `json:"name"`
	Kind     manifest.Kind `json:"kind"`
	Active   string        `json:"active,omitempty"`
	Previous string        `json:"previous,omitempty"`
	Shadow   string        `json:"shadow,omitempty"`
	Versions []VersionInfo `json:"versions"` // newest first
}

// VersionInfo describes one version of a module.
type VersionInfo struct {
	Version   string    `json:"version"`
	Digest    string    `json:"digest"`
	SizeBytes int64     `json:"size_bytes"`
	SignedBy  string    `json:"signed_by,omitempty"`
	Warning   string    `json:"warning,omitempty"` // about its signature
	Barred    bool      `json:"barred,omitempty"`  // the signature policy does not let it run; Warning says why
	Uploaded  time.Time `json:"uploaded"`
	Activated time.Time `json:"activated,omitzero"`
	Failure   string    `json:"failure,omitempty"`
	Stats     Stats     `json:"stats"`
}

// find is version with an error that says what is missing.
func (r *row) find(v string) (*versionRow, error) {
	if len(r.Versions) == 0 {
		return nil, ErrNotFound
	}
	if found := r.version(v); found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("version %q: %w", v, ErrNoVersion)
}

func (r *row) version(v string) *versionRow {
	for i := range r.Versions {
		if r.Versions[i].Version == v {
			return &r.Versions[i]
		}
	}
	return nil
}
