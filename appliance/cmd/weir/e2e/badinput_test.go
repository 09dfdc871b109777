package e2e

import (
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
	fails(t, 3, nil, []string{"serve", "--dir", "/proc/data"}, "data directory: /proc/data: can't be made there", "Try: --dir with a place on a disk")
}

func TestDirectoryLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	fails(t, 3, []string{"WEIR_LISTEN_ADDRESS=127.0.0.1:0"}, []string{"serve", "--dir", dir}, dir, "in use", "Try: ")
	fails(t, 3, nil, []string{"verify", "--dir", dir}, dir, "in use", "Try: ")
	must(t, "--dir", dir, "stream", "list") // the one that runs is not disturbed
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
	fails(t, 3, nil, []string{"--dir", dir, "tail", "x", "--from", "yesterday", "--endpoint", "https://127.0.0.1:1"}, "WEIR_ACCESS_KEY_ID")
	fails(t, 3, nil, []string{"--dir", dir, "stream", "list"}, "no box runs on it", "Try: weir serve --dir "+dir)
	fails(t, 3, nil, []string{"--dir", dir, "trust"}, "no box was started on it yet")
	fails(t, 3, nil, []string{"serve", "--config", "/nonexistent/weir.yaml"}, "/nonexistent/weir.yaml", "no such file")
}
