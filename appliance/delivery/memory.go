package delivery

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// memory is the bound on what all deliveries together hold at a time. Whoever
// makes an object takes its part of it first, in the order of asking, and
// gives it back before it waits for a sink to come back to life. A sink that
// hangs can therefore hold its part for no longer than one attempt, and the
// part of streams whose circuit is open is bounded apart.
type memory struct {
	total  int64
	all    *semaphore.Weighted
	broken *semaphore.Weighted // half, for streams that fail
}

// DefaultMemoryBytes is the default of Options.MemoryBytes.
const DefaultMemoryBytes = 32 << 20

func newMemory(total int64) *memory {
	return &memory{total: total, all: semaphore.NewWeighted(total), broken: semaphore.NewWeighted(total / 2)}
}

// share is what an attempt should take at most, so that two can be under way.
func (m *memory) share() int64 { return m.total / 2 }

// acquire takes n bytes of the bound, or all of it if n is more. failing
// streams take theirs from their own smaller bound first, or all of that: what they
// take is counted in full here, too.
func (m *memory) acquire(ctx context.Context, n int64, failing bool) (release func(), err error) {
	n = min(n, m.total)
	own := min(n, m.total/2)
	if failing {
		if err := m.broken.Acquire(ctx, own); err != nil {
			return nil, err
		}
	}
	if err := m.all.Acquire(ctx, n); err != nil {
		if failing {
			m.broken.Release(own)
		}
		return nil, err
	}
	return func() {
		m.all.Release(n)
		if failing {
			m.broken.Release(own)
		}
	}, nil
}
