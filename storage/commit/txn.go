package commit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// The errors callers branch on. They arrive wrapped.
var (
	// ErrClosed means that the committer was closed.
	ErrClosed = errors.New("store is closed")
	// ErrReadOnly means that no writes are taken any more.
	ErrReadOnly = errors.New("store is read-only")
	// ErrConflict means that an expectation did not hold; nothing was written.
	ErrConflict = errors.New("transaction conflict")
	// ErrOutcomeUnknown means that the write may or may not be there after the next open.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrLogClosed means that the log takes no more records.
	ErrLogClosed = errors.New("shard is closed")
	// ErrTooLarge means that a transaction is over MaxTxnBytes.
	ErrTooLarge = errors.New("too large")
)

// MaxTxnBytes bounds the records of one transaction, keys and data.
const MaxTxnBytes = 24 << 20

// Txn is a set of appends and table changes that become durable together.
// It belongs to one goroutine. From its first reservation until Commit or
// Rollback it holds its group open, so nothing slow and no other transaction
// may come between.
type Txn struct {
	c        *Committer
	ctx      context.Context
	admitted int64
	g        *group
	entries  []entry // by Reserve call
	chunks   []*chunk
	kept     *chunk // a small one, for the next use
	used     int    // keys and data asked for, to hold against MaxTxnBytes
	bytes    int    // of the chunks that are taken
	lastLen  int
	ops      []byte
	expects  bool
	hook     func(*Staging) error
	then     func() // called once when it joins a group
	err      error
	ready    chan error
	settled  bool // committed or rolled back
	left     bool // the committer may still read it
	stampMS  int64
}

// Result is where a committed record lies.
type Result struct {
	Index  uint64
	Number record.ShardNumber
}

// Kinds of table operations in Txn.ops: kind, key length, value length, key, value.
const (
	opPut byte = iota + 1
	opDelete
	opDeletePrefix
	opExpect
	opAbsent
)

// Reserve makes room for a record in l and returns where its data goes: the
// caller fills all dataLen bytes before Commit. Records of one log keep the
// order of their Reserve calls. ErrLogClosed means that l takes no more.
//
// A record lies in the transaction's own memory until its group is encoded: writers
// share nothing here, not even a lock.
func (t *Txn) Reserve(l *Log, partitionKey []byte, explicit *record.HashKey, dataLen int) ([]byte, error) {
	if t.used += len(partitionKey) + dataLen; t.used > MaxTxnBytes {
		return nil, fmt.Errorf("transaction of more than %d bytes: %w", MaxTxnBytes, ErrTooLarge)
	}
	if t.g == nil {
		if err := t.join(); err != nil {
			return nil, err
		}
	}
	// Who closes a log and then joins a group joins this one or a later one.
	if l.closed.Load() {
		return nil, ErrLogClosed
	}
	t.lastLen = dataLen
	return t.reserve(l, partitionKey, explicit, dataLen), nil
}

// Shrink says that only the first n bytes of the data reserved last are used.
func (t *Txn) Shrink(n int) {
	if n < 0 || n > t.lastLen {
		panic(fmt.Sprintf("BUG: shrink of a record of %d bytes to %d", t.lastLen, n))
	}
	t.entries[len(t.entries)-1].n = uint32(n)
	t.used -= t.lastLen - n
	t.lastLen = n
}

// Arrived gives the record reserved last an arrival of its own, milliseconds
// since 1970, instead of the group's.
func (t *Txn) Arrived(atMS int64) {
	t.entries[len(t.entries)-1].at = atMS
}

// Put sets a row of a table. key and value are copied.
func (t *Txn) Put(table keyspace.Table, key, value []byte) { t.op(opPut, table, key, value) }

// Delete removes a row of a table; that it is not there is no error.
func (t *Txn) Delete(table keyspace.Table, key []byte) { t.op(opDelete, table, key, nil) }

// DeletePrefix removes all rows of a table whose keys begin with prefix; an
// empty prefix removes all rows.
func (t *Txn) DeletePrefix(table keyspace.Table, prefix []byte) {
	t.op(opDeletePrefix, table, prefix, nil)
}

// Expect makes Commit fail with ErrConflict unless the row has exactly this
// value before the transaction; nil means that there is no such row.
func (t *Txn) Expect(table keyspace.Table, key, value []byte) {
	t.expects = true
	if value == nil {
		t.op(opAbsent, table, key, nil)
		return
	}
	t.op(opExpect, table, key, value)
}

func (t *Txn) op(kind byte, table keyspace.Table, key, value []byte) {
	if !table.Valid() {
		panic(fmt.Sprintf("BUG: no such table: %d", table))
	}
	t.ops = append(t.ops, kind)
	t.ops = binary.LittleEndian.AppendUint32(t.ops, uint32(len(key)+2))
	t.ops = binary.LittleEndian.AppendUint32(t.ops, uint32(len(value)))
	t.ops = keyspace.AppendTableKey(t.ops, table, key)
	t.ops = append(t.ops, value...)
}

// eachOp calls fn for every table operation, in order, until it returns false.
func (t *Txn) eachOp(fn func(kind byte, key, value []byte) bool) {
	for b := t.ops; len(b) > 0; {
		kind := b[0]
		k, v := int(binary.LittleEndian.Uint32(b[1:])), int(binary.LittleEndian.Uint32(b[5:]))
		key, value := b[9:9+k], b[9+k:9+k+v]
		b = b[9+k+v:]
		if !fn(kind, key, value) {
			return
		}
	}
}

// OnEncode makes the committer call fn after the group's records have their
// indexes and before anything is written; what fn stages is written with the
// transaction. For the store's own rows.
func (t *Txn) OnEncode(fn func(*Staging) error) { t.hook = fn }

// Join puts the transaction into the open group now, before anything is reserved, and calls
// then at that moment: who joined a group before is in this one or an earlier one,
// who joins later sees what then did. then must not use the committer.
func (t *Txn) Join(then func()) error {
	t.then = then
	return t.join()
}

// Len returns how many records were reserved.
func (t *Txn) Len() int { return len(t.entries) }

// Result returns where record i lies, after Commit and until Release.
func (t *Txn) Result(i int) Result {
	return Result{uint64(t.entries[i].at), t.entries[i].log.Number}
}

// ArrivalMS returns the arrival stamp of the records, after Commit and until Release.
func (t *Txn) ArrivalMS() int64 { return t.stampMS }

// Commit makes everything durable, or nothing, and returns after the sync.
// ErrConflict, ErrReadOnly and ErrClosed mean that nothing was written;
// ErrOutcomeUnknown means that it may be there after the next open. When ctx
// ends while the group is under way, the outcome is unknown too.
func (t *Txn) Commit(ctx context.Context) error {
	if t.settled {
		panic("BUG: commit of a settled transaction")
	}
	if err := ctx.Err(); err != nil {
		t.rollback()
		return err
	}
	if t.g == nil {
		if len(t.ops) == 0 && t.hook == nil {
			t.settle()
			return nil
		}
		if err := t.join(); err != nil {
			t.settle()
			return err
		}
	}
	c, g := t.c, t.g
	c.mu.Lock()
	g.txns = append(g.txns, t)
	g.refs++
	c.leaveLocked(t, true)
	c.mu.Unlock()
	select {
	case <-g.done:
	case <-ctx.Done():
		// The committer still reads this transaction: it is left to it.
		t.left = true
		t.settle()
		return fmt.Errorf("commit: %w: %w", ErrOutcomeUnknown, ctx.Err())
	case <-c.dead:
		select {
		case <-g.done:
		default:
			t.left = true
			t.settle()
			return fmt.Errorf("commit: %w: %w", ErrOutcomeUnknown, c.Failure())
		}
	}
	err := t.err
	if err == nil {
		err = g.err
	}
	if err != nil {
		t.forget()
	}
	t.stampMS = g.stamp.ArrivalMS
	c.unref(g)
	t.giveBack()
	t.settle()
	return err
}

// Rollback gives the transaction up, with nothing written. After Commit it
// does nothing.
func (t *Txn) Rollback() {
	if !t.settled {
		t.rollback()
	}
}

func (t *Txn) rollback() {
	if t.g != nil {
		t.c.mu.Lock()
		t.c.leaveLocked(t, false)
		t.c.mu.Unlock()
		t.forget()
		t.giveBack()
	}
	t.settle()
}

// forget drops the records: what they point to is others'.
func (t *Txn) forget() {
	clear(t.entries)
	t.entries = t.entries[:0]
}

func (t *Txn) settle() {
	t.settled = true
	t.c.admission.Release(t.admitted)
	t.admitted = 0
}

// Recycle gives the transaction back for use by others.
func (t *Txn) Recycle() {
	if !t.settled {
		t.rollback()
	}
	c := t.c
	if c == nil || t.left {
		return
	}
	if cap(t.ops) > 64<<10 {
		t.ops = nil
	}
	if cap(t.entries) > 4096 {
		t.entries = nil
	}
	t.forget()
	*t = Txn{entries: t.entries, chunks: t.chunks, kept: t.kept, ops: t.ops[:0], ready: t.ready}
	c.txns.Put(t)
}

// Staging collects what a transaction's hook wants written with it.
type Staging struct{ c *Committer }

// Set writes a metadata row.
func (s *Staging) Set(key, value []byte) error { return s.c.batch.Set(key, value, nil) }

// Delete removes a metadata row.
func (s *Staging) Delete(key []byte) error { return s.c.batch.Delete(key, nil) }

// Last returns the index of the log's last record, the ones of this group
// counted; 0 when it never had one.
func (s *Staging) Last(l *Log) uint64 {
	for i := range s.c.written {
		if s.c.written[i].log == l {
			return s.c.written[i].run.Last
		}
	}
	return l.Watermark()
}

// lookup finds what the group's earlier transactions did to a row.
func lookup(applied []*Txn, key []byte) (value []byte, exists, known bool) {
	for i := len(applied) - 1; i >= 0; i-- {
		applied[i].eachOp(func(kind byte, k, v []byte) bool {
			switch kind {
			case opPut:
				if bytes.Equal(k, key) {
					value, exists, known = v, true, true
				}
			case opDelete:
				if bytes.Equal(k, key) {
					value, exists, known = nil, false, true
				}
			case opDeletePrefix:
				if bytes.HasPrefix(key, k) {
					value, exists, known = nil, false, true
				}
			}
			return true
		})
		if known {
			return value, exists, true
		}
	}
	return nil, false, false
}
