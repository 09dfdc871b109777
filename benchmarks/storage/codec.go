package storage

import (
	"runtime"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/benchmarks/report"
)

// codec is a compressor by itself, on the bytes of data frames as the store makes them.
type codec struct {
	name       string
	compress   func(dst, src []byte) []byte
	decompress func(dst, src []byte) ([]byte, error)
}

func codecs() ([]codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return []codec{
		{"zstd", func(dst, src []byte) []byte { return enc.EncodeAll(src, dst[:0]) }, func(dst, src []byte) ([]byte, error) { return dec.DecodeAll(src, dst[:0]) }},
		{"S2", func(dst, src []byte) []byte { return s2.Encode(dst[:cap(dst)], src) }, func(dst, src []byte) ([]byte, error) { return s2.Decode(dst[:cap(dst)], src) }},
	}, nil
}

// alone is what one core does with nothing but a codec.
type alone struct {
	compress   float64 // CPU seconds per million records
	decompress float64 // bytes per second of one core
}

// measureAlone takes the median of some rounds over the samples, in blocks of 300, and
// makes it a row: bars in seconds and bytes were taken on another machine.
func measureAlone(o report.Options, r *report.Report, name string, samples []sample) (alone, error) {
	all, err := codecs()
	if err != nil {
		return alone{}, err
	}
	c := all[slices.IndexFunc(all, func(c codec) bool { return c.name == name })]
	const perBlock = 300
	var takes, reads []float64
	for range pick(o, 5, 3) {
		runtime.GC()
		var frames [][]byte
		var dst, raw []byte
		records, bytes := 0, 0
		start := usageNow()
		for at := 0; at+perBlock <= min(len(samples), 30_000); at += perBlock {
			raw = raw[:0]
			for i := range samples[at : at+perBlock] {
				raw = append(raw, samples[at+i].data...)
			}
			if cap(dst) < 2*len(raw) {
				dst = make([]byte, 0, 2*len(raw))
			}
			out := c.compress(dst, raw)
			frames = append(frames, append([]byte(nil), out...))
			records, bytes = records+perBlock, bytes+len(raw)
		}
		mid := usageNow()
		const times = 5
		for range times {
			for _, f := range frames {
				if _, err := c.decompress(dst, f); err != nil {
					return alone{}, err
				}
			}
		}
		end := usageNow()
		takes = append(takes, (mid.cpu-start.cpu).Seconds()/float64(records)*1e6)
		reads = append(reads, float64(times*bytes)/max(end.cpu-mid.cpu, time.Microsecond).Seconds())
	}
	a := alone{report.Median(takes), report.Median(reads)}
	r.Add("codec alone, on one core of this machine", name, "compress, cpu_s/Mrec", a.compress, "decompress, MB/s", a.decompress/1e6)
	return a, nil
}
