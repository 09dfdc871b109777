package storage

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage/block"
)

// measureSplit compares blocks of two frames, meta and data apart, with one
// compressed body that holds the same behind the same header and checksum.
func measureSplit(_ context.Context, o report.Options, r *report.Report, samples []sample) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	defer enc.Close()
	rounds := pick(o, 9, 5)
	header := make([]byte, block.HeaderBytes)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	b := block.NewBuilder()
	var gathered oneBody
	var out []byte
	for _, n := range []int{1, 16, 64, 300} {
		blocks := pick(o, 120_000, 30_000) / max(n, 16)
		var size, cpu []float64
		for range rounds {
			var one, two int
			var oneT, twoT time.Duration
			for i := range blocks {
				run := samples[(i*n)%(len(samples)-n):][:n]
				start := time.Now()
				b.Reset()
				for k := range run {
					b.Add(run[k].key, nil, run[k].data, 0)
				}
				two += len(b.Encode(block.Zstd, block.Stamp{ArrivalMS: 1_780_000_000_000}))
				mid := time.Now()
				gathered.reset()
				for k := range run {
					gathered.add(run[k].key, run[k].data)
				}
				body := gathered.whole()
				out = append(out[:0], header...)
				if len(body) >= 400 {
					out = enc.EncodeAll(body, out)
				} else {
					out = append(out, body...)
				}
				binary.LittleEndian.PutUint32(out[16:], crc32.Checksum(out, castagnoli))
				one += len(out)
				twoT += mid.Sub(start)
				oneT += time.Since(mid)
			}
			size, cpu = append(size, float64(two)/float64(one)), append(cpu, float64(twoT)/float64(oneT))
		}
		r.Add("block of two frames against one body", fmt.Sprintf("%d records", n), "size ratio", report.Median(size), "time ratio", report.Median(cpu))
		if n == 300 {
			r.AtMost("size of two frames of one body's, 300 records", 1.03, report.Median(size))
			r.AtMost("time of two frames of one body's, 300 records", 1.03, report.Median(cpu))
		}
	}
	return nil
}

// oneBody gathers records for one frame: key and data of each, then all lengths,
// so that nothing is copied twice.
type oneBody struct {
	body    []byte
	lengths []uint32
}

func (o *oneBody) reset() { o.body, o.lengths = o.body[:0], o.lengths[:0] }

func (o *oneBody) add(key, data []byte) {
	o.lengths = append(o.lengths, uint32(len(data)))
	o.body = append(append(append(o.body, byte(len(key))), key...), data...)
}

func (o *oneBody) whole() []byte {
	for _, n := range o.lengths {
		o.body = binary.LittleEndian.AppendUint32(o.body, n)
	}
	return o.body
}
