package kinesis

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weirhq/weir/storage/record"
)

func TestIteratorsExpireAfterFiveMinutes(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	it := b.iterator("s", "0", "TRIM_HORIZON", "")
	b.clock.Pass(5 * time.Minute)
	b.must("GetRecords", `{"ShardIterator":%q}`, it)
	b.clock.Pass(time.Millisecond)
	msg := b.fails("ExpiredIteratorException", "GetRecords", `{"ShardIterator":%q}`, it)
	want := "Iterator expired. The iterator was created at time Fri Jan 15 08:00:00 UTC 2027 while right now it is Fri Jan 15 08:05:00 UTC 2027 which is further in the future than the tolerated delay of 300000 milliseconds."
	if msg != want {
		t.Errorf("%s\nwant %s", msg, want)
	}
}

func TestIteratorsSurviveARestartAndNotTheStream(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.put("s", "k", "one")
	it := b.iterator("s", "0", "TRIM_HORIZON", "")
	b.restart(Options{})
	if got, _ := b.read(it); !slices.Equal(got, []string{"one"}) {
		t.Fatalf("after a restart: %q", got)
	}
	if got, _ := b.read(`"` + it + `"`); !slices.Equal(got, []string{"one"}) {
		t.Fatalf("in quotes: %q", got)
	}
	_, sequence := b.put("s", "k", "two")
	b.must("DeleteStream", `{"StreamName":"s"}`)
	b.fails("ResourceNotFoundException", "GetRecords", `{"ShardIterator":%q}`, it)
	b.clock.Pass(2 * time.Second)
	b.create("s", 1)
	b.fails("ResourceNotFoundException", "GetRecords", `{"ShardIterator":%q}`, it)
	msg := b.fails("InvalidArgumentException", "GetShardIterator",
		`{"StreamName":"s","ShardId":"0","ShardIteratorType":"AFTER_SEQUENCE_NUMBER","StartingSequenceNumber":%q}`, sequence)
	if !strings.HasSuffix(msg, "is invalid because it did not come from this stream.") {
		t.Error(msg)
	}
}

func TestIteratorTypesAndTheirMembers(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 2)
	b.must("PutRecord", `{"StreamName":"s","PartitionKey":"k","ExplicitHashKey":"0","Data":"YQ=="}`)
	out := b.must("PutRecord", `{"StreamName":"s","PartitionKey":"k","ExplicitHashKey":"0","Data":"Yg=="}`)
	second := out.text("SequenceNumber")
	get := `{"StreamName":"s","ShardId":"shardId-000000000000","ShardIteratorType":%q%s}`
	sequence := func(s string) string { return fmt.Sprintf(`,"StartingSequenceNumber":%q`, s) }
	for _, c := range []struct{ kind, more, says string }{
		{"TRIM_HORIZON", sequence(second), "Request specified TRIM_HORIZON and also a StartingSequenceNumber."},
		{"LATEST", sequence(second), "Request specified LATEST and also a StartingSequenceNumber."},
		{"AT_SEQUENCE_NUMBER", "", "Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber."},
		{"AT_TIMESTAMP", "", "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP."},
		{"AT_TIMESTAMP", fmt.Sprintf(`,"Timestamp":%d`, b.clock.Now().Unix()+60), "cannot be greater than the currentTimestampInMillis"},
		{"AT_SEQUENCE_NUMBER", sequence("123456789012345678901234567890123456789012345678901234567890"), "is invalid."},
		{"AT_SEQUENCE_NUMBER", sequence("0"), "because it did not come from this stream"},
		{"AFTER_SEQUENCE_NUMBER", sequence(record.NewSequenceNumber(b.clock.Now().Unix(), 1, 5, b.clock.Now().Unix()).String()), "It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000"},
		{"AT_SEQUENCE_NUMBER", sequence(record.NewSequenceNumber(b.clock.Now().Unix(), 0, record.MaxIndex, b.clock.Now().Unix()).String()), "has reached max possible value for the shard"},
	} {
		if msg := b.fails("InvalidArgumentException", "GetShardIterator", get, c.kind, c.more); !strings.Contains(msg, c.says) {
			t.Errorf("%s %s: %s", c.kind, c.more, msg)
		}
	}
	b.fails("ValidationException", "GetShardIterator", get, "SOMEWHERE", "")
	b.fails("ValidationException", "GetShardIterator", get, "AT_SEQUENCE_NUMBER", sequence("x"))
	b.fails("ResourceNotFoundException", "GetShardIterator", `{"StreamName":"s","ShardId":"shardId-000000000002","ShardIteratorType":"LATEST"}`)
	b.fails("ResourceNotFoundException", "GetShardIterator", `{"StreamName":"s","ShardId":"shardId-x","ShardIteratorType":"LATEST"}`)
	if msg := b.fails("InvalidArgumentException", "GetRecords", `{"ShardIterator":"AAAA"}`); msg != "Invalid ShardIterator." {
		t.Error(msg)
	}
	start := b.must("DescribeStream", `{"StreamName":"s"}`).text("StreamDescription", "Shards", 0, "SequenceNumberRange", "StartingSequenceNumber")
	for _, c := range []struct {
		kind, more string
		want       int
	}{
		{"AT_SEQUENCE_NUMBER", sequence(start), 2},
		{"AFTER_SEQUENCE_NUMBER", sequence(start), 2},
		{"AT_SEQUENCE_NUMBER", sequence(second), 1},
		{"AFTER_SEQUENCE_NUMBER", sequence(second), 0},
		{"AT_TIMESTAMP", `,"Timestamp":0.001`, 2},
		{"LATEST", "", 0},
	} {
		if got, _ := b.read(b.iterator("s", "0", c.kind, c.more)); len(got) != c.want {
			t.Errorf("%s %s: %q; want %d records", c.kind, c.more, got, c.want)
		}
	}
}

func TestLatestMissesNothingWrittenAfterIt(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.put("s", "k", "before")
	it := b.iterator("s", "0", "LATEST", "")
	b.put("s", "k", "after")
	if got, _ := b.read(it); !slices.Equal(got, []string{"after"}) {
		t.Fatalf("%q", got)
	}
	// The same iterator again gives the same records, another next iterator.
	first := b.must("GetRecords", `{"ShardIterator":%q}`, it)
	again := b.must("GetRecords", `{"ShardIterator":%q}`, it)
	if first.text("Records", 0, "SequenceNumber") != again.text("Records", 0, "SequenceNumber") || first.text("NextShardIterator") == again.text("NextShardIterator") {
		t.Fatalf("%v, then %v", first, again)
	}
}

// TestReadingFromAnyRecordGivesTheRest is the property behind the iterator types:
// whatever was written in whatever batches, AT, AFTER and AT_TIMESTAMP from a
// record give exactly the records from there on, in any page size.
func TestReadingFromAnyRecordGivesTheRest(t *testing.T) {
	b := newBox(t, Options{})
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		stream := fmt.Sprintf("s%d", n)
		b.create(stream, 1)
		var numbers []string
		var times []time.Time
		for range rapid.IntRange(1, 8).Draw(r, "batches") {
			b.clock.Pass(time.Duration(rapid.IntRange(0, 2000).Draw(r, "ms")) * time.Millisecond)
			var entries []string
			for range rapid.IntRange(1, 30).Draw(r, "records") {
				entries = append(entries, fmt.Sprintf(`{"PartitionKey":"k","Data":"%04d"}`, len(numbers)+len(entries)))
			}
			out := b.must("PutRecords", `{"StreamName":%q,"Records":[%s]}`, stream, strings.Join(entries, ","))
			for i := range entries {
				numbers = append(numbers, out.text("Records", i, "SequenceNumber"))
				times = append(times, b.clock.Now())
			}
		}
		i := rapid.IntRange(0, len(numbers)-1).Draw(r, "record")
		limit := rapid.IntRange(1, 40).Draw(r, "limit")
		first := slices.IndexFunc(times, func(at time.Time) bool { return !at.Before(times[i]) })
		for kind, from := range map[string]int{"AT_SEQUENCE_NUMBER": i, "AFTER_SEQUENCE_NUMBER": i + 1, "AT_TIMESTAMP": first, "TRIM_HORIZON": 0} {
			more := ""
			switch kind {
			case "AT_TIMESTAMP":
				ms := times[i].UnixMilli()
				more = fmt.Sprintf(`,"Timestamp":%d.%03d`, ms/1000, ms%1000)
			case "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER":
				more = fmt.Sprintf(`,"StartingSequenceNumber":%q`, numbers[i])
			}
			var got []string
			for it := b.iterator(stream, "0", kind, more); ; {
				out := b.must("GetRecords", `{"ShardIterator":%q,"Limit":%d}`, it, limit)
				for j := range out.list("Records") {
					got = append(got, out.text("Records", j, "SequenceNumber"))
				}
				if out.number("MillisBehindLatest") == 0 {
					break
				}
				it = out.text("NextShardIterator")
			}
			if !slices.Equal(got, numbers[from:]) {
				r.Fatalf("%s of record %d of %d by pages of %d: %d records; want %d", kind, i, len(numbers), limit, len(got), len(numbers)-from)
			}
		}
	})
}
