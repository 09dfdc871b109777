package storage

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Listings of an open come from the first one and what was done since. Pebble knows its
// tables from the first: the others may leave them out.
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
			got, want = withoutTables(got), withoutTables(want)
			slices.Sort(got)
			slices.Sort(want)
			if err != nil || err2 != nil || !slices.Equal(got, want) {
				t.Fatalf("%s is listed as %q, there is %q: %v %v", dir, got, want, err, err2)
			}
		}
	}
}

// What was listed ahead holds as long as nothing was changed, and an error until it was told.
func TestListingAheadOfAnOpen(t *testing.T) {
	mem := vfs.NewMem()
	s := &Store{o: Options{FS: mem}.complete(), dir: ""}
	s.disk = newDisk(s)
	fs := &patientFS{FS: mem, d: s.disk}
	s.disk.lookAhead(ctx, "d")
	if err := s.disk.looked(); err != nil {
		t.Errorf("a directory that is not there yet: %v", err)
	}
	create := func(fs vfs.FS, name string) {
		t.Helper()
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := mem.MkdirAll("d", 0o755); err != nil {
		t.Fatal(err)
	}
	list := func(want ...string) {
		t.Helper()
		got, err := fs.List("d")
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %q, %v, expected %q", got, err, want)
		}
	}
	create(mem, "d/000001.sst")
	s.disk.lookAhead(ctx, "d")
	<-s.disk.opening.ahead.listed
	create(mem, "d/000002.sst") // behind everyone's back
	list("000001.sst")
	list()
	s.disk.reopening()
	s.disk.lookAhead(ctx, "d")
	<-s.disk.opening.ahead.listed
	create(fs, "d/000003.sst")
	list("000001.sst", "000002.sst", "000003.sst")

	list()

	s.disk.reopening()
	create(mem, "d/marker.manifest.nonsense")
	s.disk.lookAhead(ctx, "d")
	list("000001.sst", "000002.sst", "000003.sst", "marker.manifest.nonsense")
	for range 2 {
		if _, err := fs.List("d"); err == nil {
			t.Error("a marker that can't be read was not told with the second listing")
		}
	}
	if s.disk.looked() == nil {
		t.Error("a marker that can't be read was not told in the end")
	}
	list("marker.manifest.nonsense")
	s.disk.opened()
	list("000001.sst", "000002.sst", "000003.sst", "marker.manifest.nonsense")
}
