package delivery_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
)

// recordStore is a RecordSink in memory that can refuse, for a time or for good.
type recordStore struct {
	sync.Mutex
	got   []string
	ids   map[string]int
	fail  int    // attempts that fail, half of what they had done
	never string // a record with this text is refused for good, what is before it is taken
	late  sync.WaitGroup
}

func (s *recordStore) Metered() bool { return false }
func (s *recordStore) Close() error  { return nil }
func (s *recordStore) Probe(context.Context) (delivery.Probed, error) {
	return delivery.Probed{Guarantee: delivery.AtLeastOnce}, nil
}

func (s *recordStore) Limits() delivery.BatchLimits {
	return delivery.BatchLimits{Records: 50, DataBytes: 1 << 20}
}

func (s *recordStore) PutRecords(_ context.Context, b *delivery.Batch) (int, error) {
	s.Lock()
	defer s.Unlock()
	s.ids[b.RequestID]++
	for i, r := range b.Records {
		if s.never != "" && strings.Contains(string(r.Data), s.never) {
			for _, r := range b.Records[:i] {
				s.got = append(s.got, string(r.Data))
			}
			// As an HTTP client that is answered before it has sent everything.
			body := b.Throttle(strings.NewReader("the rest"))
			s.late.Go(func() { _, _ = io.Copy(io.Discard, body) })
			return i, &delivery.SinkError{Code: "Test.TooLarge", Refused: true, Permanent: true, Err: errors.New("too large")}
		}
	}
	n := len(b.Records)
	if s.fail > 0 {
		s.fail--
		n /= 2
	}
	for _, r := range b.Records[:n] {
		s.got = append(s.got, string(r.Data))
	}
	if n < len(b.Records) {
		return n, &delivery.SinkError{Code: "Test.Busy", Err: errors.New("busy")}
	}
	return n, nil
}

// TestRequestsInOrderAndGivenUp sends records in requests: what a failed
// attempt had acknowledged is not sent again, and what is refused for good goes
// to the failure target, with what comes behind it in the request and nothing else.
func TestRequestsInOrderAndGivenUp(t *testing.T) {
	sinkOf := &recordStore{ids: map[string]int{}, fail: 5, never: `"n":125,`}
	r := newRig(t, func(o *delivery.Options) {
		folder := o.OpenSink
		o.MaxBackoff = 10 * time.Millisecond
		o.OpenSink = func(target delivery.Target) (delivery.Sink, error) {
			if target.Name == "records" {
				return sinkOf, nil
			}
			return folder(target)
		}
	})
	st := r.stream("s", 1)
	r.put(st, 0, 1000)
	r.create(delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: "records"}, Buffer: delivery.Buffer{SizeBytes: 30_000, Interval: delivery.Every(0)},
		OnFailure: &delivery.OnFailure{Sink: delivery.Target{Name: "folder"}, ErrorPrefix: "failed/", Compression: delivery.Compression{Format: codec.Gzip}},
	})
	r.drained("d")
	sinkOf.late.Wait()
	sinkOf.Lock()
	defer sinkOf.Unlock()
	failed := 0
	for name, raw := range r.objects() {
		if !strings.HasPrefix(name, "failed/http-endpoint-failed/") {
			t.Errorf("object %s", name)
		}
		if !strings.HasSuffix(name, ".gz") {
			t.Errorf("object %s is not compressed", name)
		}
		failed += strings.Count(string(unpack(t, name, raw)), "Test.TooLarge")
	}
	if failed == 0 || failed >= 50 || len(sinkOf.got)+failed != 1000 {
		t.Fatalf("%d records were sent and %d failed, of 1000", len(sinkOf.got), failed)
	}
	last := ""
	at := 0
	for _, data := range sinkOf.got {
		for at < 1000 && string(line(at)) != data {
			at++
		}
		if at == 1000 {
			t.Fatalf("%s after %s", data, last)
		}
		last = data
	}
}
