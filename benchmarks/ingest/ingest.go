package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weirhq/weir/benchmarks/report"
)

// plan is how much is measured.
type plan struct {
	rounds    int
	warm, d   time.Duration
	batches   []int // connections with 500 records a request
	singles   []int // connections with one
	idle      int   // connections that wait
	protocols []protocol
	settle    time.Duration // for memory to become what it is while nothing happens
	peers     bool
}

func planOf(o report.Options) plan {
	p := plan{
		rounds: 3, warm: time.Second, d: 2 * time.Second, batches: []int{1, 16, 256, 2000}, singles: []int{1, 16, 256, 2000},
		idle: 2000, protocols: protocols, settle: 5 * time.Second, peers: o.Peers,
	}
	if o.Quick {
		p.rounds, p.warm, p.d, p.batches, p.singles = 1, 500*time.Millisecond, time.Second, []int{16}, []int{256}
		p.protocols, p.settle = protocols[len(protocols)-1:], 4*time.Second
	}
	return p
}

// Run measures the front door.
func Run(ctx context.Context, o report.Options, r *report.Report) error {
	return run(ctx, o, r, planOf(o))
}

func run(ctx context.Context, o report.Options, r *report.Report, p plan) (err error) {
	var systems []*system
	defer func() {
		for _, s := range systems {
			err = errors.Join(err, s.close())
		}
	}()
	for _, kind := range []string{kindWeir, kindLimit, kindStore} {
		s, err := openOurs(ctx, kind, o.Dir)
		if err != nil {
			return err
		}
		systems = append(systems, s)
	}
	if p.peers {
		systems = append(systems, openPeers(ctx, o, r)...)
	}
	r.Add("memory of the server", "idle", "resident_MB", systems[0].p.ResidentMB())
	for _, n := range p.batches {
		outs, err := contest(ctx, systems, load{n, 500, p.d}, p, r)
		if err != nil {
			return err
		}
		addRows(r, "500 records a PutRecords, signed and synced", systems, outs, n)
		if n == 16 {
			addGates(r, outs)
		}
		o.Logf("500 records a PutRecords, %d connections", n)
	}
	for _, n := range p.singles {
		outs, err := contest(ctx, systems, load{n, 1, p.d}, p, r)
		if err != nil {
			return err
		}
		addRows(r, "single PutRecord, signed and synced", systems, outs, n)
		o.Logf("single PutRecord, %d connections", n)
	}
	if err := measureIdle(ctx, o, r, p); err != nil {
		return err
	}
	r.Note("Each system runs in a process of its own, on the cores of the load: records/s is what the load leaves to it. CPU and memory are that process's, without the load; for the store alone the load is in it. " +
		"Requests are encoded and signed before the clock starts. \"read and answer\" is a fasthttp handler that reads the body and stores nothing. NATS gets its messages without keys or headers, published asynchronously, and each batch waits for its acknowledgements; " +
		"by default it answers before it syncs. kinesis-local keeps its records in memory.")
	return nil
}

// contest drives the systems in turn, and returns the outcomes of each by round.
// The first, uncounted round warms them up. A peer that fails under the load is
// left out of it, with a note.
func contest(ctx context.Context, systems []*system, l load, p plan, r *report.Report) (map[string][]outcome, error) {
	outs, failed := map[string][]outcome{}, map[string]bool{}
	for round := -1; round < p.rounds; round++ {
		for _, s := range systems {
			if failed[s.name] || !s.takes(l) || s.slow && round < 0 {
				continue
			}
			this := l
			if round < 0 {
				this.For = p.warm
			}
			o, err := s.round(ctx, this)
			if err != nil && s.peer && ctx.Err() == nil {
				r.Note("Not measured under this load: %v", err)
				failed[s.name] = true
				delete(outs, s.name)
				continue
			}
			if err != nil {
				return nil, err
			}
			if round >= 0 {
				outs[s.name] = append(outs[s.name], o)
			}
		}
	}
	return outs, nil
}

func addRows(r *report.Report, table string, systems []*system, outs map[string][]outcome, connections int) {
	for _, s := range systems {
		if os := outs[s.name]; len(os) > 0 {
			r.Add(table, fmt.Sprintf("%d connections, %s", connections, s.name),
				"ours/this", versus(outs, s.name, outcome.perSecond), "krecords/s", medianOf(os, outcome.perSecond)/1e3,
				"p50_ms", quantile(os, 0.5), "p99_ms", quantile(os, 0.99),
				"cpu_s/Mrec", medianOf(os, outcome.cpuPerM), "resident_MB", s.p.ResidentMB(), "allocs/rec", medianOf(os, outcome.allocsPerRecord))
		}
	}
}

// addGates holds 16 connections with 500 records a request to the bars.
func addGates(r *report.Report, outs map[string][]outcome) {
	r.AtMost("server CPU of PutRecords of the store's alone, 16 × 500", 2.2, versus(outs, kindStore, outcome.cpuPerM))
	r.AtLeast("records/s of NATS JetStream's at its default, 16 × 500", 2, versus(outs, kindNATS, outcome.perSecond))
	r.AtLeast("records/s of NATS JetStream's with sync always, 16 × 500", 100, versus(outs, kindNATSAlways, outcome.perSecond))
	r.AtLeast("records/s of kinesis-local's, 16 × 500", 500, versus(outs, kindEmulator, outcome.perSecond))
	r.AtMost("allocations per record, 16 × 500", 0.05, medianOf(outs[kindWeir], outcome.allocsPerRecord))
}

// versus is the median over the rounds of ours/other in one figure; NaN if the
// other was not measured.
func versus(outs map[string][]outcome, other string, f func(outcome) float64) float64 {
	var ratios []float64
	for i, o := range outs[other] {
		ratios = append(ratios, f(outs[kindWeir][i])/f(o))
	}
	return report.Median(ratios)
}

func medianOf(outs []outcome, f func(outcome) float64) float64 {
	var v []float64
	for _, o := range outs {
		v = append(v, f(o))
	}
	return report.Median(v)
}

// quantile is in milliseconds.
func quantile(outs []outcome, q float64) float64 {
	var all []time.Duration
	for _, o := range outs {
		all = append(all, o.Latencies...)
	}
	return report.QuantileMS(all, q)
}
