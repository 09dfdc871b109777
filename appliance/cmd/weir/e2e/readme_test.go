package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// elsewhere are the commands of the README that other tests run, by how they begin.
var elsewhere = map[string]string{
	"go run ./appliance/cmd/weir demo": "TestDemo…",
	"make test":                        "this run",
	"make build":                       "TestReleaseBuild…",
	"go build -o weir":                 "TestMain",
}

// commands returns the lines of the README's shell blocks.
func commands(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	shell := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "```sh":
			shell = true
		case strings.HasPrefix(line, "```"):
			shell = false
		case shell && line != "":
			lines = append(lines, line)
		}
	}
	if len(lines) < 20 {
		t.Fatalf("only %d commands in the README", len(lines))
	}
	return lines
}

// offlineVerbs need a stopped box.
var offlineVerbs = []string{"./weir verify", "./weir inspect", "./weir export", "./weir import", "./weir repair"}

func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "weir")); err != nil {
		t.Fatal(err)
	}
	var serving *exec.Cmd
	stop := func() {
		if serving != nil {
			_ = serving.Process.Signal(syscall.SIGTERM) // it may be gone
			_ = serving.Wait()
			serving = nil
		}
	}
	t.Cleanup(stop)
	// The settings for the AWS CLI are for the lines after them.
	env := append(os.Environ(), "WEIR_LISTEN_ADDRESS=127.0.0.1:4567")
	for _, line := range commands(t) {
		if belongsElsewhere(line) {
			continue
		}
		for _, verb := range offlineVerbs {
			if strings.HasPrefix(line, verb) {
				stop()
			}
		}
		if background, ok := strings.CutSuffix(line, " &"); ok {
			serving = start(t, dir, env, background)
			continue
		}
		if rest, ok := strings.CutPrefix(line, "export "); ok {
			env = append(env, strings.Fields(strings.ReplaceAll(rest, "$PWD", dir))...)
			continue
		}
		sh := exec.CommandContext(t.Context(), "bash", "-c", line)
		sh.Dir, sh.Env = dir, env
		if out, err := sh.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	objects, err := filepath.Glob(filepath.Join(dir, "objects", "*", "*", "*", "*", "*"))
	if err != nil || len(objects) == 0 {
		t.Errorf("no object was delivered: %v", err)
	}
}

func belongsElsewhere(line string) bool {
	for prefix := range elsewhere {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// start runs a command of the README in the background until the box is ready.
func start(t *testing.T, dir string, env []string, line string) *exec.Cmd {
	t.Helper()
	args := strings.Fields(line)
	cmd := exec.Command(filepath.Join(dir, args[0]), args[1:]...)
	var log bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, line, func() bool {
		data, err := os.ReadFile(filepath.Join(dir, "data", "endpoint"))
		return err == nil && len(data) > 0
	})
	return cmd
}

func TestReleaseBuildIsSmall(t *testing.T) {
	out := filepath.Join(t.TempDir(), "weir")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "..") // as make build does
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > 40_000_000 {
		t.Errorf("%d bytes; expecting at most 40 MB", info.Size())
	}
}
