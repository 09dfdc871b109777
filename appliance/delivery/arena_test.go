package delivery

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestArenaGivesBackWhatItKept fills arenas with records of all sizes for
// groups of all sizes, beyond what they hold too: each slot that is kept gives
// exactly its records in order, those dropped are the last ones, and an arena
// can be used again.
func TestArenaGivesBackWhatItKept(t *testing.T) {
	a := &arena{}
	defer a.free()
	dropped := false
	for round := range 24 {
		rng := rand.New(rand.NewPCG(uint64(round), 1))
		slots := []int{1, 2, 30, 500, 3000}[round%5]
		total := []int{100 << 10, 3 << 20, 12 << 20}[round%3]
		noise := make([]byte, 4<<20)
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		want := make([][][]byte, slots)
		order := []int{}
		needs := make([]int64, slots)
		for size := 0; size < total; {
			n := rng.IntN(400)
			if rng.IntN(50) == 0 {
				n = rng.IntN(200_000)
			}
			data := bytes.Repeat([]byte("the same again "), n/15+1)[:n]
			if round%2 == 0 && n > 0 { // does not compress
				data = noise[rng.IntN(len(noise)-n):][:n]
			}
			i := rng.IntN(slots)
			want[i] = append(want[i], data)
			needs[i] += int64(n) + 5
			order = append(order, i)
			size += n
		}
		if err := a.reset(needs); err != nil {
			t.Fatal(err)
		}
		seen := make([]int, slots)
		for _, i := range order {
			if err := a.add(i, want[i][seen[i]]); err != nil {
				t.Fatal(err)
			}
			seen[i]++
		}
		kept := a.kept()
		dropped = dropped || kept < slots
		if total < arenaBytes && kept < slots {
			t.Errorf("round %d: %d bytes of %d slots: only %d kept", round, total, slots, kept)
		}
		for i := range kept {
			n := 0
			err := a.each(i, func(data []byte) error {
				if n == len(want[i]) || !bytes.Equal(data, want[i][n]) {
					return fmt.Errorf("round %d: slot %d: record %d differs", round, i, n)
				}
				n++
				return nil
			})
			if err != nil || n != len(want[i]) {
				t.Fatalf("slot %d: %d of %d records, %v", i, n, len(want[i]), err)
			}
		}
	}
	if !dropped {
		t.Error("no round had more than an arena holds")
	}
}
