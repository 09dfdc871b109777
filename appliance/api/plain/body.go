package plain

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/jsonlite"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/document"
)

// entry is a record as it stands in a body. An empty key means none.
type entry struct{ key, data []byte }

// Media types of bodies with more than one record.
const (
	typeNDJSON = "application/x-ndjson"
	typeBatch  = "application/vnd.weir.batch"
)

var zstdReaders = sync.Pool{}

// decompress returns the body without its Content-Encoding. It reads no more
// than limit bytes out of a compressed body, and holds no more.
func decompress(body []byte, encoding string, limit int) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		if len(body) > limit {
			return nil, tooLarge(limit)
		}
		return body, nil
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, badEncoding("gzip", err)
		}
		return readLimited(r, "gzip", limit)
	case "zstd":
		return unzstd(body, limit)
	}
	return nil, refuse(415, "UnsupportedContentEncoding", fmt.Sprintf("Content-Encoding %.40q; expecting gzip, zstd or identity", encoding))
}

func unzstd(body []byte, limit int) ([]byte, error) {
	r, ok := zstdReaders.Get().(*zstd.Decoder)
	if !ok {
		var err error
		r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, err
		}
	}
	defer func() {
		if err := r.Reset(nil); err == nil {
			zstdReaders.Put(r)
		}
	}()
	if err := r.Reset(bytes.NewReader(body)); err != nil {
		return nil, badEncoding("zstd", err)
	}
	return readLimited(r, "zstd", limit)
}

func readLimited(r io.Reader, name string, limit int) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if len(out) > limit {
		return nil, tooLarge(limit)
	}
	if err != nil {
		return nil, badEncoding(name, err)
	}
	return out, nil
}

func badEncoding(name string, err error) error {
	return refuse(400, "BadEncoding", "the body is not "+name+": "+err.Error())
}

func tooLarge(limit int) *api.Refusal {
	return refuse(413, "TooLarge", fmt.Sprintf("the body, decompressed, is larger than %d bytes", limit))
}

// parse splits a body into at most limit records. The records alias body.
func parse(body []byte, contentType string, limit int) ([]entry, error) {
	media, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case typeNDJSON, "application/jsonl", "application/x-jsonlines":
		return parseLines(body, limit)
	case typeBatch:
		return parseBatch(body, limit)
	}
	return []entry{{data: body}}, nil
}

func tooMany(limit int) *api.Refusal {
	return refuse(413, "TooManyRecords", fmt.Sprintf("the request has more than %d records", limit))
}

// parseLines takes each line, without its line break, as a record. Lines of
// nothing but white space are passed over. What is in a line is not looked at.
func parseLines(body []byte, limit int) ([]entry, error) {
	var out []entry
	for len(body) > 0 {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if len(out) == limit {
			return nil, tooMany(limit)
		}
		out = append(out, entry{data: line})
	}
	return out, nil
}

const (
	batchMagic = "WRB\x01"
	batchHead  = 6 // key length u16, data length u32
)

// parseBatch takes a binary batch apart; its format is in the package's doc.
func parseBatch(body []byte, limit int) ([]entry, error) {
	rest, ok := bytes.CutPrefix(body, []byte(batchMagic))
	if !ok {
		return nil, refuse(400, "BadBatch", `the body does not begin with "WRB" 0x01`)
	}
	var out []entry
	for len(rest) > 0 {
		at := len(body) - len(rest)
		if len(rest) < batchHead {
			return nil, refuse(400, "BadBatch", fmt.Sprintf("record %d at byte %d: %d bytes left; expecting %d of lengths", len(out)+1, at, len(rest), batchHead))
		}
		key, data := uint64(binary.LittleEndian.Uint16(rest)), uint64(binary.LittleEndian.Uint32(rest[2:]))
		rest = rest[batchHead:]
		if key+data > uint64(len(rest)) {
			return nil, refuse(400, "BadBatch", fmt.Sprintf("record %d at byte %d: key of %d and data of %d bytes; %d bytes are left", len(out)+1, at, key, data, len(rest)))
		}
		if len(out) == limit {
			return nil, tooMany(limit)
		}
		out = append(out, entry{key: rest[:key:key], data: rest[key : key+data : key+data]})
		rest = rest[key+data:]
	}
	return out, nil
}

// pointer is a JSON pointer (RFC 6901), taken apart.
type pointer []string

func parsePointer(text string) (pointer, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, fmt.Errorf("pointer %.100q: expecting / at its beginning", text)
	}
	parts := strings.Split(text[1:], "/")
	if len(parts) > 32 {
		return nil, fmt.Errorf("pointer of %d parts: expecting at most 32", len(parts))
	}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
	}
	return parts, nil
}

var errNoKey = errors.New("no text or number there")

// find returns the text or number that p points to in a JSON document.
func (p pointer) find(text string) (string, error) {
	v, err := document.Parse(text)
	if err != nil {
		return "", fmt.Errorf("not JSON: %w", err)
	}
	for _, part := range p {
		if v = child(v, part); v == nil {
			return "", errNoKey
		}
	}
	switch v.Kind() {
	case jsonlite.String:
		s, err := jsonlite.Unquote(v.JSON())
		if err != nil {
			return "", fmt.Errorf("the text there: %w", err)
		}
		return s, nil
	case jsonlite.Number:
		return v.String(), nil
	}
	return "", errNoKey
}

// child returns a member of an object or an element of a list, nil if there is none.
// Of a member that comes twice the last counts, as everywhere here.
func child(v *jsonlite.Value, part string) (found *jsonlite.Value) {
	switch v.Kind() {
	case jsonlite.Object:
		for key, member := range v.Object {
			if key == part {
				found = member
			}
		}
		return found
	case jsonlite.Array:
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n >= v.Len() || part != strconv.Itoa(n) {
			return nil
		}
		return v.Index(n)
	}
	return nil
}
