package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/benchmarks/report"
)

// group is a shape of load: closed-loop producers and records per append.
type group struct{ producers, records int }

func (g group) String() string { return fmt.Sprintf("%d × %d", g.producers, g.records) }

// outcome is what one engine did in one round.
type outcome struct {
	seconds   float64
	records   float64
	bytes     float64
	cpuS      float64
	written   float64
	allocs    float64
	latencies []time.Duration
}

func (o outcome) perSecond() float64 { return o.records / o.seconds }
func (o outcome) cpuPerM() float64   { return o.cpuS / o.records * 1e6 }
func (o outcome) flash() float64     { return o.written / o.bytes }

// drive lets the producers append for d, or until ctx ends, and measures.
func drive(ctx context.Context, e engine, samples []sample, g group, d time.Duration) (outcome, error) {
	deadline := time.Now().Add(d)
	type result struct {
		records, bytes int
		latencies      []time.Duration
		err            error
	}
	results := make([]result, g.producers)
	before := usageNow()
	var wg sync.WaitGroup
	for p := range g.producers {
		wg.Go(func() {
			r := &results[p]
			rng := rand.New(rand.NewPCG(uint64(p), 7))
			for time.Now().Before(deadline) && ctx.Err() == nil {
				at := rng.IntN(len(samples) - g.records)
				batch := samples[at : at+g.records]
				start := time.Now()
				if r.err = e.append(ctx, batch); r.err != nil {
					return
				}
				r.latencies = append(r.latencies, time.Since(start))
				r.records += len(batch)
				r.bytes += bytesOf(batch)
			}
		})
	}
	wg.Wait()
	after := usageNow()
	o := outcome{
		seconds: after.at.Sub(before.at).Seconds(), cpuS: (after.cpu - before.cpu).Seconds(),
		written: float64(after.written - before.written), allocs: float64(after.allocs - before.allocs),
	}
	var errs []error
	for i := range results {
		o.records += float64(results[i].records)
		o.bytes += float64(results[i].bytes)
		o.latencies = append(o.latencies, results[i].latencies...)
		errs = append(errs, results[i].err)
	}
	return o, errors.Join(errs...)
}

// contest runs the engines in turn, rounds times, over stores that stay open,
// and returns the outcomes of each by round. The first, uncounted round fills
// the write-ahead logs that are recycled later.
func contest(ctx context.Context, dir string, fs vfs.FS, names []string, shards int, g group, samples []sample, rounds int, d time.Duration) (map[string][]outcome, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	engines := map[string]engine{}
	defer func() {
		for _, e := range engines {
			_ = e.close()
		}
	}()
	for _, n := range names {
		e, err := openEngine(n, fs, dir, shards)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", n, err)
		}
		engines[n] = e
	}
	out := map[string][]outcome{}
	for round := -1; round < rounds; round++ {
		for _, n := range names {
			o, err := drive(ctx, engines[n], samples, g, d)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", n, g, err)
			}
			if round >= 0 {
				out[n] = append(out[n], o)
			}
		}
	}
	return out, nil
}

// versus is the median over the rounds of ours/other in one figure.
func versus(out map[string][]outcome, other string, f func(outcome) float64) float64 {
	var ratios []float64
	for i := range out[ours] {
		ratios = append(ratios, f(out[ours][i])/f(out[other][i]))
	}
	return median(ratios)
}

func medianOf(os []outcome, f func(outcome) float64) float64 {
	var v []float64
	for _, o := range os {
		v = append(v, f(o))
	}
	return median(v)
}

func latency(os []outcome, q float64) float64 {
	var all []time.Duration
	for _, o := range os {
		all = append(all, o.latencies...)
	}
	return quantileMS(all, q)
}

// appendRows adds a row an engine, ours first.
func appendRows(r *report.Report, table, load string, names []string, out map[string][]outcome) {
	for _, n := range names {
		os := out[n]
		r.Add(table, load+", "+n,
			"ours/this", versus(out, n, outcome.perSecond),
			"krecords/s", medianOf(os, outcome.perSecond)/1e3,
			"MB/s", medianOf(os, func(o outcome) float64 { return o.bytes / o.seconds / 1e6 }),
			"p50_ms", latency(os, 0.5), "p99_ms", latency(os, 0.99),
			"cpu_s/Mrec", medianOf(os, outcome.cpuPerM),
			"flash B/B", medianOf(os, outcome.flash),
			"allocs/rec", medianOf(os, func(o outcome) float64 { return o.allocs / o.records }))
	}
}
