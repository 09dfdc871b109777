package storage

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weirhq/weir/storage/record"
)

// sensorRecords are JSON lines of about 210 bytes from 400 devices.
func sensorRecords(n int) (keys, data [][]byte) {
	rng := rand.New(rand.NewPCG(7, 7))
	walk := make([][7]float64, 400)
	for i := range n {
		d := rng.IntN(400)
		for j := range walk[d] {
			walk[d][j] += rng.Float64() - 0.5
		}
		w := walk[d]
		keys = append(keys, fmt.Appendf(nil, "dev-%04d", d))
		data = append(data, fmt.Appendf(nil,
			`{"device":"dev-%04d","ts":%d,"n":%d,"temp":%.2f,"hum":%.2f,"p":%.2f,"vx":%.3f,"vy":%.3f,"vz":%.3f,"bat":%.2f,"status":"ok","firmware":"2.14.%d"}`,
			d, 1_800_000_000_000+int64(i)*7, i, w[0], w[1], w[2], w[3], w[4], w[5], w[6], d%3))
	}
	return keys, data
}

// BenchmarkAppend appends from so many producers in batches of so many
// records, on the machine's disk, one sync per group:
//
//	go test ./storage -run xxx -bench Append -benchtime 3s
func BenchmarkAppend(b *testing.B) {
	keys, data := sensorRecords(100_000)
	for _, c := range []struct {
		producers, batch, shards int
		codec                    Codec
	}{{1, 1, 4, Zstd}, {16, 1, 4, Zstd}, {256, 1, 4, Zstd}, {1, 500, 4, Zstd}, {16, 500, 4, Zstd}, {16, 500, 32, Zstd}, {16, 500, 1024, Zstd}, {16, 500, 4, S2}} {
		b.Run(fmt.Sprintf("producers=%d/records=%d/shards=%d/codec=%v", c.producers, c.batch, c.shards, c.codec), func(b *testing.B) {
			s, err := Open(ctx, b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			st := mustCreate(b, s, StreamConfig{Name: "a", Shards: c.shards, Codec: c.codec})
			var left atomic.Int64
			left.Store(int64(b.N))
			var bytes atomic.Int64
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			b.ResetTimer()
			var wg sync.WaitGroup
			for p := range c.producers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					rng := rand.New(rand.NewPCG(uint64(p), 1))
					for left.Add(-int64(c.batch)) >= -int64(c.batch)+1 {
						at := rng.IntN(len(keys) - c.batch)
						size := 0
						tx, err := s.Begin(ctx, 220*c.batch)
						if err != nil {
							b.Error(err)
							return
						}
						for i := at; i < at+c.batch; i++ {
							buf, err := tx.Reserve(st, keys[i], nil, len(data[i]))
							if err != nil {
								b.Error(err)
								return
							}
							size += copy(buf, data[i])
						}
						if err := tx.Commit(ctx); err != nil {
							b.Error(err)
						}
						tx.Release()
						bytes.Add(int64(size))
					}
				}()
			}
			wg.Wait()
			b.StopTimer()
			runtime.ReadMemStats(&after)
			m := s.Metrics()
			n := float64(bytes.Load())
			b.SetBytes(bytes.Load() / int64(b.N))
			b.ReportMetric(float64(m.BytesWAL+m.BytesFlushed+m.BytesCompacted)/n, "flash/byte")
			b.ReportMetric(float64(m.BytesCompacted)/float64(max(m.BytesFlushed, 1)), "compacted/flushed")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "allocs/record")
			b.ReportMetric(float64(m.Records)/float64(m.Groups), "records/sync")
		})
	}
}

// BenchmarkRead replays one shard.
func BenchmarkRead(b *testing.B) {
	keys, data := sensorRecords(100_000)
	s, err := Open(ctx, b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	st := mustCreate(b, s, StreamConfig{Name: "a"})
	for at := 0; at < len(keys); at += 500 {
		put(b, s, st, 500, func(i int) (string, string) { return string(keys[at+i]), string(data[at+i]) })
	}
	for _, limit := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			r, err := st.NewReader(0, Position{})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			b.ReportAllocs()
			size := 0
			for range b.N {
				n, err := r.Read(limit, 10<<20, func(r *record.Record) bool { size += len(r.Data); return true })
				if err != nil {
					b.Fatal(err)
				}
				if n == 0 {
					if r, err = st.NewReader(0, Position{}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.SetBytes(int64(size / b.N))
		})
	}
}

// BenchmarkModuleState appends JSON records beside so much state of modules, of which each
// transaction of 500 records changes one row of 1 KB, anywhere in it:
//
//	go test ./storage -run xxx -bench ModuleState -benchtime 500x
func BenchmarkModuleState(b *testing.B) {
	keys, data := sensorRecords(100_000)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, mebibytes := range []int{0, 1, 5, 50} {
		b.Run(fmt.Sprintf("state=%dMiB", mebibytes), func(b *testing.B) {
			s, err := Open(ctx, b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			st := mustCreate(b, s, StreamConfig{Name: "a", Shards: 4})
			commit := func(records, rows int, row func(i int) int) {
				tx, err := s.Begin(ctx, 200<<10)
				if err != nil {
					b.Fatal(err)
				}
				defer tx.Release()
				for range records {
					i := rng.IntN(len(keys))
					if err := tx.Append(st, keys[i], nil, data[i]); err != nil {
						b.Fatal(err)
					}
				}
				for i := range rows {
					tx.Put(TableModuleState, fmt.Appendf(nil, "module/%08d", row(i)), []byte(noise(rng, 1000)))
				}
				if err := tx.Commit(ctx); err != nil {
					b.Fatal(err)
				}
			}
			for at := 0; at < mebibytes<<10; at += 64 {
				commit(0, 64, func(i int) int { return at + i })
			}
			settle(b, s)
			before, written := compacted(b, s), s.Ledger().SinceOpen
			b.ResetTimer()
			for range b.N {
				commit(500, min(mebibytes, 1), func(int) int { return rng.IntN(mebibytes << 10) })
			}
			b.StopTimer()
			after, now := compacted(b, s), s.Ledger().SinceOpen
			in := float64(now.BytesIngested - written.BytesIngested)
			b.ReportMetric(float64(after-before)/in, "compacted/byte")
			b.ReportMetric(float64(now.BytesWritten-written.BytesWritten)/in, "flash/byte")
		})
	}
}
