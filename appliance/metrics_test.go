package appliance

import (
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage"
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

// TestCountersOfTheLogCountUp reads the page before and after midnight, and after a clock
// that was put right: no counter of the log ever goes back, and what is written shows.
func TestCountersOfTheLogCountUp(t *testing.T) {
	start := time.Date(2027, 1, 15, 23, 59, 50, 0, time.UTC)
	var clock atomic.Pointer[time.Time] // the store reads it in the background
	clock.Store(&start)
	store, err := storage.Open(t.Context(), "data", storage.Options{FS: vfs.NewMem(), ReserveBytes: -1, Clock: func() time.Time { return *clock.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	st, err := store.CreateStream(t.Context(), storage.StreamConfig{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	b := &box{started: time.Now()}
	b.store = store
	counters := func() map[string]float64 {
		var page strings.Builder
		b.writeBox(&page)
		out := map[string]float64{}
		for line := range strings.Lines(page.String()) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if !strings.HasSuffix(name, "_total") {
				continue
			}
			if out[name], err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	before := counters()
	for i, at := range []time.Time{start, start.Add(20 * time.Second), start.AddDate(0, 0, 40), start.AddDate(0, 0, 3)} {
		clock.Store(&at)
		txn, err := store.Begin(t.Context(), 2000)
		if err != nil {
			t.Fatal(err)
		}
		if err := txn.Append(st, []byte("key"), nil, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := txn.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		txn.Release()
		now := counters()
		if len(now) != 5 {
			t.Fatalf("counters %v", now)
		}
		for name, was := range before {
			if rises := name != "weir_storage_compacted_bytes_total"; now[name] < was || rises && now[name] == was {
				t.Errorf("%v: %s is %v, before %v", at, name, now[name], was)
			}
		}
		if now["weir_storage_ingested_records_total"] != float64(i+1) {
			t.Errorf("%v: %v records, want %d", at, now["weir_storage_ingested_records_total"], i+1)
		}
		before = now
	}
}
