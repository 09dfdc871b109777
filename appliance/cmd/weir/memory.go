package main

import (
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// keepSmall has garbage collected when it is half of what lives, not as much
// again, and earlier when memory gets short: boxes have little. GOGC and GOMEMLIMIT
// in the environment win.
func keepSmall(a *app) {
	if a.env("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if limit := memoryLimit("/"); a.env("GOMEMLIMIT") == "" && limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

// leastMemoryLimit is where collecting more often would only cost time.
const leastMemoryLimit = 64 << 20

// memoryLimit is how much the runtime may hold before it collects more often than
// usual: five eighths of the lowest limit that the service has (MemoryHigh,
// MemoryMax), since the program itself and modules' code and memory come on top, or a
// quarter of the machine's memory, whichever is less. 0 means that neither is known.
// It bounds garbage, not what lives. root is /.
func memoryLimit(root string) int64 {
	limit := memoryTotal(root) / 4
	if low := cgroupLimit(root); low > 0 && (limit == 0 || low/8*5 < limit) {
		limit = low / 8 * 5
	}
	if limit > 0 {
		limit = max(limit, leastMemoryLimit)
	}
	return limit
}

// cgroupLimit is the lowest memory limit of the control groups (version 2) that the
// process is in, 0 if there is none.
func cgroupLimit(root string) (low int64) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok {
			continue
		}
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			for _, name := range [...]string{"memory.high", "memory.max"} {
				// "max", as a group without limit has it, is no number.
				text, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", dir, name))
				n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err == nil && bad == nil && n > 0 && (low == 0 || n < low) {
					low = n
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return low
}

// memoryTotal is how much memory the machine has, 0 if that is not known.
func memoryTotal(root string) int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil || kib > 1<<50 {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
