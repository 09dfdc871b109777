// Package record declares what a stream carries and how it is named: records,
// hash keys and their ranges, shard numbers and sequence numbers, each with
// its outside text form.
//
// It is a leaf: it imports nothing of the repository, holds no state and
// touches no files. How records are laid out on disk is the business of
// package block.
package record

import "time"

// Limits of the outside protocol (Kinesis API reference) that the storage
// format relies on.
const (
	// MaxPartitionKeyBytes bounds a partition key: 256 characters of at most 4 bytes.
	MaxPartitionKeyBytes = 1024
	// MaxDataBytes bounds one record's data, 10 MiB.
	MaxDataBytes = 10 << 20
)

// Record is one record as read. PartitionKey and Data belong to the reader
// and are valid until the next call on it.
type Record struct {
	// Index is the record's place in its shard: 1 for the first one, one more
	// for each that follows.
	Index uint64
	// Arrival is when the record was accepted, to the millisecond.
	Arrival time.Time
	// PartitionKey is what the producer routed by.
	PartitionKey []byte
	// Data is what the producer sent.
	Data []byte
	// ExplicitHashKey overrides the partition key's hash if HasExplicitHashKey is set.
	ExplicitHashKey    HashKey
	HasExplicitHashKey bool
}

// Hash returns the hash key that routed the record.
func (r *Record) Hash() HashKey {
	if r.HasExplicitHashKey {
		return r.ExplicitHashKey
	}
	return HashOf(r.PartitionKey)
}
