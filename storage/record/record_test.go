package record

import (
	"errors"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestSequenceNumberGolden(t *testing.T) {
	s := NewSequenceNumber(1400000000, 3, 77, 1400000123)
	// 2 | 005353d4... written out digit by digit from the layout.
	hex := "2" + "053724e00" + "3" + "000000000000004d" + "00" + "053724e7b" + "00000003" + "2"
	want, _ := new(big.Int).SetString(hex, 16)
	if s.String() != want.String() {
		t.Fatalf("got %s, want %s", s, want)
	}
	if len(s.String()) != 56 || !strings.HasPrefix(s.String(), "49") {
		t.Fatalf("outside form %s: want 56 digits from 49", s)
	}
}

func TestSequenceNumberRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := NewSequenceNumber(rng.Int64N(maxSequenceSeconds), ShardNumber(rng.Uint32()>>1), rng.Uint64()>>1, rng.Int64N(maxSequenceSeconds))
		got, err := ParseSequenceNumber(s.String())
		if err != nil || got != s {
			t.Fatalf("%+v: got %+v, %v", s, got, err)
		}
		o := NewSequenceNumber(s.Created(), s.Shard(), s.Index()/2, rng.Int64N(maxSequenceSeconds))
		a, _ := new(big.Int).SetString(s.String(), 10)
		b, _ := new(big.Int).SetString(o.String(), 10)
		if s.Cmp(o) != a.Cmp(b) {
			t.Fatalf("Cmp(%s, %s) = %d, as integers %d", s, o, s.Cmp(o), a.Cmp(b))
		}
	}
}

func TestSequenceNumberIndexDominatesTime(t *testing.T) {
	a := NewSequenceNumber(1700000000, 1, 5, 1900000000)
	b := NewSequenceNumber(1700000000, 1, 6, 0)
	if a.Cmp(b) >= 0 {
		t.Fatal("a later index with an earlier clock must sort after")
	}
}

func TestParseSequenceNumberRejects(t *testing.T) {
	for _, s := range []string{
		"", "0", "-1", "abc", "49", strings.Repeat("9", 56), strings.Repeat("9", 500),
		"49590338271490256608559692538361571095921575989136588898x",
	} {
		if _, err := ParseSequenceNumber(s); !errors.Is(err, ErrSequenceNumber) {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func TestHashKey(t *testing.T) {
	if got := HashOf([]byte("a")).String(); got != "16955237001963240173058271559858726497" {
		t.Fatalf("MD5 of a: %s", got)
	}
	top := "340282366920938463463374607431768211455"
	h, err := ParseHashKey(top)
	if err != nil || h != MaxHashKey || h.String() != top {
		t.Fatalf("%v %v", h, err)
	}
	for _, s := range []string{"340282366920938463463374607431768211456", "", "-1", "01", "1e3", strings.Repeat("9", 39)} {
		if _, err := ParseHashKey(s); !errors.Is(err, ErrHashKey) {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func TestSplitRingCoversTheRingOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 7, 1000} {
		ranges := SplitRing(n)
		if ranges[0].First != (HashKey{}) || ranges[n-1].Last != MaxHashKey {
			t.Fatalf("%d: ends %v", n, ranges)
		}
		for i := 1; i < n; i++ {
			if next, _ := ranges[i-1].Last.Next(); next != ranges[i].First {
				t.Fatalf("%d: range %d does not follow %d", n, i, i-1)
			}
		}
	}
	if mid, ok := SplitRing(1)[0].Mid(); !ok || mid.String() != "170141183460469231731687303715884105728" {
		t.Fatalf("mid of the ring: %s", mid)
	}
}

func TestShardNumber(t *testing.T) {
	for in, want := range map[string]ShardNumber{"shardId-000000000003": 3, "x-7": 7, "12": 12, "shardId-002147483647": MaxShardNumber} {
		if got, err := ParseShardNumber(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "shardId-", "shardId-2147483648", "a"} {
		if _, err := ParseShardNumber(in); !errors.Is(err, ErrShardNumber) {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

func FuzzParseSequenceNumber(f *testing.F) {
	f.Add(NewSequenceNumber(1400000000, 3, 77, 1400000123).String())
	f.Add("0")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSequenceNumber(s)
		if err == nil && strings.TrimLeft(s, "0") != n.String() {
			t.Fatalf("%q parsed as %s", s, n)
		}
	})
}

func FuzzParseHashKey(f *testing.F) {
	f.Add("0")
	f.Add("340282366920938463463374607431768211455")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := ParseHashKey(s); err == nil && h.String() != s {
			t.Fatalf("%q parsed as %s", s, h)
		}
	})
}

func BenchmarkSequenceNumberText(b *testing.B) {
	s := NewSequenceNumber(1400000000, 3, 77, 1400000123)
	var buf [64]byte
	b.ReportAllocs()
	for b.Loop() {
		_ = s.AppendTo(buf[:0])
	}
}
