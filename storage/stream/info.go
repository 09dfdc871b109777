package stream

import (
	"time"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
)

// ShardInfo describes a shard at one moment.
type ShardInfo struct {
	Number                       record.ShardNumber
	Hash                         record.HashRange
	Parent, AdjacentParent       record.ShardNumber
	HasParent, HasAdjacentParent bool
	// Created and Closed are when the shard began and stopped to take
	// records; Closed is zero while it is open.
	Created, Closed time.Time
	// First and Last are the indexes of the oldest and newest record kept;
	// First is above Last when there is none.
	First, Last uint64
	// Records are those kept: what was thinned out or damaged does not count, nor do jumps.
	Records uint64
	// LastArrival is when the newest record arrived, zero when there never was one.
	LastArrival time.Time
	// Bytes are those of the stored blocks.
	Bytes int64
}

// Open says whether the shard takes records.
func (i ShardInfo) Open() bool { return i.Closed.IsZero() }

// StartingSequenceNumber is below that of every record of the shard.
func (i ShardInfo) StartingSequenceNumber() record.SequenceNumber {
	return record.NewSequenceNumber(i.Created.Unix(), i.Number, 0, i.Created.Unix())
}

// EndingSequenceNumber is above that of every record of a closed shard; for
// an open shard it is the zero value.
func (i ShardInfo) EndingSequenceNumber() record.SequenceNumber {
	if i.Open() {
		return record.SequenceNumber{}
	}
	return record.NewSequenceNumber(i.Created.Unix(), i.Number, record.MaxIndex, i.Closed.Unix())
}

func infoOf(sh *shard.Shard) ShardInfo {
	row := sh.Row()
	_, stored := sh.Sizes(0)
	i := ShardInfo{
		Number: row.Number, Hash: sh.Hash, Created: time.UnixMilli(row.CreatedMS),
		First: sh.First(), Last: sh.Watermark(), LastArrival: sh.Arrival(), Bytes: int64(stored),
	}
	if i.Last >= i.First {
		gone := sh.Jumped(i.First, i.Last) + sh.Lost(i.First, i.Last)
		i.Records = i.Last - i.First + 1 - min(gone, i.Last-i.First+1)
	}
	if row.ClosedMS > 0 {
		i.Closed = time.UnixMilli(row.ClosedMS)
	}
	if row.Parent != nil {
		i.Parent, i.HasParent = *row.Parent, true
	}
	if row.AdjacentParent != nil {
		i.AdjacentParent, i.HasAdjacentParent = *row.AdjacentParent, true
	}
	return i
}

// Taken returns how many records the stream took in since the store was
// opened, those of shards that are gone included. It never falls.
func (st *Stream) Taken() uint64 {
	st.mu.RLock()
	defer st.mu.RUnlock()
	n := st.mu.takenGone
	for _, sh := range st.mu.shards {
		n += sh.Taken()
	}
	return n
}

// Lost returns how many records of the stream were lost since the store was opened,
// those of shards that are gone included, and why. It never falls.
func (st *Stream) Lost() map[shard.GapReason]uint64 {
	st.mu.RLock()
	defer st.mu.RUnlock()
	out := map[shard.GapReason]uint64{}
	for reason, gap := range map[keyspace.LossReason]shard.GapReason{
		keyspace.LossDropped: shard.GapDropped, keyspace.LossThinned: shard.GapThinned, keyspace.LossDamage: shard.GapDamage,
	} {
		out[gap] = st.mu.lostGone[reason]
		for _, sh := range st.mu.shards {
			out[gap] += sh.LostFor(reason)
		}
	}
	return out
}

// Shards describes all shards by number, closed ones included until their
// retention is over.
func (st *Stream) Shards() []ShardInfo {
	all := st.All()
	out := make([]ShardInfo, 0, len(all))
	for _, sh := range all {
		if !sh.Row().Pending {
			out = append(out, infoOf(sh))
		}
	}
	return out
}

// Shard describes one shard, or fails with ErrShardNotFound.
func (st *Stream) Shard(n record.ShardNumber) (ShardInfo, error) {
	sh, err := st.Find(n)
	if err != nil {
		return ShardInfo{}, err
	}
	return infoOf(sh), nil
}

// Sequence returns the outside number of a record of shard n; the zero value
// when there is no such shard.
func (st *Stream) Sequence(n record.ShardNumber, index uint64, arrival time.Time) record.SequenceNumber {
	sh, err := st.Find(n)
	if err != nil {
		return record.SequenceNumber{}
	}
	return record.NewSequenceNumber(sh.CreatedMS()/1000, n, index, arrival.Unix())
}

// Losses returns what policies and damage took from a shard, in order.
func (st *Stream) Losses(n record.ShardNumber) ([]shard.Loss, error) {
	sh, err := st.Find(n)
	if err != nil {
		return nil, err
	}
	return sh.Losses(), nil
}
