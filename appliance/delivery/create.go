package delivery

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// bufferPrefix begins the names of the streams behind DirectPut delivery streams.
const bufferPrefix = "delivery/"

// Create makes a delivery stream and starts it. It returns when the
// definition is durable; ErrExists, ErrInvalid and storage.ErrStreamNotFound
// mean that nothing was made.
func (e *Engine) Create(ctx context.Context, c Config) error {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := c.checkPatterns(&Config{}); err != nil {
		return err
	}
	e.changes.Lock()
	defer e.changes.Unlock()
	if _, err := e.worker(c.Name); err == nil {
		return fmt.Errorf("delivery %q: %w", c.Name, ErrExists)
	}
	now := e.clock.Now().UTC()
	d := definition{Version: 1, Created: now, Updated: now, Config: c, UID: newUID()}
	made, err := e.buffer(ctx, &d)
	if err != nil {
		return err
	}
	undo := func(err error) error {
		if made {
			err = errors.Join(err, e.store.DeleteStream(ctx, d.Buffer))
		}
		return err
	}
	b, err := e.bind(&d, 1, c)
	if err != nil {
		return undo(err)
	}
	cur := startCursor(b.stream, c.Source.Start)
	if err := b.close(); err != nil {
		return undo(err)
	}
	if err := e.saveNew(ctx, &d, cur); err != nil {
		return undo(err)
	}
	w := e.newWorker(d)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.workers[c.Name] = w
	if e.mu.ctx != nil {
		e.startLocked(w)
	}
	return nil
}

func newUID() string {
	var b [12]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// buffer makes the stream behind a DirectPut delivery stream. It has one
// shard, which has no quota, so there is nothing to scale by hand.
func (e *Engine) buffer(ctx context.Context, d *definition) (made bool, err error) {
	if !d.Config.Source.DirectPut {
		return false, nil
	}
	if err := e.endBuffer(ctx, d.Config.Name); err != nil {
		return false, err
	}
	d.Buffer = bufferPrefix + d.Config.Name
	_, err = e.store.CreateStream(ctx, storage.StreamConfig{
		Name: d.Buffer, Shards: 1, Mode: storage.OnDemand, Retention: time.Duration(d.Config.Source.Retention),
		MaxRecordBytes: MaxRecordBytes, System: true,
	})
	if errors.Is(err, storage.ErrStreamExists) {
		return false, nil // of a create that could not be undone, or of a definition that damage took: its records are sent
	}
	if err != nil {
		return false, fmt.Errorf("delivery %s: buffer stream: %w", d.Config.Name, err)
	}
	return true, nil
}

// MaxRecordBytes is Firehose's limit of one record, before base64.
const MaxRecordBytes = 1_024_000

// startCursor stands where the first record will be taken from.
func startCursor(stream *storage.Stream, start Start) cursor {
	cur := cursor{Next: 1, Shards: map[record.ShardNumber]shardState{}}
	for _, info := range stream.Shards() {
		if start != Latest {
			if !info.HasParent {
				cur.Shards[info.Number] = shardState{Next: info.First}
			}
			continue
		}
		next := info.First
		if info.Last >= info.First {
			next = info.Last + 1
		}
		cur.Shards[info.Number] = shardState{Next: next, Done: !info.Open()}
	}
	return cur
}

func (e *Engine) saveNew(ctx context.Context, d *definition, cur cursor) error {
	last := uint64(0)
	raw, err := e.store.Get(storage.TableDelivery, idKey)
	if err == nil {
		last, err = strconv.ParseUint(string(raw), 10, 64)
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	d.ID = last + 1
	txn, err := e.store.Begin(ctx, 16<<10)
	if err != nil {
		return err
	}
	txn.Expect(storage.TableDelivery, definitionKey(d.Config.Name), nil)
	txn.Put(storage.TableDelivery, idKey, strconv.AppendUint(nil, d.ID, 10))
	txn.Put(storage.TableDelivery, definitionKey(d.Config.Name), mustJSON(d))
	txn.Put(storage.TableDelivery, versionKey(d.ID, d.Version), mustJSON(&d.Config))
	txn.Put(storage.TableDelivery, cursorKey(d.ID), mustJSON(&cur))
	if err := commit(ctx, txn); err != nil {
		return fmt.Errorf("create delivery %s: %w", d.Config.Name, err)
	}
	return nil
}
