package consume

import (
	"bytes"
	"errors"
	"sort"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
)

// Limits of what a worker keeps of its shard's state in memory beside what
// waits to be committed. When one is reached, everything that is in the store
// is let go.
const (
	cacheEntries = 64 << 10
	cacheBytes   = 8 << 20
)

// state is a shard's state as its worker sees it: what waits to be committed
// over what is stored, with what was read lately in between. As nobody else
// writes this shard's state, what was read stays true. It is a guest.State.
type state struct {
	source  source
	prefix  []byte // of the shard's rows in TableModuleState
	limit   int64  // bytes of keys and values
	entries map[string]*entry
	dirty   []*entry // entries changed since the last commit; some may be clean again
	cached  int64    // bytes of entries
	bytes   int64    // of the whole state, as it will be
	count   int64

	// undo brings back what the running batch has changed.
	undo      []undo
	undoBytes []byte
	batch     uint32
	savedSize [2]int64

	// watch, when it isn't nil, collects how keys were before they changed.
	watch map[string]image

	// failed is the first error of the store. The guest sees it as "unavailable"
	// or not at all; the worker ends its tenure for it.
	failed error
}

// source is where a state finds what it doesn't hold itself.
type source interface {
	// get returns a key's value, which is the caller's.
	get(key []byte) (value []byte, present bool, err error)
	// scan calls fn with the entries with prefix after the key after, in key order, until fn returns false.
	scan(prefix, after []byte, fn func(key, value []byte) bool) error
}

// rows is a shard's state in the store.
type rows struct {
	store  *storage.Store
	prefix []byte
}

func (r rows) row(key []byte) []byte { return append(r.prefix[:len(r.prefix):len(r.prefix)], key...) }

func (r rows) get(key []byte) ([]byte, bool, error) {
	v, err := r.store.Get(storage.TableModuleState, r.row(key))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, false, nil
	}
	return v, err == nil, err
}

func (r rows) scan(prefix, after []byte, fn func(key, value []byte) bool) error {
	if len(after) > 0 {
		after = r.row(after)
	}
	return r.store.Scan(storage.TableModuleState, r.row(prefix), after, 0, func(row, value []byte) bool { return fn(row[len(r.prefix):], value) })
}

// image is a key at one moment.
type image struct {
	value   string
	present bool
}

// entry is one key.
type entry struct {
	key     string
	value   []byte
	present bool
	dirty   bool
	batch   uint32 // last batch that saved it for undo
}

type undo struct {
	e              *entry
	from, to       int // old value in undoBytes
	present, dirty bool
}

func (e *entry) image() image { return image{string(e.value), e.present} }

var _ guest.State = (*state)(nil)

func newState(s *storage.Store, k shardKey, c *checkpoint, limit int64) *state {
	prefix := k.name()
	return &state{source: rows{s, prefix}, prefix: prefix, limit: limit, entries: map[string]*entry{}, bytes: c.StateBytes, count: c.StateEntries, batch: 1}
}

// load finds a key, in memory or in the store.
func (s *state) load(key []byte) (*entry, error) {
	if e := s.entries[string(key)]; e != nil {
		return e, nil
	}
	v, present, err := s.source.get(key)
	if err != nil {
		s.failed = err
		return nil, err
	}
	e := &entry{key: string(key), value: v, present: present}
	s.entries[e.key] = e
	s.cached += int64(len(e.key) + len(e.value) + 128)
	return e, nil
}

// save keeps an entry's old value for undo, once for each batch.
func (s *state) save(e *entry) {
	if e.batch == s.batch {
		return
	}
	e.batch = s.batch
	if s.watch != nil {
		if _, ok := s.watch[e.key]; !ok {
			s.watch[e.key] = e.image()
		}
	}
	from := len(s.undoBytes)
	s.undoBytes = append(s.undoBytes, e.value...)
	s.undo = append(s.undo, undo{e, from, len(s.undoBytes), e.present, e.dirty})
}

func (s *state) touch(e *entry) {
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, e)
	}
}

// Get implements guest.State.
func (s *state) Get(key []byte) ([]byte, bool, error) {
	e, err := s.load(key)
	if err != nil {
		return nil, false, err
	}
	return e.value, e.present, nil
}

// Put implements guest.State.
func (s *state) Put(key, value []byte) abi.Code {
	e, err := s.load(key)
	if err != nil {
		return abi.Unavailable
	}
	grow := int64(len(value) - len(e.value))
	if !e.present {
		grow = int64(len(key) + len(value))
	}
	if grow > 0 && s.bytes+grow > s.limit {
		return abi.Quota
	}
	s.save(e)
	s.touch(e)
	if !e.present {
		s.count++
	}
	s.bytes += grow
	s.cached += int64(len(value) - len(e.value))
	e.value, e.present = append(e.value[:0], value...), true
	return 0
}

// Delete implements guest.State.
func (s *state) Delete(key []byte) abi.Code {
	e, err := s.load(key)
	if err != nil {
		return abi.Unavailable
	}
	if !e.present {
		return 0
	}
	s.save(e)
	s.touch(e)
	s.count--
	s.bytes -= int64(len(key) + len(e.value))
	s.cached -= int64(len(e.value))
	e.value, e.present = e.value[:0], false
	return 0
}

// Scan implements guest.State: what is stored, with what waits to be committed
// laid over it.
func (s *state) Scan(prefix, after []byte, limit int, fn func(key, value []byte) bool) error {
	var changed []*entry
	for _, e := range s.dirty {
		if e.dirty && bytes.HasPrefix([]byte(e.key), prefix) && (len(after) == 0 || e.key > string(after)) {
			changed = append(changed, e)
		}
	}
	sort.Slice(changed, func(i, j int) bool { return changed[i].key < changed[j].key })
	more := true
	give := func(key, value []byte) {
		limit--
		more = fn(key, value) && limit > 0
	}
	next := func() {
		if e := changed[0]; e.present {
			give([]byte(e.key), e.value)
		}
		changed = changed[1:]
	}
	err := s.source.scan(prefix, after, func(key, value []byte) bool {
		for more && len(changed) > 0 && changed[0].key < string(key) {
			next()
		}
		if more && len(changed) > 0 && changed[0].key == string(key) {
			next()
			return more
		}
		if more {
			give(key, value)
		}
		return more
	})
	for err == nil && more && len(changed) > 0 {
		next()
	}
	if err != nil {
		s.failed = err
	}
	return err
}

// begin starts a batch: rollback goes back to here.
func (s *state) begin() {
	s.batch++
	s.undo, s.undoBytes = s.undo[:0], s.undoBytes[:0]
	s.savedSize = [2]int64{s.bytes, s.count}
}

// rollback undoes the batch that was begun last.
func (s *state) rollback() {
	for _, u := range s.undo {
		s.cached += int64(u.to-u.from) - int64(len(u.e.value))
		u.e.value = append(u.e.value[:0], s.undoBytes[u.from:u.to]...)
		u.e.present, u.e.dirty = u.present, u.dirty
	}
	// Entries that are clean again leave the list, or a later touch would put them on it twice.
	kept := s.dirty[:0]
	for _, e := range s.dirty {
		if e.dirty {
			kept = append(kept, e)
		}
	}
	s.dirty = kept
	s.bytes, s.count = s.savedSize[0], s.savedSize[1]
	s.begin()
}

// forget drops everything that is held: what was written is as if it never was.
func (s *state) forget() {
	clear(s.entries)
	s.dirty, s.cached, s.failed = s.dirty[:0], 0, nil
	s.begin()
}

// write puts what waits into a transaction.
func (s *state) write(t *storage.Txn) {
	row := bytes.Clone(s.prefix)
	for _, e := range s.dirty {
		row = append(row[:len(s.prefix)], e.key...)
		if e.present {
			t.Put(storage.TableModuleState, row, e.value)
		} else {
			t.Delete(storage.TableModuleState, row)
		}
	}
}

// size is about how many bytes write adds to a transaction.
func (s *state) size() int {
	n := 0
	for _, e := range s.dirty {
		n += len(s.prefix) + len(e.key) + len(e.value)
	}
	return n
}

// committed says that what write wrote is stored.
func (s *state) committed() {
	for _, e := range s.dirty {
		e.dirty = false
	}
	s.dirty = s.dirty[:0]
	s.begin()
	if len(s.entries) > cacheEntries || s.cached > cacheBytes {
		clear(s.entries)
		s.cached = 0
	}
}
