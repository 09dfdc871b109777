package storage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/record"
)

// The portable file: 8 bytes of magic, then sections, each a kind (1 byte),
// the length of its content (4 bytes, little endian), the content, and the
// CRC-32C of all that (4 bytes). FORMAT.md has the contents.
const (
	exportMagic   = "WEIREXP1"
	sectionHeader = 1 // JSON, exportHeader; the first one
	sectionBlock  = 2 // shard number u32, first u64, last u64, skip u32, shift i64, then a block
	sectionEnd    = 3 // JSON, exportEnd; the last one
	sectionGap    = 4 // JSON, exportGap

	blockSectionBytes = 4 + 8 + 8 + 4 + 8
	maxSectionBytes   = 32 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrExport means that a file is not a whole export: it was cut or changed.
var ErrExport = errors.New("not a whole export file")

// exportHeader says where an export comes from.
type exportHeader struct {
	Format   int           `json:"format"`
	Store    string        `json:"store"`
	StreamID uint32        `json:"stream_id"`
	Config   StreamConfig  `json:"config"`
	Time     time.Time     `json:"time"`
	Shards   []exportShard `json:"shards"`
}

type exportShard struct {
	Number record.ShardNumber `json:"number"`
	First  string             `json:"first_hash_key"`
	Last   string             `json:"last_hash_key"`
	From   uint64             `json:"from"`
	To     uint64             `json:"to"`
}

// exportGap says that records of the range could not be exported.
type exportGap struct {
	Shard   record.ShardNumber `json:"shard"`
	First   uint64             `json:"first"`
	Last    uint64             `json:"last"`
	Records uint64             `json:"records"`
	Reason  string             `json:"reason"`
}

type exportEnd struct {
	Blocks  uint64 `json:"blocks"`
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
}

// ExportOptions choose what Export writes.
type ExportOptions struct {
	Stream string
	// Shard limits the export to one shard, nil for all.
	Shard *record.ShardNumber
	// First and Last bound the indexes, 0 for no bound. They need Shard.
	First, Last uint64
	// From and To bound the arrivals, zero for no bound: From is in, To is not.
	From, To time.Time
	// Progress, if not nil, is told now and then how far it has come.
	Progress func(ExportReport)
}

// ExportReport says what was exported.
type ExportReport struct {
	Blocks  uint64 `json:"blocks"`
	Records uint64 `json:"records"`
	// BytesData is the size of the records' data, BytesFile that of the file.
	BytesData uint64 `json:"bytes_data"`
	BytesFile uint64 `json:"bytes_file"`
	// Missing counts records in the range that were gone or unreadable.
	Missing uint64 `json:"missing"`
}

// Export writes a stream, or part of one, to a portable file, as it was when
// the call began. Blocks are copied as they are stored: nothing is
// decompressed. Import reads the file.
func (s *Store) Export(ctx context.Context, w io.Writer, o ExportOptions) (ExportReport, error) {
	x := &exporter{w: bufio.NewWriterSize(w, 256<<10), o: o}
	err := x.run(ctx, s)
	if err == nil {
		err = x.w.Flush()
	}
	if err != nil {
		return x.report, fmt.Errorf("export stream %q: %w", o.Stream, err)
	}
	return x.report, nil
}

type exporter struct {
	w      *bufio.Writer
	o      ExportOptions
	report ExportReport
	head   []byte
}

func (x *exporter) run(ctx context.Context, s *Store) error {
	st, err := s.Stream(x.o.Stream)
	if err != nil {
		return err
	}
	if x.o.Shard == nil && (x.o.First > 0 || x.o.Last > 0) {
		return fmt.Errorf("a range of indexes needs a shard: %w", ErrInvalid)
	}
	header := exportHeader{Format: block.Version, Store: s.ID(), StreamID: st.ID(), Config: st.Config(), Time: s.now().UTC()}
	for _, i := range st.Shards() {
		if x.o.Shard != nil && *x.o.Shard != i.Number {
			continue
		}
		e := exportShard{Number: i.Number, First: i.Hash.First.String(), Last: i.Hash.Last.String(), From: max(i.First, x.o.First), To: i.Last}
		if x.o.Last > 0 {
			e.To = min(e.To, x.o.Last)
		}
		header.Shards = append(header.Shards, e)
	}
	if x.o.Shard != nil && len(header.Shards) == 0 {
		return fmt.Errorf("shard %s: %w", *x.o.Shard, ErrShardNotFound)
	}
	if _, err := x.w.WriteString(exportMagic); err != nil {
		return err
	}
	x.report.BytesFile += uint64(len(exportMagic))
	if err := x.json(sectionHeader, header); err != nil {
		return err
	}
	for _, e := range header.Shards {
		if err := x.shard(ctx, st, e); err != nil {
			return err
		}
	}
	return x.json(sectionEnd, exportEnd{x.report.Blocks, x.report.Records, x.report.BytesData})
}

// shard writes the blocks of a shard. Blocks that begin before the range are
// written whole, with the number of records to skip.
func (x *exporter) shard(ctx context.Context, st *Stream, e exportShard) error {
	p := Position{Kind: AtIndex, Index: e.From}
	if !x.o.From.IsZero() {
		p = Position{Kind: AtTime, Time: x.o.From}
	}
	r, err := st.NewReader(e.Number, p)
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Position() <= e.To {
		if err := ctx.Err(); err != nil {
			return err
		}
		before, done := r.Position(), false
		var failed error
		err := r.Frames(4<<20, func(f Frame) bool {
			if f.First > e.To || (!x.o.To.IsZero() && !f.Arrival.Before(x.o.To)) {
				done = true
				return false
			}
			failed = x.block(e, &f)
			return failed == nil
		})
		if err := errors.Join(failed, x.gaps(e, r.Skipped())); err != nil {
			return err
		}
		if err != nil && err != io.EOF {
			return err
		}
		if done || r.Position() == before {
			return nil
		}
		if x.o.Progress != nil {
			x.o.Progress(x.report)
		}
	}
	return nil
}

func (x *exporter) gaps(e exportShard, gaps []Gap) error {
	for _, g := range gaps {
		x.report.Missing += g.Records
		if err := x.json(sectionGap, exportGap{e.Number, g.First, g.Last, g.Records, g.Reason.String()}); err != nil {
			return err
		}
	}
	return nil
}

// block writes one block; last is the last index the importer takes of it.
func (x *exporter) block(e exportShard, f *Frame) error {
	last := min(f.Last, e.To)
	var head [blockSectionBytes]byte
	binary.LittleEndian.PutUint32(head[0:], uint32(e.Number))
	binary.LittleEndian.PutUint64(head[4:], f.First)
	binary.LittleEndian.PutUint64(head[12:], last)
	binary.LittleEndian.PutUint32(head[20:], uint32(f.Skip))
	binary.LittleEndian.PutUint64(head[24:], uint64(f.ShiftMS()))
	x.report.Blocks++
	x.report.Records += last - f.First + 1 - uint64(f.Skip)
	x.report.BytesData += uint64(f.RawLen)
	return x.section(sectionBlock, head[:], f.Block())
}

func (x *exporter) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return x.section(kind, b)
}

func (x *exporter) section(kind byte, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	x.head = binary.LittleEndian.AppendUint32(append(x.head[:0], kind), uint32(n))
	sum := crc32.Update(0, castagnoli, x.head)
	if _, err := x.w.Write(x.head); err != nil {
		return err
	}
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
		if _, err := x.w.Write(p); err != nil {
			return err
		}
	}
	x.report.BytesFile += uint64(9 + n)
	_, err := x.w.Write(binary.LittleEndian.AppendUint32(x.head[:0], sum))
	return err
}

// sectionReader reads the sections of a portable file.
type sectionReader struct {
	r   *bufio.Reader
	buf []byte
}

// IsExport says whether a file that begins with head may be one that Export wrote;
// its first eight bytes tell.
func IsExport(head []byte) bool { return bytes.HasPrefix(head, []byte(exportMagic)) }

// newSectionReader checks the magic.
func newSectionReader(r io.Reader) (*sectionReader, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic := make([]byte, len(exportMagic))
	if _, err := io.ReadFull(br, magic); err != nil || !IsExport(magic) {
		return nil, fmt.Errorf("%w: it begins with %q, want %q", ErrExport, magic, exportMagic)
	}
	return &sectionReader{r: br}, nil
}

// next returns the next section; content is valid until the next call.
func (s *sectionReader) next() (kind byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("%w: it ends before its end section: %v", ErrExport, err)
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxSectionBytes {
		return 0, nil, fmt.Errorf("%w: section of %d bytes", ErrExport, n)
	}
	// The length is not trusted with memory before the bytes are there.
	s.buf = s.buf[:0]
	for left := int(n) + 4; left > 0; {
		step := min(left, 1<<20)
		at := len(s.buf)
		s.buf = append(s.buf, make([]byte, step)...)
		if _, err := io.ReadFull(s.r, s.buf[at:]); err != nil {
			return 0, nil, fmt.Errorf("%w: a section is cut: %v", ErrExport, err)
		}
		left -= step
	}
	content = s.buf[:n]
	sum := crc32.Update(crc32.Update(0, castagnoli, head[:]), castagnoli, content)
	if want := binary.LittleEndian.Uint32(s.buf[n:]); sum != want {
		return 0, nil, fmt.Errorf("%w: section checksum %08x, stored %08x", ErrExport, sum, want)
	}
	return head[0], content, nil
}
