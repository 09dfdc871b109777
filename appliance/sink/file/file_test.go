package file_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
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

// TestObjectsAreWholeAtEverySize: what is written past the page cache has to be
// in blocks, what objects hold need not be.
func TestObjectsAreWholeAtEverySize(t *testing.T) {
	dir := t.TempDir()
	sink, err := file.Open(file.Settings{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 2<<20+5000)
	for i := range data {
		data[i] = byte(i * 7919 >> 5)
	}
	for _, size := range []int{0, 1, 4095, 4096, 4097, 1<<20 - 1, 1 << 20, 1<<20 + 1, len(data)} {
		for _, lent := range []int{0, 100, 5 << 20} {
			key := fmt.Sprintf("o/%d-%d", size, lent)
			o := sinktest.Object(key, key, data[:size])
			o.Buffer = make([]byte, 0, lent)
			o.Render = func(w io.Writer) error {
				for rest := data[:size]; len(rest) > 0; {
					n := min(len(rest), 10_007)
					if _, err := w.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return nil
			}
			stored, err := sink.PutObject(t.Context(), o)
			if err != nil || stored.Bytes != int64(size) {
				t.Fatalf("%s: %+v, %v", key, stored, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, key)); err != nil || !bytes.Equal(got, data[:size]) {
				t.Errorf("%s holds %d bytes, %v", key, len(got), err)
			}
		}
	}
}

// TestRepeatedObjectIsRecognised whether the file system holds its metadata or,
// as here where it is too long for that, a row does.
func TestRepeatedObjectIsRecognised(t *testing.T) {
	dir := t.TempDir()
	sink, err := file.Open(file.Settings{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for key, ranges := range map[string]string{"short": "0:1-2", "long": strings.Repeat("0:1-2 ", 20_000)} {
		o := sinktest.Object(key, "recipe of "+key, []byte("x"))
		o.Metadata[delivery.RangesKey] = ranges
		for _, again := range []bool{false, true} {
			if stored, err := sink.PutObject(t.Context(), o); err != nil || stored.Duplicate != again {
				t.Errorf("%s, again %v: %+v, %v", key, again, stored, err)
			}
		}
		if _, err := sink.PutObject(t.Context(), sinktest.Object(key, "another recipe", []byte("y"))); err == nil {
			t.Errorf("%s was written over", key)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".weir", "long.json")); err != nil {
		t.Error(err)
	}
}
