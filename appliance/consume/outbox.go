package consume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
)

// How long the outbox waits after a request that failed, doubling.
const (
	firstResend = time.Second
	lastResend  = 5 * time.Minute
)

// codeUndelivered marks dead letters of requests that were answered with a
// status that a repetition won't change.
const codeUndelivered uint32 = 0xFFFF0100

// sender sends what a consumer's shards have put into their outboxes, in the
// order of each shard, at least once.
type sender struct {
	e       *Engine
	version *module.Version
	cancel  context.CancelFunc
	wake    chan struct{}
}

// sendersLocked starts and stops senders so that each active consumer with
// hosts has one, of its active version.
func (e *Engine) sendersLocked(ctx context.Context, consumers map[string]*module.Version) {
	for name, s := range e.mu.senders {
		if consumers[name] != s.version {
			s.cancel()
			delete(e.mu.senders, name)
		}
	}
	for name, v := range consumers {
		if v.HTTP() == nil || e.mu.senders[name] != nil || ctx.Err() != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		s := &sender{e: e, version: v, cancel: cancel, wake: make(chan struct{}, 1)}
		e.mu.senders[name] = s
		e.running.Go(func() {
			defer cancel()
			s.run(ctx)
		})
	}
}

func (e *Engine) pokeSender(consumer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.mu.senders[consumer]; s != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *sender) run(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := s.pass(ctx)
		if err != nil && ctx.Err() == nil {
			s.e.o.Logger.Error("outbox", "consumer", s.version.Manifest.Name, "error", err)
			next = s.e.o.Now().Add(firstResend)
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(next.Sub(s.e.o.Now()), 0)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// queued is an outbox row.
type queued struct {
	key   []byte
	shard shardKey
	row   outboxRow
}

// pass sends what is due. It returns when to come back, zero = when poked.
func (s *sender) pass(ctx context.Context) (next time.Time, err error) {
	prefix := append([]byte(s.version.Manifest.Name), 0)
	var after []byte
	for {
		var batch []queued
		var broken error
		err := s.e.o.Store.Scan(storage.TableOutbox, prefix, after, 64, func(k, v []byte) bool {
			q := queued{key: bytes.Clone(k)}
			var ok bool
			if q.shard, _, ok = parseShardName(k); !ok {
				return true
			}
			if broken = json.Unmarshal(v, &q.row); broken != nil {
				return false
			}
			batch = append(batch, q)
			return true
		})
		if err = errors.Join(err, broken); err != nil {
			return next, err
		}
		if len(batch) == 0 {
			return next, nil
		}
		for i := range batch {
			q := &batch[i]
			after = q.key
			due, now := time.UnixMilli(q.row.NotMS), s.e.o.Now()
			// A time further ahead is of a start whose clock was: a box without a battery may be in 1970 again.
			if waits := now.Before(due) && !due.After(now.Add(lastResend)); !waits {
				if due, err = s.send(ctx, q); err != nil {
					return next, err
				}
			}
			if !due.IsZero() { // so the rest of its shard waits, too
				next = earlier(next, due)
				after = q.shard.outboxEnd()
				break
			}
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// send sends one request and settles its row: gone when it was answered for
// good, kept with a later time otherwise, which it returns.
func (s *sender) send(ctx context.Context, q *queued) (again time.Time, err error) {
	r, err := egress.Parse(q.row.Request)
	status := 0
	if err == nil {
		var res *egress.Response
		if res, err = s.version.HTTP().Do(ctx, r, fmt.Sprintf("%x", q.key)); err == nil {
			if status = res.Status; status >= 300 {
				s.version.RequestFailed(fmt.Errorf("%s %s was answered with status %d", r.Method, r.Target(), status))
			}
		}
	}
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err()
	}
	switch {
	case err == nil && status < 300:
		return time.Time{}, s.settle(ctx, func(t *storage.Txn) { t.Delete(storage.TableOutbox, q.key) })
	case errors.Is(err, egress.ErrDenied), errors.Is(err, egress.ErrRequest), errors.Is(err, egress.ErrTooLarge),
		err == nil && status < 500 && status != 408 && status != 429:
		return time.Time{}, s.giveUp(ctx, q, status, err)
	}
	if err == nil {
		err = fmt.Errorf("answered with status %d", status)
	}
	q.row.Attempts++
	q.row.Error = err.Error()
	again = s.e.o.Now().Add(min(firstResend<<min(q.row.Attempts-1, 20), lastResend))
	q.row.NotMS = again.UnixMilli()
	return again, s.settle(ctx, func(t *storage.Txn) { t.Put(storage.TableOutbox, q.key, encode(q.row)) })
}

func (s *sender) settle(ctx context.Context, fill func(t *storage.Txn)) error {
	t, err := s.e.o.Store.Begin(ctx, 4096)
	if err != nil {
		return err
	}
	defer t.Release()
	fill(t)
	return t.Commit(ctx)
}

// giveUp moves a request that can't succeed to the dead letters.
func (s *sender) giveUp(ctx context.Context, q *queued, status int, cause error) error {
	m := s.version.Manifest
	st, err := s.e.deadLetters(ctx, m.OnError.DeadLetter)
	if err != nil {
		return err
	}
	reason := fmt.Sprintf("request was answered with status %d", status)
	if cause != nil {
		reason = cause.Error()
	}
	d := transform.DeadLetter{
		Module: m.Name, Version: m.Version, Digest: s.version.Digest, Code: codeUndelivered, Reason: reason, Attempts: q.row.Attempts + 1,
		Shard: q.shard.shard.String(), FailedMS: s.e.o.Now().UnixMilli(), Data: q.row.Request,
	}
	data := d.EncodeWithin(st.MaxRecordBytes())
	t, err := s.e.o.Store.Begin(ctx, len(data))
	if err != nil {
		return err
	}
	defer t.Release()
	if err := t.Append(st, []byte(m.Name), nil, data); err != nil {
		return err
	}
	t.Delete(storage.TableOutbox, q.key)
	return t.Commit(ctx)
}
