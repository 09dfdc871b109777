package wasm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/hostile"
)

// ChildName is the hidden benchmark that is a whole box with attackers in its
// process.
const ChildName = "wasm-child"

// ready is what the child says when it serves.
type ready struct {
	Address string `json:"address"`
	Key     string `json:"key"`
	Secret  string `json:"secret"`
}

// Child serves a box in the folder that the first line of standard input names.
// Each further line names an attack that replaces the one before; an empty one
// is quiet. It answers each with a line, and ends with standard input.
func Child(ctx context.Context, _ report.Options, _ *report.Report) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReader(os.Stdin)
	dir, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	dir = strings.TrimSuffix(dir, "\n")
	out := json.NewEncoder(os.Stdout)
	served := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		c := config.Default()
		c.Dir, c.Listen.Address, c.Telemetry.LogLevel = filepath.Join(dir, "box"), "127.0.0.1:0", "warn"
		ended <- appliance.Run(ctx, &config.Loaded{Config: c}, appliance.Options{Log: os.Stderr, Ready: func(endpoint string, t *trust.Trust) {
			_ = out.Encode(ready{endpoint[strings.LastIndex(endpoint, "/")+1:], t.AccessKeyID, t.SecretAccessKey})
			close(served)
		}})
	}()
	select {
	case <-served:
	case err := <-ended:
		return err
	}
	err = attacks(ctx, in, out, filepath.Join(dir, "attackers"))
	stop()
	return errors.Join(err, <-ended)
}

// attacks runs what in asks for until it ends.
func attacks(ctx context.Context, in *bufio.Reader, out *json.Encoder, cache string) error {
	var wg sync.WaitGroup
	quiet := func() {}
	defer func() { quiet() }()
	for {
		name, err := in.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		quiet()
		quiet = func() {}
		answer := "quiet"
		if name = strings.TrimSuffix(name, "\n"); name != "" {
			if quiet, err = attack(ctx, &wg, name, cache); err != nil {
				return err
			}
			answer = name
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
}

// attack runs as many instances of an attacker as the box lets run at the same
// moment, one for each core, each started again whenever a limit has ended it, until stop is called. All are at work
// when it returns.
func attack(ctx context.Context, wg *sync.WaitGroup, name, cache string) (stop func(), err error) {
	limits := host.Limits{} // those of a module that asks for none
	build := hostile.Ending()[name]
	if build == nil {
		build = hostile.Endless()[name]
		limits = host.Limits{Fuel: 1 << 62, Wall: time.Hour}
	}
	guests := runtime.NumCPU()
	started := make(chan struct{}, 1024)
	rt, err := host.New(ctx, host.Options{CacheDir: cache, SpareProcessor: true, Imports: []host.ImportModule{hostile.Started(func() {
		select {
		case started <- struct{}{}:
		default:
		}
	})}})
	if err != nil {
		return nil, err
	}
	mod, err := rt.Compile(ctx, build().Bytes(), host.CompileOptions{Grant: allowed})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	for range guests {
		wg.Go(func() {
			for ctx.Err() == nil {
				if i, err := mod.Instantiate(ctx, host.InstanceOptions{Limits: limits, Stdout: io.Discard, Log: func(host.Level, []byte) {}}); err == nil {
					_, _ = i.Function("attack").Call(ctx) // ends with an error, always
					_ = i.Close()
				}
			}
		})
	}
	for range guests {
		<-started
	}
	return func() {
		cancel()
		wg.Wait()
		_ = rt.Close(context.Background())
	}, nil
}

// box is a running child.
type box struct {
	ready
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *json.Decoder
}

func startBox(ctx context.Context, dir string) (*box, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, ChildName, "--json")
	cmd.Stderr = os.Stderr
	b := &box{cmd: cmd}
	if b.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.out = json.NewDecoder(stdout)
	if _, err := fmt.Fprintln(b.stdin, dir); err != nil {
		return nil, err
	}
	if err := b.out.Decode(&b.ready); err != nil {
		return nil, fmt.Errorf("the box did not start: %w", errors.Join(err, cmd.Wait()))
	}
	return b, nil
}

// attack makes the child run another attack, or none.
func (b *box) attack(name string) error {
	if _, err := fmt.Fprintln(b.stdin, name); err != nil {
		return err
	}
	var answer string
	return b.out.Decode(&answer)
}

func (b *box) stop() error {
	_ = b.stdin.Close()
	done := make(chan error, 1)
	go func() { done <- b.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(b.cmd.Process.Kill(), <-done)
	}
}
