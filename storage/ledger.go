package storage

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
)

// ledgerDays bounds the days kept.
const ledgerDays = 400

// Day is one day's line of the ledger.
type Day struct {
	// Date is the day, UTC, as 2006-01-02, "" in a sum of days.
	Date string
	// Records and BytesIngested (keys and data) count what was accepted.
	Records, BytesIngested uint64
	// BytesWritten counts what the store handed to the device: log, tables
	// and manifest. BytesCompaction are those of it that rewrote older ones: to
	// thin out records or give space back too.
	BytesWritten, BytesCompaction uint64
	// Commits counts syncs.
	Commits uint64
}

// Ledger says what the store wrote to the device, per day, and how long the
// device will bear it.
type Ledger struct {
	// Days are in order, the last one is today. The first of more than 400 holds
	// what was before it, too.
	Days []Day
	// Total is the sum of all days, SinceOpen what was counted since the store was
	// opened. A crash may take the last minutes from the former; the latter never shrinks.
	Total, SinceOpen Day
	// EnduranceBytes is what the device may be written in its life, 0 when not known.
	EnduranceBytes int64
	// BytesPerDay is the mean of the last seven days that were not idle.
	BytesPerDay uint64
	// DaysLeft is the forecast at that pace, counting what the ledger saw; -1
	// when there is none.
	DaysLeft int
}

// ledger keeps the rows of days and what was last seen of running totals.
type ledger struct {
	o  Options
	mu struct {
		sync.Mutex
		days map[uint32]keyspace.LedgerRow
		new  map[uint32]bool    // days whose rows on disk are out of date
		seen keyspace.LedgerRow // totals since the open, when last counted
	}
}

func loadLedger(db *pebble.DB, o Options) (*ledger, error) {
	l := &ledger{o: o}
	l.mu.days, l.mu.new = map[uint32]keyspace.LedgerRow{}, map[uint32]bool{}
	prefix := keyspace.Meta(keyspace.KindLedger)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyspace.AppendPrefixEnd(nil, prefix)})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		k, err := keyspace.ParseMeta(it.Key())
		if err != nil {
			continue
		}
		if row, err := keyspace.DecodeLedger(it.Value()); err == nil {
			l.mu.days[k.ID] = row
		}
	}
	return l, it.Close()
}

// totals returns what was counted since the open.
func totals(db *pebble.DB, c *commit.Committer) keyspace.LedgerRow {
	s, m := c.Stats(), db.Metrics()
	var flushed, compacted uint64
	for i := range m.Levels {
		flushed += m.Levels[i].TableBytesFlushed
		// What is ingested was written anew: by thinning out, by repair, or to give space back.
		compacted += m.Levels[i].TableBytesCompacted + m.Levels[i].TableBytesIngested
	}
	return keyspace.LedgerRow{
		Records: s.Records, Ingested: s.DataBytes + s.KeyBytes, Commits: s.Groups, Compaction: compacted,
		Device: m.WAL.BytesWritten + flushed + compacted,
	}
}

// count adds what was written since the last call to the day of now.
func (l *ledger) count(t keyspace.LedgerRow, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	day := dayOf(now)
	seen := l.mu.seen
	l.mu.days[day] = sum(l.mu.days[day], keyspace.LedgerRow{
		Records: t.Records - seen.Records, Ingested: t.Ingested - seen.Ingested, Device: t.Device - seen.Device,
		Compaction: t.Compaction - seen.Compaction, Commits: t.Commits - seen.Commits,
	})
	l.mu.new[day], l.mu.seen = true, t
}

// stage puts the rows that changed into a batch, yesterday's too when the day has just
// ended, and adds days no longer kept to the oldest one that is: a device does not forget
// what it was written.
func (l *ledger) stage(b *pebble.Batch, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	day := dayOf(now)
	for d := range l.mu.days {
		if d+ledgerDays < day {
			oldest := day - ledgerDays
			l.mu.days[oldest], l.mu.new[oldest] = sum(l.mu.days[oldest], l.mu.days[d]), true
			delete(l.mu.days, d)
			delete(l.mu.new, d)
			if err := b.Delete(keyspace.Meta(keyspace.KindLedger, d), nil); err != nil {
				return err
			}
		}
	}
	for d := range l.mu.new {
		if err := b.Set(keyspace.Meta(keyspace.KindLedger, d), l.mu.days[d].Encode(), nil); err != nil {
			return err
		}
	}
	clear(l.mu.new)
	return nil
}

func sum(a, b keyspace.LedgerRow) keyspace.LedgerRow {
	return keyspace.LedgerRow{
		Records: a.Records + b.Records, Ingested: a.Ingested + b.Ingested, Device: a.Device + b.Device,
		Compaction: a.Compaction + b.Compaction, Commits: a.Commits + b.Commits,
	}
}

func dayFrom(date string, r keyspace.LedgerRow) Day {
	return Day{
		Date: date, Records: r.Records, BytesIngested: r.Ingested,
		BytesWritten: r.Device, BytesCompaction: r.Compaction, Commits: r.Commits,
	}
}

func dayOf(t time.Time) uint32 { return uint32(max(t.Unix(), 0) / 86400) }

// Ledger returns the ledger as of now.
func (s *Store) Ledger() Ledger {
	if s.Failed() == nil && s.env.Enter() == nil {
		s.ledger.count(totals(s.db, s.committer), s.now())
		s.env.Leave()
	}
	return s.ledger.report(s.now())
}

func (l *ledger) report(now time.Time) Ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := Ledger{EnduranceBytes: l.o.EnduranceBytes, DaysLeft: -1, SinceOpen: dayFrom("", l.mu.seen)}
	var total keyspace.LedgerRow
	for _, r := range l.mu.days {
		total = sum(total, r)
	}
	out.Total = dayFrom("", total)
	var recent, recentDays uint64
	today := dayOf(now)
	for d := today - min(today, ledgerDays); d <= today; d++ {
		r, ok := l.mu.days[d]
		if !ok {
			continue
		}
		out.Days = append(out.Days, dayFrom(time.Unix(int64(d)*86400, 0).UTC().Format(time.DateOnly), r))
		if r.Device > 0 && d+7 > today {
			recent += r.Device
			recentDays++
		}
	}
	if recentDays > 0 {
		out.BytesPerDay = recent / recentDays
	}
	if out.BytesPerDay > 0 && out.EnduranceBytes > 0 {
		left := max(0, out.EnduranceBytes-int64(out.Total.BytesWritten))
		out.DaysLeft = int(min(uint64(left)/out.BytesPerDay, 1<<20))
	}
	return out
}
