package process

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Field reads a number from a file of "name: value" lines, as /proc has them; 0
// if it is not there.
func Field(path, name string) int64 {
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

// ResidentMB is this process's resident memory in MiB, without pages of files,
// which are the kernel's to drop.
func ResidentMB() float64 { return residentMB("self") }

// ResidentMB is the same of another process.
func (p *Process) ResidentMB() float64 { return residentMB(strconv.Itoa(p.cmd.Process.Pid)) }

func residentMB(pid string) float64 { return float64(Field("/proc/"+pid+"/status", "RssAnon")) / 1024 }

// CPU is the processor time the process has used, from /proc/<pid>/stat in ticks
// of 10 ms.
func (p *Process) CPU() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}
