package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/cmd/internal/kong"
	"github.com/weirhq/weir/appliance/fault"
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

// A number below zero is not taken for none: a tail would not end, a top would not begin.
func TestNumbersBelowZeroAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"tail", "s", "--limit=-3"},
		{"top", "--count=-1"},
		{"top", "--interval=-1s"},
		{"delivery", "flush", "d", "--wait=-5s"},
		{"delivery", "objects", "d", "--limit=-1"},
		{"demo", "--duration=-1s"},
		{"demo", "--rate=-0.5"},
		{"stream", "create", "s", "--shards=-1"},
	} {
		flag, value, _ := strings.Cut(args[len(args)-1], "=")
		code, out, errout := runs(t, nil, args...)
		if code != 2 || out != "" || !strings.HasPrefix(errout, "weir: "+flag+": "+value+": expecting 0 or more\nTry: weir "+args[0]) {
			t.Errorf("weir %v: exit code %d\n%s%s", args, code, out, errout)
		}
	}
	c := &deliveryCreateCmd{To: "file:///tmp/x", Size: "0"}
	if _, err := c.config(&app{}); fault.ClassOf(err) != fault.Usage || !strings.Contains(err.Error(), "--size: 0: expecting 1B or more") {
		t.Errorf("--size=0: %v", err)
	}
	if code, _, errout := runs(t, nil, "top", "--interval=0s"); code != 2 || !strings.Contains(errout, "--interval: 0s: expecting 100ms or more") {
		t.Errorf("top --interval=0s: exit code %d\n%s", code, errout)
	}
}

// What an URL says beyond the folder or the bucket is not dropped.
func TestTargetIsTakenWholeOrRefused(t *testing.T) {
	for to, says := range map[string]string{
		"":                     `--to: "": expecting file:///folder`,
		"file://":              "expecting a whole path behind file://",
		"file://tmp/objects":   "expecting a whole path behind file://, such as file:///",
		"s3://bucket/raw/2026": "--to: s3://bucket/raw/2026: expecting a bucket alone",
		"gs://bucket":          "other kinds of sinks are named in the configuration",
	} {
		_, err := (&deliveryCreateCmd{To: to}).target(&app{})
		if fault.ClassOf(err) != fault.Usage || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", to, err, says)
		}
	}
	_, err := (&deliveryCreateCmd{To: "s3://bucket/raw/2026/"}).target(&app{})
	if want := "--to s3://bucket --prefix raw/2026/"; fault.TryOf(err) != want {
		t.Errorf("advice %q, want %q", fault.TryOf(err), want)
	}
	for _, to := range []string{"file:///objects", "s3://bucket", "s3://bucket/", "sink:lake"} {
		if _, err := (&deliveryCreateCmd{To: to}).target(&app{}); err != nil {
			t.Errorf("%q: %v", to, err)
		}
	}
}

func TestTailBeginsWhereItIsTold(t *testing.T) {
	now := time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC)
	for from, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "7d": now.AddDate(0, 0, -7), "1d12h": now.Add(-36 * time.Hour), "0s": now,
		"2027-01-14T11:00:00Z": now.Add(-25 * time.Hour), "2027-01-14T12:00:00.5+01:00": now.Add(-25*time.Hour + 500*time.Millisecond),
		"2027-01-14": time.Date(2027, 1, 14, 0, 0, 0, 0, time.Local), "2027-01-14 10:30:00": time.Date(2027, 1, 14, 10, 30, 0, 0, time.Local),
	} {
		in, err := (&tailCmd{Stream: "s", From: from}).start(now)
		if err != nil || in.Timestamp == nil || !in.Timestamp.Equal(want) {
			t.Errorf("--from %s: %v, %v; want %v", from, in.Timestamp, err, want)
		}
	}
	for _, from := range []string{"", "-10m", "yesterday", "10", "7 d", "2027-13-01"} {
		if _, err := (&tailCmd{Stream: "s", From: from}).start(now); fault.ClassOf(err) != fault.Usage {
			t.Errorf("--from %q: %v", from, err)
		}
	}
}

func TestPathsArePastedAsOneWord(t *testing.T) {
	for path, want := range map[string]string{
		"/var/lib/weir-1/trust/ca.pem": "/var/lib/weir-1/trust/ca.pem", "/data/grüße": "/data/grüße",
		"/my box/ca.pem": "'/my box/ca.pem'", "/it's": `'/it'\''s'`, "/$HOME;x": "'/$HOME;x'", "/~": "'/~'",
	} {
		if got := shellWord(path); got != want {
			t.Errorf("%s is pasted as %s, want %s", path, got, want)
		}
	}
}
