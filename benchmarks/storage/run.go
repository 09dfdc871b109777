package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
)

// Run measures the shard log.
func Run(ctx context.Context, o report.Options, r *report.Report) error {
	samples := pool(pick(o, 120_000, 30_000))
	for _, part := range []struct {
		name string
		fn   func(context.Context, report.Options, *report.Report, []sample) error
	}{
		{"groups", measureGroups},
		{"shards", measureShards},
		{"modelled eMMC", measureEMMC},
		{"retention", measureRetention},
		{"replay", measureReplay},
		{"tail", measureTail},
		{"block split", measureSplit},
		{"memory and open", measureProcesses},
		{"stored size", measureStored},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		if err := part.fn(ctx, o, r, samples); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		o.Logf("%s: %.0f s", part.name, time.Since(start).Seconds())
	}
	r.Note("Rounds are interleaved; ratios are medians of per-round ratios. The segment log and the key-per-record layout are handed hash keys that are already computed and " +
		"the segment log copies no record before it compresses: the store does both. flash B/B is write_bytes of /proc/self/io per byte of record data. The modelled eMMC takes 4 ms a barrier and 20 MB/s and never syncs the disk below.")
	return nil
}

func pick[T any](o report.Options, full, quick T) T {
	if o.Quick {
		return quick
	}
	return full
}

func measureGroups(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	names := []string{ours, limit, natural}
	for _, g := range []group{{1, 1}, {16, 1}, {256, 1}, {1, 500}, {16, 500}} {
		out, err := contest(ctx, filepath.Join(o.Dir, "groups"), vfs.Default, names, 4, g, samples, pick(o, 5, 3), pick(o, 1300*time.Millisecond, 250*time.Millisecond))
		if err != nil {
			return err
		}
		appendRows(r, "append, 4 shards (producers × records)", g.String(), names, out)
		r.AtLeast("throughput of the segment log's, "+g.String(), 0.90, versus(out, limit, outcome.perSecond))
		switch g {
		case group{16, 500}:
			r.AtMost("flash bytes of the segment log's, 16 × 500", 2.15, versus(out, limit, outcome.flash))
			r.AtMost("flash bytes per byte, 16 × 500", 0.40, medianOf(out[ours], outcome.flash))
			r.AtMost("CPU of the segment log's, 16 × 500", 1.2, versus(out, limit, outcome.cpuPerM))
			r.AtMost("allocations per record, 16 × 500", 0.02, medianOf(out[ours], func(o outcome) float64 { return o.allocs / o.records }))
			r.AtMost("p50 of the segment log's, 16 × 500", 1.15, latency(out[ours], 0.5)/latency(out[limit], 0.5))
			r.AtMost("p99 of the segment log's, 16 × 500", 1.7, latency(out[ours], 0.99)/latency(out[limit], 0.99))
		case group{256, 1}:
			r.AtMost("flash bytes of the segment log's, 256 × 1", 1.8, versus(out, limit, outcome.flash))
			r.AtMost("allocations per record, 256 × 1", 0.05, medianOf(out[ours], func(o outcome) float64 { return o.allocs / o.records }))
		}
	}
	return nil
}

func measureShards(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	names := []string{ours, limit}
	for _, shards := range []int{4, 32, 1024} {
		out, err := contest(ctx, filepath.Join(o.Dir, "shards"), vfs.Default, names, shards, group{16, 500}, samples, pick(o, 5, 2), pick(o, 1300*time.Millisecond, 250*time.Millisecond))
		if err != nil {
			return err
		}
		appendRows(r, "append, 16 × 500, by shards", fmt.Sprintf("%d shards", shards), names, out)
	}
	return nil
}

func measureEMMC(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	names := []string{ours, limit, natural}
	for _, g := range []group{{16, 1}, {256, 1}, {16, 500}} {
		out, err := contest(ctx, filepath.Join(o.Dir, "emmc"), newEMMC(vfs.Default), names, 4, g, samples, pick(o, 5, 2), pick(o, 1500*time.Millisecond, 300*time.Millisecond))
		if err != nil {
			return err
		}
		appendRows(r, "append, modelled eMMC", g.String(), names, out)
		rate := medianOf(out[ours], outcome.perSecond)
		switch g {
		case group{16, 1}:
			r.AtLeast("modelled eMMC, 16 × 1, records/s", 2200, rate)
		case group{256, 1}:
			r.AtLeast("modelled eMMC, 256 × 1, records/s", 30000, rate)
		}
	}
	return nil
}

// paced appends at most rate bytes a second, for d.
func paced(ctx context.Context, w *weir, samples []sample, rate int, d time.Duration, each func()) error {
	const batch = 500
	start := time.Now()
	sent := 0
	for at := 0; time.Since(start) < d; at += batch {
		b := samples[at%(len(samples)-batch):][:batch]
		if ahead := time.Duration(float64(sent)/float64(rate)*float64(time.Second)) - time.Since(start); ahead > 0 {
			time.Sleep(ahead)
		}
		if err := w.append(ctx, b); err != nil {
			return err
		}
		sent += bytesOf(b)
		each()
	}
	return nil
}

func measureRetention(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	dir := filepath.Join(o.Dir, "retention")
	defer os.RemoveAll(dir)
	const keep = 48 << 20
	w, err := openWeir(vfs.Default, dir, storage.StreamConfig{Name: "load", Shards: 32, RetentionBytes: keep})
	if err != nil {
		return err
	}
	defer w.close()
	for _, phase := range pick(o, []string{"filling", "first half", "second half"}, []string{"filling", "trimming"}) {
		before, m0 := usageNow(), w.store.Metrics()
		var most int64
		next := time.Now()
		var bytes float64
		err := paced(ctx, w, samples, 40<<20, pick(o, 14*time.Second, 4*time.Second), func() {
			if time.Now().After(next) {
				most = max(most, diskUse(dir))
				next = time.Now().Add(time.Second)
			}
		})
		if err != nil {
			return err
		}
		unix.Sync()
		after, m1 := usageNow(), w.store.Metrics()
		bytes = float64(m1.DataBytes - m0.DataBytes)
		flash := float64(after.written-before.written) / bytes
		rewritten := float64(m1.BytesCompacted-m0.BytesCompacted) / max(1, float64(m1.BytesFlushed-m0.BytesFlushed))
		r.Add("retention by bytes, 40 MB/s, 32 shards, keep 48 MB stored", phase, "flash B/B", flash, "rewritten/flushed", rewritten, "disk_max_MB", float64(most)/1e6)
		if phase == "second half" || phase == "trimming" {
			r.AtMost("flash bytes per byte with retention running", 0.42, flash)
			r.AtMost("bytes rewritten by compaction per byte flushed", 0.02, rewritten)
			r.AtMost("space after retention of what is to be kept + 4 WALs", 1.15, float64(diskUse(dir)-4*4<<20)/keep)
		}
	}
	return nil
}

// diskUse is what the files below dir occupy, the ballast left out.
func diskUse(dir string) (n int64) {
	_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		var st unix.Stat_t
		if err == nil && info.Mode().IsRegular() && filepath.Base(path) != "ballast" && unix.Stat(path, &st) == nil {
			n += st.Blocks * 512
		}
		return nil // files go while we look
	})
	return n
}

func measureProcesses(ctx context.Context, o report.Options, r *report.Report, _ []sample) error {
	var first finding
	for _, shards := range []int{4, 32, 1024} {
		dir := filepath.Join(o.Dir, fmt.Sprintf("resident-%d", shards))
		f, err := send(ctx, errand{Dir: dir, Shards: shards, Group: [2]int{16, 500}, For: pick(o, 8*time.Second, 2*time.Second), HangUp: true, Records: 20000})
		if err != nil {
			return err
		}
		var opens []float64
		for range pick(o, 5, 2) {
			copyDir := dir + "-killed"
			if err := errors.Join(os.RemoveAll(copyDir), os.CopyFS(copyDir, os.DirFS(dir)), dropCaches(copyDir)); err != nil {
				return err
			}
			again, err := send(ctx, errand{Dir: copyDir, Shards: shards, HangUp: true})
			if err != nil {
				return err
			}
			opens = append(opens, again.OpenMS)
		}
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+"-killed")); err != nil {
			return err
		}
		r.Add("a process of its own, 16 × 500 at full speed, GOGC=50", fmt.Sprintf("%d shards", shards),
			"krecords/s", f.PerSecond/1e3, "resident_MB", f.PeakMB, "of which load_MB", f.PoolMB, "cpu_s/Mrec", f.CPUPerM, "open after kill -9, cold, ms", median(opens))
		switch shards {
		case 4:
			first = f
			r.AtMost("resident MB under full load, 4 shards", 45, f.PeakMB)
			r.AtMost("open after kill -9, ms", 50, median(opens))
		case 32:
			r.AtMost("resident MB under full load, 32 shards", 55, f.PeakMB)
		case 1024:
			r.AtMost("memory, 1,024 shards of 4 shards'", 3, (f.PeakMB-f.PoolMB)/(first.PeakMB-first.PoolMB))
			r.AtMost("CPU per record, 1,024 shards of 4 shards'", 2, f.CPUPerM/first.CPUPerM)
		}
	}
	return nil
}

// measureStored appends until the store holds much, and compares append and
// open with a store that holds little.
func measureStored(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	dir := filepath.Join(o.Dir, "stored")
	defer os.RemoveAll(dir)
	sizes := pick(o, []int{1 << 10, 50 << 10}, []int{64, 512}) // MiB of record data
	var rate, open []float64
	held := 0
	for _, mb := range sizes {
		w, err := openWeir(vfs.Default, dir, storage.StreamConfig{Name: "load", Shards: 4})
		if err != nil {
			return err
		}
		for held < mb {
			if err := fill(ctx, w, samples, 1<<26); err != nil {
				return errors.Join(err, w.close())
			}
			held += 64
			if held%(4<<10) == 0 {
				o.Logf("stored size: %d MiB of %d", held, sizes[len(sizes)-1])
			}
		}
		var rates []float64
		for range pick(o, 5, 2) {
			out, err := drive(ctx, w, samples, group{16, 500}, pick(o, 1500*time.Millisecond, 500*time.Millisecond))
			if err != nil {
				return errors.Join(err, w.close())
			}
			rates = append(rates, out.perSecond())
		}
		if err := w.close(); err != nil {
			return err
		}
		var opens []float64
		for range 3 {
			f, err := send(ctx, errand{Dir: dir, Shards: 4})
			if err != nil {
				return err
			}
			opens = append(opens, f.OpenMS)
		}
		rate, open = append(rate, median(rates)), append(open, median(opens))
		r.Add("by what the store holds", fmt.Sprintf("%d MiB of records", mb), "krecords/s", median(rates)/1e3, "open_ms", median(opens))
	}
	r.AtLeast(fmt.Sprintf("append at %d MiB stored of at %d", sizes[1], sizes[0]), 0.9, rate[1]/rate[0])
	r.AtMost(fmt.Sprintf("open at %d MiB stored of at %d", sizes[1], sizes[0]), 2, open[1]/open[0])
	return nil
}

// CPUPerMillion is the store's own CPU seconds for a million records under a
// closed-loop load through its surface: the median of the rounds, for benchmarks
// that measure what stands before the store. The load's share of the CPU is in it.
func CPUPerMillion(ctx context.Context, fs vfs.FS, dir string, producers, records, rounds int, d time.Duration) (float64, error) {
	w, err := openWeir(fs, dir, storage.StreamConfig{Name: "load", Shards: 4})
	if err != nil {
		return 0, err
	}
	defer w.close()
	samples := pool(30_000)
	var outs []outcome
	for round := -1; round < rounds; round++ {
		o, err := drive(ctx, w, samples, group{producers, records}, d)
		if err != nil {
			return 0, err
		}
		if round >= 0 {
			outs = append(outs, o)
		}
	}
	return medianOf(outs, outcome.cpuPerM), nil
}
