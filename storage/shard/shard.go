// Package shard is one shard as its readers see it: where it begins and ends,
// what of it is kept, and readers that stand anywhere in it.
//
// It reads what package commit wrote and never writes. Readers hold nothing
// of the store between calls: each call opens an iterator and closes it.
package shard

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// The errors of readers.
var (
	// ErrClosed means that the store was closed.
	ErrClosed = commit.ErrClosed
	// ErrDeleted means that the shard's stream was deleted.
	ErrDeleted = errors.New("stream not found")
)

// Env is what all shards of a store share.
type Env struct {
	DB  *pebble.DB
	Dir *epoch.Directory
	// Now is the store's clock.
	Now func() time.Time
	// Damaged is told once of records that could not be read.
	Damaged func(s *Shard, first, last uint64, cause error)
	// Replacing is held while a table of records is put in place of others. Pebble makes
	// the files known a moment before the sequence number of what is in them: an
	// iterator that is opened in between sees neither the old nor the new.
	Replacing sync.RWMutex

	mu struct {
		sync.Mutex
		readers int
		closed  bool
		idle    chan struct{}
	}
}

// Enter admits a call that reads the database; Leave must follow. It fails
// with ErrClosed after Close.
func (e *Env) Enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return ErrClosed
	}
	e.mu.readers++
	return nil
}

// Leave ends a call admitted by Enter.
func (e *Env) Leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.readers--
	if e.mu.closed && e.mu.readers == 0 && e.mu.idle != nil {
		close(e.mu.idle)
		e.mu.idle = nil
	}
}

// Close refuses new calls and waits for those under way.
func (e *Env) Close() {
	e.mu.Lock()
	e.mu.closed = true
	var idle chan struct{}
	if e.mu.readers > 0 {
		idle = make(chan struct{})
		e.mu.idle = idle
	}
	e.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// Shard is one shard of a stream.
type Shard struct {
	*commit.Log
	env *Env
	// Hash is the range of hash keys whose records the shard took or takes.
	Hash record.HashRange

	readers atomic.Int32
	deleted atomic.Bool
	lost    [keyspace.LossDamage + 1]atomic.Uint64 // records, by reason, since the open
	tail    struct {
		sync.Mutex
		block atomic.Pointer[tailBlock]
	}
	mu struct {
		sync.RWMutex
		row    keyspace.ShardRow
		losses []Loss
	}
}

// tailBlock is the newest block, decoded once for all readers at the tip.
type tailBlock struct {
	decoded     block.Decoded
	first, last uint64
	shiftMS     int64
}

// Loss is a range of indexes of which Records records are gone before their
// retention was over.
type Loss struct {
	First, Last uint64
	Records     uint64
	Bytes       uint64
	Time        time.Time
	Reason      keyspace.LossReason
}

// New returns the shard of a row. losses are in order.
func New(env *Env, log *commit.Log, hash record.HashRange, row keyspace.ShardRow, losses []Loss) *Shard {
	s := &Shard{Log: log, env: env, Hash: hash}
	s.mu.row, s.mu.losses = row, losses
	return s
}

// Row returns the shard's row.
func (s *Shard) Row() keyspace.ShardRow {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.row
}

// CreatedMS returns when the shard began, milliseconds since 1970.
func (s *Shard) CreatedMS() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.row.CreatedMS
}

// SetRow replaces the shard's row after it was written.
func (s *Shard) SetRow(row keyspace.ShardRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.row = row
}

// Delete makes every reader fail with ErrDeleted and wakes those that wait.
func (s *Shard) Delete() {
	s.deleted.Store(true)
	s.Log.Close()
	s.Seal()
}

// AddLoss enters a loss, keeping them in order, and returns what is to be
// kept of it: it begins behind what was lost before for another reason, so that
// no two begin alike, and one that follows another of the same reason is joined
// to it. ok is false when all of it was lost before. l.Records must leave out
// what is in other losses.
func (s *Shard) AddLoss(l Loss) (kept Loss, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.mu.losses {
		if o := &s.mu.losses[i]; o.First <= l.First && l.First <= o.Last {
			l.First = o.Last + 1
		}
	}
	if l.First > l.Last {
		return l, false
	}
	s.lost[min(l.Reason, keyspace.LossDamage)].Add(l.Records)
	i := len(s.mu.losses)
	for i > 0 && s.mu.losses[i-1].First > l.First {
		i--
	}
	if i > 0 {
		if o := &s.mu.losses[i-1]; o.Reason == l.Reason && l.First <= o.Last+1 && l.Last >= o.Last {
			o.Records += l.Records
			o.Bytes += l.Bytes
			o.Last, o.Time = l.Last, l.Time
			return *o, true
		}
	}
	s.mu.losses = append(s.mu.losses, Loss{})
	copy(s.mu.losses[i+1:], s.mu.losses[i:])
	s.mu.losses[i] = l
	return l, true
}

// LostFor returns how many records were lost for a reason since the open.
func (s *Shard) LostFor(reason keyspace.LossReason) uint64 { return s.lost[reason].Load() }

// maxLosses bounds the losses kept of a shard. That a run was thinned out is known without.
const maxLosses = 1024

// ForgetLosses takes out the oldest losses beyond the limit and returns them.
func (s *Shard) ForgetLosses() []Loss {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.mu.losses) - maxLosses
	if n <= 0 {
		return nil
	}
	out := append([]Loss(nil), s.mu.losses[:n]...)
	s.mu.losses = append(s.mu.losses[:0], s.mu.losses[n:]...)
	return out
}

// Losses returns a copy of the losses, in order.
func (s *Shard) Losses() []Loss {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]Loss(nil), s.mu.losses...)
}

// Lost returns how many of the records first … last are counted in losses.
func (s *Shard) Lost(first, last uint64) (n uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range s.mu.losses {
		if l := &s.mu.losses[i]; l.First <= last && first <= l.Last {
			n += min(l.Records, min(last, l.Last)-max(first, l.First)+1)
		}
	}
	return n
}

// lossAt returns why the record of an index was lost, 0 when it is in no loss,
// and up to where, at most last, that is so. Of several reasons it is the first: a
// loss inside of another was there before it.
func (s *Shard) lossAt(index, last uint64) (reason keyspace.LossReason, end uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	end = last
	for i := len(s.mu.losses) - 1; i >= 0; i-- {
		switch l := &s.mu.losses[i]; {
		case l.First > index:
			end = min(end, l.First-1)
		case index <= l.Last:
			return l.Reason, min(end, l.Last)
		}
	}
	return 0, end
}

// Arrival returns the arrival of the newest record, corrected by what was
// learnt about the clock since; zero when there never was one.
func (s *Shard) Arrival() time.Time {
	if ms := s.ArrivalMS(); ms > 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// damagedAt returns the end of the range known to be unreadable that holds
// index: it is not tried again.
func (s *Shard) damagedAt(index uint64) (last uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := len(s.mu.losses) - 1; i >= 0; i-- {
		if l := &s.mu.losses[i]; l.First <= index && index <= l.Last && l.Reason == keyspace.LossDamage {
			return l.Last, true
		}
	}
	return 0, false
}

// GapReason is why a reader passed over records.
type GapReason uint8

// The reasons of gaps.
const (
	// GapRetention means that the retention, by time or bytes, was over.
	GapRetention GapReason = iota + 1
	// GapDropped means that the disk was full, policy drop oldest.
	GapDropped
	// GapThinned means that the disk was full, policy thin out.
	GapThinned
	// GapDamage means that the records could not be read.
	GapDamage
)

// String returns the reason as it is reported.
func (g GapReason) String() string {
	switch g {
	case GapRetention:
		return "retention"
	case GapDropped:
		return "dropped"
	case GapThinned:
		return "thinned"
	case GapDamage:
		return "damage"
	}
	return "unknown"
}

// Gap is a range of indexes that a reader passed over, with Records records.
type Gap struct {
	First, Last uint64
	Records     uint64
	Reason      GapReason
}

// gaps describes the indexes first … last that a reader passes over, kept being
// the first that the shard keeps: a gap for each reason they were lost for. Records
// is 0 where no record ever had one of the indexes.
func (s *Shard) gaps(first, last, kept uint64, fn func(Gap)) {
	for first <= last {
		reason, end := s.lossAt(first, last)
		thinned := false // in a loss that was forgotten
		if r, ok := s.Find(first); reason == 0 && ok && r.Thin > 0 && r.First() <= first {
			thinned, end = true, min(end, r.Last)
		}
		g := Gap{First: first, Last: end, Records: end - first + 1 - s.Jumped(first, end)}
		switch reason {
		case keyspace.LossDropped:
			g.Reason = GapDropped
		case keyspace.LossThinned:
			g.Reason = GapThinned
		case keyspace.LossDamage:
			g.Reason = GapDamage
		default:
			g.Reason = GapDamage
			if end < kept {
				g.Reason = GapRetention
			} else if thinned {
				g.Reason = GapThinned
			}
		}
		fn(g)
		first = end + 1
	}
}
