package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
	"github.com/weirhq/weir/storage/storagetest/bed"
)

var ctx = context.Background()

// newEnv is what streams need, over a database in memory.
func newEnv(t *testing.T) *Env {
	t.Helper()
	now := func() time.Time { return time.UnixMilli(1_800_000_000_000) }
	b := bed.New(t, now, func() time.Duration { return 0 })
	shards := &shard.Env{DB: b.DB, Dir: b.Directory, Now: now}
	t.Cleanup(shards.Close)
	var next atomic.Uint32
	return &Env{Committer: b.Committer, Shards: shards, NewShards: func(n int) (uint32, func(*commit.Staging) error) {
		return next.Add(uint32(n)) - uint32(n) + 1, func(*commit.Staging) error { return nil }
	}}
}

func mustCreate(t *testing.T, env *Env, c Config) *Stream {
	t.Helper()
	st, err := Create(ctx, env, 1, c, 1_799_999_999_000, func(*commit.Staging) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// checkRing says what is wrong with the open shards: they must cover every hash key once,
// and every key must be routed into the shard whose range holds it.
func checkRing(st *Stream, rng *rand.Rand) error {
	var open []ShardInfo
	for _, i := range st.Shards() {
		if i.Open() {
			open = append(open, i)
		}
	}
	covered := map[record.HashKey]bool{{}: true} // where a range must begin
	for range open {
		for _, i := range open {
			if covered[i.Hash.First] {
				if next, ok := i.Hash.Last.Next(); ok {
					covered[next] = true
				}
			}
		}
	}
	if len(covered) != len(open) {
		return fmt.Errorf("%d open shards, %d beginnings: the ring has a hole or an overlap", len(open), len(covered))
	}
	keys := []record.HashKey{{}, {0: 0xff, 15: 0xff}}
	for range 50 {
		keys = append(keys, record.HashOf(fmt.Append(nil, rng.Uint64())))
	}
	for _, i := range open {
		keys = append(keys, i.Hash.First, i.Hash.Last)
	}
	for _, k := range keys {
		sh := st.Route(k)
		if k.Cmp(sh.Hash.First) < 0 || k.Cmp(sh.Hash.Last) > 0 {
			return fmt.Errorf("key %s is routed to %s, which has %s to %s", k, sh.Number, sh.Hash.First, sh.Hash.Last)
		}
		if sh.Row().ClosedMS > 0 {
			return fmt.Errorf("key %s is routed to %s, which is closed", k, sh.Number)
		}
	}
	return nil
}

// TestEveryKeyHasOneShardThroughSplitsAndMerges reshards at random and checks the ring,
// the family of each new shard, and that sequence numbers of children come after.
func TestEveryKeyHasOneShardThroughSplitsAndMerges(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	st := mustCreate(t, newEnv(t), Config{Name: "a", Shards: 3})
	for range 60 {
		var open []ShardInfo
		for _, i := range st.Shards() {
			if i.Open() {
				open = append(open, i)
			}
		}
		a := open[rng.IntN(len(open))]
		var err error
		switch mid, ok := a.Hash.Mid(); {
		case rng.IntN(2) == 0 && ok:
			err = st.Split(ctx, a.Number, mid)
		case len(open) > 1:
			next, more := a.Hash.Last.Next()
			if !more {
				continue
			}
			b := st.Route(next).Number
			if rng.IntN(2) == 0 {
				err = st.Merge(ctx, a.Number, b)
			} else {
				err = st.Merge(ctx, b, a.Number) // the first named is the parent
				a, _ = st.Shard(b)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := checkRing(st, rng); err != nil {
			t.Fatal(err)
		}
	}
	all := st.Shards()
	for _, i := range all {
		if !i.HasParent {
			continue
		}
		p := all[i.Parent]
		if p.Open() || p.EndingSequenceNumber().Cmp(p.StartingSequenceNumber()) <= 0 || i.StartingSequenceNumber().Cmp(p.StartingSequenceNumber()) <= 0 || !i.Created.After(p.Created) {
			t.Fatalf("%s: parent %+v", i.Number, p)
		}
		if i.HasAdjacentParent && (i.Hash.First.Cmp(min2(p.Hash.First, all[i.AdjacentParent].Hash.First)) != 0) {
			t.Fatalf("%s merged from %+v and %+v", i.Number, p, all[i.AdjacentParent])
		}
	}
	for n := 1; n <= 9; n++ {
		if err := st.UpdateShardCount(ctx, n); err != nil {
			t.Fatal(err)
		}
		if err := checkRing(st, rng); err != nil || st.Config().Shards != n {
			t.Fatalf("%d shards, want %d: %v", st.Config().Shards, n, err)
		}
	}
}

func min2(a, b record.HashKey) record.HashKey {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

func TestReshardingRefusesWhatIsNotThere(t *testing.T) {
	st := mustCreate(t, newEnv(t), Config{Name: "a", Shards: 4})
	first := st.Shards()[0].Hash
	beyond, _ := first.Last.Next()
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"split at the first key", st.Split(ctx, 0, first.First), ErrInvalid},
		{"split beyond the last key", st.Split(ctx, 0, beyond), ErrInvalid},
		{"split of no shard", st.Split(ctx, 9, first.Last), ErrShardNotFound},
		{"merge of no neighbours", st.Merge(ctx, 0, 2), ErrInvalid},
		{"merge with itself", st.Merge(ctx, 1, 1), ErrInvalid},
		{"merge with no shard", st.Merge(ctx, 0, 9), ErrShardNotFound},
		{"a count of none", st.UpdateShardCount(ctx, 0), ErrInvalid},
		{"a count beyond the limit", st.UpdateShardCount(ctx, MaxShards+1), ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	if n := len(st.Shards()); n != 4 {
		t.Fatalf("%d shards after nothing was done", n)
	}
	if err := st.Split(ctx, 0, first.Last); err != nil { // the upper child has one key
		t.Fatal(err)
	}
	if err := st.Split(ctx, 0, first.Last); !errors.Is(err, ErrShardClosed) {
		t.Errorf("split of a closed shard: %v", err)
	}
	if err := st.Merge(ctx, 0, 1); !errors.Is(err, ErrShardClosed) {
		t.Errorf("merge of a closed shard: %v", err)
	}
	if err := st.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"split": st.Split(ctx, 1, first.Last), "count": st.UpdateShardCount(ctx, 8), "delete": st.Delete(ctx), "write": st.Rerouted()} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of a deleted stream: %v", what, err)
		}
	}
}

// TestReservedRecordsGoToTheParentThatIsSplit reserves before a split and commits
// after it began: the record is the parent's last, and the parent's row knows.
func TestReservedRecordsGoToTheParentThatIsSplit(t *testing.T) {
	env := newEnv(t)
	st := mustCreate(t, env, Config{Name: "a"})
	parent := st.Route(record.HashKey{})
	tx, err := env.Committer.Begin(ctx, 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Reserve(parent.Log, []byte("k"), nil, 0); err != nil {
		t.Fatal(err)
	}
	split := make(chan error, 1)
	mid, _ := parent.Hash.Mid()
	go func() { split <- st.Split(ctx, 0, mid) }()
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-split; err != nil {
		t.Fatal(err)
	}
	tx.Recycle()
	if row := parent.Row(); row.ClosedIndex != 1 || row.ClosedMS == 0 || !parent.Sealed() || parent.Watermark() != 1 {
		t.Fatalf("%+v, watermark %d", row, parent.Watermark())
	}
	for _, n := range []record.ShardNumber{1, 2} {
		if sh, err := st.Find(n); err != nil || sh.Row().Pending || sh.Watermark() != 0 {
			t.Fatalf("%s: %v %+v", n, err, sh.Row())
		}
	}
}

func TestConfigIsCompletedAndChecked(t *testing.T) {
	c, err := Config{Name: "a"}.Complete()
	if want := (Config{Name: "a", Shards: 1, Retention: DefaultRetention, MaxRecordBytes: DefaultMaxRecordBytes}); err != nil || c != want {
		t.Fatalf("%+v, %v", c, err)
	}
	for field, c := range map[string]Config{
		"name":             {Name: "a b"},
		"name ":            {Name: ""},
		"name  ":           {Name: strings.Repeat("a", 129)},
		"name   ":          {Name: "system/only"},
		"shards":           {Name: "a", Shards: -1},
		"shards ":          {Name: "a", Shards: MaxShards + 1},
		"mode":             {Name: "a", Mode: 9},
		"retention":        {Name: "a", Retention: time.Minute},
		"retention ":       {Name: "a", Retention: 366 * 24 * time.Hour},
		"retention bytes":  {Name: "a", RetentionBytes: -1},
		"policy":           {Name: "a", WhenFull: 9},
		"codec":            {Name: "a", Codec: 9},
		"max record bytes": {Name: "a", MaxRecordBytes: 11 << 20},
	} {
		if _, err := c.Complete(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), strings.TrimSpace(field)+" ") {
			t.Errorf("%+v: %v, want %s to be named", c, err, field)
		}
	}
	for _, c := range []Config{{Name: strings.Repeat("a", 128)}, {Name: "system/" + strings.Repeat("a", 249), System: true}} {
		if _, err := c.Complete(); err != nil {
			t.Error(err)
		}
	}
	full := Config{Name: "a", Mode: OnDemand, Retention: time.Hour, RetentionBytes: 5, WhenFull: ThinOut, Codec: commit.CodecAuto, MaxRecordBytes: 7, System: true}
	if got := ConfigOf(full.row(keyspace.StreamRow{})); got != full {
		t.Errorf("through a row: %+v, want %+v", got, full)
	}
}

func TestLanesDivideByRetention(t *testing.T) {
	for _, c := range []struct {
		id   uint32
		c    Config
		want uint8
	}{
		{1, Config{Retention: time.Hour}, 0},
		{1, Config{Retention: 6 * time.Hour}, 0},
		{1, Config{Retention: 24 * time.Hour}, 1},
		{1, Config{Retention: 7 * 24 * time.Hour}, 2},
		{1, Config{Retention: 8 * 24 * time.Hour}, 3},
		{1, Config{Retention: time.Hour, RetentionBytes: 1}, 5},
		{12, Config{RetentionBytes: 1}, 4},
		{11, Config{RetentionBytes: 1}, 15},
	} {
		if got := laneFor(c.id, c.c); got != c.want {
			t.Errorf("stream %d %+v: lane %d, want %d", c.id, c.c, got, c.want)
		}
	}
}
