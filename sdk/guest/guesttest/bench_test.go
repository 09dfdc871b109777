package guesttest

import (
	"context"
	"fmt"
	"os"
	"testing"
)

func benchRecords(n int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		d := fmt.Sprintf(`{"device":"pump-%02d","site":"north","ts":17000000%05d,"seq":%d,"rssi":-71,"humidity":48.25,"pressure":1013.25,"temp":%d.5,"unit":"C","battery":3.71,"fw":"2.14.0"`, i%32, i, i, 15+i%20)
		for len(d) < 192 {
			d += " "
		}
		recs[i] = Record{Key: "k", Data: d + `,"ok":1}`, TimestampMS: 1700000000000}
	}
	return recs
}

func BenchmarkFile(b *testing.B) {
	ctx := context.Background()
	wasm, err := os.ReadFile(os.Getenv("GUEST"))
	if err != nil {
		b.Fatal(err)
	}
	h, _ := NewHost(ctx, os.Getenv("INTERP") != "")
	defer h.Close(ctx)
	g, err := h.Instantiate(ctx, wasm, os.Getenv("CONFIG"))
	if err != nil {
		b.Fatal(err)
	}
	recs := benchRecords(500)
	n, err := g.Load(ctx, 1, recs)
	if err != nil {
		b.Fatal(err)
	}
	out, err := g.Process(ctx, 1, recs, 4)
	if err != nil {
		b.Fatal(err)
	}
	b.Log(len(recs[0].Data), out[0], out[12])
	b.SetBytes(0)
	for b.Loop() {
		if _, err := g.Call(ctx, n); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}
