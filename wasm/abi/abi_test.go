package abi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"
)

func encodeInput(t testing.TB, h InputHeader, recs []InputRecord) []byte {
	t.Helper()
	size := InputHeaderLen
	for _, r := range recs {
		size += RecordSize(len(r.Key), len(r.Data))
	}
	h.Records = len(recs)
	buf := make([]byte, size)
	var w InputWriter
	if err := w.Begin(buf, h); err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		if err := w.Record(r.Index, r.TimestampMS, r.Key, r.Data); err != nil {
			t.Fatal(err)
		}
	}
	n, err := w.Finish()
	if err != nil || n != size {
		t.Fatalf("Finish = %d, %v; RecordSize adds up to %d", n, err, size)
	}
	return buf
}

func TestInputRegionDecodesToWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := InputHeader{
			Flags: rapid.Uint16().Draw(t, "flags"), Shard: rapid.Uint32().Draw(t, "shard"), BaseIndex: rapid.Uint64Max(1<<60).Draw(t, "base"),
			TimeMS: rapid.Int64().Draw(t, "time"), BatchID: rapid.Uint64().Draw(t, "id"), Attempt: rapid.Uint32().Draw(t, "attempt"),
			CPUBudgetMS: rapid.Uint32().Draw(t, "cpu"), Seed: rapid.Uint64().Draw(t, "seed"),
		}
		var recs []InputRecord
		for i := range rapid.IntRange(0, 20).Draw(t, "n") {
			recs = append(recs, InputRecord{
				Key: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "key"), Data: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data"),
				TimestampMS: rapid.Int64().Draw(t, "ts"), Index: h.BaseIndex + uint64(i*3),
			})
		}
		if len(recs) > 0 {
			h.Input = rapid.Uint32().Draw(t, "input")
		}
		size := InputHeaderLen
		for _, r := range recs {
			size += RecordSize(len(r.Key), len(r.Data))
		}
		h.Records = len(recs)
		var w InputWriter
		buf := make([]byte, size)
		if err := w.Begin(buf, h); err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if err := w.Record(r.Index, r.TimestampMS, r.Key, r.Data); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := w.Finish(); n != size || err != nil {
			t.Fatalf("Finish = %d, %v, want %d", n, err, size)
		}
		in, err := DecodeInput(buf)
		if err != nil {
			t.Fatal(err)
		}
		if in.Header != h {
			t.Fatalf("header %+v, want %+v", in.Header, h)
		}
		for i, want := range recs {
			got, err := in.Record(i)
			if err != nil || !bytes.Equal(got.Key, want.Key) || !bytes.Equal(got.Data, want.Data) || got.Index != want.Index || got.TimestampMS != want.TimestampMS {
				t.Fatalf("record %d = %+v, %v, want %+v", i, got, err, want)
			}
		}
	})
}

func TestInputRegionRefusesWhatDoesNotFit(t *testing.T) {
	var w InputWriter
	if err := w.Begin(make([]byte, 100), InputHeader{Records: 2}); !errors.Is(err, ErrRegion) {
		t.Errorf("Begin in too little space = %v", err)
	}
	if err := w.Begin(make([]byte, 128), InputHeader{Records: 1, BaseIndex: 10}); err != nil {
		t.Fatal(err)
	}
	if err := w.Record(9, 0, nil, nil); !errors.Is(err, ErrRegion) {
		t.Errorf("record below the base index = %v", err)
	}
	if err := w.Record(10, 0, []byte("k"), make([]byte, 40)); !errors.Is(err, ErrRegion) {
		t.Errorf("record larger than the region = %v", err)
	}
	if _, err := w.Finish(); err == nil || !strings.Contains(err.Error(), "BUG") {
		t.Errorf("Finish with a record missing = %v", err)
	}
}

// TestLayouts pins every byte of the contract: testdata/layouts holds the
// regions and results that guests built today rely on.
func TestLayouts(t *testing.T) {
	datadriven.RunTest(t, "testdata/layouts", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "input":
			h := InputHeader{Flags: 5, Shard: 3, BaseIndex: 1000, TimeMS: 1700000000000, BatchID: 77, Attempt: 2, CPUBudgetMS: 100, Seed: 0x1122334455667788}
			var recs []InputRecord
			for i, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				k, v, hasKey := strings.Cut(line, " ")
				r := InputRecord{Index: 1000 + uint64(i), TimestampMS: 1700000000000 + int64(i), Data: []byte(v)}
				if hasKey && k != "null" {
					r.Key = []byte(k)
				}
				recs = append(recs, r)
			}
			return hex.Dump(encodeInput(t, h, recs))
		case "result":
			mem, ret, n := scriptMemory(t, d.Input)
			return printResult(mem, ret, n)
		case "imports":
			var b strings.Builder
			for _, f := range Imports() {
				fmt.Fprintf(&b, "%s.%s %s -> %s\n", f.Module, f.Name, types(f.Params), types(f.Results))
			}
			for _, f := range Exports() {
				fmt.Fprintf(&b, "export %s %s -> %s optional=%v\n", f.Name, types(f.Params), types(f.Results), f.Optional)
			}
			return b.String()
		}
		return "unknown command " + d.Cmd
	})
}

func types(v []ValueType) string {
	s := ""
	for _, t := range v {
		s += map[ValueType]string{I32: "i32 ", I64: "i64 ", F64: "f64 "}[t]
	}
	return "(" + strings.TrimSpace(s) + ")"
}

// scriptMemory builds a guest memory of 1,024 bytes from lines "u8|u16|u32|u64
// offset value", "text offset string", "ret value" and "records value".
func scriptMemory(t testing.TB, script string) (mem []byte, ret int64, records int) {
	mem = make([]byte, 1024)
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		var kind, arg string
		var off, val int64
		fmt.Sscan(line, &kind, &off)
		switch kind {
		case "ret":
			ret = off
			continue
		case "records":
			records = int(off)
			continue
		case "text":
			fmt.Sscan(line, &kind, &off, &arg)
			copy(mem[off:], arg)
			continue
		}
		if n, err := fmt.Sscan(line, &kind, &off, &val); n != 3 {
			t.Fatalf("%q: %v", line, err)
		}
		switch kind {
		case "u8":
			mem[off] = byte(val)
		case "u16":
			binary.LittleEndian.PutUint16(mem[off:], uint16(val))
		case "u32":
			binary.LittleEndian.PutUint32(mem[off:], uint32(val))
		case "u64":
			binary.LittleEndian.PutUint64(mem[off:], uint64(val))
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return mem, ret, records
}

func printResult(mem []byte, ret int64, records int) string {
	var b strings.Builder
	r, err := DecodeResult(mem, ret, records)
	if err != nil {
		return err.Error() + "\n"
	}
	fmt.Fprintf(&b, "outputs=%d all unchanged=%v\n", r.Outputs(), r.AllUnchanged())
	if err := r.Check(Limits{Streams: 2, OutputBytes: 100, OutputRecords: 8, OutputsOfRecord: 4}); err != nil {
		return b.String() + err.Error() + "\n"
	}
	for i := range records {
		e := r.Entry(i)
		fmt.Fprintf(&b, "record %d: status=%d outputs=%d aux=%d", i, e.Status, e.Count, e.Aux)
		if e.Status == StatusFailed {
			text, code := r.Reason(e)
			fmt.Fprintf(&b, " code=%d reason=%q", code, text)
		}
		b.WriteByte('\n')
	}
	for k := range r.Outputs() {
		var o Output
		if err := r.Output(k, &o); err != nil {
			return b.String() + err.Error() + "\n"
		}
		fmt.Fprintf(&b, "output %d: source=%d stream=%d key=%q inherit=%v value=%q inherit=%v partition=%q time=%d\n",
			k, int32(o.Source), o.Stream, o.Key, o.InheritKey, o.Value, o.InheritValue, o.PartitionKey, o.TimestampMS)
	}
	return b.String()
}

// TestHostileResultsNeverReadOutsideMemory writes random words over a valid
// result and reads whatever survives the check.
func TestHostileResultsNeverReadOutsideMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := []uint32{0, 1, 2, 3, 47, 48, 511, 1000, 1023, 1024, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 48, 1<<32 - 1}
	for range 20000 {
		mem := validResult()
		for range 1 + rng.IntN(4) {
			w := words[rng.IntN(len(words))]
			binary.LittleEndian.PutUint32(mem[4*rng.IntN(60):], w)
		}
		readAll(mem, int64(words[rng.IntN(len(words))]))
		readAll(mem, 0)
	}
}

// validResult is a memory with a result header at 0 for two records, one of
// them replaced by two outputs.
func validResult() []byte {
	mem := make([]byte, 1024)
	le := binary.LittleEndian
	le.PutUint32(mem[0:], ResultMagic)
	le.PutUint16(mem[4:], Version)
	le.PutUint32(mem[8:], 24)
	le.PutUint32(mem[12:], 48)
	le.PutUint32(mem[16:], 2)
	mem[32], mem[34] = byte(StatusReplaced), 2
	for k := range 2 {
		o := mem[48+48*k:]
		le.PutUint32(o[0:], 1)
		le.PutUint32(o[8:], Inherit)
		le.PutUint32(o[16:], uint32(500+k))
		le.PutUint32(o[20:], 10)
	}
	return mem
}

func readAll(mem []byte, ret int64) {
	r, err := DecodeResult(mem, ret, 2)
	if err != nil || r.Check(Limits{Streams: 4, OutputBytes: 1 << 12, OutputRecords: 64, OutputsOfRecord: 64}) != nil {
		return
	}
	sum := byte(0)
	for i := range 2 {
		e := r.Entry(i)
		if e.Status == StatusFailed {
			r.Reason(e)
		}
		if e.Status != StatusReplaced {
			continue
		}
		for k := range int(e.Count) {
			var o Output
			if err := r.Output(int(e.Aux)+k, &o); err != nil {
				panic("BUG: output passed Check and then failed: " + err.Error())
			}
			for _, v := range [][]byte{o.Key, o.Value, o.PartitionKey} {
				for _, c := range v {
					sum += c
				}
			}
		}
	}
}

func FuzzResult(f *testing.F) {
	f.Add(validResult(), int64(0))
	f.Add(validResult()[:60], int64(0))
	f.Add([]byte{}, int64(-3))
	f.Fuzz(func(_ *testing.T, mem []byte, ret int64) { readAll(mem, ret) })
}

func FuzzInput(f *testing.F) {
	f.Add(encodeInput(f, InputHeader{}, nil))
	f.Add(encodeInput(f, InputHeader{BaseIndex: 5}, []InputRecord{{Key: []byte("k"), Data: []byte("data"), Index: 5}, {Index: 6, Data: []byte{}}}))
	f.Fuzz(func(t *testing.T, region []byte) {
		in, err := DecodeInput(region)
		if err != nil {
			return
		}
		for i := range in.Header.Records {
			if _, err := in.Record(i); err != nil {
				t.Fatalf("record %d passed DecodeInput and then failed: %v", i, err)
			}
		}
	})
}

func BenchmarkInputWriter(b *testing.B) {
	data := bytes.Repeat([]byte("x"), 200)
	dst := make([]byte, 1<<20)
	var w InputWriter
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Begin(dst, InputHeader{Records: 500}); err != nil {
			b.Fatal(err)
		}
		for i := range 500 {
			if err := w.Record(uint64(i), 0, data[:8], data); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}

func BenchmarkCheck(b *testing.B) {
	mem := make([]byte, 1<<16)
	le := binary.LittleEndian
	le.PutUint32(mem, ResultMagic)
	le.PutUint16(mem[4:], Version)
	le.PutUint32(mem[8:], 64)
	b.ReportAllocs()
	for b.Loop() {
		r, err := DecodeResult(mem, 0, 500)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Check(Limits{Streams: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}
