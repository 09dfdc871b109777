package storage

import (
	"math/bits"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/keyspace"
)

const (
	// rowTableBytes is about what the rows of closed epochs in one table take. Every
	// flush has the newest of these tables written anew, and no other.
	rowTableBytes = 32 << 10
	// rowTableEpochsMin and rowTableEpochsMax bound how many epochs' rows that may be.
	rowTableEpochsMin, rowTableEpochsMax = 4, 1024
	// rowTablesAtOnce is how many tables with a row or two wait until they become one.
	rowTablesAtOnce = 16
)

// rowSpans says where tables end: between metadata and each lane, and in the
// metadata so that what changes all the time does not have the rest written anew
// with each flush. It is told which rows are the newest, and how long rows are: a row
// takes some 20 bytes for each shard that was written to.
type rowSpans struct {
	state   atomic.Uint64 // the newest row's epoch, and how many epochs share a table
	mean    int           // bytes of an epoch's rows; this and the next are the committer's goroutine's
	waiting int           // epochs since tables were gathered
}

// wrote notes that the rows of an epoch, so many bytes, go to disk. Tables of rows follow
// one another without overlap, so that Pebble would keep all of them: now and then wrote
// returns a key in front of the newest ones that never had a value. To delete it
// makes one table of them.
func (r *rowSpans) wrote(epoch uint32, rowBytes int) (gather []byte) {
	if r.mean += (rowBytes - r.mean) / 4; r.mean == 0 {
		r.mean = rowBytes
	}
	// A power of two: as rows grow and shrink, tables end where others ended before.
	n := min(max(uint32(1)<<bits.Len(uint(rowTableBytes/max(2*r.mean, 1))), rowTableEpochsMin), rowTableEpochsMax)
	r.state.Store(uint64(epoch)<<32 | uint64(n))
	if r.waiting++; r.waiting < rowTablesAtOnce && (epoch+1)%n != 0 {
		return nil
	}
	r.waiting = 0
	return keyspace.Meta(keyspace.KindEpoch, epoch/n*n)
}

// policy is Pebble's SpanPolicyFunc: no table holds start and the key that is returned.
func (r *rowSpans) policy(start []byte) (pebble.SpanPolicy, []byte, error) {
	if len(start) > 0 && start[0] >= keyspace.LaneSpace+keyspace.Lanes {
		return pebble.SpanPolicy{}, nil, nil
	}
	if len(start) > 0 && start[0] >= keyspace.LaneSpace {
		return pebble.SpanPolicy{}, []byte{start[0] + 1}, nil
	}
	state := r.state.Load()
	return pebble.SpanPolicy{}, keyspace.MetaSpanEnd(start, uint32(state>>32), uint32(state)), nil
}
