package storagetest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

var sweepStep = flag.Int("sweep-step", 1, "check every so many file-system writes in the sweeps")

// story is a fixed sequence of steps over a store, each of which is durable
// as a whole or not at all. It knows the model before and after each.
type story struct {
	t     testing.TB
	store *storage.Store
	// models[i] is what the store must hold when step i has been
	// acknowledged and step i+1 has not begun; models[0] is the empty store.
	mu     sync.Mutex
	models []*Model
	step   atomic.Int64 // the step under way, 0 before the first
	next   map[string]record.ShardNumber
}

var storyTime = time.UnixMilli(1_780_000_000_000)

func storyOptions(fs vfs.FS) storage.Options {
	var up atomic.Int64
	return storage.Options{
		FS: fs, MemTableBytes: 1 << 20, ReserveBytes: -1,
		Clock:  func() time.Time { return storyTime.Add(time.Duration(up.Add(1)) * time.Millisecond) },
		Uptime: func() time.Duration { return time.Duration(up.Load()) * time.Millisecond },
	}
}

// steps is the story: streams are made, written in all sizes, split and merged;
// rows come and go; epochs fill, so that memtables are flushed and moved.
func (s *story) steps() []func(*Model) error {
	ctx := context.Background()
	create, put, drop := s.create, s.put, s.drop
	split := func(name string, shard int) func(*Model) error {
		return func(m *Model) error {
			sh := m.Streams[name].Shards[shard]
			at, _ := middle(sh.Hash)
			sh.Closed = true
			for _, h := range []record.HashRange{{First: sh.Hash.First, Last: before(at)}, {First: at, Last: sh.Hash.Last}} {
				m.Streams[name].Shards = append(m.Streams[name].Shards, &Shard{Number: s.next[name], Hash: h})
				s.next[name]++
			}
			st, err := s.store.Stream(name)
			if err != nil {
				return err
			}
			return st.Split(ctx, sh.Number, at)
		}
	}
	merge := func(name string, i, j int) func(*Model) error {
		return func(m *Model) error {
			a, b := m.Streams[name].Shards[i], m.Streams[name].Shards[j]
			a.Closed, b.Closed = true, true
			m.Streams[name].Shards = append(m.Streams[name].Shards, &Shard{Number: s.next[name], Hash: record.HashRange{First: a.Hash.First, Last: b.Hash.Last}})
			s.next[name]++
			st, err := s.store.Stream(name)
			if err != nil {
				return err
			}
			return st.Merge(ctx, a.Number, b.Number)
		}
	}
	return []func(*Model) error{
		create("a", 2, storage.Zstd), put("a", 1, 10), put("a", 30, 300), create("b", 1, storage.None),
		put("b", 8, 50_000), put("b", 8, 60_000), put("a", 5, 1000), put("b", 10, 60_000), split("a", 0), put("a", 20, 300),
		put("b", 1, 900_000), put("a", 3, 20), merge("a", 2, 3), put("a", 10, 100), drop("b"), put("a", 4, 70_000), put("a", 1, 1),
	}
}

func (s *story) create(name string, shards int, codec storage.Codec) func(*Model) error {
	return func(m *Model) error {
		m.CreateStream(name, shards)
		s.next[name] = record.ShardNumber(shards)
		_, err := s.store.CreateStream(context.Background(), storage.StreamConfig{Name: name, Shards: shards, Codec: codec})
		return err
	}
}

func (s *story) put(name string, n, size int) func(*Model) error {
	return func(m *Model) error { return s.append(context.Background(), m, name, n, size) }
}

func (s *story) drop(name string) func(*Model) error {
	return func(m *Model) error {
		delete(m.Streams, name)
		return s.store.DeleteStream(context.Background(), name)
	}
}

// append makes one transaction: n records and, with them, a checkpoint row.
func (s *story) append(ctx context.Context, m *Model, name string, n, size int) error {
	st, err := s.store.Stream(name)
	if err != nil {
		return err
	}
	tx, err := s.store.Begin(ctx, n*size)
	if err != nil {
		return err
	}
	defer tx.Release()
	rng := rand.New(rand.NewPCG(uint64(s.step.Load()), 3))
	type added struct {
		sh *Shard
		at int
	}
	var adds []added
	for i := range n {
		key := fmt.Sprintf("%s-%d-%d", name, s.step.Load(), i)
		data := make([]byte, size)
		for j := range data {
			data[j] = "0123456789abcdefghijklmnop"[rng.IntN(26)]
		}
		if err := tx.Append(st, []byte(key), nil, data); err != nil {
			return err
		}
		sh := m.Streams[name].Route(key, nil)
		sh.Records = append(sh.Records, Record{Key: key, Data: data})
		adds = append(adds, added{sh, len(sh.Records) - 1})
	}
	row := fmt.Appendf(nil, "step %d", s.step.Load())
	tx.Put(storage.TableCheckpoint, []byte(name), row)
	m.Rows[rowKey(storage.TableCheckpoint, name)] = row
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	for i, a := range adds {
		_, a.sh.Records[a.at].Index, a.sh.Records[a.at].Arrival = tx.Result(i)
	}
	return nil
}

// tell runs the story from the beginning and stops at the first error. It
// returns how many steps were acknowledged.
func (s *story) tell() (int, error) { return s.tellAll(s.steps()) }

func (s *story) tellAll(steps []func(*Model) error) (int, error) {
	s.next = map[string]record.ShardNumber{}
	s.models = []*Model{NewModel()}
	for i, step := range steps {
		s.step.Store(int64(i + 1))
		m := s.models[i].Clone()
		err := step(m)
		s.mu.Lock()
		s.models = append(s.models, m)
		s.mu.Unlock()
		if err != nil {
			return i, err
		}
	}
	s.step.Store(int64(len(s.models)))
	return len(s.models) - 1, nil
}

// holdsOneOf checks that a store recovered from fs holds one of the models, goes
// on taking records, and still holds everything after the next open.
func holdsOneOf(fs *vfs.MemFS, models ...*Model) error {
	s, err := storage.Open(context.Background(), walkDir, storyOptions(fs))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var which *Model
	var errs []error
	for _, m := range models {
		if err := m.Check(s, nil); err != nil {
			errs = append(errs, err)
			continue
		}
		which = m.Clone()
		break
	}
	if which == nil {
		_ = s.Close()
		return errors.Join(errs...)
	}
	for name, st := range which.Streams {
		if err := appendOne(s, name, st); err != nil {
			_ = s.Close()
			return fmt.Errorf("append after recovery: %w", err)
		}
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if s, err = storage.Open(context.Background(), walkDir, storyOptions(fs)); err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer s.Close()
	if err := which.Check(s, nil); err != nil {
		return fmt.Errorf("after recovery, an append and a clean close: %w", err)
	}
	return nil
}

func appendOne(s *storage.Store, name string, m *Stream) error {
	ctx := context.Background()
	st, err := s.Stream(name)
	if err != nil {
		return err
	}
	tx, err := s.Begin(ctx, 100)
	if err != nil {
		return err
	}
	defer tx.Release()
	if err := tx.Append(st, []byte("after"), nil, []byte("recovery")); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	_, index, arrival := tx.Result(0)
	sh := m.Route("after", nil)
	if n := len(sh.Records); n > 0 && index <= sh.Records[n-1].Index {
		return fmt.Errorf("%s of %s: index %d is used again after %d", sh.Number, name, index, sh.Records[n-1].Index)
	}
	sh.Records = append(sh.Records, Record{Index: index, Arrival: arrival, Key: "after", Data: []byte("recovery")})
	return nil
}

// TestPowerCutAtEveryWrite cuts the power before each write of the story, with
// none, half or a random part of the unsynced data kept: what was acknowledged is
// there, the step under way is there whole or not at all, and nothing else is.
func TestPowerCutAtEveryWrite(t *testing.T) {
	type cut struct {
		step  int64
		write int64
		op    string
		clone *vfs.MemFS
	}
	for _, percent := range []int{0, 50, -1} {
		t.Run(strings.Replace(fmt.Sprintf("kept=%d%%", percent), "-1%", "random", 1), func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			var mu sync.Mutex
			var cuts []cut
			s := &story{t: t}
			rng := rand.New(rand.NewPCG(11, 12))
			g := &gate{FS: fs, at: func(n int64, op string) error {
				if n%int64(*sweepStep) != 0 {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				kept := percent
				if kept < 0 {
					kept = rng.IntN(101)
				}
				cuts = append(cuts, cut{s.step.Load(), n, op, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng})})
				return nil
			}}
			store, err := storage.Open(context.Background(), walkDir, storyOptions(g))
			if err != nil {
				t.Fatal(err)
			}
			s.store = store
			if _, err := s.tell(); err != nil {
				t.Fatal(err)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			last := int64(len(s.models) - 1)
			for _, c := range cuts {
				before := s.models[min(max(c.step-1, 0), last)]
				if err := holdsOneOf(c.clone, before, s.models[min(c.step, last)]); err != nil {
					t.Fatalf("power cut at write %d (%s) during step %d: %v", c.write, c.op, c.step, err)
				}
			}
			t.Logf("%d power cuts", len(cuts))
		})
	}
}

// TestErrorAtEveryWrite lets each write of the story fail in turn, once, and then
// opens what is on the disk with and without what was never synced: what was
// acknowledged is there, the step that met the error is there whole or not at all.
func TestErrorAtEveryWrite(t *testing.T) {
	for k := int64(1); ; k += int64(*sweepStep) {
		fs := vfs.NewCrashableMem()
		s := &story{t: t}
		var what atomic.Value
		g := &gate{FS: fs, at: func(n int64, op string) error {
			if n == k {
				what.Store(op)
				return errorfs.ErrInjected
			}
			return nil
		}}
		acked, failure := 0, error(nil)
		store, err := storage.Open(context.Background(), walkDir, storyOptions(g))
		if err == nil {
			s.store = store
			acked, failure = s.tell()
			_ = store.Close() // it may say what went wrong
		} else {
			s.models = []*Model{NewModel()}
		}
		if g.n.Load() < k {
			t.Logf("%d errors injected", k-1)
			return
		}
		// The step that met the error may be there or not.
		allowed := s.models[acked:min(acked+2, len(s.models))]
		for _, kept := range []int{100, 0} {
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(uint64(k), 0))})
			if err := holdsOneOf(clone, allowed...); err != nil {
				t.Fatalf("error at write %d (%v), %d steps acknowledged, then %v; %d %% of unsynced data kept: %v", k, what.Load(), acked, failure, kept, err)
			}
		}
	}
}
