package module

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// What outlives a restart, and what that costs. A version's counters, its own metrics, what
// its shadow found and its last log lines are one row. It is written when the catalogue closes, when they have changed
// for keepEvery, and within keepLook of an error: so a power cut takes with it at most a
// quarter of an hour of counting, and no error that is older than a minute. All rows
// that are due go in one commit. A module that only counts costs 96 rows of
// some 300 bytes a day.
const (
	keepLook  = time.Minute
	keepEvery = 15 * time.Minute
	// keepBytes bounds the lines in a row, about; the oldest are left out.
	keepBytes = 4 << 10
	// keepPatience is how long Close waits for the last write.
	keepPatience = 2 * time.Second
)

// kept is a version's row.
type kept struct {
	Stats Stats     `json:"stats"`
	Lines []LogLine `json:"lines,omitempty"` // oldest first
}

// keeping is what a version's row was written with.
type keeping struct {
	at              time.Time
	batches, errors uint64
	lines, badLines uint64

	requests, compared uint64
}

func keepKey(name, version string) []byte { return []byte("s/" + name + "/" + version) }

// recall gives a version the counters and lines of its row, if it has one.
func (c *Catalog) recall(ctx context.Context, v *Version) {
	value, err := c.o.Store.Get(ctx, keepKey(v.Manifest.Name, v.Manifest.Version))
	if err != nil || value == nil {
		return // nothing was kept, or it can't be read: counting begins anew
	}
	var k kept
	if err := json.Unmarshal(value, &k); err != nil {
		c.o.Logger.Warn("what a module counted is not readable; it counts anew", "module", v.Manifest.Name, "version", v.Manifest.Version, "error", err)
		return
	}
	v.restore(k)
	s := v.Stats()
	v.kept.batches, v.kept.errors, v.kept.requests, v.kept.compared = s.Batches, s.Errors, s.requests(), s.compared()
}

// keepRows writes the rows of versions that are due, until the catalogue closes.
func (c *Catalog) keepRows() {
	look := time.NewTicker(keepLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			c.keep(context.Background(), false)
		case <-c.ending:
			return
		}
	}
}

// keep writes the rows of versions that are due, or all that have changed.
func (c *Catalog) keep(ctx context.Context, all bool) {
	c.write.Lock()
	defer c.write.Unlock()
	now := c.o.Now()
	var changes []Change
	var written []func()
	for name, e := range *c.mods.Load() {
		for version, v := range e.versions {
			value, done := v.keep(now, all)
			if value != nil {
				changes, written = append(changes, Change{Key: keepKey(name, version), Value: value}), append(written, done)
			}
		}
	}
	if len(changes) == 0 {
		return
	}
	if err := c.o.Store.Commit(ctx, changes); err != nil {
		c.o.Logger.Warn("what modules counted and logged is not written; tried again in a minute", "error", err)
		return
	}
	for _, done := range written {
		done()
	}
}

// keep returns the version's row if it is due, and what to call when it is written.
func (v *Version) keep(now time.Time, all bool) (row []byte, done func()) {
	s := v.Stats()
	lines, added, bad := v.logs.tail(keepBytes)
	next := keeping{now, s.Batches, s.Errors, added, bad, s.requests(), s.compared()}
	last := v.kept
	last.at = now
	if next == last {
		return nil, nil
	}
	since := now.Sub(v.kept.at)
	if !all && since < keepEvery && (bad == v.kept.badLines || since < keepLook) {
		return nil, nil
	}
	row, err := json.Marshal(kept{Stats: s, Lines: lines})
	if err != nil {
		panic(fmt.Sprintf("BUG: counters %+v: %v", s, err))
	}
	return row, func() { v.kept = next }
}
