package host

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// codeCache is a directory of compiled modules, as wazero writes them, with
// a seal of ours beside each. What is in a cache file is machine code that the
// process will run, and wazero only protects it with a CRC: so a file is
// loaded only when its seal, a MAC with a key that stays on the box, fits.
//
//	<dir>/key                          32 random bytes, unless a key is given
//	<dir>/wazero-<version>-<arch>-<os>/<wazero's key>     compiled code
//	<dir>/<SHA-256 of the rewritten module>.seal          "<path of the code> <HMAC-SHA-256>\n"
//	<dir>/work-*/                      a compile child at work
//
// The directory is 0700. Above limit bytes the entries that were not used for
// longest are removed.
type codeCache struct {
	dir    string
	key    []byte
	limit  int64
	logger *slog.Logger
}

func openCodeCache(dir string, key []byte, limit int64, logger *slog.Logger) (*codeCache, error) {
	c := &codeCache{dir: dir, key: key, limit: limit, logger: logger}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("compile cache: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("compile cache: %w", err)
	}
	if len(c.key) == 0 {
		if err := c.loadKey(); err != nil {
			return nil, fmt.Errorf("compile cache: key: %w", err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "work-*"))
	if err != nil {
		return nil, fmt.Errorf("compile cache: %w", err)
	}
	for _, work := range left { // of a process that was killed
		if err := os.RemoveAll(work); err != nil {
			return nil, fmt.Errorf("compile cache: %w", err)
		}
	}
	return c, nil
}

func (c *codeCache) loadKey() error {
	path := filepath.Join(c.dir, "key")
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 32 {
		c.key = b
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// There is no key, or a torn one: the seals made with it are worth nothing, and everything compiles again.
	c.key = make([]byte, 32)
	_, _ = rand.Read(c.key) // documented never to fail
	return writeFile(path, c.key)
}

// writeFile writes a file as a whole or not at all.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

func (c *codeCache) sealPath(wasm [32]byte) string {
	return filepath.Join(c.dir, hex.EncodeToString(wasm[:])+".seal")
}

// mac binds the code to the module it was compiled from and to its place.
func (c *codeCache) mac(wasm [32]byte, path string, code io.Reader) ([]byte, error) {
	h := hmac.New(sha256.New, c.key)
	fmt.Fprintf(h, "weir compiled module\n%x\n%s\n", wasm, path)
	_, err := io.Copy(h, code)
	return h.Sum(nil), err
}

// verify reports whether the cache has the code of the module and its seal
// fits. An entry whose seal does not fit is removed: it is derived data.
func (c *codeCache) verify(wasm [32]byte) (bool, error) {
	seal, err := os.ReadFile(c.sealPath(wasm))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	path, want, _ := strings.Cut(strings.TrimSuffix(string(seal), "\n"), " ")
	if !filepath.IsLocal(path) {
		return false, c.remove(wasm, "")
	}
	f, err := os.Open(filepath.Join(c.dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, c.remove(wasm, "")
	} else if err != nil {
		return false, err
	}
	got, err := c.mac(wasm, path, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if !hmac.Equal([]byte(hex.EncodeToString(got)), []byte(want)) {
		c.logger.Warn("compiled module in the cache does not fit its seal; compiling it again", "path", filepath.Join(c.dir, path))
		return false, c.remove(wasm, path)
	}
	now := time.Now()
	return true, os.Chtimes(c.sealPath(wasm), now, now)
}

func (c *codeCache) remove(wasm [32]byte, path string) error {
	err := os.Remove(c.sealPath(wasm))
	if path != "" {
		err = errors.Join(err, os.Remove(filepath.Join(c.dir, path)))
	}
	return err
}

// adopt moves what a compile child left at work into the cache and seals it.
// It reports false when the child left nothing, as wazero's interpreter does.
func (c *codeCache) adopt(wasm [32]byte, work string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(work, "wazero-*", "*"))
	if err != nil || len(files) == 0 {
		return false, err
	}
	if len(files) != 1 {
		return false, fmt.Errorf("compile child left %d files; one was expected", len(files))
	}
	path, err := filepath.Rel(work, files[0])
	if err != nil {
		return false, err
	}
	f, err := os.Open(files[0])
	if err != nil {
		return false, err
	}
	mac, err := c.mac(wasm, path, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(c.dir, path)), 0o700); err != nil {
		return false, err
	}
	if err := os.Rename(files[0], filepath.Join(c.dir, path)); err != nil {
		return false, err
	}
	if err := writeFile(c.sealPath(wasm), fmt.Appendf(nil, "%s %x\n", path, mac)); err != nil {
		return false, err
	}
	return true, c.trim(wasm)
}

// trim removes entries, longest unused first, until the rest fits the limit. It keeps the one of wasm.
func (c *codeCache) trim(keep [32]byte) error {
	seals, err := filepath.Glob(filepath.Join(c.dir, "*.seal"))
	if err != nil {
		return err
	}
	type entry struct {
		seal, code string
		used       time.Time
		size       int64
	}
	var entries []entry
	var total int64
	for _, seal := range seals {
		b, err := os.ReadFile(seal)
		if err != nil {
			return err
		}
		at, err := os.Stat(seal)
		if err != nil {
			return err
		}
		path, _, _ := strings.Cut(string(b), " ")
		e := entry{seal: seal, used: at.ModTime()}
		if filepath.IsLocal(path) {
			e.code = filepath.Join(c.dir, path)
			if code, err := os.Stat(e.code); err == nil {
				e.size = code.Size()
			}
		}
		total += e.size
		entries = append(entries, e)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].used.Before(entries[j].used) })
	for _, e := range entries {
		if total <= c.limit {
			return nil
		}
		if e.seal == c.sealPath(keep) {
			continue
		}
		total -= e.size
		if err := os.Remove(e.seal); err != nil {
			return err
		}
		if err := os.Remove(e.code); e.code != "" && err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
