package consume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

// How long records that are to be retried wait, doubling.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// process runs records [lo, hi) of the batch. When the module breaks on them it
// halves the span until the records that break it stand alone, and dead-letters
// those. An error ends the tenure: nothing of the span is kept.
func (w *worker) process(ctx context.Context, lo, hi, attempt int) error {
	res, err := w.call(ctx, lo, hi, attempt)
	if w.state.failed != nil {
		return w.state.failed
	}
	if err == nil {
		return w.accept(ctx, &res, lo, hi, attempt)
	}
	w.state.rollback()
	w.group.rollback()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !w.guest.Instance().Healthy() {
		w.report.Aborts++
		if err := w.instance(ctx); err != nil {
			return err
		}
	}
	code := transform.FailureCode(err)
	if code == 0 {
		return err
	}
	if (errors.Is(err, guest.ErrRetry) || errors.Is(err, host.ErrDeadline)) && attempt < w.version.Manifest.OnError.Retries {
		if err := w.pause(ctx, lo, attempt); err != nil {
			return err
		}
		return w.process(ctx, lo, hi, attempt+1)
	}
	if hi-lo > 1 {
		mid := lo + (hi-lo)/2
		if err := w.process(ctx, lo, mid, attempt); err != nil {
			return err
		}
		return w.process(ctx, mid, hi, attempt)
	}
	w.report.Poison = err.Error()
	w.report.Poisoned++
	w.group.begin(nil)
	return w.fail(lo, code, err.Error(), attempt)
}

// call hands records [lo, hi) to the instance.
func (w *worker) call(ctx context.Context, lo, hi, attempt int) (abi.Result, error) {
	if !w.until.IsZero() && time.Now().After(w.until) {
		return abi.Result{}, errShadowSlow
	}
	if w.guest.Instance().Worn() != "" {
		if err := w.instance(ctx); err != nil {
			return abi.Result{}, err
		}
	}
	part := w.batch
	part.Records, part.Attempt = w.batch.Records[lo:hi], attempt
	part.Input = max(0, slices.Index(w.version.Manifest.Inputs, w.stream.Name()))
	part.TimeMS, part.ID = w.e.o.Now().UnixMilli(), part.Records[0].Index
	if hi < len(w.batch.Records) {
		part.Flags &^= abi.FlagLast
	}
	if attempt > 0 {
		part.Flags |= abi.FlagReplay
	}
	if !w.until.IsZero() {
		part.Flags |= abi.FlagShadow
	}
	w.state.begin()
	w.group.begin(part.Records)
	start := time.Now()
	res, err := w.guest.Process(ctx, &part)
	w.used(start)
	return res, err
}

// used adds a call to the report.
func (w *worker) used(start time.Time) {
	fuel, memory := w.guest.Used()
	w.report.Wall += time.Since(start)
	w.report.Fuel += fuel
	w.report.MemoryBytes = max(w.report.MemoryBytes, memory)
}

// accept keeps what a batch did. Records from the first that asked to be
// retried on are undone and run again after a pause.
func (w *worker) accept(ctx context.Context, res *abi.Result, lo, hi, attempt int) error {
	for i := lo; i < hi; i++ {
		if res.Entry(i-lo).Status == abi.StatusRetry {
			w.state.rollback()
			w.group.rollback()
			return w.again(ctx, lo, i, hi, attempt)
		}
	}
	if err := w.outputs(res); err != nil {
		// Checked entries, but more than their stream takes.
		w.guest.Instance().Discard(err)
		w.state.rollback()
		w.group.rollback()
		return w.refuse(ctx, lo, hi, attempt, err)
	}
	w.guest.Accept()
	w.group.count += hi - lo
	w.report.Records += hi - lo
	if res.AllUnchanged() {
		return nil
	}
	for i := lo; i < hi; i++ {
		switch e := res.Entry(i - lo); e.Status {
		case abi.StatusDropped:
			w.report.Dropped++
		case abi.StatusReplaced:
			w.report.Replaced++
		case abi.StatusFailed:
			text, code := res.Reason(e)
			w.report.Records--
			w.group.count--
			if err := w.fail(i, code, string(text), attempt); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuse halves a span whose outputs don't fit their streams, or fails its
// only record.
func (w *worker) refuse(ctx context.Context, lo, hi, attempt int, cause error) error {
	if err := w.instance(ctx); err != nil {
		return err
	}
	w.report.Aborts++
	if hi-lo == 1 {
		w.report.Poisoned++
		w.report.Poison = cause.Error()
		return w.fail(lo, transform.CodeInvalid, cause.Error(), attempt)
	}
	mid := lo + (hi-lo)/2
	if err := w.process(ctx, lo, mid, attempt); err != nil {
		return err
	}
	return w.process(ctx, mid, hi, attempt)
}

// outputs collects an answer's output entries, leaving out reasons of failures.
func (w *worker) outputs(res *abi.Result) error {
	var o abi.Output
	for k := range res.Outputs() {
		if res.IsReason(k) {
			continue
		}
		if err := res.Output(k, &o); err != nil {
			return fmt.Errorf("BUG: checked result: %w", err)
		}
		if err := w.group.output(&o); err != nil {
			return err
		}
		w.report.Outputs++
	}
	return nil
}

// again keeps the records [lo, i), which are run once more by themselves, and
// hands [i, hi) out again after a pause. Record i fails when its retries are
// used up.
func (w *worker) again(ctx context.Context, lo, i, hi, attempt int) error {
	if lo < i {
		if err := w.process(ctx, lo, i, attempt); err != nil {
			return err
		}
		attempt = 0
	}
	if attempt >= w.version.Manifest.OnError.Retries {
		if err := w.fail(i, transform.CodeRetry, "the module asked for another retry", attempt); err != nil {
			return err
		}
		if i+1 == hi {
			return nil
		}
		return w.process(ctx, i+1, hi, 0)
	}
	if err := w.pause(ctx, i, attempt); err != nil {
		return err
	}
	return w.process(ctx, i, hi, attempt+1)
}

// pause commits what comes before record i and waits.
func (w *worker) pause(ctx context.Context, i, attempt int) error {
	if !w.until.IsZero() {
		return errShadowRetry
	}
	w.report.Retries++
	w.at.Next = w.batch.Records[i].Index
	if err := w.commit(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(min(firstPause<<min(attempt, 20), lastPause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fail does with a record that failed for good what on_error says.
func (w *worker) fail(i int, code uint32, reason string, attempt int) error {
	r := &w.batch.Records[i]
	m := w.version.Manifest
	w.report.Records++
	w.report.Failed++
	w.group.count++
	w.failed = append(w.failed, r.Index)
	switch m.OnError.Then {
	case manifest.Drop:
		return nil
	case manifest.Halt:
		if reason == "" {
			reason = "the module gave no reason"
		}
		return fmt.Errorf("%w: record %d: code %#x: %s", errHalted, r.Index, code, reason)
	}
	if w.letters == nil {
		return nil // a shadow's, which nobody gets
	}
	arrival := time.UnixMilli(r.ArrivalMS)
	d := transform.DeadLetter{
		Module: m.Name, Version: m.Version, Digest: w.version.Digest, Code: code, Reason: reason, Attempts: attempt + 1,
		Stream: w.stream.Name(), Shard: w.shardName, SequenceNumber: w.stream.Sequence(w.k.shard, r.Index, arrival).String(), Index: r.Index,
		ArrivalMS: r.ArrivalMS, FailedMS: w.e.o.Now().UnixMilli(), PartitionKey: string(r.Key), Data: r.Data,
	}
	key := r.Key
	if len(key) == 0 {
		key = w.group.fallback
	}
	w.group.letters = append(w.group.letters, letter{key: append([]byte(nil), key...), data: d.EncodeWithin(w.letters.MaxRecordBytes())})
	return nil
}

// tick calls weir_tick when it is due. A module that breaks in its tick loses
// that tick, not the shard.
func (w *worker) tick(ctx context.Context) error {
	due, ok := w.tickDue()
	now := w.e.o.Now()
	if !ok || now.Before(due) {
		return nil
	}
	if err := w.wake(ctx); err != nil {
		return err
	}
	return w.compared(ctx, 0, func(w *worker) error { return w.runTick(ctx, now) })
}

func (w *worker) runTick(ctx context.Context, now time.Time) error {
	w.state.begin()
	w.group.begin(nil)
	w.at.TickMS = now.UnixMilli()
	start := time.Now()
	res, err := w.guest.Tick(ctx, w.at.TickMS)
	w.used(start)
	if w.state.failed != nil {
		return w.state.failed
	}
	if err == nil {
		if err = w.outputs(&res); err == nil {
			w.guest.Accept()
			return nil
		}
		w.guest.Instance().Discard(err)
	}
	w.state.rollback()
	w.group.rollback()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.report.Aborts++
	w.report.Poisoned++
	w.report.Poison = "tick: " + err.Error()
	if !w.guest.Instance().Healthy() {
		return w.instance(ctx)
	}
	return nil
}

// commit makes the group durable: emitted records, dead letters, requests,
// state, checkpoint and lease in one transaction that fails if the lease is no
// longer this worker's.
func (w *worker) commit(ctx context.Context) error {
	w.judge()
	now := w.e.o.Now()
	renew := now.After(time.UnixMilli(w.lease.UntilMS).Add(-w.e.o.Lease * 2 / 3))
	// A tick that did nothing is not worth a write.
	changed := w.at
	changed.TickMS = w.stored.TickMS
	if w.group.empty() && len(w.state.dirty) == 0 && changed == w.stored && !renew {
		return nil
	}
	next := w.at
	next.Started, next.Commits = true, w.stored.Commits+1
	next.Version, next.Digest = w.version.Manifest.Version, w.version.Digest
	next.StateBytes, next.StateEntries = w.state.bytes, w.state.count
	row := encode(next)
	held, leased := w.lease, w.leased
	if renew {
		held.UntilMS = now.Add(w.e.o.Lease).UnixMilli()
		leased = encode(held)
	}
	t, err := w.e.o.Store.Begin(ctx, w.group.size()+w.state.size()+1024)
	if err != nil {
		return err
	}
	defer t.Release()
	t.Expect(storage.TableLease, w.k.row(), w.leased)
	if err := w.group.write(t, w.k, next.Commits, w.letters); err != nil {
		t.Rollback()
		return fmt.Errorf("commit: %w", err)
	}
	w.state.write(t)
	t.Put(storage.TableCheckpoint, w.k.row(), row)
	if renew {
		t.Put(storage.TableLease, w.k.row(), leased)
	}
	if err := t.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	requests := len(w.group.requests)
	w.lease, w.leased = held, leased
	w.at, w.stored = next, next
	w.state.committed()
	w.group.reset()
	if requests > 0 {
		w.e.pokeSender(w.k.consumer)
	}
	return nil
}

// judge reports what the module did since the last commit.
func (w *worker) judge() {
	if r := w.report; r.Records > 0 || r.Aborts > 0 || r.Fuel > 0 {
		w.e.o.Modules.Judge(w.version, r)
	}
	w.report = transform.Report{}
	w.failed = w.failed[:0]
}
