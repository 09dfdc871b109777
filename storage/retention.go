package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
)

// How often the store looks after itself, and some of it less often.
const (
	maintainEvery = time.Second
	ledgerEvery   = 10 * time.Minute
	expireEvery   = time.Minute
)

// maintain applies retention and watches the disk until the store closes.
func (s *Store) maintain() {
	defer s.background.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	rush := 0
	last := struct{ ledger, expire, space time.Time }{time.Now(), time.Now(), time.Now()}
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.retain(ctx)
		case <-s.disk.wake:
			s.retain(ctx)
		case <-s.deleted:
			rush = spaceRush
		}
		if s.Failed() != nil {
			continue
		}
		if rush > 0 || time.Since(last.space) >= spaceEvery {
			freed, err := s.Reclaim(ctx, spaceBytesAtOnce)
			if err != nil && !errors.Is(err, ErrClosed) {
				s.log.Warn("give space back", "cause", err)
			}
			if freed == 0 && err == nil { // else there may be more, perhaps elsewhere
				last.space = time.Now()
				rush = max(rush-1, 0)
			}
		}
		if time.Since(last.expire) >= expireEvery {
			last.expire = time.Now()
			s.expireShards(ctx)
			s.forgetDeleted(ctx)
		}
		if time.Since(last.ledger) >= ledgerEvery {
			last.ledger = time.Now()
			s.saveLedger()
		}
	}
}

func (s *Store) retain(ctx context.Context) {
	if s.Failed() != nil {
		return
	}
	if err := s.Retain(ctx); err != nil {
		s.log.Warn("retention", "cause", err)
	}
}

// epochAge is how old an epoch may become: a day's retention must not be
// rounded up by more than an hour.
func (s *Store) epochAge() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	age := time.Hour
	for _, st := range s.mu.streams {
		age = min(age, st.Retention()/24)
	}
	return age
}

// Retain drops what the streams' retention and the policies for a full disk
// say, now. The store does it by itself every second.
func (s *Store) Retain(ctx context.Context) error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	if err := s.env.Enter(); err != nil {
		return err
	}
	defer s.env.Leave()
	c := &cut{s: s}
	now := s.now()
	for _, st := range s.all() {
		c.byTime(st, now)
		c.byBytes(st)
	}
	if err := c.apply(ctx); err != nil {
		return err
	}
	return s.relieve(ctx)
}

// cut gathers what goes from the shards, and makes it durable.
type cut struct {
	s      *Store
	shards []*shard.Shard
	losses []lossOf
}

type lossOf struct {
	stream string
	sh     *shard.Shard
	loss   shard.Loss
}

// byTime drops runs of which every record is older than the retention.
func (c *cut) byTime(st *Stream, now time.Time) {
	cutMS := now.Add(-st.Config().Retention).UnixMilli()
	for _, sh := range st.All() {
		c.drop(sh, func(r *epoch.Run) bool { return r.EndMS < cutMS })
	}
}

// byBytes drops a stream's oldest epochs while it is over its limit.
func (c *cut) byBytes(st *Stream) {
	limit := st.Config().RetentionBytes
	if limit <= 0 {
		return
	}
	var stored uint64
	for _, sh := range st.All() {
		_, n := sh.Sizes(0)
		stored += n
	}
	for stored > uint64(limit) {
		freed := c.dropEpoch(st, 0)
		if freed == 0 {
			return
		}
		stored -= min(stored, freed)
	}
}

// dropEpoch drops the oldest closed epoch that a stream has records in and
// returns its stored bytes, 0 when it has none. A reason other than 0 makes it a loss.
func (c *cut) dropEpoch(st *Stream, reason keyspace.LossReason) (freed uint64) {
	oldest, ok := oldestEpoch(st)
	if !ok {
		return 0
	}
	for _, sh := range st.All() {
		for _, r := range c.drop(sh, func(r *epoch.Run) bool { return r.Epoch <= oldest }) {
			freed += uint64(r.Stored)
			if reason != 0 {
				first := r.First()
				left := uint64(r.Count) - min(uint64(r.Count), sh.Lost(first, r.Last)) // of those not lost before
				c.losses = append(c.losses, lossOf{st.Name(), sh, shard.Loss{
					First: first, Last: r.Last, Records: left, Bytes: r.Raw, Time: c.s.now(), Reason: reason,
				}})
			}
		}
	}
	return max(freed, 1)
}

func oldestEpoch(st *Stream) (oldest uint32, ok bool) {
	for _, sh := range st.All() {
		if r, has := sh.Oldest(); has && (!ok || r.Epoch < oldest) {
			oldest, ok = r.Epoch, true
		}
	}
	return oldest, ok
}

func (c *cut) drop(sh *shard.Shard, fn func(*epoch.Run) bool) []epoch.Run {
	runs := sh.Trim(fn)
	if len(runs) == 0 {
		return nil
	}
	for _, r := range runs {
		c.s.directory.Release(r, false)
	}
	if !slices.Contains(c.shards, sh) {
		c.shards = append(c.shards, sh)
	}
	return runs
}

// apply makes the cut durable, then takes dead epochs off the disk: rows
// first, so that whatever has a row is there.
func (c *cut) apply(ctx context.Context) error {
	s := c.s
	dead := s.directory.Dead()
	if len(c.shards) == 0 && len(c.losses) == 0 && len(dead) == 0 {
		return nil
	}
	b := s.db.NewBatch()
	var err error
	set := func(key, value []byte) { err = errors.Join(err, b.Set(key, value, nil)) }
	for _, sh := range c.shards {
		set(keyspace.Meta(keyspace.KindTrim, sh.ID), keyspace.EncodeIndex(sh.First()))
		for _, l := range sh.ForgetLosses() {
			err = errors.Join(err, b.Delete(keyspace.MetaIndex(keyspace.KindLoss, sh.ID, l.First), nil))
		}
	}
	for _, l := range c.losses {
		if merged, ok := l.sh.AddLoss(l.loss); ok {
			set(keyspace.MetaIndex(keyspace.KindLoss, l.sh.ID, merged.First), lossRow(merged).Encode())
		}
		for _, old := range l.sh.ForgetLosses() {
			err = errors.Join(err, b.Delete(keyspace.MetaIndex(keyspace.KindLoss, l.sh.ID, old.First), nil))
		}
	}
	for _, span := range dead {
		for e := span.From; e < span.To; e++ {
			err = errors.Join(err, b.Delete(keyspace.MetaEpoch(e, span.Lane), nil))
		}
	}
	if err != nil {
		return err
	}
	if err := s.commit(b, pebble.Sync); err != nil {
		s.fail(err)
		return err
	}
	c.logLosses()
	for _, span := range dead {
		s.directory.Remove(span)
		// One that fails for a damaged table at its edge must not keep the others.
		err = errors.Join(err, s.excise(ctx, keyspace.EpochStart(span.Lane, span.From), keyspace.EpochStart(span.Lane, span.To)))
	}
	return err
}

// logLosses says what was dropped: a line for each shard and reason, not for each of
// the many ranges that thinning leaves, which inspect prints.
func (c *cut) logLosses() {
	for rest := c.losses; len(rest) > 0; {
		l, n := rest[0], 1
		first, last, records := l.loss.First, l.loss.Last, l.loss.Records
		for ; n < len(rest) && rest[n].sh == l.sh && rest[n].loss.Reason == l.loss.Reason; n++ {
			first, last = min(first, rest[n].loss.First), max(last, rest[n].loss.Last)
			records += rest[n].loss.Records
		}
		c.s.log.Warn("records dropped by policy", "stream", l.stream, "shard", l.sh.Number.String(),
			"first", first, "last", last, "records", records, "ranges", n, "reason", l.loss.Reason.String())
		rest = rest[n:]
	}
}

func (s *Store) excise(ctx context.Context, from, to []byte) error {
	err := s.guard(func() error {
		if err := s.checkEdges(ctx, from, to); err != nil {
			return err
		}
		return s.db.Excise(ctx, pebble.KeyRange{Start: from, End: to})
	})
	if err != nil {
		return fmt.Errorf("excise %x to %x: %w", from, to, err)
	}
	return nil
}

// checkEdges returns an error when a table that reaches over an end of a range can't be
// read there. Pebble looks for the keys next to the range to cut the table in two, and
// where a block is damaged takes it that there are none: all the rest would go too.
func (s *Store) checkEdges(ctx context.Context, from, to []byte) error {
	levels, err := s.db.SSTables()
	if err != nil {
		return err
	}
	for _, level := range levels {
		for i := range level {
			first, last := level[i].Smallest.UserKey, level[i].Largest.UserKey
			if bytes.Compare(first, to) >= 0 || bytes.Compare(last, from) < 0 {
				continue
			}
			if bytes.Compare(first, from) < 0 {
				err = s.checkEdge(ctx, first, from, (*pebble.Iterator).Last)
			}
			if err == nil && bytes.Compare(last, to) >= 0 {
				err = s.checkEdge(ctx, to, append(bytes.Clone(last), 0), (*pebble.Iterator).First)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEdge reads the first or last key from … to.
func (s *Store) checkEdge(ctx context.Context, from, to []byte, read func(*pebble.Iterator) bool) error {
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	read(it)
	return it.Close() // with the error of the read
}

// reclaim takes a deleted stream's records off the disk, where they have a file
// to themselves, and has the others written anew in the background.
func (s *Store) reclaim(ctx context.Context, st *Stream) error {
	// What was reserved before the shards were closed is in its epoch after one
	// group, and the row of that epoch on the disk after the next.
	for _, step := range []func() error{
		func() error { return s.deleteRows(ctx, TableDeduplication, importMarks(st)) }, s.committer.CloseEpoch, s.emptyGroup(ctx),
	} {
		if err := step(); err != nil {
			return err
		}
	}
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	if err := s.env.Enter(); err != nil {
		return err
	}
	defer s.env.Leave()
	for _, sh := range st.All() {
		for _, r := range sh.Trim(func(*epoch.Run) bool { return true }) {
			s.directory.Release(r, true)
		}
	}
	c := &cut{s: s}
	if err := c.apply(ctx); err != nil {
		return err
	}
	select {
	case s.deleted <- struct{}{}:
	default:
	}
	return nil
}

// deleteRows removes the rows of a table that begin with prefix, if there are any, in a
// group of its own.
func (s *Store) deleteRows(ctx context.Context, table Table, prefix []byte) error {
	any := false
	if err := s.Scan(table, prefix, nil, 1, func(_, _ []byte) bool { any = true; return false }); err != nil {
		return err
	}
	if !any {
		return s.emptyGroup(ctx)()
	}
	t, err := s.Begin(ctx, 1)
	if err != nil {
		return err
	}
	defer t.Release()
	t.DeletePrefix(table, prefix)
	return t.Commit(ctx)
}

// emptyGroup returns a function that waits for a group of its own.
func (s *Store) emptyGroup(ctx context.Context) func() error {
	return func() error {
		t, err := s.committer.Begin(ctx, 1)
		if err != nil {
			return err
		}
		defer t.Recycle()
		t.OnEncode(func(*commit.Staging) error { return nil })
		return t.Commit(ctx)
	}
}

// Reclaim takes out of shared tables what nobody needs, of deleted streams above all,
// up to about limit bytes written, and returns how many bytes came back. It does so
// where at least as much comes back as is written. The store does it by itself, a
// few MiB every second.
func (s *Store) Reclaim(ctx context.Context, limit int64) (freed int64, err error) {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	if err := s.env.Enter(); err != nil {
		return 0, err
	}
	defer s.env.Leave()
	if err := s.Failed(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return s.giveBack(ctx, false, limit)
}

// relieve applies the policies while space is short, by the disk's free space
// or by the limit for all streams together.
func (s *Store) relieve(ctx context.Context) error {
	d := s.disk
	level := relaxed
	free, total, known := d.look()
	epochBytes := s.o.MemTableBytes
	if limit := d.softLimit(total); known && free < limit {
		level = soft
		need := limit + 2*epochBytes - free
		// What nobody needs goes first.
		back, err := s.giveBack(ctx, true, spacePressedBytes)
		if err != nil {
			s.log.Warn("give space back", "cause", err)
		}
		if s.sacrifice(ctx, need-back) || back > 0 {
			if free, _, _ = d.look(); free >= limit {
				level = relaxed
			}
		}
	}
	if s.o.TotalBytes > 0 {
		if over := int64(s.stored()) - s.o.TotalBytes; over > 0 {
			s.sacrifice(ctx, over)
			if int64(s.stored()) > s.o.TotalBytes {
				level = max(level, soft)
			}
		}
	}
	if d.full.Load() {
		level = hard
		enough := !known || free >= 2*max(s.o.ReserveBytes, 0)
		if !enough {
			s.sacrifice(ctx, 2*s.o.ReserveBytes-free)
			free, _, _ = d.look()
			enough = free >= 2*max(s.o.ReserveBytes, 0)
		} else if !known {
			s.sacrifice(ctx, 2*epochBytes)
		}
		if enough {
			if err := d.makeBallast(); err == nil {
				// If it is not over, the next failed write or flushes say so.
				d.failures.Store(0)
				d.full.Store(false)
				level = relaxed
				s.log.Info("disk has space again", "free", free)
			} else if NoSpace(err) { // though there are bytes: a quota, or no more names for files
				s.sacrifice(ctx, 2*epochBytes)
			}
		}
	}
	if old := pressure(d.level.Swap(int32(level))); old != level {
		s.log.Warn("disk pressure changed", "from", old.String(), "to", level.String(), "free", free)
	}
	if d.full.Load() {
		d.level.Store(int32(hard)) // it may have become full meanwhile
	}
	return nil
}

// String returns the word that is logged.
func (p pressure) String() string { return [...]string{"relaxed", "low", "full"}[p] }

// sacrifice drops or thins the oldest records of streams whose policy allows
// it until about so many bytes are freed, and says whether anything was.
func (s *Store) sacrifice(ctx context.Context, bytes int64) bool {
	any := false
	for bytes > 0 {
		st := s.victim()
		if st == nil {
			break
		}
		freed, err := s.yield(ctx, st)
		if err != nil {
			s.log.Warn("free space", "stream", st.Name(), "cause", err)
			break
		}
		if freed == 0 {
			break
		}
		any = true
		bytes -= int64(freed)
	}
	return any
}

// victim returns the stream with the oldest epoch among those that yield.
func (s *Store) victim() (victim *Stream) {
	var oldest uint32
	for _, st := range s.all() {
		if st.Config().WhenFull == Reject {
			continue
		}
		if e, ok := yieldEpoch(st); ok && (victim == nil || e < oldest) {
			victim, oldest = st, e
		}
	}
	return victim
}

// yieldEpoch is what a stream would give up next.
func yieldEpoch(st *Stream) (uint32, bool) {
	if st.Config().WhenFull == ThinOut {
		if e, _, ok := thinnest(st); ok {
			return e, true
		}
	}
	return oldestEpoch(st)
}

// yield makes a stream give up one epoch, or part of one.
func (s *Store) yield(ctx context.Context, st *Stream) (freed uint64, err error) {
	if st.Config().WhenFull == ThinOut {
		if e, level, ok := thinnest(st); ok {
			return s.thin(ctx, st, e, level)
		}
	}
	c := &cut{s: s}
	freed = c.dropEpoch(st, keyspace.LossDropped)
	return freed, c.apply(ctx)
}

// expireShards forgets closed shards that have nothing left.
func (s *Store) expireShards(ctx context.Context) {
	s.creating.Lock()
	defer s.creating.Unlock()
	for _, st := range s.all() {
		if n, err := st.Expire(ctx, s.now()); err != nil {
			s.log.Warn("forget closed shards", "stream", st.Name(), "cause", err)
		} else if n > 0 {
			s.trimmed += n
			s.log.Info("closed shards forgotten", "stream", st.Name(), "shards", n)
		}
	}
}

// saveLedger writes the ledger's rows without waiting for the device.
func (s *Store) saveLedger() {
	if s.env.Enter() != nil {
		return
	}
	defer s.env.Leave()
	b := s.db.NewBatch()
	s.ledger.count(totals(s.db, s.committer), s.now())
	if err := errors.Join(s.ledger.stage(b, s.now()), s.commit(b, pebble.NoSync)); err != nil {
		s.log.Warn("save ledger", "cause", err)
	}
}
