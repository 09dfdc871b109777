// Package epoch keeps the directory of epochs in memory: which epochs a lane
// holds, how large they are, when they were written, and how many shards
// still need them.
//
// An epoch is the life of one memtable; its records of one lane become
// exactly one table on disk, and leave the disk together. The package owns no
// files: the rows it mirrors are written by package commit and the excising
// of dead epochs is done by package storage.
package epoch

import (
	"cmp"
	"slices"
	"sync"
)

// Run is one shard's part of one epoch in one lane: records with indexes
// Last-Count+1 … Last.
type Run struct {
	Last   uint64
	EndMS  int64 // highest arrival in the shard so far, milliseconds since 1970
	Raw    uint64
	Stored uint32
	Count  uint32
	Epoch  uint32
	Lane   uint8
	Thin   uint8 // one block in 2^Thin was kept
}

// First returns the index of the run's first record.
func (r *Run) First() uint64 { return r.Last - uint64(r.Count) + 1 }

// Key names an epoch in a lane.
type Key struct {
	Lane  uint8
	Epoch uint32
}

// Entry is a closed epoch in a lane.
type Entry struct {
	Key
	Session uint32
	StartMS int64
	EndMS   int64  // highest arrival in the store so far
	Stored  uint64 // bytes of blocks still needed
	Total   uint64 // bytes of blocks that its table holds
	Deleted uint64 // of those not needed, bytes of deleted streams
	Live    int    // shards that still need it
	Written bool   // its row is on disk
}

// Span is a range of epochs of one lane, To not in it.
type Span struct {
	Lane     uint8
	From, To uint32
	Stored   uint64
}

// session is where a run of epochs begins whose clock was off by shiftMS.
type session struct {
	first   uint32 // first epoch
	through uint32 // last epoch whose uncertain stamps are shifted
	shiftMS int64
}

// Directory is safe for use from any goroutine.
type Directory struct {
	mu struct {
		sync.RWMutex
		entries  map[Key]*Entry
		sessions []session // by first
		stored   uint64
	}
}

// New returns an empty directory.
func New() *Directory {
	d := &Directory{}
	d.mu.entries = make(map[Key]*Entry)
	return d
}

// Add puts a closed epoch in.
func (d *Directory) Add(e Entry) { d.Fill([]Entry{e}) }

// Fill puts closed epochs in and keeps the slice.
func (d *Directory) Fill(entries []Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.entries) == 0 {
		d.mu.entries = make(map[Key]*Entry, len(entries))
	}
	for i := range entries {
		entries[i].Total = max(entries[i].Total, entries[i].Stored)
		d.mu.entries[entries[i].Key] = &entries[i]
		d.mu.stored += entries[i].Stored
	}
}

// SetWritten notes that the rows of these epochs are on disk.
func (d *Directory) SetWritten(keys []Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range keys {
		if e := d.mu.entries[k]; e != nil {
			e.Written = true
		}
	}
}

// Release notes that one shard no longer needs its run in the epoch, or that its
// stream was deleted. The bytes stay in the table until Rewritten or Remove.
func (d *Directory) Release(r Run, deleted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.mu.entries[Key{r.Lane, r.Epoch}]; e != nil {
		e.Live--
		n := min(e.Stored, uint64(r.Stored))
		e.Stored -= n
		d.mu.stored -= n
		if deleted {
			e.Deleted += n
		}
	}
}

// Rewritten notes that the epoch's table holds only what is needed.
func (d *Directory) Rewritten(k Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.mu.entries[k]; e != nil {
		e.Total, e.Deleted = e.Stored, 0
	}
}

// Shrink notes that a run became smaller by so many bytes.
func (d *Directory) Shrink(k Key, bytes uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.mu.entries[k]; e != nil {
		n := min(e.Stored, bytes)
		e.Stored -= n
		e.Total -= min(e.Total, n)
		d.mu.stored -= n
	}
}

// Dead returns the ranges of epochs that no shard needs and whose rows are on
// disk, in order.
func (d *Directory) Dead() []Span {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var dead []Key
	for k, e := range d.mu.entries {
		if e.Live <= 0 && e.Written {
			dead = append(dead, k)
		}
	}
	slices.SortFunc(dead, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Epoch, b.Epoch))
	})
	var spans []Span
	for _, k := range dead {
		if n := len(spans); n > 0 && spans[n-1].Lane == k.Lane && spans[n-1].To == k.Epoch {
			spans[n-1].To++
			continue
		}
		spans = append(spans, Span{Lane: k.Lane, From: k.Epoch, To: k.Epoch + 1})
	}
	return spans
}

// Remove takes the epochs of a span out.
func (d *Directory) Remove(s Span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := s.From; e < s.To; e++ {
		k := Key{s.Lane, e}
		if entry := d.mu.entries[k]; entry != nil {
			d.mu.stored -= entry.Stored
			delete(d.mu.entries, k)
		}
	}
}

// Has says whether the epoch is in the directory.
func (d *Directory) Has(k Key) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mu.entries[k] != nil
}

// Entries returns a copy of all entries, by epoch, then lane.
func (d *Directory) Entries() []Entry {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]Entry, 0, len(d.mu.entries))
	for _, e := range d.mu.entries {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Lane, b.Lane))
	})
	return out
}

// Stored returns the bytes of blocks in closed epochs that are still needed.
func (d *Directory) Stored() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mu.stored
}

// SetSession says that uncertain stamps in epochs first … through are off by
// shiftMS. A session may be set again.
func (d *Directory) SetSession(first, through uint32, shiftMS int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := session{first, through, shiftMS}
	i, found := slices.BinarySearchFunc(d.mu.sessions, first, func(s session, first uint32) int { return cmp.Compare(s.first, first) })
	if found {
		d.mu.sessions[i] = s
		return
	}
	d.mu.sessions = slices.Insert(d.mu.sessions, i, s)
}

// ShiftMS returns what to add to an uncertain stamp of the epoch.
func (d *Directory) ShiftMS(epoch uint32) int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	i, _ := slices.BinarySearchFunc(d.mu.sessions, epoch, func(s session, e uint32) int {
		if s.first <= e {
			return -1
		}
		return 1
	})
	if i == 0 || epoch > d.mu.sessions[i-1].through {
		return 0
	}
	return d.mu.sessions[i-1].shiftMS
}
