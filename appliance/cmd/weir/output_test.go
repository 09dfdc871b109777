package main

import (
	"encoding/json"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/cmd/internal/kong"

	"github.com/weirhq/weir/appliance/delivery"
)

func TestNumbersForPeople(t *testing.T) {
	for want, got := range map[string]string{
		"0 B": size(0), "1023 B": size(1023), "1.0 KiB": size(1024), "1.5 MiB": size(3 << 19), "2.0 TiB": size(2 << 40), "4096.0 TiB": size(4 << 50),
		"0": count(0), "999": count(999), "1,000": count(1000), "1,234,567": count(1234567),
		"-": ago(time.Time{}, time.Now()), "0s": span(-time.Second), "850ms": span(850 * time.Millisecond), "119s": span(119 * time.Second),
		"2m": span(2 * time.Minute), "119m": span(119 * time.Minute), "2h": span(2 * time.Hour), "47h": span(47 * time.Hour), "2d": span(48 * time.Hour),
		"1 shard": plural(1, "shard"), "0 shards": plural(0, "shard"), "1,000 records": plural(1000, "record"),
		"1 batch": plural(1, "batch"), "2 batches": plural(2, "batch"), "1 retry": plural(1, "retry"), "0 retries": plural(0, "retry"),
		"#0": shardShort("shardId-000000000000"), "#12": shardShort("shardId-000000000012"), "12": shardShort("12"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTableIsAsWideAsItNeeds(t *testing.T) {
	table := newTable("NAME", "COUNT ", "WHAT")
	table.add("a", "1", "x")
	table.add("långer", "1,000", "")
	var b strings.Builder
	table.write(&b)
	want := "NAME    COUNT  WHAT\na           1  x\nlånger  1,000\n"
	if b.String() != want {
		t.Errorf("\n%s, want\n%s", b.String(), want)
	}
}

// Every verb has a help line that is a sentence, and so has every flag and argument.
func TestEveryVerbAndFlagHasHelp(t *testing.T) {
	parser, err := kong.New(&commandLine{}, groups)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		if n.Hidden {
			return
		}
		if n.Parent != nil && !strings.HasSuffix(n.Help, ".") {
			t.Errorf("weir %s: help %q is no sentence", n.Path(), n.Help)
		}
		for _, f := range n.Flags {
			if f.Help == "" {
				t.Errorf("weir %s --%s has no help", n.Path(), f.Name)
			}
		}
		for _, p := range n.Positional {
			if p.Help == "" {
				t.Errorf("weir %s <%s> has no help", n.Path(), p.Name)
			}
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(parser.Model.Node)
}

func TestHelpOfEveryVerbEndsWell(t *testing.T) {
	for _, verb := range complete(t) {
		code, out, errout := runs(t, nil, verb, "--help")
		if code != 0 || !strings.HasPrefix(out, "Usage: weir "+verb) || errout != "" {
			t.Errorf("weir %s --help: exit code %d\n%s%s", verb, code, out, errout)
		}
	}
}

// With --json an error is one JSON object on standard error.
func TestErrorsInJSON(t *testing.T) {
	dir := t.TempDir()
	for want, args := range map[string][]string{
		`{"error":"unexpected argument sevre, did you mean \"serve\"?","exit_code":2,"try":"weir --help"}`:        {"sevre", "--json"},
		`"exit_code":3,"subject":"data directory","try":"weir serve --dir ` + dir + `, or --endpoint URL`:         {"--json", "--dir", dir, "stream", "list"},
		`"exit_code":2,"subject":"--from","try":"weir tail --help"`:                                               {"--json", "--endpoint", "https://box", "tail", "x", "--from", "when"},
		`{"error":"setting: nope: there is none of this name","exit_code":2,"subject":"setting","try":"weir conf`: {"--json", "--dir", dir, "config", "explain", "nope"},
	} {
		environ := []string{"WEIR_ACCESS_KEY_ID=a", "WEIR_SECRET_ACCESS_KEY=b"}
		if code, out, errout := runs(t, environ, args...); code == 0 || out != "" || !strings.Contains(errout, want) || strings.Count(errout, "\n") != 1 {
			t.Errorf("%q: exit code %d, no %s in\n%s%s", args, code, want, out, errout)
		}
	}
}

// TestEveryVerbRefusesWhatItDoesNotKnow tries a flag that no verb has: exit code
// 2, the help to read, and with --json one object.
func TestEveryVerbRefusesWhatItDoesNotKnow(t *testing.T) {
	parser, err := kong.New(&commandLine{}, groups)
	if err != nil {
		t.Fatal(err)
	}
	tried := parser.Model.Leaves(true)
	if len(tried) < 40 {
		t.Fatalf("only %d verbs", len(tried))
	}
	for _, verb := range tried {
		words := strings.Fields(verb.Path())
		code, out, errout := runs(t, nil, append(words, "--no-such-flag")...)
		if code != 2 || out != "" || !strings.Contains(errout, "unknown flag --no-such-flag") || !strings.HasSuffix(errout, "\nTry: weir "+strings.Join(words, " ")+" --help\n") {
			t.Errorf("%v: exit code %d\n%s%s", words, code, out, errout)
		}
		code, _, errout = runs(t, nil, append(words, "--no-such-flag", "--json")...)
		var body struct {
			ExitCode int `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(errout), &body); err != nil || code != 2 || body.ExitCode != 2 {
			t.Errorf("%v: exit code %d, %v\n%s", words, code, err, errout)
		}
	}
}

// TestAnUnknownChoiceIsAnsweredWithTheChoices: not with the empty one, which is no word.
func TestAnUnknownChoiceIsAnsweredWithTheChoices(t *testing.T) {
	code, _, errout := runs(t, nil, "trust", "perl")
	if want := `must be one of "aws","boto3","java","node","go","ca" but got "perl"`; code != 2 || !strings.Contains(errout, want) {
		t.Errorf("exit code %d, want 2 and %s\n%s", code, want, errout)
	}
}

// TestDemoSaysThatItsBoxIsTemporary: --dir of the demo is not that of the box.
func TestDemoSaysThatItsBoxIsTemporary(t *testing.T) {
	for verb, want := range map[string]bool{"demo": true, "serve": false} {
		_, text, _ := runs(t, nil, verb, "--help")
		text = strings.Join(strings.Fields(text), " ")
		if strings.Contains(text, "a temporary one, removed at the end, if not given") != want || strings.Contains(text, "weir-data if not given") == want {
			t.Errorf("weir %s --help:\n%s", verb, text)
		}
	}
}

// TestReshardWantsOneWay has a usage line without flags: one of three is needed, not all.
func TestReshardWantsOneWay(t *testing.T) {
	if _, text, _ := runs(t, nil, "stream", "reshard", "--help"); !strings.HasPrefix(text, "Usage: weir stream reshard <name> [flags]\n") {
		t.Errorf("%s", text)
	}
	environ := []string{"WEIR_ACCESS_KEY_ID=a", "WEIR_SECRET_ACCESS_KEY=b"}
	for _, flags := range [][]string{{}, {"--at", "7"}, {"--shards", "2", "--merge", "a,b"}} {
		code, _, errout := runs(t, environ, append([]string{"--endpoint", "https://localhost:1", "stream", "reshard", "s"}, flags...)...)
		if code != 2 || !strings.Contains(errout, "--shards") || !strings.Contains(errout, "--merge") {
			t.Errorf("%v: exit code %d\n%s", flags, code, errout)
		}
	}
}

// TestHelpSaysWhatLinesCost: who is after the least CPU per byte finds the flag for it.
func TestHelpSaysWhatLinesCost(t *testing.T) {
	_, text, _ := runs(t, nil, "delivery", "create", "--help")
	text = strings.Join(strings.Fields(text), " ")
	if want := "With --no-lines and zstd they are sent as they are stored."; !strings.Contains(text, want) {
		t.Errorf("%s\nlacks %q", text, want)
	}
}

func TestDeliveryOfOneRecordReadsWell(t *testing.T) {
	var b strings.Builder
	printDeliveryStats(&b, &delivery.Stats{Records: 1, Objects: 1, Bytes: 29, Stored: 38, LagRecords: 1, LagBytes: 5})
	for _, want := range []string{"delivered  1 record in 1 object, 29 B, stored as 38 B\n", "waiting    1 record, 5 B, "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nlacks %q", b.String(), want)
		}
	}
}

// TestStatsSayWhyNothingArrives in words, the same each time.
func TestStatsSayWhyNothingArrives(t *testing.T) {
	var s delivery.Stats
	err := json.Unmarshal([]byte(`{"retries":{"S3.SlowDown":1200,"S3.AccessDenied":1},"last_error":{
		"failures":3,"code":"S3.AccessDenied","error":"no (HTTP 403)","since":"2026-11-23T13:43:48Z","next":"2026-11-23T13:43:55Z"}}`), &s)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	printDeliveryStats(&b, &s)
	want := `  retried    1 time: S3.AccessDenied
  retried    1,200 times: S3.SlowDown
  last error S3.AccessDenied: no (HTTP 403)
             3 attempts in a row since 2026-11-23T13:43:48Z, next at 2026-11-23T13:43:55Z
`
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("\n%swant\n%s", b.String(), want)
	}
}

// A file that another user may read needs no backup.
func TestAdviceAboutAFileOfTheBox(t *testing.T) {
	for _, c := range []struct {
		err  syscall.Errno
		want string
	}{
		{syscall.EACCES, "the same command as the user that the box runs as"},
		{syscall.ENOENT, "the file from a backup"},
	} {
		if got := fileAdvice(&fs.PathError{Op: "stat", Path: "ca.key", Err: c.err}); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}
