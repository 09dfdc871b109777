package storage

import (
	"bufio"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
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

func procIO(name string) int64 { return procField("/proc/self/io", name) }

// procField reads a number from a file of "name: value" lines; 0 if it is not there.
func procField(path, name string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && key == name {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n
		}
	}
	return 0
}

// residentMB is the process's resident memory without the pages of files.
func residentMB() float64 { return float64(procField("/proc/self/status", "RssAnon")) / 1024 }

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// quantileMS returns a quantile of latencies in milliseconds.
func quantileMS(v []time.Duration, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return float64(v[min(int(q*float64(len(v))), len(v)-1)]) / 1e6
}
