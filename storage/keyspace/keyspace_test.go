package keyspace

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestGoldenKeys(t *testing.T) {
	for want, got := range map[string][]byte{
		"12000000050000000700000000000003e8": DataKey{Lane: 2, Epoch: 5, Shard: 7, Last: 1000}.Append(nil),
		"0101":                               Meta(KindStore),
		"010200000009":                       Meta(KindStream, 9),
		"01030000000900000001":               Meta(KindShard, 9, 1),
		"0105000000090000000000000400":       MetaIndex(KindJump, 9, 1024),
		"01060000000103":                     MetaEpoch(1, 3),
		"01426b6579":                         AppendTableKey(nil, TableCheckpoint, []byte("key")),
		"11":                                 LaneStart(1),
		"110000000200000003":                 ShardStart(1, 2, 3),
		"0143":                               AppendPrefixEnd(nil, []byte{0x01, 0x42, 0xff, 0xff}),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("got %x, want %s", got, want)
		}
	}
}

func TestGoldenRows(t *testing.T) {
	for want, got := range map[string][]byte{
		"00040000000000000100000000000000":                                                 JumpRow{Last: 1024, TimeMS: 1}.Encode(),
		"050000000000000004000000000000000300000000000000020000000000000001":               LossRow{5, 4, 3, 2, LossDropped}.Encode(),
		"0102e807e907010703020a0bea0700":                                                   EpochRow{2, 1000, 1001, []EpochRun{{7, 3, 2, 10, 11, 1002, 0}}}.Encode(),
		"01000000000000000200000000000000030000000000000004000000000000000500000000000000": LedgerRow{1, 2, 3, 4, 5}.Encode(),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("got %x, want %s", got, want)
		}
	}
}

// TestDataKeysSortByLaneEpochShardAndIndex relies on bytes.Compare being the
// database's order.
func TestDataKeysSortByLaneEpochShardAndIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	key := func() DataKey {
		return DataKey{uint8(rng.IntN(3)), rng.Uint32N(3), rng.Uint32N(3), rng.Uint64N(1 << 40)}
	}
	less := func(a, b DataKey) bool {
		switch {
		case a.Lane != b.Lane:
			return a.Lane < b.Lane
		case a.Epoch != b.Epoch:
			return a.Epoch < b.Epoch
		case a.Shard != b.Shard:
			return a.Shard < b.Shard
		}
		return a.Last < b.Last
	}
	for range 1000 {
		a, b := key(), key()
		if less(a, b) != (bytes.Compare(a.Append(nil), b.Append(nil)) < 0) {
			t.Fatalf("%+v and %+v", a, b)
		}
	}
}

func TestTableNamesAreUniqueAndParse(t *testing.T) {
	seen := map[string]bool{}
	for table := Table(1); table <= MaxTable; table++ {
		name := table.String()
		if got, ok := ParseTable(name); !ok || got != table || seen[name] || name == "" {
			t.Errorf("table %d is named %q", table, name)
		}
		seen[name] = true
	}
}

func FuzzParseDataKey(f *testing.F) {
	f.Add(DataKey{Lane: 2, Epoch: 5, Shard: 7, Last: 1000}.Append(nil))
	f.Add([]byte{0x10})
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := ParseDataKey(in)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(k.Append(nil), in) {
			t.Fatalf("%x parsed as %+v", in, k)
		}
	})
}

func FuzzParseMeta(f *testing.F) {
	f.Add(Meta(KindShard, 9, 1))
	f.Add(MetaIndex(KindLoss, 9, 1024))
	f.Add(MetaEpoch(1, 3))
	f.Add(AppendTableKey(nil, TableCheckpoint, []byte("key")))
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := ParseMeta(in)
		if err != nil {
			return
		}
		var again []byte
		switch {
		case k.Table != 0:
			again = AppendTableKey(nil, k.Table, k.Rest)
		case k.Kind == KindStore:
			again = Meta(k.Kind)
		case k.Kind == KindShard:
			again = Meta(k.Kind, k.ID, k.Shard)
		case k.Kind == KindJump || k.Kind == KindLoss:
			again = MetaIndex(k.Kind, k.ID, k.Index)
		case k.Kind == KindEpoch:
			again = MetaEpoch(k.ID, k.Lane)
		default:
			again = Meta(k.Kind, k.ID)
		}
		if !bytes.Equal(again, in) {
			t.Fatalf("%x parsed as %+v", in, k)
		}
	})
}

func FuzzDecodeEpoch(f *testing.F) {
	f.Add(EpochRow{2, 1000, 1001, []EpochRun{{7, 3, 2, 10, 11, 1002, 0}}}.Encode())
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := DecodeEpoch(in)
		if err != nil {
			return
		}
		again, err := DecodeEpoch(r.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if r.StartMS >= 0 && r.EndMS >= 0 && len(r.Runs) == 0 && !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v and %+v", r, again)
		}
	})
}

// TestSpansOfMetadataFollowOneAnother walks over all metadata: each span ends behind where it
// begins, all of its keys agree on the end, and the rows that no flush adds to are apart from
// those that every flush does.
func TestSpansOfMetadataFollowOneAnother(t *testing.T) {
	keys := [][]byte{
		{},
		{0x00},
		{MetaSpace},
		Meta(KindStore), Meta(KindStream, 1), MetaIndex(KindJump, 1, 1<<40), Meta(KindEpoch), MetaEpoch(0, 0),
		MetaEpoch(7, 15), Meta(KindEpoch, 8), MetaEpoch(8, 0), MetaEpoch(97, 3), Meta(KindEpoch, 104), MetaEpoch(104, 0), MetaEpoch(111, 1), MetaEpoch(112, 0),
		MetaEpoch(1<<32-1, 15), Meta(KindSession, 1), Meta(KindLedger, 1), AppendTableKey(nil, TableSetting, []byte("k")),
		AppendTableKey(nil, TableModuleBytes, []byte("k")), AppendTableKey(nil, TableDelivery, []byte("k")), AppendTableKey(nil, MaxTable, []byte("k")),
	}
	spans := func(newest, each uint32) (out []int) { // the span of each key
		n, end := -1, []byte(nil)
		for _, k := range keys {
			if end == nil || string(k) >= string(end) {
				n, end = n+1, MetaSpanEnd(k, newest, each)
			} else if again := MetaSpanEnd(k, newest, each); string(again) != string(end) {
				t.Fatalf("newest %d, %d a table: %x ends at %x, its span at %x", newest, each, k, again, end)
			}
			if string(end) <= string(k) || string(end) > string(LaneStart(0)) {
				t.Fatalf("newest %d, %d a table: the span of %x ends at %x", newest, each, k, end)
			}
			out = append(out, n)
		}
		return out
	}
	for _, c := range []struct {
		newest, each uint32
		want         []int
	}{
		{106, 8, []int{0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6, 6}},
		{0, 8, []int{0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 6, 7, 8, 8}},
		{106, 0, []int{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3}},
	} {
		if got := spans(c.newest, c.each); !slices.Equal(got, c.want) {
			t.Errorf("newest %d, %d a table: %v, want %v", c.newest, c.each, got, c.want)
		}
	}
}
