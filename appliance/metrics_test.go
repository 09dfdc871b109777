package appliance

import (
	"regexp"
	"strings"
	"testing"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/module"
)

func TestMetricsOfModules(t *testing.T) {
	var b strings.Builder
	buckets := make([]uint64, 40)
	buckets[10], buckets[12], buckets[39] = 2, 3, 1 // below 1, below 4, the rest
	writeModules(&b, []module.Info{{Name: "m", Active: "2.0.0", Versions: []module.VersionInfo{
		{Version: "2.0.0", Stats: module.Stats{Batches: 3, Records: 7, WallSeconds: 0.5, Metrics: []guest.Metric{
			{Name: "seen_total", Kind: "counter", Value: 12.5},
			{Name: "size", Kind: "histogram", Count: 6, Sum: 99, Buckets: buckets},
		}}},
		{Version: "1.0.0"},
	}}})
	page := b.String()
	for _, want := range []string{
		`weir_module_active{module="m",version="2.0.0"} 1`,
		`weir_module_batches_total{module="m",version="2.0.0"} 3`,
		`weir_module_records_total{module="m",version="2.0.0"} 7`,
		`weir_module_seconds_total{module="m",version="2.0.0"} 0.5`,
		`weir_module_metric_seen_total{module="m",version="2.0.0"} 12.5`,
		`weir_module_metric_size_bucket{module="m",version="2.0.0",le="0.5"} 0`,
		`weir_module_metric_size_bucket{module="m",version="2.0.0",le="1"} 2`,
		`weir_module_metric_size_bucket{module="m",version="2.0.0",le="2"} 2`,
		`weir_module_metric_size_bucket{module="m",version="2.0.0",le="4"} 5`,
		`weir_module_metric_size_bucket{module="m",version="2.0.0",le="+Inf"} 6`,
		`weir_module_metric_size_sum{module="m",version="2.0.0"} 99`,
		`weir_module_metric_size_count{module="m",version="2.0.0"} 6`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(page, "1.0.0") {
		t.Error("a version that never ran has lines")
	}
	form := regexp.MustCompile(`^[a-z_]+\{([a-z]+="[^"]*",?)+\} [0-9.e+]+$`)
	for line := range strings.Lines(page) {
		if !form.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("not a line of the text format: %q", line)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}
