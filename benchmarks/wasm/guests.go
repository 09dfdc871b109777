package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	sdk "github.com/weirhq/weir/sdk/guest"
)

// module returns an SDK example, from sdk/guest/dist or built in the benchmark's directory.
func (b *run) module(ctx context.Context, l sdk.Language, example string) ([]byte, error) {
	if wasm, err := os.ReadFile(filepath.Join(b.root, "sdk", "guest", "dist", l.Name, example+".wasm")); err == nil {
		return wasm, nil
	}
	steps, err := l.Build()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.o.Dir, l.Name+"-"+example)
	files, err := l.Project("bench-"+example, example)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Data, 0o644)); err != nil {
			return nil, err
		}
	}
	b.o.Logf("wasm: build %s %s", l.Name, example)
	for _, s := range steps {
		cmd := exec.CommandContext(ctx, s.Args[0], s.Args[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), s.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			last := bytes.TrimSpace(out)
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(s.Args, " "), err, last[max(0, len(last)-200):])
		}
	}
	return os.ReadFile(filepath.Join(dir, filepath.FromSlash(l.Output)))
}

// vary makes a module that does the same and is another module: it appends an
// empty data segment at address n.
func vary(wasm []byte, n int) ([]byte, error) {
	out := bytes.Clone(wasm[:8])
	found := false
	for rest := wasm[8:]; len(rest) > 0; {
		id := rest[0]
		size, k := binary.Uvarint(rest[1:])
		if k <= 0 || uint64(len(rest)) < 1+uint64(k)+size {
			return nil, errors.New("module is cut")
		}
		content := rest[1+k : 1+k+int(size)]
		rest = rest[1+k+int(size):]
		if id == 11 || id == 12 {
			count, k := binary.Uvarint(content)
			content = append(binary.AppendUvarint(nil, count+1), content[k:]...)
		}
		if id == 11 {
			found = true
			content = append(content, 0, 0x41)
			content = append(content, byte(n&0x7f|0x80), byte(n>>7&0x3f), 0x0b, 0) // i32.const n, end, no bytes
		}
		out = append(binary.AppendUvarint(append(out, id), uint64(len(content))), content...)
	}
	if !found {
		return nil, errors.New("module has no data section")
	}
	return out, nil
}
