//go:build amd64 || arm64

package host_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/asm"
)

// What is about compiling, for the architectures that wazero compiles for.

func TestCompiledCodeComesFromTheCacheOnlyWithItsSeal(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	m := asm.New()
	m.Func("one", "", "i", "", asm.I32(1))
	run := func() {
		t.Helper()
		r, err := host.New(ctx, host.Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close(ctx)
		i := instantiate(t, compile(t, r, m), host.InstanceOptions{})
		if got, err := i.Function("one").Call(ctx); err != nil || got != 1 {
			t.Fatalf("one() = %d, %v", got, err)
		}
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
	}
	code := func() string {
		t.Helper()
		files, _ := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
		if len(files) != 1 {
			t.Fatalf("cache holds %q; one file was expected", files)
		}
		return files[0]
	}
	run()
	before, err := os.Stat(code())
	if err != nil {
		t.Fatal(err)
	}
	run()
	if after, err := os.Stat(code()); err != nil || !os.SameFile(before, after) {
		t.Errorf("the second run compiled again (%v)", err)
	}
	b, err := os.ReadFile(code())
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(code(), b, 0o600); err != nil {
		t.Fatal(err)
	}
	run()
	if after, err := os.ReadFile(code()); err != nil || bytes.Equal(after, b) {
		t.Errorf("code that was changed was not compiled again (%v)", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("cache directory has mode %v, %v", info.Mode(), err)
	}
}

func TestCompileChildThatFailsIsReported(t *testing.T) {
	m := asm.New()
	m.Func("one", "", "i", "", asm.I32(1))
	r := open(t, host.Options{CacheDir: t.TempDir(), CompileCommand: []string{"/bin/false"}})
	if _, err := r.Compile(context.Background(), m.Bytes(), host.CompileOptions{}); !errors.Is(err, host.ErrCompile) {
		t.Errorf("compile with a child that fails: %v", err)
	}
}

func TestCompilingIsBoundedInMemory(t *testing.T) {
	m := asm.New()
	var body []any
	for range 20_000 {
		body = append(body, asm.LocalGet, 0, asm.I32(7), asm.I32Mul, asm.I32(1), asm.I32Add, asm.LocalSet, 0)
	}
	for range 10 {
		m.Func("", "i", "", "", body...)
	}
	r := open(t, host.Options{CacheDir: t.TempDir(), CompileMemoryBytes: 1 << 20})
	_, err := r.Compile(context.Background(), m.Bytes(), host.CompileOptions{})
	if !errors.Is(err, host.ErrCompile) || !strings.Contains(err.Error(), "more than 1048576 bytes of memory") {
		t.Errorf("compile in 1 MiB: %v", err)
	}
}
