package delivery

import (
	"context"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// splitLanes begins a live lane when there is a backlog to work off beside it,
// and ends it when the backlog has been sealed.
func (w *worker) splitLanes(ctx context.Context, def *definition, cur *cursor, stream *storage.Stream) error {
	percent := def.Config.Uplink.LivePercent
	switch {
	case cur.Live != nil && finishedBacklog(cur):
		next := *cur
		next.Shards, next.Live = cur.Live, nil
		if err := w.saveCursor(ctx, def, cur, &next); err != nil {
			return err
		}
		*cur = next
	case cur.Live == nil && percent > 0 && w.hasBacklog(def, stream, cur):
		next := *cur
		next.Shards, next.Live = map[record.ShardNumber]shardState{}, map[record.ShardNumber]shardState{}
		for n, s := range cur.Shards {
			info, err := stream.Shard(n)
			if err != nil || s.Done {
				next.Shards[n] = s
				continue
			}
			end := max(info.Last+1, s.Next)
			next.Shards[n] = shardState{Next: s.Next, Until: end}
			next.Live[n] = shardState{Next: end}
		}
		if err := w.saveCursor(ctx, def, cur, &next); err != nil {
			return err
		}
		*cur = next
	}
	return nil
}

// hasBacklog says whether what is not sealed is so much older than the buffer
// interval that it has a lane of its own, beside what comes in now.
func (w *worker) hasBacklog(def *definition, stream *storage.Stream, cur *cursor) bool {
	return w.backlogAge(stream, cur) > 4*max(def.Config.interval(), time.Minute)
}

func finishedBacklog(cur *cursor) bool {
	for _, s := range cur.Shards {
		if !s.Done && (s.Until == 0 || s.Next < s.Until) {
			return false
		}
	}
	return true
}

// backlogAge is the age of the oldest record that is not sealed.
func (w *worker) backlogAge(stream *storage.Stream, cur *cursor) time.Duration {
	age := time.Duration(0)
	for n, s := range cur.Shards {
		if !s.Done {
			_, _, a := w.shardLag(stream, n, s)
			age = max(age, a)
		}
	}
	return age
}
