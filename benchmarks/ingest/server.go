package ingest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/benchmarks/report"
)

// ChildName is the hidden benchmark that is a server until its input ends.
const ChildName = "ingest-child"

// The servers that a child can be.
const (
	kindWeir  = "weir"
	kindLimit = "read and answer"
)

// order is what a child is to be, JSON on standard input.
type order struct {
	Kind string `json:"kind"`
	Dir  string `json:"dir"`
}

// address is where it listens and with which key, JSON on standard output.
type address struct {
	Address string `json:"address"`
	Key     string `json:"key"`
	Secret  string `json:"secret"`
}

// Child serves until standard input ends.
func Child(ctx context.Context, _ report.Options, _ *report.Report) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	go func() {
		_, _ = in.ReadByte() // the parent has closed it, or is gone
		stop()
	}()
	tell := func(a address) { _ = json.NewEncoder(os.Stdout).Encode(a) }
	if o.Kind == kindLimit {
		return answer(ctx, tell)
	}
	c := config.Default()
	c.Dir, c.Listen.Address, c.Telemetry.LogLevel = o.Dir, "127.0.0.1:0", "warn"
	c.Listen.MaxRequests = 4096
	return appliance.Run(ctx, &config.Loaded{Config: c}, appliance.Options{Log: os.Stderr, Ready: func(endpoint string, t *trust.Trust) {
		tell(address{strings.TrimPrefix(strings.TrimPrefix(endpoint, "https://"), "http://"), t.AccessKeyID, t.SecretAccessKey})
	}})
}

// answer is the limit of HTTP itself: fasthttp reads the body and says so.
func answer(ctx context.Context, tell func(address)) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &fasthttp.Server{MaxRequestBodySize: 16 << 20, Handler: func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/x-amz-json-1.1")
		_, _ = fmt.Fprintf(c, `{"FailedRecordCount":0,"Bytes":%d}`, len(c.PostBody()))
	}}
	go func() {
		<-ctx.Done()
		_ = s.Shutdown()
	}()
	tell(address{ln.Addr().String(), "AKIDEXAMPLEEXAMPLE", "secret"})
	return s.Serve(ln)
}

// server is a running child.
type server struct {
	address
	cmd   *exec.Cmd
	stdin interface{ Close() error }
}

func start(ctx context.Context, kind, dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, ChildName, "--json")
	cmd.Env = append(os.Environ(), "GOGC=50")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, stdin: stdin}
	o, err := json.Marshal(order{kind, filepath.Join(dir, "box")})
	if err != nil {
		return nil, err
	}
	if _, err := stdin.Write(append(o, '\n')); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("%s did not start: %w", kind, errors.Join(err, cmd.Wait()))
	}
	return s, json.Unmarshal(line, &s.address)
}

func (s *server) stop() error {
	_ = s.stdin.Close()
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(s.cmd.Process.Kill(), <-done)
	}
}

// cpu is the processor time the server has used, from /proc/<pid>/stat in ticks
// of 10 ms.
func (s *server) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// residentMB is the server's anonymous memory.
func (s *server) residentMB() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
			return kb / 1024
		}
	}
	return 0
}
