package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

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
