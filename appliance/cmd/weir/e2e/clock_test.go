package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// in1970 is the binary, unchanged, on a machine whose clock was never set: under
// an emulator of this very processor whose C library is told another time. Go's
// own clock can't be reached from outside; the emulator's can.
func in1970(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	emulator := map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[runtime.GOARCH]
	path, err := exec.LookPath(emulator)
	if err != nil {
		t.Fatalf("%v; .ci/deps installs qemu-user", err)
	}
	libraries, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	if err != nil || len(libraries) == 0 {
		t.Fatal("no libfaketime; .ci/deps installs it")
	}
	cmd := exec.CommandContext(context.Background(), path, append([]string{binary}, args...)...)
	cmd.Env = []string{"LD_PRELOAD=" + libraries[0], "FAKETIME=@1970-01-01 00:05:00", "FAKETIME_DONT_FAKE_MONOTONIC=1", "TZ=UTC"}
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
