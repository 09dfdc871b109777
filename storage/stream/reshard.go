package stream

import (
	"context"
	"fmt"
	"slices"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
)

// Split closes shard n and opens two in its place, the upper one beginning
// at newStart. It is durable on return. ErrShardNotFound, ErrShardClosed and
// ErrInvalid mean that nothing was changed.
func (st *Stream) Split(ctx context.Context, n record.ShardNumber, newStart record.HashKey) error {
	st.reshard.Lock()
	defer st.reshard.Unlock()
	return st.splitLocked(ctx, n, newStart)
}

func (st *Stream) splitLocked(ctx context.Context, n record.ShardNumber, newStart record.HashKey) error {
	parent, err := st.openShard(n)
	if err != nil {
		return err
	}
	if newStart.Cmp(parent.Hash.First) <= 0 || newStart.Cmp(parent.Hash.Last) > 0 {
		return fmt.Errorf("split %s at %s: want a key above %s and up to %s: %w", n, newStart, parent.Hash.First, parent.Hash.Last, ErrInvalid)
	}
	below, _ := newStart.Prev()
	return st.replace(ctx, []*shard.Shard{parent}, []record.HashRange{{First: parent.Hash.First, Last: below}, {First: newStart, Last: parent.Hash.Last}})
}

// Merge closes the adjacent shards a and b and opens one in their place,
// whose parent is a and whose adjacent parent is b. It is durable on return.
func (st *Stream) Merge(ctx context.Context, a, b record.ShardNumber) error {
	st.reshard.Lock()
	defer st.reshard.Unlock()
	return st.mergeLocked(ctx, a, b)
}

func (st *Stream) mergeLocked(ctx context.Context, a, b record.ShardNumber) error {
	first, err := st.openShard(a)
	if err != nil {
		return err
	}
	second, err := st.openShard(b)
	if err != nil {
		return err
	}
	lower, upper := first, second
	if upper.Hash.First.Cmp(lower.Hash.First) < 0 {
		lower, upper = upper, lower
	}
	if next, ok := lower.Hash.Last.Next(); !ok || next != upper.Hash.First {
		return fmt.Errorf("merge %s and %s: want adjacent shards: %w", a, b, ErrInvalid)
	}
	return st.replace(ctx, []*shard.Shard{first, second}, []record.HashRange{{First: lower.Hash.First, Last: upper.Hash.Last}})
}

// UpdateShardCount splits and merges until the stream has target open shards
// of equal width. Each step is durable by itself: after an error some may
// have been made.
func (st *Stream) UpdateShardCount(ctx context.Context, target int) error {
	if target < 1 || target > MaxShards {
		return fmt.Errorf("stream %q: shard count %d: want 1 to %d: %w", st.Name(), target, MaxShards, ErrInvalid)
	}
	st.reshard.Lock()
	defer st.reshard.Unlock()
	want := record.SplitRing(target)
	for _, w := range want[1:] {
		if sh := st.Route(w.First); sh.Hash.First != w.First {
			if err := st.splitLocked(ctx, sh.Number, w.First); err != nil {
				return err
			}
		}
	}
	for _, w := range want {
		for {
			sh := st.Route(w.First)
			if sh.Hash.Last == w.Last {
				break
			}
			next, _ := sh.Hash.Last.Next()
			if err := st.mergeLocked(ctx, sh.Number, st.Route(next).Number); err != nil {
				return err
			}
		}
	}
	return nil
}

func (st *Stream) openShard(n record.ShardNumber) (*shard.Shard, error) {
	if err := st.Rerouted(); err != nil {
		return nil, err
	}
	sh, err := st.Find(n)
	if err != nil {
		return nil, err
	}
	if sh.Row().ClosedMS > 0 {
		return nil, fmt.Errorf("shard %s of stream %q: %w", n, st.Name(), ErrShardClosed)
	}
	return sh, nil
}

// replace closes parents and opens a child for each range.
//
// The children's rows are made durable first, as pending: from then on a
// record may be committed to a child before the rows that close the parents
// are, and recovery finishes what was begun.
func (st *Stream) replace(ctx context.Context, parents []*shard.Shard, ranges []record.HashRange) error {
	nowMS := st.env.Shards.Now().UnixMilli()
	created := nowMS
	for _, p := range parents {
		// Sequence numbers of children sort after those of their parents.
		created = max(created, (p.CreatedMS()/1000+1)*1000)
	}
	children, err := st.addPending(ctx, parents, ranges, created)
	if err != nil {
		return err
	}
	t, err := st.env.Committer.Begin(ctx, 1)
	if err != nil {
		return err
	}
	defer t.Recycle()
	var rows []keyspace.ShardRow
	t.OnEncode(func(s *commit.Staging) error {
		for _, p := range parents {
			row := p.Row()
			row.ClosedMS, row.ClosedIndex = max(nowMS, row.CreatedMS+1), s.Last(p.Log)
			rows = append(rows, row)
		}
		for _, row := range rows {
			if err := stageShardRow(s, row); err != nil {
				return err
			}
		}
		return stageShardRows(s, children...)
	})
	// The parents close while it joins: what they have reserved by then is in this group
	// or an earlier one.
	err = t.Join(func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		for _, p := range parents {
			p.Log.Close()
		}
		for _, c := range children {
			row := c.Row()
			row.Pending = false
			c.SetRow(row)
		}
		st.setRoutes(slices.Concat(children, slices.DeleteFunc(slices.Clone(st.routes.Load().shards),
			func(sh *shard.Shard) bool { return slices.Contains(parents, sh) })))
	})
	if err != nil {
		return err
	}
	// The outcome must be awaited: routes have changed.
	if err := t.Commit(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("reshard stream %q: %w", st.Name(), err)
	}
	for i, p := range parents {
		p.SetRow(rows[i])
		p.Seal()
	}
	return nil
}

// addPending makes the children's rows durable.
func (st *Stream) addPending(ctx context.Context, parents []*shard.Shard, ranges []record.HashRange, createdMS int64) ([]*shard.Shard, error) {
	first, stage := st.env.NewShards(len(ranges))
	var children []*shard.Shard
	st.mu.Lock()
	for i, h := range ranges {
		row := keyspace.ShardRow{
			ID: first + uint32(i), Number: record.ShardNumber(st.mu.row.NextNumber), CreatedMS: createdMS, Pending: true,
			Parent: &parents[0].Number,
		}
		if len(parents) > 1 {
			row.AdjacentParent = &parents[1].Number
		}
		st.mu.row.NextNumber++
		children = append(children, st.newShard(row, h))
	}
	st.mu.shards = append(st.mu.shards, children...)
	st.mu.Unlock()
	err := st.commit(ctx, stage, st.stageRow, func(s *commit.Staging) error { return stageNewShards(s, children) })
	if err != nil {
		st.mu.Lock()
		st.mu.shards = slices.DeleteFunc(st.mu.shards, func(sh *shard.Shard) bool { return slices.Contains(children, sh) })
		st.mu.Unlock()
		return nil, fmt.Errorf("reshard stream %q: %w", st.Name(), err)
	}
	return children, nil
}
