package storage

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// gcPercent reads the collector's percentage.
func gcPercent() int {
	n := debug.SetGCPercent(100)
	debug.SetGCPercent(n)
	return n
}

func TestCollectorIsPutOffOnlyWhileStoresOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	first, second := collectLater(), collectLater()
	if n := gcPercent(); n != openPercent {
		t.Errorf("%d %% while two stores open", n)
	}
	first()
	first()
	if n := gcPercent(); n != openPercent {
		t.Errorf("%d %% while one of them still opens", n)
	}
	second()
	if n := gcPercent(); n != 50 {
		t.Errorf("%d %% when both are open, expected what was set before", n)
	}
	for _, n := range []int{-1, 1000} {
		debug.SetGCPercent(n)
		over := collectLater()
		if got := gcPercent(); got != n {
			t.Errorf("%d %% became %d while a store opens", n, got)
		}
		over()
		if got := gcPercent(); got != n {
			t.Errorf("%d %% became %d", n, got)
		}
	}
}

// A large store must not open with several times the memory.
func TestCollectorIsPutOffUntilItCollects(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	defer collectLater()()
	runtime.GC()
	waitFor(t, func() bool { return gcPercent() == 50 })
}
