package transform

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
)

// How long a record or batch that asked for it waits before it is tried again:
// doubling from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// run is one Process call.
type run struct {
	t       *Transform
	ctx     context.Context
	engines Engines
	engine  Engine
	whole   *Batch
	part    Batch
	emit    func(*Output) error
	out     Output
	entry   abi.Output
	report  Report
}

func (r *run) putBack() {
	if r.engine != nil {
		r.engines.Put(r.engine)
		r.engine = nil
	}
}

// span runs the records [lo, hi) and emits what becomes of them. When the
// module breaks on them, it halves the span until the records that break it
// stand alone.
func (r *run) span(lo, hi, attempt int) error {
	res, err := r.call(lo, hi, attempt)
	switch {
	case err == nil:
		return r.accept(&res, lo, hi, attempt)
	case r.ctx.Err() != nil:
		return r.ctx.Err()
	case errors.Is(err, guest.ErrRetry) || transient(err):
		if attempt-r.whole.Attempt < r.t.o.Manifest.OnError.Retries {
			if err := r.pause(attempt); err != nil {
				return err
			}
			return r.span(lo, hi, attempt+1)
		}
	}
	var start *startError
	code := FailureCode(err)
	if code == 0 || errors.As(err, &start) {
		return err
	}
	if hi-lo > 1 {
		mid := lo + (hi-lo)/2
		if err := r.span(lo, mid, attempt); err != nil {
			return err
		}
		return r.span(mid, hi, attempt)
	}
	r.report.Poisoned++
	r.report.Poison = poison(err)
	return r.fail(lo, code, err.Error())
}

// call hands records [lo, hi) to an instance.
func (r *run) call(lo, hi, attempt int) (abi.Result, error) {
	if r.engine == nil {
		e, err := r.engines.Get(r.ctx)
		if err != nil {
			return abi.Result{}, &startError{err}
		}
		r.engine = e
	}
	b := &r.part
	*b = *r.whole
	b.Records, b.Attempt = r.whole.Records[lo:hi], attempt
	b.Flags |= r.t.o.Flags
	start := time.Now()
	res, err := r.engine.Process(r.ctx, b)
	fuel, memory := r.engine.Used()
	r.report.Fuel += fuel
	r.report.MemoryBytes = max(r.report.MemoryBytes, memory)
	if err != nil {
		if broken(err) {
			r.report.Aborts++
			r.putBack()
		}
		return res, err
	}
	r.t.size.took(hi-lo, time.Since(start))
	return res, nil
}

// startError is a module that can't be brought to run: no record's fault.
type startError struct{ err error }

func (e *startError) Error() string { return "start instance: " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// broken reports whether the instance behind err is lost.
func broken(err error) bool {
	var call *host.CallError
	var lie *abi.InvalidResultError
	return errors.As(err, &call) || errors.As(err, &lie)
}

// transient reports whether the same records may well go through next time:
// the box was busy or short of memory.
func transient(err error) bool {
	var start *startError
	return !errors.As(err, &start) && (errors.Is(err, host.ErrDeadline) || errors.Is(err, host.ErrBudget))
}

// FailureCode says with which code a record fails that, alone in its batch,
// makes an Engine answer err. 0 = that is no record's fault.
func FailureCode(err error) uint32 {
	var lie *abi.InvalidResultError
	var call *host.CallError
	switch {
	case errors.As(err, &lie):
		return CodeInvalid
	case errors.Is(err, guest.ErrRetry):
		return CodeRetry
	case errors.Is(err, guest.ErrRefused):
		return CodeRefused
	case errors.Is(err, guest.ErrTooLarge):
		return CodeTooLarge
	case errors.Is(err, host.ErrFuel), errors.Is(err, host.ErrDeadline), errors.Is(err, host.ErrMemory),
		errors.Is(err, host.ErrDepth), errors.Is(err, host.ErrOutput):
		return CodeLimit
	case errors.As(err, &call):
		return CodeTrap
	}
	return 0
}

func poison(err error) string {
	var call *host.CallError
	if errors.As(err, &call) && call.Trace != "" {
		return call.Error() + "\n" + call.Trace
	}
	return err.Error()
}

// pause waits before attempt+1.
func (r *run) pause(attempt int) error {
	r.report.Retries++
	d := min(firstPause<<min(attempt-r.whole.Attempt, 10), lastPause)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// accept emits a checked answer for records [lo, hi). Those from the first that
// asked to be retried on are run again.
func (r *run) accept(res *abi.Result, lo, hi, attempt int) error {
	if res.AllUnchanged() {
		r.engine.Accept()
		for i := lo; i < hi; i++ {
			r.report.Outputs++
			r.out = Output{Source: i}
			if err := r.emit(&r.out); err != nil {
				return err
			}
		}
		return nil
	}
	for i := lo; i < hi; i++ {
		e := res.Entry(i - lo)
		var err error
		switch e.Status {
		case abi.StatusUnchanged:
			r.report.Outputs++
			r.out = Output{Source: i}
			err = r.emit(&r.out)
		case abi.StatusDropped:
			r.report.Dropped++
			r.out = Output{Source: i, Status: Dropped}
			err = r.emit(&r.out)
		case abi.StatusReplaced:
			err = r.replaced(res, i, e)
		case abi.StatusRetry:
			return r.again(i, hi, attempt)
		default:
			text, code := res.Reason(e)
			err = r.fail(i, code, string(text))
		}
		if err != nil {
			return err
		}
	}
	r.engine.Accept()
	return nil
}

// again runs the records [i, hi) once more after a pause; record i fails when
// it has used up its retries.
func (r *run) again(i, hi, attempt int) error {
	if attempt-r.whole.Attempt >= r.t.o.Manifest.OnError.Retries {
		if err := r.fail(i, CodeRetry, "the module asked for another retry"); err != nil {
			return err
		}
		if i+1 == hi {
			return nil
		}
		return r.span(i+1, hi, r.whole.Attempt)
	}
	if err := r.pause(attempt); err != nil {
		return err
	}
	return r.span(i, hi, attempt+1)
}

func (r *run) replaced(res *abi.Result, i int, e abi.Entry) error {
	r.report.Replaced++
	for k := int(e.Aux); k < int(e.Aux)+int(e.Count); k++ {
		o := &r.entry
		if err := res.Output(k, o); err != nil {
			return fmt.Errorf("BUG: checked result: %w", err)
		}
		r.out = Output{Source: i, Status: OkReplaced, Data: o.Value, PartitionKey: o.PartitionKey, Out: int(o.Stream), TimestampMS: o.TimestampMS}
		if o.InheritValue {
			r.out.Status, r.out.Data = OkUnchanged, nil
		} else if o.Value == nil {
			r.out.Data = []byte{}
		}
		if !o.InheritKey {
			r.out.Key = o.Key
		}
		r.report.Outputs++
		r.report.OutputBytes += int64(len(o.Value))
		if err := r.emit(&r.out); err != nil {
			return err
		}
	}
	return nil
}

// fail emits a record that failed for good as on_error says.
func (r *run) fail(i int, code uint32, reason string) error {
	r.report.Failed++
	switch r.t.o.Manifest.OnError.Then {
	case manifest.Drop:
		r.out = Output{Source: i, Status: Dropped, Reason: reason, Code: code}
	case manifest.PassThrough:
		r.out = Output{Source: i, Reason: reason, Code: code}
	case manifest.Halt:
		return &HaltError{Source: i, Reason: reason, Code: code}
	default:
		r.out = Output{Source: i, Status: ProcessingFailed, Reason: reason, Code: code}
	}
	return r.emit(&r.out)
}

// sizer fits the number of records handed over at once to the time the module
// takes: from 64, doubling while a call takes less than a quarter of
// targetTime, halving when it takes more.
type sizer struct {
	size  atomic.Int64
	limit int64
}

const (
	startSize  = 64
	targetTime = 50 * time.Millisecond
)

// next returns the end of the span that begins at lo.
func (s *sizer) next(recs []Record, lo int, maxBytes int64) int {
	n := s.size.Load()
	if n == 0 {
		n = min(startSize, s.limit)
		s.size.Store(n)
	}
	hi, bytes := lo, int64(0)
	for hi < len(recs) && int64(hi-lo) < n {
		bytes += int64(abi.RecordSize(len(recs[hi].Key), len(recs[hi].Data)))
		if hi > lo && bytes > maxBytes {
			break
		}
		hi++
	}
	return hi
}

// took notes that a call with n records took d.
func (s *sizer) took(n int, d time.Duration) {
	size := s.size.Load()
	switch {
	case d > targetTime && size > 1 && int64(n) <= size:
		s.size.CompareAndSwap(size, max(1, min(size, int64(n))/2))
	case d < targetTime/4 && int64(n) == size && size < s.limit:
		s.size.CompareAndSwap(size, min(2*size, s.limit))
	}
}
