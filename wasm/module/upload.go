package module

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/weirhq/weir/wasm/manifest"
)

func chunks(size int64) int { return int((size + ChunkBytes - 1) / ChunkBytes) }

func chunkKey(digest []byte, n int) []byte {
	k := append([]byte("b/"), digest...)
	return binary.BigEndian.AppendUint32(append(k, '/'), uint32(n))
}

func mustDigest(s string) []byte {
	d, err := hex.DecodeString(s)
	if err != nil || len(d) != sha256.Size {
		panic("BUG: stored module digest " + s)
	}
	return d
}

// ParseDigest reads a hex SHA-256.
func ParseDigest(s string) ([]byte, error) {
	d, err := hex.DecodeString(s)
	if err != nil || len(d) != sha256.Size {
		return nil, fmt.Errorf("%w: digest %q; expecting 64 hex digits", ErrUpload, s)
	}
	return d, nil
}

// PutChunk stores piece n of the module with this digest: ChunkBytes bytes, the
// last one fewer. It may be repeated, and pieces may come in any order. Nothing
// is accepted before Add. Uploads that nobody finishes are dropped when others
// need the room.
func (c *Catalog) PutChunk(ctx context.Context, digest []byte, n int, data []byte) error {
	if len(digest) != sha256.Size || n < 0 || len(data) == 0 || len(data) > ChunkBytes {
		return fmt.Errorf("%w: piece %d of %d bytes; expecting 1 to %d bytes", ErrUpload, n, len(data), ChunkBytes)
	}
	if int64(n)*ChunkBytes+int64(len(data)) > c.o.MaxBytes {
		return fmt.Errorf("%w: above %d bytes", ErrTooLarge, c.o.MaxBytes)
	}
	c.write.Lock()
	defer c.write.Unlock()
	if c.isClosed() {
		return ErrClosed
	}
	if c.known(digest) {
		return nil // the same bytes are here already
	}
	var changes []Change
	if !c.uploading[string(digest)] {
		var err error
		if changes, err = c.makeRoom(ctx, digest); err != nil {
			return err
		}
	}
	changes = append(changes, Change{Key: chunkKey(digest, n), Value: data})
	if err := c.o.Store.Commit(ctx, changes); err != nil {
		return fmt.Errorf("upload module: store: %w", err)
	}
	c.uploading[string(digest)] = true
	return nil
}

// known reports whether a version with this digest is in the catalogue.
func (c *Catalog) known(digest []byte) bool {
	for _, e := range *c.mods.Load() {
		for _, v := range e.row.Versions {
			if v.Digest == hex.EncodeToString(digest) {
				return true
			}
		}
	}
	return false
}

// makeRoom returns the deletion of unfinished uploads other than digest's when
// there are too many.
func (c *Catalog) makeRoom(ctx context.Context, digest []byte) ([]Change, error) {
	var changes []Change
	pending := map[string]bool{}
	err := c.o.Store.Scan(ctx, []byte("b/"), func(key, _ []byte) error {
		d := key[2 : 2+sha256.Size]
		if !bytes.Equal(d, digest) && !c.known(d) {
			pending[string(d)] = true
			changes = append(changes, Change{Key: bytes.Clone(key)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("upload module: %w", err)
	}
	if len(pending) < maxUploads {
		return nil, nil
	}
	clear(c.uploading)
	return changes, nil
}

// Upload stores a module read from r, at most Options.MaxBytes, piece by piece,
// and returns its digest. The digest must be known beforehand.
func (c *Catalog) Upload(ctx context.Context, digest []byte, r io.Reader) error {
	buf := make([]byte, ChunkBytes)
	for n := 0; ; n++ {
		k, err := io.ReadFull(r, buf)
		if k > 0 {
			if err := c.PutChunk(ctx, digest, n, buf[:k]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("upload module: %w", err)
		}
	}
}

// bytesOf reads a module's bytes and checks them against the digest.
func (c *Catalog) bytesOf(ctx context.Context, digest []byte, size int64) ([]byte, error) {
	out := make([]byte, 0, size)
	for n := 0; int64(len(out)) < size; n++ {
		b, err := c.o.Store.Get(ctx, chunkKey(digest, n))
		if err != nil {
			return nil, fmt.Errorf("read module: %w", err)
		}
		if b == nil {
			return nil, fmt.Errorf("%w: piece %d of %d is missing", ErrUpload, n, chunks(size))
		}
		out = append(out, b...)
	}
	if d := sha256.Sum256(out); int64(len(out)) != size || !bytes.Equal(d[:], digest) {
		return nil, fmt.Errorf("%w: %d bytes with SHA-256 %x; expecting %d bytes with %x", ErrUpload, len(out), d, size, digest)
	}
	return out, nil
}

// Addition is a module that has been uploaded and is to become a version.
type Addition struct {
	Digest    []byte // SHA-256
	Size      int64
	Manifest  []byte // YAML
	Signature []byte // 64 bytes, or none
}

// Add makes an uploaded module a version of the module its manifest names. It
// verifies the signature, compiles the module, instantiates it once, and runs
// the manifest's test vectors; only then is it stored, inactive. The oldest
// version that is neither active nor the previous one makes room for it. Adding
// the same content again changes nothing but the signature, for one by a trusted key. Errors: manifest.Problems, ErrUpload,
// ErrSignature, ErrVectors, ErrExists, ErrFull, and those of compiling.
func (c *Catalog) Add(ctx context.Context, a Addition) (Info, error) {
	m, err := manifest.Parse(a.Manifest)
	if err != nil {
		return Info{}, err
	}
	if a.Size <= 0 || a.Size > c.o.MaxBytes {
		return Info{}, fmt.Errorf("module %s: %w: %d bytes; expecting 1 to %d", m.Name, ErrTooLarge, a.Size, c.o.MaxBytes)
	}
	r := versionRow{Version: m.Version, Digest: hex.EncodeToString(a.Digest), Size: a.Size, Manifest: a.Manifest, Signature: a.Signature, Uploaded: c.o.Now()}
	if r.SignedBy, r.Warning, err = c.verify(a.Digest, a.Manifest, a.Signature); err != nil {
		return Info{}, fmt.Errorf("module %s %s: %w", m.Name, m.Version, err)
	}
	v, err := c.newVersion(m.Name, &r)
	if err != nil {
		return Info{}, err
	}
	if err := c.try(ctx, v); err != nil {
		v.close()
		return Info{}, fmt.Errorf("module %s %s: %w", m.Name, m.Version, err)
	}
	err = c.change(ctx, m.Name, func(e *entry) ([]Change, error) { return c.insert(e, v, r) })
	if errors.Is(err, errSame) {
		err = nil
	}
	if have, _ := c.Version(m.Name, m.Version); have != v {
		v.close()
	}
	if err != nil {
		return Info{}, err
	}
	return c.Describe(m.Name)
}

// errSame ends a change that would change nothing.
var errSame = errors.New("the same version is there already")

func (c *Catalog) insert(e *entry, v *Version, r versionRow) ([]Change, error) {
	if old := e.row.version(r.Version); old != nil {
		if old.Digest == r.Digest && bytes.Equal(old.Manifest, r.Manifest) {
			if r.SignedBy == "" || r.SignedBy == old.SignedBy && bytes.Equal(r.Signature, old.Signature) {
				return nil, errSame
			}
			old.Signature, old.SignedBy, old.Warning = r.Signature, r.SignedBy, ""
			e.versions[r.Version].bar(nil)
			return nil, nil
		}
		return nil, fmt.Errorf("version %s: %w; give it a new version", r.Version, ErrExists)
	}
	if len(e.row.Versions) == 0 && len(*c.mods.Load()) >= MaxModules {
		return nil, fmt.Errorf("%w: %d modules", ErrFull, MaxModules)
	}
	for _, o := range e.versions {
		if o.Manifest.Kind != v.Manifest.Kind {
			return nil, fmt.Errorf("%w: its versions are %ss; this one is a %s", ErrKind, o.Manifest.Kind, v.Manifest.Kind)
		}
	}
	var changes []Change
	for len(e.row.Versions) >= MaxVersions {
		oldest := ""
		for _, o := range e.row.Versions {
			if o.Version != e.row.Active && o.Version != e.row.Previous {
				oldest = o.Version
				break
			}
		}
		changes = append(changes, c.dropVersion(e, oldest)...)
	}
	e.row.Versions = append(e.row.Versions, r)
	e.versions[r.Version] = v
	return changes, nil
}

// try loads a version and runs its test vectors. What that counted and logged
// is not kept, and nothing stays loaded.
func (c *Catalog) try(ctx context.Context, v *Version) error {
	results, err := v.RunVectors(ctx)
	v.forget()
	if err != nil {
		return err
	}
	for _, r := range results {
		if len(r.Problems) > 0 {
			return fmt.Errorf("%w: %s: %s", ErrVectors, r.Name, r.Problems[0])
		}
	}
	return nil
}
