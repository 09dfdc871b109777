package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/weirhq/weir/appliance/cmd/internal/kong"
)

// TestVerbsShowTheFlagsTheyTakeAndRefuseTheOthers gives each shared flag to each verb: the
// help has it, or the verb refuses it; completion offers what the help has.
func TestVerbsShowTheFlagsTheyTakeAndRefuseTheOthers(t *testing.T) {
	parser, err := kong.New(&commandLine{}, groups)
	if err != nil {
		t.Fatal(err)
	}
	verbs := map[string]bool{}
	for _, verb := range parser.Model.Leaves(true) {
		words := strings.Fields(verb.Path())
		for i, w := range words { // verbs without their arguments
			if strings.HasPrefix(w, "<") {
				words = words[:i]
				break
			}
		}
		name := strings.Join(words, " ")
		verbs[name] = true
		_, text, _ := runs(t, nil, append(words, "--help")...)
		offered := complete(t, append(words, "--")...)
		for _, s := range shared {
			has := strings.Contains(text, "--"+s.name+"=")
			if want := takes(verb, s.name); has != want || slices.Contains(offered, "--"+s.name) != want {
				t.Errorf("weir %s: takes --%s: %v, in the help: %v, offered: %v", name, s.name, want, has, offered)
			}
		}
	}
	for name := range flagsOf {
		if !verbs[name] {
			t.Errorf("there is no verb %q", name)
		}
	}
	for _, c := range []struct{ flag, verb, says string }{
		{"--dir", "version", "weir version needs no data directory"},
		{"--config", "stream list", "weir stream list reads no configuration"},
		{"--config", "verify", "weir verify reads no configuration"},
		{"--endpoint", "config explain", "weir config explain works on this machine and talks to no box"},
		{"--ca", "inspect", "weir inspect works on this machine and talks to no box"},
	} {
		for _, args := range [][]string{append([]string{c.flag, "x"}, strings.Fields(c.verb)...), append(strings.Fields(c.verb), c.flag, "x")} {
			code, out, errout := runs(t, nil, args...)
			if code != 2 || out != "" || !strings.HasPrefix(errout, "weir: "+c.flag+": x: "+c.says) || !strings.HasSuffix(errout, "\nTry: the same command without "+c.flag+"\n") {
				t.Errorf("weir %v: exit code %d\n%s%s", args, code, out, errout)
			}
		}
		// What is in the environment is for the verbs that take it.
		if code, _, errout := runs(t, []string{"WEIR_" + strings.ToUpper(c.flag[2:]) + "=/nonexistent"}, "version"); code != 0 {
			t.Errorf("%s in the environment: %s", c.flag, errout)
		}
	}
}
