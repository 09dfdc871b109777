package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// manager listens as systemd does and returns what it is told, one state a call.
func manager(t *testing.T) (Manager, func() string) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return Manager{Socket: path}, func() string {
		t.Helper()
		buf := make([]byte, 512)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestManagerIsToldEachState(t *testing.T) {
	m, told := manager(t)
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{m.Ready, "READY=1"},
		{func() error { return m.Reloading(1500 * time.Millisecond) }, "RELOADING=1\nMONOTONIC_USEC=1500000"},
		{m.Stopping, "STOPPING=1"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := told(); got != step.want {
			t.Errorf("told %q, want %q", got, step.want)
		}
	}
}

func TestWatchdogIsFedOnlyWhileHealthy(t *testing.T) {
	m, told := manager(t)
	m.Watchdog = 2 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan struct{})
	go m.Watch(ctx, func() error { return nil })
	if got := told(); got != "WATCHDOG=1" {
		t.Errorf("told %q", got)
	}
	sick, toldSick := manager(t)
	sick.Watchdog = 2 * time.Millisecond
	ended := make(chan struct{})
	ctx2, cancel2 := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		n := 0
		sick.Watch(ctx2, func() error {
			if n++; n == 3 {
				close(asked)
			}
			return errors.New("sick")
		})
	}()
	<-asked
	cancel2()
	<-ended
	if err := sick.Stopping(); err != nil {
		t.Fatal(err)
	}
	if got := toldSick(); got != "STOPPING=1" {
		t.Errorf("a sick box told %q", got)
	}
}

func TestManagerOfReadsTheEnvironment(t *testing.T) {
	env := map[string]string{"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"}
	m := ManagerOf(func(k string) string { return env[k] })
	if m.Socket != "/run/x" || m.Watchdog != 30*time.Second {
		t.Errorf("%+v", m)
	}
	if none := ManagerOf(func(string) string { return "" }); none.Ready() != nil || none.Watchdog != 0 {
		t.Error("no manager is not silent")
	}
}

func TestLevelChangesWhileTheLoggerIsInUse(t *testing.T) {
	var b bytes.Buffer
	var level slog.LevelVar
	level.Set(Level("warn"))
	log := Logger(&b, "json", &level)
	log.Info("unheard")
	level.Set(Level("debug"))
	log.Debug("heard")
	if got := b.String(); !bytes.Contains([]byte(got), []byte(`"msg":"heard"`)) || bytes.Contains([]byte(got), []byte("unheard")) {
		t.Errorf("logged %s", got)
	}
}
