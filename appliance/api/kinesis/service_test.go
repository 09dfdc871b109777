package kinesis

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/storage"
)

// TestAllOperationsAreThere compares with the operations that the SDK's client has: a
// newer model with more of them shows when the SDK is updated.
func TestAllOperationsAreThere(t *testing.T) {
	got := newBox(t, Options{}).Operations()
	var want []string
	client := reflect.TypeFor[*kinesis.Client]()
	for m := range client.Methods() {
		if m.Type.NumIn() == 4 && m.Type.NumOut() == 2 && m.Type.In(2).Elem().Name() == m.Name+"Input" {
			want = append(want, m.Name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(got) < 45 {
		t.Fatalf("%d operations %s\nwant %d %s", len(got), got, len(want), want)
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

func TestRowsOfStreamsDeletedByOthersGoAtTheNextStart(t *testing.T) {
	b := newBox(t, Options{})
	for _, name := range []string{"gone", "stays"} {
		b.create(name, 1)
		b.must("AddTagsToStream", `{"StreamName":%q,"Tags":{"a":"b"}}`, name)
		b.consumer(name, "c")
	}
	if err := b.store.DeleteStream(context.Background(), "gone"); err != nil {
		t.Fatal(err)
	}
	b.fails("ResourceNotFoundException", "DescribeStream", `{"StreamName":"gone"}`)
	b.restart(Options{})
	rows := 0
	for _, prefix := range []string{settingsPrefix, consumerPrefix} {
		if err := b.store.Scan(storage.TableSetting, []byte(prefix), nil, 0, func(_, _ []byte) bool { rows++; return true }); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.must("ListTagsForStream", `{"StreamName":"stays"}`).list("Tags")); rows != 2 || n != 1 {
		t.Fatalf("%d rows, %d tags; want 2 rows and 1 tag", rows, n)
	}
}

// TestWhoGoesAwayLeavesSettingsWhole: what is in force is what the next start reads.
func TestWhoGoesAwayLeavesSettingsWhole(t *testing.T) {
	b := newBox(t, Options{})
	for i := range 20 {
		txn, err := b.store.Begin(context.Background(), 64)
		if err != nil {
			t.Fatal(err)
		}
		txn.Put(storage.TableSetting, fmt.Appendf(nil, "probe/%d", i), []byte("kept"))
		if err := commit(apitest.Gone{Context: context.Background()}, txn); err != nil {
			t.Fatalf("commit %d: %v; expected its outcome to be awaited", i, err)
		}
	}
}
