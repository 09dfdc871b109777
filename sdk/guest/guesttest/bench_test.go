package guesttest

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/transform"
)

// sensorRecords makes n JSON records of 200 bytes, 11 fields each; temp is the
// eighth, and half of them have one of at least 25.
func sensorRecords(n int) []Record {
	out := make([]Record, n)
	for i := range out {
		d := fmt.Sprintf(`{"device":"pump-%02d","site":"north","ts":17000000%05d,"seq":%d,"rssi":-71,"humidity":48.25,"pressure":1013.25,"temp":%d.5,"unit":"C","battery":3.71,"fw":"2.14.0"`, i%32, i, i, 15+i%20)
		out[i] = Record{Key: "k", Data: fmt.Sprintf("%-199s}", d), TimestampMS: 1700000000000}
	}
	return out
}

// workloads are what the figures in README.md are about: keep the warm half, and
// convert and rename a field.
var workloads = []struct{ name, example, config string }{
	{"filter", "filter", `{"field":"temp","min":25}`},
	{"rename", "rename", `{"from":"temp","to":"temp_f","offset":17.77777777777778,"factor":1.8,"decimals":2}`},
}

// BenchmarkGuest runs guests by themselves on plain wazero: one weir_process call
// per batch, nothing read back. ns/record is the guest's own time.
func BenchmarkGuest(b *testing.B) {
	eachGuest(b, func(b *testing.B, language, example, config string, records []Record) {
		h, err := NewHost(b.Context(), false)
		if err != nil {
			b.Fatal(err)
		}
		defer h.Close(context.Background())
		g, err := h.Instantiate(b.Context(), dist(b, language, example), config)
		if err != nil {
			b.Fatal(err)
		}
		n, err := g.Load(b.Context(), 1, records)
		if err != nil {
			b.Fatal(err)
		}
		loop(b, len(records), func() error {
			_, err := g.Call(b.Context(), n)
			return err
		})
	})
}

// BenchmarkMetered is BenchmarkGuest on the box's host: metered and limited, and
// with the input region written and the answer checked for every batch. fuel/record,
// the operators executed, is the same on every run and machine: tune by it.
func BenchmarkMetered(b *testing.B) {
	eachGuest(b, func(b *testing.B, language, example, config string, records []Record) {
		m := boxed(readManifest(b, example))
		m.Config = []byte(config)
		mod := openBox(b, false).compile(b, m, language, example)
		g := guest.New(guest.Options{Manifest: m, Limits: m.Limits})
		inst, err := mod.Instantiate(b.Context(), g.InstanceOptions())
		if err != nil {
			b.Fatal(err)
		}
		defer inst.Close()
		if err := g.Bind(b.Context(), inst); err != nil {
			b.Fatal(err)
		}
		batch := &guest.Batch{Stream: "s", TimeMS: 1, Records: boxRecords(records)}
		loop(b, len(records), func() error {
			_, err := g.Process(b.Context(), batch)
			return err
		})
		fuel, _ := g.Used()
		b.ReportMetric(float64(fuel)/float64(len(records)), "fuel/record")
	})
}

// BenchmarkTransform is all of it, as a delivery sees it: wasm/transform with an
// output for each record.
func BenchmarkTransform(b *testing.B) {
	eachGuest(b, func(b *testing.B, language, example, config string, records []Record) {
		m := boxed(readManifest(b, example))
		m.Config = []byte(config)
		tr := openTransform(b, openBox(b, false), m, language, example)
		batch := &transform.Batch{Stream: "s", TimeMS: 1, Records: boxRecords(records)}
		loop(b, len(records), func() error {
			return tr.Process(b.Context(), batch, func(*transform.Output) error { return nil })
		})
	})
}

// loop runs batch until the benchmark has enough and reports what a record took:
// wall time, and the thread's CPU time, which a busy machine disturbs less.
func loop(b *testing.B, records int, batch func() error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := batch(); err != nil { // buffers grow in the first batch
		b.Fatal(err)
	}
	start := threadCPU(b)
	for b.Loop() {
		if err := batch(); err != nil {
			b.Fatal(err)
		}
	}
	per := float64(b.N) * float64(records)
	b.ReportMetric(float64(threadCPU(b)-start)/per, "cpu-ns/record")
	b.ReportMetric(float64(b.Elapsed())/per, "ns/record")
}

func threadCPU(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func eachGuest(b *testing.B, run func(b *testing.B, language, example, config string, records []Record)) {
	for _, w := range workloads {
		for _, language := range languages {
			b.Run(fmt.Sprintf("%s/language=%s", w.name, language), func(b *testing.B) {
				run(b, language, w.example, w.config, sensorRecords(500))
			})
		}
	}
}

func boxRecords(records []Record) []guest.Record {
	out := make([]guest.Record, len(records))
	for i, r := range records {
		out[i] = guest.Record{Key: []byte(r.Key), Data: []byte(r.Data), ArrivalMS: r.TimestampMS, Index: uint64(i)}
	}
	return out
}

// BenchmarkInstantiate is what a new instance costs, its memory included.
func BenchmarkInstantiate(b *testing.B) {
	for _, language := range languages {
		b.Run("language="+language, func(b *testing.B) {
			mod := openBox(b, false).compile(b, boxed(readManifest(b, "filter")), language, "filter")
			var memory int64
			for b.Loop() {
				inst, err := mod.Instantiate(b.Context(), host.InstanceOptions{})
				if err != nil {
					b.Fatal(err)
				}
				memory = inst.MemoryBytes()
				if err := inst.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(memory)/1024, "KiB/instance")
		})
	}
}
