package storage

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Listings of an open come from the first one and what was done since.
func TestListingOfAnOpenIsRight(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	names := []string{"d/a", "d/b.sst", "d/c.sst", "d/e", "f/g", "f/h", "d/i.dbtmp"}
	for range 300 {
		mem := vfs.NewMem()
		s := &Store{o: Options{FS: mem}.complete(), dir: ""}
		s.disk = newDisk(s)
		fs := &patientFS{FS: mem, d: s.disk}
		for _, d := range []string{"d", "f"} {
			if err := fs.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for range 30 {
			a, b := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
			_, err := mem.Stat(a)
			movable := err == nil && a != b // an error would stop the engine
			var f vfs.File
			switch rng.IntN(7) {
			case 0:
				f, _ = fs.Create(a, vfs.WriteCategoryUnspecified)
			case 1:
				f, _ = fs.OpenReadWrite(a, vfs.WriteCategoryUnspecified)
			case 2:
				if movable {
					f, _ = fs.ReuseForWrite(a, b, vfs.WriteCategoryUnspecified)
				}
			case 3:
				if movable {
					if err := fs.Rename(a, b); err != nil {
						t.Fatal(err)
					}
				}
			case 4:
				_ = fs.Link(a, b)
			case 5:
				_ = fs.Remove(a) // some are held and stay
			}
			if f != nil {
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			dir := []string{"d", "d", "f"}[rng.IntN(3)]
			got, err := fs.List(dir)
			want, err2 := mem.List(dir)
			slices.Sort(got)
			slices.Sort(want)
			if err != nil || err2 != nil || !slices.Equal(got, want) {
				t.Fatalf("%s is listed as %q, there is %q: %v %v", dir, got, want, err, err2)
			}
		}
	}
}
