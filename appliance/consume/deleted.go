package consume

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/weirhq/weir/storage"
)

// forgetDeleted deletes what is kept for streams that were deleted since it was called
// last: lease, checkpoint and state of their shards, once their workers have ended.
// Requests in their outboxes are still sent. A stream that is missing when the engine
// starts is left alone: damage may be the reason, and a repair may bring it back.
func (e *Engine) forgetDeleted(ctx context.Context) error {
	gone := e.streams
	e.streams = map[uint32]bool{}
	for _, st := range e.o.Store.Streams() {
		e.streams[st.ID()] = true
		delete(gone, st.ID())
	}
	if len(gone) == 0 {
		return nil
	}
	e.mu.Lock()
	for k := range e.mu.workers {
		if gone[k.stream] {
			delete(gone, k.stream)
			e.streams[k.stream] = true // next time
		}
	}
	for k := range e.mu.done {
		if gone[k.stream] {
			delete(e.mu.done, k)
		}
	}
	e.mu.Unlock()
	if err := e.forgetStreams(ctx, gone); err != nil {
		for id := range gone {
			e.streams[id] = true
		}
		return fmt.Errorf("forget deleted streams: %w", err)
	}
	return nil
}

// forgetStreams deletes what all consumers keep for these streams.
func (e *Engine) forgetStreams(ctx context.Context, gone map[uint32]bool) error {
	const shared = "wasm/"
	var names []string // NAME 0 stream
	err := e.o.Store.Scan(storage.TableConsumer, []byte(shared), nil, 0, func(key, _ []byte) bool {
		if n := len(key); n > len(shared)+4 && gone[binary.BigEndian.Uint32(key[n-4:])] {
			names = append(names, string(key[len(shared):]))
		}
		return true
	})
	if err != nil || len(names) == 0 {
		return err
	}
	t, err := e.o.Store.Begin(ctx, 1024)
	if err != nil {
		return err
	}
	defer t.Release()
	for _, name := range names {
		t.DeletePrefix(storage.TableLease, []byte(shared+name))
		t.DeletePrefix(storage.TableCheckpoint, []byte(shared+name))
		t.DeletePrefix(storage.TableModuleState, []byte(name))
		t.Delete(storage.TableConsumer, []byte(shared+name))
	}
	return t.Commit(ctx)
}
