// Command extism runs the rename guest on Extism's Go host, for the benchmark
// wasm: it reads where the module is and the records, then for each line "round"
// it answers with the CPU nanoseconds a record of each way took.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

	extism "github.com/extism/go-sdk"
	"golang.org/x/sys/unix"
)

// order is the first line of standard input.
type order struct {
	Module  string   `json:"module"`
	Records [][]byte `json:"records"`
}

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "extism:", err)
		os.Exit(1)
	}
}

func serve() error {
	runtime.LockOSThread()
	ctx := context.Background()
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	var o order
	if err := in.Decode(&o); err != nil {
		return err
	}
	lines := append(bytes.Join(o.Records, []byte{'\n'}), '\n')
	ways := map[string]func() error{}
	for name, timeout := range map[string]uint64{"": 0, ", stoppable": 2000} {
		p, err := extism.NewPlugin(ctx, extism.Manifest{Wasm: []extism.Wasm{extism.WasmFile{Path: o.Module}}, Timeout: timeout}, extism.PluginConfig{}, nil)
		if err != nil {
			return err
		}
		defer p.Close(ctx)
		ways["a record a call"+name] = func() error {
			for _, r := range o.Records {
				if _, out, err := p.Call("rename", r); err != nil || len(out) <= len(r) {
					return errors.Join(err, fmt.Errorf("%d bytes became %d", len(r), len(out)))
				}
			}
			return nil
		}
		ways["500 lines a call"+name] = func() error {
			if _, out, err := p.Call("rename_lines", lines); err != nil || len(out) <= len(lines) {
				return errors.Join(err, fmt.Errorf("%d bytes became %d", len(lines), len(out)))
			}
			return nil
		}
	}
	out := json.NewEncoder(os.Stdout)
	for {
		var word string
		if err := in.Decode(&word); err != nil {
			return nil // the parent has what it wants
		}
		took := map[string]float64{}
		for name, run := range ways {
			start, n := threadCPU(), 0
			for n == 0 || threadCPU()-start < 20_000_000 {
				if err := run(); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				n += len(o.Records)
			}
			took[name] = float64(threadCPU()-start) / float64(n)
		}
		if err := out.Encode(took); err != nil {
			return err
		}
	}
}

func threadCPU() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}
