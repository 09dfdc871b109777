package kinesis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// scaleModel is a stream that a scaler is shown: its open shards, and the load
// on each as a function of its share of the hash range.
type scaleModel struct {
	shards []shardLoad
	next   record.ShardNumber
	now    time.Time
	s      scaler
}

func newScaleModel(n int, o ScaleOptions) *scaleModel {
	m := &scaleModel{now: time.Unix(1_800_000_000, 0), s: scaler{o: o.withDefaults()}}
	for _, r := range record.SplitRing(n) {
		m.shards = append(m.shards, shardLoad{number: m.next, hash: r})
		m.next++
	}
	return m
}

// share is how much of the hash range a shard has, in 1/65536.
func share(r record.HashRange) uint64 {
	return uint64(r.Last[0])<<8 + uint64(r.Last[1]) - uint64(r.First[0])<<8 - uint64(r.First[1]) + 1
}

// run lets time pass at a rate of records a second over the whole stream.
func (m *scaleModel) run(d time.Duration, rate float64, recordBytes float64, floor int) {
	for end := m.now.Add(d); m.now.Before(end); {
		m.now = m.now.Add(m.s.o.Interval)
		for i := range m.shards {
			l := &m.shards[i]
			l.records += uint64(rate * m.s.o.Interval.Seconds() * float64(share(l.hash)) / 65536)
			l.recordBytes = recordBytes
		}
		for _, step := range m.s.observe(m.now, append([]shardLoad(nil), m.shards...), floor) {
			m.apply(step)
		}
	}
}

func (m *scaleModel) apply(step scaleStep) {
	var out []shardLoad
	for _, l := range m.shards {
		switch {
		case l.number == step.shard && step.split:
			left, right := l.hash, l.hash
			left.Last, _ = step.at.Prev()
			right.First = step.at
			out = append(out, shardLoad{number: m.next, hash: left}, shardLoad{number: m.next + 1, hash: right})
			m.next += 2
		case l.number == step.shard:
			l.number = m.next
			m.next++
			for _, o := range m.shards {
				if o.number == step.other {
					l.hash.Last = o.hash.Last
				}
			}
			l.records = 0
			out = append(out, l)
		case !step.split && l.number == step.other:
		default:
			out = append(out, l)
		}
	}
	m.shards = out
}

func (m *scaleModel) tiles() bool {
	var next record.HashKey
	for i, l := range m.shards {
		if l.hash.First != next && i > 0 {
			return false
		}
		next, _ = l.hash.Last.Next()
	}
	return m.shards[len(m.shards)-1].hash.Last == record.MaxHashKey
}

func TestScalerSplitsUnderLoadAndMergesWhenItIsGone(t *testing.T) {
	m := newScaleModel(4, ScaleOptions{})
	m.run(10*time.Minute, 10_000, 100, 0)
	if n := len(m.shards); n < 12 || n > 32 || !m.tiles() {
		t.Fatalf("at 10,000 records/s: %d shards, tiling %v; want 12 to 32 that tile", n, m.tiles())
	}
	m.run(4*time.Hour, 10, 100, 0)
	if n := len(m.shards); n != 4 || !m.tiles() {
		t.Fatalf("after the load is gone: %d shards, tiling %v; want 4 that tile", n, m.tiles())
	}
}

func TestScalerSplitsForBytesToo(t *testing.T) {
	m := newScaleModel(4, ScaleOptions{})
	m.run(5*time.Minute, 80, 100<<10, 0) // 8 MB/s in 80 records/s
	if n := len(m.shards); n < 8 {
		t.Fatalf("%d shards at 8 MB/s; want at least 8", n)
	}
}

func TestScalerIsSteadyBetweenItsThresholds(t *testing.T) {
	m := newScaleModel(4, ScaleOptions{})
	m.run(2*time.Hour, 4*600, 100, 0) // three fifths of what four shards are meant to take
	if len(m.shards) != 4 || m.next != 4 {
		t.Fatalf("%d shards, %d numbers given out; want the first 4", len(m.shards), m.next)
	}
	// A shard split for its load is not merged again at that load.
	m.run(10*time.Minute, 4*900, 100, 0)
	split := len(m.shards)
	m.run(2*time.Hour, 4*900, 100, 0)
	if split != 8 || len(m.shards) != split {
		t.Fatalf("%d shards after the split, %d two hours later; want 8 both times", split, len(m.shards))
	}
}

func TestScalerKeepsItsBounds(t *testing.T) {
	m := newScaleModel(4, ScaleOptions{MaxShards: 6})
	m.run(time.Hour, 1e6, 100, 0)
	if len(m.shards) != 6 {
		t.Fatalf("%d shards; want the most allowed, 6", len(m.shards))
	}
	m = newScaleModel(8, ScaleOptions{})
	m.run(6*time.Hour, 0, 100, 7)
	if len(m.shards) != 7 {
		t.Fatalf("%d shards; want the warm throughput's 7", len(m.shards))
	}
}

func TestScalerTakesAShortBurstWithoutASplit(t *testing.T) {
	m := newScaleModel(4, ScaleOptions{})
	for range 20 {
		m.run(5*time.Second, 8000, 100, 0)
		m.run(30*time.Second, 100, 100, 0)
	}
	if m.next != 4 {
		t.Fatalf("%d shard numbers given out; want 4", m.next)
	}
}

func TestOnDemandStreamsScaleUnderRealLoad(t *testing.T) {
	b := newBox(t, Options{Scale: ScaleOptions{Interval: time.Second, SplitAfter: 2 * time.Second, MergeAfter: time.Minute, ShardRecordsPerSecond: 100}})
	b.must("CreateStream", `{"StreamName":"d","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	b.create("p", 1)
	scalers := map[uint32]*scaler{}
	put := 0
	tick := func(n int) {
		b.clock.Pass(time.Second)
		for range n {
			put++
			b.put("d", fmt.Sprint("key ", put), "reading")
		}
		scalers = b.scaleAll(context.Background(), scalers)
	}
	open := func() int {
		return b.must("DescribeStreamSummary", `{"StreamName":"d"}`).number("StreamDescriptionSummary", "OpenShardCount")
	}
	for range 6 {
		tick(500)
	}
	if n := open(); n < 8 {
		t.Fatalf("%d open shards at 500 records/s of 100 a shard; want at least 8", n)
	}
	// Clients see the lineage, and the hash range is whole at every step.
	seen := b.must("ListShards", `{"StreamName":"d"}`)
	for i := range seen.list("Shards") {
		if i >= 4 && seen.text("Shards", i, "ParentShardId") == "" {
			t.Fatalf("%v has no parent", seen.at("Shards", i))
		}
	}
	for range 300 {
		tick(0)
	}
	if n := open(); n != 4 {
		t.Fatalf("%d open shards with no load; want 4", n)
	}
	st, err := b.stream([]byte("d"))
	if err != nil {
		t.Fatal(err)
	}
	if infos := st.Shards(); !tiles(openAt(infos, lifetimes(infos), latest(infos, b.clock.Now()))) {
		t.Fatal("the open shards do not tile")
	}
	total := 0
	for _, info := range st.Shards() {
		got, _ := b.read(b.iterator("d", info.Number.String(), "TRIM_HORIZON", ""))
		total += len(got)
	}
	if total != put {
		t.Fatalf("%d of %d records are there", total, put)
	}
	if n := openShards(mustStream(t, b, "p")); n != 1 {
		t.Fatalf("a provisioned stream was scaled to %d shards", n)
	}
}

func mustStream(t *testing.T, b *box, name string) *storage.Stream {
	t.Helper()
	st, err := b.store.Stream(name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestRunScalesUntilItIsStopped(t *testing.T) {
	b := newBox(t, Options{Scale: ScaleOptions{Interval: time.Millisecond, SplitAfter: time.Millisecond, ShardRecordsPerSecond: 1}})
	b.must("CreateStream", `{"StreamName":"d","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	apitest.Until(t, "a shard is split", func() bool {
		b.clock.Pass(time.Second)
		b.must("PutRecords", `{"StreamName":"d","Records":[{"PartitionKey":"k","Data":""},{"PartitionKey":"k","Data":""},{"PartitionKey":"k","Data":""}]}`)
		return openShards(mustStream(t, b, "d")) > 4
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
