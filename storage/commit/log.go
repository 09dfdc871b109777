package commit

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/cpu"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/record"
)

// BoundStep is how many indexes are reserved ahead at a time. A device that
// lies about its syncs may lose writes of up to half as many records and
// still no index is used twice.
const BoundStep = 1 << 20

// Codec chooses how a log's blocks are compressed.
type Codec uint8

// The codecs. Auto is zstd while the committer has time for it, S2 when not.
const (
	CodecZstd Codec = iota
	CodecS2
	CodecNone
	CodecAuto
)

// Jump is a range of indexes that no acknowledged record has.
type Jump struct{ First, Last uint64 }

// Log is the append end of one shard: its next index, what is durable of it,
// where that lies, and who waits for more. The committer writes it; anybody
// reads it.
type Log struct {
	// ID is the shard's store-wide number.
	ID uint32
	// Number is the shard's number within its stream.
	Number record.ShardNumber

	codec  atomic.Uint32
	lane   atomic.Uint32
	closed atomic.Bool // takes no more reservations

	// Only the committer touches these, with every record. Writers look at what is before
	// them with every record, readers at what follows.
	_           cpu.CacheLinePad
	head, tail  *entry // of the group that is encoded
	next, bound uint64
	maxMS       int64
	_           cpu.CacheLinePad

	watermark atomic.Uint64
	arrival   atomic.Int64 // of the record at the watermark
	taken     atomic.Uint64
	sealed    atomic.Bool // no record will follow the watermark

	place struct {
		sync.RWMutex
		first uint64      // index of the first record kept
		runs  []epoch.Run // closed, in order
		open  epoch.Run   // in the open epoch; Count 0 when there is none
		jumps []Jump
	}

	wake struct {
		sync.Mutex
		ch      chan struct{}
		waiting atomic.Bool
	}
}

// LogState is what recovery knows about a log.
type LogState struct {
	Last      uint64 // index of the last record, 0 when there never was one
	Next      uint64 // index of the next record
	Bound     uint64 // index reserved ahead
	First     uint64 // index of the first record kept
	ArrivalMS int64
	Sealed    bool
	Runs      []epoch.Run
	Jumps     []Jump
}

// NewLog returns the log of a shard. codec and lane may be changed later.
func NewLog(id uint32, number record.ShardNumber, lane uint8, codec Codec, s LogState) *Log {
	l := &Log{ID: id, Number: number}
	l.codec.Store(uint32(codec))
	l.lane.Store(uint32(lane))
	l.next, l.bound = s.Next, s.Bound
	l.watermark.Store(s.Last)
	l.arrival.Store(s.ArrivalMS)
	l.sealed.Store(s.Sealed)
	l.closed.Store(s.Sealed)
	l.place.first, l.place.runs, l.place.jumps = s.First, s.Runs, s.Jumps
	if n := len(s.Runs); n > 0 {
		l.maxMS = s.Runs[n-1].EndMS
	}
	return l
}

// SetCodec changes how the blocks of later groups are compressed.
func (l *Log) SetCodec(c Codec) { l.codec.Store(uint32(c)) }

// SetLane changes where the blocks of later groups go.
func (l *Log) SetLane(lane uint8) { l.lane.Store(uint32(lane)) }

// Lane returns where blocks go now.
func (l *Log) Lane() uint8 { return uint8(l.lane.Load()) }

// Close makes later reservations fail with ErrLogClosed. Reservations made
// before it are committed, with the group that is open now at the latest.
func (l *Log) Close() {
	l.closed.Store(true)
}

// Seal says that the watermark is final, and wakes who waits for more.
func (l *Log) Seal() {
	l.sealed.Store(true)
	l.broadcast()
}

// Sealed says whether no record will ever follow the watermark.
func (l *Log) Sealed() bool { return l.sealed.Load() }

// Watermark returns the index of the last durable record, 0 when there is none.
func (l *Log) Watermark() uint64 { return l.watermark.Load() }

// Taken returns how many records became durable since the log was opened.
func (l *Log) Taken() uint64 { return l.taken.Load() }

// ArrivalMS returns the arrival of the last durable record, as stamped.
func (l *Log) ArrivalMS() int64 { return l.arrival.Load() }

// First returns the index of the first record kept; it is above the
// watermark when there is none.
func (l *Log) First() uint64 {
	l.place.RLock()
	defer l.place.RUnlock()
	return l.place.first
}

// Find returns the run that holds index, or the first one after it when no
// run does. ok is false when there is none.
func (l *Log) Find(index uint64) (r epoch.Run, ok bool) {
	l.place.RLock()
	defer l.place.RUnlock()
	i, _ := slices.BinarySearchFunc(l.place.runs, index, func(r epoch.Run, index uint64) int {
		if r.Last < index {
			return -1
		}
		return 1
	})
	if i < len(l.place.runs) {
		return l.place.runs[i], true
	}
	if l.place.open.Count > 0 && l.place.open.Last >= index {
		return l.place.open, true
	}
	return epoch.Run{}, false
}

// FindTime returns the first run whose running-maximum arrival reaches ms.
func (l *Log) FindTime(ms int64) (r epoch.Run, ok bool) {
	l.place.RLock()
	defer l.place.RUnlock()
	i, _ := slices.BinarySearchFunc(l.place.runs, ms, func(r epoch.Run, ms int64) int {
		if r.EndMS < ms {
			return -1
		}
		return 1
	})
	if i < len(l.place.runs) {
		return l.place.runs[i], true
	}
	return l.place.open, l.place.open.Count > 0 && l.place.open.EndMS >= ms
}

// Runs returns a copy of all runs in order, the open epoch's last.
func (l *Log) Runs() []epoch.Run {
	l.place.RLock()
	defer l.place.RUnlock()
	out := slices.Clone(l.place.runs)
	if l.place.open.Count > 0 {
		out = append(out, l.place.open)
	}
	return out
}

// Oldest returns the first closed run, false when there is none.
func (l *Log) Oldest() (epoch.Run, bool) {
	l.place.RLock()
	defer l.place.RUnlock()
	if len(l.place.runs) == 0 {
		return epoch.Run{}, false
	}
	return l.place.runs[0], true
}

// Closed returns a copy of the closed runs in order.
func (l *Log) Closed() []epoch.Run {
	l.place.RLock()
	defer l.place.RUnlock()
	return slices.Clone(l.place.runs)
}

// InEpochs returns a copy of the closed runs in a lane's epochs from … to, to not
// among them.
func (l *Log) InEpochs(lane uint8, from, to uint32) (out []epoch.Run) {
	l.place.RLock()
	defer l.place.RUnlock()
	// Epochs only grow, and so do indexes.
	i, _ := slices.BinarySearchFunc(l.place.runs, from, func(r epoch.Run, from uint32) int { return cmp.Compare(r.Epoch, from) })
	for ; i < len(l.place.runs) && l.place.runs[i].Epoch < to; i++ {
		if l.place.runs[i].Lane == lane {
			out = append(out, l.place.runs[i])
		}
	}
	return out
}

// Jumps returns a copy of the recorded jumps, in order.
func (l *Log) Jumps() []Jump {
	l.place.RLock()
	defer l.place.RUnlock()
	return slices.Clone(l.place.jumps)
}

// Jumped returns how many of the indexes first … last no record has.
func (l *Log) Jumped(first, last uint64) (n uint64) {
	l.place.RLock()
	defer l.place.RUnlock()
	for _, j := range l.place.jumps {
		if a, b := max(first, j.First), min(last, j.Last); a <= b {
			n += b - a + 1
		}
	}
	return n
}

// Sizes returns the bytes of data and of blocks from the run that holds
// index onward.
func (l *Log) Sizes(index uint64) (raw, stored uint64) {
	l.place.RLock()
	defer l.place.RUnlock()
	if l.place.open.Count > 0 && l.place.open.Last >= index {
		r := &l.place.open
		raw += share(r, index, r.Raw)
		stored += share(r, index, uint64(r.Stored))
	}
	for i := len(l.place.runs) - 1; i >= 0 && l.place.runs[i].Last >= index; i-- {
		r := &l.place.runs[i]
		raw += share(r, index, r.Raw)
		stored += share(r, index, uint64(r.Stored))
	}
	return raw, stored
}

// share scales a run's size to its records from index onward.
func share(r *epoch.Run, index, size uint64) uint64 {
	if index <= r.First() {
		return size
	}
	return uint64(float64(size) * float64(r.Last-index+1) / float64(r.Count))
}

// Trim drops closed runs from the front while drop says so and returns them.
// Records before the first run kept are gone for readers when it returns.
func (l *Log) Trim(drop func(r *epoch.Run) bool) []epoch.Run {
	l.place.Lock()
	defer l.place.Unlock()
	n := 0
	for n < len(l.place.runs) && drop(&l.place.runs[n]) {
		n++
	}
	if n == 0 {
		return nil
	}
	out := slices.Clone(l.place.runs[:n])
	l.place.runs = slices.Delete(l.place.runs, 0, n)
	l.place.first = out[n-1].Last + 1
	for len(l.place.jumps) > 0 && l.place.jumps[0].Last < l.place.first {
		l.place.jumps = slices.Delete(l.place.jumps, 0, 1)
	}
	return out
}

// Rewrite replaces the description of one closed run, after its blocks were
// thinned out.
func (l *Log) Rewrite(k epoch.Key, change func(r *epoch.Run)) {
	l.place.Lock()
	defer l.place.Unlock()
	for i := range l.place.runs {
		if r := &l.place.runs[i]; r.Epoch == k.Epoch && r.Lane == k.Lane {
			change(r)
		}
	}
}

// ShiftRuns corrects the times of runs of epochs first … through.
func (l *Log) ShiftRuns(first, through uint32, shiftMS int64) {
	l.place.Lock()
	defer l.place.Unlock()
	var top int64
	for i := range l.place.runs {
		r := &l.place.runs[i]
		if r.Epoch >= first && r.Epoch <= through {
			r.EndMS += shiftMS
		}
		top = max(top, r.EndMS)
		r.EndMS = top
	}
}

// Wait returns when the watermark reaches index, the log is sealed, or ctx
// is done.
func (l *Log) Wait(ctx context.Context, index uint64) error {
	for {
		if l.watermark.Load() >= index || l.sealed.Load() {
			return nil
		}
		l.wake.Lock()
		if l.wake.ch == nil {
			l.wake.ch = make(chan struct{})
		}
		ch := l.wake.ch
		l.wake.waiting.Store(true)
		l.wake.Unlock()
		if l.watermark.Load() >= index || l.sealed.Load() {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Log) broadcast() {
	if !l.wake.waiting.Load() {
		return
	}
	l.wake.Lock()
	if l.wake.ch != nil {
		close(l.wake.ch)
		l.wake.ch = nil
	}
	l.wake.waiting.Store(false)
	l.wake.Unlock()
}

// blockCodec is the codec for the next group's blocks.
func (l *Log) blockCodec(busy bool) block.Codec {
	switch Codec(l.codec.Load()) {
	case CodecS2:
		return block.S2
	case CodecNone:
		return block.Raw
	case CodecAuto:
		if busy {
			return block.S2
		}
	}
	return block.Zstd
}
