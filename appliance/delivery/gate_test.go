package delivery

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestAttemptThatIsCutOffGivesItsBudgetBack: one that waited for another to find out
// whether the sink is back, when the delivery stream was changed.
func TestAttemptThatIsCutOffGivesItsBudgetBack(t *testing.T) {
	w := &worker{engine: &Engine{clock: SystemClock{}, calendar: time.Now}, budget: make(chan budget, 1)}
	w.budget <- budget{Month: time.Now().UTC().Format("2006-01"), Bytes: 10}
	w.mu.circuit.Failures = openAfter
	l := &lane{w: w, def: &definition{Config: Config{Uplink: Uplink{MonthlyBytes: 1000}}}, probe: make(chan struct{}, 1)}
	l.probe <- struct{}{} // held by the other
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j := &job{bind: &binding{zone: time.UTC}, recipe: &Recipe{Ranges: []Range{{First: 1, Last: 1, Bytes: 100}}}}
	if _, err := l.gate(ctx, j); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if b := <-w.budget; b.reserved != 0 {
		t.Fatalf("%d bytes of the month stay reserved", b.reserved)
	}
}
