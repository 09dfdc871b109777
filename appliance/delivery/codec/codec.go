// Package codec writes the compressed forms of a Firehose object: GZIP, ZIP,
// Snappy, HADOOP_SNAPPY and zstd.
//
// It owns the framing and the levels. It never reads, never buffers a whole
// object, and the bytes depend on the input, the level and nothing else, so
// that an object which is made twice is the same twice. What each writer holds
// in memory is stated at [Memory].
package codec

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zip"
	"github.com/klauspost/compress/zstd"
)

// Codec is a compression format by Firehose's name; ZSTD is ours.
type Codec string

// The codecs. The zero value is Uncompressed.
const (
	Uncompressed Codec = "UNCOMPRESSED"
	Gzip         Codec = "GZIP"
	Zip          Codec = "ZIP"
	Snappy       Codec = "Snappy"
	HadoopSnappy Codec = "HADOOP_SNAPPY"
	Zstd         Codec = "ZSTD"
)

// All lists the codecs in the order in which messages name them.
var All = []Codec{Uncompressed, Gzip, Zip, Snappy, HadoopSnappy, Zstd}

// Parse reads a codec's name; "" is Uncompressed and case does not matter.
func Parse(name string) (Codec, error) {
	if name == "" {
		return Uncompressed, nil
	}
	for _, c := range All {
		if strings.EqualFold(string(c), name) {
			return c, nil
		}
	}
	return "", fmt.Errorf("compression format %q is not one of %v", name, All)
}

// Extension is what the codec appends to an object's name.
func (c Codec) Extension() string {
	switch c {
	case Gzip:
		return ".gz"
	case Zip:
		return ".zip"
	case Snappy:
		return ".snappy"
	case HadoopSnappy:
		return ".hsnappy"
	case Zstd:
		return ".zst"
	}
	return ""
}

// ContentType is the media type an object of the codec is stored with.
func (c Codec) ContentType() string {
	switch c {
	case Gzip:
		return "application/gzip"
	case Zip:
		return "application/zip"
	case Zstd:
		return "application/zstd"
	}
	return "application/octet-stream"
}

// CheckLevel refuses levels that the codec doesn't have. 0 is the default of
// each codec and the only level of those without levels.
func (c Codec) CheckLevel(level int) error {
	most := 0
	switch c {
	case Gzip, Zip:
		most = 9
	case Zstd:
		most = 22
	}
	if level < 0 || level > most {
		return fmt.Errorf("compression level %d: %s has 0 (its default) to %d", level, c, most)
	}
	return nil
}

// Memory is an upper bound, in bytes, of what a writer of the codec holds
// besides what it has passed on, with the given number of workers.
func (c Codec) Memory(workers int) int {
	switch c {
	case Gzip:
		blocks := 1
		if workers > 1 {
			blocks = workers + 1 // one is being filled meanwhile
		}
		return blocks * (gzipBlock*3 + 1<<20)
	case Zip:
		return 1 << 20
	case Snappy, HadoopSnappy:
		return 1 << 20
	case Zstd:
		return 4 << 20
	}
	return 0
}

// Options are the settings of a writer.
type Options struct {
	Level   int    // 0: the codec's default
	Workers int    // goroutines that may compress; 0 and 1: the caller's only. GZIP alone uses more
	Entry   string // name of the single file inside a ZIP; "" means "data"
	// Modified is that file's time, at least 1980, before which a ZIP has none.
	// The zero value leaves it out.
	Modified time.Time
}

// NewWriter returns a writer whose output, after Close, is one complete
// object. Close does not close w. After an error the writer is useless, and
// Close must still be called.
func (c Codec) NewWriter(w io.Writer, o Options) (io.WriteCloser, error) {
	if err := c.CheckLevel(o.Level); err != nil {
		return nil, err
	}
	switch c {
	case "", Uncompressed:
		return plain{w}, nil
	case Gzip:
		return newGzip(w, o)
	case Zip:
		return newZip(w, o)
	case Snappy:
		return s2.NewWriter(w, s2.WriterSnappyCompat(), s2.WriterConcurrency(1), s2.WriterBlockSize(64<<10)), nil
	case HadoopSnappy:
		return &hadoopSnappy{w: w}, nil
	case Zstd:
		return zstd.NewWriter(w, ZstdOptions(o.Level)...)
	}
	return nil, fmt.Errorf("compression format %q is not one of %v", c, All)
}

// ZstdOptions are the encoder settings of a zstd level: a window that a small
// box can afford on both ends, and no goroutines.
func ZstdOptions(level int) []zstd.EOption {
	speed := zstd.SpeedFastest
	if level > 0 {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	return []zstd.EOption{
		zstd.WithEncoderLevel(speed), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(512 << 10), zstd.WithEncoderCRC(false),
	}
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// zipWriter is a ZIP archive of one deflated file.
type zipWriter struct {
	archive *zip.Writer
	file    io.Writer
}

func newZip(w io.Writer, o Options) (*zipWriter, error) {
	z := &zipWriter{archive: zip.NewWriter(w)}
	z.archive.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return newDeflate(w, o.Level)
	})
	name := o.Entry
	if name == "" {
		name = "data"
	}
	modified := o.Modified.UTC()
	if least := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC); modified.Before(least) && !modified.IsZero() {
		modified = least // a box without a clock
	}
	file, err := z.archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: modified})
	if err != nil {
		return nil, err
	}
	z.file = file
	return z, nil
}

func (z *zipWriter) Write(p []byte) (int, error) { return z.file.Write(p) }
func (z *zipWriter) Close() error                { return z.archive.Close() }

// hadoopSnappy is Hadoop's BlockCompressorStream around raw Snappy blocks:
// big-endian raw length, big-endian compressed length, block.
type hadoopSnappy struct {
	w   io.Writer
	buf []byte // raw, at most hadoopBlock
	out []byte
	err error
}

const hadoopBlock = 128 << 10

func (h *hadoopSnappy) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && h.err == nil {
		k := min(len(p), hadoopBlock-len(h.buf))
		h.buf = append(h.buf, p[:k]...)
		p = p[k:]
		if len(h.buf) == hadoopBlock {
			h.flush()
		}
	}
	return n - len(p), h.err
}

func (h *hadoopSnappy) flush() {
	if len(h.buf) == 0 || h.err != nil {
		return
	}
	if need := 8 + s2.MaxEncodedLen(len(h.buf)); cap(h.out) < need {
		h.out = make([]byte, need)
	}
	h.out = h.out[:cap(h.out)]
	block := s2.EncodeSnappy(h.out[8:], h.buf)
	putLength(h.out[0:], len(h.buf))
	putLength(h.out[4:], len(block))
	_, h.err = h.w.Write(h.out[:8+len(block)])
	h.buf = h.buf[:0]
}

func putLength(b []byte, n int) {
	b[0], b[1], b[2], b[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

func (h *hadoopSnappy) Close() error {
	h.flush()
	return h.err
}
