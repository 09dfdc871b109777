package listen

import (
	"runtime"
	"testing"

	"github.com/weirhq/weir/appliance/api/apitest"
)

// TestMemoryIsGivenBackAfterABurst leaves garbage behind, as connections do, and
// looks at what the runtime still holds.
func TestMemoryIsGivenBackAfterABurst(t *testing.T) {
	const size = 64 << 20
	garbage := make([]byte, size)
	for i := 0; i < len(garbage); i += 4096 {
		garbage[i] = 1
	}
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	before := held()
	runtime.KeepAlive(garbage)
	var tidy tidier
	defer tidy.close()
	for range tidyParked {
		tidy.parked()
	}
	apitest.Until(t, "it is back", func() bool { return held() < before-size/2 })
}

// TestLargeBuffersAreNotKept has a body of 10 MiB read and echoed: none of its buffers may
// wait in a pool for another one.
func TestLargeBuffersAreNotKept(t *testing.T) {
	for _, n := range []int{smallestBuffer, 64 << 10, largestBuffer} {
		if b := getBuffer(n); cap(b) != n {
			t.Errorf("%d bytes for %d", cap(b), n)
		}
	}
	const large = 10 << 20
	b := getBuffer(large)
	if cap(b) >= large+large/8 {
		t.Errorf("%d bytes for a body of %d", cap(b), large)
	}
	b = b[:1]
	b[0] = 42
	putBuffer(b)
	for range 100 {
		for _, n := range []int{largestBuffer, large} {
			if b := getBuffer(n); cap(b) > 2*largestBuffer && b[:1][0] == 42 {
				t.Fatal("a large buffer came back")
			}
		}
	}
}

// TestMemoryIsGivenBackAfterLargeBodies drops large buffers as exchanges do.
func TestMemoryIsGivenBackAfterLargeBodies(t *testing.T) {
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	var tidy tidier
	defer tidy.close()
	before := uint64(0)
	for range 2 {
		b := getBuffer(32 << 20)[:32<<20]
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		before = max(before, held())
		putBuffer(b)
		tidy.dropped(cap(b))
	}
	apitest.Until(t, "it is back", func() bool { return held() < before-24<<20 })
}
