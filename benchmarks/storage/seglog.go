package storage

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"

	"github.com/weirhq/weir/storage/block"
)

const (
	segmentBytes   = 16 << 20
	groupBytes     = 1 << 20
	admissionBytes = 4 << 20
)

// segmentLog is the limit: an append-only log of the same blocks in the same
// groups, with nothing that makes it findable, trimmable or transactional. It
// can be written and no more.
type segmentLog struct {
	fs        vfs.FS
	dir       string
	codec     block.Codec
	shards    int
	admission *semaphore.Weighted
	kicked    chan struct{}
	stopped   chan struct{}

	mu struct {
		sync.Mutex
		open    *segmentGroup
		closing bool
	}

	// The committer's own.
	builder  *block.Builder
	next     []uint64
	out      []byte
	file     vfs.File
	inFile   int
	files    int
	ewma     time.Duration
	expected int
}

type segmentGroup struct {
	pending [][]sample
	ops     int
	bytes   int
	taken   chan struct{}
	done    chan struct{}
	err     error
}

func openSegmentLog(fs vfs.FS, dir string, shards int, codec block.Codec) (*segmentLog, error) {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l := &segmentLog{
		fs: fs, dir: dir, codec: codec, shards: shards, admission: semaphore.NewWeighted(admissionBytes),
		kicked: make(chan struct{}, 1), stopped: make(chan struct{}), builder: block.NewBuilder(), next: make([]uint64, shards),
	}
	l.mu.open = l.newGroup()
	go l.run()
	return l, nil
}

func (l *segmentLog) newGroup() *segmentGroup {
	return &segmentGroup{pending: make([][]sample, l.shards), taken: make(chan struct{}), done: make(chan struct{})}
}

// append copies nothing: the pool outlives the log, which spares the limit a
// copy that the store has to make.
func (l *segmentLog) append(ctx context.Context, batch []sample) error {
	n := bytesOf(batch)
	if err := l.admission.Acquire(ctx, int64(n)); err != nil {
		return err
	}
	defer l.admission.Release(int64(n))
	l.mu.Lock()
	for l.mu.open.bytes > 0 && l.mu.open.bytes+n > groupBytes {
		taken := l.mu.open.taken
		l.mu.Unlock()
		<-taken
		l.mu.Lock()
	}
	g := l.mu.open
	for i := range batch {
		s := shardOf(batch[i].hash, l.shards)
		g.pending[s] = append(g.pending[s], batch[i])
	}
	g.ops++
	g.bytes += n
	l.mu.Unlock()
	l.kick()
	<-g.done
	return g.err
}

func (l *segmentLog) kick() {
	select {
	case l.kicked <- struct{}{}:
	default:
	}
}

func (l *segmentLog) run() {
	defer close(l.stopped)
	for {
		l.mu.Lock()
		for l.mu.open.ops == 0 {
			closing := l.mu.closing
			l.mu.Unlock()
			if closing {
				return
			}
			<-l.kicked
			l.mu.Lock()
		}
		l.lingerLocked()
		g := l.mu.open
		l.mu.open = l.newGroup()
		l.mu.Unlock()
		close(g.taken)
		start := time.Now()
		g.err = l.write(g)
		l.ewma = l.ewma*7/8 + time.Since(start)/8
		l.mu.Lock()
		l.expected = g.ops + l.mu.open.ops
		l.mu.Unlock()
		close(g.done)
	}
}

// lingerLocked is the store's rule: on slow media wait for the other clients.
func (l *segmentLog) lingerLocked() {
	if l.ewma < time.Millisecond {
		return
	}
	timer := time.NewTimer(min(l.ewma/2, 5*time.Millisecond))
	defer timer.Stop()
	for l.mu.open.ops < l.expected && l.mu.open.bytes < groupBytes {
		l.mu.Unlock()
		late := false
		select {
		case <-l.kicked:
		case <-timer.C:
			late = true
		}
		l.mu.Lock()
		if late {
			return
		}
	}
}

func (l *segmentLog) write(g *segmentGroup) error {
	l.out = l.out[:0]
	at := block.Stamp{ArrivalMS: time.Now().UnixMilli()}
	for s, records := range g.pending {
		l.builder.Reset()
		for i := range records {
			if !l.builder.Fits(len(records[i].data)) {
				l.appendBlock(s, at)
			}
			l.builder.Add(records[i].key, nil, records[i].data, 0)
			l.next[s]++
		}
		if l.builder.Count() > 0 {
			l.appendBlock(s, at)
		}
	}
	if l.file == nil || l.inFile+len(l.out) > segmentBytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if _, err := l.file.Write(l.out); err != nil {
		return err
	}
	l.inFile += len(l.out)
	return l.file.SyncData()
}

func (l *segmentLog) appendBlock(shard int, at block.Stamp) {
	b := l.builder.Encode(l.codec, at)
	l.out = binary.LittleEndian.AppendUint32(l.out, uint32(shard))
	l.out = binary.LittleEndian.AppendUint32(l.out, uint32(len(b)))
	l.out = binary.LittleEndian.AppendUint64(l.out, l.next[shard])
	l.out = append(l.out, b...)
	l.builder.Reset()
}

func (l *segmentLog) rotate() error {
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			return err
		}
	}
	f, err := l.fs.Create(l.fs.PathJoin(l.dir, fmt.Sprintf("%06d.seg", l.files)), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	l.file, l.inFile, l.files = f, 0, l.files+1
	return nil
}

// idle is always true: the log does all its work before it answers.
func (l *segmentLog) idle() bool { return true }

func (l *segmentLog) close() error {
	l.mu.Lock()
	l.mu.closing = true
	l.mu.Unlock()
	l.kick()
	<-l.stopped
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
