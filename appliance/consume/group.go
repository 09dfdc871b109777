package consume

import (
	"encoding/binary"
	"fmt"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/guest"
)

// Limits of what a group holds before it is committed.
const (
	groupRecords = 8192
	groupBytes   = 1 << 20
	// outboxRows bounds the requests of one consumer and shard that wait to be
	// sent; beyond it weir_http.enqueue answers -7. Engine.outboxRows is what counts.
	outboxRows = 10000
	// maxPartitionKey is the longest partition key, in bytes.
	maxPartitionKey = 256
)

// group is what one or more batches did and the next transaction will make
// durable, except the state, which keeps that itself. It is a guest.Emitter
// and a guest.Outbox.
type group struct {
	outputs  []*storage.Stream // by index of the manifest
	fallback []byte            // partition key of records without one: the source shard's name
	records  []guest.Record    // of the running batch
	emits    []emit
	requests []span
	letters  []letter
	data     []byte // of emits and requests
	count    int    // records handled
	waiting  int    // outbox rows stored and not yet sent, or a few more: see worker.countOutbox
	room     int    // how many rows the outbox has in all
	check    func(request []byte) abi.Code

	mark struct{ emits, requests, data int }
}

type span struct{ from, to int }

type emit struct {
	stream    int
	key, data span
}

// letter is a dead letter.
type letter struct{ key, data []byte }

var (
	_ guest.Emitter = (*group)(nil)
	_ guest.Outbox  = (*group)(nil)
)

// begin starts a batch: rollback goes back to here.
func (g *group) begin(records []guest.Record) {
	g.records = records
	g.mark.emits, g.mark.requests, g.mark.data = len(g.emits), len(g.requests), len(g.data)
}

// rollback undoes the batch that was begun last.
func (g *group) rollback() {
	g.emits, g.requests, g.data = g.emits[:g.mark.emits], g.requests[:g.mark.requests], g.data[:g.mark.data]
}

// reset empties the group after a commit.
func (g *group) reset() {
	g.waiting += len(g.requests)
	g.emits, g.requests, g.letters, g.data, g.count = g.emits[:0], g.requests[:0], g.letters[:0], g.data[:0], 0
	g.begin(nil)
}

// empty reports whether a commit would store nothing but a checkpoint.
func (g *group) empty() bool { return len(g.emits)+len(g.requests)+len(g.letters) == 0 }

func (g *group) add(b []byte) span {
	from := len(g.data)
	g.data = append(g.data, b...)
	return span{from, len(g.data)}
}

func (g *group) at(s span) []byte { return g.data[s.from:s.to] }

// output takes one checked output entry. The error says why the record can't
// be written to its stream.
func (g *group) output(o *abi.Output) error {
	st := g.outputs[o.Stream]
	key, data := o.Key, o.Value
	if o.Source != abi.None {
		src := &g.records[o.Source]
		if o.InheritKey {
			key = src.Key
		}
		if o.InheritValue {
			data = src.Data
		}
	}
	if len(key) == 0 {
		key = g.fallback
	}
	if limit := st.MaxRecordBytes(); len(data) > limit || len(key) > maxPartitionKey {
		return &abi.InvalidResultError{What: "output", Got: fmt.Sprintf("record of %d bytes with a key of %d; stream %s takes %d and %d", len(data), len(key), st.Name(), limit, maxPartitionKey)}
	}
	g.emits = append(g.emits, emit{int(o.Stream), g.add(key), g.add(data)})
	return nil
}

// EmitChunk implements guest.Emitter.
func (g *group) EmitChunk(r *abi.Result) abi.Code {
	var o abi.Output
	for k := range r.Outputs() {
		if r.Output(k, &o) != nil || g.output(&o) != nil {
			return abi.Invalid
		}
	}
	return 0
}

// Enqueue implements guest.Outbox.
func (g *group) Enqueue(request []byte) abi.Code {
	if g.waiting+len(g.requests) >= g.room {
		return abi.Unavailable
	}
	if code := g.check(request); code != 0 {
		return code
	}
	g.requests = append(g.requests, g.add(request))
	return 0
}

// checkRequest is what Enqueue refuses at once: what could never be sent.
func checkRequest(c *egress.Client) func(request []byte) abi.Code {
	return func(request []byte) abi.Code {
		if c == nil {
			return abi.Denied
		}
		r, err := egress.Parse(request)
		if err != nil {
			return abi.Invalid
		}
		if err := c.Allowed(r); err != nil {
			return abi.Denied
		}
		return 0
	}
}

// write puts everything but state and checkpoint into a transaction.
func (g *group) write(t *storage.Txn, k shardKey, commit uint64, deadLetters *storage.Stream) error {
	for i := range g.emits {
		e := &g.emits[i]
		if err := t.Append(g.outputs[e.stream], g.at(e.key), nil, g.at(e.data)); err != nil {
			return err
		}
	}
	for i := range g.letters {
		if err := t.Append(deadLetters, g.letters[i].key, nil, g.letters[i].data); err != nil {
			return err
		}
	}
	for n, r := range g.requests {
		t.Put(storage.TableOutbox, outboxKey(k, commit, n), encode(outboxRow{Request: g.at(r)}))
	}
	return nil
}

// size is about how many bytes write adds to a transaction.
func (g *group) size() int {
	n := len(g.data)
	for i := range g.letters {
		n += len(g.letters[i].key) + len(g.letters[i].data)
	}
	return n
}

func outboxKey(k shardKey, commit uint64, n int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(k.name(), commit), uint32(n))
}
