// Package process runs what a benchmark measures in a process of its own: the
// program itself once more, or a peer built from its own module.
//
// It owns how such a process is started, spoken to, weighed and ended. It never
// decides what is measured.
package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Process is a program that answers each line of JSON on its standard input with
// one on its standard output, and ends when its input does.
type Process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *json.Decoder
}

// Again starts this very program as one of its hidden benchmarks, with the
// collector set as a box sets it.
func Again(ctx context.Context, name string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return Start(exec.CommandContext(ctx, self, name, "--json"), "GOGC=50")
}

// Start starts a command with more environment. Its standard error is this
// program's unless the command says otherwise.
func Start(cmd *exec.Cmd, env ...string) (*Process, error) {
	cmd.Env = append(os.Environ(), env...)
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
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
	return &Process{cmd, stdin, json.NewDecoder(bufio.NewReader(stdout))}, nil
}

// Tell sends v.
func (p *Process) Tell(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = p.stdin.Write(append(line, '\n'))
	return err
}

// Hear waits for what the process says next.
func (p *Process) Hear(v any) error {
	if err := p.answers.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", p.cmd.Path, err)
	}
	return nil
}

// Stop ends the input and waits until the process has ended, half a minute at most.
func (p *Process) Stop() error {
	_ = p.stdin.Close()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(p.cmd.Process.Kill(), <-done)
	}
}

// Kill ends a process that does not look at its input.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed: its exit state says nothing
	return err
}
