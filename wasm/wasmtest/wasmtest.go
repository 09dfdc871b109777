// Package wasmtest holds guests that behave and guests that don't, for tests of
// everything that runs modules: small C programs against ABI.md alone, whose
// sources stand in guests/ and whose modules, built by build.sh, are checked in.
//
//	filter   keeps records with "temp" of at least 25 and appends a field
//	pass     leaves every record as it is
//	moods    does what a record's first byte says: drop, fail, trap, spin, lie …
//	counter  a consumer that counts records per key in its state
//	puts     a consumer with one state put per record
//	calls    makes the host call a record describes and answers what came back
//	parts    takes a dynamic partition off the front of each record
//	lines    a plain command that upper-cases lines (WASI)
//	sorted   a plain command that answers when it has read everything (WASI)
//
// It is imported by tests only.
package wasmtest

import (
	"context"
	"embed"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
)

//go:embed modules/*.wasm
var modules embed.FS

// Module returns the bytes of the guest with this name.
func Module(t testing.TB, name string) []byte {
	t.Helper()
	b, err := modules.ReadFile("modules/" + name + ".wasm")
	if err != nil {
		t.Fatalf("no test guest %q", name)
	}
	return b
}

// Runtime returns a runtime that serves weir/1's host calls and is closed when
// the test ends.
func Runtime(t testing.TB, o host.Options) *host.Runtime {
	t.Helper()
	o.Imports = append(o.Imports, guest.Imports()...)
	r, err := host.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Errorf("close runtime: %v", err)
		}
	})
	return r
}

// Until polls a condition and fails the test when it does not come true within a
// minute: how a test waits for what other goroutines do.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// Manifest returns a transform's manifest with these further lines of YAML.
func Manifest(t testing.TB, name string, lines ...string) *manifest.Manifest {
	t.Helper()
	return parse(t, append([]string{"name: " + name, "version: 1.0.0", "kind: transform"}, lines...))
}

// ConsumerManifest returns a consumer's manifest with these further lines.
func ConsumerManifest(t testing.TB, name string, lines ...string) *manifest.Manifest {
	t.Helper()
	return parse(t, append([]string{"name: " + name, "version: 1.0.0", "kind: consumer"}, lines...))
}

func parse(t testing.TB, lines []string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Records makes records with these data, keys k0, k1 … and consecutive indexes.
func Records(data ...string) []guest.Record {
	recs := make([]guest.Record, len(data))
	for i, d := range data {
		recs[i] = guest.Record{Key: fmt.Appendf(nil, "k%d", i), Data: []byte(d), Index: 100 + uint64(i), ArrivalMS: 1700000000000 + int64(i)}
	}
	return recs
}

// SensorRecords makes n JSON records of about size bytes; every other one has a
// temperature of 25 or more.
func SensorRecords(n, size int) []guest.Record {
	recs := make([]guest.Record, n)
	for i := range recs {
		d := fmt.Sprintf(`{"device":"dev-%03d","seq":%d,"temp":%d,"note":"`, i%100, i, 10+30*(i%2))
		d += strings.Repeat("x", max(0, size-len(d)-2)) + `"}`
		recs[i] = guest.Record{Key: fmt.Appendf(nil, "dev-%03d", i%100), Data: []byte(d), Index: uint64(i), ArrivalMS: 1700000000000 + int64(i)}
	}
	return recs
}
