package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tableFile is a table that is read. When the checksum of a block is wrong, Pebble
// flips one bit after the other, up to 327,680, to name the one that makes it right:
// seconds for a block of 64 KiB and minutes for one of a large record, each time. So
// the checksum is looked at here first, and the read fails.
type tableFile struct {
	vfs.File
	bytes int64
}

// openTable wraps a table opened for reading.
func openTable(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &tableFile{File: f, bytes: info.Size()}, nil
}

// ReadAt reads a block, which ends with one byte for its compression and the masked
// CRC-32C (4 bytes) of all before it, or the table's footer, which has neither.
func (t *tableFile) ReadAt(p []byte, at int64) (int, error) {
	const trailer = 5
	n, err := t.File.ReadAt(p, at)
	if err != nil || n < trailer || at+int64(n) >= t.bytes {
		return n, err
	}
	body := n - trailer + 1
	if got, want := maskedChecksum(p[:body]), binary.LittleEndian.Uint32(p[body:n]); got != want {
		return 0, fmt.Errorf("%w: block of %d bytes at %d: checksum %08x, stored %08x", pebble.ErrCorruption, body-1, at, got, want)
	}
	return n, nil
}

// maskedChecksum is what Pebble stores as the CRC-32C of b.
func maskedChecksum(b []byte) uint32 {
	sum := crc32.Checksum(b, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

// tableWriteBytes is how much of a table is handed to the file system at once.
const tableWriteBytes = 128 << 10

var tableBuffers = sync.Pool{New: func() any { return new([tableWriteBytes]byte) }}

// tableWriter is a table that is written. Pebble writes a block of 32 KiB as 4 KiB and
// the rest, neither aligned, which costs the kernel twice what large writes do: a
// twentieth of all CPU of an append.
type tableWriter struct {
	vfs.File
	buf     *[tableWriteBytes]byte
	n       int   // bytes of buf that were not written yet
	written int64 // bytes that were
	err     error // of an earlier write
	name    string
	pages   *tablePages
}

func writeTable(f vfs.File, name string, pages *tablePages) vfs.File {
	return &tableWriter{File: f, name: name, pages: pages, buf: tableBuffers.Get().(*[tableWriteBytes]byte)}
}

func (t *tableWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if t.err != nil {
			return 0, t.err
		}
		n := copy(t.buf[t.n:], rest)
		rest = rest[n:]
		if t.n += n; t.n == len(t.buf) {
			_ = t.flush() // its error is t.err
		}
	}
	return len(p), t.err
}

func (t *tableWriter) flush() error {
	if t.err == nil && t.n > 0 {
		var n int
		if n, t.err = t.File.Write(t.buf[:t.n]); t.err == nil && n < t.n {
			t.err = io.ErrShortWrite
		}
		t.written += int64(n)
		t.n = 0
	}
	return t.err
}

func (t *tableWriter) Sync() error {
	if err := t.flush(); err != nil {
		return err
	}
	return t.File.Sync()
}

func (t *tableWriter) SyncData() error {
	if err := t.flush(); err != nil {
		return err
	}
	return t.File.SyncData()
}

// SyncTo asks for what lies before length only.
func (t *tableWriter) SyncTo(length int64) (bool, error) {
	if length > t.written {
		if err := t.flush(); err != nil {
			return false, err
		}
	}
	return t.File.SyncTo(length)
}

func (t *tableWriter) Stat() (vfs.FileInfo, error) {
	if err := t.flush(); err != nil {
		return nil, err
	}
	return t.File.Stat()
}

func (t *tableWriter) Close() error {
	onDisk := t.File.Fd() != vfs.InvalidFd
	err := errors.Join(t.flush(), t.File.Close())
	if t.buf == nil {
		return err
	}
	tableBuffers.Put(t.buf)
	t.buf = nil
	if onDisk {
		t.pages.wrote(t.name, t.written)
	}
	return err
}
