package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// clockSource is a file more for package time: what is added to the wall clock,
// so that a process begins at the second that its environment names.
const clockSource = `package time

import "syscall"

var offTheClock = func() (sec int64) {
	text, ok := syscall.Getenv("CLOCK_BEGINS_AT")
	if !ok {
		return 0
	}
	for _, c := range text {
		sec = 10*sec + int64(c-'0')
	}
	now, _, _ := runtimeNow()
	return sec - now
}()
`

// otherClock builds the program with a wall clock that can be told another time.
// Nothing outside a process can do that: Go asks the kernel itself, without the C
// library, and the kernel has one wall clock for all. The program is the same to
// the last line but for the one in package time that reads the clock.
var otherClock = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	clock := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	source, err := os.ReadFile(clock)
	if err != nil {
		return "", err
	}
	const reads = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reads) != 1 {
		return "", fmt.Errorf("%s: time.Now is written in another way; expecting one line %q", clock, reads)
	}
	overlay := map[string]string{}
	for name, text := range map[string]string{
		"time.go":  strings.Replace(string(source), reads, reads+"\tsec += offTheClock\n", 1),
		"clock.go": clockSource,
	} {
		path := filepath.Join(scratch, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay[filepath.Join(filepath.Dir(clock), name)] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(scratch, "overlay.json"), list, 0o600); err != nil {
		return "", err
	}
	to := filepath.Join(scratch, "weir-other-clock")
	build := exec.Command("go", "build", "-overlay", filepath.Join(scratch, "overlay.json"), "-o", to, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with another clock: %w\n%s", err, out)
	}
	return to, nil
})

// in1970 is the program on a machine whose clock was never set.
func in1970(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := otherClock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Env = []string{"CLOCK_BEGINS_AT=300", "TZ=UTC"} // seconds since 1970
	return cmd
}

// clockOf is what `weir clock --json` prints.
type clockOf struct {
	Held bool `json:"held"`
}

// TestClockIn1970 takes a box through two lives without a clock, each ended by a
// kill, and a third with one. Its clients know the time throughout.
func TestClockIn1970(t *testing.T) {
	dir := t.TempDir()
	for life := range 2 {
		b := serveAs(t, in1970(t, "serve", "--dir", dir), dir)
		if !strings.Contains(b.log.String(), `msg="the clock is not set" now=1970-01-01`) {
			t.Fatalf("nothing about the clock in\n%s", b.log)
		}
		if life == 0 {
			must(t, "--dir", dir, "stream", "create", "readings")
		}
		must(t, "--dir", dir, "put", "readings", fmt.Sprintf("sdk %d", life)) // the AWS SDK adjusts itself
		if _, err := viaHTTP("readings")(t, b)(t.Context(), "k", []string{fmt.Sprintf("plain %d", life)}); err != nil {
			t.Fatal(err)
		}
		wants(t, must(t, "--dir", dir, "doctor", "--only", "box"), "WARNING  box", "its clock is at 1970-01-01 00:05", "Try: set the clocks")
		if !parse[clockOf](t, must(t, "--dir", dir, "clock", "--json")).Held {
			t.Error("a clock in 1970 is believed")
		}
		b.kill(t)
	}
	doctor := in1970(t, "doctor", "--dir", dir, "--only", "clock", "--only", "certificate")
	doctor.Env = append(os.Environ(), doctor.Env...)
	out, err := doctor.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("doctor in 1970: %v, want exit code 3", err)
	}
	wants(t, string(out), "ERROR    clock          it is 1970-01-01 00:05", "before this program was built", "Try: set the clock", "ok       certificate")

	b := serve(t, dir)
	must(t, "--dir", dir, "put", "readings", "dated")
	if parse[clockOf](t, must(t, "--dir", dir, "clock", "--json")).Held {
		t.Error("a clock that is right is not believed")
	}
	want := "sdk 0\nplain 0\nsdk 1\nplain 1\ndated\n"
	for _, from := range []string{"trim-horizon", "10m"} {
		if got := must(t, "--dir", dir, "tail", "readings", "--from", from, "--no-follow", "--raw"); got != want {
			t.Errorf("from %s there is\n%s, want\n%s", from, got, want)
		}
	}
	if code := b.stop(t); code != 0 {
		t.Errorf("SIGTERM: exit code %d\n%s", code, b.log)
	}
	if !parse[verified](t, must(t, "--dir", dir, "verify", "--json")).OK {
		t.Error("verify found damage")
	}
}
