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

// checkManifest returns an error when the manifest that is named in a listing of dir
// breaks off before its end. Pebble reads it up to the first record that is not whole,
// as after a crash in the middle of the last one; the tables of all later ones would be
// obsolete to it, and go. It also returns the tables that the manifest names, nil when
// it does not know them: then it is to be asked of Pebble.
func checkManifest(fs vfs.FS, dir string, listing []string) ([]manifestTable, error) {
	marker, name, err := atomicfs.LocateMarkerInListing(fs, dir, "manifest", listing)
	if err != nil {
		return nil, ignoreNotExist(err) // Pebble says so too
	}
	if err := marker.Close(); err != nil || name == "" {
		return nil, err
	}
	f, err := fs.Open(fs.PathJoin(dir, name))
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	var named manifestTables
	_, known, err := wholeRecords(f, &named)
	if err = errors.Join(err, f.Close()); err == nil {
		if !known || !named.end(listing) {
			return nil, nil
		}
		return named.tables, nil
	}
	// Only now is all of it needed at once.
	b, err := readFile(fs, fs.PathJoin(dir, name))
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	at, _, err := wholeRecords(bytes.NewReader(b), nil)
	if err == nil {
		return nil, nil
	}
	if next, ok := wholeChunk(b, at+1); ok {
		return nil, fmt.Errorf("%s is damaged: nothing whole at %d, but at %d", name, at, next)
	}
	return nil, nil
}

// wholeRecords reads records up to the end, or to the first one that can't be read: it
// returns where that begins, and why. It applies each to named, unless that is nil, and
// says whether that went well.
func wholeRecords(from io.Reader, named *manifestTables) (at int64, known bool, err error) {
	r := record.NewReader(from, 0)
	known = named != nil
	var edit bytes.Buffer
	for {
		at = r.Offset()
		rec, err := r.Next()
		if err == nil && known {
			edit.Reset()
			_, err = edit.ReadFrom(io.LimitReader(rec, maxEditBytes+1))
			known = edit.Len() <= maxEditBytes
		}
		if err == nil {
			_, err = io.Copy(io.Discard, rec)
		}
		if errors.Is(err, io.EOF) {
			return at, known, nil
		}
		if err != nil {
			return at, false, err
		}
		known = known && named.add(edit.Bytes()) == nil
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
