package storage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
	"github.com/weirhq/weir/storage/stream"
)

// recoverState rebuilds everything that lives in memory and starts the committer.
func (s *Store) recoverState(ctx context.Context) error {
	began := time.Now()
	f := s.found
	var runs map[uint32][]epoch.Run
	if f.byShard != nil {
		runs = <-f.byShard
	}
	if err := f.newer(); err != nil {
		return err
	}
	for _, e := range f.missing {
		s.reportMissing(f, e)
	}
	b := s.db.NewBatch()
	defer b.Close()
	nextEpoch, lastMS, err := s.listUnlisted(ctx, f, b)
	if err != nil {
		return err
	}
	lastMS = s.beginSession(f, nextEpoch, lastMS)
	s.directory = epoch.New()
	s.env = &shard.Env{DB: s.db, Dir: s.directory, Now: s.now, Damaged: s.damaged}
	s.streamEnv = &stream.Env{Shards: s.env, NewShards: s.newShards}
	s.mu.streams = make(map[string]*stream.Stream)
	if err := s.buildStreams(f, runs, b); err != nil {
		return err
	}
	if s.trimmed, err = f.stageForgotten(b); err != nil {
		return err
	}
	if err := s.writeSession(f, b); err != nil {
		return err
	}
	s.addEntries(f)
	if err := b.SyncWait(); err != nil {
		return err
	}
	s.committer = commit.New(s.db, s.directory, s.clock, commit.Options{
		GroupBytes: s.o.GroupBytes, AdmissionBytes: s.o.AdmissionBytes, MemTableBytes: s.o.MemTableBytes,
		EpochAge: s.epochAge, Session: s.mu.session.Session, FirstEpoch: nextEpoch, LastMS: lastMS, OnLearnt: s.learnt, Packed: &s.packed, OnRows: s.spans.wrote,
	})
	s.streamEnv.Committer = s.committer
	if p := s.failure.Load(); p != nil {
		s.committer.Fail(*p)
	}
	s.nameMissing()
	s.recovery.Took = time.Since(began)
	s.logRecovery(f)
	return nil
}

// buildStreams makes streams and shards from their rows. runs are those of f, nil when they
// were not gathered yet.
func (s *Store) buildStreams(f *found, runs map[uint32][]epoch.Run, b *pebble.Batch) error {
	if runs == nil {
		runs = f.runs()
	}
	byStream := map[uint32][]*shard.Shard{}
	s.finishReshards(f, runs)
	for _, r := range f.streams {
		s.mu.row.NextStream = max(s.mu.row.NextStream, r.ID+1)
	}
	for _, r := range f.shards { // of a stream that has lost its own row too
		s.mu.row.NextStream = max(s.mu.row.NextStream, r.Stream+1)
	}
	f.dropOrphaned()
	if err := s.adopt(f, runs, b); err != nil {
		return err
	}
	streams := map[uint32]keyspace.StreamRow{}
	for _, r := range f.streams {
		streams[r.ID] = r
	}
	for id := range runs {
		s.mu.row.NextShard = max(s.mu.row.NextShard, id+1)
	}
	for id := range f.trims {
		s.mu.row.NextShard = max(s.mu.row.NextShard, id+1)
	}
	for _, r := range f.shards {
		s.mu.row.NextShard = max(s.mu.row.NextShard, r.ID+1)
	}
	if err := s.fillHoles(f, b); err != nil {
		return err
	}
	for _, r := range f.shards {
		if f.trims[r.ID] == keyspace.TrimmedAll {
			continue // deleted: an older version of the row was saved
		}
		st, ok := streams[r.Stream]
		hash, err := hashRange(r)
		if !ok || err != nil {
			f.bad = append(f.bad, fmt.Sprintf("shard %d of stream %d: no such stream, or %v", r.Number, r.Stream, err))
			continue
		}
		state, err := s.logState(f, st.Name, r, runs[r.ID], b)
		if err != nil {
			return err
		}
		log := commit.NewLog(r.ID, r.Number, st.Lane, commit.Codec(st.Codec), state)
		for _, row := range f.sessions {
			if row.ShiftMS != 0 {
				log.ShiftRuns(row.FirstEpoch, row.Through, row.ShiftMS)
			}
		}
		byStream[r.Stream] = append(byStream[r.Stream], shard.New(s.env, log, hash, r, f.losses[r.ID]))
	}
	for _, r := range f.streams {
		shards := byStream[r.ID]
		slices.SortFunc(shards, func(a, b *shard.Shard) int { return cmp.Compare(a.Number, b.Number) })
		if n := len(shards); n > 0 {
			r.NextNumber = max(r.NextNumber, uint32(shards[n-1].Number)+1)
		}
		s.mu.streams[r.Name] = stream.New(s.streamEnv, r, shards)
	}
	return nil
}

func hashRange(r keyspace.ShardRow) (h record.HashRange, err error) {
	if h.First, err = record.ParseHashKey(r.First); err != nil {
		return h, err
	}
	h.Last, err = record.ParseHashKey(r.Last)
	return h, err
}

// finishReshards ends splits and merges that had begun: their children may
// already hold acknowledged records.
func (s *Store) finishReshards(f *found, runs map[uint32][]epoch.Run) {
	type id struct {
		stream uint32
		number record.ShardNumber
	}
	at := map[id]*keyspace.ShardRow{}
	for i := range f.shards {
		at[id{f.shards[i].Stream, f.shards[i].Number}] = &f.shards[i]
	}
	names := f.shardNames()
	for i := range f.shards {
		child := &f.shards[i]
		if !child.Pending {
			continue
		}
		child.Pending = false
		for _, n := range []*record.ShardNumber{child.Parent, child.AdjacentParent} {
			if n == nil {
				continue
			}
			p := at[id{child.Stream, *n}]
			if p == nil || p.ClosedMS > 0 {
				continue
			}
			p.ClosedMS = max(child.CreatedMS, p.CreatedMS+1)
			if r := runs[p.ID]; len(r) > 0 {
				p.ClosedIndex = r[len(r)-1].Last
			}
			name := names[p.ID]
			name.Last, name.Reason = p.ClosedIndex, "split or merge finished"
			s.recovery.Finished = append(s.recovery.Finished, name)
		}
	}
}

// logState decides where a shard goes on.
func (s *Store) logState(f *found, name string, r keyspace.ShardRow, runs []epoch.Run, b *pebble.Batch) (commit.LogState, error) {
	state := commit.LogState{Runs: runs, Jumps: f.jumps[r.ID], Bound: f.bounds[r.ID], Sealed: r.ClosedMS > 0}
	if trim := f.trims[r.ID]; trim > 0 {
		state.Last = trim - 1
	}
	if n := len(runs); n > 0 {
		state.Last = max(state.Last, runs[n-1].Last)
		state.ArrivalMS = runs[n-1].EndMS
		state.First = max(runs[0].First(), f.trims[r.ID])
	} else {
		state.First = state.Last + 1
	}
	if state.Sealed {
		// What a closed shard has lost at its end will not come back.
		if r.ClosedIndex > state.Last {
			s.recovery.Damaged = append(s.recovery.Damaged, ShardRange{name, r.Number, state.Last + 1, r.ClosedIndex, "the end of a closed shard is missing"})
		}
		state.Next = state.Last + 1
		return state, nil
	}
	state.Next = state.Last + 1
	if s.recovery.Clean {
		for _, j := range state.Jumps {
			state.Next = max(state.Next, j.Last+1)
		}
	} else if state.Bound > state.Next {
		if reason, ok := s.endless[r.ID]; ok {
			s.recovery.Damaged = append(s.recovery.Damaged, ShardRange{name, r.Number, state.Next, state.Bound - 1, "there may have been records of these indexes: " + reason})
		}
		j := commit.Jump{First: state.Next, Last: state.Bound - 1}
		if n := len(state.Jumps); n > 0 && state.Jumps[n-1].First == j.First {
			state.Jumps = state.Jumps[:n-1]
		}
		state.Jumps = append(state.Jumps, j)
		state.Next = state.Bound
		s.recovery.Jumps = append(s.recovery.Jumps, ShardRange{name, r.Number, j.First, j.Last, "not closed in good order"})
		row := keyspace.JumpRow{Last: j.Last, TimeMS: s.mu.session.WallMS}
		if err := b.Set(keyspace.MetaIndex(keyspace.KindJump, r.ID, j.First), row.Encode(), nil); err != nil {
			return state, err
		}
	}
	if state.Next+commit.BoundStep/2 > state.Bound {
		state.Bound = state.Next + commit.BoundStep
		return state, b.Set(keyspace.Meta(keyspace.KindBound, r.ID), keyspace.EncodeIndex(state.Bound), nil)
	}
	return state, nil
}

// addEntries fills the epoch directory; runs of shards that are gone need
// nothing any more.
func (s *Store) addEntries(f *found) {
	live := s.shardIDs()
	entries := make([]epoch.Entry, len(f.epochs))
	for i := range f.epochs {
		row, e := &f.epochs[i], &entries[i]
		*e = epoch.Entry{Key: row.Key, Session: row.Session, StartMS: row.StartMS, EndMS: row.EndMS, Written: true}
		for j := range row.Runs {
			r := &row.Runs[j]
			e.Total += r.Stored
			switch {
			case r.Last >= f.trims[r.Shard]: // also where the rows of the shard are lost
				e.Live++
				e.Stored += r.Stored
			case !live[r.Shard]:
				e.Deleted += r.Stored
			}
		}
	}
	s.directory.Fill(entries)
	for _, r := range f.sessions {
		if r.ShiftMS != 0 {
			s.directory.SetSession(r.FirstEpoch, r.Through, r.ShiftMS)
		}
	}
}

// shardIDs are the store-wide ids of all shards.
func (s *Store) shardIDs() map[uint32]bool {
	ids := map[uint32]bool{}
	for _, st := range s.all() {
		for _, sh := range st.All() {
			ids[sh.ID] = true
		}
	}
	return ids
}

// stageForgotten removes the trims of deleted shards of which no epoch holds
// anything, and returns how many others there are.
func (f *found) stageForgotten(b *pebble.Batch) (left int, err error) {
	gone := 0
	for _, trim := range f.trims {
		if trim == keyspace.TrimmedAll {
			gone++
		}
	}
	if gone == 0 {
		return 0, nil
	}
	held := map[uint32]bool{}
	for i := range f.epochs {
		for j := range f.epochs[i].Runs {
			held[f.epochs[i].Runs[j].Shard] = true
		}
	}
	for id, trim := range f.trims {
		switch {
		case trim != keyspace.TrimmedAll:
		case held[id]:
			left++
		default:
			if err := b.Delete(keyspace.Meta(keyspace.KindTrim, id), nil); err != nil {
				return left, err
			}
		}
	}
	return left, nil
}
