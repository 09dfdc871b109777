package codec

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden objects that are missing")

// TestGoldenObjects holds every codec against objects in testdata that were
// made once and stay: independent programs read them as they did, and deflate,
// whose encoder has no code of one processor only, still makes the same bytes. A
// new version of the encoder may make others: then the file gets a new name, and
// the old one stays to be read.
func TestGoldenObjects(t *testing.T) {
	raw := sample(5000)
	for _, c := range All {
		t.Run(string(c), func(t *testing.T) {
			path := filepath.Join("testdata", "golden"+c.Extension())
			made := encode(t, c, Options{Entry: "golden"}, raw)
			golden, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) && *update {
				golden, err = made, errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, made, 0o644))
			}
			if err != nil {
				t.Fatal(err)
			}
			if (c == Uncompressed || c == Gzip || c == Zip) && !bytes.Equal(made, golden) {
				t.Errorf("%d bytes are made, %s has %d others", len(made), path, len(golden))
			}
			got := golden
			if command := readers[c]; command != nil {
				args := append([]string{}, command...)
				args[len(args)-1] = path
				if got, err = exec.Command(args[0], args[1:]...).Output(); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, raw) {
				t.Errorf("%s holds %d bytes of %d", path, len(got), len(raw))
			}
		})
	}
}
