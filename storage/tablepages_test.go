package storage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The kernel keeps what was written last, up to the bound; what is behind is given back once, in
// order, and a table that is gone is no matter.
func TestPagesOfTablesBehindAreGivenBack(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	var dropped []string
	pages := &tablePages{fs: vfs.Default, drop: func(f vfs.File) error {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		dropped = append(dropped, info.Name())
		return dropPages(f)
	}}
	for _, step := range []struct {
		table string
		mib   int64
		want  []string
	}{
		{"1", 20, nil},
		{"2", 12, nil},
		{"3", 1, []string{"1"}},
		{"gone", 19, nil},
		{"4", 33, []string{"2", "3", "4"}}, // more than is kept by itself
		{"5", 32, nil},
	} {
		name := filepath.Join(dir, step.table)
		f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		w := writeTable(f, name, pages)
		w.(*tableWriter).written = step.mib*mib - 5 // as if
		if _, err := w.Write([]byte("table")); err != nil {
			t.Fatal(err)
		}
		if step.table == "4" {
			if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(dropped, step.want) {
			t.Fatalf("after %s, of %d MiB, %q were given back, expected %q", step.table, step.mib, dropped, step.want)
		}
		dropped = nil
		if got, err := os.ReadFile(name); err != nil || string(got) != "table" {
			t.Fatalf("%s is %q, %v", step.table, got, err)
		}
	}
}
