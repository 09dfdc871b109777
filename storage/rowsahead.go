package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

// rowsAhead are the directory rows of epochs, read from the tables that hold them while
// Pebble decodes its manifest: with as many as there are epochs, they are what an open
// reads most of. What it can't tell without doubt is an error, and then Pebble is asked:
// it has the last word on what is damaged.
type rowsAhead struct {
	fs      vfs.FS
	dir     string
	o       sstable.ReaderOptions
	entries []rowEntry
	room    []keyspace.EpochRun
}

// rowEntry is one version of a row: of several the one with the highest seq holds.
type rowEntry struct {
	listed
	seq  uint64
	gone bool // the row was deleted
}

var errNotAhead = errors.New("not to be read without the engine")

func newRowsAhead(o Options, fs vfs.FS, dir string) *rowsAhead {
	p := pebbleOptions(o, fs, nil, nil)
	p.EnsureDefaults()
	return &rowsAhead{fs: fs, dir: dir, o: p.MakeReaderOptions()}
}

// epochRows is the range of keys of the directory rows of epochs, last not in it.
func epochRows() (first, last []byte) {
	return keyspace.Meta(keyspace.KindEpoch), keyspace.Meta(keyspace.KindEpoch + 1)
}

// read reads the rows that the tables hold.
func (r *rowsAhead) read(ctx context.Context, tables []manifestTable) error {
	first, last := epochRows()
	for i := range tables {
		t := &tables[i]
		if t.records || bytes.Compare(t.largest, first) < 0 || bytes.Compare(t.smallest, last) >= 0 {
			continue
		}
		if err := r.table(ctx, t, first, last); err != nil {
			return fmt.Errorf("%s: %w", tableName(t.number), err)
		}
	}
	return nil
}

func (r *rowsAhead) table(ctx context.Context, t *manifestTable, first, last []byte) (err error) {
	if t.number != t.name { // a part of it was taken out
		return errNotAhead
	}
	f, err := openTable(r.fs.Open(r.fs.PathJoin(r.dir, tableName(t.number))))
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	reader, err := sstable.NewReader(ctx, readable, r.o)
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	drops, err := reader.NewRawRangeDelIter(ctx, sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil {
		return err
	}
	if drops != nil {
		drops.Close()
		return errNotAhead
	}
	it, err := reader.NewIter(sstable.NoTransforms, first, last, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for kv := it.SeekGE(first, 0); kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			return err
		}
		seq := uint64(kv.SeqNum())
		if t.firstSeq == t.lastSeq {
			seq = t.lastSeq // a table that was ingested has it for all of its keys
		}
		if err := r.entry(kv.Kind(), kv.K.UserKey, value, seq); err != nil {
			return err
		}
	}
	return it.Error()
}

// entry enters one version of a row.
func (r *rowsAhead) entry(kind pebble.InternalKeyKind, key, value []byte, seq uint64) error {
	e := rowEntry{seq: seq}
	k, err := keyspace.ParseMeta(key)
	switch {
	case kind == pebble.InternalKeyKindDelete && err != nil:
		return nil // it gathers tables, see rowSpans
	case err != nil || k.Kind != keyspace.KindEpoch:
		return errNotAhead
	case kind == pebble.InternalKeyKindDelete:
		e.gone = true
	case kind == pebble.InternalKeyKindSet || kind == pebble.InternalKeyKindSetWithDelete:
		if e.EpochRow, r.room, err = keyspace.DecodeEpochTo(value, r.room); err != nil {
			return err
		}
	default:
		return errNotAhead
	}
	e.Key = epoch.Key{Lane: k.Lane, Epoch: k.ID}
	r.entries = append(r.entries, e)
	return nil
}

// end returns the rows that hold, in order of their keys.
func (r *rowsAhead) end() ([]listed, error) {
	slices.SortFunc(r.entries, func(a, b rowEntry) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(b.seq, a.seq))
	})
	rows := make([]listed, 0, len(r.entries))
	for i := range r.entries {
		e := &r.entries[i]
		if i > 0 && r.entries[i-1].Key == e.Key {
			if r.entries[i-1].seq == e.seq {
				return nil, errNotAhead
			}
			continue
		}
		if !e.gone {
			rows = append(rows, e.listed)
		}
	}
	return rows, nil
}
