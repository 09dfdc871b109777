// Package wasm measures what users' modules cost on the box: per record, per
// instance, per module, and what hostile ones do to their neighbours.
//
// It owns the guests it builds from the SDKs, the ways to run them (plain wazero,
// metered, with WithCloseOnContextDone, interpreted, native Go, Extism's host as a
// peer), the box that hostile ones attack, and the gates. Times of guests are CPU
// time of the thread that runs them, taken in turns: a busy machine disturbs that
// less than wall time. Gates in nanoseconds take the least disturbed tenth of the rounds.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
	sdk "github.com/weirhq/weir/sdk/guest"
)

// run is one run of this benchmark.
type run struct {
	o       report.Options
	r       *report.Report
	root    string // of the repository
	guests  []*guest
	records []record
}

// Run measures. It builds the SDKs' examples first unless sdk/guest/dist has
// them; a language without its toolchain is noted and left out.
func Run(ctx context.Context, o report.Options, r *report.Report) error {
	b := &run{o: o, r: r, records: sensorRecords(500)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := b.findGuests(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"modules side by side", b.sideBySide},
		{"records", b.perRecord},
		{"through the host", b.throughHost},
		{"peer", b.peer},
		{"compile and instantiate", b.compileAndInstantiate},
		{"stateful consumer", b.consumer},
		{"hostile neighbours", b.hostileNeighbours},
	} {
		o.Logf("wasm: %s", part.name)
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// record is one of the 200-byte records, as everything here gets them.
type record struct{ data []byte }

// sensorRecords makes n JSON records of 200 bytes, 11 fields each; temp is the
// eighth, and half of them have one of at least 25.
func sensorRecords(n int) []record {
	out := make([]record, n)
	for i := range out {
		d := fmt.Sprintf(`{"device":"pump-%02d","site":"north","ts":17000000%05d,"seq":%d,"rssi":-71,"humidity":48.25,"pressure":1013.25,"temp":%d.5,"unit":"C","battery":3.71,"fw":"2.14.0"`, i%32, i, i, 15+i%20)
		out[i] = record{fmt.Appendf(nil, "%-199s}", d)}
	}
	return out
}

// guest is a module to measure.
type guest struct {
	language, example string
	config            string
	wasm              []byte
}

func (g *guest) name() string { return g.language + " " + g.example }

// workloads are the SDK examples that are measured, with configurations that
// fit the records: keep the warm half; convert and rename a field.
var workloads = []struct{ example, config string }{
	{"filter", `{"field":"temp","min":25}`},
	{"rename", `{"from":"temp","to":"temp_f","offset":17.77777777777778,"factor":1.8,"decimals":2}`},
}

func (b *run) findGuests(ctx context.Context) error {
	var err error
	if b.root, err = process.Repository(ctx); err != nil {
		return err
	}
	for _, l := range sdk.Languages() {
		for _, w := range workloads {
			if b.o.Quick && w.example != "filter" && l.Name != "c" && l.Name != "go" { // those of the gates
				continue
			}
			wasm, err := b.module(ctx, l, w.example)
			if err != nil {
				b.r.Note("%s: not measured: %v", l.Title, err)
				break
			}
			b.guests = append(b.guests, &guest{language: l.Name, example: w.example, config: w.config, wasm: wasm})
		}
	}
	if len(b.guests) == 0 {
		return errors.New("no guest could be built")
	}
	return nil
}

// threadCPU is the CPU time of this thread, ns.
func threadCPU() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic("BUG: clock_gettime: " + err.Error())
	}
	return t.Nano()
}

// contender is one way to do the same work.
type contender struct {
	name string
	once func() error // does the work for a batch
	per  int          // records in a batch
	ns   []float64    // per record, by round
}

// compare runs the contenders in turns.
func compare(rounds int, all []*contender) error {
	for _, c := range all {
		if err := c.once(); err != nil { // buffers grow in the first batch
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for range rounds {
		for _, c := range all {
			start, n := threadCPU(), 0
			for n == 0 || threadCPU()-start < 10_000_000 {
				for range max(1, 200/c.per) {
					if err := c.once(); err != nil {
						return fmt.Errorf("%s: %w", c.name, err)
					}
					n += c.per
				}
			}
			c.ns = append(c.ns, float64(threadCPU()-start)/float64(n))
		}
	}
	return nil
}

// ratio is the median of the rounds' ratios: what disturbs a round disturbs both.
func ratio(c, base *contender) float64 {
	v := make([]float64, len(c.ns))
	for i := range v {
		v[i] = c.ns[i] / base.ns[i]
	}
	return report.Median(v)
}
