package e2e

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// objectLines returns the lines of the objects below dir, in the order of their keys.
func objectLines(t *testing.T, dir string) []string {
	t.Helper()
	var keys []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".weir" { // the box's own rows
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".weir-") { // a part of an object that a kill cut off
			keys = append(keys, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	var lines []string
	for _, key := range keys {
		f, err := os.Open(key)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := zstd.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(dec)
		for s.Scan() {
			lines = append(lines, s.Text())
		}
		if s.Err() != nil {
			t.Fatalf("%s: %v", key, s.Err())
		}
		dec.Close()
		f.Close()
	}
	return lines
}

// readObjects returns the records in the objects below dir, by the shard of
// their writer.
func readObjects(t *testing.T, dir string, shardOf map[int]string) map[string][]line {
	t.Helper()
	all := map[string][]line{}
	for _, text := range objectLines(t, dir) {
		l := parse[line](t, text)
		all[shardOf[l.Writer]] = append(all[shardOf[l.Writer]], l)
	}
	return all
}
