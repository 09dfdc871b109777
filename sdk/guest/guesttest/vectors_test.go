package guesttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/weirhq/weir/wasm/manifest"
)

var (
	languages = []string{"c", "go", "rust", "assemblyscript"}
	examples  = []string{"filter", "rename", "downsample", "anomaly", "router"}
)

// TestMain builds the examples first, those that are not built yet. A toolchain
// that is missing fails everything: no example goes untested unnoticed.
func TestMain(m *testing.M) {
	cmd := exec.Command("bash", "../build.sh")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "build examples: %v\nTry: sdk/guest/install.sh\n", err)
		os.Exit(1)
	}
	code := m.Run()
	for _, h := range hosts {
		if h != nil {
			_ = h.Close(context.Background())
		}
	}
	os.Exit(code)
}

// dist returns a built example.
func dist(t testing.TB, language, example string) []byte {
	t.Helper()
	wasm, err := os.ReadFile(filepath.Join("..", "dist", language, example+".wasm"))
	if err != nil {
		t.Fatalf("read example: %v", err)
	}
	return wasm
}

func readManifest(t testing.TB, example string) *manifest.Manifest {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "vectors", example+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// hosts are made once, so that each module is compiled once for each engine.
var hosts = [2]*Host{}

func engines(t *testing.T, run func(t *testing.T, h *Host)) {
	for i, name := range []string{"compiler", "interpreter"} {
		t.Run(name, func(t *testing.T) {
			if hosts[i] == nil {
				h, err := NewHost(context.Background(), name == "interpreter")
				if err != nil {
					t.Fatal(err)
				}
				hosts[i] = h
			}
			hosts[i].Reset()
			run(t, hosts[i])
		})
	}
}

func TestExamplesKeepTheirVectors(t *testing.T) {
	engines(t, func(t *testing.T, h *Host) {
		for _, example := range examples {
			m := readManifest(t, example)
			for _, language := range languages {
				wasm := dist(t, language, example)
				for i := range m.Tests {
					if err := h.RunVector(t.Context(), m, wasm, &m.Tests[i]); err != nil {
						t.Errorf("%s/%s: %s: %v", language, example, m.Tests[i].Name, err)
					}
				}
			}
		}
	})
}
