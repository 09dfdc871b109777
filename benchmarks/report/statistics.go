package report

import (
	"math"
	"slices"
	"time"
)

// Median is the middle of v, the mean of the two middle ones if their number is
// even, and NaN if there are none. v stays as it is.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// QuantileMS is the latency, in milliseconds, that a share q of v does not
// exceed, and NaN if there are none. v is sorted.
func QuantileMS(v []time.Duration, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return float64(v[min(int(q*float64(len(v))), len(v)-1)]) / 1e6
}
