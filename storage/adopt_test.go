package storage

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/keyspace"
)

// TestRecordsOfALostStreamAreKeptAndAdopted takes a stream's rows away: its records stay,
// verify and the open say so, and repair makes a stream of them when it is told to.
func TestRecordsOfALostStreamAreKeptAndAdopted(t *testing.T) {
	fs := vfs.NewMem()
	o := small(fs, nil)
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 2})
	fill(t, s, st, 2)
	want, id, shards := readAll(t, st), st.ID(), st.All()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open("data/db", pebbleOptions(o.complete(), fs, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	// The second shard's row only has no stream any more, the first one's is gone too.
	err = errors.Join(db.Delete(keyspace.Meta(keyspace.KindStream, id), pebble.Sync), db.Delete(keyspace.Meta(keyspace.KindShard, id, 0), pebble.Sync), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	if n := s.Recovery().Orphans; len(n) != 2 {
		t.Fatalf("%+v", n)
	}
	other := mustCreate(t, s, StreamConfig{Name: "a"})
	if other.ID() == id {
		t.Fatal("the id of the lost stream is used again")
	}
	put(t, s, other, 10, func(i int) (string, string) { return fmt.Sprint(i), "new" })
	if err := s.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(ctx, "data", o, nil); err != nil || len(v.Problems) < 2 {
		t.Fatalf("%+v %v", v, err)
	}
	o.Adopt = true
	r, err := Repair(ctx, "data", o)
	if err != nil || len(r.Recovery.Adopted) != 2 || len(r.Recovery.Orphans) != 0 || !r.After.OK() {
		t.Fatalf("%+v %v", r, err)
	}
	o.Adopt = false
	s = mustOpen(t, o)
	defer s.Close()
	for i, sh := range shards {
		st, err := s.Stream(fmt.Sprint("recovered-", sh.ID))
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, st); fmt.Sprint(got[0]) != fmt.Sprint(want[st.Shards()[0].Number+sh.Number]) {
			t.Fatalf("shard %d: %d records, want %d", i, len(got[0]), len(want[sh.Number]))
		}
		put(t, s, st, 1, func(int) (string, string) { return "k", "more" })
		if err := s.DeleteStream(ctx, st.Name()); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return s.Metrics().TableBytes < 1<<20 })
}

// TestAShardWithoutARowLeavesNoHole takes shards' rows away and leaves the stream's: what is
// put there has a shard again, the old records can be adopted, and a name that is
// somebody's already stays theirs.
func TestAShardWithoutARowLeavesNoHole(t *testing.T) {
	for _, gone := range [][]uint32{{0}, {1}, {2}, {0, 2}, {0, 1, 2}} {
		t.Run(fmt.Sprint(gone), func(t *testing.T) {
			fs := vfs.NewMem()
			o := small(fs, nil)
			s := mustOpen(t, o)
			st := mustCreate(t, s, StreamConfig{Name: "a", Shards: 3})
			fill(t, s, st, 1)
			want, id, shards := readAll(t, st), st.ID(), st.All()
			taken := fmt.Sprint("recovered-", shards[gone[0]].ID)
			mustCreate(t, s, StreamConfig{Name: taken})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := pebble.Open("data/db", pebbleOptions(o.complete(), fs, nil, nil))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range gone {
				err = errors.Join(err, db.Delete(keyspace.Meta(keyspace.KindShard, id, n), pebble.Sync))
			}
			if err = errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, o)
			if st, err = s.Stream("a"); err != nil {
				t.Fatal(err)
			}
			put(t, s, st, 100, func(i int) (string, string) { return fmt.Sprint(i), "more" })
			if err := st.UpdateShardCount(ctx, 4); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			o.Adopt = true
			r, err := Repair(ctx, "data", o)
			if err != nil || len(r.Recovery.Adopted) != len(gone) || !r.After.OK() {
				t.Fatalf("%+v %v", r, err)
			}
			o.Adopt = false
			s = mustOpen(t, o)
			defer s.Close()
			if st, err = s.Stream(taken); err != nil || len(readAll(t, st)[0]) != 0 {
				t.Errorf("%s is another stream now: %v", taken, err)
			}
			for i, n := range gone {
				if st, err = s.Stream(r.Recovery.Adopted[i].Stream); err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, st); fmt.Sprint(got[0]) != fmt.Sprint(want[shards[n].Number]) {
					t.Errorf("shard %d: %d records, want %d", n, len(got[0]), len(want[shards[n].Number]))
				}
			}
		})
	}
}
