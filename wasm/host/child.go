package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"golang.org/x/sys/unix"
)

// CompileVerb is the hidden first argument with which a binary that uses this
// package starts itself to compile one module. Its main function (in tests,
// TestMain) must hand over to ServeCompile before anything else.
const CompileVerb = "compile-module"

// childEnv marks a compile child, which must never start another.
const childEnv = "WEIR_COMPILE_CHILD"

// ServeCompile does the work of the compile child and ends the process when
// the process was started as one, and returns otherwise. Call it first in main.
func ServeCompile() {
	if len(os.Args) == 4 && os.Args[1] == CompileVerb && os.Getenv(childEnv) != "" {
		if err := serveCompile(os.Args[2], os.Args[3], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// serveCompile compiles the rewritten module on stdin into a cache at dir,
// with at most so many bytes more than the process has mapped already.
func serveCompile(dir, bytesMore string, stdin io.Reader) error {
	n, err := strconv.ParseUint(bytesMore, 10, 63)
	if err != nil {
		return fmt.Errorf("compile child: memory limit: %w", err)
	}
	if err := confine(n); err != nil {
		return fmt.Errorf("compile child: %w", err)
	}
	wasm, err := io.ReadAll(stdin)
	if err != nil {
		return fmt.Errorf("compile child: read module: %w", err)
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return fmt.Errorf("compile child: %w", err)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(false).WithCompilationCache(cache))
	if _, err := rt.CompileModule(ctx, wasm); err != nil {
		return fmt.Errorf("compile child: %w", err)
	}
	return nil
}

// Limits of the compile child that are not options.
const (
	childFiles     = 64
	childFileBytes = 256 << 20
	childNice      = 10
)

// confine limits this process for good. What is mapped already is granted on
// top: Go reserves a lot of address space that it never uses.
func confine(bytesMore uint64) error {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return fmt.Errorf("read mapped size: %w", err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(statm))[0], 10, 63)
	if err != nil {
		return fmt.Errorf("read mapped size: %w", err)
	}
	seconds := uint64(compileTimeout / time.Second)
	for _, l := range []struct {
		name  string
		which int
		value uint64
	}{
		{"address space", unix.RLIMIT_AS, pages*uint64(os.Getpagesize()) + bytesMore},
		{"CPU time", unix.RLIMIT_CPU, seconds},
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"open files", unix.RLIMIT_NOFILE, childFiles},
		{"file size", unix.RLIMIT_FSIZE, childFileBytes},
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.which, &now); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
		v := min(l.value, now.Max)
		// The soft limit of CPU time would only send a signal that Go ignores; the hard one kills.
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, childNice); err != nil {
		return fmt.Errorf("lower priority: %w", err)
	}
	return nil
}

// compileTimeout is how long a compile child may take, on the clock and of the CPU.
const compileTimeout = 60 * time.Second

// compileInChild has a child process of this binary compile wasm into a cache at dir.
func (r *Runtime) compileInChild(ctx context.Context, wasm []byte, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.o.CompileCommand[0],
		append(r.o.CompileCommand[1:len(r.o.CompileCommand):len(r.o.CompileCommand)], CompileVerb, dir, strconv.FormatInt(r.o.CompileMemoryBytes, 10))...)
	cmd.Stdin = bytes.NewReader(wasm)
	said := &headBuffer{limit: 4 << 10}
	cmd.Stderr, cmd.Stdout = said, said
	cmd.Env = []string{
		childEnv + "=1", "GOMAXPROCS=1", "GOTRACEBACK=none",
		"GOMEMLIMIT=" + strconv.FormatInt(r.o.CompileMemoryBytes*3/4, 10),
	}
	cmd.WaitDelay = time.Second
	start := time.Now()
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(said.String())
	first, _, _ := strings.Cut(text, "\n")
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrCompile, ctx.Err())
	case ctx.Err() != nil || time.Since(start) >= compileTimeout || cmd.ProcessState != nil && cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime() >= compileTimeout-time.Second:
		return fmt.Errorf("%w: it took longer than %v", ErrCompile, compileTimeout)
	case strings.Contains(text, "cannot allocate memory") || strings.Contains(text, "out of memory"):
		return fmt.Errorf("%w: it took more than %d bytes of memory", ErrCompile, r.o.CompileMemoryBytes)
	case first != "":
		return fmt.Errorf("%w: %s", ErrCompile, strings.TrimPrefix(first, "compile child: "))
	}
	return fmt.Errorf("%w: compile child: %w", ErrCompile, err)
}

// headBuffer keeps the first bytes written to it.
type headBuffer struct {
	bytes.Buffer
	limit int
}

func (h *headBuffer) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), h.limit-h.Len())])
	return len(p), nil
}
