package ingest

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"github.com/weirhq/weir/benchmarks/report"
)

// TestMain lets the test binary be the servers, as the benchmark's own binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildName {
		if err := Child(context.Background(), report.Options{}, nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEverySystemOfOursIsMeasured(t *testing.T) {
	var r report.Report
	p := plan{rounds: 1, warm: 20 * time.Millisecond, d: 50 * time.Millisecond, batches: []int{2, 16}, singles: []int{2}, idle: 5, protocols: protocols, settle: 10 * time.Millisecond}
	if err := run(t.Context(), report.Options{Dir: t.TempDir(), Progress: io.Discard}, &r, p); err != nil {
		t.Fatal(err)
	}
	if want := 1 + 3*3 + len(protocols); len(r.Rows) != want {
		t.Errorf("%d rows, expecting %d: %v", len(r.Rows), want, r.Rows)
	}
	measured := map[bool]int{}
	for _, g := range r.Gates {
		measured[!math.IsNaN(g.Measured)]++
	}
	if measured[true] != 3 || measured[false] != 3 {
		t.Errorf("gates %+v, expecting those of the three peers, and only those, without a figure", r.Gates)
	}
}
