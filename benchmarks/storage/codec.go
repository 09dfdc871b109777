package storage

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// codec is a compressor by itself, on the bytes of data frames as the store makes them.
type codec struct {
	name       string
	compress   func(dst, src []byte) []byte
	decompress func(dst, src []byte) ([]byte, error)
}

// perBlock is how many records make a block of the size that groups of thousands have.
const perBlock = 300

func codecNamed(name string) (codec, error) {
	all, err := codecs()
	if err != nil {
		return codec{}, err
	}
	return all[slices.IndexFunc(all, func(c codec) bool { return c.name == name })], nil
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

// decodes returns how many bytes a second one core decompresses, of blocks of the samples.
func (c codec) decodes(samples []sample) (float64, error) {
	runtime.GC()
	var frames [][]byte
	var dst, raw []byte
	bytes := 0
	for at := 0; at+perBlock <= min(len(samples), 30_000); at += perBlock {
		raw = appendData(raw[:0], samples[at:at+perBlock])
		if cap(dst) < 2*len(raw) {
			dst = make([]byte, 0, 2*len(raw))
		}
		frames = append(frames, slices.Clone(c.compress(dst, raw)))
		bytes += len(raw)
	}
	const times = 5
	start := usageNow()
	for range times {
		for _, f := range frames {
			if _, err := c.decompress(dst, f); err != nil {
				return 0, err
			}
		}
	}
	return float64(times*bytes) / max(usageNow().cpu-start.cpu, time.Microsecond).Seconds(), nil
}

// drive compresses the samples for about d, on one goroutine, and measures that as an
// engine's round is measured.
func (c codec) drive(ctx context.Context, samples []sample, d time.Duration) (outcome, error) {
	runtime.GC()
	raw := appendData(nil, samples[:perBlock])
	dst := make([]byte, 0, 4*len(raw))
	c.compress(dst, raw)
	var o outcome
	before := usageNow()
	for at := 0; time.Since(before.at) < d && ctx.Err() == nil; at += perBlock {
		if at+perBlock > len(samples) {
			at = 0
		}
		raw = appendData(raw[:0], samples[at:at+perBlock])
		c.compress(dst, raw)
		o.records += perBlock
		o.bytes += float64(len(raw))
	}
	after := usageNow()
	o.seconds, o.cpuS = after.at.Sub(before.at).Seconds(), (after.cpu - before.cpu).Seconds()
	return o, ctx.Err()
}

func appendData(raw []byte, samples []sample) []byte {
	for i := range samples {
		raw = append(raw, samples[i].data...)
	}
	return raw
}
