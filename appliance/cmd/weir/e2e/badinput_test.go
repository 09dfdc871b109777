package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fails runs a command that has to end with the code, and say each of the words.
func fails(t *testing.T, code int, env []string, args []string, words ...string) {
	t.Helper()
	r := weir(t, env, args...)
	if r.code != code {
		t.Errorf("weir %v: exit code %d, want %d\n%s%s", args, r.code, code, r.out, r.errout)
	}
	for _, w := range words {
		if !strings.Contains(r.errout, w) {
			t.Errorf("weir %v: no %q in\n%s", args, w, r.errout)
		}
	}
}

// configured writes a configuration and returns its name.
func configured(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnknownKeyAndWrongUnitAreAllNamed(t *testing.T) {
	path := configured(t, "listen:\n  adress: :1\nshutdown:\n  drain: 20\n")
	fails(t, 2, nil, []string{"serve", "--dir", t.TempDir(), "--config", path},
		`weir.yaml:2: listen.adress: unknown key; did you mean "address"?`,
		`weir.yaml:4: shutdown.drain: "20" has no unit; expecting a duration such as 20s or 20ms`,
		"Try: weir config explain")
}

func TestSettingsOfSinksAreCheckedWithTheFile(t *testing.T) {
	path := configured(t, `sinks:
  - name: local
    kind: file
    settings: {path: /objects}
  - name: lake
    kind: s3
    settings:
      bucket: 7
      acess_key_id: ID
telemetry:
  log_levl: info
`)
	for _, verb := range []string{"check", "serve"} {
		fails(t, 2, nil, []string{verb, "--dir", t.TempDir(), "--config", path},
			"weir.yaml:4: sinks[0].settings.path: unknown key; expecting one of bucket, create, dir,",
			"weir.yaml:8: sinks[1].settings.bucket: a number or a switch; expecting a text, so put it in quotes",
			"weir.yaml:9: sinks[1].settings.acess_key_id: unknown key; expecting one of access_key_id,",
			"weir.yaml:11: telemetry.log_levl: unknown key",
			"Try: weir config explain")
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	fails(t, 3, []string{"WEIR_LISTEN_ADDRESS=" + l.Addr().String()}, []string{"serve", "--dir", dir},
		"listen.address: "+l.Addr().String(), "address already in use", "Try: WEIR_LISTEN_ADDRESS=:PORT with a free port")
	// That start made the keys and never came to show them.
	for _, shown := range []bool{true, false} {
		b := serve(t, dir)
		b.stop(t)
		if got := strings.Contains(b.log.String(), "Secret access key   "); got != shown {
			t.Errorf("secrets shown: %v, want %v\n%s", got, shown, b.log)
		}
	}
	fails(t, 3, []string{"WEIR_LISTEN_ADDRESS=192.0.2.1:0"}, []string{"serve", "--dir", dir}, "192.0.2.1:0", "can't listen", "Try: an address that this machine has")
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := configured(t, "")
	fails(t, 3, nil, []string{"serve", "--dir", filepath.Join(file, "data")}, file, "not a directory", "Try: ")
	fails(t, 3, nil, []string{"verify", "--dir", file}, "data directory: "+file+": not a directory", "Try: --dir")
	fails(t, 3, nil, []string{"repair", "--dir", t.TempDir()}, "there is no log in it", "Try: weir serve")
	fails(t, 3, nil, []string{"serve", "--dir", "/proc/data"}, "data directory: /proc/data: can't be made there", "Try: --dir with a place on a disk")
}

func TestDirectoryLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	fails(t, 3, []string{"WEIR_LISTEN_ADDRESS=127.0.0.1:0"}, []string{"serve", "--dir", dir}, dir, "in use", "Try: ")
	fails(t, 3, nil, []string{"verify", "--dir", dir}, dir, fmt.Sprintf("process %d has it open", b.cmd.Process.Pid), "Try: ")
	must(t, "--dir", dir, "stream", "list") // the one that runs is not disturbed
	b.stop(t)
}

// Empty lines at the end of a file are no records, and what is wrong with a stream is said once.
func TestLinesAndStreamsThatAreNone(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "s")
	if r := weirIn(t, "{\"k\":1}\r\n\n\n", nil, "--dir", dir, "put", "s", "--key-field", "k"); r.code != 0 || !strings.HasPrefix(r.out, "1 record, 7 B") {
		t.Errorf("put: exit code %d, %s%s", r.code, r.out, r.errout)
	}
	if r := weirIn(t, "a\nb\n", nil, "--dir", dir, "put", "s", "first", "-"); r.code != 0 || !strings.HasPrefix(r.out, "3 records, 7 B") {
		t.Errorf("put from -: exit code %d, %s%s", r.code, r.out, r.errout)
	}
	fails(t, 2, nil, []string{"--dir", dir, "stream", "create", "bad name"}, "weir: stream \"bad name\": ", "Try: weir stream create --help")
	fails(t, 2, nil, []string{"--dir", dir, "stream", "create", "x", "--codec", "lz4"}, "expecting one of zstd, s2, none, auto")
	b.stop(t)
	if r := weir(t, []string{"WEIR_LISTEN_ADDRESS=0.0.0.0:4999"}, "--dir", dir, "trust", "aws"); !strings.Contains(r.out, "https://localhost:4999 ") {
		t.Errorf("settings of a box that is stopped: %s%s", r.out, r.errout)
	}
	none := filepath.Join(dir, "none")
	fails(t, 2, nil, []string{"--dir", none, "import", filepath.Join(dir, "store", "FORMAT")}, "FORMAT: not a file that export wrote")
	if _, err := os.Stat(none); !os.IsNotExist(err) {
		t.Errorf("import of a file that is no export made %s: %v", none, err)
	}
	fails(t, 2, nil, []string{"--dir", dir, "inspect", "--stream", "nope"}, "--stream: nope: there is none of this name in "+dir, "Try: weir verify")
	fails(t, 2, nil, []string{"--dir", dir, "inspect", "--table", "nope"}, "--table: nope: expecting one of lease, checkpoint, ", "Try: weir inspect --help")
	fails(t, 3, []string{"WEIR_ACCESS_KEY_ID=a", "WEIR_SECRET_ACCESS_KEY=b"}, []string{"--endpoint", "https://127.0.0.1:1", "--ca", none, "stream", "list"}, none+": not readable: no such file", "Try: --ca with a file")
	fails(t, 2, nil, []string{"--dir", dir, "export", "s", "-", "--shard", "7"}, "--shard: 7: stream s has none of this name", "Try: weir verify")
}

// What a box that was killed leaves behind may name the port of another box by now. A
// copy of its directory has the same keys, so what is put must not end up there.
func TestDirectoryWithoutABoxDoesNotSpeakToAnother(t *testing.T) {
	killed, other := t.TempDir(), t.TempDir()
	serve(t, killed).kill(t)
	b := serve(t, other)
	must(t, "--dir", other, "stream", "create", "s")
	for _, name := range []string{"endpoint", "trust/credentials", "trust/ca.pem"} {
		data, err := os.ReadFile(filepath.Join(other, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(killed, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fails(t, 3, nil, []string{"put", "s", "x", "--dir", killed}, "data directory: "+killed+": no box runs on it", "Try: weir serve --dir "+killed)
	wants(t, must(t, "doctor", "--dir", killed, "--only", "box,streams"), "WARNING  box            none runs on this directory", "-        streams        can't be seen")
	must(t, "put", "s", "x", "--dir", other)
	b.stop(t)
}

// A wrong key is the environment's fault, whichever API a verb speaks, and one line.
func TestWrongKeyAndKeyThatMayNot(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir, "WEIR_CONFIG="+configured(t, `streams: [{name: s}, {name: hidden}]
auth:
  keys: [{name: plc, access_key_id: PLCPUMPHOUSE0001, secret_access_key: a-secret-of-the-test, actions: ["kinesis:Put*"], streams: [s]}]
`))
	wrong := []string{"WEIR_ACCESS_KEY_ID=PLCPUMPHOUSE0001", "WEIR_SECRET_ACCESS_KEY=another-secret-0001"}
	unknown := []string{"WEIR_ACCESS_KEY_ID=NOSUCHKEY0000001", "WEIR_SECRET_ACCESS_KEY=another-secret-0001"}
	right := []string{"WEIR_ACCESS_KEY_ID=PLCPUMPHOUSE0001", "WEIR_SECRET_ACCESS_KEY=a-secret-of-the-test"}
	for _, verb := range [][]string{{"stream", "list"}, {"put", "s", "x"}, {"tail", "s"}, {"top", "-n", "1"}} {
		args := append([]string{"--dir", dir}, verb...)
		fails(t, 3, wrong, args, "signature we calculated does not match", "Try: weir trust")
		if r := weir(t, wrong, args...); strings.Count(r.errout, "\n") != 2 {
			t.Errorf("weir %v:\n%s", verb, r.errout)
		}
		fails(t, 3, unknown, args, "security token included in the request is invalid", "Try: weir trust")
	}
	if r := weir(t, right, "--dir", dir, "put", "s", "x"); r.code != 0 {
		t.Errorf("the right key: %s", r.errout)
	}
	for _, verb := range [][]string{{"put", "hidden", "x"}, {"tail", "s"}, {"stream", "list"}} {
		fails(t, 3, right, append([]string{"--dir", dir}, verb...), "not a", "Try: a key that may: auth.keys")
	}
	b.stop(t)
}

func TestUnreadableCertificate(t *testing.T) {
	cert := configured(t, "not a certificate")
	path := configured(t, "listen:\n  tls_cert: "+cert+"\n  tls_key: "+cert+"\n")
	fails(t, 3, nil, []string{"serve", "--dir", t.TempDir(), "--config", path}, "listen.tls_cert: "+cert, "Try: ")
	path = configured(t, "listen:\n  tls_cert: /nonexistent/cert.pem\n  tls_key: "+cert+"\n")
	fails(t, 3, nil, []string{"serve", "--dir", t.TempDir(), "--config", path}, "/nonexistent/cert.pem", "no such file", "Try: ")
}

func TestCommandLineMistakes(t *testing.T) {
	dir := t.TempDir()
	fails(t, 2, nil, []string{"sevre"}, "unexpected argument sevre", "Try: weir --help")
	fails(t, 2, nil, []string{"stream", "create"}, "expected", "Try: weir stream create --help")
	fails(t, 2, nil, []string{"serve", "--dir", dir, "--endpoint", "https://box:1"}, "--endpoint: https://box:1: weir serve works on this machine", "Try: ")
	fails(t, 2, nil, []string{"verify", "--dir", dir, "--ca", "ca.pem"}, "--ca: ca.pem: weir verify works on this machine", "Try: ")
	fails(t, 2, nil, []string{"put", "s", "x", "--dir", dir, "--key", ""}, "--key: empty; expecting 1 to 256 characters")
	fails(t, 3, nil, []string{"--dir", dir, "tail", "x", "--from", "yesterday", "--endpoint", "https://127.0.0.1:1"}, "WEIR_ACCESS_KEY_ID")
	fails(t, 3, nil, []string{"--dir", dir, "stream", "list"}, "no box runs on it", "Try: weir serve --dir "+dir)
	fails(t, 3, nil, []string{"--dir", dir, "trust"}, "no box was started on it yet")
	fails(t, 3, nil, []string{"serve", "--config", "/nonexistent/weir.yaml"}, "/nonexistent/weir.yaml", "no such file")
}

// TestPutNamesTheLinesThatWereRefused has a line in the second request that is too large.
func TestPutNamesTheLinesThatWereRefused(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "s")
	path := filepath.Join(t.TempDir(), "lines")
	text := strings.Repeat("line\n", 600) + strings.Repeat("x", 2<<20) + "\nlast\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, 2, nil, []string{"--dir", dir, "put", "s", "--file", path}, "500 records written before: lines 501 to 602: ValidationException: ")
}
