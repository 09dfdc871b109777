package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFileThatIsNotReadableIsTheMachine: by one rule, whichever verb it was given to,
// and what is in a file that can be read is not.
func TestFileThatIsNotReadableIsTheMachine(t *testing.T) {
	dir := t.TempDir()
	none, text, sub := filepath.Join(dir, "none"), filepath.Join(dir, "text"), filepath.Join(dir, "folder")
	for name, content := range map[string]string{text: "{", filepath.Join(sub, "module.yaml"): "name: a\nversion: 1.0.0\nkind: transform\n", filepath.Join(sub, "a.wasm"): "x"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	box := []string{"--endpoint", "https://localhost:1"}
	for _, verb := range []struct {
		args []string // before the file
		file []string // behind it
		ok   bool     // any text will do
	}{
		{[]string{"put", "s", "--file"}, box, true},
		{[]string{"put", "s", "--whole", "--file"}, box, true},
		{[]string{"delivery", "create", "d", "--file"}, box, false},
		{[]string{"delivery", "update", "d"}, box, false},
		{[]string{"import", "--dir", filepath.Join(dir, "box")}, nil, false},
		{[]string{"module", "sign", sub, "--key"}, nil, false},
		{[]string{"module", "push", sub, "--key"}, box, false},
		{[]string{"module", "test", sub, "--records"}, nil, true},
		{[]string{"stream", "list", "--ca"}, box, false},
		{[]string{"check", "--dir", dir, "--config"}, nil, false},
		{[]string{"config", "explain", "--dir", dir, "--config"}, nil, false},
	} {
		given := func(file string) (int, string) {
			args := append(append(append([]string{}, verb.args...), file), verb.file...)
			code, _, errout := runs(t, []string{"WEIR_ACCESS_KEY_ID=a", "WEIR_SECRET_ACCESS_KEY=b"}, args...)
			return code, errout
		}
		for _, file := range []string{none, sub} {
			if code, errout := given(file); code != 3 || !strings.Contains(errout, file+": not readable: ") {
				t.Errorf("weir %s %s: exit code %d\n%s", strings.Join(verb.args, " "), file, code, errout)
			}
		}
		if code, errout := given(text); code != 2 && !verb.ok {
			t.Errorf("weir %s %s: exit code %d\n%s", strings.Join(verb.args, " "), text, code, errout)
		}
	}
}
