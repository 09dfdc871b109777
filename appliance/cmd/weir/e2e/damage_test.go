package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mended is what `weir repair --json` prints, as far as this test looks.
type mended struct {
	OK   bool `json:"ok"`
	Lost []struct {
		First, Last uint64
	} `json:"lost"`
	SetAside []struct{ Path string } `json:"set_aside"`
}

// largestTable returns the largest table of a stopped box: the one with the records.
func largestTable(t *testing.T, dir string) string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "store", "db", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables in %s: %v", dir, err)
	}
	var largest string
	var size int64
	for _, path := range tables {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			largest, size = path, info.Size()
		}
	}
	return largest
}

// TestDamageIsFoundRepairedAndReported flips bytes in the one table that holds a
// stream's records: verify finds it, repair takes it out, keeps it aside and says
// exactly which records are lost, and the box runs again.
func TestDamageIsFoundRepairedAndReported(t *testing.T) {
	dir := t.TempDir()
	b := serve(t, dir)
	must(t, "--dir", dir, "stream", "create", "pumps")
	var lines strings.Builder
	for i := range 500 {
		fmt.Fprintf(&lines, "record %d of pump %x\n", i, uint64(i)*uint64(i)*2654435761)
	}
	if r := weirIn(t, lines.String(), nil, "--dir", dir, "put", "pumps"); r.code != 0 {
		t.Fatal(r.errout)
	}
	if code := b.stop(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	table := largestTable(t, dir)
	content, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		content[len(content)/4+i] ^= 0xff
	}
	if err := os.WriteFile(table, content, 0o600); err != nil {
		t.Fatal(err)
	}

	fails(t, 1, nil, []string{"--dir", dir, "verify"}, "problems found", "Try: weir repair --dir "+dir)
	out := parse[mended](t, must(t, "--dir", dir, "repair", "--json"))
	var lost uint64
	for _, l := range out.Lost {
		lost += l.Last - l.First + 1
	}
	if !out.OK || lost != 500 || len(out.SetAside) != 1 { // all of it lay in one block of the table
		t.Fatalf("repair: %+v, %d records lost", out, lost)
	}
	if _, err := os.Stat(out.SetAside[0].Path); err != nil {
		t.Fatalf("the damaged table is not kept: %v", err)
	}
	if !parse[verified](t, must(t, "--dir", dir, "verify", "--json")).OK {
		t.Fatal("verify finds damage after repair")
	}
	b = serve(t, dir)
	if r := weirIn(t, "one more\n", nil, "--dir", dir, "put", "pumps"); r.code != 0 {
		t.Fatal(r.errout)
	}
	b.stop(t)
	if !parse[verified](t, must(t, "--dir", dir, "verify", "--json")).OK {
		t.Fatal("verify finds damage after the box ran again")
	}
}
