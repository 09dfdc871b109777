package guest

import (
	"bytes"
	"maps"
	"sort"

	"github.com/weirhq/weir/wasm/abi"
)

// MemoryState is a consumer's state that is kept in memory only: for trying a
// module out. The zero value is empty and ready.
type MemoryState struct{ m map[string][]byte }

var _ State = (*MemoryState)(nil)

// Get implements State.
func (s *MemoryState) Get(key []byte) ([]byte, bool, error) {
	v, ok := s.m[string(key)]
	return v, ok, nil
}

// Put implements State.
func (s *MemoryState) Put(key, value []byte) abi.Code {
	if s.m == nil {
		s.m = map[string][]byte{}
	}
	s.m[string(key)] = bytes.Clone(value)
	return 0
}

// Delete implements State.
func (s *MemoryState) Delete(key []byte) abi.Code {
	delete(s.m, string(key))
	return 0
}

// Clone returns a state of its own with what this one has.
func (s *MemoryState) Clone() MemoryState { return MemoryState{maps.Clone(s.m)} }

// Keys returns all keys in order.
func (s *MemoryState) Keys() []string {
	keys := make([]string, 0, len(s.m))
	for k := range s.m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Scan implements State.
func (s *MemoryState) Scan(prefix, after []byte, limit int, fn func(key, value []byte) bool) error {
	for _, k := range s.Keys() {
		if !bytes.HasPrefix([]byte(k), prefix) || len(after) > 0 && k <= string(after) {
			continue
		}
		if limit--; limit < 0 || !fn([]byte(k), s.m[k]) {
			return nil
		}
	}
	return nil
}
