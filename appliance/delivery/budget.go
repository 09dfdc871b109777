package delivery

import (
	"fmt"
	"time"
)

// budget is what a delivery stream has sent in a month.
type budget struct {
	Month string `json:"month"` // 2026-11, in the stream's zone
	// Bytes sent. The durable row is never less than what was sent: it runs
	// ahead by up to one step, so that a kill forgets nothing.
	Bytes int64 `json:"bytes"`
	// Percent is what the last batch took of the budget for each 100 bytes of
	// the log; 0: not known yet.
	Percent  int64 `json:"percent,omitempty"`
	ahead    int64 // Bytes of the durable row
	reserved int64 // for attempts under way, not sent yet
}

// The step is a 256th of the budget, between these.
const (
	leastBudgetStep = 64 << 10
	mostBudgetStep  = 4 << 20
)

func budgetStep(limit int64) int64 { return min(max(limit/256, leastBudgetStep), mostBudgetStep) }

// spend adds n bytes, starting anew when the month has changed. It says
// whether the durable row has to move ahead.
func (b *budget) spend(now time.Time, n int64) (move bool) {
	b.turn(now)
	b.Bytes += n
	return b.Bytes > b.ahead
}

// turn begins a new month. Bytes are taken back only as time goes on: to a clock that was
// ahead and is set back they count as sent in the month that it shows then.
func (b *budget) turn(now time.Time) {
	switch month := now.Format("2006-01"); {
	case month > b.Month:
		*b = budget{Month: month, Percent: b.Percent, reserved: b.reserved}
	case month < b.Month && now.Add(24*time.Hour).Format("2006-01") != b.Month: // the clock may be corrected by a day
		b.Month = month
	}
}

// expected is what a batch of so many bytes of the log should take: what the
// last one took for each byte, and an eighth more. Before there was one it is
// what the batch takes without compression, as it is or inside JSON.
func (b *budget) expected(logBytes int64, inJSON bool) int64 {
	switch {
	case b.Percent > 0:
		return logBytes * b.Percent / 100 * 9 / 8
	case inJSON:
		return logBytes * 3 / 2
	}
	return logBytes
}

// untilBudget is how long until there is budget for need more bytes; 0 when there
// is. The first batch of a month always has it: that it needs more than a month
// has is only expected.
func (b *budget) untilBudget(now time.Time, limit, need int64) time.Duration {
	counted := *b
	counted.turn(now)
	spent := counted.reserved + counted.Bytes
	if limit == 0 || spent == 0 || spent+need <= limit {
		return 0
	}
	return nextMonth(now).Sub(now)
}

// nextMonth is when the month's budget begins anew, in the zone of now.
func nextMonth(now time.Time) time.Time {
	return time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, now.Location())
}

// short says, for people, why there is no budget for need more bytes, and until when.
func (b *budget) short(now time.Time, limit, need int64) string {
	until := nextMonth(now).Format("until 2006-01-02 15:04 -0700")
	counted := *b
	counted.turn(now)
	left := limit - counted.Bytes
	switch {
	case left <= 0:
		return "the monthly byte budget is spent " + until
	case need > left:
		return fmt.Sprintf("the %d bytes left of the monthly byte budget are too few for a batch of about %d, %s", left, need, until)
	}
	return fmt.Sprintf("what is left of the monthly byte budget, %d bytes, is reserved for batches under way", left)
}
