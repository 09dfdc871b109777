package storage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/keyspace"
)

// Get returns a copy of a row's value. ErrNotFound means that the table has
// no such key. What a transaction wrote can be seen a moment before its
// Commit returns.
func (s *Store) Get(table Table, key []byte) ([]byte, error) {
	if !table.Valid() {
		return nil, fmt.Errorf("get from %s: no such table: %w", table, ErrInvalid)
	}
	if err := s.env.Enter(); err != nil {
		return nil, err
	}
	defer s.env.Leave()
	v, closer, err := s.db.Get(keyspace.AppendTableKey(make([]byte, 0, 64), table, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("get %s %q: %w", table, key, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %q: %w", table, key, err)
	}
	out := append(make([]byte, 0, len(v)), v...)
	return out, closer.Close()
}

// Scan calls fn for rows of a table whose keys begin with prefix and lie
// after the key after (nil for all), in key order, until limit rows (0 for no
// limit) or until fn returns false. key and value are valid during the call.
func (s *Store) Scan(table Table, prefix, after []byte, limit int, fn func(key, value []byte) bool) error {
	if !table.Valid() {
		return fmt.Errorf("scan %s: no such table: %w", table, ErrInvalid)
	}
	if err := s.env.Enter(); err != nil {
		return err
	}
	defer s.env.Leave()
	lower := keyspace.AppendTableKey(nil, table, prefix)
	upper := keyspace.AppendPrefixEnd(nil, lower)
	if after != nil {
		if from := append(keyspace.AppendTableKey(nil, table, after), 0); bytes.Compare(from, lower) > 0 {
			lower = from
		}
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("scan %s: %w", table, err)
	}
	const head = 2 // the key space and the table
	for ok, n := it.First(), 0; ok && (limit <= 0 || n < limit); ok, n = it.Next(), n+1 {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(fmt.Errorf("scan %s: %w", table, err), it.Close())
		}
		if !fn(it.Key()[head:], value) {
			break
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("scan %s: %w", table, err)
	}
	return nil
}
