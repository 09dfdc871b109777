package transform_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// open returns a transform over a test guest.
func open(t testing.TB, rt *host.Runtime, name string, m *manifest.Manifest, report *transform.Report) *transform.Transform {
	t.Helper()
	tr := transform.New(transform.Options{
		Manifest: m, Digest: "d1", Instances: 2,
		Load: func(ctx context.Context, n int) (transform.Engines, error) {
			mod, err := rt.Compile(ctx, wasmtest.Module(t, name), host.CompileOptions{Grant: guest.Grant(m)})
			if err != nil {
				return nil, err
			}
			return transform.NewGuestEngines(mod, n, func() guest.Options { return guest.Options{Manifest: m, Limits: m.Limits} })
		},
		Observe: func(r transform.Report) {
			if report != nil {
				*report = r
			}
		},
	})
	t.Cleanup(tr.Close)
	return tr
}

// run processes records and prints the outcome of each.
func run(tr *transform.Transform, recs []transform.Record) (string, error) {
	var b strings.Builder
	err := tr.Process(context.Background(), &transform.Batch{Stream: "s", Shard: 1, TimeMS: 1700000000000, ID: 5, Records: recs}, func(o *transform.Output) error {
		fmt.Fprintf(&b, "%d %s", o.Source, o.Status)
		if o.Data != nil {
			fmt.Fprintf(&b, " data=%q", o.Data)
		}
		if o.Key != nil {
			fmt.Fprintf(&b, " key=%q", o.Key)
		}
		if o.PartitionKey != nil {
			fmt.Fprintf(&b, " partition=%q", o.PartitionKey)
		}
		if o.Out != 0 {
			fmt.Fprintf(&b, " out=%d", o.Out)
		}
		if o.Code != 0 || o.Reason != "" {
			fmt.Fprintf(&b, " code=%#x reason=%q", o.Code, o.Reason)
		}
		b.WriteByte('\n')
		return nil
	})
	return b.String(), err
}

// TestOutcomes drives the moods guest: each input line is a record. The
// interpreter answers as the compiler does.
func TestOutcomes(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		rt := wasmtest.Runtime(t, host.Options{Interpreter: interpreter})
		datadriven.RunTest(t, "testdata/outcomes", outcomes(rt))
	}
}

// TestLimits has guests that spin, recurse and grow among records that don't.
func TestLimits(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		rt := wasmtest.Runtime(t, host.Options{Interpreter: interpreter})
		datadriven.RunTest(t, "testdata/limits", outcomes(rt))
	}
}

func outcomes(rt *host.Runtime) func(t *testing.T, d *datadriven.TestData) string {
	return func(t *testing.T, d *datadriven.TestData) string {
		var lines []string
		for _, a := range d.CmdArgs {
			lines = append(lines, a.Key+": "+strings.Join(a.Vals, ", "))
		}
		var report transform.Report
		m := wasmtest.Manifest(t, "moods", append(lines, "limits: {cpu: 5ms, wall: 1m, memory: 8MiB, log_lines: 3}")...)
		tr := open(t, rt, "moods", m, &report)
		out, err := run(tr, wasmtest.Records(strings.Split(strings.TrimSpace(d.Input), "\n")...))
		if err != nil {
			out += "error: " + err.Error() + "\n"
		}
		return out + fmt.Sprintf("records=%d outputs=%d replaced=%d dropped=%d failed=%d aborts=%d retries=%d\n",
			report.Records, report.Outputs, report.Replaced, report.Dropped, report.Failed, report.Aborts, report.Retries)
	}
}

func TestFilterIsTheSameInterpretedAndCompiled(t *testing.T) {
	recs := wasmtest.SensorRecords(1000, 200)
	recs[17].Data = []byte("no field here")
	var out [2]string
	for i, interpreter := range []bool{false, true} {
		rt := wasmtest.Runtime(t, host.Options{Interpreter: interpreter})
		tr := open(t, rt, "filter", wasmtest.Manifest(t, "filter", "limits: {cpu: 1s, wall: 1m}"), nil)
		var err error
		if out[i], err = run(tr, recs); err != nil {
			t.Fatal(err)
		}
	}
	if out[0] != out[1] {
		t.Fatal("interpreter and compiler differ")
	}
	if n := strings.Count(out[0], "replaced"); n != 499 {
		t.Fatalf("%d records replaced, want 499", n)
	}
	if !strings.Contains(out[0], "17 failed code=0x7") {
		t.Fatalf("record 17 did not fail:\n%s", out[0][:200])
	}
}

// TestPoisonRecordsCostOnlyThemselves checks bisection against a model: where
// in a batch the poison stands changes nothing about the other records.
func TestPoisonRecordsCostOnlyThemselves(t *testing.T) {
	rt := wasmtest.Runtime(t, host.Options{})
	var report transform.Report
	tr := open(t, rt, "moods", wasmtest.Manifest(t, "moods", "limits: {cpu: 2ms}"), &report)
	rapid.Check(t, func(t *rapid.T) {
		moods := []string{"x", "d", "rA", "2B", "f3", "T", "B", "5", "7", ""}
		want := map[string]string{"x": "unchanged", "": "unchanged", "d": "dropped", "rA": "replaced", "2B": "replaced", "f3": "failed", "T": "failed", "B": "failed", "5": "failed", "7": "failed"}
		picked := rapid.SliceOfN(rapid.SampledFrom(moods), 1, 200).Draw(t, "records")
		var got []string
		err := tr.Process(context.Background(), &transform.Batch{Records: wasmtest.Records(picked...)}, func(o *transform.Output) error {
			if o.Source >= len(got) {
				got = append(got, o.Status.String())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range picked {
			if got[i] != want[p] {
				t.Fatalf("record %d %q is %s, want %s", i, p, got[i], want[p])
			}
		}
	})
}

func TestErrorOfEmitEndsTheBatch(t *testing.T) {
	tr := open(t, wasmtest.Runtime(t, host.Options{}), "pass", wasmtest.Manifest(t, "pass"), nil)
	boom := errors.New("boom")
	n := 0
	err := tr.Process(context.Background(), &transform.Batch{Records: wasmtest.Records("a", "b", "c")}, func(*transform.Output) error {
		if n++; n == 2 {
			return boom
		}
		return nil
	})
	if !errors.Is(err, boom) || n != 2 {
		t.Fatalf("Process = %v after %d outputs", err, n)
	}
}

func TestRestAndClose(t *testing.T) {
	tr := open(t, wasmtest.Runtime(t, host.Options{}), "pass", wasmtest.Manifest(t, "pass"), nil)
	for range 3 {
		if _, err := run(tr, wasmtest.Records("a")); err != nil {
			t.Fatal(err)
		}
		tr.Rest()
	}
	tr.Close()
	if _, err := run(tr, wasmtest.Records("a")); !errors.Is(err, transform.ErrClosed) {
		t.Fatalf("Process after Close = %v", err)
	}
}

// TestUnusedTransformRests: what a module has loaded is freed when it had nothing
// to do for a time, not while it has, and comes back with the next batch.
func TestUnusedTransformRests(t *testing.T) {
	rt := wasmtest.Runtime(t, host.Options{})
	bytes := wasmtest.Module(t, "pass")
	synctest.Test(t, func(t *testing.T) {
		const rest = time.Minute
		m, loads := wasmtest.Manifest(t, "pass"), 0
		tr := transform.New(transform.Options{Manifest: m, Rest: rest, Load: func(ctx context.Context, n int) (transform.Engines, error) {
			loads++
			mod, err := rt.Compile(ctx, bytes, host.CompileOptions{})
			if err != nil {
				return nil, err
			}
			return transform.NewGuestEngines(mod, n, func() guest.Options { return guest.Options{Manifest: m, Limits: m.Limits} })
		}})
		defer tr.Close()
		batch := func() {
			t.Helper()
			if out, err := run(tr, wasmtest.Records("a")); err != nil || out != "0 unchanged\n" {
				t.Fatalf("Process = %q, %v", out, err)
			}
			if used, _ := rt.MemoryUsed(); used == 0 {
				t.Fatal("no memory in use after a batch")
			}
		}
		for range 10 { // busier than it takes to rest
			batch()
			wait(rest / 2)
		}
		if loads != 1 {
			t.Fatalf("loaded %d times while at work", loads)
		}
		for cycle := range 3 {
			batch()
			wait(2*rest + 1)
			if used, _ := rt.MemoryUsed(); used != 0 {
				t.Fatalf("%d bytes in use after resting", used)
			}
			if loads != 1+cycle {
				t.Fatalf("loaded %d times; expecting %d", loads, 1+cycle)
			}
		}
	})
}

// wait lets the bubble's time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestModuleThatRefusesItsConfigIsNoRecordsFault(t *testing.T) {
	m := wasmtest.Manifest(t, "calls", "config: {ref: 12345}", "capabilities: {http: {hosts: ['a:1']}}")
	rt := wasmtest.Runtime(t, host.Options{})
	tr := transform.New(transform.Options{Manifest: m, Load: func(ctx context.Context, n int) (transform.Engines, error) {
		mod, err := rt.Compile(ctx, wasmtest.Module(t, "calls"), host.CompileOptions{Grant: func(string) bool { return true }})
		if err != nil {
			return nil, err
		}
		return transform.NewGuestEngines(mod, n, func() guest.Options { return guest.Options{Manifest: m, Limits: m.Limits} })
	}})
	t.Cleanup(tr.Close)
	if out, err := run(tr, wasmtest.Records("c 0")); !errors.Is(err, guest.ErrConfigure) || out != "" {
		t.Fatalf("Process = %q, %v", out, err)
	}
}

func TestImportsThatAreNotGrantedAreRefused(t *testing.T) {
	m := wasmtest.Manifest(t, "counter")
	tr := open(t, wasmtest.Runtime(t, host.Options{}), "counter", m, nil)
	if _, err := run(tr, wasmtest.Records("a")); !errors.Is(err, host.ErrImport) {
		t.Fatalf("Process = %v", err)
	}
}

func TestDeadLetterKeepsTheOriginalBytes(t *testing.T) {
	d := transform.DeadLetter{Module: "m", Code: transform.CodeTrap, Data: []byte{0, 1, 0xff}, PartitionKey: "k\xff"}
	var back transform.DeadLetter
	if err := json.Unmarshal(d.Encode(), &back); err != nil || !bytes.Equal(back.Data, d.Data) || back.PartitionKey != "k\uFFFD" {
		t.Fatalf("%+v, %v", back, err)
	}
}

func TestEachPartitionKey(t *testing.T) {
	got := ""
	transform.EachPartitionKey([]byte("site=a\nbare\n\nx=1=2"), func(n, v []byte) bool {
		got += fmt.Sprintf("%s→%s;", n, v)
		return true
	})
	if got != "site→a;key→bare;x→1=2;" {
		t.Fatal(got)
	}
}

func BenchmarkProcess(b *testing.B) {
	for _, name := range []string{"pass", "filter"} {
		for _, n := range []int{1, 64, 500} {
			b.Run(fmt.Sprintf("%s/records=%d", name, n), func(b *testing.B) {
				tr := open(b, wasmtest.Runtime(b, host.Options{}), name, wasmtest.Manifest(b, name), nil)
				batch := &transform.Batch{Records: wasmtest.SensorRecords(n, 200)}
				emit := func(*transform.Output) error { return nil }
				b.ReportAllocs()
				for b.Loop() {
					if err := tr.Process(context.Background(), batch, emit); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
			})
		}
	}
}
