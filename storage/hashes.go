package storage

import (
	"hash/maphash"
	"math/rand/v2"
	"sync/atomic"

	"github.com/weirhq/weir/storage/record"
)

const (
	// hashEntries bounds the hash keys that are remembered, and with
	// hashKeyBytes the memory: at most 1 MiB, for 4,096 devices with the longest names.
	hashEntries  = 4096
	hashKeyBytes = 128
	// One miss in so many is remembered, so that keys that never come again
	// cost no allocation each.
	hashEvery = 64
)

// hashes remembers the hash keys of partition keys: a box has as many as it has
// devices, and an MD5 costs a tenth of what else an append does to a record.
type hashes struct {
	seed    maphash.Seed
	entries [hashEntries]atomic.Pointer[hashEntry]
}

// hashEntry is in one piece, so that a short key and its hash are one line of cache.
type hashEntry struct {
	hash record.HashKey
	n    uint8 // bytes of key
	key  [hashKeyBytes]byte
}

func newHashes() *hashes { return &hashes{seed: maphash.MakeSeed()} }

// of returns record.HashOf(partitionKey).
func (h *hashes) of(partitionKey []byte) record.HashKey {
	if len(partitionKey) > hashKeyBytes {
		return record.HashOf(partitionKey)
	}
	// Of two places, so that keys that fall together do not drive each other out.
	slot := maphash.Bytes(h.seed, partitionKey) % hashEntries
	first, second := &h.entries[slot], &h.entries[slot^1]
	if e := first.Load(); e != nil && string(e.key[:e.n]) == string(partitionKey) {
		return e.hash
	}
	if e := second.Load(); e != nil && string(e.key[:e.n]) == string(partitionKey) {
		return e.hash
	}
	hash := record.HashOf(partitionKey)
	if n := rand.Uint32(); n%hashEvery == 0 {
		place := first
		if first.Load() != nil && (second.Load() == nil || n/hashEvery%2 == 0) {
			place = second
		}
		e := &hashEntry{hash: hash, n: uint8(len(partitionKey))}
		copy(e.key[:], partitionKey)
		place.Store(e)
	}
	return hash
}
