package e2e

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// read returns the records of each shard, in order, from the oldest on.
func read(t *testing.T, client *kinesis.Client, stream string) map[string][]line {
	t.Helper()
	shards, err := client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &stream})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]line{}
	for _, sh := range shards.Shards {
		it, err := client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{StreamName: &stream, ShardId: sh.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
		if err != nil {
			t.Fatal(err)
		}
		for next := it.ShardIterator; next != nil; {
			out, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Records {
				all[*sh.ShardId] = append(all[*sh.ShardId], parse[line](t, string(r.Data)))
			}
			next = out.NextShardIterator
			if len(out.Records) == 0 && *out.MillisBehindLatest == 0 {
				break
			}
		}
	}
	return all
}

// check holds what was read against what was acknowledged: each acknowledged
// record once, no record twice, each writer's in order.
func check(t *testing.T, where string, shards map[string][]line, writers []*writer) {
	t.Helper()
	seen := map[line]bool{}
	for id, lines := range shards {
		last := map[int]int64{}
		for _, l := range lines {
			if seen[l] {
				t.Errorf("%s: %s: record %d of writer %d is there twice", where, id, l.Seq, l.Writer)
			}
			seen[l] = true
			if before, ok := last[l.Writer]; ok && int64(l.Seq) <= before {
				t.Errorf("%s: %s: record %d of writer %d comes after %d", where, id, l.Seq, l.Writer, before)
			}
			last[l.Writer] = int64(l.Seq)
		}
	}
	acked, missing := 0, 0
	for _, w := range writers {
		for seq := range w.acked {
			acked++
			if !seen[line{w.id, seq}] {
				if missing++; missing <= 10 {
					t.Errorf("%s: record %d of writer %d was acknowledged and is not there", where, seq, w.id)
				}
			}
		}
	}
	t.Logf("%s: %d records, %d acknowledged, %d of these missing", where, len(seen), acked, missing)
}

// verified is what `weir verify --json` prints, as far as this test looks.
type verified struct {
	OK bool `json:"ok"`
}

func TestKilledAtRandomMomentsLosesAndRepeatsNothing(t *testing.T) {
	dir := t.TempDir()
	objects := t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "killed", "--shards", "3")
	must(t, "--dir", dir, "delivery", "create", "out", "--stream", "killed", "--to", "file://"+objects, "--interval", "1s", "--size", "1MiB")
	directly := t.TempDir()
	must(t, "--dir", dir, "delivery", "create", "direct", "--to", "file://"+directly, "--interval", "1s", "--size", "1MiB")
	writers := []*writer{
		{kind: "AWS SDK for Go", connect: viaKinesis("killed")},
		{kind: "AWS SDK for Go", connect: viaKinesis("killed")},
		{kind: "plain HTTP", connect: viaHTTP("killed")},
		{kind: "boto3", connect: viaBoto3(t, "killed")},
		{kind: "Firehose", connect: viaFirehose("direct")},
	}
	for i, w := range writers {
		w.id, w.acked = i, map[uint64]bool{}
	}
	for round := range *roundsFlag {
		if round > 0 {
			b = serve(t, dir)
		}
		// The moment of the kill is drawn, not awaited: it is what the test varies.
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+rand.IntN(400))*time.Millisecond)
		var running sync.WaitGroup
		for _, w := range writers {
			send := w.connect(t, b)
			running.Go(func() { w.run(ctx, send) })
		}
		<-ctx.Done()
		b.kill(t)
		cancel()
		running.Wait()
		if round%10 == 9 {
			if out := parse[verified](t, must(t, "--dir", dir, "verify", "--json")); !out.OK {
				t.Fatalf("round %d: verify found damage", round)
			}
		}
	}
	for _, w := range writers {
		t.Logf("writer %d, %s: %d records sent, %d acknowledged", w.id, w.kind, w.next, len(w.acked))
		if len(w.acked) == 0 {
			t.Errorf("writer %d, %s: not one record was acknowledged", w.id, w.kind)
		}
	}
	writers, direct := writers[:4], writers[4:]
	b = serve(t, dir)
	shards := read(t, b.kinesis(t), "killed")
	check(t, "log", shards, writers)
	must(t, "--dir", dir, "delivery", "flush", "out", "--wait", "60s")
	must(t, "--dir", dir, "delivery", "flush", "direct", "--wait", "60s")
	shardOf := map[int]string{}
	for id, lines := range shards {
		for _, l := range lines {
			shardOf[l.Writer] = id
		}
	}
	delivered := readObjects(t, objects, shardOf)
	check(t, "objects", delivered, writers)
	compare(t, shards, delivered)
	check(t, "objects of direct puts", readObjects(t, directly, map[int]string{}), direct)
	if code := b.stop(t); code != 0 {
		t.Errorf("SIGTERM: exit code %d, want 0\n%s", code, b.log)
	}
}

// compare holds the objects against the log: the same records, in the same order in each shard.
func compare(t *testing.T, log, objects map[string][]line) {
	t.Helper()
	for id, lines := range log {
		got := objects[id]
		if len(got) != len(lines) {
			t.Errorf("%s: %d records in objects, %d in the log", id, len(got), len(lines))
			continue
		}
		for i := range lines {
			if got[i] != lines[i] {
				t.Errorf("%s: record %d is %v in objects, %v in the log", id, i, got[i], lines[i])
				break
			}
		}
	}
}
