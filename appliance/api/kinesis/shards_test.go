package kinesis

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// reshards is a history of random splits and merges of a stream of n shards, one
// a minute, by a clock that is set back now and then.
func reshards(rng *rand.Rand, n, steps int, start time.Time) []storage.ShardInfo {
	var infos []storage.ShardInfo
	for i, r := range record.SplitRing(n) {
		infos = append(infos, storage.ShardInfo{Number: record.ShardNumber(i), Hash: r, Created: start})
	}
	at := start
	for range steps {
		at = at.Add(time.Minute)
		if rng.IntN(8) == 0 {
			at = at.Add(-10 * time.Minute)
		}
		i := rng.IntN(len(infos))
		if !infos[i].Closed.IsZero() {
			continue
		}
		if rng.IntN(2) == 0 {
			infos = split(infos, i, at)
		} else {
			infos = merge(infos, i, at)
		}
	}
	return infos
}

func split(infos []storage.ShardInfo, i int, at time.Time) []storage.ShardInfo {
	mid, ok := middle(infos[i].Hash)
	if !ok {
		return infos
	}
	infos[i].Closed = at
	left, right := infos[i].Hash, infos[i].Hash
	left.Last, _ = mid.Prev()
	right.First = mid
	for _, h := range []record.HashRange{left, right} {
		infos = append(infos, storage.ShardInfo{Number: record.ShardNumber(len(infos)), Hash: h, Created: at, Parent: infos[i].Number, HasParent: true})
	}
	return infos
}

func merge(infos []storage.ShardInfo, i int, at time.Time) []storage.ShardInfo {
	for j := range infos {
		if infos[j].Closed.IsZero() && adjacent(infos[i].Hash, infos[j].Hash) {
			infos[i].Closed, infos[j].Closed = at, at
			return append(infos, storage.ShardInfo{
				Number: record.ShardNumber(len(infos)), Hash: record.HashRange{First: infos[i].Hash.First, Last: infos[j].Hash.Last}, Created: at,
				Parent: infos[i].Number, HasParent: true, AdjacentParent: infos[j].Number, HasAdjacentParent: true,
			})
		}
	}
	return infos
}

func TestFiltersTileTheHashRangeAtEveryInstant(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		infos := reshards(rng, 1+rng.IntN(5), 40, start)
		lives := lifetimes(infos)
		for i := range 60 {
			at := start.Add(time.Duration(i-10) * time.Minute)
			if !tiles(openAt(infos, lives, at)) {
				t.Fatalf("seed %d, minute %d: the open shards do not tile", seed, i-10)
			}
		}
		now := latest(infos, start.Add(time.Hour))
		for _, info := range openAt(infos, lives, now) {
			if !info.Open() {
				t.Fatalf("seed %d: %s is closed and among the latest", seed, info.Number)
			}
		}
	}
}

func TestTrimHorizonTilesWhenOnlyOneParentIsLeft(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		infos := reshards(rng, 3, 40, start)
		// Retention takes closed shards away in any order.
		kept := infos[:0:0]
		for _, info := range infos {
			if info.Open() || rng.IntN(2) == 0 {
				kept = append(kept, info)
			}
		}
		lives := lifetimes(kept)
		horizon := trimHorizon(kept, lives, start)
		if got := openAt(kept, lives, horizon); !tiles(got) {
			t.Fatalf("seed %d: %d of %d shards at the trim horizon do not tile", seed, len(got), len(kept))
		}
	}
}

func TestMiddleFollowsTheRuleOfSplitShard(t *testing.T) {
	var three, four record.HashRange
	three.Last[15], four.Last[15] = 2, 3
	if at, ok := middle(three); ok {
		t.Errorf("a range of three is split at %s", at)
	}
	if at, ok := middle(four); !ok || at.String() != "2" {
		t.Errorf("a range of four is split at %s, %v; want 2", at, ok)
	}
}
