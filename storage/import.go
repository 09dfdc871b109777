package storage

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/record"
)

// ImportOptions choose where Import writes.
type ImportOptions struct {
	// Stream is the stream to import into, "" for the name in the file.
	Stream string
	// Create makes the stream if there is none, configured as in the file
	// and with as many shards as the file has open ones.
	Create bool
	// Progress, if not nil, is told now and then how far it has come.
	Progress func(ImportReport)
}

// ImportReport says what was imported.
type ImportReport struct {
	Stream  string `json:"stream"`
	Blocks  uint64 `json:"blocks"`
	Records uint64 `json:"records"`
	// Duplicates counts records left out because an earlier import of the
	// same source had brought them.
	Duplicates uint64 `json:"duplicates"`
	// Missing counts records that the export could not contain.
	Missing uint64 `json:"missing"`
}

// maxArrivalMS is the end of the year 9999: later times can't be written as text.
const maxArrivalMS = 253_402_300_799_999

// Import appends the records of a portable file to a stream. They are routed
// by their hash keys, keep the order they had within a source shard and their
// arrival times, and get new indexes; retention counts from the import, and
// a position AtTime takes what claims to have arrived later for a record of the
// import's time. How far each source shard was imported is written with the
// records, so that doing it again, after an interruption or with an overlapping
// file, brings no record twice into one stream. ErrSameStream: it is the stream that the file was
// exported from; nothing is imported. ErrExport: the file was cut or changed; what
// comes before that is imported.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (ImportReport, error) {
	m := &importer{s: s, o: o}
	switch err := m.run(ctx, r); {
	case err != nil && m.report.Stream == "": // nothing says yet where to
		return m.report, fmt.Errorf("import: %w", err)
	case err != nil:
		return m.report, fmt.Errorf("import into stream %q: %w", m.report.Stream, err)
	}
	return m.report, nil
}

type importer struct {
	s       *Store
	o       ImportOptions
	st      *Stream
	header  exportHeader
	report  ImportReport
	decoded block.Decoded
}

func (m *importer) run(ctx context.Context, r io.Reader) error {
	sections, err := newSectionReader(r)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		kind, content, err := sections.next()
		if err != nil {
			return err
		}
		if first != (kind == sectionHeader) {
			return fmt.Errorf("%w: section of kind %d, header first: %v", ErrExport, kind, first)
		}
		switch kind {
		case sectionHeader:
			err = m.begin(ctx, content)
		case sectionBlock:
			err = m.block(ctx, content)
		case sectionGap:
			err = m.gap(content)
		case sectionEnd:
			return m.end(content)
		default:
			err = fmt.Errorf("%w: section of kind %d", ErrExport, kind)
		}
		if err != nil {
			return err
		}
	}
}

func (m *importer) begin(ctx context.Context, content []byte) error {
	if err := json.Unmarshal(content, &m.header); err != nil {
		return fmt.Errorf("%w: header: %v", ErrExport, err)
	}
	if m.header.Format > block.Version {
		return fmt.Errorf("export of format %d, this program reads up to %d: %w", m.header.Format, block.Version, ErrNewerFormat)
	}
	// It becomes part of a key.
	if id, err := hex.DecodeString(m.header.Store); err != nil || len(id) != 16 {
		return fmt.Errorf("%w: header: store %.100q: want 32 hex digits", ErrExport, m.header.Store)
	}
	m.report.Stream = m.o.Stream
	if m.report.Stream == "" {
		m.report.Stream = m.header.Config.Name
	}
	var err error
	m.st, err = m.s.Stream(m.report.Stream)
	if errors.Is(err, ErrStreamNotFound) && m.o.Create {
		c := m.header.Config
		c.Name = m.report.Stream
		m.st, err = m.s.CreateStream(ctx, c)
	}
	if err == nil && m.header.Store == m.s.ID() && m.header.StreamID == m.st.ID() {
		err = fmt.Errorf("%w: every record of it would be there twice", ErrSameStream)
	}
	return err
}

// importMarks is what the rows begin with that say how far sources were imported into a
// stream.
func importMarks(st *Stream) []byte { return fmt.Appendf(nil, "import/%d/", st.ID()) }

// gap counts what the export could not contain.
func (m *importer) gap(content []byte) error {
	var g exportGap
	if err := json.Unmarshal(content, &g); err != nil {
		return fmt.Errorf("%w: gap: %v", ErrExport, err)
	}
	m.report.Missing += g.Records
	return nil
}

func (m *importer) end(content []byte) error {
	var e exportEnd
	if err := json.Unmarshal(content, &e); err != nil {
		return fmt.Errorf("%w: end: %v", ErrExport, err)
	}
	if got := m.report.Records + m.report.Duplicates; got != e.Records || m.report.Blocks != e.Blocks {
		return fmt.Errorf("%w: %d records in %d blocks, its end says %d in %d", ErrExport, got, m.report.Blocks, e.Records, e.Blocks)
	}
	return nil
}

// block imports one block in a transaction of its own.
func (m *importer) block(ctx context.Context, content []byte) error {
	if len(content) < blockSectionBytes {
		return fmt.Errorf("%w: block section of %d bytes", ErrExport, len(content))
	}
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	number, first, last := u32(content), u64(content[4:]), u64(content[12:])
	skip, shift := uint64(u32(content[20:])), int64(u64(content[24:]))
	if err := m.decoded.Decode(content[blockSectionBytes:]); err != nil {
		return fmt.Errorf("%w: %v", ErrExport, err)
	}
	if n := uint64(m.decoded.Count); first == 0 || last < first || last > record.MaxIndex || last-first >= n || skip > last-first {
		return fmt.Errorf("%w: %d records as indexes %d to %d, %d to skip", ErrExport, n, first, last, skip)
	}
	m.report.Blocks++
	key := fmt.Appendf(importMarks(m.st), "%s/%d/%d", m.header.Store, m.header.StreamID, number)
	have, err := m.s.Get(TableDeduplication, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	from := first + skip
	if len(have) == 8 && u64(have)+1 > from {
		upTo := min(u64(have), last)
		m.report.Duplicates += upTo - from + 1
		from = upTo + 1
	}
	if from > last {
		return nil
	}
	if err := m.append(ctx, key, have, first, from, last, shift); err != nil {
		return err
	}
	m.report.Records += last - from + 1
	if m.o.Progress != nil && m.report.Blocks%64 == 0 {
		m.o.Progress(m.report)
	}
	return nil
}

// append commits the records from … last of the decoded block, first of which is first.
func (m *importer) append(ctx context.Context, key, have []byte, first, from, last uint64, shift int64) error {
	t, err := m.s.Begin(ctx, m.decoded.DataRawBytes+64*m.decoded.Count)
	if err != nil {
		return err
	}
	defer t.Release()
	var r record.Record
	for i := int(from - first); i <= int(last-first); i++ {
		m.decoded.Record(i, &r)
		var explicit *record.HashKey
		if r.HasExplicitHashKey {
			explicit = &r.ExplicitHashKey
		}
		if err := t.Append(m.st, r.PartitionKey, explicit, r.Data); err != nil {
			return err
		}
		at := m.decoded.ArrivalMS(i) + shift
		if at > maxArrivalMS {
			return fmt.Errorf("%w: a record that arrived %d ms after 1970", ErrExport, at)
		}
		t.t.Arrived(max(at, 1))
	}
	t.Expect(TableDeduplication, key, have)
	t.Put(TableDeduplication, key, binary.LittleEndian.AppendUint64(nil, last))
	return t.Commit(ctx)
}
