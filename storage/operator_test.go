package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/record"
)

func TestVerifyProvesASoundStore(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := small(fs, nil)
	o.TotalBytes = 4 << 20
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2, WhenFull: ThinOut})
	fill(t, s, st, 3)
	mid, _ := st.Shards()[0].Hash.Mid()
	if err := st.Split(ctx, 0, mid); err != nil {
		t.Fatal(err)
	}
	fill(t, s, st, 3)
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Verify(ctx, nil); err != nil || !r.OK() {
		t.Fatalf("open store: %v %+v", err, r)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.FS = crashed
	r, err := Verify(ctx, "data", o, nil)
	if err != nil || !r.OK() || r.Records == 0 || len(r.Shards) != 4 {
		t.Fatalf("after a crash: %v %+v", err, r)
	}
	s = mustOpen(t, o)
	st, _ = s.Stream("a")
	put(t, s, st, 100, func(i int) (string, string) { return fmt.Sprint(i), "v" })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err = Verify(ctx, "data", o, nil)
	if err != nil || !r.OK() {
		t.Fatalf("after reopen: %v %+v", err, r)
	}
	var jumped, lost uint64
	for _, sh := range r.Shards {
		jumped, lost = jumped+sh.Jumped, lost+sh.Lost
	}
	if jumped == 0 || lost == 0 {
		t.Fatalf("jumped %d, lost %d", jumped, lost)
	}
}

func TestInspectShowsEveryKey(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 3, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	tx, _ := s.Begin(ctx, 1)
	tx.Put(TableCheckpoint, []byte("c"), []byte("v"))
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	tx.Release()
	if err := Inspect(ctx, "data", small(fs, nil), InspectOptions{}, func(Item) error { return nil }); !errors.Is(err, ErrLocked) {
		t.Fatalf("inspect of an open store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	if err := Inspect(ctx, "data", small(fs, nil), InspectOptions{Blocks: true, Records: true}, func(i Item) error {
		if i.Error != "" {
			t.Errorf("%+v", i)
		}
		kinds[i.Kind]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(kinds) != "map[block:1 bound:1 epoch:1 ledger:1 record:3 session:1 shard:1 store:1 stream:1 table:1]" {
		t.Fatal(kinds)
	}
}

func exported(t *testing.T, s *Store, o ExportOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Export(ctx, &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestImportBringsEveryRecordOnce(t *testing.T) {
	clock := newTestClock()
	s := mustOpen(t, small(vfs.NewMem(), clock))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	h := record.HashOf([]byte("elsewhere"))
	for i := range 40 {
		tx, _ := s.Begin(ctx, 10)
		if err := tx.Append(st, []byte("k"), &h, fmt.Append(nil, "explicit ", i)); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		tx.Release()
		put(t, s, st, 50, func(j int) (string, string) { return fmt.Sprint("k", j), fmt.Sprint(i, " ", j) })
		clock.pass(time.Second)
	}
	part := exported(t, s, ExportOptions{Stream: "a", To: clock.now().Add(-20 * time.Second)})
	whole := exported(t, s, ExportOptions{Stream: "a"})

	clock2 := newTestClock()
	clock2.pass(time.Hour)
	o := small(vfs.NewMem(), clock2)
	d := mustOpen(t, o)
	defer d.Close()
	if _, err := d.Import(ctx, bytes.NewReader(whole), ImportOptions{}); !errors.Is(err, ErrStreamNotFound) {
		t.Fatal(err)
	}
	r, err := d.Import(ctx, bytes.NewReader(part), ImportOptions{Create: true, Stream: "b"})
	if err != nil || r.Records == 0 || r.Records >= 2040 {
		t.Fatalf("part: %+v %v", r, err)
	}
	r2, err := d.Import(ctx, bytes.NewReader(whole), ImportOptions{Stream: "b"})
	if err != nil || r2.Duplicates != r.Records || r.Records+r2.Records != 2040 {
		t.Fatalf("whole: %+v %v", r2, err)
	}
	r3, err := d.Import(ctx, bytes.NewReader(whole), ImportOptions{Stream: "b"})
	if err != nil || r3.Records != 0 || r3.Duplicates != 2040 {
		t.Fatalf("again: %+v %v", r3, err)
	}
	// How far it was imported into one stream says nothing about another, nor about
	// one of the same name that is made again.
	for range 2 {
		if r, err := d.Import(ctx, bytes.NewReader(whole), ImportOptions{Create: true, Stream: "c"}); err != nil || r.Records != 2040 {
			t.Fatalf("into another stream: %+v %v", r, err)
		}
		if r, err := d.Import(ctx, bytes.NewReader(whole), ImportOptions{Stream: "c"}); err != nil || r.Records != 0 {
			t.Fatalf("into another stream again: %+v %v", r, err)
		}
		if err := d.DeleteStream(ctx, "c"); err != nil {
			t.Fatal(err)
		}
	}
	marks := 0
	if err := d.Scan(TableDeduplication, []byte("import/"), nil, 0, func(_, _ []byte) bool { marks++; return true }); err != nil || marks != 2 {
		t.Fatalf("%d marks, want one for each shard of one stream: %v", marks, err)
	}
	b, _ := d.Stream("b")
	if fmt.Sprint(readAll(t, b)) != fmt.Sprint(readAll(t, st)) {
		t.Fatal("the imported stream differs")
	}
	from, to := arrivals(t, st), arrivals(t, b)
	if fmt.Sprint(from) != fmt.Sprint(to) {
		t.Fatalf("arrivals differ:\n%v\n%v", from[:5], to[:5])
	}
}

// TestImportIntoTheSourceIsRefused takes the records neither twice nor, when the
// stream was deleted and made again, not at all.
func TestImportIntoTheSourceIsRefused(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 100, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	file := exported(t, s, ExportOptions{Stream: "a"})
	before := readAll(t, st)
	if r, err := s.Import(ctx, bytes.NewReader(file), ImportOptions{Create: true}); !errors.Is(err, ErrSameStream) || r.Records > 0 || r.Stream != "a" {
		t.Fatalf("%+v %v", r, err)
	}
	if fmt.Sprint(readAll(t, st)) != fmt.Sprint(before) {
		t.Fatal("the stream differs")
	}
	if err := s.DeleteStream(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Import(ctx, bytes.NewReader(file), ImportOptions{Create: true}); err != nil || r.Records != 100 {
		t.Fatalf("made again: %+v %v", r, err)
	}
	again, _ := s.Stream("a")
	if fmt.Sprint(readAll(t, again)) != fmt.Sprint(before) {
		t.Fatal("the stream made again differs")
	}
}

func TestExportOfARange(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 100, func(i int) (string, string) { return "k", fmt.Sprint(i + 1) })
	zero := record.ShardNumber(0)
	file := exported(t, s, ExportOptions{Stream: "a", Shard: &zero, First: 10, Last: 19})
	if _, err := s.Import(ctx, bytes.NewReader(file), ImportOptions{Stream: "b", Create: true}); err != nil {
		t.Fatal(err)
	}
	b, _ := s.Stream("b")
	if got := fmt.Sprint(readAll(t, b)[0]); got != "[10 11 12 13 14 15 16 17 18 19]" {
		t.Fatal(got)
	}
}

func TestImportNoticesEveryChange(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	put(t, s, st, 5, func(i int) (string, string) { return "k", fmt.Sprint(i) })
	file := exported(t, s, ExportOptions{Stream: "a"})
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 0x10
		if _, err := s.Import(ctx, bytes.NewReader(bad), ImportOptions{Create: true, Stream: fmt.Sprint("b", i)}); !errors.Is(err, ErrExport) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := s.Import(ctx, bytes.NewReader(file[:i]), ImportOptions{Create: true, Stream: fmt.Sprint("c", i)}); !errors.Is(err, ErrExport) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// sealed makes the checksums of a portable file right, its blocks' too, and cuts
// sections that are longer than the file: they would stop nearly every mutation at
// the door.
func sealed(in []byte) []byte {
	out := bytes.Clone(in)
	copy(out, exportMagic)
	for b := out[min(len(exportMagic), len(out)):]; len(b) >= 9; {
		n := int(min(int64(binary.LittleEndian.Uint32(b[1:])), int64(len(b)-9)))
		binary.LittleEndian.PutUint32(b[1:], uint32(n))
		content := b[5 : 5+n]
		if b[0] == sectionBlock && n >= blockSectionBytes+block.HeaderBytes {
			v := content[blockSectionBytes:]
			binary.LittleEndian.PutUint32(v[16:], crc32.Update(crc32.Checksum(v[:16], castagnoli), castagnoli, v[20:]))
		}
		binary.LittleEndian.PutUint32(b[5+n:], crc32.Checksum(b[:5+n], castagnoli))
		b = b[9+n:]
	}
	return out
}

func TestSealLeavesAWholeFileAsItIs(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	put(t, s, st, 50, func(i int) (string, string) { return fmt.Sprint(i), "some data that compresses" })
	if file := exported(t, s, ExportOptions{Stream: "a"}); !bytes.Equal(sealed(file), file) {
		t.Fatal("the file differs")
	}
}

// FuzzImport imports changed files twice: errors are of the kinds that Import names,
// and what went through brings nothing the second time.
func FuzzImport(f *testing.F) {
	s, err := Open(ctx, "data", small(vfs.NewMem(), nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	st := mustCreate(f, s, StreamConfig{Name: "a", Shards: 2})
	put(f, s, st, 5, func(i int) (string, string) { return fmt.Sprint("k", i), fmt.Sprint(i) })
	h := record.HashOf([]byte("elsewhere"))
	tx, err := s.Begin(ctx, 100)
	if err != nil {
		f.Fatal(err)
	}
	if err := tx.Append(st, []byte("k"), &h, bytes.Repeat([]byte("compressible "), 50)); err != nil {
		f.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		f.Fatal(err)
	}
	tx.Release()
	zero := record.ShardNumber(0)
	for _, o := range []ExportOptions{{Stream: "a"}, {Stream: "a", Shard: &zero, First: 2, Last: 2}} {
		var b bytes.Buffer
		if _, err := s.Export(ctx, &b, o); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	to, err := Open(ctx, "elsewhere", small(vfs.NewMem(), nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = to.Close() })
	mustCreate(f, to, StreamConfig{Name: "a", Shards: 2})
	gap := (&sectionWriter{}).add(sectionGap, `{"shard":"shardId-000000000000","first":1,"last":2,"records":2,"reason":"damage"}`)
	f.Add(append([]byte(exportMagic), gap.b...))
	f.Add([]byte(exportMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		file := sealed(in)
		r, err := to.Import(ctx, bytes.NewReader(file), ImportOptions{Stream: "a"})
		if err != nil {
			if !errors.Is(err, ErrExport) && !errors.Is(err, ErrNewerFormat) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of a kind that Import does not name: %v", err)
			}
			return
		}
		again, err := to.Import(ctx, bytes.NewReader(file), ImportOptions{Stream: "a"})
		if err != nil || again.Records != 0 || again.Duplicates != r.Records+r.Duplicates {
			t.Fatalf("first %+v, then %+v, %v", r, again, err)
		}
	})
}

// sectionWriter puts sections end to end.
type sectionWriter struct{ b []byte }

func (w *sectionWriter) add(kind byte, content string) *sectionWriter {
	at := len(w.b)
	w.b = binary.LittleEndian.AppendUint32(append(w.b, kind), uint32(len(content)))
	w.b = append(w.b, content...)
	w.b = binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(w.b[at:], castagnoli))
	return w
}

// TestImportRefusesWhatNoExportSays gives files whose checksums are right and whose
// contents are not.
func TestImportRefusesWhatNoExportSays(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	defer s.Close()
	mustCreate(t, s, StreamConfig{Name: "a"})
	header := `{"format":1,"store":"00000000000000000000000000000000","stream_id":1,"config":{"Name":"a"}}`
	b := block.NewBuilder()
	b.Add([]byte("k"), nil, []byte("data"), 0)
	value := string(b.Encode(block.Raw, block.Stamp{ArrivalMS: 1000}))
	section := func(first, last uint64, skip uint32, shift int64) string {
		out := binary.LittleEndian.AppendUint32(nil, 0)
		out = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(out, first), last)
		out = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(out, skip), uint64(shift))
		return string(out) + value
	}
	for _, c := range []struct {
		name     string
		kinds    []byte
		contents []string
	}{
		{"a gap that is no JSON", []byte{1, 4}, []string{header, "{"}},
		{"a header that is no JSON", []byte{1}, []string{"{"}},
		{"an end that is no JSON", []byte{1, 3}, []string{header, "{"}},
		{"an end of another file", []byte{1, 3}, []string{header, `{"records":1}`}},
		{"no header", []byte{3}, []string{"{}"}},
		{"two headers", []byte{1, 1}, []string{header, header}},
		{"a section of a kind unknown", []byte{1, 9}, []string{header, ""}},
		{"a store with a strange name", []byte{1}, []string{`{"format":1,"store":"../x","config":{"Name":"a"}}`}},
		{"a block section without a block", []byte{1, 2}, []string{header, "short"}},
		{"index 0", []byte{1, 2}, []string{header, section(0, 0, 0, 0)}},
		{"an index beyond all", []byte{1, 2}, []string{header, section(1<<64-1, 1<<64-1, 0, 0)}},
		{"more indexes than records", []byte{1, 2}, []string{header, section(1, 2, 0, 0)}},
		{"more skipped than there are", []byte{1, 2}, []string{header, section(1, 1, 1, 0)}},
		{"an arrival after the year 9999", []byte{1, 2}, []string{header, section(1, 1, 0, 1<<60)}},
	} {
		w := &sectionWriter{b: []byte(exportMagic)}
		for i, kind := range c.kinds {
			w.add(kind, c.contents[i])
		}
		if _, err := s.Import(ctx, bytes.NewReader(w.b), ImportOptions{}); !errors.Is(err, ErrExport) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	st, _ := s.Stream("a")
	if n := count(readAll(t, st)); n != 0 {
		t.Fatalf("%d records were imported", n)
	}
}
