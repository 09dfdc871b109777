package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// InspectOptions chooses what Inspect shows.
type InspectOptions struct {
	// Stream shows one stream's shards and blocks only, "" all.
	Stream string
	// Table shows one table's rows only, "" all.
	Table string
	// Blocks shows blocks, Records their records too.
	Blocks, Records bool
}

// Item is one key of the store and what it holds.
type Item struct {
	// Kind is "store", "stream", "shard", "bound", "jump", "epoch", "session",
	// "loss", "trim", "ledger", "table", "block", "record" or "unknown".
	Kind string `json:"kind"`
	// Key is the stored key; a record has its block's.
	Key []byte `json:"key"`
	// Bytes is the length of the stored value.
	Bytes int `json:"bytes"`
	// Fields are what key and value say, a struct or a map.
	Fields any `json:"fields"`
	// Error says why the value can't be read, "" when it can.
	Error string `json:"error,omitempty"`
}

// BlockItem describes a block.
type BlockItem struct {
	Stream      string             `json:"stream,omitempty"`
	Shard       record.ShardNumber `json:"shard"`
	ShardID     uint32             `json:"shard_id"`
	Lane        uint8              `json:"lane"`
	Epoch       uint32             `json:"epoch"`
	First       uint64             `json:"first"`
	Last        uint64             `json:"last"`
	Records     int                `json:"records"`
	Data        int                `json:"data_bytes"`
	DataCodec   string             `json:"data_codec"`
	MetaCodec   string             `json:"meta_codec"`
	MetaStored  int                `json:"meta_stored_bytes"`
	Arrival     time.Time          `json:"arrival"`
	MonotonicMS int64              `json:"monotonic_ms"`
	Uncertain   bool               `json:"uncertain,omitempty"`
}

// RecordItem describes a record.
type RecordItem struct {
	Index           uint64    `json:"index"`
	Arrival         time.Time `json:"arrival"`
	PartitionKey    string    `json:"partition_key"`
	ExplicitHashKey string    `json:"explicit_hash_key,omitempty"`
	Data            []byte    `json:"data"`
}

// TableItem describes a table's row.
type TableItem struct {
	Table string `json:"table"`
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// Inspect calls fn for every key of a stopped data directory, in key order,
// until fn returns an error, which it returns. It changes nothing.
func Inspect(ctx context.Context, dir string, o Options, what InspectOptions, fn func(Item) error) error {
	if _, ok := keyspace.ParseTable(what.Table); what.Table != "" && !ok {
		return fmt.Errorf("inspect %s: table %q: no such table: %w", dir, what.Table, ErrInvalid)
	}
	d, err := openOffline(dir, o)
	if err != nil {
		return err
	}
	f, err := readRows(ctx, d.db)
	if err == nil {
		err = f.newer()
	}
	if err == nil {
		i := &inspector{what: what, names: f.shardNames(), fn: fn}
		err = i.run(ctx, d.db)
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("inspect %s: %w", dir, err)
	}
	return nil
}

type inspector struct {
	what    InspectOptions
	names   map[uint32]ShardRange
	fn      func(Item) error
	decoded block.Decoded
}

func (i *inspector) run(ctx context.Context, db *pebble.DB) error {
	o := &pebble.IterOptions{}
	if !i.what.Blocks && !i.what.Records {
		o.UpperBound = keyspace.LaneStart(0)
	}
	it, err := db.NewIterWithContext(ctx, o)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := i.item(it.Key(), it.Value()); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// item shows one key.
func (i *inspector) item(key, value []byte) error {
	out := Item{Key: append([]byte(nil), key...), Bytes: len(value)}
	if k, err := keyspace.ParseDataKey(key); err == nil {
		if name := i.names[k.Shard]; i.what.Stream != "" && name.Stream != i.what.Stream {
			return nil
		}
		return i.block(out, k, value)
	}
	k, err := keyspace.ParseMeta(key)
	if err != nil {
		out.Kind, out.Error, out.Fields = "unknown", err.Error(), map[string]any{"value": value}
		return i.fn(out)
	}
	if i.what.Table != "" && k.Table.String() != i.what.Table {
		return nil
	}
	var stream string
	out.Kind, out.Fields, stream, err = i.row(k, value)
	if err != nil {
		out.Error = err.Error()
	}
	if i.what.Stream != "" && stream != i.what.Stream {
		return nil
	}
	return i.fn(out)
}

// row takes a metadata row apart; stream is the name of the stream it belongs to.
func (i *inspector) row(k keyspace.MetaKey, v []byte) (kind string, fields any, stream string, err error) {
	asJSON := func() (m map[string]any, err error) { return m, json.Unmarshal(v, &m) }
	of := func(m map[string]any) map[string]any {
		n := i.names[k.ID]
		m["stream"], m["shard"], m["shard_id"] = n.Stream, n.Shard, k.ID
		stream = n.Stream
		return m
	}
	switch k.Kind {
	case keyspace.KindStore:
		m, err := asJSON()
		return "store", m, "", err
	case keyspace.KindStream:
		m, err := asJSON()
		name, _ := m["name"].(string)
		return "stream", m, name, err
	case keyspace.KindShard:
		var r keyspace.ShardRow
		err := keyspace.DecodeJSON(v, &r)
		return "shard", r, i.names[r.ID].Stream, err
	case keyspace.KindSession:
		m, err := asJSON()
		return "session", m, "", err
	case keyspace.KindBound, keyspace.KindTrim:
		n, err := keyspace.DecodeIndex(v)
		kind := map[keyspace.Kind]string{keyspace.KindBound: "bound", keyspace.KindTrim: "trim"}[k.Kind]
		f := of(map[string]any{"index": n})
		return kind, f, stream, err
	case keyspace.KindJump:
		r, err := keyspace.DecodeJump(v)
		f := of(map[string]any{"first": k.Index, "last": r.Last, "time": time.UnixMilli(r.TimeMS)})
		return "jump", f, stream, err
	case keyspace.KindLoss:
		r, err := keyspace.DecodeLoss(v)
		f := of(map[string]any{"first": k.Index, "last": r.Last, "records": r.Records, "bytes": r.Bytes, "time": time.UnixMilli(r.TimeMS), "reason": r.Reason.String()})
		return "loss", f, stream, err
	case keyspace.KindEpoch:
		r, err := keyspace.DecodeEpoch(v)
		return "epoch", map[string]any{"epoch": k.ID, "lane": k.Lane, "session": r.Session, "start": time.UnixMilli(r.StartMS), "end": time.UnixMilli(r.EndMS), "runs": r.Runs}, "", err
	case keyspace.KindLedger:
		r, err := keyspace.DecodeLedger(v)
		return "ledger", map[string]any{"date": time.Unix(int64(k.ID)*86400, 0).UTC().Format(time.DateOnly), "row": r}, "", err
	}
	return "table", TableItem{k.Table.String(), append([]byte(nil), k.Rest...), append([]byte(nil), v...)}, "", nil
}

func (i *inspector) block(out Item, k keyspace.DataKey, value []byte) error {
	name := i.names[k.Shard]
	out.Kind = "block"
	err := i.decoded.Decode(value)
	h := i.decoded.Header
	b := BlockItem{
		Stream: name.Stream, Shard: name.Shard, ShardID: k.Shard, Lane: k.Lane, Epoch: k.Epoch, Last: k.Last,
		First: k.Last - uint64(h.Count) + 1, Records: h.Count, Data: h.DataRawBytes, DataCodec: h.DataCodec.String(),
		MetaCodec: h.MetaCodec.String(), MetaStored: h.MetaBytes, Arrival: time.UnixMilli(h.ArrivalMS), MonotonicMS: h.MonotonicMS, Uncertain: h.Uncertain,
	}
	out.Fields = b
	if err != nil {
		out.Error = err.Error()
	}
	if i.what.Blocks || err != nil {
		if e := i.fn(out); e != nil {
			return e
		}
	}
	if !i.what.Records || err != nil {
		return nil
	}
	var r record.Record
	for n := range h.Count {
		i.decoded.Record(n, &r)
		item := RecordItem{Index: b.First + uint64(n), Arrival: time.UnixMilli(i.decoded.ArrivalMS(n)), PartitionKey: string(r.PartitionKey), Data: append([]byte(nil), r.Data...)}
		if r.HasExplicitHashKey {
			item.ExplicitHashKey = r.ExplicitHashKey.String()
		}
		if err := i.fn(Item{Kind: "record", Key: out.Key, Bytes: len(r.Data), Fields: item}); err != nil {
			return err
		}
	}
	return nil
}
