package codec

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"
)

const (
	// gzipBlock is what one worker compresses at a time. Blocks are cut at
	// fixed places whatever the number of workers, so the bytes don't
	// depend on it.
	gzipBlock = 512 << 10
	// window is deflate's: each block starts with the last 32 KiB of the
	// one before as its dictionary, so cutting costs next to nothing.
	window = 32 << 10
)

func newDeflate(w io.Writer, level int) (*flate.Writer, error) {
	if level == 0 {
		level = flate.DefaultCompression
	}
	return flate.NewWriter(w, level)
}

// gzipWriter writes one gzip member (RFC 1952) whose deflate blocks are made
// by up to workers goroutines, in the manner of pigz. Memory: each block in
// flight holds its input, its dictionary and its output.
type gzipWriter struct {
	w       io.Writer
	level   int
	workers int
	crc     uint32
	size    uint32
	block   *gzipJob   // being filled; nil until there is something for it
	dict    []byte     // the end of the block before
	queue   []*gzipJob // started, oldest first; at most workers
	free    []*gzipJob
	err     error
	begun   bool
}

// gzipJob is one block on its way: raw in, out compressed, done when made.
type gzipJob struct {
	dict []byte
	raw  []byte
	out  sliceWriter
	enc  *flate.Writer
	err  error
	done chan struct{}
}

type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

func newGzip(w io.Writer, o Options) (*gzipWriter, error) {
	level := o.Level
	if level == 0 {
		level = flate.DefaultCompression
	}
	return &gzipWriter{w: w, level: level, workers: max(o.Workers, 1)}, nil
}

// newJob begins a block. What has only one needs only one job.
func (g *gzipWriter) newJob() *gzipJob {
	var j *gzipJob
	if n := len(g.free); n > 0 {
		j = g.free[n-1]
		g.free = g.free[:n-1]
	} else if j = gzipJobs.take(g.level); j == nil {
		j = &gzipJob{raw: make([]byte, 0, gzipBlock), done: make(chan struct{}, 1)}
	}
	j.dict, j.raw, j.out, j.err = append(j.dict[:0], g.dict...), j.raw[:0], j.out[:0], nil
	return j
}

// gzipJobs keep encoders, which are dear to make, from one object to the next.
var gzipJobs jobs

// maxIdleJobs bounds what is kept, about 2 MiB each. A sync.Pool loses all it has
// to each second collection, and what is made anew then stands beside what is not
// collected yet.
const maxIdleJobs = 4

type jobs struct {
	mu   sync.Mutex
	idle []idleJob // oldest first
}

type idleJob struct {
	*gzipJob
	level int // of its encoder
}

// take returns a job with an encoder of the level, nil when none is idle.
func (p *jobs) take(level int) *gzipJob {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.idle, func(j idleJob) bool { return j.level == level })
	if i < 0 {
		return nil
	}
	j := p.idle[i].gzipJob
	p.idle = slices.Delete(p.idle, i, i+1)
	return j
}

// give keeps a job, in the place of the oldest one when there are enough.
func (p *jobs) give(j *gzipJob, level int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == maxIdleJobs {
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.idle = append(p.idle, idleJob{j, level})
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if g.err != nil {
			return n - len(p), g.err
		}
		if g.block == nil {
			g.block = g.newJob()
		}
		k := min(len(p), gzipBlock-len(g.block.raw))
		g.block.raw = append(g.block.raw, p[:k]...)
		p = p[k:]
		if len(g.block.raw) == gzipBlock {
			g.start()
		}
	}
	return n, nil
}

// start hands the filled block to a worker, or does it here when there is
// only one.
func (g *gzipWriter) start() {
	j := g.block
	g.crc = crc32.Update(g.crc, crc32.IEEETable, j.raw)
	g.size += uint32(len(j.raw))
	if len(g.queue) == g.workers {
		g.finishOldest()
	}
	g.queue = append(g.queue, j)
	g.dict = append(g.dict[:0], j.raw[max(0, len(j.raw)-window):]...)
	g.block = nil
	if g.workers == 1 {
		j.compress(g.level)
		g.finishOldest()
		return
	}
	go j.compress(g.level)
}

func (j *gzipJob) compress(level int) {
	defer func() { j.done <- struct{}{} }()
	if j.enc == nil {
		if j.enc, j.err = flate.NewWriterDict(&j.out, level, j.dict); j.err != nil {
			return
		}
	} else {
		j.enc.ResetDict(&j.out, j.dict)
	}
	if _, j.err = j.enc.Write(j.raw); j.err == nil {
		j.err = j.enc.Flush()
	}
}

func (g *gzipWriter) finishOldest() {
	j := g.queue[0]
	g.queue = g.queue[:copy(g.queue, g.queue[1:])]
	<-j.done
	if g.err == nil {
		g.err = j.err
	}
	g.emit(j.out)
	g.free = append(g.free, j)
}

// gzipHeader says deflate, no name, no time, unknown system: nothing that
// would differ between two makings of the same object.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func (g *gzipWriter) emit(p []byte) {
	if !g.begun && g.err == nil {
		g.begun = true
		_, g.err = g.w.Write(gzipHeader)
	}
	if g.err == nil {
		_, g.err = g.w.Write(p)
	}
}

// Close ends the member. It waits for the workers even after an error.
func (g *gzipWriter) Close() error {
	if g.block != nil {
		g.start()
	}
	for len(g.queue) > 0 {
		g.finishOldest()
	}
	// An empty final stored block, then the trailer.
	end := []byte{1, 0, 0, 0xff, 0xff}
	end = binary.LittleEndian.AppendUint32(end, g.crc)
	end = binary.LittleEndian.AppendUint32(end, g.size)
	g.emit(end)
	for _, j := range g.free {
		gzipJobs.give(j, g.level)
	}
	g.free = nil
	return g.err
}
