package file_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink/file"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

func TestSuite(t *testing.T) {
	sinktest.RunObjects(t, func(t *testing.T) sinktest.Objects {
		dir := t.TempDir()
		sink, err := file.Open(file.Settings{Dir: dir, Bucket: "b"})
		if err != nil {
			t.Fatal(err)
		}
		lock := func(locked bool) { // the folder is gone, as a stick is that was pulled out
			from, to := dir, dir+".away"
			if !locked {
				from, to = to, from
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		return sinktest.Objects{Sink: sink, Guarantee: delivery.ExactlyOnce, Lock: lock, Read: func(key string) ([]byte, bool) {
			raw, err := os.ReadFile(filepath.Join(dir, "b", key))
			return raw, err == nil
		}}
	})
}

// TestMissingFolderIsNotMade: a stick that is not plugged in must not fill
// the disk below its mount point.
func TestMissingFolderIsNotMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mnt")
	sink, err := file.Open(file.Settings{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sink.PutObject(t.Context(), sinktest.Object("k", "r", []byte("x")))
	if e, ok := err.(*delivery.SinkError); !ok || e.Code != "File.NoSuchFolder" || !e.Refused {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder was made")
	}
}

// TestNamesStayInside: no name leads out of the folder.
func TestNamesStayInside(t *testing.T) {
	sink, err := file.Open(file.Settings{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"../x", "/etc/x", "a/../../x", ".weir/x"} {
		if _, err := sink.PutObject(t.Context(), sinktest.Object(key, "r", []byte("x"))); err == nil {
			t.Errorf("%s was stored", key)
		}
	}
}
