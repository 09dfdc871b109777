package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// PositionKind says how a Position names a place.
type PositionKind uint8

// The kinds of positions.
const (
	// TrimHorizon is the oldest record kept.
	TrimHorizon PositionKind = iota
	// Latest is after the newest record.
	Latest
	// AtIndex is at Position.Index.
	AtIndex
	// AfterIndex is after Position.Index.
	AfterIndex
	// AtTime is at the first record that arrived at Position.Time or later.
	AtTime
)

// Position is a place in a shard. The zero value is the trim horizon.
type Position struct {
	Kind  PositionKind
	Index uint64
	Time  time.Time
}

// maxSkipped bounds the gaps a reader remembers between two calls of
// Skipped; more are merged into the last one.
const maxSkipped = 1024

// Reader stands at an index of a shard and reads forward. It is for one
// goroutine, but Position and Lag may be called from any. Between calls it
// holds nothing of the store but its last decoded block.
type Reader struct {
	s   *Shard
	pos atomic.Uint64 // index of the next record

	own     block.Decoded
	copied  []byte // raw frames must outlive the iterator
	block   *block.Decoded
	first   uint64 // indexes of block
	last    uint64
	shiftMS int64

	skipped []Gap
	lastMS  atomic.Int64 // arrival of the record read last
	closed  bool
	it      scan
	rec     record.Record
}

// NewReader returns a reader at p. It pins nothing.
func (s *Shard) NewReader(p Position) (*Reader, error) {
	if s.deleted.Load() {
		return nil, ErrDeleted
	}
	if err := s.env.Enter(); err != nil {
		return nil, err
	}
	defer s.env.Leave()
	r := &Reader{s: s}
	switch p.Kind {
	case TrimHorizon:
		r.pos.Store(s.First())
	case Latest:
		r.pos.Store(s.Watermark() + 1)
	case AtIndex:
		r.pos.Store(max(p.Index, 1))
	case AfterIndex:
		r.pos.Store(p.Index + 1)
	case AtTime:
		if err := r.seekTime(p.Time.UnixMilli()); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("reader: position kind %d is not known", p.Kind)
	}
	s.readers.Add(1)
	return r, nil
}

// Close ends the reader. It is safe to call twice.
func (r *Reader) Close() {
	if !r.closed {
		r.closed = true
		r.s.readers.Add(-1)
	}
}

// Position returns the index of the next record.
func (r *Reader) Position() uint64 { return r.pos.Load() }

// Shard returns the shard the reader stands in.
func (r *Reader) Shard() record.ShardNumber { return r.s.Number }

// Skipped returns the gaps passed over since the last call: records that
// retention, a policy or damage took before they were read.
func (r *Reader) Skipped() []Gap {
	g := r.skipped
	r.skipped = nil
	return g
}

// Wait returns nil when there may be more to read: the watermark moved past
// the position, the shard was closed, or the stream was deleted.
func (r *Reader) Wait(ctx context.Context) error { return r.s.Wait(ctx, r.pos.Load()) }

// Lag returns how far the reader is behind the watermark: records, bytes of
// their data (estimated within an epoch), and the age of the record read last,
// all 0 at the tip. Before the first read the age is that of the newest record
// of the epoch it stands in: what is next is at least as old.
func (r *Reader) Lag() (records uint64, bytes int64, age time.Duration) {
	pos, mark := max(r.pos.Load(), r.s.First()), r.s.Watermark()
	if pos > mark {
		return 0, 0, 0
	}
	records = mark - pos + 1 - r.s.Jumped(pos, mark)
	raw, _ := r.s.Sizes(pos)
	ms := r.lastMS.Load()
	if ms == 0 {
		if run, ok := r.s.Find(pos); ok {
			ms = run.EndMS
		}
	}
	return records, int64(raw), max(0, r.s.env.Now().Sub(time.UnixMilli(ms)))
}

// Read calls fn for records from the position on, in order, up to the
// watermark, until maxRecords or maxBytes (keys and data) are reached or fn
// returns false; the record fn refused is read again next time. At least one
// record is read if there is one. n == 0 with a nil error means that the
// reader is at the tip; io.EOF that the shard is closed and all is read.
// Slices are valid until the next call. For others the position moves block by
// block, not with every record.
func (r *Reader) Read(maxRecords, maxBytes int, fn func(*record.Record) bool) (n int, err error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	defer r.leave()
	size, maxRecords := 0, max(maxRecords, 1)
	for n < maxRecords {
		pos := r.pos.Load()
		if r.block == nil || pos < r.first || pos > r.last {
			ok, err := r.load()
			if err != nil {
				if n > 0 && err == io.EOF {
					return n, nil
				}
				return n, err
			}
			if !ok {
				return n, nil
			}
		}
		more := false
		if n, size, more = r.deliver(n, maxRecords, size, maxBytes, fn); !more {
			return n, nil
		}
	}
	return n, nil
}

// deliver calls fn for the records of the present block and returns the counts
// n and size moved on; more is false when maxBytes or fn ended it. The position
// is stored once: two atomic stores a record are a twentieth of a replay.
func (r *Reader) deliver(n, maxRecords, size, maxBytes int, fn func(*record.Record) bool) (_, _ int, more bool) {
	pos, b, rec := r.pos.Load(), r.block, &r.rec
	ms := r.lastMS.Load()
	rec.Arrival = time.UnixMilli(ms)
	for more = true; pos <= r.last && n < maxRecords; pos++ {
		i := int(pos - r.first)
		b.Record(i, rec)
		length := len(rec.Data) + len(rec.PartitionKey)
		if more = n == 0 || size+length <= maxBytes; !more {
			break
		}
		at := b.ArrivalMS(i) + r.shiftMS
		if at != ms {
			rec.Arrival = time.UnixMilli(at)
		}
		rec.Index = pos
		if more = fn(rec); !more {
			break
		}
		n++
		size += length
		ms = at
	}
	r.lastMS.Store(ms)
	r.pos.Store(pos)
	return n, size, more
}

// enter begins a call; leave must follow.
func (r *Reader) enter() error {
	if r.closed {
		return ErrClosed
	}
	if r.s.deleted.Load() {
		return ErrDeleted
	}
	return r.s.env.Enter()
}

func (r *Reader) leave() {
	r.it.close()
	r.s.env.Leave()
}

// load makes the block at the position the current one. ok is false at the
// tip; the error is io.EOF at the end of a closed shard.
func (r *Reader) load() (ok bool, err error) {
	if t := r.s.tail.block.Load(); t != nil {
		if pos := r.pos.Load(); t.first <= pos && pos <= t.last && pos >= r.s.First() {
			r.block, r.first, r.last, r.shiftMS = &t.decoded, t.first, t.last, t.shiftMS
			return true, nil
		}
	}
	for {
		value, last, run, err := r.next()
		if err != nil || value == nil {
			return false, err
		}
		err = r.decode(value, last, run)
		if err == nil {
			if r.pos.Load() < r.first {
				r.skip(r.first - 1)
			}
			return true, nil
		}
		r.damaged(last, err)
	}
}

// decode decodes a block into the reader, or once for all readers when it
// is the newest one and others may want it.
func (r *Reader) decode(value []byte, last uint64, run epoch.Run) error {
	if last == r.s.Watermark() && r.s.readers.Load() > 1 {
		return r.decodeShared(value, last, run)
	}
	h, err := block.ParseHeader(value)
	if err != nil {
		return err
	}
	if h.DataCodec == block.Raw || h.MetaCodec == block.Raw {
		r.copied = append(r.copied[:0], value...)
		value = r.copied
	}
	r.block = nil
	if err := r.own.Decode(value); err != nil {
		return err
	}
	r.place(&r.own, last, run)
	return nil
}

func (r *Reader) decodeShared(value []byte, last uint64, run epoch.Run) error {
	r.s.tail.Lock()
	defer r.s.tail.Unlock()
	t := r.s.tail.block.Load()
	if t == nil || t.last != last {
		t = &tailBlock{last: last}
		if err := t.decoded.Decode(append([]byte(nil), value...)); err != nil {
			return err
		}
		t.first = last - uint64(t.decoded.Count) + 1
		if t.decoded.Uncertain {
			t.shiftMS = r.s.env.Dir.ShiftMS(run.Epoch)
		}
		r.s.tail.block.Store(t)
	}
	r.place(&t.decoded, last, run)
	return nil
}

func (r *Reader) place(d *block.Decoded, last uint64, run epoch.Run) {
	r.block, r.last, r.first = d, last, last-uint64(d.Count)+1
	r.shiftMS = 0
	if d.Uncertain {
		r.shiftMS = r.s.env.Dir.ShiftMS(run.Epoch)
	}
}

// skip moves the position past last and remembers the gaps, where records were in them.
func (r *Reader) skip(last uint64) {
	r.s.gaps(r.pos.Load(), last, r.s.First(), func(g Gap) {
		n := len(r.skipped)
		switch {
		case g.Records == 0:
		case n > 0 && (r.skipped[n-1].Reason == g.Reason && r.skipped[n-1].Last+1 == g.First || n >= maxSkipped):
			r.skipped[n-1].Last = g.Last
			r.skipped[n-1].Records += g.Records
		default:
			r.skipped = append(r.skipped, g)
		}
	})
	r.pos.Store(last + 1)
}

// damaged passes over records that can't be read and says so.
func (r *Reader) damaged(last uint64, cause error) {
	pos := r.pos.Load()
	if r.s.First() <= pos && r.s.Lost(pos, last)+r.s.Jumped(pos, last) < last-pos+1 {
		r.s.env.Damaged(r.s, pos, last, cause)
	}
	r.skip(last)
}

// next finds the stored block that holds the position, or the first one
// after it, moving the position over what retention and jumps took. value is
// nil at the tip and valid until the next call.
func (r *Reader) next() (value []byte, last uint64, run epoch.Run, err error) {
	for {
		sealed := r.s.Sealed()
		mark, first := r.s.Watermark(), r.s.First()
		if pos := r.pos.Load(); pos < first && first <= mark+1 {
			r.skip(first - 1)
		}
		pos := r.pos.Load()
		if pos > mark {
			if sealed {
				return nil, 0, run, io.EOF
			}
			return nil, 0, run, nil
		}
		if upTo, ok := r.s.damagedAt(pos); ok {
			r.skip(min(upTo, mark))
			continue
		}
		run, ok := r.s.Find(pos)
		if !ok {
			if r.s.First() > pos {
				continue // trimmed meanwhile
			}
			r.damaged(mark, errors.New("no epoch holds these records"))
			continue
		}
		if f := run.First(); f > pos && run.Thin == 0 {
			r.skip(f - 1)
			pos = f
		}
		value, last, err := r.it.seek(r.s, run, pos, mark)
		if value == nil && err == nil && r.s.First() <= pos {
			value, last, err = r.it.seekSettled(r.s, run, pos, mark)
		}
		switch {
		case err != nil:
			if r.s.First() > pos {
				continue
			}
			lost, key := r.it.pastDamage(r.s, run, pos)
			if lost < pos {
				// The damage ends before pos, but the table's index leads into it from pos.
				if value, last, err := r.it.seek(r.s, run, key, mark); err == nil && value != nil {
					return value, last, run, nil
				}
				lost = pos // what was found went meanwhile
			}
			r.damaged(lost, err)
		case value == nil:
			if r.s.First() > pos {
				continue
			}
			if run.Thin > 0 {
				r.skip(run.Last) // a table that is missing was found at the open
				continue
			}
			r.damaged(run.Last, errors.New("blocks are missing"))
		default:
			return value, last, run, nil
		}
	}
}

// seekTime moves the reader to the first record that arrived at ms or later.
func (r *Reader) seekTime(ms int64) error {
	defer r.it.close()
	run, ok := r.s.FindTime(ms)
	if !ok {
		r.pos.Store(r.s.Watermark() + 1)
		return nil
	}
	r.pos.Store(max(run.First(), r.s.First()))
	for r.pos.Load() <= run.Last {
		value, last, run, err := r.next()
		if err == io.EOF || (err == nil && value == nil) {
			break
		}
		if err != nil {
			return err
		}
		if err := r.own.DecodeMeta(value); err != nil {
			r.damaged(last, err)
			continue
		}
		var shift int64
		if r.own.Uncertain {
			shift = r.s.env.Dir.ShiftMS(run.Epoch)
		}
		for i := range r.own.Count {
			if r.own.ArrivalMS(i)+shift >= ms {
				r.pos.Store(last - uint64(r.own.Count) + 1 + uint64(i))
				r.skipped = nil
				return nil
			}
		}
		r.pos.Store(last + 1)
	}
	r.skipped = nil
	return nil
}

// scan is the iterator of one call.
type scan struct {
	it    *pebble.Iterator
	run   epoch.Run
	mark  uint64 // watermark when the iterator was made
	last  uint64 // of the block it stands on, 0 when it stands on none
	lower [keyspace.DataKeyBytes]byte
	upper [keyspace.DataKeyBytes]byte
}

func (sc *scan) close() {
	if sc.it != nil {
		// Errors of the iterator were returned where they occurred.
		_ = sc.it.Close()
		sc.it = nil
	}
	sc.last = 0
}

// seek returns the block of run that holds pos, or the first one after it in
// the run; nil when there is none.
func (sc *scan) seek(s *Shard, run epoch.Run, pos, mark uint64) (value []byte, last uint64, err error) {
	if sc.it != nil && sc.mark < pos {
		sc.close() // too old to see pos
	}
	if sc.it != nil && sc.last != 0 && sc.last+1 == pos && sc.run.Epoch == run.Epoch && sc.run.Lane == run.Lane {
		sc.it.Next()
		return sc.current()
	}
	used := sc.it != nil
	if err := sc.open(s, run, mark); err != nil {
		return nil, 0, err
	}
	key := keyspace.DataKey{Lane: run.Lane, Epoch: run.Epoch, Shard: s.ID, Last: pos}.Append(sc.lower[:0])
	sc.it.SeekGE(key)
	value, last, err = sc.current()
	if err != nil && used {
		// Pebble goes forward from where the iterator stood, into damage that lies
		// between: that is no damage at pos.
		sc.close()
		return sc.seek(s, run, pos, mark)
	}
	return value, last, err
}

// seekSettled is seek while no table is put in place of others: what it does not find
// is not there.
func (sc *scan) seekSettled(s *Shard, run epoch.Run, pos, mark uint64) (value []byte, last uint64, err error) {
	sc.close()
	s.env.Replacing.RLock()
	defer s.env.Replacing.RUnlock()
	return sc.seek(s, run, pos, mark)
}

// open makes the iterator cover the shard's part of the run.
func (sc *scan) open(s *Shard, run epoch.Run, mark uint64) error {
	if sc.it != nil && sc.run.Epoch == run.Epoch && sc.run.Lane == run.Lane {
		return nil
	}
	lower := keyspace.DataKey{Lane: run.Lane, Epoch: run.Epoch, Shard: s.ID}.Append(sc.lower[:0])
	upper := keyspace.DataKey{Lane: run.Lane, Epoch: run.Epoch, Shard: s.ID, Last: math.MaxUint64}.Append(sc.upper[:0])
	sc.run, sc.last = run, 0
	if sc.it != nil {
		sc.it.SetBounds(lower, upper)
		return nil
	}
	it, err := s.env.DB.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper, KeyTypes: pebble.IterKeyTypePointsOnly})
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	sc.it, sc.mark = it, mark
	return nil
}

func (sc *scan) current() ([]byte, uint64, error) {
	sc.last = 0
	if !sc.it.Valid() {
		return nil, 0, sc.it.Error()
	}
	k, err := keyspace.ParseDataKey(sc.it.Key())
	if err != nil {
		return nil, 0, err
	}
	value, err := sc.it.ValueAndErr()
	if err != nil {
		return nil, 0, err
	}
	sc.last = k.Last
	return value, k.Last, nil
}

// pastDamage returns the last index of the records from pos on that can't be
// reached because of damage below, pos-1 when none is lost, and the index at which to
// seek what comes then. Each try is a read of the table, so the search
// begins a table's block further on, where it will likely succeed, and closes in on
// the damage from behind.
func (sc *scan) pastDamage(s *Shard, run epoch.Run, pos uint64) (lost, next uint64) {
	// first returns the index of the first record of the block found at i.
	first := func(i uint64) (uint64, bool) {
		sc.close()
		value, last, err := sc.seek(s, run, i, s.Watermark())
		if err != nil {
			return 0, false
		}
		if h, err := block.ParseHeader(value); err == nil {
			return max(last-uint64(h.Count)+1, pos), true
		}
		return i, true
	}
	const tableBlockBytes = 64 << 10
	bad, good := pos, run.Last+1
	next = good
	step := max(uint64(run.Count)*tableBlockBytes/uint64(max(run.Stored, 1)), 1)
	for ; pos+step <= run.Last; step *= 2 {
		if f, ok := first(pos + step); ok {
			good, next = f, pos+step
			break
		}
		bad = pos + step
	}
	for good > bad+1 {
		mid := bad + (good-bad)/2
		if f, ok := first(mid); ok {
			good, next = min(f, mid), mid
		} else {
			bad = mid
		}
	}
	sc.close()
	return good - 1, next
}
