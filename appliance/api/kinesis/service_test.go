package kinesis

import (
	"slices"
	"strings"
	"testing"
)

func TestAllOperationsAreThere(t *testing.T) {
	b := newBox(t, Options{})
	if n := len(b.Operations()); n != 45 {
		t.Fatalf("%d operations; want 45", n)
	}
}

func TestPutAndGet(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	var want []string
	for _, d := range []string{"one", "", "three\x00\xff"} {
		shard, _ := b.put("s", "k", d)
		if shard != "shardId-000000000000" {
			t.Fatalf("in %s", shard)
		}
		want = append(want, d)
	}
	got, last := b.read(b.iterator("s", "shardId-000000000000", "TRIM_HORIZON", ""))
	if !slices.Equal(got, want) {
		t.Fatalf("%q; want %q", got, want)
	}
	if last.number("MillisBehindLatest") != 0 || last.text("NextShardIterator") == "" || last.at("ChildShards") != nil {
		t.Fatalf("%v", last)
	}
	if strings.Contains(strings.Join(keysOf(last.at("Records", 0)), " "), "EncryptionType") {
		t.Fatal("a record of a plain stream has an EncryptionType")
	}
}

func keysOf(v any) []string {
	var out []string
	m, _ := v.(map[string]any)
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
