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
	refs     []ref
	results  []Result
	used     int
	lastLen  int
	ops      []byte
	expects  bool
	hook     func(*Staging) error
	err      error
	ready    chan error
	settled  bool // committed or rolled back
	left     bool // the committer may still read it
	stampMS  int64
}

// ref is one reserved record of a transaction.
type ref struct {
	p     *pending
	entry int32
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
func (t *Txn) Reserve(l *Log, partitionKey []byte, explicit *record.HashKey, dataLen int) ([]byte, error) {
	if t.used += len(partitionKey) + dataLen; t.used > MaxTxnBytes {
		return nil, fmt.Errorf("transaction of more than %d bytes: %w", MaxTxnBytes, ErrTooLarge)
	}
	if t.g == nil {
		if err := t.join(); err != nil {
			return nil, err
		}
	}
	l.fill.Lock()
	if l.fill.closed {
		l.fill.Unlock()
		return nil, ErrLogClosed
	}
	p := l.fill.pending[t.g.parity]
	if p == nil {
		p = pendingPool.Get().(*pending)
		p.log = l
		l.fill.pending[t.g.parity] = p
		t.g.touch(p)
	}
	data := p.reserve(&t.c.chunks, partitionKey, explicit, dataLen)
	entry := int32(len(p.entries) - 1)
	l.fill.Unlock()
	t.refs = append(t.refs, ref{p, entry})
	t.lastLen = dataLen
	return data, nil
}

// Shrink says that only the first n bytes of the data reserved last are used.
func (t *Txn) Shrink(n int) {
	if n < 0 || n > t.lastLen {
		panic(fmt.Sprintf("BUG: shrink of a record of %d bytes to %d", t.lastLen, n))
	}
	r := t.refs[len(t.refs)-1]
	r.p.log.fill.Lock()
	r.p.entries[r.entry].n = uint32(n)
	r.p.log.fill.Unlock()
	t.used -= t.lastLen - n
	t.lastLen = n
}

// Arrived gives the record reserved last an arrival of its own, milliseconds
// since 1970, instead of the group's.
func (t *Txn) Arrived(atMS int64) {
	r := t.refs[len(t.refs)-1]
	r.p.log.fill.Lock()
	r.p.entries[r.entry].atMS = atMS
	r.p.log.fill.Unlock()
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

// Join puts the transaction into the open group now instead of at the first
// reservation.
func (t *Txn) Join() error {
	if t.g != nil {
		return nil
	}
	return t.join()
}

// Len returns how many records were reserved.
func (t *Txn) Len() int { return max(len(t.refs), len(t.results)) }

// Result returns where record i lies, after Commit and until Release.
func (t *Txn) Result(i int) Result { return t.results[i] }

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
	c.leaveLocked(g, true)
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
	if err == nil {
		for _, r := range t.refs {
			t.results = append(t.results, Result{r.p.entries[r.entry].index, r.p.log.Number})
		}
	}
	t.refs, t.stampMS = t.refs[:0], g.stamp.ArrivalMS
	c.unref(g)
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
		for _, r := range t.refs {
			r.p.log.fill.Lock()
			r.p.entries[r.entry].void = true
			r.p.log.fill.Unlock()
		}
		t.c.mu.Lock()
		t.c.leaveLocked(t.g, false)
		t.c.mu.Unlock()
	}
	t.settle()
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
	if cap(t.refs) > 4096 {
		t.refs, t.results = nil, nil
	}
	clear(t.refs[:cap(t.refs)])
	*t = Txn{refs: t.refs[:0], results: t.results[:0], ops: t.ops[:0], ready: t.ready}
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
