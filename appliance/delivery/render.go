package delivery

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// source gives the records of one object, in order, as often as it is asked.
type source func(ctx context.Context, emit func(data []byte) error) error

// counts is what rendering an object found out.
type counts struct {
	records int64
	bytes   int64 // before compression
}

// renderer writes objects that are records end to end.
type renderer struct {
	workers int
	at      time.Time // of the oldest record
}

// plain writes records end to end, each followed by delimiter.
func (r *renderer) plain(ctx context.Context, w io.Writer, c Compression, delimiter []byte, entry string, from source) (counts, error) {
	var n counts
	lazy := &lazyWriter{open: func() (io.WriteCloser, error) {
		return c.Format.NewWriter(w, codec.Options{Level: c.Level, Workers: r.workers, Entry: entry, Modified: r.at})
	}}
	out := bufio.NewWriterSize(lazy, 64<<10)
	err := from(ctx, func(data []byte) error {
		n.records++
		n.bytes += int64(len(data) + len(delimiter))
		if _, err := out.Write(data); err != nil {
			return err
		}
		_, err := out.Write(delimiter)
		return err
	})
	if err == nil && n.records == 0 {
		return n, ErrNoRecords
	}
	if err == nil {
		err = out.Flush()
	}
	return n, errors.Join(err, lazy.close(err == nil))
}

// lazyWriter opens its writer at the first byte, or at close: an object
// without records must leave nothing behind.
type lazyWriter struct {
	open func() (io.WriteCloser, error)
	w    io.WriteCloser
}

func (l *lazyWriter) Write(p []byte) (int, error) {
	if l.w == nil {
		w, err := l.open()
		if err != nil {
			return 0, err
		}
		l.w = w
	}
	return l.w.Write(p)
}

func (l *lazyWriter) close(whole bool) error {
	if l.w == nil && whole {
		w, err := l.open() // records of no bytes are an object too
		if err != nil {
			return err
		}
		l.w = w
	}
	if l.w == nil {
		return nil
	}
	return l.w.Close()
}

// forward writes the stored zstd frames of a recipe end to end: nothing is
// decompressed, nothing compressed. Blocks that were stored otherwise, or of
// which only a part belongs to the recipe, become zstd frames on the way.
type forward struct {
	stream *storage.Stream
	level  int
}

func (f *forward) render(ctx context.Context, w io.Writer, r *Recipe) (counts, error) {
	var n counts
	loose := &looseFrame{w: w, level: f.level}
	for _, g := range r.Ranges {
		if err := f.rangeFrames(ctx, w, g, loose, &n); err != nil {
			return n, errors.Join(err, loose.end())
		}
	}
	if err := loose.end(); err != nil {
		return n, err
	}
	if n.records == 0 {
		return n, ErrNoRecords
	}
	return n, nil
}

func (f *forward) rangeFrames(ctx context.Context, w io.Writer, g Range, loose *looseFrame, n *counts) error {
	reader, err := f.stream.NewReader(g.Shard, storage.Position{Kind: storage.AtIndex, Index: g.First})
	if err != nil {
		return readError(g.Shard, f.stream, err)
	}
	defer reader.Close()
	for reader.Position() <= g.Last {
		if err := ctx.Err(); err != nil {
			return err
		}
		var stop error
		took := false
		err := reader.Frames(1<<20, func(fr storage.Frame) bool {
			if fr.First > g.Last {
				return false
			}
			took = true
			if fr.Codec != storage.FrameZstd || fr.Partial || fr.Last > g.Last {
				stop = decode(&fr, g, loose, n)
				return stop == nil
			}
			if stop = loose.end(); stop == nil {
				_, stop = w.Write(fr.Data)
			}
			n.records += int64(fr.Count)
			n.bytes += int64(fr.RawLen)
			return stop == nil
		})
		if stop != nil {
			return stop
		}
		if errors.Is(err, io.EOF) || err == nil && !took {
			return nil
		}
		if err != nil {
			return readError(g.Shard, f.stream, err)
		}
	}
	return nil
}

// decode puts the records of a block that can't be forwarded into the loose
// frame.
func decode(f *storage.Frame, g Range, loose *looseFrame, n *counts) error {
	var stop error
	err := f.Records(func(r *record.Record) bool {
		if r.Index < g.First || r.Index > g.Last {
			return true
		}
		n.records++
		n.bytes += int64(len(r.Data))
		stop = loose.write(r.Data)
		return stop == nil
	})
	return errors.Join(err, stop)
}

// looseFrame compresses what can't be forwarded, one zstd frame for each run
// of neighbouring blocks.
type looseFrame struct {
	w     io.Writer
	level int
	enc   *zstd.Encoder
	open  bool
}

func (l *looseFrame) write(data []byte) error {
	if l.enc == nil {
		enc, err := zstd.NewWriter(nil, codec.ZstdOptions(l.level)...)
		if err != nil {
			return err
		}
		l.enc = enc
	}
	if !l.open {
		l.enc.Reset(l.w)
		l.open = true
	}
	_, err := l.enc.Write(data)
	return err
}

func (l *looseFrame) end() error {
	if !l.open {
		return nil
	}
	l.open = false
	return l.enc.Close()
}

// failed renders the failed records of one kind.
func failed(ctx context.Context, w io.Writer, p *pipeline, r *Recipe, kind string, fails func(it *item) *failure) (counts, []Range, error) {
	var n counts
	var runs []Range
	out := bufio.NewWriterSize(w, 32<<10)
	_, err := p.run(ctx, r, stageFunc(func(it *item) error {
		f := fails(it)
		if f == nil || f.kind != kind {
			return nil
		}
		n.records++
		n.bytes += int64(len(it.raw))
		runs = addRun(runs, it.shard, it.index, len(it.raw))
		return f.write(out, it, p.stream.Sequence(it.shard, it.index, it.arrival).String(), r.Sealed)
	}))
	if err == nil && n.records == 0 {
		return n, nil, ErrNoRecords
	}
	if err == nil {
		err = out.Flush()
	}
	return n, runs, err
}

// maxRuns bounds the list of failed ranges kept for a redrive. Beyond it the
// last run grows over records that did not fail.
const maxRuns = 4096

// addRun notes that the record at index failed.
func addRun(runs []Range, shard record.ShardNumber, index uint64, size int) []Range {
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		if last.Shard == shard && (index <= last.Last+1 || n >= maxRuns) {
			if index > last.Last {
				last.Records++
			}
			last.Last = max(last.Last, index)
			last.Bytes += int64(size)
			return runs
		}
	}
	return append(runs, Range{Shard: shard, First: index, Last: index, Records: 1, Bytes: int64(size)})
}
