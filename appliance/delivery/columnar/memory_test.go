package columnar

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// liveHeap is what is reachable; pools keep nothing over two collections.
func liveHeap() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestWriterHoldsLittle fills a row group of 4 MiB of JSON to just before its end: the
// columns, mostly encoded and compressed by then, are to hold no more than that, and
// 32 KiB for each beyond 16.
func TestWriterHoldsLittle(t *testing.T) {
	const group = 4 << 20
	for _, columns := range []int{4, 32, 100, 1000} {
		var s Schema
		var fields []string
		for i := range columns {
			s = append(s, Column{Name: fmt.Sprintf("c%d", i), Type: "string"})
			fields = append(fields, fmt.Sprintf(`"c%d":"value-%d"`, i, i*7919))
		}
		line := []byte("{" + strings.Join(fields, ",") + "}")
		r, err := NewReader(s, &Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := liveHeap()
		w, err := NewWriter(io.Discard, r, &Options{}, group)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n+len(line) < group; n += len(line) {
			row, err := r.Row(line)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Write(row, len(line)); err != nil {
				t.Fatal(err)
			}
		}
		if held, most := liveHeap()-before, int64(group+max(s.Leaves()-16, 0)*32<<10); held > most {
			t.Errorf("%d columns hold %d bytes, want %d at most", columns, held, most)
		} else {
			t.Logf("%d columns hold %.1f MiB of %.1f", columns, float64(held)/(1<<20), float64(most)/(1<<20))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := (Schema{{"a", "int"}, {"m", "map<string,double>"}, {"s", "struct<a:int,b:array<struct<c:string>>>"}, {"x", "nonsense"}}).Leaves(); n != 6 {
		t.Errorf("%d leaves, want 6", n)
	}
}
