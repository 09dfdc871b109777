package commit

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

// entryOverhead is what a memtable needs for an entry beside key and value.
const entryOverhead = 120

// blockRun is what a group adds to one log.
type blockRun struct {
	log *Log
	run epoch.Run // Count, Raw and Stored of this group only
}

// encode fills the batch from the group.
func (c *Committer) encode(g *group) error {
	for _, t := range g.txns {
		if err := c.encodeOps(t); err != nil {
			return err
		}
	}
	for _, l := range c.touched {
		if err := c.encodeLog(l); err != nil {
			return err
		}
		l.head, l.tail = nil, nil
	}
	for _, t := range c.applied {
		if t.hook != nil {
			if err := t.hook(&c.staging); err != nil {
				return err
			}
		}
	}
	return c.epoch.stageRows(c.batch)
}

// encodeOps checks the transaction's expectations and, if they hold, stages
// its table operations and adds its records to those of their logs.
func (c *Committer) encodeOps(t *Txn) error {
	if t.expects {
		if err := c.check(t); err != nil {
			if !errors.Is(err, ErrConflict) {
				return err
			}
			t.err = err
			return nil
		}
	}
	var err error
	t.eachOp(func(kind byte, key, value []byte) bool {
		switch kind {
		case opPut:
			err = c.batch.Set(key, value, nil)
		case opDelete:
			err = c.batch.Delete(key, nil)
		case opDeletePrefix:
			err = c.batch.DeleteRange(key, keyspace.AppendPrefixEnd(nil, key), nil)
		}
		return err == nil
	})
	c.applied = append(c.applied, t)
	for i := range t.entries {
		e := &t.entries[i]
		if l := e.log; l.tail != nil {
			l.tail.next, l.tail = e, e
		} else {
			l.head, l.tail = e, e
			c.touched = append(c.touched, l)
		}
	}
	return err
}

// check compares the transaction's expectations with what the group's earlier
// transactions and the store say.
func (c *Committer) check(t *Txn) (err error) {
	t.eachOp(func(kind byte, key, want []byte) bool {
		if kind != opExpect && kind != opAbsent {
			return true
		}
		have, exists, known := lookup(c.applied, key)
		if !known {
			v, closer, e := c.db.Get(key)
			switch {
			case e == nil:
				have, exists = bytes.Clone(v), true
				err = closer.Close()
			case !errors.Is(e, pebble.ErrNotFound):
				err = e
			}
		}
		if err == nil && (exists != (kind == opExpect) || (exists && !bytes.Equal(have, want))) {
			m, _ := keyspace.ParseMeta(key)
			err = fmt.Errorf("%w: %s %q is not as expected", ErrConflict, m.Table, m.Rest)
		}
		return err == nil
	})
	return err
}

// encodeLog stages a log's records as blocks and gives them their indexes.
func (c *Committer) encodeLog(l *Log) error {
	w := blockRun{log: l, run: epoch.Run{Epoch: c.epoch.number, Lane: l.Lane(), EndMS: max(l.maxMS, c.stamp.ArrivalMS)}}
	codec := l.blockCodec(c.load.busy)
	c.builder.Reset()
	// What every record counts is kept out of memory that others look at.
	next, keyBytes := l.next, 0
	for e := l.head; e != nil; e = e.next {
		if !c.builder.Fits(int(e.n)) {
			if err := c.flushBlock(&w, next-1, codec); err != nil {
				return err
			}
		}
		var delta int64
		if e.at != 0 {
			delta = e.at - c.stamp.ArrivalMS
		}
		e.at = int64(next)
		next++
		key, explicit, data := e.parts()
		c.builder.Add(key, explicit, data, delta)
		w.run.Raw += uint64(e.n)
		keyBytes += int(e.keyLen)
	}
	l.next = next
	c.stats.keyBytes.Add(uint64(keyBytes))
	if c.builder.Count() > 0 {
		if err := c.flushBlock(&w, next-1, codec); err != nil {
			return err
		}
	}
	if w.run.Count == 0 {
		return nil
	}
	c.written = append(c.written, w)
	c.stats.records.Add(uint64(w.run.Count))
	c.stats.raw.Add(w.run.Raw)
	// The bound is written long before it is needed.
	if l.next+BoundStep/2 > l.bound {
		l.bound = l.next + BoundStep
		return c.batch.Set(keyspace.Meta(keyspace.KindBound, l.ID), keyspace.EncodeIndex(l.bound), nil)
	}
	return nil
}

// flushBlock stages the builder's records as one block that ends at index last.
func (c *Committer) flushBlock(w *blockRun, last uint64, codec block.Codec) error {
	value := c.builder.Encode(codec, c.stamp)
	if c.builder.Dense() {
		c.epoch.packed += int64(len(value))
	}
	var key [keyspace.DataKeyBytes]byte
	k := keyspace.DataKey{Lane: w.run.Lane, Epoch: w.run.Epoch, Shard: w.log.ID, Last: last}.Append(key[:0])
	w.run.Last = last
	w.run.Count += uint32(c.builder.Count())
	w.run.Stored += uint32(len(value))
	c.stats.stored.Add(uint64(len(value)))
	c.stats.blocks.Add(1)
	op := c.batch.SetDeferred(len(k), len(value))
	copy(op.Key, k)
	copy(op.Value, value)
	c.builder.Reset()
	return op.Finish()
}

// load decides for codec auto: zstd until encoding keeps a core busy.
type load struct {
	busy   bool
	since  time.Time
	encode time.Duration
}

func (l *load) encoded(from, to time.Time) {
	l.encode += to.Sub(from)
	if l.since.IsZero() {
		l.since = from
	}
	window := to.Sub(l.since)
	if window < time.Second {
		return
	}
	share := float64(l.encode) / float64(window)
	switch {
	case share > 0.6:
		l.busy = true
	case l.busy && share < 0.15: // S2 needs about a third of zstd's time
		l.busy = false
	}
	l.since, l.encode = to, 0
}
