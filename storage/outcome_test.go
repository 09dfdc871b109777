package storage

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gone is the context of who goes away while what was asked for is being done.
type gone struct{ context.Context }

func (gone) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

// TestWhoGoesAwayLeavesNothingHalfDone: what the store does next goes by what is on the
// disk, or a stream takes records that are gone with the next open.
func TestWhoGoesAwayLeavesNothingHalfDone(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs, nil))
	mustCreate(t, s, StreamConfig{Name: "a"})
	mustCreate(t, s, StreamConfig{Name: "b", Retention: time.Hour})
	if err := s.DeleteStream(gone{ctx}, "a"); err != nil {
		t.Errorf("delete: %v", err)
	}
	again, err := s.CreateStream(gone{ctx}, StreamConfig{Name: "a"})
	if err != nil {
		if again, err = s.Stream("a"); err != nil {
			t.Fatal(err)
		}
	}
	b, err := s.Stream("b")
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Update(gone{ctx}, func(c *StreamConfig) { c.Retention = 48 * time.Hour })
	_ = b.UpdateShardCount(gone{ctx}, 3)
	for _, st := range []*Stream{again, b} {
		put(t, s, st, 100, func(i int) (string, string) { return fmt.Sprint(i), "acknowledged" })
	}
	state := func() string {
		out := ""
		for _, st := range s.Streams() {
			out += fmt.Sprintln(st.Name(), st.ID(), st.Config(), readAll(t, st))
		}
		return out
	}
	before := state()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, small(fs, nil))
	defer s.Close()
	if after := state(); after != before {
		t.Errorf("opened again:\n%s\nbefore:\n%s", after, before)
	}
}
