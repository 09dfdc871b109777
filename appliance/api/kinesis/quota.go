package kinesis

import (
	"sync"
	"time"

	"github.com/weirhq/weir/storage/record"
)

// The per-shard quotas of the real service (reference: "Quotas and limits",
// Amazon Kinesis Data Streams developer guide).
const (
	shardRecordsPerSecond  = 1000
	shardBytesInPerSecond  = 1 << 20
	shardReadsPerSecond    = 5
	shardBytesOutPerSecond = 2 << 20
	bigReadBytes           = 10 << 20        // a GetRecords answer of this size ...
	bigReadPause           = 5 * time.Second // ... is followed by this pause
)

// bucket is a token bucket that holds one second's worth. It may go below
// zero once: a request that finds it positive is let through whole, as one
// record or one answer cannot be cut to what is left.
type bucket struct {
	level float64
	at    time.Time
}

// refill brings the level up to now for a rate per second.
func (b *bucket) refill(now time.Time, rate float64) {
	if b.at.IsZero() {
		b.level, b.at = rate, now
		return
	}
	if d := now.Sub(b.at); d > 0 {
		b.level = min(rate, b.level+d.Seconds()*rate)
		b.at = now
	}
}

// shardQuota is what one shard has left.
type shardQuota struct {
	records, bytesIn, reads, bytesOut bucket
	blocked                           time.Time // reads refused until then
}

// quotas enforces the real service's per-shard limits on one stream. The
// number of entries is bounded by the number of shards of the stream.
type quotas struct {
	mu struct {
		sync.Mutex
		shards map[record.ShardNumber]*shardQuota
	}
}

func (q *quotas) shardLocked(n record.ShardNumber) *shardQuota {
	s := q.mu.shards[n]
	if s == nil {
		if q.mu.shards == nil {
			q.mu.shards = make(map[record.ShardNumber]*shardQuota)
		}
		s = new(shardQuota)
		q.mu.shards[n] = s
	}
	return s
}

// write takes one record of size bytes out of the shard's quota, or tells
// that it would exceed it.
func (q *quotas) write(n record.ShardNumber, size int, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.shardLocked(n)
	s.records.refill(now, shardRecordsPerSecond)
	s.bytesIn.refill(now, shardBytesInPerSecond)
	// A record larger than a second's worth passes when the bucket is full:
	// large records are let through as a burst and paid for afterwards.
	if s.records.level < 1 || s.bytesIn.level < min(float64(size), shardBytesInPerSecond) {
		return false
	}
	s.records.level--
	s.bytesIn.level -= float64(size)
	return true
}

// read counts one GetRecords call, or tells that the shard has no reads left.
func (q *quotas) read(n record.ShardNumber, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.shardLocked(n)
	s.reads.refill(now, shardReadsPerSecond)
	s.bytesOut.refill(now, shardBytesOutPerSecond)
	if now.Before(s.blocked) || s.reads.level < 1 || s.bytesOut.level <= 0 {
		return false
	}
	s.reads.level--
	return true
}

// wasRead takes the size of an answer out of the shard's quota.
func (q *quotas) wasRead(n record.ShardNumber, size int, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.shardLocked(n)
	s.bytesOut.refill(now, shardBytesOutPerSecond)
	s.bytesOut.level -= float64(size)
	if size >= bigReadBytes {
		s.blocked = now.Add(bigReadPause)
	}
}
