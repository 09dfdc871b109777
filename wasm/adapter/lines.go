// Package adapter runs modules that were not written for Weir.
//
// # wasi-lines
//
// Any wasip1 command that reads lines on standard input and writes lines on
// standard output runs as a transform, unmodified, under the same limits of
// memory, fuel and time. A batch is one run of the command: a fresh instance,
// the records' data as lines, end of input after the last. Arguments and
// environment come from the manifest; standard error becomes log lines; an exit
// code other than 0 is a failure.
//
// Lines map to records like this. The host hands out one line for each read of
// standard input, so it knows which record the command works on: what it writes
// between taking record n and coming back for the next belongs to record n. No
// line drops the record, one line that is the record's own leaves it unchanged,
// other lines replace it, each by one record, at most the manifest's
// outputs_per_record.
//
// That is right only for commands that write before they read on. The first
// batches are therefore small, and a command that is seen to hold output back
// (it writes after the end of input, or leaves half a line standing) is from
// then on run once for each record: then everything it writes belongs to that
// record, whatever it buffers. This costs an instance for each record, some
// 20 µs for a small C program, 2 ms for a Go program. C programs and Rust's
// println! flush at line ends by themselves; a Go program with a bufio.Writer
// doesn't.
//
// What is impossible: records that hold a line feed (they fail with code
// 0xFFFF0007), programs that need the whole stream, such as sort or wc (they
// see one batch or one record at a time), partition keys, routing to other
// outputs, and state between batches.
package adapter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/transform"
)

// startExport is where a wasip1 command begins.
const startExport = "_start"

// How a command was seen to treat its output.
const (
	unknown  int32 = iota // it has not written anything yet
	prompt                // it writes before it reads on
	withheld              // it holds output back: one run for each record
)

// probeRecords is the size of batches while the mode is unknown: too few
// for a command's buffer to fill up and look prompt.
const probeRecords = 4

// Lines are engines for a wasip1 command. It owns the module and closes it with
// Close.
type Lines struct {
	module *host.Module
	o      guest.Options
	slots  chan *lineEngine
	mode   atomic.Int32
}

var _ transform.Engines = (*Lines)(nil)

// NewLines returns at most instances engines of the command.
func NewLines(m *host.Module, instances int, o guest.Options) (*Lines, error) {
	if !m.HasExport(startExport, nil, nil) {
		return nil, errors.Join(fmt.Errorf("%w: %s; a wasi-lines module is a wasip1 command", host.ErrExport, startExport), m.Close(context.Background()))
	}
	l := &Lines{module: m, o: o, slots: make(chan *lineEngine, instances)}
	for range instances {
		l.slots <- &lineEngine{l: l, out: answer{limit: o.Limits.OutputsPerRecord}}
	}
	return l, nil
}

// Get implements transform.Engines.
func (l *Lines) Get(ctx context.Context) (transform.Engine, error) {
	select {
	case e := <-l.slots:
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Put implements transform.Engines.
func (l *Lines) Put(e transform.Engine) { l.slots <- e.(*lineEngine) }

// Close implements transform.Engines.
func (l *Lines) Close() error { return l.module.Close(context.Background()) }

// lineEngine runs batches, an instance for each.
type lineEngine struct {
	l      *Lines
	fuel   uint64
	memory int64
	out    answer
}

// Accept implements transform.Engine; a command has no metrics.
func (e *lineEngine) Accept() {}

// Used implements transform.Engine.
func (e *lineEngine) Used() (uint64, int64) { return e.fuel, e.memory }

// Process implements transform.Engine.
func (e *lineEngine) Process(ctx context.Context, b *transform.Batch) (abi.Result, error) {
	e.fuel = 0
	e.out.reset(len(b.Records))
	if err := e.records(ctx, b, 0, len(b.Records)); err != nil {
		return abi.Result{}, err
	}
	return e.out.result(b)
}

// records runs [lo, hi) in as few instances as the mode allows.
func (e *lineEngine) records(ctx context.Context, b *transform.Batch, lo, hi int) error {
	for lo < hi {
		n := hi - lo
		switch e.l.mode.Load() {
		case unknown:
			n = min(n, probeRecords)
		case withheld:
			n = 1
		}
		whole, err := e.run(ctx, b, lo, lo+n)
		if err != nil {
			return err
		}
		if !whole {
			e.l.mode.Store(withheld)
			continue // again, one by one
		}
		lo += n
	}
	return nil
}

// run hands records [lo, hi) to one instance. It reports false when what the
// command wrote can't be told apart.
func (e *lineEngine) run(ctx context.Context, b *transform.Batch, lo, hi int) (bool, error) {
	f := &feed{records: b.Records, next: lo, end: hi, out: &e.out}
	g := guest.New(e.l.o)
	o := g.InstanceOptions()
	o.Stdin, o.Stdout = f, f
	o.Args = append([]string{e.l.o.Manifest.Name}, e.l.o.Manifest.Args...)
	o.Seed = b.ID
	if !e.l.o.Manifest.Capabilities.RealClock {
		now := b.TimeMS
		o.Now = func() time.Time { return time.UnixMilli(now) }
	}
	inst, err := e.l.module.Instantiate(ctx, o)
	if err != nil {
		return false, err
	}
	defer inst.Close()
	_, err = inst.Function(startExport).Call(ctx)
	e.fuel += inst.FuelUsed()
	e.memory = max(e.memory, inst.MemoryBytes())
	var exit *host.ExitError
	if errors.As(err, &exit) && exit.Code == 0 {
		err = nil
	}
	if err != nil {
		return false, err
	}
	return f.finish(e.l, lo, hi), nil
}

// feed is both ends of a run: it hands out lines and takes what comes back.
type feed struct {
	records   []transform.Record
	next, end int    // the next record to hand out
	rest      []byte // of the line being handed out
	current   int    // record that output belongs to, -1 before the first
	started   bool
	written   []byte // since current was handed out
	eof       bool   // the command has seen the end of input
	early     bool   // output came before the end of input
	torn      bool   // half a line stood when the command came for more
	out       *answer
}

// Read implements io.Reader: one line at most.
func (f *feed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		f.settle()
		for f.next < f.end && bytes.IndexByte(f.records[f.next].Data, '\n') >= 0 {
			f.out.unfit(f.next)
			f.next++
		}
		if f.next == f.end {
			f.eof = true
			return 0, io.EOF
		}
		f.current, f.started = f.next, true
		f.rest = append(append(f.rest[:0], f.records[f.next].Data...), '\n')
		f.next++
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// settle gives what was written to the record that was handed out last.
func (f *feed) settle() {
	if len(f.written) == 0 || f.eof {
		return
	}
	f.early = true
	if !f.started || f.written[len(f.written)-1] != '\n' {
		f.torn = true
	}
	if f.started {
		f.out.lines(f.current, f.written)
	}
	f.written = f.written[:0]
}

// Write implements io.Writer.
func (f *feed) Write(p []byte) (int, error) {
	f.written = append(f.written, p...)
	return len(p), nil
}

// finish settles what was written last and says whether everything has found
// its record.
func (f *feed) finish(l *Lines, lo, hi int) bool {
	if hi-lo == 1 {
		// Whatever was written belongs to the only record there was.
		if len(f.written) > 0 {
			f.out.lines(lo, f.written)
		}
		return true
	}
	if !f.eof {
		f.settle() // it stopped reading: what it left unread is dropped
	}
	if f.torn || len(f.written) > 0 {
		for i := lo; i < hi; i++ {
			f.out.forget(i)
		}
		return false
	}
	if f.early {
		l.mode.CompareAndSwap(unknown, prompt)
	}
	return true
}

// answer collects lines and lays them out as a weir/1 result, so that the
// rest of the way is the same as for any other module.
type answer struct {
	limit int      // lines of a record; of more, one is kept to tell
	spans [][]span // lines of each record, in data
	bad   []bool
	data  []byte
	mem   []byte
}

type span struct{ from, to int }

func (a *answer) reset(records int) {
	if cap(a.spans) < records {
		a.spans = make([][]span, records)
		a.bad = make([]bool, records)
	}
	a.spans, a.bad, a.data = a.spans[:records], a.bad[:records], a.data[:0]
	for i := range a.spans {
		a.spans[i], a.bad[i] = a.spans[i][:0], false
	}
}

func (a *answer) unfit(record int)  { a.bad[record] = true }
func (a *answer) forget(record int) { a.spans[record], a.bad[record] = a.spans[record][:0], false }

// lines gives text's lines to a record; the last need not end in a line feed.
func (a *answer) lines(record int, text []byte) {
	for len(text) > 0 && len(a.spans[record]) <= a.limit {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		from := len(a.data)
		a.data = append(a.data, line...)
		a.spans[record] = append(a.spans[record], span{from, len(a.data)})
		text = rest
	}
}

const unfitReason = "the data holds a line feed; a wasi-lines module takes one line for each record"

// result lays the answer out: header, result table, output table, reason, data.
func (a *answer) result(b *transform.Batch) (abi.Result, error) {
	n := len(a.spans)
	outs := 0
	for i := range a.spans {
		if len(a.spans[i]) > a.limit {
			return abi.Result{}, &abi.InvalidResultError{What: "lines", Got: fmt.Sprintf("more than %d for one record; outputs_per_record is %d", a.limit, a.limit)}
		}
		outs += len(a.spans[i])
		if a.bad[i] {
			outs++
		}
	}
	table := abi.ResultHeaderLen
	outTable := table + n*abi.ResultEntryLen
	reason := outTable + outs*abi.OutputEntryLen
	data := reason + len(unfitReason)
	a.mem = append(a.mem[:0], make([]byte, reason)...)
	a.mem = append(append(a.mem, unfitReason...), a.data...)
	le := binary.LittleEndian
	le.PutUint32(a.mem, abi.ResultMagic)
	le.PutUint16(a.mem[4:], abi.Version)
	le.PutUint32(a.mem[8:], uint32(table))
	le.PutUint32(a.mem[12:], uint32(outTable))
	le.PutUint32(a.mem[16:], uint32(outs))
	k := 0
	put := func(record, from, to int) {
		o := a.mem[outTable+k*abi.OutputEntryLen:]
		le.PutUint32(o, uint32(record))
		le.PutUint32(o[8:], abi.Inherit)
		le.PutUint32(o[16:], uint32(from))
		le.PutUint32(o[20:], uint32(to-from))
		le.PutUint32(o[32:], abi.Inherit)
		k++
	}
	for i, lines := range a.spans {
		e := a.mem[table+i*abi.ResultEntryLen:]
		le.PutUint32(e[4:], uint32(k))
		switch {
		case a.bad[i]:
			e[0], e[1] = byte(abi.StatusFailed), abi.EntryReason
			put(i, reason, data)
			le.PutUint64(a.mem[outTable+(k-1)*abi.OutputEntryLen+40:], uint64(transform.CodeUnfit))
		case len(lines) == 0:
			e[0] = byte(abi.StatusDropped)
		case len(lines) == 1 && bytes.Equal(a.data[lines[0].from:lines[0].to], b.Records[i].Data):
			e[0] = byte(abi.StatusUnchanged)
		default:
			e[0] = byte(abi.StatusReplaced)
			le.PutUint16(e[2:], uint16(len(lines)))
			for _, s := range lines {
				put(i, data+s.from, data+s.to)
			}
		}
	}
	le.PutUint32(a.mem[16:], uint32(k))
	return abi.DecodeResult(a.mem, 0, n)
}
