package e2e

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// readObjects returns the records in the objects below dir, in the order of the
// objects' keys, by the shard of their writer.
func readObjects(t *testing.T, dir string, shardOf map[int]string) map[string][]line {
	t.Helper()
	var keys []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			keys = append(keys, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	all := map[string][]line{}
	for _, key := range keys {
		f, err := os.Open(key)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := zstd.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(dec); s.Scan(); {
			l := parse[line](t, s.Text())
			all[shardOf[l.Writer]] = append(all[shardOf[l.Writer]], l)
		}
		dec.Close()
		f.Close()
	}
	return all
}
