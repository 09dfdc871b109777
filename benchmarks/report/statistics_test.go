package report

import (
	"math"
	"testing"
	"time"
)

func TestStatistics(t *testing.T) {
	v := []float64{4, 1, 3}
	if m := Median(v); m != 3 || v[0] != 4 {
		t.Errorf("the median is %v, of what is now %v", m, v)
	}
	if m := Median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("the median of four is %v", m)
	}
	latencies := []time.Duration{3e6, 1e6, 2e6, 4e6}
	if p50, p99 := QuantileMS(latencies, 0.5), QuantileMS(latencies, 0.99); p50 != 3 || p99 != 4 {
		t.Errorf("the quantiles are %v and %v ms", p50, p99)
	}
	if !math.IsNaN(Median(nil)) || !math.IsNaN(QuantileMS(nil, 0.5)) {
		t.Error("of nothing there is a figure")
	}
}
