package kinesis

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/storage"
)

// The tests of this file are about what would break an unmodified client.

func TestNoAnswerHasAStreamID(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	for _, op := range []string{"DescribeStream", "DescribeStreamSummary", "ListStreams", "ListShards"} {
		in := `{"StreamName":"s"}`
		if op == "ListStreams" {
			in = "{}"
		}
		r := apitest.Do(context.Background(), b.Service, b.request(op, in))
		if r.Status != 200 || strings.Contains(string(r.Body), "StreamId") {
			t.Errorf("%s: %s", op, r.Body)
		}
	}
	// It is taken and ignored.
	b.must("DescribeStream", `{"StreamName":"s","StreamId":"abcdefghij0123456789-abc"}`)
	b.fails("ValidationException", "DescribeStream", `{"StreamName":"s","StreamId":"no"}`)
}

func TestMembersThatClientsDereferenceAreAlwaysThere(t *testing.T) {
	b := newBox(t, Options{})
	out := b.must("ListStreams", "{}")
	if out.at("HasMoreStreams") != false || out.at("StreamNames") == nil {
		t.Errorf("ListStreams of nothing: %v", out)
	}
	b.create("s", 1)
	out = b.must("PutRecords", `{"StreamName":"s","Records":[{"Data":"","PartitionKey":"k"}]}`)
	if out.number("FailedRecordCount") != 0 || len(out.list("Records")) != 1 || out.at("EncryptionType") != nil || len(keysOf(out.at("Records", 0))) != 2 {
		t.Errorf("PutRecords: %v", out)
	}
	out = b.must("GetRecords", `{"ShardIterator":%q}`, b.iterator("s", "0", "LATEST", ""))
	if out.number("MillisBehindLatest") != 0 || out.at("Records") == nil || len(out.list("Records")) != 0 || out.at("ChildShards") != nil {
		t.Errorf("GetRecords at the tip: %v", out)
	}
	out = b.must("DescribeStream", `{"StreamName":"s"}`)
	shard := out.at("StreamDescription", "Shards", 0, "SequenceNumberRange").(map[string]any)
	if _, has := shard["EndingSequenceNumber"]; has || out.at("StreamDescription", "HasMoreShards") != false {
		t.Errorf("DescribeStream: %v", out)
	}
	if out.at("StreamDescription", "EnhancedMonitoring", 0, "ShardLevelMetrics") == nil {
		t.Errorf("DescribeStream has no EnhancedMonitoring: %v", out)
	}
}

func TestErrorsAre400AndInTheEncodingOfTheRequest(t *testing.T) {
	b := newBox(t, Options{})
	r := b.request("DescribeStream", "")
	r.Headers.Set("Content-Type", "application/x-amz-cbor-1.1")
	r.Payload = []byte("\xa1\x6aStreamName\x64none")
	got := apitest.Do(context.Background(), b.Service, r)
	want := "\xbf\x66__type\x78\x19ResourceNotFoundException\x67message\x78\x2eStream none under account 000000000000 not found.\xff"
	want = strings.Replace(want, "\x78\x2e", "\x78"+string(rune(len("Stream none under account 000000000000 not found."))), 1)
	if got.Status != 400 || string(got.Body) != want || got.Header.Get("Content-Type") != "application/x-amz-cbor-1.1" {
		t.Fatalf("%d %s %q; want %q", got.Status, got.Header.Get("Content-Type"), got.Body, want)
	}
}

func TestCBORTimestampsAreIntegerMilliseconds(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.put("s", "k", "d")
	r := b.request("GetRecords", "")
	r.Headers.Set("Content-Type", "application/x-amz-cbor-1.1")
	it := b.iterator("s", "0", "TRIM_HORIZON", "")
	r.Payload = append([]byte("\xbf\x6dShardIterator\x79"+string([]byte{byte(len(it) >> 8), byte(len(it))})), append([]byte(it), 0xff)...)
	got := apitest.Do(context.Background(), b.Service, r)
	ms := uint64(b.clock.Now().UnixMilli())
	stamp := "ApproximateArrivalTimestamp\xc1\x1b" + string([]byte{byte(ms >> 56), byte(ms >> 48), byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)})
	if got.Status != 200 || !strings.Contains(string(got.Body), stamp) || !strings.Contains(string(got.Body), "\x64Data\x41d") {
		t.Fatalf("%d %q", got.Status, got.Body)
	}
}

func TestListStreamsGivesATokenWithEveryPageButTheLast(t *testing.T) {
	b := newBox(t, Options{})
	for i := range 5 {
		b.create(fmt.Sprintf("s%d", i), 1)
	}
	var names []string
	for in := `{"Limit":2}`; ; {
		out := b.must("ListStreams", "%s", in)
		for i := range out.list("StreamNames") {
			names = append(names, out.text("StreamNames", i))
		}
		token := out.text("NextToken")
		if more := out.at("HasMoreStreams") == true; more != (token != "") {
			t.Fatalf("HasMoreStreams %v, NextToken %q", more, token)
		}
		if token == "" {
			break
		}
		in = fmt.Sprintf(`{"Limit":2,"NextToken":%q}`, token)
	}
	if strings.Join(names, " ") != "s0 s1 s2 s3 s4" {
		t.Fatalf("%v", names)
	}
	out := b.must("ListStreams", `{"ExclusiveStartStreamName":"s1"}`)
	if len(out.list("StreamNames")) != 3 {
		t.Fatalf("after s1: %v", out)
	}
}

func TestDryRunWritesAndReadsNothing(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.fails("DryRunOperationException", "PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":"YQ==","DryRun":true}`)
	b.fails("DryRunOperationException", "PutRecords", `{"StreamName":"s","Records":[{"PartitionKey":"k","Data":"YQ=="}],"DryRun":true}`)
	b.fails("DryRunOperationException", "GetShardIterator", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"LATEST","DryRun":true}`)
	it := b.iterator("s", "0", "TRIM_HORIZON", "")
	b.fails("DryRunOperationException", "GetRecords", `{"ShardIterator":%q,"DryRun":true}`, it)
	if got, _ := b.read(it); len(got) != 0 {
		t.Fatalf("a dry run wrote %q", got)
	}
	// A check that fails gives its own error.
	b.fails("ResourceNotFoundException", "PutRecord", `{"StreamName":"none","PartitionKey":"k","Data":"","DryRun":true}`)
	b.fails("ValidationException", "PutRecords", `{"StreamName":"s","Records":[],"DryRun":true}`)
	b.fails("InvalidArgumentException", "PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":"","ExplicitHashKey":"340282366920938463463374607431768211456","DryRun":true}`)
	b.must("PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":"","DryRun":false}`)
}

func TestPartitionKeyIsOptionalOnAutoStreamsOnly(t *testing.T) {
	b := newBox(t, Options{})
	b.create("p", 1)
	msg := b.fails("ValidationException", "PutRecords", `{"StreamName":"p","Records":[{"PartitionKey":"k","Data":""},{"Data":""}]}`)
	if want := "1 validation error detected: Value null at 'records.2.member.partitionKey' failed to satisfy constraint: Member must not be null"; msg != want {
		t.Errorf("%q; want %q", msg, want)
	}
	b.fails("InvalidArgumentException", "UpdateStreamRecordDistributionStrategy", `{"StreamARN":%q,"RecordDistributionStrategy":"AUTO"}`, b.streamARN("p"))
	b.must("CreateStream", `{"StreamName":"a","StreamModeDetails":{"StreamMode":"ON_DEMAND"},"RecordDistributionStrategy":"AUTO"}`)
	shards := map[string]int{}
	for range 40 {
		out := b.must("PutRecords", `{"StreamName":"a","Records":[{"Data":"eA=="},{"PartitionKey":"same","ExplicitHashKey":"0","Data":"eQ=="}]}`)
		shards[out.text("Records", 0, "ShardId")]++
		shards[out.text("Records", 1, "ShardId")]++
	}
	for id, n := range shards {
		if n != 20 {
			t.Errorf("%s has %d of 80 records over 4 shards", id, n)
		}
	}
	out := b.must("GetRecords", `{"ShardIterator":%q}`, b.iterator("a", "0", "TRIM_HORIZON", ""))
	for i := range out.list("Records") {
		_, has := out.at("Records", i).(map[string]any)["PartitionKey"]
		if given := out.text("Records", i, "Data") == "eQ=="; has != given {
			t.Errorf("record %d: partition key given %v, returned %v", i, given, has)
		}
	}
	b.must("UpdateStreamRecordDistributionStrategy", `{"StreamARN":%q,"RecordDistributionStrategy":"USER_PARTITION_KEY"}`, b.streamARN("a"))
	b.fails("ValidationException", "PutRecord", `{"StreamName":"a","Data":""}`)
}

func number(t *testing.T, s string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		t.Fatalf("sequence number %q", s)
	}
	return n
}

func TestSequenceNumbersGrowAcrossRestartsAndClockSteps(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	last := new(big.Int)
	for i := range 12 {
		_, s := b.put("s", "k", "d")
		n := number(t, s)
		if n.Cmp(last) <= 0 || n.BitLen() != 186 || len(s) != 56 {
			t.Fatalf("number %d: %s after %s", i, s, last)
		}
		last = n
		switch i % 4 {
		case 1:
			b.restart(Options{})
		case 2:
			b.clock.Pass(-3 * time.Hour)
		case 3:
			b.clock.Pass(time.Hour)
		}
	}
	out := b.must("DescribeStream", `{"StreamName":"s"}`)
	if start := number(t, out.text("StreamDescription", "Shards", 0, "SequenceNumberRange", "StartingSequenceNumber")); start.Cmp(last) >= 0 {
		t.Fatalf("the shard starts at %s, above %s", start, last)
	}
}

func TestLatestOnAClosedShardGivesItsChildren(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.put("s", "k", "before")
	at := b.iterator("s", "0", "TRIM_HORIZON", "")
	b.must("SplitShard", `{"StreamName":"s","ShardToSplit":"shardId-000000000000","NewStartingHashKey":"170141183460469231731687303715884105728"}`)
	for _, it := range []string{at, b.iterator("s", "0", "LATEST", "")} {
		_, last := b.read(it)
		children := last.list("ChildShards")
		if last.at("NextShardIterator") != nil || len(children) != 2 {
			t.Fatalf("%v", last)
		}
		for i := range children {
			if last.text("ChildShards", i, "ParentShards", 0) != "shardId-000000000000" || last.text("ChildShards", i, "HashKeyRange", "EndingHashKey") == "" {
				t.Fatalf("child %v", children[i])
			}
		}
	}
	b.must("MergeShards", `{"StreamName":"s","ShardToMerge":"shardId-000000000001","AdjacentShardToMerge":"shardId-000000000002"}`)
	_, last := b.read(b.iterator("s", "2", "LATEST", ""))
	if got := fmt.Sprint(last.at("ChildShards", 0, "ParentShards")); got != "[shardId-000000000001 shardId-000000000002]" {
		t.Fatalf("parents of the merged shard: %s", got)
	}
	out := b.must("ListShards", `{"StreamName":"s"}`)
	if out.text("Shards", 3, "ParentShardId") != "shardId-000000000001" || out.text("Shards", 3, "AdjacentParentShardId") != "shardId-000000000002" {
		t.Fatalf("%v", out.at("Shards", 3))
	}
}

func TestShardFilters(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 2)
	b.clock.Pass(time.Minute)
	then := b.clock.Now()
	b.clock.Pass(time.Minute)
	b.put("s", "k", "keeps closed shards listed")
	b.must("UpdateShardCount", `{"StreamName":"s","TargetShardCount":4,"ScalingType":"UNIFORM_SCALING"}`)
	b.clock.Pass(time.Minute)
	count := func(filter string) int {
		return len(b.must("ListShards", `{"StreamName":"s","ShardFilter":%s}`, filter).list("Shards"))
	}
	total := len(b.must("ListShards", `{"StreamName":"s"}`).list("Shards"))
	for filter, want := range map[string]int{
		`{"Type":"AT_LATEST"}`:                                                             4,
		`{"Type":"AT_TRIM_HORIZON"}`:                                                       2,
		`{"Type":"FROM_TRIM_HORIZON"}`:                                                     total,
		fmt.Sprintf(`{"Type":"AT_TIMESTAMP","Timestamp":%d}`, then.Unix()):                 total - 4,
		fmt.Sprintf(`{"Type":"FROM_TIMESTAMP","Timestamp":%d}`, then.Unix()):               total,
		fmt.Sprintf(`{"Type":"FROM_TIMESTAMP","Timestamp":%d}`, b.clock.Now().Unix()):      4,
		fmt.Sprintf(`{"Type":"AT_TIMESTAMP","Timestamp":%d}`, then.Add(-time.Hour).Unix()): 2,
		`{"Type":"AFTER_SHARD_ID","ShardId":"shardId-000000000001"}`:                       total - 2,
	} {
		if got := count(filter); got != want {
			t.Errorf("%s: %d of %d shards; want %d", filter, got, total, want)
		}
	}
	b.fails("InvalidArgumentException", "ListShards", `{"StreamName":"s","ShardFilter":{"Type":"AT_TIMESTAMP"}}`)
	b.fails("InvalidArgumentException", "ListShards", `{"StreamName":"s","ShardFilter":{"Type":"AFTER_SHARD_ID"}}`)
	b.fails("InvalidArgumentException", "ListShards", `{"StreamName":"s","ShardFilter":{"Type":"AT_TIMESTAMP","Timestamp":%d}}`, b.clock.Now().Add(time.Hour).Unix())
}

func TestListShardsPagesShowOneInstant(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 3)
	out := b.must("ListShards", `{"StreamName":"s","MaxResults":2,"ShardFilter":{"Type":"AT_LATEST"}}`)
	b.clock.Pass(time.Second)
	b.put("s", "k", "d")
	b.must("UpdateShardCount", `{"StreamName":"s","TargetShardCount":6,"ScalingType":"UNIFORM_SCALING"}`)
	rest := b.must("ListShards", `{"NextToken":%q,"MaxResults":2}`, out.text("NextToken"))
	if len(out.list("Shards"))+len(rest.list("Shards")) != 3 || rest.text("Shards", 0, "ShardId") != "shardId-000000000002" || rest.at("NextToken") != nil {
		t.Fatalf("%v, then %v", out, rest)
	}
	if msg := b.fails("InvalidArgumentException", "ListShards", `{"StreamName":"s","NextToken":%q}`, out.text("NextToken")); msg != "NextToken and StreamName cannot be provided together." {
		t.Error(msg)
	}
	if msg := b.fails("InvalidArgumentException", "ListShards", `{}`); msg != "Either NextToken or StreamName should be provided." {
		t.Error(msg)
	}
	b.clock.Pass(301 * time.Second)
	b.fails("ExpiredNextTokenException", "ListShards", `{"NextToken":%q}`, out.text("NextToken"))
	b.fails("InvalidArgumentException", "ListStreams", `{"NextToken":"bm9uZQ=="}`)
}

func TestBackPressureIsPerRecordAndRetryable(t *testing.T) {
	b := newBox(t, Options{AdmissionWait: time.Millisecond})
	b.create("s", 1)
	// Whoever holds the whole admission keeps others waiting.
	txn, err := b.store.Begin(context.Background(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	b.fails("ProvisionedThroughputExceededException", "PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":"YQ=="}`)
	out := b.must("PutRecords", `{"StreamName":"s","Records":[{"PartitionKey":"k","Data":"YQ=="},{"PartitionKey":"l","Data":"Yg=="}]}`)
	if out.number("FailedRecordCount") != 2 || out.text("Records", 1, "ErrorCode") != "ProvisionedThroughputExceededException" || out.text("Records", 1, "ErrorMessage") == "" {
		t.Fatalf("%v", out)
	}
	txn.Release()
	b.must("PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":"YQ=="}`)
	if got, _ := b.read(b.iterator("s", "0", "TRIM_HORIZON", "")); len(got) != 1 {
		t.Fatalf("%q; want what was acknowledged", got)
	}
}

func TestAFaultyRecordFailsTheWholeBatchAndStoresNothing(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	good := `{"PartitionKey":"k","Data":"YQ=="}`
	for bad, kind := range map[string]string{
		`{"PartitionKey":"","Data":"YQ=="}`:                                                              "ValidationException",
		`{"PartitionKey":"k"}`:                                                                           "ValidationException",
		`{"PartitionKey":"k","Data":"YQ="}`:                                                              "SerializationException",
		`{"PartitionKey":"k","Data":"Y!=="}`:                                                             "SerializationException",
		`{"PartitionKey":"k","Data":"","ExplicitHashKey":"-1"}`:                                          "ValidationException",
		`{"PartitionKey":"k","Data":"","ExplicitHashKey":"` + strings.Repeat("9", 39) + `"}`:             "InvalidArgumentException",
		`{"PartitionKey":"k","Data":"` + base64.StdEncoding.EncodeToString(make([]byte, 1<<20+1)) + `"}`: "ValidationException",
		`{"PartitionKey":"k","Data":"` + base64.StdEncoding.EncodeToString(make([]byte, 1<<20)) + `"}`:   "InvalidArgumentException",
	} {
		b.fails(kind, "PutRecords", `{"StreamName":"s","Records":[%s,%s]}`, good, bad)
	}
	if got, _ := b.read(b.iterator("s", "0", "TRIM_HORIZON", "")); len(got) != 0 {
		t.Fatalf("%q is stored", got)
	}
}

func TestLargeRecords(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.must("UpdateMaxRecordSize", `{"StreamARN":%q,"MaxRecordSizeInKiB":10240}`, b.streamARN("s"))
	if n := b.must("DescribeStreamSummary", `{"StreamName":"s"}`).number("StreamDescriptionSummary", "MaxRecordSizeInKiB"); n != 10240 {
		t.Fatalf("%d KiB", n)
	}
	large := make([]byte, 10<<20-1)
	for i := range large {
		large[i] = byte(i * 7)
	}
	text := base64.StdEncoding.EncodeToString(large)
	b.must("PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":%q}`, text)
	b.put("s", "k", "small")
	out := b.must("GetRecords", `{"ShardIterator":%q}`, b.iterator("s", "0", "TRIM_HORIZON", ""))
	if out.text("Records", 0, "Data") != text {
		t.Fatal("the large record is not what was put")
	}
	if len(out.list("Records")) == 1 {
		out = b.must("GetRecords", `{"ShardIterator":%q}`, out.text("NextShardIterator"))
		if out.text("Records", 0, "Data") != "c21hbGw=" {
			t.Fatalf("behind the large record: %v", out)
		}
	}
	b.fails("InvalidArgumentException", "PutRecord", `{"StreamName":"s","PartitionKey":"kk","Data":%q}`, text)
	b.fails("ValidationException", "UpdateMaxRecordSize", `{"StreamARN":%q,"MaxRecordSizeInKiB":10241}`, b.streamARN("s"))
}

func TestStoreThatIsClosedSaysSo(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	status, out := b.do("PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":""}`)
	if status != 503 || out.text("__type") != "ServiceUnavailable" {
		t.Fatalf("%d %v", status, out)
	}
	if _, err := b.store.Begin(context.Background(), 1); err == nil {
		t.Fatal(storage.ErrClosed)
	}
}
