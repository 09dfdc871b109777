package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/keyspace"
)

// onSmallDisk runs a script with bash in a mount namespace of its own, where
// $DISK is a file system of the size. $WEIR is the binary.
func onSmallDisk(t *testing.T, size, script string) string {
	t.Helper()
	disk := t.TempDir()
	whole := "set -u\nmount -t tmpfs -o size=" + size + " weir " + disk + " || exit 99\n" + script
	cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", whole)
	cmd.Env = append(cmd.Environ(), "DISK="+disk, "WEIR="+binary, "WEIR_LISTEN_ADDRESS=127.0.0.1:0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func wants(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
}

const waitReady = `for i in $(seq 600); do [ -s $DIR/endpoint ] && break; read -t 0.1 <> <(:) || true; done; [ -s $DIR/endpoint ] || { echo not ready; exit 98; }
`

func TestReadOnlyDisk(t *testing.T) {
	out := onSmallDisk(t, "64m", `export DIR=$DISK/data
mkdir $DIR && mount -o remount,ro $DISK || exit 97
$WEIR serve --dir $DIR; echo "exit code $?"
mount -o remount,rw $DISK
$WEIR serve --dir $DIR >$DISK.log 2>&1 &
PID=$!
`+waitReady+`
$WEIR --dir $DIR stream create kept >$DISK.out && $WEIR --dir $DIR put kept a b >$DISK.out || exit 96
kill -9 $PID; wait $PID
mount -o remount,ro $DISK || exit 97
rm -f $DIR/endpoint 2>/dev/null; $WEIR serve --dir $DIR; echo "now exit code $?"
$WEIR verify --dir $DIR; echo "verified $?"
$WEIR export kept $DISK.export --dir $DIR; echo "exported $?"
$WEIR repair --dir $DIR; echo "repaired $?"
mount -o remount,rw $DISK
$WEIR verify --dir $DIR --json | grep -e '"ok"' -e '"records"'
`)
	wants(t, out, "data: the disk is read-only: ", "Try: ", "exit code 3", "now exit code 3",
		"every index is accounted for", "verified 0", "exported 3", "repaired 3", `"ok": true`, `"records": 2`)
	if strings.Count(out, "the disk is read-only") != 4 || strings.Contains(out, "in use") {
		t.Errorf("what keeps it from starting and from repair is not said:\n%s", out)
	}
}

func TestFullDiskRejectsAndLosesNothing(t *testing.T) {
	out := onSmallDisk(t, "112m", `export DIR=$DISK/data
$WEIR serve --dir $DIR >$DISK.log 2>&1 &
PID=$!
`+waitReady+`
$WEIR --dir $DIR stream create full --codec none || exit 96
head -c 700 /dev/zero | tr '\0' x > $DISK.block; for i in $(seq 200); do cat $DISK.block; echo; done > $DISK.lines
n=0
while [ $n -lt 2000 ] && $WEIR --dir $DIR put full --key k --file $DISK.lines >$DISK.out 2>&1; do n=$((n + 1)); head -c 60000000 /dev/zero > $DISK/other 2>/dev/null; done
echo "after $n puts:"; cat $DISK.out
$WEIR --dir $DIR doctor --only space --only log | head -5
kill -TERM $PID; wait $PID; echo "exit code $?"
rm -f $DISK/other
$WEIR --dir $DIR verify --json | grep -o '"ok": [a-z]*'
`)
	wants(t, out, "exit code 0", `"ok": true`, "after ")
	if !strings.Contains(strings.ToLower(out), "full") && !strings.Contains(out, "ProvisionedThroughputExceeded") {
		t.Errorf("nothing says that the disk is full:\n%s", out)
	}
}

// TestStartOnAFullDisk starts a box that was killed on a disk that has no free
// byte: the ballast file makes room for it, and without one it can be read and
// says that it takes nothing, however it ended before.
func TestStartOnAFullDisk(t *testing.T) {
	out := onSmallDisk(t, "112m", `export DIR=$DISK/data
start() { rm -f $DIR/endpoint; $WEIR serve --dir $DIR >>$DISK.log 2>&1 & PID=$!
`+waitReady+`}
fill() { head -c 200000000 /dev/zero > $DISK/other 2>/dev/null; }
start
$WEIR --dir $DIR stream create kept >$DISK.out && $WEIR --dir $DIR put kept a b >$DISK.out || exit 96
fill; kill -9 $PID; wait $PID
start
$WEIR --dir $DIR tail kept --from trim-horizon --no-follow --raw | tr '\n' ' '; echo "are there"
kill -9 $PID; wait $PID
rm -f $DIR/store/ballast
for end in KILL TERM; do
  fill; : > $DISK.log
  $WEIR serve --dir $DIR >>$DISK.log 2>&1 & PID=$!
  for i in $(seq 600); do grep -q msg=serving $DISK.log && break; read -t 0.1 <> <(:) || true; done
  $WEIR --dir $DIR tail kept --from trim-horizon --no-follow --raw | tr '\n' ' '; echo "can be read"
  $WEIR --dir $DIR put kept c 2>&1; echo "put: $?"
  $WEIR --dir $DIR doctor --only log 2>&1
  kill -$end $PID; wait $PID; echo "$end $?"
done
rm -f $DISK/other
$WEIR verify --dir $DIR --json | grep -e '"ok"' -e '"records"'
`)
	wants(t, out, "a b are there", "put: 1", "disk is full", "TERM 0", `"ok": true`, `"records": 2`)
	if n := strings.Count(out, "a b can be read"); n != 2 {
		t.Errorf("could be read %d times:\n%s", n, out)
	}
}

// TestDirectoryOfANewerFormat writes what a newer version would have written,
// into the one row that says it.
func TestDirectoryOfANewerFormat(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "kept")
	b.stop(t)
	setFormat(t, dir, 99)
	for _, verb := range []string{"serve", "verify", "inspect", "repair"} {
		fails(t, 3, []string{"WEIR_LISTEN_ADDRESS=127.0.0.1:0"}, []string{verb, "--dir", dir}, dir, "written by a newer version of weir; nothing in it was changed", "Try: the newer weir")
	}
	setFormat(t, dir, 1)
	b = serve(t, dir)
	if out := must(t, "--dir", dir, "stream", "list"); !strings.Contains(out, "kept") {
		t.Errorf("the stream is gone:\n%s", out)
	}
	b.stop(t)
}

func setFormat(t *testing.T, dir string, format int) {
	t.Helper()
	db, err := pebble.Open(filepath.Join(dir, "store", "db"), &pebble.Options{FormatMajorVersion: pebble.FormatValueSeparation})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	key := keyspace.Meta(keyspace.KindStore)
	value, closer, err := db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	row := parse[map[string]any](t, string(value))
	closer.Close()
	row["format"] = format
	next, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set(key, next, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

// TestReloadAppliesWhatItCanAndRefusesAWrongFile sends SIGHUP and asks for a reload.
func TestReloadAppliesWhatItCanAndRefusesAWrongFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("telemetry: {log_level: info}\n")
	b := serve(t, dir)
	write("streams: [{name: added}]\nstorage: {cache_bytes: 16MiB}\n")
	if out := must(t, "--dir", dir, "reload"); !strings.Contains(out, "Waiting for a restart: storage.cache_bytes") {
		t.Errorf("reload said %s", out)
	}
	write("streams: [{nam: wrong}]\n")
	fails(t, 2, nil, []string{"--dir", dir, "reload"}, "weir.yaml:1: streams[0].nam: unknown key", "Try: a corrected file; weir check")
	write("sinks: [{name: lake, kind: s3, settings: {buket: readings}}]\n") // or the next start would be refused
	fails(t, 2, nil, []string{"--dir", dir, "reload"}, "weir.yaml:1: sinks[0].settings.buket: unknown key")
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refusal is logged", func() bool {
		return strings.Contains(b.log.String(), "the configuration is refused; the one before stays")
	})
	write("streams: [{name: added}, {name: byhangup}]\n")
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream is made", func() bool { return strings.Contains(must(t, "--dir", dir, "stream", "list"), "byhangup") })
	if code := b.stop(t); code != 0 {
		t.Errorf("SIGTERM: exit code %d", code)
	}
}

// What the file sets of a stream applies at a reload and at a start; what it leaves out
// stays as the operator set it.
func TestStreamsFollowTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "weir.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("streams: [{name: s, retention: 48h}]\n")
	b := serve(t, dir)
	wants(t, must(t, "--dir", dir, "stream", "describe", "s"), "keeps      2d, no bound; when full: reject")
	write("streams: [{name: s, retention: 72h, when_full: drop-oldest, shards: 3}]\n")
	if out := must(t, "--dir", dir, "reload"); strings.Contains(out, "restart") {
		t.Errorf("reload said %s", out)
	}
	wants(t, must(t, "--dir", dir, "stream", "describe", "s"), "keeps      3d, no bound; when full: drop-oldest")
	wants(t, b.log.String(), "stream has another number of shards than the configuration", "weir stream reshard s --shards 3")
	must(t, "--dir", dir, "stream", "retention", "s", "24h", "--bytes", "64MiB")
	b.stop(t)
	b = serve(t, dir)
	wants(t, must(t, "--dir", dir, "stream", "describe", "s"), "keeps      3d, 64MiB; when full: drop-oldest")
	wants(t, b.log.String(), "stream is now as the configuration says")
	b.stop(t)
}

// TestServeTellsAProgramThatItIsReady reads standard output of serve --json: one object a
// start, with the secrets in the first only. The log is elsewhere.
func TestServeTellsAProgramThatItIsReady(t *testing.T) {
	dir := t.TempDir()
	for _, first := range []bool{true, false} {
		out := &lockedBuffer{}
		cmd := command(context.Background(), "serve", "--dir", dir, "--json")
		cmd.Stdout = out
		b := serveAs(t, cmd, dir)
		eventually(t, "it says that it is ready", func() bool { return strings.HasSuffix(out.String(), "}\n") })
		id, secret := b.accessKey(t)
		want := map[string]any{"endpoint": b.endpoint, "directory": dir, "first_start": first}
		if first {
			want["access_key_id"], want["secret_access_key"], want["admin_password"] = id, secret, b.password(t)
		}
		if status, _ := b.get(t, "/readyz", true); status != 200 {
			t.Errorf("/readyz: %d", status)
		}
		b.stop(t)
		if got := parse[map[string]any](t, out.String()); !maps.Equal(got, want) {
			t.Errorf("said %v, want %v", got, want)
		}
	}
}

// TestServiceManagerIsToldOfReadinessAndHealth stands in for systemd.
func TestServiceManagerIsToldOfReadinessAndHealth(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := serve(t, t.TempDir(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	told := func(want string) {
		t.Helper()
		buf := make([]byte, 256)
		for {
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("never told %s: %v", want, err)
			}
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	told("READY=1")
	told("WATCHDOG=1")
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	told("RELOADING=1\nMONOTONIC_USEC=")
	told("READY=1")
	b.stop(t)
	told("STOPPING=1")
}

// TestReadySoonAndSmallOnAnExistingDirectory starts a box that was killed. What its
// start may take, half a second, is held against its processor time: how long that
// is by the clock depends on what else the machine does.
func TestReadySoonAndSmallOnAnExistingDirectory(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "s", "--shards", "4")
	must(t, "--dir", dir, "put", "s", "a", "b")
	b.kill(t)
	b = serve(t, dir)
	_, metrics := b.get(t, "/metrics", false)
	value := func(name string) (v float64) {
		_, after, _ := strings.Cut(metrics, "\n"+name+" ")
		if _, err := fmt.Sscanf(after, "%f\n", &v); err != nil {
			t.Fatalf("%s: %v, in\n%s", name, err, metrics)
		}
		return v
	}
	if seconds := value("process_cpu_seconds_total"); seconds > 0.5 {
		t.Errorf("the start took %v s of processor time; expecting 0.5 at most", seconds)
	}
	if resident := value("process_resident_memory_bytes"); resident > 64<<20 {
		t.Errorf("%.0f bytes resident at rest; expecting 64 MiB at most", resident)
	}
	b.stop(t)
}

// get fetches a path of the box, with the admin password or as a stranger.
func (b *box) get(t *testing.T, path string, stranger bool) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.endpoint+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !stranger {
		req.SetBasicAuth("admin", b.password(t))
	}
	res, err := b.http(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// TestWhatABoxTellsAboutItself asks as monitoring does.
func TestWhatABoxTellsAboutItself(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "s")
	must(t, "--dir", dir, "put", "s", "a", "b")
	for _, c := range []struct {
		path     string
		stranger bool
		status   int
		says     string
	}{
		{"/healthz", true, 200, "ok\n"},
		{"/readyz", true, 200, "ready\n"},
		{"/metrics", true, 401, "MissingAuthenticationToken"},
		{"/metrics", false, 200, "weir_storage_ingested_records_total 2\n"},
		{"/metrics", false, 200, `weir_stream_records_total{stream="s"} 2`},
		{"/metrics", false, 200, "process_resident_memory_bytes"},
		{"/debug/pprof/heap", false, 404, ""}, // only when the configuration asks for it
		{"/nothing", false, 404, ""},
	} {
		status, body := b.get(t, c.path, c.stranger)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d, want %d with %q in\n%.2000s", c.path, status, c.status, c.says, body)
		}
	}
	// Counters begin again with the process, and the indexes that a start after a
	// kill passes over are nobody's records.
	b.kill(t)
	b = serve(t, dir)
	must(t, "--dir", dir, "put", "s", "c")
	if _, body := b.get(t, "/metrics", false); !strings.Contains(body, `weir_stream_records_total{stream="s"} 1`+"\n") {
		t.Errorf("after a kill, with one record more:\n%s", body)
	}
	wants(t, must(t, "--dir", dir, "stream", "describe", "s"), "holds      3 records")
	b.stop(t)
	b = serve(t, dir, "WEIR_TELEMETRY_PPROF=true", "WEIR_TELEMETRY_LOG_FORMAT=json")
	if status, body := b.get(t, "/debug/pprof/heap", false); status != 200 || !strings.HasPrefix(body, "\x1f\x8b") {
		t.Errorf("/debug/pprof/heap: %d %.200q", status, body)
	}
	if status, _ := b.get(t, "/debug/pprof/heap", true); status/100 != 4 {
		t.Errorf("/debug/pprof/heap for a stranger: %d", status)
	}
	b.stop(t)
	for l := range strings.Lines(b.log.String()) {
		if parse[map[string]any](t, l)["msg"] == nil {
			t.Errorf("logged %s", l)
		}
	}
}

// TestCommandLineKnowsACertificateOfTheOperators has the box show a certificate that no
// authority of its own signed, and go back.
func TestCommandLineKnowsACertificateOfTheOperators(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	cert, key := selfSigned(t, time.Now().Add(time.Hour))
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("telemetry: {log_level: info}\n")
	b := serve(t, dir)
	write("listen: {tls_cert: " + cert + ", tls_key: " + key + "}\n")
	must(t, "--dir", dir, "reload")
	if _, err := b.http(t).Get(b.endpoint + "/healthz"); err == nil {
		t.Error("the box shows its own certificate still")
	}
	must(t, "--dir", dir, "stream", "create", "s")
	must(t, "--dir", dir, "put", "s", "x")
	write("telemetry: {log_level: info}\n")
	must(t, "--dir", dir, "reload")
	if res, err := b.http(t).Get(b.endpoint + "/healthz"); err != nil {
		t.Error(err)
	} else {
		_ = res.Body.Close()
	}
	must(t, "--dir", dir, "stream", "list")
}

// selfSigned writes a certificate for this machine and its key, as PEM files.
func selfSigned(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}
