package guest

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/weirhq/weir/wasm/abi"
)

// TestMetricsStayFinite: a module may add up what it likes, and what is shown of it must
// still be a number, or all that is shown with it is lost.
func TestMetricsStayFinite(t *testing.T) {
	var m Metrics
	var p pendingMetrics
	for kind, op := range map[uint32]metricOperation{abi.MetricCounter: opAdd, abi.MetricGauge: opAdd, abi.MetricHistogram: opObserve} {
		id := m.define(kind, metricKinds[kind])
		for range 3 {
			if code := p.add(&m, int32(id), op, math.MaxFloat64); code != 0 {
				t.Fatalf("%s: %d", metricKinds[kind], code)
			}
			p.apply(&m)
		}
		for range 3 { // within one call
			p.add(&m, int32(id), op, math.MaxFloat64)
		}
		p.apply(&m)
	}
	for _, d := range m.Snapshot() {
		if math.IsInf(d.Value, 0) || math.IsInf(d.Sum, 0) {
			t.Errorf("%s is %v, its sum %v", d.Name, d.Value, d.Sum)
		}
	}
	if _, err := json.Marshal(m.Snapshot()); err != nil {
		t.Error(err)
	}
}
