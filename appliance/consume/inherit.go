package consume

import (
	"bytes"
	"context"
	"fmt"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// inheritBytes bounds the rows moved in one transaction.
const inheritBytes = 256 << 10

// inherit takes over the state of the shard's parents by the rule in the
// package documentation: piece by piece, each piece moved in one transaction,
// so that a crash between two of them loses and doubles nothing. It ends with
// the shard's first checkpoint.
func (w *worker) inherit(ctx context.Context) error {
	info, err := w.stream.Shard(w.k.shard)
	if err != nil {
		return err
	}
	for _, p := range parents(info) {
		from := shardKey{w.k.consumer, w.k.stream, p}
		var c checkpoint
		if _, ok, err := get(w.e.o.Store, storage.TableCheckpoint, from.row(), &c); err != nil {
			return err
		} else if ok && c.StateVersion != 0 {
			w.at.StateVersion = min(w.at.StateVersion, c.StateVersion)
		}
		if err := w.take(ctx, info.Hash, from); err != nil {
			return err
		}
	}
	w.at.StateBytes, w.at.StateEntries = 0, 0
	prefix := w.k.name()
	err = w.e.o.Store.Scan(storage.TableModuleState, prefix, nil, 0, func(k, v []byte) bool {
		w.at.StateEntries++
		w.at.StateBytes += int64(len(k) - len(prefix) + len(v))
		return true
	})
	if err != nil {
		return err
	}
	w.at.Started = true
	return w.move(ctx, func(t *storage.Txn) { t.Put(storage.TableCheckpoint, w.k.row(), encode(w.at)) })
}

// move commits rows under the lease.
func (w *worker) move(ctx context.Context, fill func(t *storage.Txn)) error {
	t, err := w.e.o.Store.Begin(ctx, inheritBytes)
	if err != nil {
		return err
	}
	defer t.Release()
	t.Expect(storage.TableLease, w.k.row(), w.leased)
	fill(t)
	if err := t.Commit(ctx); err != nil {
		return fmt.Errorf("move state: %w", err)
	}
	return nil
}

// stateRow is one row on its way from a parent.
type stateRow struct{ key, value []byte }

// take moves the keys of a parent that belong to this shard.
func (w *worker) take(ctx context.Context, hash record.HashRange, from shardKey) error {
	source, own := from.name(), w.k.name()
	var after []byte
	for {
		var rows []stateRow
		size, more := 0, false
		err := w.e.o.Store.Scan(storage.TableModuleState, source, after, 0, func(k, v []byte) bool {
			if size > inheritBytes {
				more = true
				return false
			}
			after = bytes.Clone(k)
			key := after[len(source):]
			if holds(hash, stateHash(key)) {
				rows = append(rows, stateRow{key, bytes.Clone(v)})
				size += len(k) + len(v)
			}
			return true
		})
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			if err := w.takeRows(ctx, from, source, own, rows); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// takeRows moves rows. One that is here already, from the other parent of a
// merge, stays unless this parent's range held the key's hash.
func (w *worker) takeRows(ctx context.Context, from shardKey, source, own []byte, rows []stateRow) error {
	parent, err := w.stream.Shard(from.shard)
	known := err == nil
	keep := make([]bool, len(rows))
	for i, r := range rows {
		_, err := w.e.o.Store.Get(storage.TableModuleState, append(own[:len(own):len(own)], r.key...))
		here := err == nil
		keep[i] = !here || known && holds(parent.Hash, stateHash(r.key))
	}
	return w.move(ctx, func(t *storage.Txn) {
		for i, r := range rows {
			if keep[i] {
				t.Put(storage.TableModuleState, append(own[:len(own):len(own)], r.key...), r.value)
			}
			t.Delete(storage.TableModuleState, append(source[:len(source):len(source)], r.key...))
		}
	})
}
