package demo

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// copyOf makes a folder of the files given, by path.
func copyOf(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSensorsReadWhatTheKernelSays(t *testing.T) {
	sys := copyOf(t, map[string]string{"block/vda/device/x": "", "class/thermal/thermal_zone0/temp": "41500\n"})
	at := time.Unix(1000, 0)
	m := newMachine(copyOf(t, map[string]string{
		"stat":      "cpu  1 1 1 1 1 1 1 1\ncpu0 100 0 100 800 0 0 0 0 0 0\n",
		"meminfo":   "MemTotal: 2048 kB\nMemAvailable:    1024 kB\n",
		"diskstats": " 254 0 vda 1 0 1000 0 1 0 2000 0 0 0 0\n 254 1 vda1 1 0 1000 0 1 0 2000 0 0 0 0\n",
		"net/dev":   "Inter-|   Receive\n  eth0: 1024 1 0 0 0 0 0 0 2048 1 0 0 0 0 0 0\n",
		"loadavg":   "0.50 0.40 0.30 1/100 1\n",
	}), sys)
	first := m.read(at)
	m.proc = copyOf(t, map[string]string{
		"stat":      "cpu0 175 0 125 900 0 0 0 0 0 0\n",
		"diskstats": " 254 0 vda 1 0 1004 0 1 0 2040 0 0 0 0\n 254 1 vda1 1 0 1004 0 1 0 2040 0 0 0 0\n",
		"net/dev":   "  eth0: 3072 1 0 0 0 0 0 0 2048 1 0 0 0 0 0 0\n",
	})
	got := map[string]float64{}
	for _, r := range append(first, m.read(at.Add(2*time.Second))...) {
		got[r.sensor] = r.value
	}
	want := map[string]float64{
		"cpu0": 50, "memory-available": 1, "disk-vda-read": 1, "disk-vda-write": 10,
		"net-eth0-in": 1, "net-eth0-out": 0, "temp-thermal_zone0-temp": 41.5, "load-1m": 0.5,
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: got %v, want %v", name, got[name], value)
		}
	}
}

func TestThisMachineHasSensors(t *testing.T) {
	m := newMachine("/proc", "/sys")
	now := time.Now()
	m.read(now)
	if got := m.read(now.Add(time.Second)); len(got) < 4 {
		t.Errorf("only %v", got)
	}
}

func TestReadingIsJSON(t *testing.T) {
	var back struct {
		Sensor, Unit string
		Seq          uint64
		At           int64
		Value        float64
	}
	data := reading{"cpu0", "%", 12.3456}.appendJSON(nil, 7, time.UnixMilli(99))
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if back.Sensor != "cpu0" || back.Unit != "%" || back.Seq != 7 || back.At != 99 || back.Value != 12.346 {
		t.Errorf("%s", data)
	}
}
