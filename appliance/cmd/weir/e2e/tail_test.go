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

// TestTailNamesTheStreamThatIsGone: the API answers with its shard.
func TestTailNamesTheStreamThatIsGone(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	must(t, "stream", "create", "s", "--dir", dir)
	var out, errout lockedBuffer
	tail := command(t.Context(), "tail", "s", "--dir", dir, "--from", "trim-horizon", "--raw")
	tail.Stdout, tail.Stderr = &out, &errout
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	must(t, "put", "s", "one", "--dir", dir)
	eventually(t, "tail reads", func() bool { return out.String() == "one\n" })
	fails(t, 2, nil, []string{"tail", "s", "--shard", "shardId-000000000009", "--dir", dir}, "shardId-000000000009 in stream s", "Try: weir stream describe")
	must(t, "stream", "delete", "s", "--yes", "--dir", dir)
	_ = tail.Wait()
	words := []string{"Stream s ", "not found", "Try: weir stream list"}
	if code := tail.ProcessState.ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	wants(t, errout.String(), words...)
	fails(t, 2, nil, []string{"tail", "s", "--shard", "shardId-000000000000", "--dir", dir}, words...)
	b.stop(t)
}
