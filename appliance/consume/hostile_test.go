package consume_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"testing"

	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// consumer uploads and activates a consumer of any name.
func (b *box) consumer(name, guest, lines string) {
	b.t.Helper()
	ctx := context.Background()
	wasm := wasmtest.Module(b.t, guest)
	d := sha256.Sum256(wasm)
	err := b.modules.Upload(ctx, d[:], bytes.NewReader(wasm))
	if err == nil {
		text := fmt.Sprintf("name: %s\nversion: 1.0.0\nkind: consumer\n%s", name, lines)
		_, err = b.modules.Add(ctx, module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: []byte(text)})
	}
	if err == nil {
		err = b.modules.Activate(ctx, name, "1.0.0")
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestHostileConsumersDoNotStopIngestNorOthers has more consumers that spin than
// there are cores. While each is still at its first record, appends are
// acknowledged and another consumer handles them, in far more steps than a
// starved box could make.
func TestHostileConsumersDoNotStopIngestNorOthers(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 2), b.stream("out", 1)
	b.add("counter", "1.0.0", counting...)
	spinning := runtime.GOMAXPROCS(0) + 2
	for i := range spinning {
		name := fmt.Sprintf("spin%d", i)
		b.put(b.stream(name, 1), "a L")
		b.consumer(name, "moods", fmt.Sprintf("inputs: [%s]\noutputs: [out]\nlimits: {cpu: 10s, wall: 60s}\nbatch: {wait: 1ms}\n", name))
	}
	running := func() (n int) {
		for _, s := range b.engine.Status() {
			if s.Consumer != "c" && s.State == "running" {
				n++
			}
		}
		return n
	}
	wasmtest.Until(t, "all of them spin", func() bool { return running() == spinning })
	for i := range 50 {
		b.put(in, fmt.Sprintf("k%d x", i)) // returns when it is synced
		wasmtest.Until(t, "a record handled", func() bool { return len(records(t, out)) == i+1 })
	}
	if n := running(); n != spinning {
		t.Fatalf("%d of %d attackers are at their first record still: too few to say anything", n, spinning)
	}
}
