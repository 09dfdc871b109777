package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What has one key is printed in the order it was put, through splits and merges, and
// --from a time leaves out what came before it in every shard.
func TestTailReadsParentsBeforeChildren(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	at := func(args ...string) []string { return append([]string{"--dir", dir}, args...) }
	must(t, at("stream", "create", "s", "--shards", "2")...)
	var all []string
	var middle time.Time
	for round, shards := range []string{"4", "2", "1", "2"} {
		if round == 2 {
			middle = time.Now()
		}
		var lines strings.Builder
		for range 2000 {
			all = append(all, fmt.Sprint(len(all)))
			lines.WriteString(all[len(all)-1] + "\n")
		}
		if r := weirIn(t, lines.String(), nil, at("put", "s", "--key", "k")...); r.code != 0 {
			t.Fatalf("put: %s", r.errout)
		}
		must(t, at("stream", "reshard", "s", "--shards", shards)...)
	}
	want := strings.Join(all, "\n") + "\n"
	if got := must(t, at("tail", "s", "--from", "trim-horizon", "--no-follow", "--raw")...); got != want {
		t.Errorf("%d records, want %d in order: %.200q", strings.Count(got, "\n"), len(all), got)
	}
	want = strings.Join(all[4000:], "\n") + "\n"
	if got := must(t, at("tail", "s", "--from", middle.Format(time.RFC3339Nano), "--no-follow", "--raw")...); got != want {
		t.Errorf("from a time: %d records, want %d in order: %.200q", strings.Count(got, "\n"), len(all)-4000, got)
	}
	b.stop(t)
}
