package kinesis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
)

func TestStreamsAreMadeAndRemovedAtOnce(t *testing.T) {
	b := newBox(t, Options{})
	b.must("CreateStream", `{"StreamName":"four"}`)
	out := b.must("DescribeStreamSummary", `{"StreamARN":%q}`, b.streamARN("four"))
	if out.number("StreamDescriptionSummary", "OpenShardCount") != 4 || out.text("StreamDescriptionSummary", "StreamStatus") != "ACTIVE" {
		t.Fatalf("%v", out)
	}
	if msg := b.fails("ResourceInUseException", "CreateStream", `{"StreamName":"four","ShardCount":1}`); msg != "Stream four under account 000000000000 already exists." {
		t.Error(msg)
	}
	b.must("DeleteStream", `{"StreamName":"four"}`)
	if msg := b.fails("ResourceNotFoundException", "DescribeStream", `{"StreamName":"four"}`); msg != "Stream four under account 000000000000 not found." {
		t.Error(msg)
	}
	b.create("four", 1)
}

func TestStreamThatIsDeliveredIsNotDeleted(t *testing.T) {
	readers := map[string][]string{"source": {"to-bucket", "to-disk"}}
	b := newBox(t, Options{Readers: func(stream string) []string { return readers[stream] }})
	b.create("source", 1)
	b.create("other", 1)
	if msg := b.fails("ResourceInUseException", "DeleteStream", `{"StreamName":"source","EnforceConsumerDeletion":true}`); msg != "Stream source under account 000000000000 is the source of delivery stream to-bucket, to-disk. Delete that before you delete the stream." {
		t.Error(msg)
	}
	b.must("DescribeStream", `{"StreamName":"source"}`)
	b.must("DeleteStream", `{"StreamName":"other"}`)
	delete(readers, "source")
	b.must("DeleteStream", `{"StreamName":"source"}`)
}

func TestNameAndARNHaveToAgree(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.must("DescribeStream", `{"StreamName":"s","StreamARN":"arn:aws:kinesis:eu-west-3:000000000000:stream/s"}`)
	b.fails("InvalidArgumentException", "DescribeStream", `{"StreamName":"t","StreamARN":%q}`, b.streamARN("s"))
	b.fails("InvalidArgumentException", "DescribeStream", `{}`)
	b.fails("ResourceNotFoundException", "DescribeStream", `{"StreamARN":"arn:aws:kinesis:eu-west-3:123456789012:stream/s"}`)
	b.fails("ValidationException", "DescribeStream", `{"StreamARN":"s"}`)
}

func TestKeysAreChangedSoOftenADayOnly(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	const start, stop = `{"StreamName":"s","EncryptionType":"KMS","KeyId":"key-%d"}`, `{"StreamName":"s","EncryptionType":"KMS","KeyId":"k"}`
	for i := range keyChangesPerDay {
		b.must("StartStreamEncryption", start, i)
		b.must("StartStreamEncryption", start, i) // no change
		b.must("StopStreamEncryption", stop)
		b.clock.Pass(time.Minute)
	}
	b.fails("LimitExceededException", "StartStreamEncryption", start, 0)
	b.must("StopStreamEncryption", stop)
	b.clock.Pass(24*time.Hour - keyChangesPerDay*time.Minute) // the first is as old
	b.must("StartStreamEncryption", start, 0)
	b.must("StopStreamEncryption", stop)
	b.fails("LimitExceededException", "StartStreamEncryption", start, 1)
}

func TestConsumersOfAStreamWithACommitment(t *testing.T) {
	b := newBox(t, Options{})
	b.create("provisioned", 1)
	b.must("CreateStream", `{"StreamName":"s","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	const register = `{"StreamARN":%q,"ConsumerName":"c%d"}`
	fill := func(stream string, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			b.must("RegisterStreamConsumer", register, b.streamARN(stream), i)
		}
		b.fails("LimitExceededException", "RegisterStreamConsumer", register, b.streamARN(stream), to)
	}
	fill("s", 0, 20)
	b.must("UpdateAccountSettings", `{"MinimumThroughputBillingCommitment":{"Status":"ENABLED"}}`)
	fill("s", 20, 50)
	fill("provisioned", 0, 20)
}

func TestLimitsOfTheAccount(t *testing.T) {
	b := newBox(t, Options{ShardLimit: 5, OnDemandStreamLimit: 1})
	b.create("s", 2)
	b.fails("LimitExceededException", "CreateStream", `{"StreamName":"t","ShardCount":4}`)
	b.must("UpdateShardCount", `{"StreamName":"s","TargetShardCount":4,"ScalingType":"UNIFORM_SCALING"}`)
	b.must("SplitShard", `{"StreamName":"s","ShardToSplit":%q,"NewStartingHashKey":"10"}`, b.firstOpen("s"))
	b.fails("LimitExceededException", "SplitShard", `{"StreamName":"s","ShardToSplit":%q,"NewStartingHashKey":"5"}`, b.firstOpen("s"))
	b.must("DeleteStream", `{"StreamName":"s"}`)
	b.must("CreateStream", `{"StreamName":"a","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	b.fails("LimitExceededException", "CreateStream", `{"StreamName":"b","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	out := b.must("DescribeLimits", "{}")
	if out.number("ShardLimit") != 5 || out.number("OpenShardCount") != 4 || out.number("OnDemandStreamCount") != 1 || out.number("OnDemandStreamCountLimit") != 1 {
		t.Fatalf("%v", out)
	}
}

// firstOpen is the open shard at the beginning of the hash range.
func (b *box) firstOpen(stream string) string {
	b.t.Helper()
	out := b.must("ListShards", `{"StreamName":%q,"ShardFilter":{"Type":"AT_LATEST"}}`, stream)
	for i := range out.list("Shards") {
		if out.text("Shards", i, "HashKeyRange", "StartingHashKey") == "0" {
			return out.text("Shards", i, "ShardId")
		}
	}
	b.t.Fatalf("%v", out)
	return ""
}

func TestReshardingRules(t *testing.T) {
	b := newBox(t, Options{Settle: time.Minute})
	b.create("s", 3)
	b.put("s", "k", "keeps closed shards listed")
	split := `{"StreamName":"s","ShardToSplit":%q,"NewStartingHashKey":%q}`
	for _, key := range []string{"0", "1", "113427455640312821154458202477256070484", "340282366920938463463374607431768211456"} {
		if msg := b.fails("InvalidArgumentException", "SplitShard", split, "0", key); !strings.Contains(msg, "is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey 113427455640312821154458202477256070484.") {
			t.Error(msg)
		}
	}
	if msg := b.fails("ResourceNotFoundException", "SplitShard", split, "shardId-000000000009", "5"); msg != "Could not find shard shardId-000000000009 in stream s under account 000000000000." {
		t.Error(msg)
	}
	merge := `{"StreamName":"s","ShardToMerge":%q,"AdjacentShardToMerge":%q}`
	for _, pair := range [][2]string{{"0", "2"}, {"1", "0"}, {"1", "1"}} {
		b.fails("InvalidArgumentException", "MergeShards", merge, pair[0], pair[1])
	}
	b.must("SplitShard", split, "0", "2")
	// The stream is UPDATING for a while, and takes records.
	if msg := b.fails("ResourceInUseException", "MergeShards", merge, "1", "2"); msg != "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING" {
		t.Error(msg)
	}
	if s := b.must("DescribeStream", `{"StreamName":"s"}`).text("StreamDescription", "StreamStatus"); s != "UPDATING" {
		t.Errorf("status %s", s)
	}
	b.put("s", "k", "meanwhile")
	b.clock.Pass(time.Minute)
	if s := b.must("DescribeStream", `{"StreamName":"s"}`).text("StreamDescription", "StreamStatus"); s != "ACTIVE" {
		t.Errorf("status %s", s)
	}
	b.fails("InvalidArgumentException", "SplitShard", split, "0", "5") // closed
	b.must("MergeShards", merge, "1", "2")
	b.clock.Pass(time.Minute)
	count := `{"StreamName":"s","TargetShardCount":%d,"ScalingType":"UNIFORM_SCALING"}`
	b.fails("InvalidArgumentException", "UpdateShardCount", count, 7)
	b.fails("InvalidArgumentException", "UpdateShardCount", count, 1)
	b.fails("ValidationException", "UpdateShardCount", `{"StreamName":"s","TargetShardCount":2,"ScalingType":"OTHER"}`)
	for i := range updateCountsPerDay {
		b.must("UpdateShardCount", count, 2+i%2)
		b.clock.Pass(time.Minute)
	}
	b.fails("LimitExceededException", "UpdateShardCount", count, 2)
	b.clock.Pass(24 * time.Hour)
	b.must("UpdateShardCount", count, 2)
}

func TestOnDemandStreamsAreNotReshardedByClients(t *testing.T) {
	b := newBox(t, Options{})
	b.must("CreateStream", `{"StreamName":"s","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	want := "Request is invalid. Stream s under account 000000000000 is in On-Demand mode."
	for op, in := range map[string]string{
		"SplitShard":       `{"StreamName":"s","ShardToSplit":"0","NewStartingHashKey":"5"}`,
		"MergeShards":      `{"StreamName":"s","ShardToMerge":"0","AdjacentShardToMerge":"1"}`,
		"UpdateShardCount": `{"StreamName":"s","TargetShardCount":2,"ScalingType":"UNIFORM_SCALING"}`,
	} {
		if msg := b.fails("ValidationException", op, "%s", in); msg != want {
			t.Errorf("%s: %s", op, msg)
		}
	}
	b.fails("ValidationException", "CreateStream", `{"StreamName":"t","ShardCount":2,"StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	mode := `{"StreamARN":%q,"StreamModeDetails":{"StreamMode":%q}}`
	b.must("UpdateStreamMode", mode, b.streamARN("s"), "PROVISIONED")
	b.must("UpdateStreamMode", mode, b.streamARN("s"), "PROVISIONED") // no change, not counted
	b.must("UpdateShardCount", `{"StreamName":"s","TargetShardCount":2,"ScalingType":"UNIFORM_SCALING"}`)
	b.must("UpdateStreamMode", mode, b.streamARN("s"), "ON_DEMAND")
	b.fails("LimitExceededException", "UpdateStreamMode", mode, b.streamARN("s"), "PROVISIONED")
	b.clock.Pass(24 * time.Hour)
	b.must("UpdateStreamMode", mode, b.streamARN("s"), "PROVISIONED")
}

func TestRetentionRules(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	in := `{"StreamName":"s","RetentionPeriodHours":%d}`
	for _, c := range []struct {
		op, says string
		hours    int
	}{
		{"IncreaseStreamRetentionPeriod", "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.", 23},
		{"DecreaseStreamRetentionPeriod", "Minimum allowed retention period is 24 hours. Requested retention period (0 hours) is too short.", 0},
		{"IncreaseStreamRetentionPeriod", "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.", 8761},
		{"DecreaseStreamRetentionPeriod", "Requested retention period (25 hours) for stream s can not be longer than existing retention period (24 hours). Use IncreaseRetentionPeriod API.", 25},
	} {
		if msg := b.fails("InvalidArgumentException", c.op, in, c.hours); msg != c.says {
			t.Errorf("%s %d: %s", c.op, c.hours, msg)
		}
	}
	b.must("IncreaseStreamRetentionPeriod", in, 24)
	b.must("IncreaseStreamRetentionPeriod", in, 8760)
	if msg := b.fails("InvalidArgumentException", "IncreaseStreamRetentionPeriod", in, 100); !strings.Contains(msg, "Use DecreaseRetentionPeriod API.") {
		t.Error(msg)
	}
	b.must("DecreaseStreamRetentionPeriod", in, 30)
	b.restart(Options{})
	if h := b.must("DescribeStream", `{"StreamName":"s"}`).number("StreamDescription", "RetentionPeriodHours"); h != 30 {
		t.Errorf("%d hours", h)
	}
}

func TestConsumers(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	arn := b.streamARN("s")
	out := b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c00","Tags":{"a":"b"}}`, arn)
	consumer := out.text("Consumer", "ConsumerARN")
	if consumer != fmt.Sprintf("%s/consumer/c00:%d", arn, b.clock.Now().Unix()) || out.text("Consumer", "ConsumerStatus") != "ACTIVE" {
		t.Fatalf("%v", out)
	}
	b.fails("ResourceInUseException", "RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c00"}`, arn)
	b.restart(Options{})
	for _, in := range []string{fmt.Sprintf(`{"ConsumerARN":%q}`, consumer), fmt.Sprintf(`{"StreamARN":%q,"ConsumerName":"c00"}`, arn)} {
		if out := b.must("DescribeStreamConsumer", "%s", in); out.text("ConsumerDescription", "StreamARN") != arn {
			t.Errorf("%v", out)
		}
	}
	b.fails("InvalidArgumentException", "DescribeStreamConsumer", `{"StreamARN":%q}`, arn)
	b.fails("ResourceNotFoundException", "DescribeStreamConsumer", `{"StreamARN":%q,"ConsumerName":"none"}`, arn)
	b.fails("ResourceNotFoundException", "DescribeStreamConsumer", `{"ConsumerARN":%q}`, consumer+"1")
	for i := 1; i < consumerLimit; i++ {
		b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c%02d"}`, arn, i)
	}
	b.fails("LimitExceededException", "RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"more"}`, arn)
	var names []string
	for in := fmt.Sprintf(`{"StreamARN":%q,"MaxResults":7}`, arn); ; {
		out := b.must("ListStreamConsumers", "%s", in)
		for i := range out.list("Consumers") {
			names = append(names, out.text("Consumers", i, "ConsumerName"))
		}
		if out.text("NextToken") == "" {
			break
		}
		in = fmt.Sprintf(`{"StreamARN":%q,"MaxResults":7,"NextToken":%q}`, arn, out.text("NextToken"))
	}
	if len(names) != consumerLimit || names[0] != "c00" || names[19] != "c19" {
		t.Fatalf("%v", names)
	}
	b.fails("ResourceInUseException", "DeleteStream", `{"StreamName":"s"}`)
	b.must("DeregisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c00"}`, arn)
	b.fails("ResourceNotFoundException", "DeregisterStreamConsumer", `{"ConsumerARN":%q}`, consumer)
	if n := b.must("DescribeStreamSummary", `{"StreamName":"s"}`).number("StreamDescriptionSummary", "ConsumerCount"); n != consumerLimit-1 {
		t.Errorf("%d consumers", n)
	}
	b.must("DeleteStream", `{"StreamName":"s","EnforceConsumerDeletion":true}`)
	b.create("s", 1)
	if n := len(b.must("ListStreamConsumers", `{"StreamARN":%q}`, arn).list("Consumers")); n != 0 {
		t.Errorf("a new stream has %d consumers", n)
	}
}

func TestTags(t *testing.T) {
	b := newBox(t, Options{})
	b.must("CreateStream", `{"StreamName":"s","ShardCount":1,"Tags":{"first":"1"}}`)
	b.must("AddTagsToStream", `{"StreamName":"s","Tags":{"second":"","zebra":"ü"}}`)
	b.must("TagResource", `{"ResourceARN":%q,"Tags":{"third":"3"}}`, b.streamARN("s"))
	b.restart(Options{})
	out := b.must("ListTagsForStream", `{"StreamName":"s","Limit":2}`)
	if out.text("Tags", 0, "Key") != "first" || out.text("Tags", 1, "Key") != "second" || out.at("Tags", 1, "Value") != "" || out.at("HasMoreTags") != true {
		t.Fatalf("%v", out)
	}
	out = b.must("ListTagsForStream", `{"StreamName":"s","ExclusiveStartTagKey":"second"}`)
	if len(out.list("Tags")) != 2 || out.at("HasMoreTags") != false {
		t.Fatalf("%v", out)
	}
	b.must("RemoveTagsFromStream", `{"StreamName":"s","TagKeys":["first","none"]}`)
	b.must("UntagResource", `{"ResourceARN":%q,"TagKeys":["third"]}`, b.streamARN("s"))
	if out = b.must("ListTagsForResource", `{"ResourceARN":%q}`, b.streamARN("s")); len(out.list("Tags")) != 2 {
		t.Fatalf("%v", out)
	}
	b.fails("InvalidArgumentException", "AddTagsToStream", `{"StreamName":"s","Tags":{"a<b":""}}`)
	b.fails("ValidationException", "AddTagsToStream", `{"StreamName":"s","Tags":{}}`)
	var many []string
	for i := range tagLimit - 1 {
		many = append(many, fmt.Sprintf(`"k%d":""`, i))
	}
	b.fails("InvalidArgumentException", "AddTagsToStream", `{"StreamName":"s","Tags":{%s}}`, strings.Join(many, ","))
	consumer := b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c","Tags":{"x":"y"}}`, b.streamARN("s")).text("Consumer", "ConsumerARN")
	b.must("TagResource", `{"ResourceARN":%q,"Tags":{"z":"z"}}`, consumer)
	b.restart(Options{})
	if out = b.must("ListTagsForResource", `{"ResourceARN":%q}`, consumer); len(out.list("Tags")) != 2 {
		t.Fatalf("%v", out)
	}
}

func TestSettingsAreStoredAndGivenBack(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.must("StartStreamEncryption", `{"StreamName":"s","EncryptionType":"KMS","KeyId":"alias/aws/kinesis"}`)
	b.fails("InvalidArgumentException", "StartStreamEncryption", `{"StreamName":"s","EncryptionType":"NONE","KeyId":"k"}`)
	out := b.must("EnableEnhancedMonitoring", `{"StreamName":"s","ShardLevelMetrics":["ALL"]}`)
	if len(out.list("CurrentShardLevelMetrics")) != 0 || len(out.list("DesiredShardLevelMetrics")) != 7 {
		t.Errorf("%v", out)
	}
	b.must("DisableEnhancedMonitoring", `{"StreamName":"s","ShardLevelMetrics":["IncomingBytes"]}`)
	if p := b.must("GetResourcePolicy", `{"ResourceARN":%q}`, b.streamARN("s")).text("Policy"); p != "{}" {
		t.Errorf("policy that was never set: %q", p)
	}
	b.must("PutResourcePolicy", `{"ResourceARN":%q,"Policy":"{\"Version\":\"2012-10-17\"}"}`, b.streamARN("s"))
	b.fails("ValidationException", "PutResourcePolicy", `{"ResourceARN":%q,"Policy":"no"}`, b.streamARN("s"))
	b.restart(Options{})
	d := b.must("DescribeStream", `{"StreamName":"s"}`)
	if d.text("StreamDescription", "EncryptionType") != "KMS" || d.text("StreamDescription", "KeyId") != "alias/aws/kinesis" ||
		len(d.list("StreamDescription", "EnhancedMonitoring", 0, "ShardLevelMetrics")) != 6 {
		t.Errorf("%v", d)
	}
	// What is stored is not passed off as an effect.
	b.put("s", "k", "d")
	if r := b.must("GetRecords", `{"ShardIterator":%q}`, b.iterator("s", "0", "TRIM_HORIZON", "")); r.at("Records", 0, "EncryptionType") != nil {
		t.Errorf("%v", r)
	}
	b.must("StopStreamEncryption", `{"StreamName":"s","EncryptionType":"KMS","KeyId":"alias/aws/kinesis"}`)
	if p := b.must("GetResourcePolicy", `{"ResourceARN":%q}`, b.streamARN("s")).text("Policy"); p != `{"Version":"2012-10-17"}` {
		t.Errorf("policy %q", p)
	}
	b.must("DeleteResourcePolicy", `{"ResourceARN":%q}`, b.streamARN("s"))
	if d = b.must("DescribeStream", `{"StreamName":"s"}`); d.text("StreamDescription", "EncryptionType") != "NONE" || d.at("StreamDescription", "KeyId") != nil {
		t.Errorf("%v", d)
	}
}

func TestWarmThroughputNeedsTheCommitment(t *testing.T) {
	b := newBox(t, Options{})
	b.must("CreateStream", `{"StreamName":"s","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	b.fails("InvalidArgumentException", "UpdateStreamWarmThroughput", `{"StreamName":"s","WarmThroughputMiBps":6}`)
	if s := b.must("DescribeAccountSettings", `{}`).text("MinimumThroughputBillingCommitment", "Status"); s != "DISABLED" {
		t.Errorf("commitment %s", s)
	}
	out := b.must("UpdateAccountSettings", `{"MinimumThroughputBillingCommitment":{"Status":"ENABLED"}}`)
	if out.text("MinimumThroughputBillingCommitment", "Status") != "ENABLED" || out.number("MinimumThroughputBillingCommitment", "EarliestAllowedEndAt") != int(b.clock.Now().Unix())+86400 {
		t.Errorf("%v", out)
	}
	b.restart(Options{})
	b.must("UpdateStreamWarmThroughput", `{"StreamName":"s","WarmThroughputMiBps":6}`)
	out = b.must("DescribeStreamSummary", `{"StreamName":"s"}`)
	if out.number("StreamDescriptionSummary", "WarmThroughput", "TargetMiBps") != 6 || out.number("StreamDescriptionSummary", "WarmThroughput", "CurrentMiBps") != 4 {
		t.Errorf("%v", out)
	}
	b.create("p", 1)
	b.fails("InvalidArgumentException", "UpdateStreamWarmThroughput", `{"StreamName":"p","WarmThroughputMiBps":6}`)
}

func TestQuotasThrottleTheShardAndNotTheBatch(t *testing.T) {
	b := newBox(t, Options{Quotas: true})
	b.create("s", 2)
	record := func(hash string) string {
		return fmt.Sprintf(`{"PartitionKey":"k","ExplicitHashKey":%q,"Data":"YQ=="}`, hash)
	}
	left, right := record("0"), record("340282366920938463463374607431768211455")
	batch := func(n int, r string) string { return strings.TrimSuffix(strings.Repeat(r+",", n), ",") }
	put := `{"StreamName":"s","Records":[%s]}`
	if out := b.must("PutRecords", put, batch(500, left)); out.number("FailedRecordCount") != 0 {
		t.Fatalf("%d failed of the first 500", out.number("FailedRecordCount"))
	}
	b.must("PutRecords", put, batch(498, left))
	out := b.must("PutRecords", put, strings.Join([]string{left, right, left, left}, ","))
	if out.number("FailedRecordCount") != 1 || out.text("Records", 3, "ErrorMessage") != "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000." ||
		out.text("Records", 1, "ShardId") != "shardId-000000000001" || out.text("Records", 2, "SequenceNumber") == "" {
		t.Fatalf("%v", out)
	}
	b.fails("ProvisionedThroughputExceededException", "PutRecord", `{"StreamName":"s","PartitionKey":"k","ExplicitHashKey":"0","Data":""}`)
	b.clock.Pass(time.Second)
	b.must("PutRecord", `{"StreamName":"s","PartitionKey":"k","ExplicitHashKey":"0","Data":""}`)
	it := b.iterator("s", "0", "LATEST", "")
	for range shardReadsPerSecond {
		b.must("GetRecords", `{"ShardIterator":%q}`, it)
	}
	b.fails("ProvisionedThroughputExceededException", "GetRecords", `{"ShardIterator":%q}`, it)
	b.clock.Pass(200 * time.Millisecond)
	b.must("GetRecords", `{"ShardIterator":%q}`, it)
}

func TestEveryOperationAsksWhetherTheCallerMay(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	consumer := b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c"}`, b.streamARN("s")).text("Consumer", "ConsumerARN")
	it := b.iterator("s", "0", "LATEST", "")
	b.who = &api.Identity{Name: "nobody", Policy: api.Policy{{Actions: []string{"kinesis:*"}, Streams: []string{"t"}}}}
	for _, op := range b.Operations() {
		in, ok := denied(b, consumer, it)[op]
		if !ok {
			t.Errorf("%s is not tested here", op)
			continue
		}
		if in != "" {
			b.fails("AccessDeniedException", op, "%s", in)
		}
	}
}

// denied are good inputs of the operations; empty for those that cannot get far
// enough without a channel.
func denied(b *box, consumer, it string) map[string]string {
	s := fmt.Sprintf(`"StreamName":"s","StreamARN":%q`, b.streamARN("s"))
	arn := fmt.Sprintf(`"StreamARN":%q`, b.streamARN("s"))
	resource := fmt.Sprintf(`"ResourceARN":%q`, b.streamARN("s"))
	return map[string]string{
		"PutRecord": `{` + s + `,"PartitionKey":"k","Data":""}`, "PutRecords": `{` + s + `,"Records":[{"PartitionKey":"k","Data":""}]}`,
		"GetShardIterator": `{` + s + `,"ShardId":"0","ShardIteratorType":"LATEST"}`, "GetRecords": `{"ShardIterator":"` + it + `"}`,
		"SubscribeToShard": `{"ConsumerARN":"` + consumer + `","ShardId":"0","StartingPosition":{"Type":"LATEST"}}`,
		"CreateStream":     `{"StreamName":"u"}`, "DeleteStream": `{` + s + `}`, "DescribeStream": `{` + s + `}`, "DescribeStreamSummary": `{` + s + `}`,
		"ListStreams": `{}`, "IncreaseStreamRetentionPeriod": `{` + s + `,"RetentionPeriodHours":25}`, "DecreaseStreamRetentionPeriod": `{` + s + `,"RetentionPeriodHours":24}`,
		"UpdateMaxRecordSize": `{` + arn + `,"MaxRecordSizeInKiB":1024}`, "UpdateStreamMode": `{` + arn + `,"StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`,
		"UpdateStreamRecordDistributionStrategy": `{` + arn + `,"RecordDistributionStrategy":"AUTO"}`, "ListShards": `{` + s + `}`,
		"SplitShard": `{` + s + `,"ShardToSplit":"0","NewStartingHashKey":"9"}`, "MergeShards": `{` + s + `,"ShardToMerge":"0","AdjacentShardToMerge":"1"}`,
		"UpdateShardCount":       `{` + s + `,"TargetShardCount":2,"ScalingType":"UNIFORM_SCALING"}`,
		"RegisterStreamConsumer": `{` + arn + `,"ConsumerName":"d"}`, "DeregisterStreamConsumer": `{"ConsumerARN":"` + consumer + `"}`,
		"DescribeStreamConsumer": `{"ConsumerARN":"` + consumer + `"}`, "ListStreamConsumers": `{` + arn + `}`,
		"AddTagsToStream": `{` + s + `,"Tags":{"a":"b"}}`, "RemoveTagsFromStream": `{` + s + `,"TagKeys":["a"]}`, "ListTagsForStream": `{` + s + `}`,
		"TagResource": `{` + resource + `,"Tags":{"a":"b"}}`, "UntagResource": `{` + resource + `,"TagKeys":["a"]}`, "ListTagsForResource": `{` + resource + `}`,
		"EnableEnhancedMonitoring": `{` + s + `,"ShardLevelMetrics":["ALL"]}`, "DisableEnhancedMonitoring": `{` + s + `,"ShardLevelMetrics":["ALL"]}`,
		"StartStreamEncryption": `{` + s + `,"EncryptionType":"KMS","KeyId":"k"}`, "StopStreamEncryption": `{` + s + `,"EncryptionType":"KMS","KeyId":"k"}`,
		"PutResourcePolicy": `{` + resource + `,"Policy":"{}"}`, "GetResourcePolicy": `{` + resource + `}`, "DeleteResourcePolicy": `{` + resource + `}`,
		"UpdateStreamWarmThroughput": `{` + s + `,"WarmThroughputMiBps":1}`, "DescribeLimits": `{}`, "DescribeAccountSettings": `{}`,
		"UpdateAccountSettings": `{"MinimumThroughputBillingCommitment":{"Status":"ENABLED"}}`, "ListChannels": `{}`,
		"CreateChannel": channelInput(b, "s"), "DescribeChannel": "", "UpdateChannel": "", "DeleteChannel": "",
	}
}

func channelInput(b *box, stream string) string {
	return fmt.Sprintf(`{"ChannelName":"c","ServiceExecutionRoleARN":"arn:aws:iam::000000000000:role/r",
		"StreamConfigurationList":[{"StreamARN":%q,"RecordConfiguration":{"RecordFormatType":"JSON"}}],
		"S3DestinationConfiguration":{"StorageConfiguration":{"BucketARN":"arn:aws:s3:::lake","CompressionType":"ZSTD","ExpectedBucketOwner":"000000000000"}}}`, b.streamARN(stream))
}

// testChannels takes channels and does nothing else.
type testChannels struct {
	open    map[string]ChannelSpec
	refuse  error
	failure string
}

func (c *testChannels) OpenChannel(_ context.Context, spec ChannelSpec) error {
	if c.refuse == nil {
		c.open[spec.ID] = spec
	}
	return c.refuse
}

func (c *testChannels) UpdateChannel(_ context.Context, id string, freshness time.Duration) error {
	spec := c.open[id]
	spec.Freshness = freshness
	c.open[id] = spec
	return nil
}

func (c *testChannels) CloseChannel(_ context.Context, id string) error {
	delete(c.open, id)
	return nil
}

func (c *testChannels) ChannelFailure(string) string { return c.failure }

func TestChannels(t *testing.T) {
	b := newBox(t, Options{})
	b.create("p", 1)
	b.fails("InvalidArgumentException", "CreateChannel", "%s", channelInput(b, "p")) // no delivery
	deliveries := &testChannels{open: map[string]ChannelSpec{}}
	b.restart(Options{Channels: deliveries})
	b.fails("InvalidArgumentException", "CreateChannel", "%s", channelInput(b, "p")) // not on demand
	b.must("CreateStream", `{"StreamName":"s","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`)
	deliveries.refuse = aws.InvalidArgument.New("no such bucket")
	b.fails("InvalidArgumentException", "CreateChannel", "%s", channelInput(b, "s"))
	deliveries.refuse = nil
	out := b.must("CreateChannel", "%s", channelInput(b, "s"))
	arn, id := out.text("ChannelDescription", "ChannelARN"), out.text("ChannelDescription", "ChannelId")
	if spec := deliveries.open[id]; spec.Stream != "s" || spec.Bucket != "lake" || spec.Freshness != 300*time.Second || spec.Compression != "ZSTD" || spec.DeadLetterBucket != "lake" || spec.DeadLetterPrefix != "kinesis-channel-errors/c/" {
		t.Fatalf("%+v", spec)
	}
	if dead := out.text("ChannelDescription", "S3DestinationConfiguration", "DeadLetterQueueS3Configuration", "BucketARN"); dead != "arn:aws:s3:::lake" {
		t.Fatalf("dead letters go to %q", dead) // newer models require the member
	}
	b.fails("ResourceInUseException", "CreateChannel", "%s", channelInput(b, "s"))
	b.fails("ResourceInUseException", "DeleteStream", `{"StreamName":"s"}`)
	b.fails("InvalidArgumentException", "UpdateChannel", `{"ChannelARN":%q,"S3DestinationConfiguration":{"DataFreshnessInSeconds":901}}`, arn)
	out = b.must("UpdateChannel", `{"ChannelARN":%q,"S3DestinationConfiguration":{"DataFreshnessInSeconds":900}}`, arn)
	if deliveries.open[id].Freshness != 900*time.Second || out.number("ChannelDescription", "S3DestinationConfiguration", "DataFreshnessInSeconds") != 900 {
		t.Fatalf("%v", out)
	}
	b.must("TagResource", `{"ResourceARN":%q,"Tags":{"a":"b"}}`, arn)
	b.restart(Options{Channels: deliveries})
	deliveries.failure = "the bucket is gone"
	out = b.must("DescribeChannel", `{"ChannelARN":%q}`, arn)
	if out.text("ChannelDescription", "ChannelStatus") != "FAILED" || out.text("ChannelDescription", "ChannelStatusReason") != "the bucket is gone" {
		t.Fatalf("%v", out)
	}
	if out = b.must("ListChannels", `{"StreamFilter":[{"StreamARN":%q}]}`, b.streamARN("s")); len(out.list("ChannelSummaries")) != 1 {
		t.Fatalf("%v", out)
	}
	if out = b.must("ListChannels", `{"StreamFilter":[{"StreamARN":%q}]}`, b.streamARN("p")); len(out.list("ChannelSummaries")) != 0 {
		t.Fatalf("%v", out)
	}
	if out = b.must("ListTagsForResource", `{"ResourceARN":%q}`, arn); len(out.list("Tags")) != 1 {
		t.Fatalf("%v", out)
	}
	b.must("DeleteChannel", `{"ChannelARN":%q}`, arn)
	b.fails("ResourceNotFoundException", "DescribeChannel", `{"ChannelARN":%q}`, arn)
	if len(deliveries.open) != 0 {
		t.Fatal("the delivery goes on")
	}
	b.must("DeleteStream", `{"StreamName":"s"}`)
}
