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
	"time"
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

// asCommand returns a directory with a weir that is this test's binary.
func asCommand(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	text := "#!/bin/sh\nWEIR_AS_COMMAND=1 exec " + os.Args[0] + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "weir"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inShell runs a program of a shell that has the completion script at $SCRIPT
// and weir on its path, and returns what it printed. The shell must be there.
func inShell(t *testing.T, shell, program string) string {
	t.Helper()
	dir := asCommand(t)
	_, script, _ := runs(t, nil, "completion", shell)
	path := filepath.Join(dir, "_weir")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "SCRIPT="+path, "DIR="+dir, "HOME="+dir, "TERM=dumb", "PATH="+dir+":"+os.Getenv("PATH"))
	var out []byte
	for _, args := range [][]string{{"-n", path}, {"-c", program}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, shell, args...)
		cmd.Env = env
		var err error
		if out, err = cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v (.ci/deps installs the shells)\n%s", shell, args[0], err, out)
		}
	}
	return string(out)
}

func TestBashCompletes(t *testing.T) {
	out := inShell(t, "bash", `. $SCRIPT; COMP_WORDS=(weir stream re) COMP_CWORD=2; _weir; echo "${COMPREPLY[@]}"`)
	if strings.TrimSpace(out) != "reshard retention" {
		t.Error(out)
	}
}

// TestZshCompletes types into an interactive zsh, which is shown what its line
// became: with the script sourced, and with it found in fpath.
func TestZshCompletes(t *testing.T) {
	for _, setup := range []string{"autoload -Uz compinit; compinit -u -D; . $SCRIPT", "fpath=($DIR $fpath); autoload -Uz compinit; compinit -u -D"} {
		out := inShell(t, "zsh", `zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z '`+setup+`; dump() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N dump; bindkey "^X" dump; print set""up'
zpty -r z seen '*setup*'
for line in 'weir stream ret' "weir put --file $DIR/_w" 'weir trust bo'; do
	zpty -w -n z "$line"$'\t\x18'
	zpty -r z seen '*<weir *>*'
	print -r -- "${seen##*<}"
done
zpty -d z`)
		for _, want := range []string{"weir stream retention >", "/_weir >", "weir trust boto3 >"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%q", setup, want, out)
			}
		}
	}
}

func TestFishCompletes(t *testing.T) {
	out := inShell(t, "fish", `source $SCRIPT
for line in 'weir stream re' 'weir trust bo' "weir put --file $DIR/_w"
    complete -C $line
end`)
	for _, want := range []string{"reshard\nretention\n", "boto3\n", "/_weir\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestMain lets the test's binary stand for weir itself.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_AS_COMMAND") != "" {
		os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
	}
	os.Exit(m.Run())
}
