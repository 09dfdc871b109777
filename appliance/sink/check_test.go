package sink

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// problems checks one sink and writes what is found, a line each.
func problems(sinks ...Config) string {
	var b strings.Builder
	for _, p := range Check(sinks) {
		fmt.Fprintf(&b, "%s: %s\n", p.Path, p.Text)
	}
	return b.String()
}

func TestSettingsOfASinkAreCheckedAllAtOnce(t *testing.T) {
	for _, row := range []struct{ kind, settings, want string }{
		{"file", `{"dir":"/objects"}`, ""},
		{"file", `{"path":"/objects"}`, "sinks[0].settings.path: unknown key; expecting one of bucket, create, dir, metered, no_metadata\n"},
		{"file", `{"path":"/objects","create":"yes","dir":7}`, "sinks[0].settings.create: not a switch; expecting true or false\n" +
			"sinks[0].settings.dir: a number or a switch; expecting a text, so put it in quotes\n" +
			"sinks[0].settings.path: unknown key; expecting one of bucket, create, dir, metered, no_metadata\n"},
		{"file", ``, "sinks[0].settings.dir: must name a folder\n"},
		{"file", `"/objects"`, "sinks[0].settings: expecting a mapping of keys\n"},
		{"s3", `{"endpoint":"http://127.0.0.1:9000"}`, ""}, // the bucket may come from the delivery stream
		{"s3", `{"endpoint":"127.0.0.1:9000","access_key_id":"ID"}`, "sinks[0].settings.endpoint: \"127.0.0.1:9000\" must be http://host[:port] or https://host[:port]\n" +
			"sinks[0].settings: access_key_id and secret_access_key belong together\n"},
		{"s3", `{"bucket":"readings","timeout":"soon","tags":[1]}`, "sinks[0].settings.tags: expecting a mapping of names to texts\nsinks[0].settings.timeout: "},
		{"http", `{"timeout":3}`, "sinks[0].settings.url: \"\" must be an http or https URL\n"},
		{"kinesis", `{"stream":"a","endpoint":"https://b"}`, "sinks[0].settings: credentials: give access_key_id and secret_access_key, or source: instance\n"},
		{"kinesis", `{"stream":"a","endpoint":"https://b","access_key_id":"ID"}`, "sinks[0].settings: access_key_id and secret_access_key belong together\n"},
		{"kafka", `{}`, "sinks[0].kind: \"kafka\" is unknown; expecting one of file, http, kinesis, s3\n"},
	} {
		got := problems(Config{Name: "a", Kind: row.kind, Settings: json.RawMessage(row.settings)})
		if row.want == "" && got != "" || !strings.HasPrefix(got, row.want) {
			t.Errorf("%s %s:\n%swant\n%s", row.kind, row.settings, got, row.want)
		}
	}
}

func TestNamesOfSinksAndTheDefaultAreUnambiguous(t *testing.T) {
	folder := json.RawMessage(`{"dir":"/objects"}`)
	got := problems(
		Config{Name: "a", Kind: "file", Default: true, Settings: folder},
		Config{Name: "a", Kind: "file", Default: true, Settings: folder},
		Config{Kind: "http", Default: true, Settings: json.RawMessage(`{"url":"https://a"}`)},
	)
	if want := `sinks[1].name: a is the name of sinks[0] too; expecting each name once
sinks[1].default: sinks[0] is the default already; expecting one
sinks[2].name: empty; expecting a name for delivery streams to use
sinks[2].default: a http sink stores no objects; expecting s3 or file
`; got != want {
		t.Errorf("%swant\n%s", got, want)
	}
	if _, err := New([]Config{{Name: "a", Kind: "nope"}}, nil); err == nil {
		t.Error("a table of what is wrong was made")
	}
}

// A value of another kind may be a secret that was written as a number.
func TestProblemsShowNoSecret(t *testing.T) {
	got := problems(Config{Name: "a", Kind: "s3", Settings: json.RawMessage(`{"bucket":"readings","access_key_id":"ID","secret_access_key":8765432187654321}`)})
	if got == "" || strings.Contains(got, "87654321") {
		t.Errorf("%q", got)
	}
}
