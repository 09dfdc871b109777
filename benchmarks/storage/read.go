package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// fill appends about total bytes in large batches.
func fill(ctx context.Context, w *weir, samples []sample, total int) error {
	const batch, producers = 500, 8
	var mu sync.Mutex
	left := total
	var wg sync.WaitGroup
	errs := make([]error, producers)
	for p := range producers {
		wg.Go(func() {
			for at := p * batch; ; at += producers * batch {
				b := samples[at%(len(samples)-batch):][:batch]
				mu.Lock()
				left -= bytesOf(b)
				done := left < 0
				mu.Unlock()
				if done {
					return
				}
				if errs[p] = w.append(ctx, b); errs[p] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// replayed is one replay of a whole stream by some consumers.
type replayed struct {
	seconds, cpuS, bytes, records float64
}

func (r replayed) perSecond() float64      { return r.bytes / r.seconds }
func (r replayed) perCore() float64        { return r.bytes / r.cpuS }
func (r replayed) recordsPerCore() float64 { return r.records / r.cpuS }

// replay reads the whole stream with n consumers, each all shards.
func replay(w *weir, consumers, recordsACall int) (replayed, error) {
	type sum struct {
		bytes, records int
		touched        byte
		err            error
	}
	sums := make([]sum, consumers)
	runtime.GC()
	before := usageNow()
	var wg sync.WaitGroup
	for c := range consumers {
		wg.Go(func() {
			var s sum
			defer func() { sums[c] = s }()
			for _, info := range w.stream.Shards() {
				if s.err = replayShard(w, info.Number, recordsACall, func(r *record.Record) bool {
					s.bytes += len(r.Data)
					s.records++
					s.touched ^= r.Data[len(r.Data)-1]
					return true
				}); s.err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	after := usageNow()
	out := replayed{seconds: after.at.Sub(before.at).Seconds(), cpuS: (after.cpu - before.cpu).Seconds()}
	var errs []error
	for i := range sums {
		out.bytes += float64(sums[i].bytes)
		out.records += float64(sums[i].records)
		errs = append(errs, sums[i].err)
	}
	return out, errors.Join(errs...)
}

func replayShard(w *weir, n record.ShardNumber, recordsACall int, fn func(*record.Record) bool) error {
	r, err := w.stream.NewReader(n, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		n, err := r.Read(recordsACall, 10<<20, fn)
		if errors.Is(err, io.EOF) || (err == nil && n == 0) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// dropCaches asks the kernel to forget the pages of the files below dir.
func dropCaches(dir string) error {
	unix.Sync()
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a table that was merged
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

func measureReplay(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	dir := filepath.Join(o.Dir, "replay")
	defer os.RemoveAll(dir)
	size, rounds := pick(o, 300<<20, 60<<20), pick(o, 5, 3)
	w, err := openWeir(vfs.Default, dir, storage.StreamConfig{Name: "load", Shards: 4})
	if err != nil {
		return err
	}
	if err := fill(ctx, w, samples, size); err != nil {
		return errors.Join(err, w.close())
	}
	if err := w.close(); err != nil {
		return err
	}
	if w, err = openWeir(vfs.Default, dir, storage.StreamConfig{Name: "load", Shards: 4}); err != nil {
		return err
	}
	defer w.close()
	settle(ctx, w)
	zstd, err := codecNamed("zstd")
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name      string
		consumers int
		call      int
		cold      bool
	}{
		{"1 consumer, cold", 1, 10000, true},
		{"1 consumer, warm", 1, 10000, false},
		{"5 consumers, cold", 5, 10000, true},
		{"5 consumers, warm", 5, 10000, false},
		{"1 consumer, 100 records a call", 1, 100, false},
	} {
		var runs []replayed
		var decoder, ofDecoder []float64
		for range rounds {
			if err := ctx.Err(); err != nil {
				return err
			}
			if c.cold {
				if err := dropCaches(dir); err != nil {
					return err
				}
			}
			run, err := replay(w, c.consumers, c.call)
			if err != nil {
				return err
			}
			runs = append(runs, run)
			if c.name != "1 consumer, warm" {
				continue
			}
			// At once after each replay, while the machine is what it was.
			alone, err := zstd.decodes(samples)
			if err != nil {
				return err
			}
			decoder, ofDecoder = append(decoder, alone), append(ofDecoder, run.perCore()/alone)
		}
		of := func(f func(replayed) float64) float64 {
			var v []float64
			for _, run := range runs {
				v = append(v, f(run))
			}
			return report.Median(v)
		}
		perCore := of(replayed.perCore) / 1e6
		r.Add("replay", c.name, "MB/s of one core", perCore, "Mrec/s of one core", of(replayed.recordsPerCore)/1e6, "MB/s", of(replayed.perSecond)/1e6)
		switch c.name {
		case "1 consumer, warm":
			r.AtLeast("replay, warm, MB/s of one core", 1000, perCore)
			r.AtLeast("replay, warm, of what zstd's decoder alone does", 0.75, report.Median(ofDecoder))
			r.Add("replay", "zstd's decoder alone", "MB/s of one core", report.Median(decoder)/1e6)
			r.AtLeast("replay, warm, records/s of one core", 4.5e6, of(replayed.recordsPerCore))
		case "1 consumer, 100 records a call":
			r.AtLeast("replay, 100 records a call, MB/s of one core", 300, perCore)
		}
	}
	return nil
}

// measureTail measures from the return of the append, which is the publication
// of the watermark, to the record in the consumer's hands. A round lasts little more than
// a second, and one pause of the machine is a hundredth of it: so it takes several.
func measureTail(ctx context.Context, o report.Options, r *report.Report, samples []sample) error {
	dir := filepath.Join(o.Dir, "tail")
	defer os.RemoveAll(dir)
	w, err := openWeir(vfs.Default, dir, storage.StreamConfig{Name: "load", Shards: 1})
	if err != nil {
		return err
	}
	defer w.close()
	counts := []int{1, 5}
	p50, p99 := make([][]float64, len(counts)), make([][]float64, len(counts))
	for range pick(o, 7, 3) {
		for i, consumers := range counts {
			lat, err := tail(ctx, w, samples, consumers, pick(o, 10_000, 2000))
			if err != nil {
				return err
			}
			p50[i] = append(p50[i], report.QuantileMS(lat, 0.5))
			p99[i] = append(p99[i], report.QuantileMS(lat, 0.99))
		}
	}
	for i, consumers := range counts {
		r.Add("tail: commit returned to record read, single records", fmt.Sprintf("%d consumers", consumers),
			"p50_ms", report.Median(p50[i]), "p99_ms", report.Median(p99[i]), "p99_ms, best round", slices.Min(p99[i]), "p99_ms, worst round", slices.Max(p99[i]))
		if consumers == 5 {
			r.AtMost("tail p99, 5 consumers, ms", 0.25, report.Median(p99[i]))
		}
	}
	return nil
}

func tail(ctx context.Context, w *weir, samples []sample, consumers, n int) ([]time.Duration, error) {
	runtime.GC()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	acked := make([]time.Time, n)
	seen := make([][]time.Time, consumers)
	errs := make([]error, consumers)
	var ready, wg sync.WaitGroup
	ready.Add(consumers)
	for c := range consumers {
		seen[c] = make([]time.Time, 0, n)
		wg.Go(func() {
			rd, err := w.stream.NewReader(0, storage.Position{Kind: storage.Latest})
			ready.Done()
			if err != nil {
				errs[c] = err
				return
			}
			defer rd.Close()
			for len(seen[c]) < n {
				if errs[c] = rd.Wait(ctx); errs[c] != nil {
					return
				}
				if _, errs[c] = rd.Read(1000, 1<<20, func(*record.Record) bool {
					seen[c] = append(seen[c], time.Now())
					return true
				}); errs[c] != nil {
					return
				}
			}
		})
	}
	ready.Wait()
	for i := range n {
		if err := w.append(ctx, samples[i:i+1]); err != nil {
			return nil, err
		}
		acked[i] = time.Now()
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	lat := make([]time.Duration, 0, consumers*n)
	for c := range consumers {
		for i := range n {
			lat = append(lat, max(0, seen[c][i].Sub(acked[i])))
		}
	}
	return lat, nil
}
