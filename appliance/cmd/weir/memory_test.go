package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimitFollowsTheServiceAndTheMachine(t *testing.T) {
	f := func(want int64, files map[string]string) {
		t.Helper()
		root := t.TempDir()
		for name, text := range files {
			name = filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := memoryLimit(root); got != want {
			t.Errorf("%v: %d, want %d", files, got, want)
		}
	}
	const (
		self = "proc/self/cgroup"
		unit = "sys/fs/cgroup/system.slice/weir.service/"
		half = "MemTotal:         524288 kB\nMemFree: 1 kB\n"
		in   = "0::/system.slice/weir.service\n"
	)
	f(0, nil)
	f(128<<20, map[string]string{"proc/meminfo": half})
	f(120<<20, map[string]string{"proc/meminfo": half, self: in, unit + "memory.high": "201326592\n", unit + "memory.max": "max\n"})
	f(120<<20, map[string]string{self: in, unit + "memory.high": "max\n", "sys/fs/cgroup/system.slice/memory.max": "201326592\n"})
	f(128<<20, map[string]string{"proc/meminfo": half, self: in, unit + "memory.max": "1073741824\n"})
	f(64<<20, map[string]string{"proc/meminfo": half, self: "0::/\n", "sys/fs/cgroup/memory.max": "50000000\n"})
	f(128<<20, map[string]string{"proc/meminfo": half, self: "1:memory:/old\n0::/../..\n"})
	f(0, map[string]string{"proc/meminfo": "MemTotal: many kB\n"})
}
