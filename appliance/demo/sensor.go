package demo

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// reading is one value of one sensor.
type reading struct {
	sensor string // such as cpu0, disk-vda-write, temp-x86_pkg_temp
	unit   string
	value  float64
}

// machine reads the sensors every Linux box has. What a box lacks (a container
// without thermal zones) is left out; nothing is made up.
type machine struct {
	proc, sys string // /proc and /sys, or a copy of them in a test
	last      map[string]counter
}

// counter is a value that only grows, with the time it was read at.
type counter struct {
	value float64
	at    time.Time
}

func newMachine(proc, sys string) *machine {
	return &machine{proc: proc, sys: sys, last: map[string]counter{}}
}

// read returns what can be read at the time now. Rates need two reads.
func (m *machine) read(now time.Time) []reading {
	var out []reading
	out = m.cpu(out, now)
	out = m.memory(out)
	out = m.disks(out, now)
	out = m.network(out, now)
	out = m.temperatures(out)
	return m.load(out)
}

// rate returns the growth per second since the last read of the name.
func (m *machine) rate(name string, value float64, now time.Time) (float64, bool) {
	before, ok := m.last[name]
	m.last[name] = counter{value, now}
	seconds := now.Sub(before.at).Seconds()
	if !ok || seconds <= 0 || value < before.value {
		return 0, false
	}
	return (value - before.value) / seconds, true
}

// lines calls fn with the fields of each line of a file below /proc.
func (m *machine) lines(name string, fn func(fields []string)) {
	data, err := os.ReadFile(filepath.Join(m.proc, name))
	if err != nil {
		return // this box has no such sensor
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		fn(strings.Fields(strings.ReplaceAll(s.Text(), ":", " ")))
	}
}

func number(fields []string, i int) float64 {
	if i >= len(fields) {
		return 0
	}
	f, err := strconv.ParseFloat(fields[i], 64)
	if err != nil {
		return 0
	}
	return f
}

// cpu is the busy share of each core, in percent. /proc/stat counts ticks:
// user nice system idle iowait irq softirq steal.
func (m *machine) cpu(out []reading, now time.Time) []reading {
	m.lines("stat", func(f []string) {
		if len(f) < 9 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			return
		}
		var all float64
		for i := 1; i <= 8; i++ {
			all += number(f, i)
		}
		idle, ok := m.rate(f[0]+"/idle", number(f, 4)+number(f, 5), now)
		total, ok2 := m.rate(f[0]+"/all", all, now)
		if ok && ok2 && total > 0 {
			out = append(out, reading{f[0], "%", 100 * (1 - idle/total)})
		}
	})
	return out
}

func (m *machine) memory(out []reading) []reading {
	m.lines("meminfo", func(f []string) {
		switch {
		case len(f) < 2:
		case f[0] == "MemAvailable":
			out = append(out, reading{"memory-available", "MiB", number(f, 1) / 1024})
		case f[0] == "Dirty":
			out = append(out, reading{"memory-dirty", "MiB", number(f, 1) / 1024})
		}
	})
	return out
}

// disks is the traffic of each whole disk; a sector of /proc/diskstats is 512 bytes.
func (m *machine) disks(out []reading, now time.Time) []reading {
	m.lines("diskstats", func(f []string) {
		if len(f) < 11 || !isDisk(m.sys, f[2]) {
			return
		}
		for _, d := range []struct {
			name  string
			field int
		}{{"read", 5}, {"write", 9}} {
			if r, ok := m.rate(f[2]+d.name, number(f, d.field)*512, now); ok {
				out = append(out, reading{"disk-" + f[2] + "-" + d.name, "KiB/s", r / 1024})
			}
		}
	})
	return out
}

// isDisk says whether the block device is a whole disk that has a device behind it.
func isDisk(sys, name string) bool {
	_, err := os.Stat(filepath.Join(sys, "block", name, "device"))
	return err == nil
}

func (m *machine) network(out []reading, now time.Time) []reading {
	m.lines("net/dev", func(f []string) {
		if len(f) < 17 {
			return
		}
		for _, d := range []struct {
			name  string
			field int
		}{{"in", 1}, {"out", 9}} {
			if r, ok := m.rate(f[0]+d.name, number(f, d.field), now); ok {
				out = append(out, reading{"net-" + f[0] + "-" + d.name, "KiB/s", r / 1024})
			}
		}
	})
	return out
}

// temperatures are millidegrees, in thermal zones and in hardware monitors.
func (m *machine) temperatures(out []reading) []reading {
	zones, _ := filepath.Glob(filepath.Join(m.sys, "class/thermal/thermal_zone*/temp")) // the pattern is well formed
	monitors, _ := filepath.Glob(filepath.Join(m.sys, "class/hwmon/hwmon*/temp*_input"))
	for _, path := range append(zones, monitors...) {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		milli, err := strconv.ParseFloat(strings.TrimSpace(string(data)), 64)
		if err != nil {
			continue
		}
		out = append(out, reading{"temp-" + filepath.Base(filepath.Dir(path)) + "-" + strings.TrimSuffix(filepath.Base(path), "_input"), "C", milli / 1000})
	}
	return out
}

func (m *machine) load(out []reading) []reading {
	m.lines("loadavg", func(f []string) { out = append(out, reading{"load-1m", "", number(f, 0)}) })
	return out
}

// appendJSON appends the reading as the record that is sent: its sensor, a
// number that counts the sensor's readings from 1, and the value.
func (r reading) appendJSON(dst []byte, seq uint64, at time.Time) []byte {
	dst = append(dst, `{"sensor":`...)
	dst = strconv.AppendQuote(dst, r.sensor)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"at":`...)
	dst = strconv.AppendInt(dst, at.UnixMilli(), 10)
	dst = append(dst, `,"value":`...)
	dst = strconv.AppendFloat(dst, r.value, 'f', 3, 64)
	dst = append(dst, `,"unit":`...)
	dst = strconv.AppendQuote(dst, r.unit)
	return append(dst, '}')
}

// fleet is n simulated sensors of the name pump-0000 on. Their values swing
// between 0 and 100, each at its own pace, so that a threshold keeps some.
type fleet struct{ n int }

func (f fleet) name(i int) string { return fmt.Sprintf("pump-%04d", i) }

func (f fleet) read(i int, seq uint64) reading {
	phase := float64((seq*uint64(3+i%7) + uint64(i)*37) % 200)
	if phase > 100 {
		phase = 200 - phase
	}
	return reading{f.name(i), "bar", phase}
}
