package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/trust"
)

var sendingFlag = flag.Int("weir.sending-rounds", 15, "how often one of two boxes that send is killed")

// TestEitherBoxKilledWhileSendingLosesNothing has one box send what it is given to
// another, and kills the sender, the receiver or both at random moments: each
// acknowledged record arrives at least once, each writer's in order.
func TestEitherBoxKilledWhileSendingLosesNothing(t *testing.T) {
	up := serve(t, t.TempDir())
	must(t, "stream", "create", "up", "--shards", "2", "--dir", up.dir)
	at, err := url.Parse(up.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	box := serve(t, t.TempDir())
	must(t, "stream", "create", "s", "--shards", "2", "--dir", box.dir)
	id, secret := up.accessKey(t)
	settings, err := json.Marshal(map[string]string{
		"stream": "up", "endpoint": up.endpoint, "access_key_id": id, "secret_access_key": secret,
		"ca_file": filepath.Join(up.dir, "trust", trust.CAFile),
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, "delivery", "create", "d", "--dir", box.dir, "--file", definition(t, delivery.Config{
		Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Kind: "kinesis", Settings: settings},
		Buffer: delivery.Buffer{Interval: delivery.Every(0)},
	}))
	writers := []*writer{{kind: "AWS SDK for Go"}, {kind: "AWS SDK for Go"}, {kind: "AWS SDK for Go"}}
	for i, w := range writers {
		w.id, w.acked = i, map[uint64]bool{}
	}
	for round := range *sendingFlag {
		// The moment of the kill is drawn, not awaited: it is what the test varies.
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+rand.IntN(200))*time.Millisecond)
		var running sync.WaitGroup
		for _, w := range writers {
			send := viaKinesis("s")(t, box)
			running.Go(func() { w.run(ctx, send) })
		}
		<-ctx.Done()
		if round%3 != 1 {
			up.kill(t)
		}
		if round%3 != 0 {
			box.kill(t)
		}
		cancel()
		running.Wait()
		if round%3 != 1 {
			up = serve(t, up.dir, "WEIR_LISTEN_ADDRESS="+at.Host)
		}
		if round%3 != 0 {
			box = serve(t, box.dir)
		}
	}
	must(t, "delivery", "flush", "d", "--wait", "60s", "--dir", box.dir)
	check(t, "first arrivals", firstOnly(read(t, up.kinesis(t), "up")), writers)
}

// firstOnly leaves out what came again.
func firstOnly(shards map[string][]line) map[string][]line {
	out := map[string][]line{}
	for id, lines := range shards {
		seen := map[line]bool{}
		for _, l := range lines {
			if !seen[l] {
				out[id] = append(out[id], l)
			}
			seen[l] = true
		}
	}
	return out
}
