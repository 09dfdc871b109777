package stream

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
)

// Shards as narrow as splits can make them differ only in the lower halves of
// their hash keys.
func TestRouteFindsTheShardThatHoldsTheKey(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	key := func(hi, lo byte) (h record.HashKey) {
		h[7], h[15] = hi, lo
		return h
	}
	for range 200 {
		firsts := []record.HashKey{{}}
		for range rng.IntN(40) {
			firsts = append(firsts, key(byte(rng.IntN(4)), byte(rng.IntN(60))))
		}
		slices.SortFunc(firsts, record.HashKey.Cmp)
		firsts = slices.Compact(firsts)
		var open []*shard.Shard
		for i, f := range firsts {
			last := record.MaxHashKey
			if i+1 < len(firsts) {
				last = firsts[i+1] // exclusive here, which the check below knows
			}
			open = append(open, shard.New(nil, nil, record.HashRange{First: f, Last: last}, keyspace.ShardRow{}, nil))
		}
		st := &Stream{}
		st.setRoutes(open)
		for range 200 {
			h := key(byte(rng.IntN(5)), byte(rng.IntN(64)))
			if got := st.Route(h); got.Hash.First.Cmp(h) > 0 || got.Hash.Last.Cmp(h) <= 0 {
				t.Fatalf("key %s goes to %s … %s", h, got.Hash.First, got.Hash.Last)
			}
		}
		if got := st.Route(record.MaxHashKey); got.Hash.First != firsts[len(firsts)-1] {
			t.Fatalf("the highest key goes to %s", got.Hash.First)
		}
	}
}
