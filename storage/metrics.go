package storage

import "github.com/weirhq/weir/storage/commit"

// Metrics are totals since the open, and a few present values.
type Metrics struct {
	commit.Stats
	// Flushes, Moves and Compactions count Pebble's work: a move rewrites
	// nothing, a compaction does.
	Flushes, Moves, Compactions int64
	// UnderWay is how many flushes and compactions run now.
	UnderWay int64
	// BytesWAL, BytesFlushed, BytesCompacted and BytesRewritten were handed to the
	// device, the last to thin out records or to give space back.
	BytesWAL, BytesFlushed, BytesCompacted, BytesRewritten uint64
	// Tables and TableBytes are what there is of tables, those that wait to be
	// removed included; DiskBytes adds log and manifest.
	Tables     int64
	TableBytes uint64
	DiskBytes  uint64
	// MemTableBytes and CacheBytes are in memory now.
	MemTableBytes uint64
	CacheBytes    int64
}

// Metrics returns the totals as of now; after a failure of the engine only
// the committer's.
func (s *Store) Metrics() Metrics {
	out := Metrics{Stats: s.committer.Stats()}
	if s.Failed() != nil || s.env.Enter() != nil {
		return out
	}
	defer s.env.Leave()
	m := s.db.Metrics()
	for i := range m.Levels {
		out.BytesFlushed += m.Levels[i].TableBytesFlushed
		out.BytesCompacted += m.Levels[i].TableBytesCompacted
		out.BytesRewritten += m.Levels[i].TableBytesIngested
		out.Tables += m.Levels[i].TablesCount
	}
	out.TableBytes = m.Table.Local.LiveSize + m.Table.ObsoleteSize + m.Table.ZombieSize
	out.Flushes, out.Moves, out.Compactions = m.Flush.Count, m.Compact.MoveCount, m.Compact.DefaultCount
	out.UnderWay = m.Flush.NumInProgress + m.Compact.NumInProgress
	out.BytesWAL, out.DiskBytes = m.WAL.BytesWritten, m.DiskSpaceUsage()
	out.MemTableBytes, out.CacheBytes = m.MemTable.Size, m.BlockCache.Size
	return out
}
