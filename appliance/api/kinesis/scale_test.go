package kinesis

import (
	"testing"
	"time"

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
