package guest

import (
	"math"
	"regexp"
	"slices"
	"sync"

	"github.com/weirhq/weir/wasm/abi"
)

// Limits of a module's own metrics.
const (
	MaxMetrics    = 64
	maxMetricName = 64
	// maxObservations bounds what one call may observe; more are dropped with a quota code.
	maxObservations = 10000
	// histogramBuckets are powers of two from 2^-10 up; the last takes the rest.
	histogramBuckets = 40
	firstBucketExp   = -10
)

var metricName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// Metrics are what the instances of one module version count. Safe for
// concurrent use.
type Metrics struct {
	mu struct {
		sync.Mutex
		defs []Metric
	}
}

// Metric is one metric with its value.
type Metric struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // counter, gauge or histogram
	Value   float64  `json:"value"`
	Count   uint64   `json:"count,omitempty"`   // histograms
	Sum     float64  `json:"sum,omitempty"`     // histograms
	Buckets []uint64 `json:"buckets,omitempty"` // histograms: values below 2^(i-10), not cumulative
}

var metricKinds = [...]string{abi.MetricCounter: "counter", abi.MetricGauge: "gauge", abi.MetricHistogram: "histogram"}

// define returns the id of a metric, making it when it is new.
func (m *Metrics) define(kind uint32, name string) abi.Code {
	if int(kind) >= len(metricKinds) || len(name) > maxMetricName || !metricName.MatchString(name) {
		return abi.Invalid
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range m.mu.defs {
		if d.Name == name {
			if d.Kind != metricKinds[kind] {
				return abi.Invalid
			}
			return abi.Code(i)
		}
	}
	if len(m.mu.defs) == MaxMetrics {
		return abi.Quota
	}
	d := Metric{Name: name, Kind: metricKinds[kind]}
	if kind == abi.MetricHistogram {
		d.Buckets = make([]uint64, histogramBuckets)
	}
	m.mu.defs = append(m.mu.defs, d)
	return abi.Code(len(m.mu.defs) - 1)
}

// Reset sets all metrics to 0. Their ids stay good.
func (m *Metrics) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.mu.defs {
		d := &m.mu.defs[i]
		d.Value, d.Count, d.Sum = 0, 0, 0
		clear(d.Buckets)
	}
}

// Restore sets metrics to what Snapshot gave, for a module that goes on counting. What
// is not of this form is left out.
func (m *Metrics) Restore(metrics []Metric) {
	for _, r := range metrics {
		kind := slices.Index(metricKinds[:], r.Kind)
		if kind < 0 {
			continue
		}
		id := m.define(uint32(kind), r.Name)
		m.mu.Lock()
		if id >= 0 && len(r.Buckets) == len(m.mu.defs[id].Buckets) {
			m.mu.defs[id] = r
		}
		m.mu.Unlock()
	}
}

// Snapshot returns a copy of all metrics, in the order they were defined.
func (m *Metrics) Snapshot() []Metric {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := append([]Metric(nil), m.mu.defs...)
	for i := range out {
		out[i].Buckets = append([]uint64(nil), out[i].Buckets...)
	}
	return out
}

type metricOperation uint8

const (
	opAdd metricOperation = iota
	opSet
	opObserve
)

type metricChange struct {
	id    int32
	op    metricOperation
	value float64
}

// pendingMetrics are the changes of one call, which count only when its
// outcome is used. Adds to one metric are summed up.
type pendingMetrics struct {
	changes []metricChange
}

func (p *pendingMetrics) reset() { p.changes = p.changes[:0] }

// add notes a change: add for counters and gauges, set for gauges, observe for
// histograms. Counters don't go down.
func (p *pendingMetrics) add(m *Metrics, id int32, op metricOperation, v float64) abi.Code {
	if m == nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return abi.Invalid
	}
	switch kind := m.kind(id); {
	case kind == "counter" && op == opAdd && v >= 0:
	case kind == "gauge" && (op == opAdd || op == opSet):
	case kind == "histogram" && op == opObserve:
	default:
		return abi.Invalid
	}
	// Sum up with the metric's last change. Looking back further than there
	// are metrics would cost more than it saves.
	for i := len(p.changes) - 1; op == opAdd && i >= max(0, len(p.changes)-MaxMetrics); i-- {
		if c := &p.changes[i]; c.id == id && c.op != opObserve {
			c.value = sum(c.value, v)
			return 0
		}
	}
	if len(p.changes) == maxObservations {
		return abi.Quota
	}
	p.changes = append(p.changes, metricChange{id, op, v})
	return 0
}

// kind is the kind of a metric, or "".
func (m *Metrics) kind(id int32) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id < 0 || int(id) >= len(m.mu.defs) {
		return ""
	}
	return m.mu.defs[id].Kind
}

func (p *pendingMetrics) apply(m *Metrics) {
	if len(p.changes) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range p.changes {
		d := &m.mu.defs[c.id]
		switch c.op {
		case opAdd:
			d.Value = sum(d.Value, c.value)
		case opSet:
			d.Value = c.value
		case opObserve:
			d.Count++
			d.Sum = sum(d.Sum, c.value)
			d.Buckets[bucket(c.value)]++
		}
	}
	p.reset()
}

// sum stays finite: JSON has no infinity, and a module must not be able to spoil
// the answers that show its metrics.
func sum(a, b float64) float64 { return min(max(a+b, -math.MaxFloat64), math.MaxFloat64) }

// BucketBound is what the values in bucket i of a histogram are below.
func BucketBound(i int) float64 { return math.Ldexp(1, i+firstBucketExp) }

func bucket(v float64) int {
	if v <= 0 {
		return 0
	}
	_, exp := math.Frexp(v)
	return min(max(exp-firstBucketExp, 0), histogramBuckets-1)
}
