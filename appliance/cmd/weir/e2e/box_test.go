package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/appliance/trust"
)

var (
	binaryFlag   = flag.String("weir.binary", "", "the binary to test; one is built if not given")
	emulatorFlag = flag.String("weir.emulator", "", "what runs the binary of another processor, such as qemu-aarch64-static")
	roundsFlag   = flag.Int("weir.rounds", 50, "how often the box is killed")
)

// binary is the command under test; scratch is a directory for what else is built.
var binary, scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := withBinary(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func withBinary(m *testing.M) (int, error) {
	var err error
	if scratch, err = os.MkdirTemp("", "weir-e2e-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(scratch)
	if binary = *binaryFlag; binary != "" {
		return m.Run(), nil
	}
	binary = filepath.Join(scratch, "weir")
	build := exec.Command("go", "build", "-o", binary, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// command is the binary with arguments, under the emulator when there is one.
func command(ctx context.Context, args ...string) *exec.Cmd {
	if *emulatorFlag != "" {
		return exec.CommandContext(ctx, *emulatorFlag, append([]string{binary}, args...)...)
	}
	return exec.CommandContext(ctx, binary, args...)
}

// result is how a command ended.
type result struct {
	code        int
	out, errout string
}

// weir runs a command to its end, within two minutes.
func weir(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return weirIn(t, "", env, args...)
}

// weirIn is weir with text on standard input.
func weirIn(t *testing.T, stdin string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := command(ctx, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("weir %v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errout.String()}
}

// must runs a command that has to end well, and returns what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := weir(t, nil, args...)
	if r.code != 0 {
		t.Fatalf("weir %v: exit code %d\n%s%s", args, r.code, r.out, r.errout)
	}
	return r.out
}

// box is a `weir serve` process on a directory.
type box struct {
	dir      string
	cmd      *exec.Cmd
	endpoint string
	log      *lockedBuffer
	exited   chan struct{}
}

// lockedBuffer is what the process writes, read while it runs.
type lockedBuffer struct {
	mu struct {
		sync.Mutex
		b bytes.Buffer
	}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.String()
}

// serve starts a box on a free port and waits until it is ready.
func serve(t *testing.T, dir string, env ...string) *box {
	t.Helper()
	return serveAs(t, command(context.Background(), "serve", "--dir", dir), dir, env...)
}

// serveAs is serve with a command of the caller's.
func serveAs(t *testing.T, cmd *exec.Cmd, dir string, env ...string) *box {
	t.Helper()
	b := &box{dir: dir, cmd: cmd, log: &lockedBuffer{}, exited: make(chan struct{})}
	_ = os.Remove(filepath.Join(dir, "endpoint")) // of a box that was killed
	b.cmd.Env = append(append(append(os.Environ(), b.cmd.Env...), "WEIR_LISTEN_ADDRESS=127.0.0.1:0"), env...)
	if *emulatorFlag != "" { // the box starts itself to compile a module
		b.cmd.Env = append(b.cmd.Env, "WEIR_WASM_COMPILE_COMMAND="+*emulatorFlag+","+binary)
	}
	b.cmd.Stderr = b.log
	if b.cmd.Stdout == nil {
		b.cmd.Stdout = b.log
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = b.cmd.Wait() // how it ended is in ProcessState
		close(b.exited)
	}()
	t.Cleanup(func() { b.kill(t) })
	deadline := time.Now().Add(time.Minute)
	for {
		data, err := os.ReadFile(filepath.Join(dir, "endpoint"))
		if err == nil && len(data) > 0 {
			b.endpoint = strings.TrimSpace(string(data))
			return b
		}
		select {
		case <-b.exited:
			t.Fatalf("the box ended: %v\n%s", b.cmd.ProcessState, b.log)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the box is not ready after a minute\n%s", b.log)
		}
	}
}

// kill ends the process with SIGKILL, as a cut of power would.
func (b *box) kill(t *testing.T) {
	t.Helper()
	_ = b.cmd.Process.Kill() // it may have ended by itself
	<-b.exited
}

// stop ends the process with SIGTERM and returns its exit code.
func (b *box) stop(t *testing.T) int {
	t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.exited:
	case <-time.After(time.Minute):
		t.Fatalf("the box does not stop\n%s", b.log)
	}
	return b.cmd.ProcessState.ExitCode()
}

// http returns a client that trusts the box's authority.
func (b *box) http(t *testing.T) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(b.dir, "trust", trust.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: time.Minute}
}

// password returns the admin password of the first start.
func (b *box) password(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "trust", trust.AdminPasswordFile))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// accessKey returns the access key of the first start.
func (b *box) accessKey(t *testing.T) (id, secret string) {
	t.Helper()
	id, secret, err := trust.ReadCredentials(filepath.Join(b.dir, "trust", trust.CredentialsFile))
	if err != nil {
		t.Fatal(err)
	}
	return id, secret
}

// kinesis returns the AWS SDK's client for the box. It never retries: a test
// must know what was acknowledged.
func (b *box) kinesis(t *testing.T) *kinesis.Client {
	t.Helper()
	id, secret := b.accessKey(t)
	return kinesis.New(kinesis.Options{
		Region: "eu-central-1", BaseEndpoint: &b.endpoint, HTTPClient: &http.Client{Transport: remote.Steady(b.http(t).Transport)}, Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
		}),
	})
}

// parse reads what a command printed as JSON.
func parse[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// eventually waits until the condition holds, for a minute.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute still not: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}
