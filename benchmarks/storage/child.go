package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
)

// ChildName is the hidden benchmark that measures what needs a process of its
// own: resident memory, and a store that nobody closed.
const ChildName = "storage-child"

// errand is what a child is to do; it comes as JSON on standard input.
type errand struct {
	Dir     string        `json:"dir"`
	Shards  int           `json:"shards"`
	Group   [2]int        `json:"group"`
	For     time.Duration `json:"for"`     // how long to append; 0 = only open
	HangUp  bool          `json:"hang_up"` // stay, without closing, until killed
	Tables  int64         `json:"tables"`  // append on until the store has so many
	Records int           `json:"records"` // size of the pool
}

// finding is what the child saw, one line of JSON on standard output.
type finding struct {
	OpenMS    float64 `json:"open_ms"`
	PeakMB    float64 `json:"peak_mb"`     // most anonymous pages seen while appending
	PeakAllMB float64 `json:"peak_all_mb"` // with those of the program's file
	PoolMB    float64 `json:"pool_mb"`     // of which the load itself, before the store was opened
	PerSecond float64 `json:"records_per_second"`
	CPUPerM   float64 `json:"cpu_s_per_million"`
	Tables    int64   `json:"tables"`
}

// Child does one errand.
func Child(ctx context.Context, _ report.Options, _ *report.Report) error {
	var e errand
	if err := json.NewDecoder(os.Stdin).Decode(&e); err != nil {
		return fmt.Errorf("errand: %w", err)
	}
	samples := pool(max(e.Records, 1000))
	var f finding
	f.PoolMB = process.ResidentMB()
	start := time.Now()
	w, err := openWeir(vfs.Default, e.Dir, storage.StreamConfig{Name: "load", Shards: e.Shards})
	if err != nil {
		return err
	}
	f.OpenMS = float64(time.Since(start)) / 1e6
	if e.For > 0 {
		stop := make(chan struct{})
		seen := make(chan float64)
		go func() {
			peak := 0.0
			for tick := time.NewTicker(100 * time.Millisecond); ; {
				select {
				case <-tick.C:
					peak = max(peak, process.ResidentMB())
				case <-stop:
					seen <- peak
					return
				}
			}
		}()
		o, err := drive(ctx, w, samples, group{e.Group[0], e.Group[1]}, e.For)
		close(stop)
		f.PeakMB = <-seen
		if err != nil {
			return err
		}
		f.PerSecond, f.CPUPerM = o.perSecond(), o.cpuPerM()
		f.PeakAllMB = float64(process.Field("/proc/self/status", "VmHWM")) / 1024
	}
	for w.store.Metrics().Tables < e.Tables {
		if err := fill(ctx, w, samples, 16<<20); err != nil {
			return err
		}
	}
	f.Tables = w.store.Metrics().Tables
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		return err
	}
	if e.HangUp {
		<-ctx.Done()
		return nil
	}
	return w.close()
}

// send runs a child for an errand and returns what it found. With HangUp the
// child is killed as soon as it has reported.
func send(ctx context.Context, e errand) (finding, error) {
	var f finding
	p, err := process.Again(ctx, ChildName)
	if err != nil {
		return f, err
	}
	if err := errors.Join(p.Tell(e), p.Hear(&f)); err != nil {
		return f, errors.Join(err, p.Kill())
	}
	if e.HangUp {
		return f, p.Kill()
	}
	return f, p.Stop()
}
