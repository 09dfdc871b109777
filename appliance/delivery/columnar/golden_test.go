package columnar

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file if it is missing")

// TestGoldenFile holds what is written today against a file that was written once
// and stays: a second implementation reads the same in both.
func TestGoldenFile(t *testing.T) {
	records := []string{
		`{"device":"pump-1","seq":1,"ok":true,"temp":21.5}`,
		`{"device":"pump-2","seq":2,"ok":false,"temp":-3}`,
		`{"device":"pümp-3","seq":9007199254740993}`,
	}
	schema := Schema{{Name: "device", Type: "string"}, {Name: "seq", Type: "bigint"}, {Name: "ok", Type: "boolean"}, {Name: "temp", Type: "double"}}
	made, refused := write(t, schema, &Options{}, 4<<20, records...)
	if refused != 0 {
		t.Fatalf("%d records refused", refused)
	}
	path := filepath.Join("testdata", "golden.parquet")
	golden, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && *update {
		golden, err = made, errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, made, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range [][]byte{golden, made} {
		same(t, path, pyarrow(t, file).Rows, `[
			{"device":"pump-1","seq":1,"ok":true,"temp":21.5},{"device":"pump-2","seq":2,"ok":false,"temp":-3.0},
			{"device":"pümp-3","seq":9007199254740993,"ok":null,"temp":null}]`)
	}
	if again, _ := write(t, schema, &Options{}, 4<<20, records...); !bytes.Equal(made, again) {
		t.Error("the same records make another file")
	}
}
