package kinesis

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/storage"
)

// TestStreamIsNeverThereWithoutItsSettings pulls the plug before each write of a
// CreateStream in turn, and looks at what the next start finds.
func TestStreamIsNeverThereWithoutItsSettings(t *testing.T) {
	without, with := 0, 0
	for k := int32(0); ; k++ {
		mem := vfs.NewCrashableMem()
		var armed atomic.Bool
		var writes atomic.Int32
		var crashed atomic.Pointer[vfs.MemFS]
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && writes.Add(1) == k+1 {
				crashed.Store(mem.CrashClone(vfs.CrashCloneCfg{}))
			}
			return nil
		}))
		b := &box{t: t, fs: fs, clock: apitest.NewClock(), who: everybody}
		b.open(Options{})
		armed.Store(true)
		b.must("CreateStream", `{"StreamName":"s","StreamModeDetails":{"StreamMode":"ON_DEMAND"},"RecordDistributionStrategy":"AUTO","Tags":{"site":"plant-7"}}`)
		armed.Store(false)
		after := crashed.Load()
		if after == nil {
			break // there is no such write
		}
		again := &box{t: t, fs: after, clock: b.clock, who: everybody}
		again.open(Options{})
		st, err := again.stream([]byte("s"))
		if errors.Is(err, storage.ErrStreamNotFound) {
			without++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		with++
		if got := st.settings.get(); got.Tags["site"] != "plant-7" || !st.auto.Load() {
			t.Errorf("before write %d: the stream is there, its settings are %+v", k, got)
		}
	}
	if without == 0 {
		t.Errorf("no write of %d came before the stream was there", with)
	}
	t.Logf("%d crashes left no stream, %d left it", without, with)
}
