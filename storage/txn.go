package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/record"
)

// Txn is a set of appends to any streams and of table changes that become
// durable together, in one sync, or not at all. Every Txn ends in Commit or
// Rollback, and Release gives it back; Rollback after Commit is allowed, so
// that
//
//	t, err := store.Begin(ctx, size)
//	…
//	defer t.Release()
//
// is always right. It belongs to one goroutine. From its first Reserve until
// Commit it holds a group open for everybody: nothing slow may come between,
// and no other transaction may be begun or store method with a context called
// by the same goroutine.
type Txn struct {
	t *commit.Txn
	s *Store
}

var txnPool = sync.Pool{New: func() any { return new(Txn) }}

// Begin admits a transaction whose records and rows have about sizeBytes. It
// waits, first in, first out and under ctx, while too much is under way; ctx
// also bounds the wait for a group at the first Reserve, so it must not end before
// Commit.
// ErrReadOnly, ErrClosed: State says more.
func (s *Store) Begin(ctx context.Context, sizeBytes int) (*Txn, error) {
	t, err := s.committer.Begin(ctx, sizeBytes)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	out := txnPool.Get().(*Txn)
	out.t, out.s = t, s
	return out, nil
}

// Reserve makes room for a record of dataLen bytes in the shard that the hash
// key routes to, and returns where its data goes: the caller fills all of it
// before Commit. explicit may be nil. Records of one shard keep the order of
// their Reserve calls. ErrTooLarge: over the stream's or the transaction's
// limit; ErrDiskFull: nothing was reserved.
func (t *Txn) Reserve(st *Stream, partitionKey []byte, explicit *record.HashKey, dataLen int) ([]byte, error) {
	if err := t.s.disk.admit(st.WhenFull()); err != nil {
		return nil, err
	}
	if limit := st.MaxRecordBytes(); dataLen > limit || len(partitionKey) > record.MaxPartitionKeyBytes {
		return nil, fmt.Errorf("record of %d bytes with a key of %d: stream %q takes %d and %d: %w",
			dataLen, len(partitionKey), st.Name(), limit, record.MaxPartitionKeyBytes, ErrTooLarge)
	}
	var h record.HashKey
	if explicit != nil {
		h = *explicit
	} else {
		h = t.s.hashes.of(partitionKey)
	}
	for {
		data, err := t.t.Reserve(st.Route(h).Log, partitionKey, explicit, dataLen)
		if err == nil || !errors.Is(err, commit.ErrLogClosed) {
			return data, err
		}
		if err := st.Rerouted(); err != nil {
			return nil, err
		}
	}
}

// Shrink says that only the first n bytes of the data reserved last are used.
func (t *Txn) Shrink(n int) { t.t.Shrink(n) }

// Append is Reserve with the data at hand, which is copied.
func (t *Txn) Append(st *Stream, partitionKey []byte, explicit *record.HashKey, data []byte) error {
	b, err := t.Reserve(st, partitionKey, explicit, len(data))
	if err != nil {
		return err
	}
	copy(b, data)
	return nil
}

// Put sets a row of a table. key and value are copied.
func (t *Txn) Put(table Table, key, value []byte) { t.t.Put(table, key, value) }

// Delete removes a row of a table; that it is not there is no error.
func (t *Txn) Delete(table Table, key []byte) { t.t.Delete(table, key) }

// DeletePrefix removes all rows of a table whose keys begin with prefix; an
// empty prefix removes all rows.
func (t *Txn) DeletePrefix(table Table, prefix []byte) { t.t.DeletePrefix(table, prefix) }

// Expect makes Commit fail with ErrConflict, and nothing be written, unless
// the row has exactly this value before the transaction; nil means that
// there is no such row.
func (t *Txn) Expect(table Table, key, value []byte) { t.t.Expect(table, key, value) }

// Commit makes everything durable in one write and returns after its sync.
// ErrConflict, ErrReadOnly and ErrClosed mean that nothing was written;
// ErrOutcomeUnknown that it may be there after the next open, because the
// sync failed or because ctx ended while it was under way.
func (t *Txn) Commit(ctx context.Context) error { return t.t.Commit(ctx) }

// Len returns how many records were reserved.
func (t *Txn) Len() int { return t.t.Len() }

// Result returns where record i lies, in the order of Reserve calls, after a
// Commit without error and until Release.
func (t *Txn) Result(i int) (shard record.ShardNumber, index uint64, arrival time.Time) {
	r := t.t.Result(i)
	return r.Number, r.Index, time.UnixMilli(t.t.ArrivalMS())
}

// Rollback gives the transaction up with nothing written. After Commit it
// does nothing. Release must still follow.
func (t *Txn) Rollback() {
	if t.t != nil {
		t.t.Rollback()
	}
}

// Release gives the transaction back; it must not be used after. A
// transaction that was not committed is rolled back.
func (t *Txn) Release() {
	if t == nil || t.t == nil {
		return
	}
	t.t.Recycle()
	t.t, t.s = nil, nil
	txnPool.Put(t)
}
