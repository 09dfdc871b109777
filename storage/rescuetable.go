package storage

import (
	"context"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
)

// table reads one table: its metadata, or its blocks. It goes on behind blocks of the
// table that can't be read and returns the errors at the end.
func (r *rescuer) table(name string, data bool) error {
	fs := r.s.o.FS
	f, _, err := readWhole(fs, fs.PathJoin(r.dir, name))
	if err == nil {
		f, err = openTable(f, nil)
	}
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o := pebbleOptions(r.s.o, fs, nil, nil)
	o.EnsureDefaults()
	ctx := context.Background()
	t, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer t.Close()
	damage, err := r.walk(ctx, t, func(kind pebble.InternalKeyKind, key, value []byte, seq uint64) error {
		switch kind {
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
			return r.entry(key, value, seq, false, data)
		case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
			return r.entry(key, nil, seq, true, data)
		}
		return nil
	})
	if err == nil && !data {
		err = r.tableDrops(ctx, t)
	}
	return errors.Join(err, damage)
}

// walk calls fn for every entry of a table that can be read. damage is what can't be.
func (r *rescuer) walk(ctx context.Context, t *sstable.Reader, fn func(kind pebble.InternalKeyKind, key, value []byte, seq uint64) error) (damage, err error) {
	var ends [][]byte // of the table's blocks
	var from []byte   // where to go on, nil at the beginning
	for next := 0; ; {
		last, broken, err := walkFrom(t, from, fn)
		if err != nil || broken == nil {
			return damage, err
		}
		damage = errors.Join(damage, errors.New(firstLine(broken.Error())))
		if ends == nil {
			if ends, err = blockEnds(ctx, t); err != nil {
				return errors.Join(damage, err), nil
			}
		}
		if last != nil { // it broke behind the block with the last entry
			i, _ := slices.BinarySearchFunc(ends, last, slices.Compare[[]byte])
			next = max(next, i+1)
		}
		if next+1 >= len(ends) {
			return damage, nil
		}
		from = append(slices.Clone(ends[next]), 0)
		next++
	}
}

// walkFrom calls fn for the entries from a key on, up to where the table breaks.
func walkFrom(t *sstable.Reader, from []byte, fn func(kind pebble.InternalKeyKind, key, value []byte, seq uint64) error) (last []byte, broken, err error) {
	it, err := t.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return nil, err, nil
	}
	defer it.Close()
	kv := it.First()
	if from != nil {
		kv = it.SeekGE(from, 0)
	}
	for ; kv != nil; kv = it.Next() {
		v, _, err := kv.Value(nil)
		if err != nil {
			return last, err, nil
		}
		last = append(last[:0], kv.K.UserKey...)
		if err := fn(kv.Kind(), kv.K.UserKey, v, uint64(kv.SeqNum())); err != nil {
			return last, nil, err
		}
	}
	return last, it.Error(), nil
}

// blockEnds returns, for each block of entries of a table, a key at or behind its last
// one and before the first one of the next block, from the table's index.
func blockEnds(ctx context.Context, t *sstable.Reader) (ends [][]byte, err error) {
	layout, err := t.Layout()
	if err != nil {
		return nil, err
	}
	for _, index := range layout.Index {
		b, err := t.BlockReader().Read(ctx, block.NoReadEnv, nil, index, blockkind.Index, colblk.InitIndexBlockMetadata)
		if err != nil {
			return nil, err
		}
		var it colblk.IndexIter
		if err := it.InitHandle(pebble.DefaultComparer, b, block.NoTransforms); err != nil {
			return nil, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			ends = append(ends, slices.Clone(it.Separator()))
		}
		if err := it.Close(); err != nil {
			return nil, err
		}
	}
	return ends, nil
}
