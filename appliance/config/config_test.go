package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/fault"
)

// write puts the text into a file named weir.yaml.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// problems loads the text and returns what is wrong with it, without the folder.
func problems(t *testing.T, text string, environ ...string) []string {
	t.Helper()
	path := write(t, text)
	_, err := Load(path, environ)
	var ps Problems
	if !errors.As(err, &ps) {
		if err != nil {
			t.Fatalf("no Problems in %v", err)
		}
		return nil
	}
	if fault.ClassOf(err) != fault.Usage || fault.TryOf(err) == "" {
		t.Errorf("class %d, try %q", fault.ClassOf(err), fault.TryOf(err))
	}
	var out []string
	for _, p := range ps {
		out = append(out, strings.ReplaceAll(p.String(), path, "weir.yaml"))
	}
	return out
}

func TestDefaultIsValid(t *testing.T) {
	if ps := Default().Validate(); len(ps) > 0 {
		t.Fatal(ps)
	}
	if _, err := Load("", nil); err != nil {
		t.Fatal(err)
	}
}

func TestEveryProblemIsReportedAtOnceWithItsPlace(t *testing.T) {
	f := func(name, text string, want ...string) {
		t.Helper()
		if got := problems(t, text); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
	f("empty", "")
	f("comment only", "# nothing\n")
	f("null keeps the default", "listen:\n  address:\n")
	f("slip of the hand", "listen:\n  adress: :1\n", `weir.yaml:2: listen.adress: unknown key; did you mean "address"?`)
	f("unknown key", "telemetry:\n  colour: red\n", `weir.yaml:2: telemetry.colour: unknown key; expecting one of log_format, log_level, pprof`)
	f("no unit", "shutdown:\n  drain: 5\n", `weir.yaml:2: shutdown.drain: "5" has no unit; expecting a duration such as 5s or 5ms`)
	f("wrong unit", "storage:\n  cache_bytes: 5 parsecs\n", `weir.yaml:2: storage.cache_bytes: "5 parsecs" is not a size; expecting a number with a unit, such as 512KiB or 64MiB`)
	f("out of bounds", "shutdown:\n  drain: 5ms\n", `weir.yaml:2: shutdown.drain: 5ms is below 1s`)
	f("not a list", "streams: 7\n", `weir.yaml:1: streams: "7"; expecting a list`)
	f("not a mapping", "listen: [1]\n", `weir.yaml:1: listen: a list; expecting a mapping of keys`)
	f("not a scalar", "listen:\n  address: {a: 1}\n", `weir.yaml:2: listen.address: a mapping; expecting one value`)
	f("two documents", "listen: {}\n---\nlisten: {}\n", `weir.yaml:3: a second document begins; expecting one document`)
	f("alias", "listen: &x {}\n", `weir.yaml:1: listen: anchors, aliases and tags are not read here; expecting plain YAML`)
	f("certificates", `listen:
  client_ca: ca.pem
auth:
  certificates:
    - subject: CN=device-17,O=Acme
    - name: nothing
    - common_name: device-17
      dns: device-17.plant
    - subject: device-17
    - {subject: "cn=device-17, o=Acme"}
`,
		`weir.yaml:6: auth.certificates[1]: empty; expecting one of subject, common_name, uri, dns and email`,
		`weir.yaml:7: auth.certificates[2]: common_name and dns; expecting one of subject, common_name, uri, dns and email`,
		`weir.yaml:9: auth.certificates[3]: subject: "device-17"; expecting type=value`,
		`weir.yaml:10: auth.certificates[4].subject: the same as that of auth.certificates[0]; expecting each once`,
	)
	f("secrets", `auth:
  tokens:
    - name: none
    - {name: one, token: x}
`,
		`weir.yaml:3: auth.tokens[0].token: empty; expecting at least 16 characters`,
		`weir.yaml:4: auth.tokens[1].token: 1 character; expecting at least 16`,
	)
	f("many", `listen:
  address: nowhere
  cleartext: sometimes
streams:
  - name: a b
    shards: 0
  - name: ok
    retention: 5m
    retetion: 5m
auth:
  keys:
    - access_key_id: short
      secret_access_key: short
`,
		`weir.yaml:2: listen.address: "nowhere" is not an address; expecting host:port, such as 127.0.0.1:4567 or :4567`,
		`weir.yaml:3: listen.cleartext: "sometimes" is unknown; expecting one of loopback, always, never`,
		`weir.yaml:5: streams[0].name: "a b"; expecting 1 to 128 of a-z A-Z 0-9 _ . -`,
		`weir.yaml:6: streams[0].shards: 0 is below 1`,
		`weir.yaml:8: streams[1].retention: 5m is below 1h`,
		`weir.yaml:9: streams[1].retetion: unknown key; did you mean "retention"?`,
		`weir.yaml:12: auth.keys[0].access_key_id: "short"; expecting 16 to 128 letters and digits`,
		`weir.yaml:13: auth.keys[0].secret_access_key: 5 characters; expecting at least 16`,
	)
}

func TestBrokenYAMLNamesTheLine(t *testing.T) {
	got := problems(t, "listen:\n  address: \":1\n")
	if len(got) != 1 || !strings.HasPrefix(got[0], "weir.yaml:2: not YAML: ") {
		t.Errorf("got %q", got)
	}
}

func TestFileThatCannotBeReadIsTheEnvironment(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	if fault.ClassOf(err) != fault.Environment || !strings.Contains(err.Error(), "none.yaml: not readable: no such file") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironmentWinsOverTheFile(t *testing.T) {
	path := write(t, "listen:\n  address: :1\n  names: [a]\n")
	l, err := Load(path, []string{"WEIR_LISTEN_ADDRESS=:2", "WEIR_LISTEN_NAMES=b, c", "WEIR_DIR=/x", "OTHER=1"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Listen.Address != ":2" || fmt.Sprint(l.Listen.Names) != "[b c]" {
		t.Errorf("%+v", l.Listen)
	}
	for _, s := range l.Explain() {
		if s.Path == "listen.address" && (s.Origin != "WEIR_LISTEN_ADDRESS" || s.Default != ":4567" || s.Env != "WEIR_LISTEN_ADDRESS") {
			t.Errorf("%+v", s)
		}
	}
}

func TestEnvironmentIsAsStrictAsTheFile(t *testing.T) {
	got := problems(t, "listen:\n  address: nowhere\n", "WEIR_LISTEN_ADRESS=:2", "WEIR_SHUTDOWN_DRAIN=7", "WEIR_LISTEN_MAX_CONNECTIONS=0", "WEIR_AUTH_KEYS=x", "WEIR_AUTH_TOKENS_0_TOKEN=x")
	want := []string{
		`weir.yaml:2: listen.address: "nowhere" is not an address; expecting host:port, such as 127.0.0.1:4567 or :4567`,
		"environment: WEIR_LISTEN_ADRESS: unknown variable; did you mean WEIR_LISTEN_ADDRESS?",
		`environment: WEIR_SHUTDOWN_DRAIN: "7" has no unit; expecting a duration such as 7s or 7ms`,
		"environment: WEIR_AUTH_KEYS: the entries of auth.keys can be set in the file only, which weir serve --config names; a value there may be \"${env:NAME}\", for a variable of your own",
		"environment: WEIR_AUTH_TOKENS_0_TOKEN: the entries of auth.tokens can be set in the file only, which weir serve --config names; a value there may be \"${env:NAME}\", for a variable of your own",
		"WEIR_LISTEN_MAX_CONNECTIONS: listen.max_connections: 0 is below 1",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q", got)
	}
}

func TestSecretsNeverShow(t *testing.T) {
	path := write(t, "auth:\n  keys:\n    - {access_key_id: AAAAAAAAAAAAAAAAAAAA, secret_access_key: verysecretverysecret}\n")
	l, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.Auth.Keys[0].SecretAccessKey.Reveal() != "verysecretverysecret" {
		t.Error("the secret is not there")
	}
	encoded, err := json.Marshal(l.Config)
	if err != nil {
		t.Fatal(err)
	}
	explained, err := json.Marshal(l.Explain())
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprint(l.Config), fmt.Sprintf("%+v %#v", l.Auth, l.Auth), string(encoded), string(explained)} {
		if strings.Contains(shown, "verysecret") {
			t.Errorf("shows the secret: %s", shown)
		}
	}
	if got := l.Auth.Keys[0]; fmt.Sprint(got.Actions, got.Streams) != "[*] [*]" {
		t.Errorf("a key without grants has %v on %v", got.Actions, got.Streams)
	}
}

// TestValuesMayStandElsewhere: a file that everybody may read needs no secret in it.
func TestValuesMayStandElsewhere(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"key": "keykeykeykeykeykey\n", "lake": "lakelakelakelake", "empty": "\n", "large": strings.Repeat("a", maxReferenceBytes+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := write(t, `
auth:
  keys:
    - {access_key_id: AAAAAAAAAAAAAAAAAAAA, secret_access_key: "${file:`+dir+`/key}"}
  tokens:
    - name: device
      token: ${env:DEVICE_TOKEN}
listen:
  max_connections: "${env:WEIR_MAX}"
sinks:
  - name: lake
    kind: s3
    settings: {bucket: b, secret_access_key: "${file:`+dir+`/lake}", headers: ["${env:DEVICE_TOKEN}", {deep: "${env:WEIR_MAX}"}], number: 7}
`)
	l, err := Load(path, []string{"DEVICE_TOKEN=first", "DEVICE_TOKEN=tokentokentokentoken", "WEIR_MAX=77"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Auth.Keys[0].SecretAccessKey != "keykeykeykeykeykey" || l.Auth.Tokens[0].Token != "tokentokentokentoken" || l.Listen.MaxConnections != 77 {
		t.Errorf("%q, %q, %d", l.Auth.Keys[0].SecretAccessKey.Reveal(), l.Auth.Tokens[0].Token.Reveal(), l.Listen.MaxConnections)
	}
	want := `{"bucket":"b","headers":["tokentokentokentoken",{"deep":"77"}],"number":7,"secret_access_key":"lakelakelakelake"}`
	if got := string(l.Sinks[0].Settings.JSON()); got != want {
		t.Errorf("settings %s\nwant     %s", got, want)
	}
	for _, s := range l.Explain() {
		if strings.Contains(s.Value, "lakelake") || strings.Contains(s.Value, "token") && s.Path != "auth.tokens[0].name" {
			t.Errorf("%s shows %q", s.Path, s.Value)
		}
	}

	got := problems(t, `
auth:
  tokens:
    - {name: a, token: "${env:NONE}"}
    - {name: b, token: "Bearer ${env:NONE}"}
    - {name: c, token: "${vault:x}"}
    - {name: d, token: "${file:`+dir+`/none}"}
    - {name: e, token: "${file:here}"}
    - {name: f, token: "${file:`+dir+`}"}
    - {name: g, token: "${file:`+dir+`/empty}"}
    - {name: h, token: "${file:`+dir+`/large}"}
sinks:
  - name: lake
    kind: s3
    settings:
      bucket: b
      secret_access_key: ${env:NONE}
`)
	text := strings.ReplaceAll(strings.Join(got, "\n"), dir, "DIR")
	if want := `weir.yaml:4: auth.tokens[0].token: the variable "NONE" is not set
weir.yaml:5: auth.tokens[1].token: has more than a reference; expecting ${env:NAME} or ${file:/path} as the whole value
weir.yaml:6: auth.tokens[2].token: "${vault:x}" is no reference; expecting ${env:NAME} or ${file:/path}
weir.yaml:7: auth.tokens[3].token: DIR/none can't be read: no such file or directory
weir.yaml:8: auth.tokens[4].token: "here" is not a whole path; expecting ${file:/path}
weir.yaml:9: auth.tokens[5].token: DIR is not a file
weir.yaml:10: auth.tokens[6].token: DIR/empty is empty
weir.yaml:11: auth.tokens[7].token: DIR/large has more than 65536 bytes
weir.yaml:17: sinks[0].settings.secret_access_key: the variable "NONE" is not set`; text != want {
		t.Errorf("got\n%s", text)
	}
}

func TestEverySettingHasADoc(t *testing.T) {
	l, err := Load(write(t, "streams: [{name: a}]\nauth: {keys: [{access_key_id: AAAAAAAAAAAAAAAAAAAA, secret_access_key: verysecretverysecret}]}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.Explain() {
		if s.Doc == "" {
			t.Errorf("%s has none", s.Path)
		}
	}
}

func TestExplainShowsWhatListsWithoutElementsMayHold(t *testing.T) {
	got := map[string]Setting{}
	for _, s := range (&Loaded{Config: Default()}).Explain() {
		got[s.Path] = s
	}
	for path, value := range map[string]string{
		"sinks[].kind": "", "sinks[].settings": "", "streams[].shards": "1", "streams[].when_full": "reject",
		"auth.tokens[].token": "", "auth.keys[].actions": "*", "wasm.secrets[].name": "",
	} {
		if s, ok := got[path]; !ok || s.Value != value || s.Doc == "" || s.Env != "" || s.Origin != "default" {
			t.Errorf("%s: %+v, want the value %q, a doc and no variable", path, s, value)
		}
	}
}

func TestAnOnDemandStreamBeginsWithFourShardsUnlessToldOtherwise(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte("streams:\n- {name: a, mode: on-demand}\n- {name: b, mode: on-demand, shards: 2}\n- {name: c}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, b, c := l.Streams[0].Shards, l.Streams[1].Shards, l.Streams[2].Shards; a != 4 || b != 2 || c != 1 {
		t.Errorf("%d, %d and %d shards", a, b, c)
	}
}

func TestNeedRestartNamesOnlyWhatAReloadCannotApply(t *testing.T) {
	a, b := Default(), Default()
	b.Telemetry.LogLevel = "debug"
	b.Auth.Keys = []Key{{Name: "n"}}
	if got := a.NeedRestart(b); got != nil {
		t.Errorf("live changes need a restart: %v", got)
	}
	b.Listen.Address, b.Storage.CacheBytes = ":1", 1
	if got := fmt.Sprint(a.NeedRestart(b)); got != "[listen.address storage.cache_bytes]" {
		t.Errorf("got %s", got)
	}
}

func TestBytesAndDurationsReadBackAsWritten(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "4096": 4096, "64KiB": 64 << 10, "1.5 GiB": 3 << 29, "1MB": 1e6, "8 EiB": -1, "-1": -1, "1.5": -1, "9223372036854775807TiB": -1, "": -1, "MiB": -1} {
		got, err := ParseBytes(text)
		if (err != nil) != (want == -1) || (err == nil && got != want) {
			t.Errorf("ParseBytes(%q) = %d, %v", text, got, err)
		}
		if err == nil {
			if back, err := ParseBytes(got.String()); err != nil || back != got {
				t.Errorf("%q reads back as %d, %v", got, back, err)
			}
		}
	}
	for text, want := range map[string]time.Duration{"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "250ms": 250 * time.Millisecond, "3": -1, "d": -1, "-1d": -1, "1x": -1} {
		got, err := ParseDuration(text)
		if (err != nil) != (want == -1) || (err == nil && got != want) {
			t.Errorf("ParseDuration(%q) = %v, %v", text, got, err)
		}
		if err == nil {
			if back, err := ParseDuration(FormatDuration(got)); err != nil || back != got {
				t.Errorf("%q reads back as %v, %v", FormatDuration(got), back, err)
			}
		}
	}
}

// TestSettingsAreNotExpanded: nine levels of nine aliases would be more than the memory.
func TestSettingsAreNotExpanded(t *testing.T) {
	text := "sinks:\n  - settings:\n      a0: &a0 [1]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("      a%d: &a%[1]d [%s]\n", i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9))
	}
	_, problems := decode(Default(), "x.yaml", []byte(text), &references{used: map[string]bool{}})
	if err := problems.Error(); len(problems) != 1 || !strings.Contains(err, "x.yaml:3: sinks[0].settings: anchors, aliases and tags are not read here") {
		t.Error(err)
	}
	for _, settings := range []string{"<<: {a: 1}", "a: !!binary eA==", "a: {b: [*x]}"} {
		if _, problems := decode(Default(), "x.yaml", []byte("sinks: [{settings: {"+settings+"}}]"), &references{used: map[string]bool{}}); len(problems) == 0 {
			t.Errorf("%s is taken", settings)
		}
	}
}

// FuzzDecode holds the reader to: no panic, and what it accepts is valid.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "listen:\n  address: :1\n", "streams:\n  - name: a\n    shards: 2\n", "a: [", "? x\n: y\n", "listen: *a", "- 1\n- 2\n",
		"auth: {keys: [{name: x}]}", "listen: |\n  text\n", "!!map {}", "listen: {address: [1, {2: 3}]}\n", "\xff", "<<: {a: 1}\n", "%YAML 1.2\n---\n",
		"sinks: [{settings: {a: [\"${env:A}\", {b: \"${file:/}\"}]}}]\n", "sinks: [{settings: {a: &a [1, 1], b: [*a, *a]}}]\n", "sinks:\n- settings:\n    a: &a\n      b: *a\n", "listen: {address: \"${file:x\"}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Default()
		if _, problems := decode(c, "x.yaml", data, &references{used: map[string]bool{}}); len(problems) == 0 {
			c.Validate()
			(&Loaded{Config: c}).Explain()
		}
	})
}
