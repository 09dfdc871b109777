package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/trust"
)

func checkConfiguration(_ context.Context, p *patient) []finding {
	if p.broken != nil {
		var out []finding
		for line := range strings.SplitSeq(p.broken.Error(), "\n") {
			out = append(out, bad("weir config explain, with a corrected file", "%s", line))
		}
		return out
	}
	if p.config.File == "" {
		return []finding{ok("valid: the defaults, without a file")}
	}
	return []finding{ok("valid: %s", p.config.File)}
}

func checkClock(context.Context, *patient) []finding {
	now := time.Now()
	if now.Before(trust.ClockFloor) {
		return []finding{bad("set the clock, or let timesyncd or chrony set it", "it is %s, before this program was built: clients with a right clock are refused, stamps are wrong", now.Format(time.DateTime))}
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return []finding{ok("%s; whether it is synchronized can't be seen here (%v)", now.Format(time.DateTime), err)}
	}
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return []finding{warn("enable timesyncd or chrony", "%s, not synchronized with any server", now.Format(time.DateTime))}
	}
	return []finding{ok("%s, synchronized", now.Format(time.DateTime))}
}

// diskDir is the data directory, or the closest folder above it that is there.
func diskDir(p *patient) string {
	dir := absolute(p.a.Dir)
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

func checkDirectory(_ context.Context, p *patient) []finding {
	info, err := os.Stat(p.a.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return []finding{warn("weir serve --dir "+p.a.Dir, "%s is not there yet: a first start makes it", p.a.Dir)}
	}
	if err != nil {
		return []finding{bad("", "%v", err)}
	}
	if !info.IsDir() {
		return []finding{bad("another --dir", "%s is not a directory", p.a.Dir)}
	}
	probe, err := os.CreateTemp(p.a.Dir, ".doctor-")
	if err != nil {
		return []finding{bad("the owner and the mode of the directory, and whether the disk is mounted read-only", "%s can't be written to: %v", p.a.Dir, fault.Cause(err))}
	}
	probe.Close()
	os.Remove(probe.Name())
	if info.Mode().Perm()&0o077 != 0 {
		return []finding{warn("chmod 0700 "+p.a.Dir, "%s is open to others, mode %04o", p.a.Dir, info.Mode().Perm())}
	}
	return []finding{ok("%s, mode %04o", p.a.Dir, info.Mode().Perm())}
}

func checkFileSystem(_ context.Context, p *patient) []finding {
	var st syscall.Statfs_t
	dir := diskDir(p)
	if err := syscall.Statfs(dir, &st); err != nil {
		return []finding{bad("", "%s: %v", dir, err)}
	}
	switch uint32(st.Type) {
	case 0x01021994, 0x858458f6:
		return []finding{warn("a --dir on a disk", "%s is in memory: everything is gone after a restart of the box", dir)}
	case 0x6969, 0xff534d42, 0xfe534d42:
		return []finding{warn("a --dir on a local disk", "%s is on a network: a lost line stops the log", dir)}
	case 0x794c7630:
		return []finding{warn("a volume for the data directory", "%s is in a container's own layer: it is gone with the container", dir)}
	}
	return []finding{ok("%s is on a local file system", dir)}
}

func checkSpace(_ context.Context, p *patient) []finding {
	var st syscall.Statfs_t
	dir := diskDir(p)
	if err := syscall.Statfs(dir, &st); err != nil {
		return []finding{bad("", "%s: %v", dir, err)}
	}
	free, total := int64(st.Bavail)*int64(st.Bsize), int64(st.Blocks)*int64(st.Bsize)
	text := fmt.Sprintf("%s free of %s", size(free), size(total))
	var out []finding
	switch {
	case free < 64<<20:
		out = append(out, bad("a lower retention, or another disk", "%s: below 64 MiB a stream refuses, drops or thins out records, as its --when-full says", text))
	case total > 0 && free*20 < total:
		out = append(out, warn("a bound: weir stream retention NAME --bytes SIZE", "%s, less than a twentieth", text))
	default:
		out = append(out, ok("%s", text))
	}
	if st.Files > 0 && st.Ffree*20 < st.Files {
		out = append(out, warn("fewer small files on this disk", "%d files can still be made, of %d", st.Ffree, st.Files))
	}
	return out
}

// checkFsync writes a small block and syncs it, 20 times.
func checkFsync(_ context.Context, p *patient) []finding {
	f, err := os.CreateTemp(diskDir(p), ".doctor-")
	if err != nil {
		return []finding{bad("", "can't be measured: %v", err)}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := bytes.Repeat([]byte{0x5a}, 4096)
	var took []time.Duration
	for range 20 {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return []finding{bad("weir doctor --only space", "write: %v", fault.Cause(err))}
		}
		if err := f.Sync(); err != nil {
			return []finding{bad("another disk: this one loses data", "sync: %v", fault.Cause(err))}
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	text := fmt.Sprintf("median %s, worst of 20 %s", micros(median), micros(worst))
	switch {
	case median > 100*time.Millisecond:
		return []finding{warn("a faster disk; larger batches help too", "%s: each acknowledgement waits for one", text)}
	case median < 20*time.Microsecond:
		return []finding{warn("", "%s: too fast for a disk; a cut of power may lose what was acknowledged", text)}
	}
	return []finding{ok("%s", text)}
}

func micros(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 2, 64) + " ms"
}

// fileAdvice is what helps with a file of the box that can't be read.
func fileAdvice(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "the same command as the user that the box runs as"
	}
	return "the file from a backup"
}

func checkSecrets(_ context.Context, p *patient) []finding {
	var out []finding
	for _, name := range []string{"ca.key", "server.pem", trust.CredentialsFile, trust.AdminPasswordFile} {
		path := filepath.Join(p.a.trustDir(), name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && !exists(p.a.trustDir()) {
			return []finding{ok("none yet: a first start makes them")}
		}
		if err != nil {
			out = append(out, bad(fileAdvice(err), "%v", err))
		} else if info.Mode().Perm()&0o077 != 0 {
			out = append(out, bad("chmod 0600 "+path, "%s is readable by others, mode %04o", path, info.Mode().Perm()))
		}
	}
	if out == nil {
		out = append(out, ok("private"))
	}
	return out
}

// shown is the certificate that the box shows, or will show.
type shown struct {
	*x509.Certificate
	own bool // the box issued it
}

// again is how there will be another.
func (s shown) again() string {
	if s.own {
		return "a restart of the box, which issues it again"
	}
	return "another one in listen.tls_cert, and weir reload"
}

// shownBy returns the certificate of the box: what it shows if it runs here, or else what
// the configuration names, or its own. It says what is wrong when there is none.
func shownBy(p *patient) (*shown, []finding) {
	runs := p.box != nil || p.silent != nil
	if !runs && p.config != nil && p.config.Listen.TLSCert != "" {
		pair, err := appliance.ReadCertificate(&p.config.Listen)
		if err != nil {
			return nil, []finding{bad(fault.TryOf(err), "%v", err)}
		}
		return &shown{pair.Leaf, false}, nil
	}
	t, err := trust.Read(p.a.trustDir())
	if errors.Is(err, fs.ErrNotExist) && !exists(p.a.trustDir()) {
		return nil, []finding{ok("none yet: a first start makes it")}
	}
	if err != nil {
		return nil, []finding{bad(fileAdvice(err), "%v", err)}
	}
	if runs && p.a.Endpoint == "" {
		data, _ := os.ReadFile(filepath.Join(p.a.Dir, appliance.ShownCertificateFile)) // without it, its own
		if block, _ := pem.Decode(data); block != nil && !bytes.Equal(block.Bytes, t.Server.Certificate[0]) {
			if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
				return &shown{leaf, false}, nil
			}
		}
	}
	return &shown{t.Server.Leaf, true}, nil
}

func checkCertificate(_ context.Context, p *patient) []finding {
	leaf, out := shownBy(p)
	if leaf == nil {
		return out
	}
	switch left := time.Until(leaf.NotAfter); {
	case left < 0:
		return []finding{bad(leaf.again(), "ended on %s", leaf.NotAfter.Format(time.DateOnly))}
	case left < 30*24*time.Hour:
		return []finding{warn(leaf.again(), "ends on %s", leaf.NotAfter.Format(time.DateOnly))}
	}
	return []finding{ok("valid until %s", leaf.NotAfter.Format(time.DateOnly))}
}

func checkNames(_ context.Context, p *patient) []finding {
	leaf, out := shownBy(p)
	if leaf == nil {
		return out
	}
	hosts := trust.Hosts()
	if p.config != nil {
		hosts = append(hosts, p.config.Listen.Names...)
	}
	missing := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return leaf.VerifyHostname(h) == nil })
	// An operator's certificate is for the names that clients use, and need not have all.
	if len(missing) > 0 && leaf.own || len(missing) == len(hosts) {
		return []finding{warn(leaf.again(), "the certificate lacks %s", strings.Join(missing, ", "))}
	}
	return []finding{ok("%s", strings.Join(leaf.DNSNames, ", "))}
}

func checkPort(_ context.Context, p *patient) []finding {
	if p.box != nil {
		return []finding{ok("the box answers at %s", p.box.Endpoint)}
	}
	address := config.Default().Listen.Address
	if p.config != nil {
		address = p.config.Listen.Address
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return []finding{bad("WEIR_LISTEN_ADDRESS=:PORT, or end what listens there", "%s: %v", address, fault.Cause(err))}
	}
	l.Close()
	return []finding{ok("%s is free", address)}
}

// meminfo returns a value of /proc/meminfo in bytes.
func meminfo(name string) int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) >= 2 && f[0] == name+":" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

func checkMemory(_ context.Context, p *patient) []finding {
	available := meminfo("MemAvailable")
	text := fmt.Sprintf("%s available of %s", size(available), size(meminfo("MemTotal")))
	if limit, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(limit)), 10, 64); err == nil {
			text += ", limit " + size(n)
			if n < 128<<20 {
				return []finding{warn("a MemoryMax of at least 128M", "%s: too low for load", text)}
			}
		}
	}
	if p.status != nil {
		text += ", the box holds " + size(int64(p.status.Memory.FromSystem))
	}
	if available < 64<<20 {
		return []finding{warn("fewer programs on this box", "%s: the box needs about 64 MiB", text)}
	}
	return []finding{ok("%s", text)}
}

func checkDescriptors(_ context.Context, p *patient) []finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return []finding{bad("", "%v", err)}
	}
	need := uint64(config.Default().Listen.MaxConnections)
	if p.config != nil {
		need = uint64(p.config.Listen.MaxConnections)
	}
	if need += 1024; uint64(limit.Max) < need {
		return []finding{warn("LimitNOFILE= in the unit, or a lower listen.max_connections", "%d files may be open; connections and tables need %d", limit.Max, need)}
	}
	return []finding{ok("%d files may be open", limit.Max)}
}

func checkProcessor(context.Context, *patient) []finding {
	text := fmt.Sprintf("%s, %s", runtime.GOARCH, plural(runtime.NumCPU(), "core"))
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		return []finding{ok("%s: modules are compiled", text)}
	}
	return []finding{warn("", "%s: modules are interpreted, about 20 times slower than compiled", text)}
}

func checkTemperature(context.Context, *patient) []finding {
	zones, err := filepath.Glob("/sys/class/thermal/thermal_zone*/temp")
	if err != nil || len(zones) == 0 {
		return []finding{ok("this box has no sensor")}
	}
	hottest := -1000.0
	for _, z := range zones {
		data, err := os.ReadFile(z)
		if err != nil {
			continue
		}
		if milli, err := strconv.ParseFloat(strings.TrimSpace(string(data)), 64); err == nil {
			hottest = max(hottest, milli/1000)
		}
	}
	if hottest > 80 {
		return []finding{warn("air, or less load", "%.0f °C: the processor slows down", hottest)}
	}
	return []finding{ok("%.0f °C", hottest)}
}

func checkService(_ context.Context, p *patient) []finding {
	if p.status == nil {
		return []finding{ok("no box runs here")}
	}
	if p.a.Endpoint != "" {
		return []finding{ok("the box is elsewhere")}
	}
	if p.status.Manager == "" {
		return []finding{warn("firmware-config/systemd/weir.service", "started by hand: nothing starts it again")}
	}
	return []finding{ok("%s", p.status.Manager)}
}
