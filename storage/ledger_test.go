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
	if after.BytesPerDay != after.Total.BytesWritten/2 {
		t.Fatalf("%d bytes a day of %d in two", after.BytesPerDay, after.Total.BytesWritten)
	}
	if want := (uint64(o.EnduranceBytes) - after.Total.BytesWritten) / after.BytesPerDay; after.DaysLeft != int(want) {
		t.Fatalf("%d days left, want %d", after.DaysLeft, want)
	}
}

// TestLedgerForgetsNothingWritten writes with a clock that was not set, sets it, and lets
// more days pass than are kept: the sum of all days never shrinks, nor after a restart.
func TestLedgerForgetsNothingWritten(t *testing.T) {
	clock := newTestClock()
	clock.step(time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC))
	o := small(vfs.NewMem(), clock)
	s := mustOpen(t, o)
	st := mustCreate(t, s, StreamConfig{Name: "a"})
	var last Day
	records := uint64(0)
	for _, at := range []time.Time{
		{},
		time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC), time.Date(2027, 1, 17, 12, 0, 0, 0, time.UTC),
		time.Date(2028, 2, 20, 12, 0, 0, 0, time.UTC), time.Date(2029, 6, 1, 12, 0, 0, 0, time.UTC),
	} {
		if !at.IsZero() {
			clock.step(at)
			s.ConfirmTime(at)
		}
		put(t, s, st, 10, func(int) (string, string) { return "k", strings.Repeat("x", 1000) })
		records += 10
		s.Ledger() // as a look at the metrics does
		s.saveLedger()
		now := s.Ledger()
		if now.Total.Records != records || now.SinceOpen.Records != records || now.Total.BytesWritten < last.BytesWritten || now.Total.Commits < last.Commits {
			t.Fatalf("%v: %d records written, total %+v, since the open %+v, before %+v", at, records, now.Total, now.SinceOpen, last)
		}
		last = now.Total
	}
	if days := s.Ledger().Days; len(days) != 2 || days[1].Records != 10 {
		t.Fatalf("days %+v", days)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	defer s.Close()
	if now := s.Ledger(); now.Total.Records != records || now.Total.BytesWritten < last.BytesWritten || now.SinceOpen.Records != 0 {
		t.Fatalf("after a restart: total %+v, since the open %+v, before %+v", now.Total, now.SinceOpen, last)
	}
}
