package report

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Machine is where the figures were taken.
type Machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"`
	MemoryBytes int64   `json:"memory_bytes"`
	Kernel      string  `json:"kernel"`
	FileSystem  string  `json:"file_system"` // magic number of the data directory's file system, by name where known
	Go          string  `json:"go"`
	Platform    string  `json:"platform"`
	Cgo         bool    `json:"cgo"`    // built with C libraries, which the released program is not
	Commit      string  `json:"commit"` // with -dirty behind it when files differ
	Load1       float64 `json:"load1"`  // one-minute load average at the start: above the cores, others were at work
}

// String is the machine on one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s × %d, %.1f GiB, Linux %s, %s, %s %s, commit %s, load %.1f",
		m.CPU, m.Cores, float64(m.MemoryBytes)/(1<<30), m.Kernel, m.FileSystem, m.Go, m.build(), m.Commit, m.Load1)
}

func (m Machine) build() string {
	if m.Cgo {
		return m.Platform + " cgo"
	}
	return m.Platform
}

// ThisMachine describes the machine; dir is on the file system to name. What
// can't be found out is left empty.
func ThisMachine(dir string) Machine {
	m := Machine{
		CPU:   field("/proc/cpuinfo", "model name"),
		Cores: runtime.NumCPU(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Commit: commit(),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		m.Cgo = slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
	}
	kb, _ := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	m.MemoryBytes = kb << 10
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		m.Load1, _ = strconv.ParseFloat(first, 64)
	}
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) == nil {
		m.FileSystem = fileSystem(int64(st.Type))
	}
	return m
}

func fileSystem(magic int64) string {
	switch magic & 0xffffffff {
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	case 0xf2f52010:
		return "f2fs"
	case 0x01021994:
		return "tmpfs"
	case 0x794c7630:
		return "overlayfs"
	}
	return fmt.Sprintf("%#x", magic&0xffffffff)
}

// field returns the value of "name : value" in a file of such lines.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
