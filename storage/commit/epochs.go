package commit

import (
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
)

// firstArenaBytes is the size of the first memtable after an open: Pebble
// begins small and doubles with every one that was more than half used.
const firstArenaBytes = 256 << 10

// epochState is the open epoch, and the rows of closed ones on their way to disk.
type epochState struct {
	number  uint32
	session uint32
	arena   int64 // size of the present memtable
	limit   int64 // Options.MemTableBytes
	bytes   int64 // used of it
	packed  int64 // bytes of its blocks that are compressed
	records int64
	began   time.Time // zero while the epoch is empty
	startMS int64
	endMS   int64 // running maximum over the store
	logs    []*Log

	onRows func(newest uint32, rowBytes int) (gather []byte)
	rows   []row       // not yet in a batch
	staged []epoch.Key // in the batch under way
}

type row struct {
	key   epoch.Key
	value keyspace.EpochRow
}

func (e *epochState) init(o Options) {
	e.number, e.session, e.limit = o.FirstEpoch, o.Session, o.MemTableBytes
	e.arena, e.endMS, e.onRows = min(firstArenaBytes, o.MemTableBytes), o.LastMS, o.OnRows
}

// add enters what a group wrote to a log.
func (e *epochState) add(w *blockRun) {
	l := w.log
	if e.began.IsZero() {
		e.began, e.startMS = time.Now(), w.run.EndMS
	}
	e.endMS = max(e.endMS, w.run.EndMS)
	e.records += int64(w.run.Count)
	l.place.Lock()
	defer l.place.Unlock()
	if o := &l.place.open; o.Count > 0 && o.Lane == w.run.Lane {
		o.Last, o.EndMS = w.run.Last, w.run.EndMS
		o.Count += w.run.Count
		o.Raw += w.run.Raw
		o.Stored += w.run.Stored
		return
	} else if o.Count > 0 {
		// The lane changed within the epoch.
		e.closeRun(*o, l.ID)
		l.place.runs = append(l.place.runs, *o)
	} else {
		e.logs = append(e.logs, l)
	}
	l.place.open = w.run
}

// closeRun enters a closed run into the row of its lane.
func (e *epochState) closeRun(r epoch.Run, shard uint32) {
	k := epoch.Key{Lane: r.Lane, Epoch: r.Epoch}
	i := len(e.rows) - 1
	for i >= 0 && e.rows[i].key != k {
		i--
	}
	if i < 0 {
		e.rows = append(e.rows, row{key: k, value: keyspace.EpochRow{Session: e.session, StartMS: e.startMS}})
		i = len(e.rows) - 1
	}
	v := &e.rows[i].value
	v.EndMS = e.endMS
	v.Runs = append(v.Runs, keyspace.EpochRun{
		Shard: shard, Last: r.Last, Count: uint64(r.Count), Raw: r.Raw, Stored: uint64(r.Stored), EndMS: r.EndMS, Thin: r.Thin,
	})
}

// full says whether the next group may not fit the memtable any more: one of the size
// that groups have by default takes a twentieth of it. The fuller, the fewer tables.
func (e *epochState) full() bool {
	return e.bytes > e.arena*92/100 || e.records > 1<<30
}

func (e *epochState) tooOld(limit time.Duration) bool {
	wait, ok := e.remaining(limit)
	return ok && wait <= 0
}

// remaining returns how long the open epoch may stay open, false while it is empty.
func (e *epochState) remaining(limit time.Duration) (time.Duration, bool) {
	if e.began.IsZero() {
		return 0, false
	}
	return max(0, limit-time.Since(e.began)), true
}

// stageRows puts the rows of closed epochs into a batch.
func (e *epochState) stageRows(b *pebble.Batch) error {
	n, rowBytes, newest := 0, 0, uint32(0)
	for _, r := range e.rows {
		if r.key.Epoch == e.number {
			e.rows[n] = r // its other runs are still open
			n++
			continue
		}
		value := r.value.Encode()
		if err := b.Set(keyspace.MetaEpoch(r.key.Epoch, r.key.Lane), value, nil); err != nil {
			return err
		}
		rowBytes, newest = rowBytes+len(value), max(newest, r.key.Epoch)
		e.staged = append(e.staged, r.key)
	}
	clear(e.rows[n:])
	e.rows = e.rows[:n]
	if e.onRows == nil || rowBytes == 0 {
		return nil
	}
	if gather := e.onRows(newest, rowBytes); gather != nil {
		return b.Delete(gather, nil)
	}
	return nil
}

func (e *epochState) rowsWritten(d *epoch.Directory) {
	if len(e.staged) > 0 {
		d.SetWritten(e.staged)
		e.staged = e.staged[:0]
	}
}

// makeRoom closes the epoch first when the group may not fit its memtable:
// an epoch in two tables is no harm, but is compacted once.
func (c *Committer) makeRoom(g *group) {
	e := &c.epoch
	// Below half of it Pebble would make the next one no larger.
	if 2*e.bytes <= e.arena {
		return
	}
	raw := 0
	for _, t := range g.txns {
		raw += t.bytes
	}
	if e.bytes+int64(float64(raw)*c.stats.ratio()) > e.arena*95/100 {
		c.closeEpoch()
	}
}

// closeEpoch ends the open epoch, if it holds anything: its memtable is
// flushed, and what follows goes to the next one.
func (c *Committer) closeEpoch() {
	e := &c.epoch
	if e.bytes == 0 && len(e.logs) == 0 {
		return
	}
	for _, l := range e.logs {
		l.place.Lock()
		e.closeRun(l.place.open, l.ID)
		l.place.runs = append(l.place.runs, l.place.open)
		l.place.open = epoch.Run{}
		l.place.Unlock()
	}
	for _, r := range e.rows {
		if r.key.Epoch != e.number {
			continue
		}
		entry := epoch.Entry{Key: r.key, Session: e.session, StartMS: e.startMS, EndMS: e.endMS, Live: len(r.value.Runs)}
		for _, run := range r.value.Runs {
			entry.Stored += run.Stored
		}
		c.dir.Add(entry)
	}
	if c.o.Packed != nil {
		c.o.Packed.Store(e.packed*100 > e.bytes*95)
	}
	if _, err := c.db.AsyncFlush(); err != nil {
		c.Fail(err)
	}
	// A batch that did not fit made Pebble double the memtable by itself.
	for e.arena < e.limit && e.bytes > e.arena {
		e.arena = min(2*e.arena, e.limit)
	}
	if 2*e.bytes > e.arena {
		e.arena = min(2*e.arena, e.limit)
	}
	e.number++
	clear(e.logs)
	e.logs = e.logs[:0]
	e.bytes, e.packed, e.records, e.began = 0, 0, 0, time.Time{}
	c.stats.epochs.Add(1)
}

// Epoch returns the open epoch's number. Call it through Do.
func (c *Committer) Epoch() uint32 { return c.epoch.number }

// CloseEpoch closes the open epoch if it holds anything.
func (c *Committer) CloseEpoch() error { return c.Do(c.closeEpoch) }

// FlushRows puts the rows of closed epochs into b: for the last batch of a
// store that closes in good order. Call it after Close.
func (c *Committer) FlushRows(b *pebble.Batch) error {
	<-c.stopped
	c.closeEpoch()
	return c.epoch.stageRows(b)
}

// NextEpoch returns the first epoch that holds nothing. Call it after FlushRows.
func (c *Committer) NextEpoch() uint32 { return c.epoch.number }
