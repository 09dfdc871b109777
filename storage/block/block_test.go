package block

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/weirhq/weir/storage/record"
)

func TestGoldenBlock(t *testing.T) {
	b := NewBuilder()
	h := record.HashKey{15: 7}
	b.Add([]byte("a"), nil, []byte("hello"), 0)
	b.Add([]byte("bc"), &h, []byte("world!"), 5)
	got := hex.EncodeToString(b.Encode(Zstd, Stamp{ArrivalMS: 1700000000000, MonotonicMS: 1234}))
	want := "01000300" + "02000000" + "0b000000" + "1e000000" + "4bee33bb" +
		"0068e5cf8b01" + "d20400000000" +
		"11" + "05" + "0001" + "00" + "01" + "0001" + "61" + "6263" + "02" + "00000000000000000000000000000007" + "000a" +
		"68656c6c6f776f726c6421"
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

type testRecord struct {
	key, data []byte
	explicit  *record.HashKey
	delta     int64
}

func randomRecords(rng *rand.Rand, n int) []testRecord {
	out := make([]testRecord, n)
	for i := range out {
		out[i].key = []byte(fmt.Sprintf("device-%d", rng.IntN(40)))
		out[i].data = []byte(fmt.Sprintf(`{"device":%d,"value":%f,"ok":true}`, rng.IntN(40), rng.Float64()))
		if rng.IntN(10) == 0 {
			out[i].data = nil
		}
		if rng.IntN(3) == 0 {
			h := record.HashOf(out[i].data)
			out[i].explicit = &h
		}
		if rng.IntN(5) == 0 {
			out[i].delta = rng.Int64N(2000) - 1000
		}
	}
	return out
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	b, d := NewBuilder(), &Decoded{}
	for round := range 200 {
		recs := randomRecords(rng, 1+rng.IntN(300))
		codec := Codec(round % 3)
		b.Reset()
		for _, r := range recs {
			b.Add(r.key, r.explicit, r.data, r.delta)
		}
		if err := d.Decode(bytes.Clone(b.Encode(codec, Stamp{ArrivalMS: 1e12, MonotonicMS: 5, Uncertain: round%2 == 0}))); err != nil {
			t.Fatal(err)
		}
		if d.Count != len(recs) || d.Header.ArrivalMS != 1e12 || d.MonotonicMS != 5 || d.Uncertain != (round%2 == 0) {
			t.Fatalf("header %+v", d.Header)
		}
		for i, want := range recs {
			var got record.Record
			d.Record(i, &got)
			if !bytes.Equal(got.PartitionKey, want.key) || !bytes.Equal(got.Data, want.data) || d.ArrivalMS(i) != 1e12+want.delta ||
				got.HasExplicitHashKey != (want.explicit != nil) || (want.explicit != nil && got.ExplicitHashKey != *want.explicit) ||
				d.Length(i) != len(want.data) {
				t.Fatalf("round %d record %d: got %+v, want %+v", round, i, got, want)
			}
		}
	}
}

// TestLargeRecordLeavesLittleGarbage has a record that compression does not shrink.
func TestLargeRecordLeavesLittleGarbage(t *testing.T) {
	data := make([]byte, 4<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	b := NewBuilder()
	b.Add([]byte("k"), nil, data, 0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	encoded := b.Encode(Zstd, Stamp{})
	runtime.ReadMemStats(&after)
	// Its output is once its size, and what a pool has lost, as under the race detector, again as much.
	if got := after.TotalAlloc - before.TotalAlloc; got > 3*uint64(len(data)) {
		t.Errorf("%d bytes allocated to encode %d", got, len(data))
	}
	var d Decoded
	if err := d.Decode(encoded); err != nil || d.Count != 1 {
		t.Errorf("%v, %d records", err, d.Count)
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	b, d := NewBuilder(), &Decoded{}
	for _, r := range randomRecords(rand.New(rand.NewPCG(1, 1)), 40) {
		b.Add(r.key, r.explicit, r.data, r.delta)
	}
	good := bytes.Clone(b.Encode(Zstd, Stamp{ArrivalMS: 1}))
	for i := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if err := d.Decode(bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	for i := range good {
		if err := d.Decode(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestDataFramesPutEndToEndAreOneStream(t *testing.T) {
	b := NewBuilder()
	var frames, want []byte
	for i := range 3 {
		b.Reset()
		for j := range 50 {
			data := []byte(fmt.Sprintf("block %d record %d of some length\n", i, j))
			b.Add([]byte("k"), nil, data, 0)
			want = append(want, data...)
		}
		enc := b.Encode(Zstd, Stamp{})
		h, err := ParseHeader(enc)
		if err != nil || h.DataCodec != Zstd {
			t.Fatalf("%+v %v", h, err)
		}
		frames = append(frames, DataFrame(h, enc)...)
	}
	got, err := decoder().DecodeAll(frames, nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v: %d bytes, want %d", err, len(got), len(want))
	}
}

func FuzzDecode(f *testing.F) {
	b := NewBuilder()
	for _, codec := range []Codec{Raw, S2, Zstd} {
		for _, n := range []int{1, 20} {
			b.Reset()
			for _, r := range randomRecords(rand.New(rand.NewPCG(9, 9)), n) {
				b.Add(r.key, r.explicit, r.data, r.delta)
			}
			f.Add(bytes.Clone(b.Encode(codec, Stamp{ArrivalMS: 1})))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var d Decoded
		// The checksum would stop nearly every mutation at the door.
		if len(in) >= HeaderBytes {
			in = bytes.Clone(in)
			c := checksum(in)
			in[16], in[17], in[18], in[19] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
		}
		if d.Decode(in) != nil {
			return
		}
		b.Reset()
		var r record.Record
		for i := range d.Count {
			d.Record(i, &r)
			var e *record.HashKey
			if r.HasExplicitHashKey {
				e = &r.ExplicitHashKey
			}
			if len(r.PartitionKey) > 1<<16-1 {
				return
			}
			b.Add(r.PartitionKey, e, r.Data, d.ArrivalMS(i)-d.Header.ArrivalMS)
		}
		var again Decoded
		if err := again.Decode(bytes.Clone(b.Encode(Raw, Stamp{}))); err != nil {
			t.Fatalf("a decoded block does not encode again: %v", err)
		}
	})
}

func BenchmarkEncode(bm *testing.B) {
	for _, n := range []int{1, 16, 300} {
		bm.Run(fmt.Sprintf("records=%d", n), func(bm *testing.B) {
			recs := randomRecords(rand.New(rand.NewPCG(9, 9)), n)
			b := NewBuilder()
			bm.ReportAllocs()
			for bm.Loop() {
				b.Reset()
				for i := range recs {
					b.Add(recs[i].key, nil, recs[i].data, 0)
				}
				b.Encode(Zstd, Stamp{})
			}
			bm.SetBytes(int64(b.DataBytes()))
		})
	}
}

// Keys that begin alike are stored without their front and put together in words.
func TestKeysComeBackWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	b, d := NewBuilder(), Decoded{}
	for range 2000 {
		front, most := rng.IntN(12), rng.IntN(14)
		keys := make([][]byte, 1+rng.IntN(20))
		b.Reset()
		for i := range keys {
			keys[i] = append(bytes.Repeat([]byte{'f'}, front), make([]byte, rng.IntN(most+1))...)
			for j := front; j < len(keys[i]); j++ {
				keys[i][j] = byte('a' + rng.IntN(26))
			}
			b.Add(keys[i], nil, []byte("x"), 0)
		}
		if err := d.Decode(bytes.Clone(b.Encode(Zstd, Stamp{ArrivalMS: 1}))); err != nil {
			t.Fatal(err)
		}
		var r record.Record
		for i, want := range keys {
			if d.Record(i, &r); !bytes.Equal(r.PartitionKey, want) {
				t.Fatalf("key %d of %q is %q", i, keys, r.PartitionKey)
			}
		}
	}
}

// TestLargeDataIsNotCopied adds a record whose block is its own, and another after it.
func TestLargeDataIsNotCopied(t *testing.T) {
	large := make([]byte, 4*MaxRawBytes, 4*MaxRawBytes+1000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(large)
	behind := bytes.Clone(large[:cap(large)])
	b := NewBuilder()
	if n := testing.AllocsPerRun(20, func() {
		b.Reset()
		b.Add([]byte("k"), nil, large, 0)
	}); n > 0 {
		t.Errorf("%v allocations to add a large record", n)
	}
	if b.Fits(0) || b.DataBytes() != len(large) {
		t.Errorf("another record fits behind %d bytes", b.DataBytes())
	}
	first := bytes.Clone(b.Encode(Zstd, Stamp{}))
	b.Add([]byte("k"), nil, []byte("overflow"), 0)
	b.Reset()
	b.Add([]byte("k"), nil, []byte("small"), 0)
	b.Add([]byte("k"), nil, large, 0)
	_ = b.Encode(Zstd, Stamp{})
	if !bytes.Equal(large[:cap(large)], behind) {
		t.Error("the caller's memory was written to")
	}
	b.Reset()
	b.Add([]byte("k"), nil, large, 0)
	if !bytes.Equal(b.Encode(Zstd, Stamp{}), first) {
		t.Error("the builder does not come back to where it was")
	}
}

func TestDenseBlocks(t *testing.T) {
	noise := make([]byte, 10*MaxRawBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	b := NewBuilder()
	for _, tc := range []struct {
		what  string
		data  []byte
		codec Codec
		want  bool
	}{
		{"what zstd shrinks", bytes.Repeat([]byte("again "), 1000), Zstd, true},
		{"what nothing shrinks", noise, Zstd, true},
		{"the same in S2", noise, S2, true},
		{"what nobody has tried to shrink", noise, Raw, false},
		{"a little, which may shrink with others", noise[:1000], Zstd, false},
		{"next to nothing", noise[:10], Zstd, false},
	} {
		b.Reset()
		b.Add([]byte("k"), nil, tc.data, 0)
		if b.Encode(tc.codec, Stamp{}); b.Dense() != tc.want {
			t.Errorf("%s: dense %v", tc.what, b.Dense())
		}
	}
}
