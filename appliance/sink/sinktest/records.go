package sinktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
)

// Records is a sink of records under test and how to look behind it.
type Records struct {
	Sink delivery.RecordSink
	// Received returns the data of all records that arrived, in order.
	Received func() []string
	Faults   *Proxy
	// Lock makes the server refuse the sink, as it does when credentials have
	// expired, and lets it in again.
	Lock func(locked bool)
}

// RequestIDs are those of the suite's batches, in order.
var RequestIDs = []string{"request-0", "request-1", "request-2", "request-3"}

// Batch makes the n-th batch with the given data. As where batches come from, what its
// Throttle returns can only be read.
func Batch(n int, data ...string) *delivery.Batch {
	b := &delivery.Batch{
		RequestID: RequestIDs[n], Delivery: "d", Time: time.Unix(1_700_000_000, 0),
		Throttle: func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
	}
	for i, d := range data {
		b.Records = append(b.Records, delivery.OutRecord{Index: uint64(i + 1), PartitionKey: []byte("k"), Data: []byte(d), Arrival: b.Time})
	}
	return b
}

// RunRecords runs the suite on sinks that open makes, one for each case.
func RunRecords(t *testing.T, open func(t *testing.T) Records) {
	t.Run("sends in order", func(t *testing.T) {
		r := open(t)
		var want []string
		for n := range 3 {
			data := []string{fmt.Sprintf("a%d", n), "", fmt.Sprintf("ü%d", n)}
			want = append(want, data...)
			done, err := r.Sink.PutRecords(t.Context(), Batch(n, data...))
			if err != nil || done != 3 {
				t.Fatalf("batch %d: %d, %v", n, done, err)
			}
		}
		if got := r.Received(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("received %q, want %q", got, want)
		}
	})
	for _, f := range Faults {
		t.Run("survives "+f.Name, func(t *testing.T) {
			r := open(t)
			r.Faults.Arm(f)
			b := Batch(0, "one", "two")
			_, err := r.Sink.PutRecords(t.Context(), b)
			var s *delivery.SinkError
			if err != nil && !errors.As(err, &s) {
				t.Fatalf("%v is not a SinkError", err)
			}
			if done, err := r.Sink.PutRecords(t.Context(), b); err != nil || done != 2 {
				t.Fatalf("the second attempt: %d, %v", done, err)
			}
			got := r.Received()
			if len(got) < 2 || got[len(got)-2] != "one" || got[len(got)-1] != "two" {
				t.Errorf("received %q", got)
			}
		})
	}
	t.Run("goes on after it was locked out", func(t *testing.T) {
		r := open(t)
		r.Lock(true)
		b := Batch(0, "one", "two")
		var s *delivery.SinkError
		if done, err := r.Sink.PutRecords(t.Context(), b); done != 0 || !errors.As(err, &s) || s.Permanent {
			t.Fatalf("locked out: %d, %v", done, err)
		}
		if got := r.Received(); len(got) != 0 {
			t.Errorf("received %q while locked out", got)
		}
		r.Lock(false)
		if done, err := r.Sink.PutRecords(t.Context(), b); err != nil || done != 2 {
			t.Fatalf("let in again: %d, %v", done, err)
		}
		if got := r.Received(); fmt.Sprint(got) != "[one two]" {
			t.Errorf("received %q", got)
		}
	})
	t.Run("waits for the line", func(t *testing.T) {
		r := open(t)
		data := make([]string, 300)
		for i := range data {
			data[i] = string(Content(1000))
		}
		gate, full := make(chan struct{}), make(chan struct{}, 1)
		b := Batch(0, data...)
		b.Throttle = func(r io.Reader) io.Reader { return &gated{r: r, left: 500, full: full, gate: gate} }
		ended := make(chan error, 1)
		go func() {
			_, err := r.Sink.PutRecords(t.Context(), b)
			ended <- err
		}()
		<-full
		if got := r.Received(); len(got) != 0 {
			t.Errorf("%d records of a request that is not sent are there", len(got))
		}
		close(gate)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if got := r.Received(); len(got) != len(data) {
			t.Errorf("received %d of %d records", len(got), len(data))
		}
	})
	t.Run("leaves a busy server alone", func(t *testing.T) {
		r := open(t)
		r.Faults.Arm(Fault{Name: "503", Status: 503, RetryAfter: "7"})
		_, err := r.Sink.PutRecords(t.Context(), Batch(0, "one"))
		var s *delivery.SinkError
		if !errors.As(err, &s) || s.RetryAfter != 7*time.Second {
			t.Errorf("got %v, want to be told to wait for 7 s", err)
		}
	})
	t.Run("keeps its connection", func(t *testing.T) {
		r := open(t)
		for n := range RequestIDs {
			if n == 2 {
				r.Faults.Arm(Fault{Name: "503", Status: 503})
				if _, err := r.Sink.PutRecords(t.Context(), Batch(n, "busy")); err == nil {
					t.Error("a put that was answered with 503 succeeds")
				}
			}
			if _, err := r.Sink.PutRecords(t.Context(), Batch(n, string(Content(100_000)))); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.Faults.Connections(); n != 1 {
			t.Errorf("%d connections for %d requests, want one", n, r.Faults.Requests())
		}
	})
	t.Run("leaves nothing behind that writes", func(t *testing.T) {
		r := open(t)
		r.Faults.Down(true)
		for range 3 {
			if _, err := r.Sink.PutRecords(t.Context(), Batch(0, string(Content(2<<20)))); err == nil {
				t.Error("a put over a line that is down succeeds")
			}
		}
		if all := stacks(); strings.Contains(all, "io.(*pipe).write(") {
			t.Errorf("somebody still writes a request that has failed:\n%s", all)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		r := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Sink.PutRecords(ctx, Batch(0, "one")); err == nil {
			t.Error("a put whose context has ended succeeds")
		}
	})
	t.Run("probes", func(t *testing.T) {
		r := open(t)
		found, err := r.Sink.Probe(t.Context())
		if err != nil || found.Guarantee != delivery.AtLeastOnce || !strings.Contains(found.Tried, "nothing was stored") {
			t.Errorf("probe found %+v, %v", found, err)
		}
		if got := r.Received(); len(got) != 0 {
			t.Errorf("the probe left %q", got)
		}
	})
}

// stacks are those of all goroutines.
func stacks() string {
	all := make([]byte, 1<<20)
	return string(all[:runtime.Stack(all, true)])
}
