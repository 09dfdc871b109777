package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// walk is one random walk: a store on a file system that can crash, and what it
// must hold.
type walk struct {
	fs     *vfs.MemFS
	store  *storage.Store
	model  *Model
	clock  walkClock
	serial int
	next   map[string]record.ShardNumber // of each stream, the number of the next shard
	limit  int64                         // Options.TotalBytes

	bounded  map[string]bool        // streams that ever had a limit in bytes
	copied   map[string]bool        // streams that something was imported into
	imported map[sourceShard]uint64 // last index that was imported, of each target
}

// walkClock is the time that a walk sets while the store reads it.
type walkClock struct {
	mu struct {
		sync.Mutex
		now    time.Time
		uptime time.Duration
	}
}

func (c *walkClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.now
}

func (c *walkClock) uptime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.uptime
}

// step moves the wall clock alone.
func (c *walkClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.now = c.mu.now.Add(d)
}

func (c *walkClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.now, c.mu.uptime = c.mu.now.Add(d), c.mu.uptime+d
}

// sourceShard is a shard that was exported.
type sourceShard struct {
	target, stream uint32
	shard          record.ShardNumber
}

const walkDir = "/data/weir"

func newWalk(t *rapid.T) *walk {
	w := &walk{
		fs: vfs.NewCrashableMem(), model: NewModel(),
		next:    map[string]record.ShardNumber{},
		bounded: map[string]bool{}, copied: map[string]bool{}, imported: map[sourceShard]uint64{},
	}
	w.clock.mu.now = time.UnixMilli(1_780_000_000_000)
	w.open(t)
	return w
}

func (w *walk) open(t *rapid.T) {
	s, err := storage.Open(context.Background(), walkDir, storage.Options{
		FS: w.fs, MemTableBytes: 1 << 20, ReserveBytes: -1, TotalBytes: w.limit,
		Clock: w.clock.now, Uptime: w.clock.uptime,
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	w.store = s
}

// stream draws a stream, nil when there is none.
func (w *walk) stream(t *rapid.T) (*storage.Stream, *Stream) {
	names := slices.Sorted(maps.Keys(w.model.Streams))
	if len(names) == 0 {
		return nil, nil
	}
	name := rapid.SampledFrom(names).Draw(t, "stream")
	st, err := w.store.Stream(name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	return st, w.model.Streams[name]
}

// shard returns a shard of a stream, and the records of the model that it still has; a nil
// one when there is none, or it was trimmed away.
func (w *walk) shard(t *rapid.T) (*storage.Stream, *Stream, *Shard, []Record) {
	st, m := w.stream(t)
	if m == nil {
		return nil, nil, nil, nil
	}
	sh := rapid.SampledFrom(m.Shards).Draw(t, "shard")
	info, err := st.Shard(sh.Number)
	if err != nil {
		return nil, nil, nil, nil
	}
	return st, m, sh, slices.DeleteFunc(slices.Clone(sh.Records), func(r Record) bool { return r.Index < info.First })
}

func (w *walk) createStream(t *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "pumps", "pumps-2"}).Draw(t, "name")
	c := storage.StreamConfig{
		Name: name, Shards: rapid.IntRange(1, 5).Draw(t, "shards"),
		Codec:     rapid.SampledFrom([]storage.Codec{storage.Zstd, storage.S2, storage.None, storage.Auto}).Draw(t, "codec"),
		Retention: rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour, 365 * 24 * time.Hour}).Draw(t, "retention"),
	}
	_, err := w.store.CreateStream(context.Background(), c)
	if _, taken := w.model.Streams[name]; taken {
		if !errors.Is(err, storage.ErrStreamExists) {
			t.Fatalf("create %s again: %v, want ErrStreamExists", name, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	w.model.CreateStream(name, c.Shards)
	w.next[name] = record.ShardNumber(c.Shards)
}

func (w *walk) deleteStream(t *rapid.T) {
	_, st := w.stream(t)
	if st == nil {
		return
	}
	if err := w.store.DeleteStream(context.Background(), st.Name); err != nil {
		t.Fatalf("delete %s: %v", st.Name, err)
	}
	delete(w.model.Streams, st.Name)
	delete(w.next, st.Name)
	delete(w.bounded, st.Name)
	delete(w.copied, st.Name)
	if _, err := w.store.Stream(st.Name); !errors.Is(err, storage.ErrStreamNotFound) {
		t.Fatalf("stream %s after its delete: %v", st.Name, err)
	}
}

// transact makes one transaction of appends to several streams and changes of
// several tables, and commits it or gives it up.
func (w *walk) transact(t *rapid.T) {
	ctx := context.Background()
	staged := w.model.Clone()
	tx, err := w.store.Begin(ctx, 4096)
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	defer tx.Release()
	type added struct {
		shard *Shard
		at    int
	}
	var adds []added
	if len(staged.Streams) > 0 {
		for range rapid.IntRange(0, 30).Draw(t, "records") {
			st, m := w.stream(t)
			m = staged.Streams[m.Name]
			key, explicit := w.key(t)
			data := w.data(t)
			if err := reserve(tx, st, key, explicit, data, rapid.Bool().Draw(t, "shrink")); err != nil {
				t.Fatalf("append %s: %v", m.Name, err)
			}
			sh := m.Route(key, explicit)
			sh.Records = append(sh.Records, Record{Key: key, Data: data, Explicit: explicit})
			adds = append(adds, added{sh, len(sh.Records) - 1})
		}
	}
	conflict := w.rows(t, tx, staged)
	if rapid.IntRange(0, 9).Draw(t, "give up") == 0 {
		tx.Rollback()
		return
	}
	err = tx.Commit(ctx)
	if conflict {
		if !errors.Is(err, storage.ErrConflict) {
			t.Fatalf("commit against an expectation that does not hold: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	if tx.Len() != len(adds) {
		t.Fatalf("committed %d records, want %d", tx.Len(), len(adds))
	}
	for i, a := range adds {
		number, index, arrival := tx.Result(i)
		r := &a.shard.Records[a.at]
		if number != a.shard.Number {
			t.Fatalf("record %d went to %s, want %s", i, number, a.shard.Number)
		}
		if a.at > 0 && index <= a.shard.Records[a.at-1].Index {
			t.Fatalf("record %d of %s has index %d after %d", i, number, index, a.shard.Records[a.at-1].Index)
		}
		r.Index, r.Arrival = index, arrival
	}
	w.model = staged
}

func reserve(tx *storage.Txn, st *storage.Stream, key string, explicit *record.HashKey, data []byte, shrink bool) error {
	if !shrink {
		return tx.Append(st, []byte(key), explicit, data)
	}
	b, err := tx.Reserve(st, []byte(key), explicit, len(data)+7)
	if err != nil {
		return err
	}
	copy(b, data)
	tx.Shrink(len(data))
	return nil
}

func (w *walk) key(t *rapid.T) (string, *record.HashKey) {
	w.serial++
	key := fmt.Sprintf("k%d-%s", w.serial, rapid.StringN(0, 8, 32).Draw(t, "key"))
	if rapid.IntRange(0, 4).Draw(t, "explicit") > 0 {
		return key, nil
	}
	h := record.HashOf([]byte(rapid.String().Draw(t, "hash")))
	return key, &h
}

func (w *walk) data(t *rapid.T) []byte {
	n := rapid.SampledFrom([]int{0, 1, 13, 200, 399, 401, 5000, 70_000}).Draw(t, "size")
	rng := rand.New(rand.NewPCG(uint64(w.serial), 1))
	data := make([]byte, n)
	for i := range data {
		data[i] = "0123456789abcdef"[rng.IntN(16)]
	}
	return data
}

// rows stages table changes and says whether an expectation among them fails.
func (w *walk) rows(t *rapid.T, tx *storage.Txn, staged *Model) (conflict bool) {
	for range rapid.IntRange(0, 6).Draw(t, "rows") {
		table := rapid.SampledFrom(Tables).Draw(t, "table")
		key := rapid.SampledFrom([]string{"", "a", "a\x00", "a/1", "a/2", "b", "\xff", "\xff\xff"}).Draw(t, "row")
		k := rowKey(table, key)
		switch rapid.IntRange(0, 4).Draw(t, "change") {
		case 0, 1:
			w.serial++
			v := fmt.Appendf(nil, "v%d", w.serial)
			tx.Put(table, []byte(key), v)
			staged.Rows[k] = v
		case 2:
			tx.Delete(table, []byte(key))
			delete(staged.Rows, k)
		case 3:
			tx.DeletePrefix(table, []byte(key))
			staged.DeletePrefix(table, key)
		case 4:
			// Expectations speak of the rows before the transaction.
			want, there := w.model.Rows[k]
			switch {
			case rapid.IntRange(0, 5).Draw(t, "wrong") == 0:
				tx.Expect(table, []byte(key), []byte("never"))
				conflict = true
			case there:
				tx.Expect(table, []byte(key), want)
			default:
				tx.Expect(table, []byte(key), nil)
			}
		}
	}
	return conflict
}

func (w *walk) split(t *rapid.T) {
	st, m := w.stream(t)
	if m == nil {
		return
	}
	sh := rapid.SampledFrom(m.Open()).Draw(t, "shard")
	at, ok := middle(sh.Hash)
	if !ok || len(m.Open()) > 12 {
		return // too narrow
	}
	if err := st.Split(context.Background(), sh.Number, at); err != nil {
		t.Fatalf("split %s of %s: %v", sh.Number, m.Name, err)
	}
	sh.Closed = true
	for _, h := range []record.HashRange{{First: sh.Hash.First, Last: before(at)}, {First: at, Last: sh.Hash.Last}} {
		w.child(m, h, sh.Number)
	}
	if err := st.Split(context.Background(), sh.Number, at); !errors.Is(err, storage.ErrShardClosed) && !errors.Is(err, storage.ErrShardNotFound) {
		t.Fatalf("split of a closed shard: %v", err)
	}
}

func (w *walk) child(m *Stream, h record.HashRange, parents ...record.ShardNumber) {
	m.Shards = append(m.Shards, &Shard{Number: w.next[m.Name], Hash: h, Parents: parents})
	w.next[m.Name]++
}

func (w *walk) merge(t *rapid.T) {
	st, m := w.stream(t)
	if m == nil {
		return
	}
	open := m.Open()
	if len(open) < 2 {
		return // one shard
	}
	i := rapid.IntRange(0, len(open)-2).Draw(t, "shard")
	a, b := open[i], open[i+1]
	if len(open) > 2 {
		far := open[(i+2)%len(open)]
		if next := after(a.Hash.Last); next != far.Hash.First && after(far.Hash.Last) != a.Hash.First {
			if err := st.Merge(context.Background(), a.Number, far.Number); !errors.Is(err, storage.ErrInvalid) {
				t.Fatalf("merge of shards that are not neighbours: %v", err)
			}
		}
	}
	if err := st.Merge(context.Background(), a.Number, b.Number); err != nil {
		t.Fatalf("merge %s and %s of %s: %v", a.Number, b.Number, m.Name, err)
	}
	a.Closed, b.Closed = true, true
	w.child(m, record.HashRange{First: a.Hash.First, Last: b.Hash.Last}, a.Number, b.Number)
}

// read reads from a random position and compares with the model's suffix.
func (w *walk) read(t *rapid.T) {
	w.settle(t)
	st, m, sh, want := w.shard(t)
	if sh == nil {
		return
	}
	p := storage.Position{Kind: rapid.SampledFrom([]storage.PositionKind{
		storage.TrimHorizon, storage.Latest, storage.AtIndex, storage.AfterIndex, storage.AtTime,
	}).Draw(t, "kind")}
	switch p.Kind {
	case storage.Latest:
		want = nil
	case storage.AtIndex, storage.AfterIndex:
		if len(want) == 0 {
			return // empty
		}
		i := rapid.IntRange(0, len(want)-1).Draw(t, "at")
		p.Index = want[i].Index
		if want = want[i:]; p.Kind == storage.AfterIndex {
			want = want[1:]
		}
	case storage.AtTime:
		if w.copied[m.Name] {
			return // arrivals of other times lie among its own
		}
		p.Time = w.clock.now().Add(-time.Duration(rapid.IntRange(0, 7200).Draw(t, "seconds ago")) * time.Second)
		if i := slices.IndexFunc(want, func(r Record) bool { return !r.Arrival.Before(p.Time) }); i >= 0 {
			want = want[i:]
		} else {
			want = nil
		}
	}
	got, err := ReadAll(st, sh.Number, p)
	if err != nil {
		t.Fatalf("read %s %s: %v", m.Name, sh.Number, err)
	}
	if len(got) != len(want) {
		t.Fatalf("read %s %s from %+v: %d records, want %d", m.Name, sh.Number, p, len(got), len(want))
	}
	for i := range got {
		if err := same(got[i], want[i]); err != nil {
			t.Fatalf("read %s %s from %+v: %v", m.Name, sh.Number, p, err)
		}
	}
}

// frames reads the stored frames of a shard and compares what they decode to.
func (w *walk) frames(t *rapid.T) {
	w.settle(t)
	st, m, sh, want := w.shard(t)
	if sh == nil {
		return
	}
	r, err := st.NewReader(sh.Number, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		t.Fatalf("reader: %v", err)
	}
	defer r.Close()
	var got []Record
	for {
		n := 0
		err := r.Frames(1<<16, func(f storage.Frame) bool {
			n++
			if e := f.Records(func(rec *record.Record) bool { got = append(got, copyOf(rec)); return true }); e != nil {
				t.Fatalf("frame %d-%d: %v", f.First, f.Last, e)
			}
			return true
		})
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			break
		}
		if err != nil {
			t.Fatalf("frames: %v", err)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("frames of %s %s hold %d records, want %d", m.Name, sh.Number, len(got), len(want))
	}
	for i := range got {
		if err := same(got[i], want[i]); err != nil {
			t.Fatalf("frames of %s %s: %v", m.Name, sh.Number, err)
		}
	}
}

func (w *walk) reopen(t *rapid.T) {
	if err := w.store.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	w.open(t)
	if rec := w.store.Recovery(); !rec.Clean {
		t.Fatalf("open after a clean close recovers: %+v", rec)
	}
}

// crash cuts the power: what was not synced is kept to a random part.
func (w *walk) crash(t *rapid.T) {
	percent := rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "unsynced kept, %")
	seed := rapid.Uint64().Draw(t, "seed")
	clone := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
	old := w.store
	w.fs = clone
	w.open(t)
	// The process that lost its power goes on in a world of its own.
	if err := old.Close(); err != nil {
		t.Fatalf("close of the crashed store: %v", err)
	}
}

func (w *walk) updateConfig(t *rapid.T) {
	st, m := w.stream(t)
	if st == nil {
		return
	}
	codec := rapid.SampledFrom([]storage.Codec{storage.Zstd, storage.S2, storage.None}).Draw(t, "codec")
	limit := rapid.SampledFrom([]int64{0, 0, 100_000}).Draw(t, "retention bytes")
	policy := rapid.SampledFrom([]storage.Policy{storage.Reject, storage.DropOldest, storage.ThinOut}).Draw(t, "policy")
	if err := st.Update(context.Background(), func(c *storage.StreamConfig) {
		c.Codec, c.RetentionBytes, c.WhenFull = codec, limit, policy
	}); err != nil {
		t.Fatalf("update: %v", err)
	}
	if got := st.Config(); got.Codec != codec || got.RetentionBytes != limit || got.WhenFull != policy {
		t.Fatalf("after an update to %v, %d, %v: %+v", codec, limit, policy, got)
	}
	w.bounded[m.Name] = w.bounded[m.Name] || limit > 0
}

// relieve puts the store under a limit for the whole box, so that the policies of the
// streams answer, and takes the limit away again.
func (w *walk) relieve(t *rapid.T) {
	before := map[string]map[record.ShardNumber]uint64{}
	for name := range w.model.Streams {
		before[name] = w.reported(t, name)
	}
	w.limit = rapid.SampledFrom([]int64{1, 50_000, 300_000}).Draw(t, "limit of the box")
	w.reopen(t)
	for range rapid.IntRange(1, 3).Draw(t, "rounds") {
		if err := w.store.Retain(context.Background()); err != nil {
			t.Fatalf("retain: %v", err)
		}
	}
	w.limit = 0
	if rapid.Bool().Draw(t, "crash") {
		w.crash(t)
	} else {
		w.reopen(t)
	}
	for name, m := range w.model.Streams {
		after := w.reported(t, name)
		for _, sh := range m.Shards {
			w.reconcile(t, m, sh, after[sh.Number]-before[name][sh.Number])
		}
	}
}

// reported returns how many records of each shard of a stream are reported as lost.
func (w *walk) reported(t *rapid.T, name string) map[record.ShardNumber]uint64 {
	st, err := w.store.Stream(name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	out := map[record.ShardNumber]uint64{}
	for _, i := range st.Shards() {
		losses, err := st.Losses(i.Number)
		if err != nil {
			t.Fatalf("losses of %s %s: %v", name, i.Number, err)
		}
		for _, l := range losses {
			out[i.Number] += l.Records
		}
	}
	return out
}

// reconcile takes out of the model what the store gave up of a shard: records that may
// go by the stream's policy, as many as were reported, and nothing else.
func (w *walk) reconcile(t *rapid.T, m *Stream, sh *Shard, reported uint64) {
	st, err := w.store.Stream(m.Name)
	if err != nil {
		t.Fatalf("stream %s: %v", m.Name, err)
	}
	if _, err := st.Shard(sh.Number); err != nil {
		return // trimmed away
	}
	there := map[uint64]bool{}
	got, err := ReadAll(st, sh.Number, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		t.Fatalf("read %s %s: %v", m.Name, sh.Number, err)
	}
	for _, r := range got {
		there[r.Index] = true
	}
	var kept []Record
	var sure, maybe uint64 // gone by policy; gone by policy or by retention
	for _, r := range sh.Records {
		switch {
		case there[r.Index]:
			kept = append(kept, r)
		case w.bounded[m.Name] || w.aged(m.Name, r):
			maybe++
		case st.Config().WhenFull == storage.Reject:
			t.Fatalf("record %d of %s %s is gone, the stream's policy is to refuse", r.Index, m.Name, sh.Number)
		default:
			sure++
		}
	}
	if reported < sure || reported > sure+maybe {
		t.Fatalf("%s %s: %d to %d records were given up, %d more are reported", m.Name, sh.Number, sure, sure+maybe, reported)
	}
	sh.Records = kept
}

// copyOver exports a stream and imports it into one: what an earlier import into that one
// brought of the same shards is left out, the rest is appended with its keys and arrivals. Into
// itself a stream takes nothing.
func (w *walk) copyOver(t *rapid.T) {
	from, source := w.stream(t)
	if from == nil {
		return
	}
	to, target := w.stream(t)
	if w.bounded[target.Name] {
		return // retention may take what comes in before it is read
	}
	w.settle(t)
	var file bytes.Buffer
	if _, err := w.store.Export(context.Background(), &file, storage.ExportOptions{Stream: source.Name}); err != nil {
		t.Fatalf("export %s: %v", source.Name, err)
	}
	if from == to {
		if r, err := w.store.Import(context.Background(), &file, storage.ImportOptions{Stream: target.Name}); !errors.Is(err, storage.ErrSameStream) || r.Records > 0 {
			t.Fatalf("import of %s into itself: %+v, %v", source.Name, r, err)
		}
		return
	}
	var want []Record
	for _, i := range from.Shards() {
		got, err := ReadAll(from, i.Number, storage.Position{Kind: storage.TrimHorizon})
		if err != nil {
			t.Fatalf("read %s %s: %v", source.Name, i.Number, err)
		}
		key := sourceShard{to.ID(), from.ID(), i.Number}
		for _, r := range got {
			if r.Index > w.imported[key] {
				w.imported[key] = r.Index
				want = append(want, r)
			}
		}
	}
	report, err := w.store.Import(context.Background(), &file, storage.ImportOptions{Stream: target.Name})
	if err != nil || report.Records != uint64(len(want)) {
		t.Fatalf("import of %s into %s: %+v, %v; want %d records", source.Name, target.Name, report, err, len(want))
	}
	w.copied[target.Name] = w.copied[target.Name] || len(want) > 0
	added := map[*Shard]int{}
	for _, r := range want {
		sh := target.Route(r.Key, r.Explicit)
		sh.Records = append(sh.Records, r)
		added[sh]++
	}
	// Where they lie is known from reading; what they are, from the source.
	for sh, n := range added {
		got, err := ReadAll(to, sh.Number, storage.Position{Kind: storage.TrimHorizon})
		if err != nil || len(got) < n {
			t.Fatalf("%s %s: %d records, %d were imported, %v", target.Name, sh.Number, len(got), n, err)
		}
		for i := range n {
			r, g := &sh.Records[len(sh.Records)-n+i], got[len(got)-n+i]
			r.Index = g.Index
			if err := same(g, *r); err != nil {
				t.Fatalf("imported into %s %s: %v", target.Name, sh.Number, err)
			}
		}
	}
}

func (w *walk) updateShardCount(t *rapid.T) {
	st, m := w.stream(t)
	if m == nil {
		return
	}
	n := rapid.IntRange(1, 6).Draw(t, "shards")
	if err := st.UpdateShardCount(context.Background(), n); err != nil {
		t.Fatalf("update shard count of %s: %v", m.Name, err)
	}
	// The steps are the store's choice; what they must come to is not.
	byRange := map[record.HashRange]bool{}
	for _, h := range evenRanges(n) {
		byRange[h] = true
	}
	for _, info := range st.Shards() {
		sh := m.Shard(info.Number)
		if sh == nil {
			sh = &Shard{Number: info.Number, Hash: info.Hash}
			m.Shards = append(m.Shards, sh)
		}
		sh.Closed = !info.Open()
		if info.Open() {
			if !byRange[info.Hash] {
				t.Fatalf("%s of %s has range %v after an update to %d shards", info.Number, m.Name, info.Hash, n)
			}
			delete(byRange, info.Hash)
		}
		w.next[m.Name] = max(w.next[m.Name], info.Number+1)
	}
	if len(byRange) > 0 {
		t.Fatalf("%s lacks open shards for %d ranges after an update to %d", m.Name, len(byRange), n)
	}
}

// settle has retention take now what it would take within a second, or it would come
// between two reads that are compared.
func (w *walk) settle(t *rapid.T) {
	if err := w.store.Retain(context.Background()); err != nil {
		t.Fatalf("retain: %v", err)
	}
}

// aged says that retention may have taken a record.
func (w *walk) aged(stream string, r Record) bool {
	st, err := w.store.Stream(stream)
	return err == nil && (w.bounded[stream] || w.clock.now().Sub(r.Arrival) > st.Config().Retention)
}

// TestStoreIsItsModel walks at random through every operation, closes, crashes
// and the passing of time, and compares store and model after each step.
func TestStoreIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		defer func() {
			if err := w.store.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"create stream":      w.createStream,
			"delete stream":      w.deleteStream,
			"transact":           w.transact,
			"transact again":     w.transact,
			"transact once more": w.transact,
			"split":              w.split,
			"merge":              w.merge,
			"update shard count": w.updateShardCount,
			"update config":      w.updateConfig,
			"read":               w.read,
			"frames":             w.frames,
			"relieve":            w.relieve,
			"copy":               w.copyOver,
			"reopen":             w.reopen,
			"crash":              w.crash,
			"time passes":        func(t *rapid.T) { w.clock.pass(time.Duration(rapid.IntRange(1, 1200).Draw(t, "s")) * time.Second) },
			"clock steps": func(t *rapid.T) {
				w.clock.step(-time.Duration(rapid.IntRange(0, 1200).Draw(t, "back")) * time.Second)
			},
			"": func(t *rapid.T) {
				w.settle(t)
				if err := w.model.Check(w.store, w.aged); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}
