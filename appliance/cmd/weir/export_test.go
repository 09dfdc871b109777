package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/storage"
)

func TestExportWritesOverNothingAndLeavesNoHalfFile(t *testing.T) {
	dir := t.TempDir()
	store, err := storage.Open(t.Context(), appliance.StorePath(dir), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateStream(t.Context(), storage.StreamConfig{Name: "there", Shards: 1}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "records.weir")
	for _, c := range []struct {
		stream string
		code   int
		says   string
	}{
		{"elsewhere", 2, "weir: stream: elsewhere: there is none of this name in " + dir + "\nTry: weir verify --dir " + dir},
		{"there", 0, ""}, // the one before has left no file behind
		{"there", 3, "weir: " + file + ": can't be made: file exists\nTry: another name"},
	} {
		code, _, errout := runs(t, nil, "export", c.stream, file, "--dir", dir)
		if code != c.code || !strings.HasPrefix(errout, c.says) {
			t.Errorf("export %s: exit code %d, want %d\n%s", c.stream, code, c.code, errout)
		}
	}
	if code, _, errout := runs(t, nil, "import", file, "--dir", dir); code != 2 || !strings.HasPrefix(errout, "weir: stream: there: "+file+" was exported from it: its records are there already\nTry: weir import "+file+" --stream NAME") {
		t.Errorf("import into the source: exit code %d\n%s", code, errout)
	}
	if code, _, errout := runs(t, nil, "import", file, "--dir", t.TempDir()); code != 0 {
		t.Errorf("import: %s", errout)
	}
	if err := os.Truncate(file, 12); err != nil {
		t.Fatal(err)
	}
	if code, _, errout := runs(t, nil, "import", file, "--dir", t.TempDir()); code != 2 || !strings.Contains(errout, "the file was cut or changed: import: not a whole export file") || !strings.Contains(errout, "Try: another copy") {
		t.Errorf("import of a cut file: exit code %d\n%s", code, errout)
	}
}
