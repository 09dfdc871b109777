package epoch

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func add(d *Directory, lane uint8, e uint32, live int, stored uint64, written bool) {
	d.Add(Entry{Key: Key{lane, e}, Live: live, Stored: stored, Written: written})
}

func TestEpochDiesWithItsLastShardAndItsRow(t *testing.T) {
	d := New()
	add(d, 1, 7, 2, 100, false)
	d.Release(Run{Lane: 1, Epoch: 7, Stored: 60}, false)
	if d.Stored() != 40 || len(d.Dead()) != 0 {
		t.Fatalf("stored %d, dead %+v", d.Stored(), d.Dead())
	}
	d.Release(Run{Lane: 1, Epoch: 7, Stored: 40}, false)
	if len(d.Dead()) != 0 {
		t.Fatal("an epoch whose row is not on disk must stay: recovery would scan for it")
	}
	d.SetWritten([]Key{{1, 7}, {1, 8}})
	dead := d.Dead()
	if want := []Span{{Lane: 1, From: 7, To: 8}}; !reflect.DeepEqual(dead, want) {
		t.Fatalf("dead %+v, want %+v", dead, want)
	}
	d.Remove(dead[0])
	if d.Has(Key{1, 7}) || d.Stored() != 0 || len(d.Entries()) != 0 {
		t.Fatalf("%+v", d.Entries())
	}
	d.Release(Run{Lane: 1, Epoch: 7, Stored: 40}, false) // late, of one that is gone
	if d.Stored() != 0 {
		t.Fatalf("stored %d", d.Stored())
	}
}

func TestDeadEpochsAreJoinedToSpansByLane(t *testing.T) {
	d := New()
	for _, k := range []Key{{2, 5}, {1, 3}, {1, 4}, {1, 6}, {2, 4}, {0, 9}} {
		add(d, k.Lane, k.Epoch, 0, 1, true)
	}
	add(d, 1, 5, 1, 1, true) // still needed: it divides the span
	want := []Span{{Lane: 0, From: 9, To: 10}, {Lane: 1, From: 3, To: 5}, {Lane: 1, From: 6, To: 7}, {Lane: 2, From: 4, To: 6}}
	if got := d.Dead(); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
}

func TestStoredNeverGoesBelowZero(t *testing.T) {
	d := New()
	add(d, 0, 1, 2, 10, true)
	add(d, 0, 2, 1, 7, true)
	d.Shrink(Key{0, 1}, 100)
	d.Shrink(Key{0, 3}, 100)
	if d.Stored() != 7 {
		t.Fatalf("stored %d, want those of the other epoch", d.Stored())
	}
}

// TestDirectoryCountsLikeItsModel releases, shrinks and removes at random and compares
// with plain sums.
func TestDirectoryCountsLikeItsModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	d := New()
	type entry struct {
		stored uint64
		runs   []uint32
	}
	model := map[Key]*entry{}
	for i := range uint32(2000) {
		switch k := (Key{uint8(rng.IntN(3)), uint32(rng.IntN(int(i + 1)))}); rng.IntN(4) {
		case 0:
			k.Epoch = i
			e := &entry{}
			for range 1 + rng.IntN(4) {
				n := rng.Uint32N(1000)
				e.runs, e.stored = append(e.runs, n), e.stored+uint64(n)
			}
			model[k] = e
			add(d, k.Lane, k.Epoch, len(e.runs), e.stored, true)
		case 1, 2:
			if e := model[k]; e != nil && len(e.runs) > 0 {
				d.Release(Run{Lane: k.Lane, Epoch: k.Epoch, Stored: e.runs[0]}, false)
				e.stored -= uint64(e.runs[0])
				e.runs = e.runs[1:]
			}
		case 3:
			for _, s := range d.Dead() {
				d.Remove(s)
				for e := s.From; e < s.To; e++ {
					if m := model[Key{s.Lane, e}]; m == nil || len(m.runs) > 0 {
						t.Fatalf("epoch %d of lane %d is dead, the model has %+v", e, s.Lane, m)
					}
					delete(model, Key{s.Lane, e})
				}
			}
		}
		var want uint64
		for _, e := range model {
			want += e.stored
		}
		if d.Stored() != want || len(d.Entries()) != len(model) {
			t.Fatalf("step %d: stored %d of %d epochs, want %d of %d", i, d.Stored(), len(d.Entries()), want, len(model))
		}
	}
}

func TestRunNamesItsFirstRecord(t *testing.T) {
	r := Run{Last: 10, Count: 4}
	if r.First() != 7 {
		t.Fatal(r.First())
	}
}

// TestShiftHoldsForItsSession covers what was learnt about the clock: a session's
// uncertain stamps are shifted up to the epoch where the time was known.
func TestShiftHoldsForItsSession(t *testing.T) {
	d := New()
	d.SetSession(5, 0, 0)
	d.SetSession(9, 12, 1000)
	d.SetSession(20, 20, -7)
	d.SetSession(20, 21, 500) // learnt more in the same session
	for epoch, want := range map[uint32]int64{1: 0, 5: 0, 8: 0, 9: 1000, 12: 1000, 13: 0, 19: 0, 20: 500, 21: 500, 22: 0} {
		if got := d.ShiftMS(epoch); got != want {
			t.Errorf("epoch %d: shift %d, want %d", epoch, got, want)
		}
	}
}
