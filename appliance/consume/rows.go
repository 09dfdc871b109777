package consume

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// shardKey names a shard of a stream to a consumer.
type shardKey struct {
	consumer string
	stream   uint32
	shard    record.ShardNumber
}

// name is the key's bytes after a table's own prefix.
func (k shardKey) name() []byte {
	b := append([]byte(k.consumer), 0)
	b = binary.BigEndian.AppendUint32(b, k.stream)
	return binary.BigEndian.AppendUint32(b, uint32(k.shard))
}

// row is the key of the shard's lease and checkpoint.
func (k shardKey) row() []byte { return append([]byte("wasm/"), k.name()...) }

// outboxEnd is a key behind all outbox rows of the shard and before those of the next.
func (k shardKey) outboxEnd() []byte {
	return append(k.name(), bytes.Repeat([]byte{0xff}, 13)...) // a row's name goes on with 12 bytes
}

// parseShardName reads what name wrote, at the front of key, and the rest.
func parseShardName(key []byte) (k shardKey, rest []byte, ok bool) {
	for i, c := range key {
		if c == 0 {
			if len(key) < i+9 {
				return k, nil, false
			}
			k = shardKey{string(key[:i]), binary.BigEndian.Uint32(key[i+1:]), record.ShardNumber(binary.BigEndian.Uint32(key[i+5:]))}
			return k, key[i+9:], true
		}
	}
	return k, nil, false
}

// checkpoint is how far a consumer is on a shard, and what it keeps there.
type checkpoint struct {
	Next         uint64 `json:"next"`              // index of the first record not handled
	Commits      uint64 `json:"commits"`           // transactions so far; names outbox rows
	Started      bool   `json:"started,omitempty"` // the state of the parents has been taken over
	Done         bool   `json:"done,omitempty"`    // the shard is closed and handled to its end
	Version      string `json:"version,omitempty"`
	Digest       string `json:"digest,omitempty"`
	StateVersion uint32 `json:"state_version,omitempty"`
	StateBytes   int64  `json:"state_bytes"`
	StateEntries int64  `json:"state_entries"`
	TickMS       int64  `json:"tick_ms,omitempty"`
}

// lease says who may commit for a shard.
type lease struct {
	Owner   string `json:"owner"` // of this process's life
	Fence   uint64 `json:"fence"` // grows with every owner
	UntilMS int64  `json:"until_ms"`
}

// outboxRow is a request that is to be sent.
type outboxRow struct {
	Request  []byte `json:"request"`
	Attempts int    `json:"attempts"`
	NotMS    int64  `json:"not_before_ms,omitempty"`
	Error    string `json:"error,omitempty"` // of the last attempt
}

// get reads a JSON row; false when there is none.
func get(s *storage.Store, t storage.Table, key []byte, v any) (raw []byte, ok bool, err error) {
	raw, err = s.Get(t, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, false, fmt.Errorf("row %s %q: %w", t, key, err)
	}
	return raw, true, nil
}

// encode writes a row; the types of this package always encode.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: encode row: " + err.Error())
	}
	return b
}

// stateHash is where a state key goes when its shard is split.
func stateHash(key []byte) record.HashKey {
	for i, c := range key {
		if c == 0 && i > 0 {
			return record.HashOf(key[:i])
		}
	}
	return record.HashOf(key)
}

func holds(r record.HashRange, h record.HashKey) bool {
	return r.First.Cmp(h) <= 0 && h.Cmp(r.Last) <= 0
}
