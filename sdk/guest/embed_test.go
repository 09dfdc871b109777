package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func writeProject(t *testing.T, l Language, example string) string {
	t.Helper()
	files, err := l.Project("my-module", example)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range files {
		p := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProjectsAreComplete(t *testing.T) {
	for _, l := range Languages() {
		for _, example := range Examples() {
			dir := writeProject(t, l, example)
			manifest, err := os.ReadFile(filepath.Join(dir, Manifest))
			if err != nil || !bytes.Contains(manifest, []byte("\nname: my-module\n")) {
				t.Errorf("%s/%s: manifest without the module's name: %v", l.Name, example, err)
			}
			source, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(l.Source)))
			if err != nil || bytes.Contains(source, []byte("weirhq")) || bytes.Contains(source, []byte("../assembly")) {
				t.Errorf("%s/%s: source still points into this repository: %v", l.Name, example, err)
			}
		}
	}
}

// TestProjectsBuild lays out a project outside of this repository and builds it
// with nothing but what is in it. AssemblyScript's compiler is what install.sh put
// there; the build's npm step is for those who have none yet.
func TestProjectsBuild(t *testing.T) {
	for _, l := range Languages() {
		dir := writeProject(t, l, "filter")
		if l.Name == "assemblyscript" {
			modules, err := filepath.Abs("assemblyscript/node_modules")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
				t.Fatal(err)
			}
		}
		commands, err := l.Build()
		if err != nil {
			t.Errorf("%s: %v\nTry: sdk/guest/install.sh", l.Name, err)
			continue
		}
		for _, c := range commands {
			if _, err := os.Stat(filepath.Join(dir, c.Make)); c.Make != "" && err == nil {
				continue
			}
			cmd := exec.CommandContext(t.Context(), c.Args[0], c.Args[1:]...)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), c.Env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", l.Name, strings.Join(c.Args, " "), err, out)
			}
		}
		if wasm, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(l.Output))); err != nil || !bytes.HasPrefix(wasm, []byte("\x00asm")) {
			t.Errorf("%s: no module built: %v", l.Name, err)
		}
	}
}

func TestProjectRefusesBadNames(t *testing.T) {
	l, err := Lookup("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "Upper", "-x", "a/b", "..", strings.Repeat("a", 64)} {
		if _, err := l.Project(name, "filter"); err == nil {
			t.Errorf("project %q: no error", name)
		}
	}
	for _, example := range []string{"", "none", "probe", "../vectors/filter"} {
		if _, err := l.Project("x", example); err == nil {
			t.Errorf("example %q: no error", example)
		}
	}
	if _, err := Lookup("cobol"); err == nil {
		t.Error("language cobol: no error")
	}
}
