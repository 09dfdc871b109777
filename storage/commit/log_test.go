package commit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirhq/weir/storage/epoch"
)

// runsOf makes runs of ten records and a hundred bytes each, one per end time, in
// epochs 1, 2, ….
func runsOf(endMS ...int64) []epoch.Run {
	var runs []epoch.Run
	for i, ms := range endMS {
		runs = append(runs, epoch.Run{Last: uint64(10 * (i + 1)), Count: 10, Raw: 100, Stored: 50, EndMS: ms, Epoch: uint32(i + 1), Lane: 1})
	}
	return runs
}

func TestFindIsTheRunOrTheNextOne(t *testing.T) {
	runs := runsOf(1, 2, 3, 4)
	runs[2].Last, runs[3].Last = 1030, 1040 // a jump lies before
	l := NewLog(1, 0, 1, CodecZstd, LogState{First: 1, Last: 1040, Next: 1041, Runs: runs, Jumps: []Jump{{21, 1020}}})
	for index, want := range map[uint64]uint32{1: 1, 10: 1, 11: 2, 20: 2, 21: 3, 1000: 3, 1021: 3, 1030: 3, 1031: 4, 1040: 4} {
		if r, ok := l.Find(index); !ok || r.Epoch != want {
			t.Errorf("index %d: epoch %d, %v; want %d", index, r.Epoch, ok, want)
		}
	}
	if r, ok := l.Find(1041); ok {
		t.Errorf("index 1041: %+v", r)
	}
	if n := l.Jumped(15, 2000); n != 1000 {
		t.Errorf("%d jumped, want 1000", n)
	}
	if n := l.Jumped(500, 600); n != 101 {
		t.Errorf("%d jumped within, want 101", n)
	}
}

func TestSizesCountAShareOfTheRunTheyBeginIn(t *testing.T) {
	l := NewLog(1, 0, 1, CodecZstd, LogState{First: 1, Last: 30, Next: 31, Runs: runsOf(1, 2, 3)})
	for index, want := range map[uint64]uint64{0: 300, 1: 300, 6: 250, 10: 210, 11: 200, 21: 100, 30: 10, 31: 0} {
		if raw, stored := l.Sizes(index); raw != want || stored != want/2 {
			t.Errorf("from %d: %d raw, %d stored; want %d and half", index, raw, stored, want)
		}
	}
}

func TestTrimTakesRunsAndTheJumpsBeforeThem(t *testing.T) {
	runs := runsOf(1, 2, 3)
	runs[2].Last = 1030
	l := NewLog(1, 0, 1, CodecZstd, LogState{First: 1, Last: 1030, Next: 1031, Runs: runs, Jumps: []Jump{{21, 1020}}})
	if gone := l.Trim(func(r *epoch.Run) bool { return r.EndMS < 3 }); len(gone) != 2 || l.First() != 21 || len(l.Jumps()) != 1 {
		t.Fatalf("%+v, first %d, jumps %v", gone, l.First(), l.Jumps())
	}
	// A run that may stay keeps all behind it.
	if gone := l.Trim(func(r *epoch.Run) bool { return r.EndMS > 100 }); gone != nil {
		t.Fatalf("%+v", gone)
	}
	l.Trim(func(*epoch.Run) bool { return true })
	if l.First() != 1031 || len(l.Jumps()) != 0 {
		t.Fatalf("first %d, jumps %v", l.First(), l.Jumps())
	}
	if _, ok := l.Oldest(); ok {
		t.Fatal("an empty log has an oldest run")
	}
}

// TestTimesOfALogNeverFall searches by time in logs whose clocks stepped: the times of
// runs are running maxima, before and after a correction.
func TestTimesOfALogNeverFall(t *testing.T) {
	l := NewLog(1, 0, 1, CodecZstd, LogState{First: 1, Last: 50, Next: 51, Runs: runsOf(100, 200, 250, 250, 300)})
	l.ShiftRuns(2, 3, 1000) // epochs 2 and 3 were stamped 1000 ms early
	var got []int64
	for _, r := range l.Runs() {
		got = append(got, r.EndMS)
	}
	if want := "[100 1200 1250 1250 1250]"; fmt.Sprint(got) != want {
		t.Fatalf("times %v, want %v", got, want)
	}
	for ms, want := range map[int64]uint32{0: 1, 100: 1, 101: 2, 1200: 2, 1201: 3, 1250: 3} {
		if r, ok := l.FindTime(ms); !ok || r.Epoch != want {
			t.Errorf("from %d: epoch %d, %v; want %d", ms, r.Epoch, ok, want)
		}
	}
	if _, ok := l.FindTime(1251); ok {
		t.Error("a run is found after the last time")
	}
}

// TestWrittenTimesAreRunningMaxima commits under a clock that steps to and fro: the
// runs, and the directory's epochs, never go back in time.
func TestWrittenTimesAreRunningMaxima(t *testing.T) {
	wall, up := time.UnixMilli(1_800_000_000_000), time.Duration(0)
	rng := rand.New(rand.NewPCG(3, 4))
	b := newBench(t, nil)
	b.c.clock = NewClock(func() time.Time { return wall }, func() time.Duration { return up }, 0)
	logs := []*Log{newTestLog(1), newTestLog(2)}
	for range 40 {
		if err := b.c.Do(func() { wall = wall.Add(time.Duration(rng.IntN(20_000)-10_000) * time.Millisecond) }); err != nil {
			t.Fatal(err)
		}
		tx := b.begin(t, logs[rng.IntN(2)], 1, "x")
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		tx.Recycle()
		if err := b.c.CloseEpoch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range logs {
		var last int64
		for _, r := range l.Runs() {
			if r.EndMS < last {
				t.Fatalf("runs of log %d: %+v", l.ID, l.Runs())
			}
			last = r.EndMS
		}
	}
	entries := b.dir.Entries()
	if len(entries) != 40 {
		t.Fatalf("%d epochs, want 40", len(entries))
	}
	for i := 1; i < len(entries); i++ {
		if entries[i].EndMS < entries[i-1].EndMS {
			t.Fatalf("epoch %d ends at %d, the one before at %d", entries[i].Epoch, entries[i].EndMS, entries[i-1].EndMS)
		}
	}
}

func TestClosedLogTakesNoRecordsAndWakesWhoWaits(t *testing.T) {
	b := newBench(t, nil)
	l := newTestLog(1)
	tx := b.begin(t, l, 1, "before")
	l.Close()
	if _, err := tx.Reserve(l, nil, nil, 1); !errors.Is(err, ErrLogClosed) {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil { // what was reserved before is committed
		t.Fatal(err)
	}
	tx.Recycle()
	woken := make(chan error, 1)
	go func() { woken <- l.Wait(ctx, 2) }()
	eventually(t, "somebody waits", func() bool { return l.wake.waiting.Load() })
	l.Seal()
	if err := <-woken; err != nil || !l.Sealed() || l.Watermark() != 1 {
		t.Fatalf("%v, watermark %d", err, l.Watermark())
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := newTestLog(2).Wait(short, 1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestAutoCodecFollowsTheLoad(t *testing.T) {
	l := newTestLog(1)
	l.SetCodec(CodecAuto)
	var load load
	at := time.UnixMilli(0)
	spend := func(share float64) string {
		for range 11 {
			load.encoded(at, at.Add(time.Duration(share*float64(100*time.Millisecond))))
			at = at.Add(100 * time.Millisecond)
		}
		return l.blockCodec(load.busy).String()
	}
	for _, step := range []struct {
		share float64
		want  string
	}{{0.3, "zstd"}, {0.9, "s2"}, {0.3, "s2"}, {0.1, "zstd"}, {0.5, "zstd"}} {
		if got := spend(step.share); got != step.want {
			t.Fatalf("%v of a core for encoding: %s, want %s", step.share, got, step.want)
		}
	}
	for codec, want := range map[Codec]string{CodecZstd: "zstd", CodecS2: "s2", CodecNone: "raw"} {
		l.SetCodec(codec)
		if got := l.blockCodec(true).String(); got != want {
			t.Errorf("%v under load: %s, want %s", codec, got, want)
		}
	}
}
