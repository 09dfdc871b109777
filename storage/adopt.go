package storage

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/stream"
)

// adopt makes a stream for each shard that has records but no row, of a name that says
// which shard it was: what the row said is lost, the records are not. Its records are
// kept as long as may be. Without Options.Adopt it only says that they are there.
func (s *Store) adopt(f *found, runs map[uint32][]epoch.Run, b *pebble.Batch) error {
	known, names := map[uint32]bool{}, map[string]bool{}
	for i := range f.shards {
		known[f.shards[i].ID] = true
	}
	for i := range f.streams {
		names[f.streams[i].Name] = true
	}
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		if known[id] || f.trims[id] == keyspace.TrimmedAll || len(runs[id]) == 0 {
			continue
		}
		r := runs[id]
		name := adoptedName(id)
		if !s.o.Adopt {
			s.recovery.Orphans = append(s.recovery.Orphans, ShardRange{name, 0, r[0].First(), r[len(r)-1].Last, "the row of its stream is lost"})
			continue
		}
		for n := 2; names[name]; n++ { // somebody's own choice
			name = fmt.Sprintf("%s.%d", adoptedName(id), n)
		}
		names[name] = true
		all := record.SplitRing(1)[0]
		st := keyspace.StreamRow{
			ID: s.mu.row.NextStream, Name: name, CreatedMS: max(r[0].EndMS, 1), RetentionMS: stream.MaxRetention.Milliseconds(),
			MaxRecordBytes: stream.DefaultMaxRecordBytes, Lane: r[len(r)-1].Lane, NextNumber: 1,
		}
		s.mu.row.NextStream++
		sh := keyspace.ShardRow{ID: id, Stream: st.ID, First: all.First.String(), Last: all.Last.String(), CreatedMS: st.CreatedMS}
		f.streams, f.shards = append(f.streams, st), append(f.shards, sh)
		if err := errors.Join(b.Set(keyspace.Meta(keyspace.KindStream, st.ID), keyspace.EncodeJSON(st), nil),
			b.Set(keyspace.Meta(keyspace.KindShard, st.ID, 0), keyspace.EncodeJSON(sh), nil)); err != nil {
			return err
		}
		s.recovery.Adopted = append(s.recovery.Adopted, ShardRange{name, 0, r[0].First(), r[len(r)-1].Last, "the row of its stream was lost"})
	}
	return nil
}

// adoptedName is the name of the stream made for a shard whose rows are lost.
func adoptedName(shardID uint32) string { return fmt.Sprintf("recovered-%d", shardID) }

// fillHoles adds an open shard for each range of a stream's hash keys that none has:
// the row of one was lost, and records that belong there have to go somewhere.
func (s *Store) fillHoles(f *found, b *pebble.Batch) error {
	open := map[uint32][]record.HashRange{}
	number := map[uint32]record.ShardNumber{}
	for i := range f.shards {
		r := &f.shards[i]
		number[r.Stream] = max(number[r.Stream], r.Number+1)
		if h, err := hashRange(*r); err == nil && r.ClosedMS == 0 && f.trims[r.ID] != keyspace.TrimmedAll {
			open[r.Stream] = append(open[r.Stream], h)
		}
	}
	for i := range f.streams {
		st := &f.streams[i]
		for _, h := range holes(open[st.ID]) {
			row := keyspace.ShardRow{
				ID: s.mu.row.NextShard, Stream: st.ID, Number: max(number[st.ID], record.ShardNumber(st.NextNumber)),
				First: h.First.String(), Last: h.Last.String(), CreatedMS: max(s.mu.session.WallMS, st.CreatedMS, 1),
			}
			s.mu.row.NextShard++
			number[st.ID] = row.Number + 1
			f.shards = append(f.shards, row)
			f.bad = append(f.bad, fmt.Sprintf("no shard of stream %q has the hash keys %s to %s: %s is made for them", st.Name, row.First, row.Last, row.Number))
			if err := b.Set(keyspace.Meta(keyspace.KindShard, st.ID, uint32(row.Number)), keyspace.EncodeJSON(row), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// holes are the ranges of hash keys that lie in none of the given ones.
func holes(have []record.HashRange) (out []record.HashRange) {
	slices.SortFunc(have, func(a, b record.HashRange) int { return a.First.Cmp(b.First) })
	next, more := record.HashKey{}, true
	for _, h := range have {
		if last, ok := h.First.Prev(); ok && next.Cmp(last) <= 0 {
			out = append(out, record.HashRange{First: next, Last: last})
		}
		if next.Cmp(h.Last) <= 0 {
			if next, more = h.Last.Next(); !more {
				return out
			}
		}
	}
	return append(out, record.HashRange{First: next, Last: record.SplitRing(1)[0].Last})
}
