package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"golang.org/x/sync/errgroup"
)

const (
	batchRecords = 500                    // the limit of PutRecords
	batchAge     = 50 * time.Millisecond  // longest that a reading waits for others
	senders      = 4                      // requests in flight
	sampleEvery  = 250 * time.Millisecond // of the machine's own sensors
)

// series is the readings of one sensor so far: how many were made, and which of
// them the box acknowledged.
type series struct {
	next  uint64 // number of the next reading, from 1
	acked bitset
}

// ledger is what was sent and acknowledged, by sensor: two words for 64
// readings, so that hours of a fast fleet fit into little memory.
type ledger struct {
	mu struct {
		sync.Mutex
		sensors map[string]*series
	}
	sent, acked, bytes atomic.Int64
	unknown            atomic.Int64 // requests whose answer never came: their records may be in the log or not
}

func newLedger() *ledger {
	l := &ledger{}
	l.mu.sensors = map[string]*series{}
	return l
}

// next returns the number of the sensor's next reading.
func (l *ledger) next(sensor string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.mu.sensors[sensor]
	if s == nil {
		s = &series{next: 1}
		l.mu.sensors[sensor] = s
	}
	s.next++
	return s.next - 1
}

// ack notes that a reading is on disk.
func (l *ledger) ack(sensor string, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.sensors[sensor].acked.set(seq)
}

// bitset is a set of small numbers.
type bitset []uint64

func (b *bitset) set(n uint64) {
	for uint64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bitset) has(n uint64) bool {
	return n/64 < uint64(len(b)) && b[n/64]&(1<<(n%64)) != 0
}

// queued is one record on its way, with what it is.
type queued struct {
	sensor string
	seq    uint64
	entry  types.PutRecordsRequestEntry
}

// source makes the readings: the machine's, a few times a second, and the
// fleet's, at its rate.
type source struct {
	ledger  *ledger
	machine *machine
	fleet   fleet
	rate    float64 // readings of the fleet per second
}

// run makes batches until ctx ends, then closes out. When the senders fall
// behind, it waits for them: the fleet slows down, nothing is dropped.
func (s *source) run(ctx context.Context, out chan<- []queued) {
	defer close(out)
	tick := time.NewTicker(batchAge)
	defer tick.Stop()
	begin := time.Now()
	var sampled time.Time
	var made float64
	var pump int
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-tick.C:
		}
		var batch []queued
		if now.Sub(sampled) >= sampleEvery {
			sampled = now
			for _, r := range s.machine.read(now) {
				batch = append(batch, s.record(r.sensor, now, func(uint64) reading { return r }))
			}
		}
		for due := s.rate * now.Sub(begin).Seconds(); s.fleet.n > 0 && made < due; made++ {
			i := pump
			pump = (pump + 1) % s.fleet.n
			batch = append(batch, s.record(s.fleet.name(i), now, func(seq uint64) reading { return s.fleet.read(i, seq) }))
			if len(batch) == batchRecords {
				if !push(ctx, out, batch) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 && !push(ctx, out, batch) {
			return
		}
	}
}

func push(ctx context.Context, out chan<- []queued, batch []queued) bool {
	select {
	case out <- batch:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *source) record(sensor string, now time.Time, read func(seq uint64) reading) queued {
	seq := s.ledger.next(sensor)
	data := read(seq).appendJSON(make([]byte, 0, 112), seq, now)
	return queued{sensor, seq, types.PutRecordsRequestEntry{Data: data, PartitionKey: &sensor}}
}

// send writes the batches through the client until the channel closes. A record
// that the box refuses is sent again; a request whose answer is lost is not, as
// its records may be in the log. ctx cuts off what is in flight.
func send(ctx context.Context, client *kinesis.Client, stream string, l *ledger, in <-chan []queued) error {
	group, ctx := errgroup.WithContext(ctx)
	for range senders {
		group.Go(func() error {
			entries := make([]types.PutRecordsRequestEntry, 0, batchRecords)
			for batch := range in {
				if err := sendBatch(ctx, client, stream, l, batch, entries); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func sendBatch(ctx context.Context, client *kinesis.Client, stream string, l *ledger, batch []queued, entries []types.PutRecordsRequestEntry) error {
	for wait := 10 * time.Millisecond; len(batch) > 0; wait = min(2*wait, time.Second) {
		entries = entries[:0]
		for _, q := range batch {
			entries = append(entries, q.entry)
		}
		l.sent.Add(int64(len(batch)))
		out, err := client.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &stream, Records: entries})
		var refused *types.ProvisionedThroughputExceededException
		switch {
		case errors.As(err, &refused):
		case err != nil:
			l.unknown.Add(int64(len(batch)))
			return fmt.Errorf("put records: %w", err)
		default:
			batch = l.note(batch, out.Records)
		}
		if len(batch) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // refused, and not to be sent again: nothing was promised
		case <-time.After(wait):
		}
	}
	return nil
}

// note acknowledges what was written and returns what was refused.
func (l *ledger) note(batch []queued, results []types.PutRecordsResultEntry) []queued {
	left := batch[:0:0]
	for i, r := range results {
		if r.ErrorCode != nil {
			left = append(left, batch[i])
			continue
		}
		l.ack(batch[i].sensor, batch[i].seq)
		l.acked.Add(1)
		l.bytes.Add(int64(len(batch[i].entry.Data)))
	}
	return left
}
