package storage

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/record"
)

// engine takes batches and returns when they are synced.
type engine interface {
	append(ctx context.Context, batch []sample) error
	// idle says that nothing is left to do of what was appended.
	idle() bool
	close() error
}

// settle waits until the engine has done in the background what its appends
// brought about, so that it is charged to this engine and not to the next one.
func settle(ctx context.Context, e engine) {
	const most = 20 * time.Second
	quiet := 0
	for start := time.Now(); quiet < 3 && ctx.Err() == nil && time.Since(start) < most; {
		if quiet++; !e.idle() {
			quiet = 0
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// memTable is what storage.Options has for MemTableBytes; a log is about as long.
const memTable = 8 << 20

// The engines, by the names in the tables.
const (
	ours     = "weir"
	oursS2   = "weir, S2"
	limit    = "segment log"
	limitS2  = "segment log, S2"
	limitRaw = "segment log, raw"
	natural  = "key per record"
)

func openEngine(name string, fs vfs.FS, dir string, shards int) (engine, error) {
	dir = filepath.Join(dir, name)
	switch name {
	case ours:
		return openWeir(fs, dir, storage.StreamConfig{Name: "load", Shards: shards})
	case oursS2:
		return openWeir(fs, dir, storage.StreamConfig{Name: "load", Shards: shards, Codec: storage.S2})
	case limit:
		return openSegmentLog(fs, dir, shards, block.Zstd)
	case limitS2:
		return openSegmentLog(fs, dir, shards, block.S2)
	case limitRaw:
		return openSegmentLog(fs, dir, shards, block.Raw)
	case natural:
		return openPerRecord(fs, dir, shards)
	}
	panic("BUG: no engine " + name)
}

// weir is the store through its own surface, as PutRecords uses it: routing
// by MD5 of the partition key included.
type weir struct {
	store  *storage.Store
	stream *storage.Stream
}

func openWeir(fs vfs.FS, dir string, c storage.StreamConfig) (*weir, error) {
	ctx := context.Background()
	s, err := storage.Open(ctx, dir, storage.Options{FS: fs})
	if err != nil {
		return nil, err
	}
	st, err := s.Stream(c.Name)
	if err != nil {
		if st, err = s.CreateStream(ctx, c); err != nil {
			return nil, fmt.Errorf("create stream: %w", err)
		}
	}
	return &weir{s, st}, nil
}

func (w *weir) append(ctx context.Context, batch []sample) error {
	t, err := w.store.Begin(ctx, bytesOf(batch))
	if err != nil {
		return err
	}
	defer t.Release()
	for i := range batch {
		if err := t.Append(w.stream, batch[i].key, nil, batch[i].data); err != nil {
			return err
		}
	}
	return t.Commit(ctx)
}

func (w *weir) idle() bool { return w.store.Metrics().UnderWay == 0 }

func (w *weir) close() error { return w.store.Close() }

// shardOf places a hash key among n equal shards, as the streams do.
func shardOf(h record.HashKey, n int) int {
	hi, _ := bits.Mul64(binary.BigEndian.Uint64(h[:]), uint64(n))
	return int(hi)
}
