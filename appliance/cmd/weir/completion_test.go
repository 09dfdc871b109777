package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runs runs the command in this process.
func runs(t *testing.T, environ []string, args ...string) (code int, out, errout string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, streams{strings.NewReader(""), &o, &e}, environ)
	return code, o.String(), e.String()
}

func complete(t *testing.T, words ...string) []string {
	t.Helper()
	code, out, errout := runs(t, nil, append([]string{"__complete"}, words...)...)
	if code != 0 {
		t.Fatalf("%v: exit code %d\n%s", words, code, errout)
	}
	return strings.Fields(out)
}

func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{[]string{"st"}, []string{"stream"}},
		{[]string{"stream", "re"}, []string{"reshard", "retention"}},
		{[]string{"--dir", "somewhere", "stream", "cre"}, []string{"create"}},
		{[]string{"stream", "create", "--when"}, []string{"--when-full"}},
		{[]string{"stream", "create", "a", "--sh"}, []string{"--shards"}},
		{[]string{"trust", "b"}, []string{"boto3"}},
		{[]string{"completion", ""}, []string{"bash", "fish", "zsh"}},
		{[]string{"serve", "--js"}, []string{"--json"}},
		{[]string{"stream", "nothing-such"}, nil},
	} {
		if got := complete(t, c.words...); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	verbs := complete(t)
	if !slices.Contains(verbs, "serve") || !slices.Contains(verbs, "demo") || slices.Contains(verbs, "__complete") {
		t.Errorf("verbs %q", verbs)
	}
}

// TestBashCompletes runs the script in bash, with a weir that is this test's binary.
func TestBashCompletes(t *testing.T) {
	_, script, _ := runs(t, nil, "completion", "bash")
	dir := t.TempDir()
	weir := filepath.Join(dir, "weir")
	text := "#!/bin/sh\nWEIR_AS_COMMAND=1 exec " + os.Args[0] + " \"$@\"\n"
	if err := os.WriteFile(weir, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	bash := exec.CommandContext(t.Context(), "bash", "-c", script+`
COMP_WORDS=(`+weir+` stream re) COMP_CWORD=2
_weir
echo "${COMPREPLY[@]}"`)
	out, err := bash.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "reshard retention" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestMain lets the test's binary stand for weir itself.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_AS_COMMAND") != "" {
		os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
	}
	os.Exit(m.Run())
}
