package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/weirhq/weir/benchmarks/process"
)

// gateway is a running versitygw: an S3 server over a folder on the measured
// disk. It is a process of its own, so its CPU is not counted.
type gateway struct {
	cmd   *exec.Cmd
	ended <-chan error
	url   string
	dir   string
}

const (
	gatewayKey    = "benchmark"
	gatewaySecret = "benchmarksecret"
	bucket        = "bucket"
)

// openGateway builds the gateway from the module beside appliance/delivery,
// once, and starts it.
func openGateway(ctx context.Context, dir string, logf func(string, ...any)) (*gateway, error) {
	tools, err := process.Repository(ctx, "appliance", "delivery", "testdata", "tools")
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(cache, "weir-test", "versitygw-1.8.0")
	if _, err := os.Stat(binary); err != nil {
		logf("delivery: build versitygw")
		part := fmt.Sprintf("%s.%d", binary, os.Getpid())
		if err := process.Build(ctx, tools, part, "github.com/versity/versitygw/cmd/versitygw"); err != nil {
			return nil, err
		}
		if err := os.Rename(part, binary); err != nil {
			return nil, err
		}
	}
	g := &gateway{dir: filepath.Join(dir, "gateway")}
	meta := filepath.Join(dir, "metadata")
	if err := errors.Join(os.MkdirAll(filepath.Join(g.dir, bucket), 0o755), os.MkdirAll(meta, 0o755)); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	g.url = "http://" + addr
	// Unless it is told to, it ends the connection after each answer, which S3 does not. Nothing
	// that is refused is sent here, after which it would lose its place in what it is sent.
	g.cmd = exec.CommandContext(ctx, binary, "--port", addr, "--access", gatewayKey, "--secret", gatewaySecret, "--quiet", "--keep-alive", "posix", "--sidecar", meta, g.dir)
	var said bytes.Buffer
	g.cmd.Stdout, g.cmd.Stderr = &said, &said
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- g.cmd.Wait() }()
	g.ended = ended
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return g, c.Close()
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("versitygw ended: %w: %s", err, said.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("versitygw does not answer: %w", err), g.close())
		}
	}
}

func (g *gateway) settings() (json.RawMessage, error) {
	return json.Marshal(map[string]string{"endpoint": g.url, "bucket": bucket, "access_key_id": gatewayKey, "secret_access_key": gatewaySecret})
}

// empty removes the objects.
func (g *gateway) empty() error {
	dir := filepath.Join(g.dir, bucket)
	return errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}

func (g *gateway) close() error {
	err := g.cmd.Process.Kill()
	<-g.ended // of the kill
	return err
}
