package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/block"
)

// Run measures the shard log. In full it takes about a quarter of an hour on two
// quiet cores, 12 GB of disk and half a GB of memory.
func Run(ctx context.Context, o report.Options, r *report.Report) error {
	samples := pool(pick(o, 120_000, 30_000))
	for _, part := range []struct {
		name string
		fn   func(context.Context, report.Options, *report.Report, []sample) error
	}{
		{"load", measureLoad},
		{"groups", measureGroups},
		{"shards", measureShards},
		{"codec S2", measureS2},
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
		runtime.GC()
		o.Logf("%s: %.1f s", part.name, time.Since(start).Seconds())
	}
	r.Note("Rounds are interleaved; ratios and figures are medians over the rounds, flash B/B is over all of them. CPU, flash and allocations are read when an engine has nothing left to do " +
		"in the background, and include those of the load. flash B/B is write_bytes of /proc/self/io per byte of record data.")
	r.Note("Bars in CPU seconds are of a machine on which zstd alone takes 0.53 s a million records and S2 alone 0.28. What they take in this run is a row of the table, measured at once after each of the store's rounds.")
	r.Note("The segment log and the key-per-record layout are handed hash keys that are already computed and the segment log copies no record before it compresses: the store does both. " +
		"The modelled eMMC takes 4 ms a barrier and 20 MB/s and never syncs the disk below.")
	if o.Quick {
		r.Note("In a quick run a round lasts a fraction of a second: figures move by a fifth from run to run.")
	}
	return nil
}

func pick[T any](o report.Options, full, quick T) T {
	if o.Quick {
		return quick
	}
	return full
}

// measureLoad says what the records are like: bars on bytes depend on it.
func measureLoad(_ context.Context, _ report.Options, r *report.Report, samples []sample) error {
	b := block.NewBuilder()
	for _, n := range []int{1, 4, 16, 64, 300} {
		var raw int
		var stored [2]int
		for at := 0; at+n <= min(len(samples), 12_000); at += n {
			b.Reset()
			for _, s := range samples[at : at+n] {
				b.Add(s.key, nil, s.data, 0)
				raw += len(s.data)
			}
			for i, codec := range []block.Codec{block.Zstd, block.S2} {
				stored[i] += len(b.Encode(codec, block.Stamp{ArrivalMS: 1_780_000_000_000}))
			}
		}
		r.Add("load: data over block as stored", fmt.Sprintf("%d records a block", n),
			"zstd", float64(raw)/float64(stored[0]), "S2", float64(raw)/float64(stored[1]), "bytes/record", float64(bytesOf(samples))/float64(len(samples)))
	}
	return nil
}

func measureGroups(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	names := []string{ours, limit}
	if o.Peers {
		names = append(names, natural)
	}
	for _, g := range []group{{1, 1}, {16, 1}, {256, 1}, {1, 500}, {16, 500}} {
		p := plan{engines: names, shards: 4, load: g, rounds: pick(o, 5, 3), each: pick(o, 1300*time.Millisecond, 150*time.Millisecond), warm: pick(o, 0, 150*time.Millisecond)}
		if o.Quick && (g == group{256, 1} || g == group{16, 500}) {
			p.each = 380 * time.Millisecond // what is gated on bytes must fill some tables
		}
		if o.Quick && (g != group{16, 500}) {
			p.engines = names[:2]
		}
		if (g == group{16, 500}) {
			p.codec = "zstd"
		}
		out, err := contest(ctx, filepath.Join(o.Dir, "groups"), vfs.Default, p, samples)
		if err != nil {
			return err
		}
		appendRows(r, "append, 4 shards (producers × records)", g.String(), p.engines, out)
		r.AtLeast("throughput of the segment log's, "+g.String(), 0.90, versus(out, limit, outcome.perSecond))
		switch g {
		case group{16, 500}:
			r.AtMost("flash bytes of the segment log's, 16 × 500", 2.15, flash(out[ours])/flash(out[limit]))
			r.AtMost("flash bytes per byte, 16 × 500, 4 shards", 0.40, flash(out[ours]))
			r.AtMost("CPU of the segment log's, 16 × 500", 1.2, versus(out, limit, outcome.cpuPerM))
			r.AtMost("CPU seconds per million records, zstd, 16 × 500", 0.9, medianOf(out[ours], outcome.cpuPerM))
			// The bar's machine: 0.9 s, of which zstd alone 0.53 at its 394 MB/s.
			r.AtMost("CPU of what zstd alone takes, 16 × 500", 1.7, ratio(out[ours], out[alone(p.codec)], outcome.cpuPerM))
			r.AtMost("allocations per record, 16 × 500", 0.02, medianOf(out[ours], outcome.allocsPerRecord))
			r.AtMost("ack p50 of the segment log's, 16 × 500", 1.15, versus(out, limit, outcome.p50))
			r.AtMost("ack p99 of the segment log's, 16 × 500", 1.7, versus(out, limit, outcome.p99))
		case group{256, 1}:
			r.AtMost("flash bytes of the segment log's, 256 × 1", 1.8, flash(out[ours])/flash(out[limit]))
			r.AtMost("allocations per record, 256 × 1", 0.05, medianOf(out[ours], outcome.allocsPerRecord))
		}
	}
	return nil
}

func measureShards(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	names := []string{ours, limit}
	for _, shards := range pick(o, []int{4, 32, 1024}, []int{32, 1024}) { // quick has 4 among the groups
		p := plan{engines: names, shards: shards, load: group{16, 500}, rounds: pick(o, 5, 2), each: pick(o, 1300*time.Millisecond, 300*time.Millisecond)}
		out, err := contest(ctx, filepath.Join(o.Dir, "shards"), vfs.Default, p, samples)
		if err != nil {
			return err
		}
		appendRows(r, "append, 16 × 500, by shards", fmt.Sprintf("%d shards", shards), names, out)
		if shards == 32 {
			r.AtMost("flash bytes per byte, 16 × 500, 32 shards", 0.40, flash(out[ours]))
		}
	}
	return nil
}

func measureS2(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	names := []string{oursS2, limitS2}
	p := plan{engines: names, shards: 4, load: group{16, 500}, rounds: pick(o, 5, 2), each: pick(o, 1300*time.Millisecond, 300*time.Millisecond), codec: "S2"}
	out, err := contest(ctx, filepath.Join(o.Dir, "s2"), vfs.Default, p, samples)
	if err != nil {
		return err
	}
	appendRows(r, "append, 16 × 500, codec S2", "4 shards", names, out)
	r.AtMost("CPU seconds per million records, S2, 16 × 500", 0.55, medianOf(out[oursS2], outcome.cpuPerM))
	// The bar's machine: 0.55 s, of which S2 alone 0.28 at its 751 MB/s.
	r.AtMost("CPU of what S2 alone takes, 16 × 500", 2, ratio(out[oursS2], out[alone(p.codec)], outcome.cpuPerM))
	return nil
}

func measureEMMC(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	for _, g := range []group{{16, 1}, {256, 1}, {16, 500}} {
		names := []string{ours, limit}
		if (g == group{16, 500}) {
			names = append(names, limitRaw)
		}
		if o.Peers && !o.Quick {
			names = append(names, natural)
		}
		p := plan{engines: names, shards: 4, load: g, rounds: pick(o, 5, 2), each: pick(o, 1500*time.Millisecond, 300*time.Millisecond), warm: pick(o, 0, 150*time.Millisecond)}
		out, err := contest(ctx, filepath.Join(o.Dir, "emmc"), newEMMC(vfs.Default), p, samples)
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
		case group{16, 500}:
			r.AtLeast("modelled eMMC, 16 × 500, of the raw segment log's throughput", 2.2, versus(out, limitRaw, outcome.perSecond))
		}
	}
	return nil
}

// paced appends rate bytes a second for d, as 16 devices do that report in
// step: at every tick each appends one batch. each is called after a tick.
func paced(ctx context.Context, w *weir, samples []sample, rate int, d time.Duration, each func()) error {
	const producers, batch = 16, 500
	start := time.Now()
	sent := 0
	var wg sync.WaitGroup
	errs := make([]error, producers)
	for at := 0; time.Since(start) < d; {
		if ahead := time.Duration(float64(sent)/float64(rate)*float64(time.Second)) - time.Since(start); ahead > 0 {
			time.Sleep(ahead)
		}
		for p := range producers {
			b := samples[at%(len(samples)-batch):][:batch]
			at += batch
			sent += bytesOf(b)
			wg.Go(func() { errs[p] = w.append(ctx, b) })
		}
		wg.Wait()
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return err
		}
		each()
	}
	return nil
}

func measureRetention(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	dir := filepath.Join(o.Dir, "retention")
	defer os.RemoveAll(dir)
	keep := pick(o, int64(48<<20), 16<<20)
	w, err := openWeir(vfs.Default, dir, storage.StreamConfig{Name: "load", Shards: 32, RetentionBytes: keep})
	if err != nil {
		return err
	}
	defer w.close()
	var flat []float64
	for _, phase := range []string{"filling", "first half", "second half"} {
		before, m0 := usageNow(), w.store.Metrics()
		var most int64
		next := time.Now()
		err := paced(ctx, w, samples, 40<<20, pick(o, 14*time.Second, 1400*time.Millisecond), func() {
			if time.Now().After(next) {
				most = max(most, diskUse(dir))
				next = time.Now().Add(time.Second)
			}
		})
		if err != nil {
			return err
		}
		settle(ctx, w)
		after, m1 := usageNow(), w.store.Metrics()
		flash := float64(after.written-before.written) / float64(m1.DataBytes-m0.DataBytes)
		rewritten := float64(m1.BytesCompacted-m0.BytesCompacted) / max(1, float64(m1.BytesFlushed-m0.BytesFlushed))
		r.Add(fmt.Sprintf("retention by bytes, 40 MB/s, 32 shards, keep %d MiB stored", keep>>20), phase, "flash B/B", flash, "rewritten/flushed", rewritten, "disk_max_MB", float64(most)/1e6)
		flat = append(flat, flash)
		if phase == "second half" {
			r.AtMost("flash bytes per byte with retention running, 32 shards", 0.42, flash)
			// A quick phase has a table or two.
			r.AtMost("flash bytes with retention, second half of first half's", 1.05, pick(o, flash/flat[1], math.NaN()))
			r.AtMost("bytes rewritten by compaction per byte flushed", 0.02, rewritten)
			r.AtMost("space after retention of what is to be kept + 4 WALs", 1.15, float64(diskUse(dir)-4*memTable)/float64(keep))
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
		e := errand{Dir: dir, Shards: shards, Group: [2]int{16, 500}, For: pick(o, 8*time.Second, 1200*time.Millisecond), HangUp: true, Records: 8000}
		if shards == 4 && !o.Quick {
			e.Tables = 200
		}
		f, err := send(ctx, e)
		if err != nil {
			return err
		}
		var opens []float64
		for range pick(o, 5, 1) {
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
			"krecords/s", f.PerSecond/1e3, "resident_MB", f.PeakMB, "with the program's pages_MB", f.PeakAllMB, "of which load_MB", f.PoolMB, "cpu_s/Mrec", f.CPUPerM,
			"tables", float64(f.Tables), "open after kill -9, cold, ms", report.Median(opens))
		switch shards {
		case 4:
			first = f
			r.AtMost("resident MB under full load, 4 shards", 45, f.PeakMB)
			r.AtMost(fmt.Sprintf("open after kill -9, cold, %d tables, ms", f.Tables), 50, report.Median(opens))
		case 32:
			r.AtMost("resident MB under full load, 32 shards", 55, f.PeakMB)
		case 1024:
			r.AtMost("memory, 1,024 shards of 4 shards'", 3, (f.PeakMB-f.PoolMB)/(first.PeakMB-first.PoolMB))
			r.AtMost("CPU per record, 1,024 shards of 4 shards'", 2, f.CPUPerM/first.CPUPerM)
		}
	}
	return nil
}

// measureStored compares a store that holds much with one that holds little, in
// turn: how fast they append and how long they take to open, each time in a process of
// its own and after a close in good order. Only the first open has what the fill left in
// the log and the manifest's history to read.
func measureStored(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	sizes := pick(o, [2]int{1 << 10, 50 << 10}, [2]int{32, 256}) // MiB of record data
	var stores [2]*weir
	defer func() {
		for i, w := range stores {
			if w != nil {
				_ = w.close()
			}
			_ = os.RemoveAll(storedDir(o, i))
		}
	}()
	for i, mb := range sizes {
		w, err := openWeir(vfs.Default, storedDir(o, i), storage.StreamConfig{Name: "load", Shards: 4})
		if err != nil {
			return err
		}
		stores[i] = w
		for held := 0; held < mb; held += 64 {
			if err := fill(ctx, w, samples, 64<<20); err != nil {
				return err
			}
			if held > 0 && held%(4<<10) == 0 {
				o.Logf("stored size: %d MiB of %d", held, mb)
			}
		}
		settle(ctx, w)
	}
	var rates [2][]outcome
	for range pick(o, 5, 3) {
		for i, w := range stores {
			out, err := drive(ctx, w, samples, group{16, 500}, pick(o, 800*time.Millisecond, 200*time.Millisecond))
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], out)
		}
	}
	for i, w := range stores {
		stores[i] = nil
		if err := w.close(); err != nil {
			return err
		}
	}
	var first [2]float64
	var warm, cold [2][]float64 // by whether the files are in the page cache
	for n := range 1 + pick(o, 15, 3) {
		for i := range sizes {
			for _, opens := range []*[2][]float64{&warm, &cold} {
				if opens == &cold {
					if err := dropCaches(storedDir(o, i)); err != nil {
						return err
					}
				}
				f, err := send(ctx, errand{Dir: storedDir(o, i), Shards: 4})
				if err != nil {
					return err
				}
				if n > 0 {
					(*opens)[i] = append((*opens)[i], f.OpenMS)
				} else if opens == &warm {
					first[i] = f.OpenMS
				}
			}
		}
	}
	for i, mb := range sizes {
		r.Add("by what the store holds", fmt.Sprintf("%d MiB of records", mb), "krecords/s", medianOf(rates[i], outcome.perSecond)/1e3,
			"cpu_s/Mrec", medianOf(rates[i], outcome.cpuPerM), "flash B/B", flash(rates[i]), "open_ms", report.Median(warm[i]), "open cold_ms", report.Median(cold[i]), "first open_ms", first[i], "on disk_MB", float64(diskUse(storedDir(o, i)))/1e6)
	}
	r.AtLeast(fmt.Sprintf("append at %d MiB stored of at %d", sizes[1], sizes[0]), 0.9, ratio(rates[1], rates[0], outcome.perSecond))
	r.AtMost(fmt.Sprintf("open at %d MiB stored of at %d", sizes[1], sizes[0]), 2, report.Median(warm[1])/report.Median(warm[0]))
	r.AtMost(fmt.Sprintf("cold open at %d MiB stored of at %d", sizes[1], sizes[0]), 2, report.Median(cold[1])/report.Median(cold[0]))
	return nil
}

func storedDir(o report.Options, i int) string {
	return filepath.Join(o.Dir, fmt.Sprintf("stored-%d", i))
}
