package storage

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// perRecord is the layout anybody would start with: key = shard | sequence,
// value = one record, every request its own synced batch, Pebble's defaults but
// for the memtable and the cache, which are as large as the store's.
type perRecord struct {
	db     *pebble.DB
	shards []recordShard
}

type recordShard struct {
	mu   sync.Mutex
	next uint64
}

func openPerRecord(fs vfs.FS, dir string, shards int) (*perRecord, error) {
	o := &pebble.Options{
		FS: fs, MemTableSize: 4 << 20, Cache: pebble.NewCache(8 << 20), FormatMajorVersion: pebble.FormatNewest,
		Logger: quiet{},
	}
	defer o.Cache.Unref()
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, err
	}
	return &perRecord{db: db, shards: make([]recordShard, shards)}, nil
}

func (l *perRecord) append(_ context.Context, batch []sample) error {
	b := l.db.NewBatch()
	now := uint64(time.Now().UnixMilli())
	var key [12]byte
	for i := range batch {
		s := shardOf(batch[i].hash, len(l.shards))
		l.shards[s].mu.Lock()
		l.shards[s].next++
		n := l.shards[s].next
		l.shards[s].mu.Unlock()
		binary.BigEndian.PutUint32(key[:], uint32(s))
		binary.BigEndian.PutUint64(key[4:], n)
		op := b.SetDeferred(len(key), 9+len(batch[i].key)+len(batch[i].data))
		copy(op.Key, key[:])
		binary.LittleEndian.PutUint64(op.Value, now)
		op.Value[8] = byte(len(batch[i].key))
		copy(op.Value[9+copy(op.Value[9:], batch[i].key):], batch[i].data)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	return b.Close()
}

func (l *perRecord) idle() bool {
	m := l.db.Metrics()
	return m.Flush.NumInProgress == 0 && m.Compact.NumInProgress == 0
}

func (l *perRecord) close() error { return l.db.Close() }

// quiet is Pebble's logger for an engine whose log nobody reads; a fatal error
// still ends the benchmark.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { pebble.DefaultLogger.Fatalf(format, a...) }
