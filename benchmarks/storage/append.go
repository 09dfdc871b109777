package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/benchmarks/report"
)

// group is a shape of load: closed-loop producers and records per append.
type group struct{ producers, records int }

func (g group) String() string { return fmt.Sprintf("%d × %d", g.producers, g.records) }

// outcome is what one engine did in one round: speed until the last append
// returned, the rest until the engine had nothing left to do.
type outcome struct {
	seconds   float64
	records   float64
	bytes     float64
	cpuS      float64
	written   float64
	allocs    float64
	latencies []time.Duration
}

func (o outcome) perSecond() float64       { return o.records / o.seconds }
func (o outcome) cpuPerM() float64         { return o.cpuS / o.records * 1e6 }
func (o outcome) p(q float64) float64      { return report.QuantileMS(o.latencies, q) }
func (o outcome) p50() float64             { return o.p(0.5) }
func (o outcome) p99() float64             { return o.p(0.99) }
func (o outcome) allocsPerRecord() float64 { return o.allocs / o.records }

// producer is one closed loop's state, made before anything is measured.
type producer struct {
	rng            *rand.Rand
	records, bytes int
	latencies      []time.Duration
	err            error
}

func (p *producer) run(ctx context.Context, e engine, samples []sample, records int, deadline time.Time) {
	for p.err == nil && time.Now().Before(deadline) && ctx.Err() == nil {
		at := p.rng.IntN(len(samples) - records)
		batch := samples[at : at+records]
		start := time.Now()
		if p.err = e.append(ctx, batch); p.err != nil {
			return
		}
		p.latencies = append(p.latencies, time.Since(start))
		p.records += len(batch)
		p.bytes += bytesOf(batch)
	}
}

// drive lets the producers append for d, or until ctx ends, and measures.
func drive(ctx context.Context, e engine, samples []sample, g group, d time.Duration) (outcome, error) {
	producers := make([]producer, g.producers)
	for i := range producers {
		producers[i].rng = rand.New(rand.NewPCG(uint64(i), 7))
		producers[i].latencies = make([]time.Duration, 0, 64+int(d.Seconds()*4e5)/g.producers/g.records)
	}
	runtime.GC() // what others left behind is not this round's
	all := func(d time.Duration) {
		deadline := time.Now().Add(d)
		var wg sync.WaitGroup
		for i := range producers {
			wg.Go(func() { producers[i].run(ctx, e, samples, g.records, deadline) })
		}
		wg.Wait()
	}
	all(d / 16) // to steady state: pools are empty after the collection
	settle(ctx, e)
	for i := range producers {
		p := &producers[i]
		p.records, p.bytes, p.latencies = 0, 0, p.latencies[:0]
	}
	before := usageNow()
	all(d)
	took := time.Since(before.at)
	settle(ctx, e)
	after := usageNow()
	o := outcome{
		seconds: took.Seconds(), cpuS: (after.cpu - before.cpu).Seconds(),
		written: float64(after.written - before.written), allocs: float64(after.allocs - before.allocs),
	}
	var errs []error
	for i := range producers {
		p := &producers[i]
		o.records += float64(p.records)
		o.bytes += float64(p.bytes)
		o.latencies = append(o.latencies, p.latencies...)
		errs = append(errs, p.err)
	}
	return o, errors.Join(append(errs, ctx.Err())...)
}

// plan is one contest: who takes part, under which load, for how long.
type plan struct {
	engines []string
	shards  int
	load    group
	rounds  int
	each    time.Duration
	warm    time.Duration // of the first, uncounted round; 0 = each
	codec   string        // measured by itself in every round too, as alone(codec); "" = none
}

// alone is the name of a codec that is measured by itself beside engines.
func alone(codec string) string { return codec + " alone" }

// contest runs the engines in turn, round after round, over stores that stay
// open, and returns the outcomes of each by round. Every round begins with
// another engine. The first round is not counted: it fills the write-ahead logs
// that are recycled later, and grows what grows once.
func contest(ctx context.Context, dir string, fs vfs.FS, p plan, samples []sample) (map[string][]outcome, error) {
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
	for _, n := range p.engines {
		e, err := openEngine(n, fs, dir, p.shards)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", n, err)
		}
		engines[n] = e
	}
	var by codec
	if p.codec != "" {
		var err error
		if by, err = codecNamed(p.codec); err != nil {
			return nil, err
		}
	}
	out := map[string][]outcome{}
	for round := -1; round < p.rounds; round++ {
		for i := range p.engines {
			n, d := p.engines[(i+round+1)%len(p.engines)], p.each
			if round < 0 && p.warm > 0 {
				d = p.warm
			}
			o, err := drive(ctx, engines[n], samples, p.load, d)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", n, p.load, err)
			}
			if round >= 0 {
				out[n] = append(out[n], o)
			}
			if p.codec == "" || n != p.engines[0] || round < 0 {
				continue
			}
			// At once after the store's, while the machine is what it was.
			if o, err = by.drive(ctx, samples, d/2); err != nil {
				return nil, fmt.Errorf("%s: %w", alone(p.codec), err)
			}
			out[alone(p.codec)] = append(out[alone(p.codec)], o)
		}
	}
	return out, nil
}

// ratio is the median over the rounds of a/b in one figure.
func ratio(a, b []outcome, f func(outcome) float64) float64 {
	var ratios []float64
	for i := range a {
		ratios = append(ratios, f(a[i])/f(b[i]))
	}
	return report.Median(ratios)
}

// versus is the ratio of ours to another engine.
func versus(out map[string][]outcome, other string, f func(outcome) float64) float64 {
	return ratio(out[ours], out[other], f)
}

func medianOf(os []outcome, f func(outcome) float64) float64 {
	var v []float64
	for _, o := range os {
		v = append(v, f(o))
	}
	return report.Median(v)
}

// flash is the device's bytes per byte of data over all rounds: tables are
// written a few times a second, so that a round may have one more or less.
func flash(os []outcome) float64 {
	var written, bytes float64
	for _, o := range os {
		written += o.written
		bytes += o.bytes
	}
	return written / bytes
}

// appendRows adds a row an engine, the first of names first, and one to a table of its own
// for the codec that was measured by itself beside them.
func appendRows(r *report.Report, table, load string, names []string, out map[string][]outcome) {
	for _, n := range names {
		os, first := out[n], out[names[0]]
		r.Add(table, load+", "+n,
			"ours/this", ratio(first, os, outcome.perSecond),
			"krecords/s", medianOf(os, outcome.perSecond)/1e3,
			"MB/s", medianOf(os, func(o outcome) float64 { return o.bytes / o.seconds / 1e6 }),
			"p50_ms", medianOf(os, outcome.p50), "p99_ms", medianOf(os, outcome.p99),
			"cpu_s/Mrec", medianOf(os, outcome.cpuPerM),
			"flash B/B", flash(os),
			"allocs/rec", medianOf(os, outcome.allocsPerRecord))
	}
	for _, codec := range []string{"zstd", "S2"} {
		if os := out[alone(codec)]; len(os) > 0 {
			r.Add("codec alone, on one core, at once after each of the store's rounds", codec,
				"cpu_s/Mrec", medianOf(os, outcome.cpuPerM),
				"MB/s", medianOf(os, func(o outcome) float64 { return o.bytes / o.cpuS / 1e6 }),
				"store's CPU/this", ratio(out[names[0]], os, outcome.cpuPerM))
		}
	}
}
