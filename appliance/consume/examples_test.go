package consume_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// TestSDKExamplesConsume runs the consumers among the guest SDKs' examples, in
// every language, from a stream in a store to the records they emit there.
func TestSDKExamplesConsume(t *testing.T) {
	const guests = "../../sdk/guest"
	if out, err := exec.CommandContext(t.Context(), "bash", guests+"/build.sh").CombinedOutput(); err != nil {
		t.Fatalf("build examples: %v\n%s\nTry: sdk/guest/install.sh", err, out)
	}
	readings, minutes := minutesOfReadings()
	for _, language := range []string{"c", "go", "rust", "assemblyscript"} {
		t.Run(language, func(t *testing.T) {
			// With a cache, as on the box: Go's modules are large, and are loaded twice here.
			b := openBox(t, t.TempDir(), func(o *module.Options) { o.Runtime = wasmtest.Runtime(t, host.Options{CacheDir: t.TempDir()}) })
			in := b.stream("readings", 1)
			emitted := map[string]int{"minutes": len(minutes), "alerts": 1}
			for name := range emitted {
				b.stream(name, 1)
			}
			for _, example := range []string{"downsample", "anomaly"} {
				b.addExample(filepath.Join(guests, "dist", language, example))
			}
			// in pieces, so that windows are kept in the state between batches
			for part := range slices.Chunk(readings, 70) {
				b.put(in, part...)
			}
			for name, n := range emitted {
				out, err := b.store.Stream(name)
				if err != nil {
					t.Fatal(err)
				}
				wasmtest.Until(t, fmt.Sprintf("%d records in %s", n, name), func() bool { return len(records(t, out)) >= n })
				got := records(t, out)
				if name == "minutes" && !slices.Equal(got, minutes) {
					t.Errorf("minutes %q, expecting %q", got, minutes)
				}
				if name == "alerts" && (len(got) != 1 || got[0][:len(alertStart)] != alertStart) {
					t.Errorf("alerts %q, expecting one that begins %s", got, alertStart)
				}
			}
		})
	}
}

const alertStart = `pump-2 {"device":"pump-2","value":500,`

// minutesOfReadings makes readings of two devices, one a second for three
// minutes, and the records that downsample makes of all but the last minute. They
// lie in the future, where no tick ends a window.
func minutesOfReadings() (readings, minutes []string) {
	const start int64 = 4000000020000 // a full minute
	for i := range 180 {
		for device := 1; device <= 2; device++ {
			v := float64(20*device) + float64(i%7)/8
			if device == 2 && i == 100 {
				v = 500
			}
			readings = append(readings, fmt.Sprintf(`pump-%d {"device":"pump-%d","ts":%d,"value":%v}`, device, device, start+1000*int64(i), v))
		}
	}
	for minute := range 2 {
		for device := 1; device <= 2; device++ {
			sum, least, most := 0.0, math.Inf(1), math.Inf(-1)
			for i := 60 * minute; i < 60*minute+60; i++ {
				v := float64(20*device) + float64(i%7)/8
				if device == 2 && i == 100 {
					v = 500
				}
				sum, least, most = sum+v, math.Min(least, v), math.Max(most, v)
			}
			mean := math.Floor(sum/60*1000+0.5) / 1000
			minutes = append(minutes, fmt.Sprintf(`pump-%d {"device":"pump-%d","window":%d,"count":60,"mean":%v,"min":%v,"max":%v}`,
				device, device, start+60000*int64(minute), mean, least, most))
		}
	}
	return readings, minutes
}

// addExample uploads and activates base.wasm with base.yaml.
func (b *box) addExample(base string) {
	b.t.Helper()
	wasm, err := os.ReadFile(base + ".wasm")
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := os.ReadFile(base + ".yaml")
	if err != nil {
		b.t.Fatal(err)
	}
	d := sha256.Sum256(wasm)
	if err := b.modules.Upload(b.t.Context(), d[:], bytes.NewReader(wasm)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.modules.Add(b.t.Context(), module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: text}); err != nil {
		b.t.Fatal(err)
	}
	if err := b.modules.Activate(b.t.Context(), filepath.Base(base), "1.0.0"); err != nil {
		b.t.Fatal(err)
	}
}
