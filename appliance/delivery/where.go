package delivery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// Info describes a delivery stream.
type Info struct {
	Config
	Version int       `json:"version"`
	UID     string    `json:"uid"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	Buffer  string    `json:"buffer_stream,omitempty"`
	// Places is, by shard, the first index that is not sealed.
	Places map[string]uint64 `json:"places,omitempty"`
	Stats  Stats             `json:"stats"`
}

// List returns the delivery streams by name.
func (e *Engine) List() []Info {
	var out []Info
	for _, w := range e.all() {
		out = append(out, w.info())
	}
	return out
}

// Describe returns one delivery stream.
func (e *Engine) Describe(name string) (Info, error) {
	w, err := e.worker(name)
	if err != nil {
		return Info{}, err
	}
	return w.info(), nil
}

// Definition returns a delivery stream's configuration and version without
// its counters: what front ends need on their hot paths.
func (e *Engine) Definition(name string) (Config, int, error) {
	w, err := e.worker(name)
	if err != nil {
		return Config{}, 0, err
	}
	d := w.definition()
	return d.Config, d.Version, nil
}

func (w *worker) info() Info {
	d := w.definition()
	out := Info{Config: d.Config, Version: d.Version, UID: d.UID, Created: d.Created, Updated: d.Updated, Buffer: d.Buffer, Stats: w.snapshot()}
	cur := w.copyCursor()
	if len(cur.Shards) > 0 {
		out.Places = map[string]uint64{}
		for n, s := range cur.Shards {
			if live, ok := cur.Live[n]; ok {
				s = live
			}
			out.Places[n.String()] = s.Next
		}
	}
	return out
}

// Place tells where one record is for one delivery stream.
type Place struct {
	Delivery string `json:"delivery"`
	// State is delivered, dropped (by the module), failed (in an error object), sealed (named, not yet
	// acknowledged), gathered (waiting for the buffer hints), before (the
	// delivery stream began after it), or absent (the shard has no such record).
	State   string    `json:"state"`
	Why     string    `json:"why,omitempty"` // not delivered yet
	Arrival time.Time `json:"arrival,omitzero"`
	Recipe  uint64    `json:"recipe,omitempty"`
	Module  string    `json:"module,omitempty"` // digest
	// ModuleVersion is its name and version, from whoever knows modules.
	ModuleVersion string     `json:"module_version,omitempty"`
	Objects       []Manifest `json:"objects,omitempty"`
	Position      *Position  `json:"position,omitempty"`
}

// Position is where a record's bytes are in its object before compression.
type Position struct {
	Key    string `json:"key"`
	Offset int64  `json:"offset"`
	Length int    `json:"length"`
}

// Readers returns the names of the delivery streams that read a stream.
func (e *Engine) Readers(stream string) []string {
	var out []string
	for _, w := range e.all() {
		if d := w.definition(); d.Config.Source.Stream == stream {
			out = append(out, d.Config.Name)
		}
	}
	return out
}

// Where tells, for every delivery stream that reads a stream, in which object
// the record of a shard at index is, or why not yet.
func (e *Engine) Where(ctx context.Context, stream string, shard record.ShardNumber, index uint64) ([]Place, error) {
	st, err := e.store.Stream(stream)
	if err != nil {
		return nil, err
	}
	info, err := st.Shard(shard)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	arrival := arrivalOf(st, shard, index)
	var out []Place
	for _, w := range e.all() {
		d := w.definition()
		if d.Config.Source.Stream != stream && d.Buffer != stream {
			continue
		}
		if index > info.Last || index == 0 {
			out = append(out, Place{Delivery: d.Config.Name, State: "absent", Why: fmt.Sprintf("%s has no record of that sequence number", shard)})
			continue
		}
		p, err := w.where(ctx, &d, shard, index)
		if err != nil {
			return nil, fmt.Errorf("delivery %s: %w", d.Config.Name, err)
		}
		if p.Arrival.IsZero() {
			p.Arrival = arrival
		}
		out = append(out, p)
	}
	return out, nil
}

// arrivalOf is when a record came in; zero when the log no longer has it.
func arrivalOf(st *storage.Stream, shard record.ShardNumber, index uint64) (at time.Time) {
	r, err := st.NewReader(shard, storage.Position{Kind: storage.AtIndex, Index: index})
	if err != nil {
		return at
	}
	defer r.Close()
	_, err = r.Read(1, 1, func(rec *record.Record) bool {
		if rec.Index == index {
			at = rec.Arrival
		}
		return true
	})
	if err != nil {
		return time.Time{}
	}
	return at
}

func (w *worker) where(ctx context.Context, d *definition, shard record.ShardNumber, index uint64) (Place, error) {
	p := Place{Delivery: d.Config.Name}
	for _, r := range w.pendingRecipes() {
		if r.holds(shard, index) {
			p.State, p.Recipe, p.Module, p.Why = "sealed", r.Number, r.Module, w.why("it is being sent")
			return p, nil
		}
	}
	number, err := w.recipeOf(d.ID, shard, index)
	if err != nil {
		return p, err
	}
	if number > 0 {
		return w.delivered(ctx, d, number, shard, index)
	}
	cur := w.copyCursor()
	s, followed := cur.Shards[shard]
	if live, ok := cur.Live[shard]; ok && index >= live.Next {
		s = live
	}
	switch {
	case followed && index < s.Next:
		p.State, p.Why = "before", "the delivery stream began after it, or its manifest is no longer kept"
	default:
		p.State, p.Why = "gathered", w.why("the buffer hints have not been reached")
	}
	return p, nil
}

func (w *worker) why(otherwise string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.circuit.Failures > 0 {
		return fmt.Sprintf("attempts that failed: %d, the next is at %s: %s", w.mu.circuit.Failures, w.mu.circuit.Next.UTC().Format(time.RFC3339), w.mu.circuit.Error)
	}
	return cmp.Or(w.waitsLocked(), otherwise)
}

func (r *Recipe) holds(shard record.ShardNumber, index uint64) bool {
	for _, g := range r.Ranges {
		if g.Shard == shard && index >= g.First && index <= g.Last {
			return true
		}
	}
	return false
}

// recipeOf finds the finished recipe that ends at or after index, 0 if none.
func (w *worker) recipeOf(id uint64, shard record.ShardNumber, index uint64) (uint64, error) {
	before := rangePrefix(id, shard)
	after := rangeKey(id, shard, index)
	binary.BigEndian.PutUint64(after[len(after)-8:], index-1)
	if index == 0 {
		after = nil
	}
	number := uint64(0)
	var bad error
	err := w.engine.store.Scan(storage.TableManifest, before, after, 1, func(_, value []byte) bool {
		number, bad = strconv.ParseUint(string(value), 10, 64)
		return false
	})
	return number, errors.Join(err, bad)
}

// delivered reads a finished recipe's rows and finds the record in them.
func (w *worker) delivered(ctx context.Context, d *definition, number uint64, shard record.ShardNumber, index uint64) (Place, error) {
	p := Place{Delivery: d.Config.Name, State: "delivered", Recipe: number}
	key := manifestKey(d.ID, number, 0)
	var bad error
	var ranges []Range
	err := w.engine.store.Scan(storage.TableManifest, key[:len(key)-4], nil, 0, func(_, value []byte) bool {
		var m Manifest
		if bad = json.Unmarshal(value, &m); bad != nil {
			return false
		}
		ranges = m.Ranges
		p.Module = m.Module
		if m.Failed != nil {
			r := Recipe{Ranges: m.Failed}
			if !r.holds(shard, index) {
				return true
			}
			p.State = "failed"
		}
		p.Objects = append(p.Objects, m)
		return true
	})
	if err := errors.Join(err, bad); err != nil {
		return p, err
	}
	r := Recipe{Number: number, Ranges: ranges, Module: p.Module}
	if len(ranges) > 0 && !r.holds(shard, index) {
		return Place{Delivery: d.Config.Name, State: "before", Why: "the delivery stream began after it"}, nil
	}
	position, nothing := w.position(ctx, d, &r, p.Objects, shard, index, &p.Arrival)
	if p.Position = position; nothing {
		p.Objects = slices.DeleteFunc(p.Objects, func(m Manifest) bool { return m.Part == "data" || strings.HasPrefix(m.Part, "p:") })
		if p.State == "delivered" {
			p.State = "dropped"
		}
	}
	if p.Position != nil {
		// Of a partitioned recipe, only what has this record.
		p.Objects = slices.DeleteFunc(p.Objects, func(m Manifest) bool {
			return strings.HasPrefix(m.Part, "p:") && m.Key != p.Position.Key
		})
	}
	return p, nil
}

// position makes the objects' content once more, as far as the log still has
// it, to find the record's place in it. nil when that can't be told. nothing says
// that the record was read and that nothing of it went on into an object.
func (w *worker) position(ctx context.Context, d *definition, r *Recipe, objects []Manifest, shard record.ShardNumber, index uint64, arrival *time.Time) (found *Position, nothing bool) {
	if len(objects) == 0 || objects[0].Version != d.Version || d.Config.Parquet != nil {
		return nil, false
	}
	bind, err := w.engine.bind(d, d.Version, d.Config)
	if err != nil {
		return nil, false
	}
	defer func() { _ = bind.close() }()
	j := &job{engine: w.engine, def: d, bind: bind, recipe: r, stats: &stats{}}
	if err := j.open(); err != nil {
		return nil, false
	}
	var p *plan
	if d.Config.Partition != nil {
		p = newPlan(&d.Config, r)
	}
	offsets := map[string]int64{}
	_, err = j.pipe.run(ctx, r, stageFunc(func(it *item) error {
		part := "data"
		if p != nil {
			n := p.take(it)
			if n == unassigned {
				return nil
			}
			part = p.partitions[n].part
		}
		if it.fail != nil {
			return nil
		}
		if it.shard == shard && it.index == index {
			*arrival = it.arrival
			for i := range objects {
				if objects[i].Part == part {
					found = &Position{Key: objects[i].Key, Offset: offsets[part], Length: len(it.data)}
				}
			}
			if found != nil {
				return errEnough
			}
			return nil // there is no object of that part: its name could not be
		}
		offsets[part] += int64(len(it.data) + len(d.Config.Delimiter))
		return nil
	}))
	if err != nil && !errors.Is(err, errEnough) {
		return nil, false
	}
	return found, err == nil && !arrivalOf(bind.stream, shard, index).IsZero()
}

// Manifests returns up to limit of the newest delivered objects, newest first.
func (e *Engine) Manifests(name string, limit int) ([]Manifest, error) {
	w, err := e.worker(name)
	if err != nil {
		return nil, err
	}
	d := w.definition()
	var out []Manifest
	var bad error
	cur := w.copyCursor()
	from := uint64(1)
	if n := uint64(limit); cur.Next > n {
		from = cur.Next - n
	}
	after := manifestKey(d.ID, from-1, math.MaxInt32)
	err = e.store.Scan(storage.TableManifest, manifestPrefix(d.ID), after, 0, func(_, value []byte) bool {
		var m Manifest
		if bad = json.Unmarshal(value, &m); bad != nil {
			return false
		}
		out = append(out, m)
		if len(out) > 2*limit {
			out = append(out[:0], out[len(out)-limit:]...)
		}
		return true
	})
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out[:min(limit, len(out))], errors.Join(err, bad)
}

// Redrive sends the records that failed once more, with the configuration and
// the module of now, and returns how many. Each failed range becomes a recipe
// of its own; a record of which only a part failed is sent whole.
func (e *Engine) Redrive(ctx context.Context, name string) (int64, error) {
	w, err := e.worker(name)
	if err != nil {
		return 0, err
	}
	d := w.definition()
	resume, err := w.hold(ctx)
	if err != nil {
		return 0, err
	}
	defer resume()
	type failedRow struct {
		key []byte
		row Manifest
	}
	var rows []failedRow
	var bad error
	err = e.store.Scan(storage.TableManifest, manifestPrefix(d.ID), nil, 0, func(key, value []byte) bool {
		var m Manifest
		if bad = json.Unmarshal(value, &m); bad != nil {
			return false
		}
		if len(m.Failed) > 0 && !m.Redriven {
			rows = append(rows, failedRow{bytes.Clone(key), m})
		}
		return len(rows) < 1000
	})
	if err := errors.Join(err, bad); err != nil || len(rows) == 0 {
		return 0, err
	}
	raw, err := e.store.Get(storage.TableDelivery, cursorKey(d.ID))
	if err != nil {
		return 0, err
	}
	var cur cursor
	if err := json.Unmarshal(raw, &cur); err != nil {
		return 0, err
	}
	txn, err := e.store.Begin(ctx, 64<<10)
	if err != nil {
		return 0, err
	}
	txn.Expect(storage.TableDelivery, cursorKey(d.ID), raw)
	records := int64(0)
	for _, f := range rows {
		r := &Recipe{
			Number: cur.Next, Version: d.Version, Ranges: f.row.Failed, Oldest: f.row.Oldest, Newest: f.row.Oldest,
			Sealed: e.clock.Now().UTC(), Lane: MainLane, Redrive: true,
		}
		cur.Next++
		records += int64(r.Records())
		f.row.Redriven = true
		txn.Put(storage.TableRecipe, recipeKey(d.ID, r.Number), mustJSON(r))
		txn.Put(storage.TableManifest, f.key, mustJSON(&f.row))
	}
	txn.Put(storage.TableDelivery, cursorKey(d.ID), mustJSON(&cur))
	if err := commit(ctx, txn); err != nil {
		return 0, fmt.Errorf("redrive delivery %s: %w", name, err)
	}
	return records, nil
}

// Configs returns the configurations of all delivery streams by name.
func (e *Engine) Configs() []Config {
	var out []Config
	for _, w := range e.all() {
		d := w.definition()
		out = append(out, d.Config)
	}
	return out
}
