package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirhq/weir/storage"
)

// holdBudget takes the budget, which only its holder changes. It may be held while
// a commit is under way: whoever just wants to know reads the copy.
func (w *worker) holdBudget() budget { return <-w.budget }

// giveBudget gives the budget back.
func (w *worker) giveBudget(b budget) {
	w.mu.Lock()
	w.mu.sent = b
	w.mu.Unlock()
	w.budget <- b
}

// errBudget ends an attempt that would pass the monthly budget.
var errBudget = errors.New("the monthly byte budget has too little left for the batch")

// spend notes bytes that a job is about to send. What the month has no room for
// is not sent: errBudget, and the attempt has failed.
func (w *worker) spend(ctx context.Context, j *job, n int) error {
	def := w.definition()
	b := w.holdBudget()
	defer func() { w.giveBudget(b) }()
	limit := def.Config.Uplink.MonthlyBytes
	kept := min(int64(n), j.reserved)
	next := b
	next.reserved -= kept
	move := next.spend(w.engine.calendar().In(def.Config.location()), int64(n))
	if limit > 0 && next.Bytes+next.reserved > limit {
		j.least = max(j.least, j.sent.Load()+int64(n))
		j.short.Store(true)
		return errBudget
	}
	j.reserved -= kept
	j.sent.Add(int64(n))
	b = next
	if limit == 0 || !move {
		return nil
	}
	ahead := min(b.Bytes+budgetStep(limit), limit)
	txn, err := w.engine.store.Begin(ctx, 256)
	if err != nil {
		return err
	}
	txn.Put(storage.TableThrottle, budgetKey(def.ID), mustJSON(budget{Month: b.Month, Bytes: ahead, Percent: b.Percent}))
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("byte budget of delivery %s: %w", def.Config.Name, err)
	}
	b.ahead = ahead
	return nil
}

// batchBytes is the size at which a batch is due. The size hint is meant for
// each partition of a partitioned stream, as far as the reads allow.
func (w *worker) batchBytes(c *Config, inJSON bool) int64 {
	size := c.Buffer.SizeBytes
	if c.Partition == nil {
		return w.affordable(c, size, inJSON)
	}
	most := int64(partitionedBytes)
	if percent := w.stats.ratio.Load(); percent > 0 {
		most = min(most, percent*passBytes*maxReads/100)
	}
	return w.affordable(c, min(size*max(w.stats.partitions.Load(), 1), most), inJSON)
}

// leastBatches is how many batches a month's budget is enough for, so that one which
// takes several times what was expected is not more than a month has.
const leastBatches = 4

// affordable is size, or less when a month has not enough for a batch of it.
func (w *worker) affordable(c *Config, size int64, inJSON bool) int64 {
	limit := c.Uplink.MonthlyBytes / leastBatches
	if limit == 0 {
		return size
	}
	w.mu.Lock()
	b := w.mu.sent
	w.mu.Unlock()
	if need := b.expected(size, inJSON); need > limit {
		return max(int64(float64(size)*float64(limit)/float64(need)), 1)
	}
	return size
}
