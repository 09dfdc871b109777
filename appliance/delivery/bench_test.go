package delivery_test

import (
	"fmt"
	"testing"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/storage"
)

// BenchmarkDeliver drains 32 MiB of sensor records into a folder.
//
//	go test -run - -bench Deliver -cpuprofile cpu.out ./appliance/delivery
func BenchmarkDeliver(b *testing.B) {
	for name, change := range map[string]func(*delivery.Config){
		"forward": func(c *delivery.Config) { c.Compression.Format = codec.Zstd },
		"gzip":    func(c *delivery.Config) { c.Compression.Format = codec.Gzip },
		"parquet": func(c *delivery.Config) { c.Parquet = &delivery.Parquet{} },
		"partitioned": func(c *delivery.Config) {
			c.Compression.Format, c.Prefix, c.ErrorPrefix = codec.Gzip, "!{partitionKeyFromQuery:d}/", "failed/"
			c.Partition = &delivery.Partition{Query: "{d: .device}"}
		},
	} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			st := r.stream("s", 1)
			b.SetBytes(fill(b, r.store, st, 32<<20))
			n := 0
			for b.Loop() {
				c := delivery.Config{Name: fmt.Sprintf("d%d", n), Source: delivery.Source{Stream: "s"}, Buffer: delivery.Buffer{Interval: delivery.Every(0)}}
				n++
				change(&c)
				r.create(c)
				r.drained(c.Name)
				if err := r.engine.Delete(b.Context(), c.Name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill puts sensor records of about 200 bytes until there are size bytes.
func fill(b testing.TB, store *storage.Store, st *storage.Stream, size int64) (bytes int64) {
	for n := 0; bytes < size; {
		txn, err := store.Begin(b.Context(), 200_000)
		if err != nil {
			b.Fatal(err)
		}
		for range 500 {
			data := fmt.Appendf(nil, `{"device":"pump-%02d","site":"north-%d","seq":%d,"ts":"2026-11-23T10:%02d:%02d.%03dZ","temperature":%d.%02d,"pressure":%d.%03d,"vibration":[%d,%d,%d],"status":"ok","firmware":"2.%d.1"}`+"\n",
				n%20, n%3, n, n/60%60, n%60, n*7%1000, 20+n*31%17, n*17%100, 1+n%4, n*13%1000, n*3%97, n*5%89, n*7%83, n%5)
			n++
			bytes += int64(len(data))
			if err := txn.Append(st, []byte("k"), nil, data); err != nil {
				b.Fatal(err)
			}
		}
		if err := txn.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
		txn.Release()
	}
	return bytes
}
