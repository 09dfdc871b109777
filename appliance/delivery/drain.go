package delivery

import (
	"context"
	"time"

	"github.com/weirhq/weir/storage/record"
)

// drainLook is how often Drain looks.
const drainLook = 10 * time.Millisecond

// Drain seals what the delivery streams have gathered and waits until
// everything that had been put when it was called is delivered. It is called
// before the context of Run ends, when nothing more is put. It waits for no
// delivery stream that can't send now: one that is paused, outside of its
// windows, over its budget, or whose sink fails; and for none while the store takes
// no writes, since nothing can be sealed then. When ctx ends it returns at
// once. It returns the names of the delivery streams that have something left,
// all of which goes on with the next Run.
func (e *Engine) Drain(ctx context.Context) (left []string) {
	type open struct {
		w    *worker
		ends map[record.ShardNumber]uint64
	}
	var waiting []open
	for _, w := range e.all() {
		waiting = append(waiting, open{w, w.ends()})
	}
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		kept := waiting[:0]
		for _, o := range waiting {
			switch {
			case !o.w.behind(o.ends):
			case o.w.stuck():
				left = append(left, o.w.definition().Config.Name)
			default:
				o.w.poke()
				kept = append(kept, o)
			}
		}
		waiting = kept
		if len(waiting) == 0 {
			return left
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, o := range waiting {
				left = append(left, o.w.definition().Config.Name)
			}
			return left
		}
	}
}

// ends is, by shard, the index after the last record.
func (w *worker) ends() map[record.ShardNumber]uint64 {
	w.mu.Lock()
	stream := w.mu.stream
	w.mu.Unlock()
	ends := map[record.ShardNumber]uint64{}
	if stream == nil {
		return ends
	}
	for _, info := range stream.Shards() {
		if info.Last >= info.First {
			ends[info.Number] = info.Last + 1
		}
	}
	return ends
}

// behind says whether records before ends are not delivered.
func (w *worker) behind(ends map[record.ShardNumber]uint64) bool {
	if len(w.pendingRecipes()) > 0 {
		return true
	}
	cur := w.copyCursor()
	for n, end := range ends {
		s, followed := cur.Shards[n]
		if s.Until > 0 && s.Next < s.Until {
			return true
		}
		if live, ok := cur.Live[n]; ok {
			s, followed = live, true
		}
		if (!followed || s.Next < end) && !s.Done {
			return true
		}
	}
	return false
}

// stuck says whether the worker can't send now.
func (w *worker) stuck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.waiting != "" || len(w.mu.held) > 0 && w.mu.sending == 0 || w.mu.circuit.Failures > 0 || w.mu.stream == nil || w.engine.store.State().ReadOnly
}
