package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

// checkManifest returns an error when the manifest breaks off before its end. Pebble
// reads it up to the first record that is not whole, as after a crash in the middle
// of the last one; the tables of all later ones would be obsolete to it, and go.
func checkManifest(fs vfs.FS, dir string) error {
	name, err := atomicfs.ReadMarker(fs, dir, "manifest")
	if err != nil || name == "" {
		return ignoreNotExist(err)
	}
	b, err := readFile(fs, fs.PathJoin(dir, name))
	if err != nil {
		return ignoreNotExist(err) // Pebble says so too
	}
	r := record.NewReader(bytes.NewReader(b), 0)
	for {
		at := r.Offset()
		rec, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, rec)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		default:
			if next, ok := wholeChunk(b, at+1); ok {
				return fmt.Errorf("%s is damaged: nothing whole at %d, but at %d", name, at, next)
			}
			return nil
		}
	}
}

func ignoreNotExist(err error) error {
	if vfsNotExist(err) {
		return nil
	}
	return err
}

// wholeChunk finds a chunk of a record whose checksum is right at or behind from.
// A chunk is a masked CRC-32C (4 bytes), a length (2), a type (1) and content; none
// crosses a multiple of 32 KiB.
func wholeChunk(b []byte, from int64) (at int64, ok bool) {
	const header, block = 7, 32 << 10
	for i := from; i+header <= int64(len(b)); i++ {
		length, kind := int64(binary.LittleEndian.Uint16(b[i+4:])), b[i+6]
		end := i + header + length
		if kind < 1 || kind > 4 || length == 0 || end > int64(len(b)) || end > (i/block+1)*block {
			continue
		}
		if binary.LittleEndian.Uint32(b[i:]) == maskedChecksum(b[i+6:end]) {
			return i, true
		}
	}
	return 0, false
}
