package storage

import (
	"runtime"
	"syscall"
	"time"

	"github.com/weirhq/weir/benchmarks/process"
)

// usage is what the process has used so far, by the kernel's and the runtime's count.
type usage struct {
	at      time.Time
	cpu     time.Duration
	written int64 // bytes given to the device: write_bytes of /proc/self/io
	allocs  uint64
}

func usageNow() usage {
	var ru syscall.Rusage
	u := usage{at: time.Now(), written: procIO("write_bytes") - procIO("cancelled_write_bytes")}
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		u.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	u.allocs = ms.Mallocs
	return u
}

func procIO(name string) int64 { return process.Field("/proc/self/io", name) }
