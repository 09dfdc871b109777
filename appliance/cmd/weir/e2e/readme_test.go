package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// blocks returns the lines of the README's blocks of a language, empty ones left out.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	data, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	inside := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, " \n")
		switch {
		case line == "```"+language:
			inside = true
		case strings.HasPrefix(line, "```"):
			inside = false
		case inside && line != "":
			lines = append(lines, line)
		}
	}
	return lines
}

// commands returns the lines of the README's shell blocks.
func commands(t *testing.T) []string {
	t.Helper()
	lines := blocks(t, "sh")
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
	// The settings for the AWS CLI are for the lines after them. The box is on a free
	// port, as the README's may be taken here.
	// Who comes to the README has a profile and keys for AWS itself.
	env := append(os.Environ(), "WEIR_LISTEN_ADDRESS=127.0.0.1:0", "AWS_PROFILE=production", "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=x")
	at := "localhost:4567"
	for _, line := range commands(t) {
		line = strings.ReplaceAll(line, "localhost:4567", at)
		if belongsElsewhere(line) {
			continue
		}
		for _, verb := range offlineVerbs {
			if strings.HasPrefix(line, verb) {
				stop()
			}
		}
		if background, ok := strings.CutSuffix(line, " &"); ok {
			var endpoint string
			serving, endpoint = start(t, dir, env, background)
			at = strings.Replace(strings.TrimPrefix(endpoint, "https://"), "127.0.0.1", "localhost", 1)
			continue
		}
		if rest, ok := strings.CutPrefix(line, "export "); ok {
			env = append(env, strings.Fields(strings.ReplaceAll(rest, "$PWD", dir))...)
			continue
		}
		if rest, ok := strings.CutPrefix(line, "unset "); ok {
			env = slices.DeleteFunc(env, func(pair string) bool {
				name, _, _ := strings.Cut(pair, "=")
				return slices.Contains(strings.Fields(rest), name)
			})
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

func TestConfigurationOfTheReadmeIsValid(t *testing.T) {
	path := configured(t, strings.Join(blocks(t, "yaml"), "\n"))
	if out := must(t, "config", "explain", "--config", path, "sinks"); strings.Count(out, ".settings: ") < 2 {
		t.Errorf("the sinks of the README are not in\n%s", out)
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

// start runs a command of the README in the background until the box is ready,
// and returns where it answers.
func start(t *testing.T, dir string, env []string, line string) (cmd *exec.Cmd, endpoint string) {
	t.Helper()
	args := strings.Fields(line)
	cmd = exec.Command(filepath.Join(dir, args[0]), args[1:]...)
	log := &lockedBuffer{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, line, func() bool {
		data, err := os.ReadFile(filepath.Join(dir, "data", "endpoint"))
		endpoint = strings.TrimSpace(string(data))
		if strings.Contains(log.String(), "weir: ") {
			t.Fatalf("%s:\n%s", line, log)
		}
		return err == nil && endpoint != ""
	})
	return cmd, endpoint
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
