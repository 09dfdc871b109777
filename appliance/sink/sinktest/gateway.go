package sinktest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Gateway is a running versitygw: an S3 server over a folder.
type Gateway struct {
	URL    string
	Access string
	Secret string
	Dir    string // buckets are folders in it
	CA     string // file of its certificate; "" without TLS

	key  string
	t    testing.TB
	cmd  *exec.Cmd
	addr string
	meta string // metadata of objects, where the file system has no extended attributes
	// sidecar says that metadata is kept there. A kill may then leave metadata
	// that claims an object that isn't there.
	sidecar bool
}

var gatewayBinary = sync.OnceValues(func() (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("no source location")
	}
	tools := filepath.Join(filepath.Dir(here), "..", "..", "delivery", "testdata", "tools")
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, "weir-test", "versitygw-1.8.0")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	part := fmt.Sprintf("%s.%d", out, os.Getpid())
	cmd := exec.Command("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", part, "github.com/versity/versitygw/cmd/versitygw")
	cmd.Dir = tools
	if raw, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw: %w: %s", err, raw)
	}
	return out, os.Rename(part, out)
})

// NewGateway starts a gateway with the given buckets for the time of the test.
// It is built on first use, from the module beside appliance/delivery.
func NewGateway(t testing.TB, buckets ...string) *Gateway {
	t.Helper()
	return newGateway(t, &Gateway{}, buckets)
}

// NewTLSGateway is NewGateway with a certificate that only its own authority
// has signed.
func NewTLSGateway(t testing.TB, buckets ...string) *Gateway {
	t.Helper()
	g := &Gateway{}
	g.CA, g.key = Certificate(t)
	return newGateway(t, g, buckets)
}

func newGateway(t testing.TB, g *Gateway, buckets []string) *Gateway {
	t.Helper()
	g.Access, g.Secret, g.Dir, g.meta, g.t = "weirtest", "weirtestsecret", t.TempDir(), t.TempDir(), t
	for _, b := range buckets {
		if err := os.Mkdir(filepath.Join(g.Dir, b), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g.sidecar = syscall.Setxattr(g.Dir, "user.weirtest", []byte("x"), 0) != nil
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = l.Addr().String()
	_ = l.Close()
	g.URL = "http://" + g.addr
	if g.CA != "" {
		g.URL = "https://" + g.addr
	}
	g.Start()
	t.Cleanup(g.Kill)
	return g
}

// Start runs the server and waits until it answers.
func (g *Gateway) Start() {
	g.t.Helper()
	binary, err := gatewayBinary()
	if err != nil {
		g.t.Fatal(err)
	}
	args := []string{"--port", g.addr, "--access", g.Access, "--secret", g.Secret, "--quiet"}
	if g.CA != "" {
		args = append(args, "--cert", g.CA, "--key", g.key)
	}
	args = append(args, "posix")
	if g.sidecar {
		args = append(args, "--sidecar", g.meta)
	}
	g.cmd = exec.Command(binary, append(args, g.Dir)...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if testing.Verbose() {
		g.cmd.Stderr = os.Stderr
	}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", g.addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-deadline:
			g.t.Fatal("versitygw does not answer")
		case <-tick.C:
		}
	}
}

// Kill ends the server as kill -9 does.
func (g *Gateway) Kill() {
	if g.cmd != nil && g.cmd.Process != nil {
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
		g.cmd = nil
	}
}

// Read returns what a bucket has under a name.
func (g *Gateway) Read(bucket, key string) ([]byte, bool) {
	raw, err := os.ReadFile(filepath.Join(g.Dir, bucket, filepath.FromSlash(key)))
	return raw, err == nil
}
