package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/benchmarks/process"
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

// Child serves a box in the folder that the first JSON string on standard input
// names. Each further one names an attack that replaces the one before; an empty
// one is quiet. It answers each, and ends with standard input.
func Child(ctx context.Context, _ report.Options, _ *report.Report) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := json.NewDecoder(os.Stdin)
	var dir string
	if err := in.Decode(&dir); err != nil {
		return err
	}
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
	err := attacks(ctx, in, out, filepath.Join(dir, "attackers"))
	stop()
	return errors.Join(err, <-ended)
}

// attacks runs what in asks for until it ends.
func attacks(ctx context.Context, in *json.Decoder, out *json.Encoder, cache string) error {
	var wg sync.WaitGroup
	quiet := func() {}
	defer func() { quiet() }()
	for {
		var name string
		err := in.Decode(&name)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		quiet()
		quiet = func() {}
		answer := "quiet"
		if name != "" {
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
// moment, one for each core, each started again whenever a limit has ended it,
// until stop is called. All are at work when it returns.
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
	*process.Process
}

func startBox(ctx context.Context, dir string) (*box, error) {
	p, err := process.Again(ctx, ChildName)
	if err != nil {
		return nil, err
	}
	b := &box{Process: p}
	if err := errors.Join(p.Tell(dir), p.Hear(&b.ready)); err != nil {
		return nil, fmt.Errorf("the box did not start: %w", errors.Join(err, p.Stop()))
	}
	return b, nil
}

// attack makes the child run another attack, or none.
func (b *box) attack(name string) error {
	var answer string
	return errors.Join(b.Tell(name), b.Hear(&answer))
}
