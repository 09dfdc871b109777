package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
)

// reportMissing notes that an epoch's table is gone though its row is there.
func (s *Store) reportMissing(f *found, e listed) {
	names := f.shardNames()
	for _, run := range e.Runs {
		if n, ok := names[run.Shard]; ok {
			n.First, n.Last, n.Reason = run.Last-run.Count+1, run.Last, fmt.Sprintf("the table of epoch %d is missing", e.Epoch)
			s.recovery.Damaged = append(s.recovery.Damaged, n)
		}
	}
}

// damaged enters a range that a reader could not read, once.
func (s *Store) damaged(sh *shard.Shard, first, last uint64, cause error) {
	row := sh.Row()
	known := min(last-first+1, sh.Jumped(first, last)+sh.Lost(first, last))
	loss := shard.Loss{First: first, Last: last, Records: last - first + 1 - known, Time: s.now(), Reason: keyspace.LossDamage}
	loss, ok := sh.AddLoss(loss)
	if !ok {
		return
	}
	s.log.Warn("records can't be read", "stream_id", row.Stream, "shard", row.Number.String(), "first", first, "last", last, "cause", firstLine(cause.Error()))
	if s.Failed() != nil {
		return
	}
	key := keyspace.MetaIndex(keyspace.KindLoss, sh.ID, loss.First)
	if err := s.guard(func() error { return s.db.Set(key, lossRow(loss).Encode(), pebble.NoSync) }); err != nil {
		s.log.Warn("damage could not be noted", "cause", err)
	}
}

func lossRow(l shard.Loss) keyspace.LossRow {
	return keyspace.LossRow{Last: l.Last, Records: l.Records, Bytes: l.Bytes, TimeMS: l.Time.UnixMilli(), Reason: l.Reason}
}
