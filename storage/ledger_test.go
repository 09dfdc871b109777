package storage

import (
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLedgerAndForecastSurviveRestarts looks at the ledger just before midnight, as
// whoever scrapes metrics does, and closes the store after it: no byte of either day is
// lost, and the forecast goes on from them.
func TestLedgerAndForecastSurviveRestarts(t *testing.T) {
	clock := newTestClock()
	clock.step(time.Date(2027, 1, 15, 23, 59, 50, 0, time.UTC))
	o := small(vfs.NewMem(), clock)
	o.EnduranceBytes = 100 << 20
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	write := func() {
		put(t, s, st, 100, func(int) (string, string) { return "k", strings.Repeat("x", 1000) })
	}
	write()
	if day := s.Ledger().Days; len(day) != 1 || day[0].Date != "2027-01-15" || day[0].Records != 100 {
		t.Fatalf("before midnight: %+v", day)
	}
	clock.pass(20 * time.Second)
	write()
	before := s.Ledger()
	if len(before.Days) != 2 || before.Days[1].Date != "2027-01-16" || before.Days[1].Records != 100 {
		t.Fatalf("after midnight: %+v", before.Days)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, o)
	}
	defer s.Close()
	after := s.Ledger()
	for i, d := range before.Days {
		if got := after.Days[i]; got.Date != d.Date || got.Records != d.Records || got.BytesIngested != d.BytesIngested || got.BytesWritten < d.BytesWritten {
			t.Fatalf("%+v before the restarts, %+v after", d, got)
		}
	}
	if after.BytesPerDay != after.BytesWritten/2 {
		t.Fatalf("%d bytes a day of %d in two", after.BytesPerDay, after.BytesWritten)
	}
	if want := (uint64(o.EnduranceBytes) - after.BytesWritten) / after.BytesPerDay; after.DaysLeft != int(want) {
		t.Fatalf("%d days left, want %d", after.DaysLeft, want)
	}
}
