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
