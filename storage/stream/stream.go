// Package stream is streams: their configuration, their shards, and which
// shard a record belongs to, across splits and merges.
//
// It owns the rows of streams and shards. It never touches record data.
package stream

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
)

// The errors callers branch on. They arrive wrapped.
var (
	// ErrNotFound means that the stream does not exist, or no longer.
	ErrNotFound = shard.ErrDeleted
	// ErrShardNotFound means that the stream has no such shard, or no longer.
	ErrShardNotFound = errors.New("shard not found")
	// ErrShardClosed means that the shard was split or merged before.
	ErrShardClosed = commit.ErrLogClosed
	// ErrInvalid means that an argument is out of its range.
	ErrInvalid = errors.New("invalid argument")
)

// Env is what all streams of a store share.
type Env struct {
	Committer *commit.Committer
	Shards    *shard.Env
	// NewShards returns the first of n store-wide shard ids, and stages the
	// counter when they are written.
	NewShards func(n int) (first uint32, stage func(*commit.Staging) error)
}

// Stream is one stream. All methods are safe for use from any goroutine.
type Stream struct {
	env    *Env
	routes atomic.Pointer[routes]
	config atomic.Pointer[Config]

	reshard sync.Mutex // one split, merge or update at a time
	mu      struct {
		sync.RWMutex // held while a shard is closed and the routes change
		row          keyspace.StreamRow
		shards       []*shard.Shard // by number
		deleted      bool
		takenGone    uint64                          // records that shards took in which are gone
		lostGone     [keyspace.LossDamage + 1]uint64 // and that they lost, by reason
	}
}

// routes are the open shards by hash key.
type routes struct {
	highs  []uint64 // upper halves of the first hash keys: they decide, but for equals
	shards []*shard.Shard
}

// New returns the stream of a row with its shards, by number, as recovered.
func New(env *Env, row keyspace.StreamRow, shards []*shard.Shard) *Stream {
	st := &Stream{env: env}
	st.mu.row, st.mu.shards = row, shards
	c := ConfigOf(row)
	st.config.Store(&c)
	st.setRoutesLocked()
	return st
}

// Create makes a stream durable and returns it. The name must be free.
func Create(ctx context.Context, env *Env, id uint32, c Config, nowMS int64, stage func(*commit.Staging) error) (*Stream, error) {
	c, err := c.Complete()
	if err != nil {
		return nil, err
	}
	st := &Stream{env: env}
	st.mu.row = c.row(keyspace.StreamRow{ID: id, CreatedMS: nowMS, Lane: laneFor(id, c)})
	st.config.Store(&c)
	first, stageShards := env.NewShards(c.Shards)
	for i, h := range record.SplitRing(c.Shards) {
		st.mu.shards = append(st.mu.shards, st.newShard(keyspace.ShardRow{
			ID: first + uint32(i), Number: record.ShardNumber(i), CreatedMS: nowMS,
		}, h))
	}
	st.mu.row.NextNumber = uint32(c.Shards)
	st.setRoutesLocked()
	return st, st.commit(ctx, stage, stageShards, st.stageRow, func(s *commit.Staging) error {
		return stageNewShards(s, st.mu.shards)
	})
}

// newShard returns a shard that has no records yet; its row gets the stream
// and the hash range.
func (st *Stream) newShard(row keyspace.ShardRow, h record.HashRange) *shard.Shard {
	row.Stream, row.First, row.Last = st.mu.row.ID, h.First.String(), h.Last.String()
	log := commit.NewLog(row.ID, row.Number, st.mu.row.Lane, st.config.Load().Codec, commit.LogState{Next: 1, First: 1, Bound: 1 + commit.BoundStep})
	return shard.New(st.env.Shards, log, h, row, nil)
}

// commit writes rows in a transaction of their own. ctx bounds the wait for room; the
// outcome is awaited, since what is kept in memory follows it.
func (st *Stream) commit(ctx context.Context, stages ...func(*commit.Staging) error) error {
	t, err := st.env.Committer.Begin(ctx, 1)
	if err != nil {
		return err
	}
	defer t.Recycle()
	t.OnEncode(all(stages))
	return t.Commit(context.WithoutCancel(ctx))
}

func all(stages []func(*commit.Staging) error) func(*commit.Staging) error {
	return func(s *commit.Staging) error {
		for _, stage := range stages {
			if err := stage(s); err != nil {
				return err
			}
		}
		return nil
	}
}

func (st *Stream) stageRow(s *commit.Staging) error {
	return s.Set(keyspace.Meta(keyspace.KindStream, st.mu.row.ID), keyspace.EncodeJSON(st.mu.row))
}

func stageShardRows(s *commit.Staging, shards ...*shard.Shard) error {
	for _, sh := range shards {
		if err := stageShardRow(s, sh.Row()); err != nil {
			return err
		}
	}
	return nil
}

// stageNewShards stages the rows of shards that have no records yet, with
// the first indexes reserved: no index may be used before that is durable.
func stageNewShards(s *commit.Staging, shards []*shard.Shard) error {
	for _, sh := range shards {
		if err := s.Set(keyspace.Meta(keyspace.KindBound, sh.ID), keyspace.EncodeIndex(1+commit.BoundStep)); err != nil {
			return err
		}
	}
	return stageShardRows(s, shards...)
}

func stageShardRow(s *commit.Staging, r keyspace.ShardRow) error {
	return s.Set(keyspace.Meta(keyspace.KindShard, r.Stream, uint32(r.Number)), keyspace.EncodeJSON(r))
}

// setRoutesLocked rebuilds the routes from the open shards.
func (st *Stream) setRoutesLocked() {
	var open []*shard.Shard
	for _, sh := range st.mu.shards {
		if row := sh.Row(); row.ClosedMS == 0 && !row.Pending {
			open = append(open, sh)
		}
	}
	st.setRoutes(open)
}

// setRoutes routes to the given shards, which must cover all hash keys once.
func (st *Stream) setRoutes(open []*shard.Shard) {
	slices.SortFunc(open, func(a, b *shard.Shard) int { return a.Hash.First.Cmp(b.Hash.First) })
	r := &routes{shards: open}
	for _, sh := range open {
		r.highs = append(r.highs, high(sh.Hash.First))
	}
	st.routes.Store(r)
}

// Route returns the open shard for a hash key.
func (st *Stream) Route(h record.HashKey) *shard.Shard {
	r, want := st.routes.Load(), high(h)
	// Shards are of equal width until they are split: mostly the first guess is right.
	guess, _ := bits.Mul64(want, uint64(len(r.highs)))
	if i := int(guess); r.highs[i] < want && (i+1 == len(r.highs) || want < r.highs[i+1]) {
		return r.shards[i]
	}
	// i counts the shards whose first key's upper half is not above h's.
	i, n := 0, len(r.highs)
	for i < n {
		if mid := int(uint(i+n) / 2); r.highs[mid] <= want {
			i = mid + 1
		} else {
			n = mid
		}
	}
	for i--; r.highs[i] == want && r.shards[i].Hash.First.Cmp(h) > 0; {
		i--
	}
	return r.shards[i]
}

func high(h record.HashKey) uint64 { return binary.BigEndian.Uint64(h[:]) }

// Rerouted returns when routes newer than those that led to a closed shard
// are in force. ErrNotFound means that the stream was deleted.
func (st *Stream) Rerouted() error {
	st.mu.RLock()
	defer st.mu.RUnlock()
	if st.mu.deleted {
		return fmt.Errorf("stream %q: %w", st.mu.row.Name, ErrNotFound)
	}
	return nil
}

// Name returns the stream's name.
func (st *Stream) Name() string { return st.config.Load().Name }

// WhenFull returns the policy for a full disk.
func (st *Stream) WhenFull() Policy { return st.config.Load().WhenFull }

// Retention returns how long records are kept.
func (st *Stream) Retention() time.Duration { return st.config.Load().Retention }

// MaxRecordBytes returns the limit of a record's data.
func (st *Stream) MaxRecordBytes() int { return st.config.Load().MaxRecordBytes }

// ID returns the stream's number, never used again in this store.
func (st *Stream) ID() uint32 { return st.mu.row.ID }

// CreatedAt returns when the stream was created.
func (st *Stream) CreatedAt() time.Time { return time.UnixMilli(st.mu.row.CreatedMS) }

// Config returns the present configuration; Shards counts the open ones.
func (st *Stream) Config() Config {
	c := *st.config.Load()
	c.Shards = len(st.routes.Load().shards)
	return c
}

// Update changes what fn changes of the configuration; name, shards and
// System are not changed by it. It is durable on return.
func (st *Stream) Update(ctx context.Context, fn func(*Config)) error {
	st.reshard.Lock()
	defer st.reshard.Unlock()
	if err := st.Rerouted(); err != nil {
		return err
	}
	c, old := *st.config.Load(), *st.config.Load()
	fn(&c)
	c.Name, c.System, c.Shards = old.Name, old.System, 1
	c, err := c.Complete()
	if err != nil {
		return err
	}
	st.mu.Lock()
	before := st.mu.row
	st.mu.row = c.row(st.mu.row)
	st.mu.row.Lane = laneFor(st.mu.row.ID, c)
	st.mu.Unlock()
	if err := st.commit(ctx, st.stageRow); err != nil {
		st.mu.Lock()
		st.mu.row = before
		st.mu.Unlock()
		return fmt.Errorf("update stream %q: %w", old.Name, err)
	}
	st.config.Store(&c)
	for _, sh := range st.All() {
		sh.SetCodec(c.Codec)
		sh.SetLane(st.mu.row.Lane)
	}
	return nil
}

// All returns all shards, closed ones included, by number.
func (st *Stream) All() []*shard.Shard {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return slices.Clone(st.mu.shards)
}

// Find returns the shard of that number.
func (st *Stream) Find(n record.ShardNumber) (*shard.Shard, error) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	i, ok := st.indexLocked(n)
	if !ok || st.mu.shards[i].Row().Pending {
		return nil, fmt.Errorf("shard %s of stream %q: %w", n, st.mu.row.Name, ErrShardNotFound)
	}
	return st.mu.shards[i], nil
}

func (st *Stream) indexLocked(n record.ShardNumber) (int, bool) {
	return slices.BinarySearchFunc(st.mu.shards, n, func(s *shard.Shard, n record.ShardNumber) int {
		return cmp.Compare(s.Number, n)
	})
}

// NewReader returns a reader on a shard.
func (st *Stream) NewReader(n record.ShardNumber, p shard.Position) (*shard.Reader, error) {
	sh, err := st.Find(n)
	if err != nil {
		return nil, err
	}
	return sh.NewReader(p)
}

// Delete removes the stream's rows and makes its readers and writers fail
// with ErrNotFound. The caller gives the space back.
func (st *Stream) Delete(ctx context.Context) error {
	st.reshard.Lock()
	defer st.reshard.Unlock()
	if err := st.Rerouted(); err != nil {
		return err
	}
	shards := st.All()
	err := st.commit(ctx, func(s *commit.Staging) error {
		if err := s.Delete(keyspace.Meta(keyspace.KindStream, st.mu.row.ID)); err != nil {
			return err
		}
		for _, sh := range shards {
			if err := st.stageShardGone(s, sh); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete stream %q: %w", st.mu.row.Name, err)
	}
	st.mu.Lock()
	st.mu.deleted = true
	st.mu.Unlock()
	for _, sh := range shards {
		sh.Delete()
	}
	return nil
}

// stageShardGone removes a shard's row and what hangs on its id, and notes that
// its records are not wanted any more: those of a shard that only lost its row are.
func (st *Stream) stageShardGone(s *commit.Staging, sh *shard.Shard) error {
	if err := s.Delete(keyspace.Meta(keyspace.KindShard, st.mu.row.ID, uint32(sh.Number))); err != nil {
		return err
	}
	if err := s.Delete(keyspace.Meta(keyspace.KindBound, sh.ID)); err != nil {
		return err
	}
	if err := s.Set(keyspace.Meta(keyspace.KindTrim, sh.ID), keyspace.EncodeIndex(keyspace.TrimmedAll)); err != nil {
		return err
	}
	for _, j := range sh.Jumps() {
		if err := s.Delete(keyspace.MetaIndex(keyspace.KindJump, sh.ID, j.First)); err != nil {
			return err
		}
	}
	for _, l := range sh.Losses() {
		if err := s.Delete(keyspace.MetaIndex(keyspace.KindLoss, sh.ID, l.First)); err != nil {
			return err
		}
	}
	return nil
}

// Expire forgets closed shards whose retention is over and of which nothing
// is kept. It returns how many.
func (st *Stream) Expire(ctx context.Context, now time.Time) (int, error) {
	st.reshard.Lock()
	defer st.reshard.Unlock()
	cut := now.Add(-st.config.Load().Retention).UnixMilli()
	var gone []*shard.Shard
	for _, sh := range st.All() {
		if row := sh.Row(); row.ClosedMS > 0 && row.ClosedMS < cut && sh.Sealed() && sh.First() > sh.Watermark() {
			gone = append(gone, sh)
		}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	err := st.commit(ctx, func(s *commit.Staging) error {
		for _, sh := range gone {
			if err := st.stageShardGone(s, sh); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("forget closed shards of stream %q: %w", st.Name(), err)
	}
	st.mu.Lock()
	st.mu.shards = slices.DeleteFunc(st.mu.shards, func(sh *shard.Shard) bool { return slices.Contains(gone, sh) })
	for _, sh := range gone {
		st.mu.takenGone += sh.Taken()
		for reason := range st.mu.lostGone {
			st.mu.lostGone[reason] += sh.LostFor(keyspace.LossReason(reason))
		}
	}
	st.mu.Unlock()
	for _, sh := range gone {
		sh.Delete()
	}
	return len(gone), nil
}
