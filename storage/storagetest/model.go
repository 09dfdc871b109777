package storagetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// Model is what a store must hold, in plain Go.
type Model struct {
	Streams map[string]*Stream
	Rows    map[string][]byte // table byte, then key
}

// Stream is a stream of the model.
type Stream struct {
	Name   string
	Shards []*Shard // by number
}

// Shard is a shard of the model. Records are in index order; what retention took
// stays here, below Trimmed.
type Shard struct {
	Number  record.ShardNumber
	Hash    record.HashRange
	Closed  bool
	Parents []record.ShardNumber
	Records []Record
}

// Record is a record of the model. Index 0 means that the outcome of its append
// is unknown: where it lies and when it arrived was never told.
type Record struct {
	Index    uint64
	Arrival  time.Time
	Key      string
	Data     []byte
	Explicit *record.HashKey
}

// NewModel returns the model of an empty store.
func NewModel() *Model { return &Model{Streams: map[string]*Stream{}, Rows: map[string][]byte{}} }

// Clone returns a copy that shares only what never changes.
func (m *Model) Clone() *Model {
	c := &Model{Streams: map[string]*Stream{}, Rows: maps.Clone(m.Rows)}
	for name, st := range m.Streams {
		n := &Stream{Name: st.Name}
		for _, sh := range st.Shards {
			s := *sh
			s.Records = slices.Clone(sh.Records)
			n.Shards = append(n.Shards, &s)
		}
		c.Streams[name] = n
	}
	return c
}

// CreateStream adds a stream of n shards of equal width.
func (m *Model) CreateStream(name string, n int) {
	st := &Stream{Name: name}
	for i, h := range evenRanges(n) {
		st.Shards = append(st.Shards, &Shard{Number: record.ShardNumber(i), Hash: h})
	}
	m.Streams[name] = st
}

// Open returns the shards that take records, by hash range.
func (st *Stream) Open() []*Shard {
	var open []*Shard
	for _, s := range st.Shards {
		if !s.Closed {
			open = append(open, s)
		}
	}
	slices.SortFunc(open, func(a, b *Shard) int { return a.Hash.First.Cmp(b.Hash.First) })
	return open
}

// Route returns the open shard of a record.
func (st *Stream) Route(key string, explicit *record.HashKey) *Shard {
	h := record.HashOf([]byte(key))
	if explicit != nil {
		h = *explicit
	}
	for _, s := range st.Shards {
		if !s.Closed && s.Hash.First.Cmp(h) <= 0 && h.Cmp(s.Hash.Last) <= 0 {
			return s
		}
	}
	panic(fmt.Sprintf("BUG: no open shard of %s for %s", st.Name, h))
}

// Shard returns a shard by number, nil if there is none.
func (st *Stream) Shard(n record.ShardNumber) *Shard {
	for _, s := range st.Shards {
		if s.Number == n {
			return s
		}
	}
	return nil
}

func rowKey(t storage.Table, key string) string { return string([]byte{byte(t)}) + key }

// RowsOf returns the keys of a table with the prefix, in order.
func (m *Model) RowsOf(t storage.Table, prefix string) []string {
	var keys []string
	for k := range m.Rows {
		if strings.HasPrefix(k, rowKey(t, prefix)) {
			keys = append(keys, k[1:])
		}
	}
	slices.Sort(keys)
	return keys
}

// DeletePrefix removes the rows of a table with the prefix.
func (m *Model) DeletePrefix(t storage.Table, prefix string) {
	for _, k := range m.RowsOf(t, prefix) {
		delete(m.Rows, rowKey(t, k))
	}
}

// Check compares everything the store shows with the model. Records below what
// the store still retains may be gone only when trimmed says so.
func (m *Model) Check(s *storage.Store, trimmed func(stream string, r Record) bool) error {
	var names []string
	for _, st := range s.Streams() {
		names = append(names, st.Name())
	}
	if want := slices.Sorted(maps.Keys(m.Streams)); !slices.Equal(names, want) {
		return fmt.Errorf("streams are %q, want %q", names, want)
	}
	for name, want := range m.Streams {
		st, err := s.Stream(name)
		if err != nil {
			return err
		}
		if err := want.check(st, trimmed); err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return m.checkRows(s)
}

func (m *Model) checkRows(s *storage.Store) error {
	for _, t := range Tables {
		var got []string
		err := s.Scan(t, nil, nil, 1<<20, func(key, value []byte) bool {
			got = append(got, string(key))
			if want := m.Rows[rowKey(t, string(key))]; !bytes.Equal(value, want) {
				got[len(got)-1] += fmt.Sprintf(" (value %q, want %q)", value, want)
			}
			return true
		})
		if err != nil {
			return err
		}
		if want := m.RowsOf(t, ""); !slices.Equal(got, want) {
			return fmt.Errorf("table %s has %q, want %q", t, got, want)
		}
	}
	return nil
}

// Tables are the tables that the random walk writes to.
var Tables = []storage.Table{storage.TableLease, storage.TableCheckpoint, storage.TableModuleState, storage.TableSetting}

func (st *Stream) check(got *storage.Stream, trimmed func(string, Record) bool) error {
	infos := map[record.ShardNumber]storage.ShardInfo{}
	for _, i := range got.Shards() {
		infos[i.Number] = i
	}
	for _, want := range st.Shards {
		info, ok := infos[want.Number]
		delete(infos, want.Number)
		if !ok {
			// A closed shard goes with its last record.
			for _, r := range want.Records {
				if trimmed == nil || !trimmed(st.Name, r) {
					return fmt.Errorf("%s is gone with record %d in it", want.Number, r.Index)
				}
			}
			if !want.Closed {
				return fmt.Errorf("%s is gone though it is open", want.Number)
			}
			continue
		}
		if info.Open() == want.Closed {
			return fmt.Errorf("%s: open %v, want %v", want.Number, info.Open(), !want.Closed)
		}
		if info.Hash != want.Hash {
			return fmt.Errorf("%s: hash range %v, want %v", want.Number, info.Hash, want.Hash)
		}
		if err := want.checkRecords(got, trimmed, st.Name); err != nil {
			return fmt.Errorf("%s: %w", want.Number, err)
		}
	}
	for n := range infos {
		return fmt.Errorf("there is a %s that should not be", n)
	}
	return nil
}

func (sh *Shard) checkRecords(st *storage.Stream, trimmed func(string, Record) bool, name string) error {
	got, err := ReadAll(st, sh.Number, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		return err
	}
	want := sh.Records
	for len(want) > len(got) || len(want) > 0 && len(got) > 0 && want[0].Index > 0 && want[0].Index < got[0].Index {
		if trimmed == nil || !trimmed(name, want[0]) {
			return fmt.Errorf("%d records are there, want %d: record %d (%s, %q) is gone", len(got), len(want), want[0].Index, want[0].Arrival, want[0].Key)
		}
		want = want[1:]
	}
	if len(got) > len(want) {
		return fmt.Errorf("%d records are there, want %d: record %d (%q) was never acknowledged, or is repeated", len(got), len(want), got[len(want)].Index, got[len(want)].Key)
	}
	for i := range got {
		if err := same(got[i], want[i]); err != nil {
			return err
		}
	}
	return nil
}

func same(got, want Record) error {
	if want.Index == 0 {
		want.Index, want.Arrival = got.Index, got.Arrival
	}
	switch {
	case got.Index != want.Index:
		return fmt.Errorf("record %d stands where %d should", got.Index, want.Index)
	case got.Key != want.Key || !bytes.Equal(got.Data, want.Data):
		return fmt.Errorf("record %d is %q = %.40q, want %q = %.40q", got.Index, got.Key, got.Data, want.Key, want.Data)
	case !got.Arrival.Equal(want.Arrival):
		return fmt.Errorf("record %d arrived %v, want %v", got.Index, got.Arrival, want.Arrival)
	case (got.Explicit == nil) != (want.Explicit == nil), got.Explicit != nil && *got.Explicit != *want.Explicit:
		return fmt.Errorf("record %d has explicit hash key %v, want %v", got.Index, got.Explicit, want.Explicit)
	}
	return nil
}
