package kinesis

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api/apitest"
)

// TestAnswersHaveTheRoomThereIs: where memory is short, answers and events have fewer
// records, in order and none twice; where there is none for a single record, the reader
// is throttled.
func TestAnswersHaveTheRoomThereIs(t *testing.T) {
	const largest = 60_000
	b := newBox(t, Options{Heartbeat: 10 * time.Millisecond})
	b.create("s", 1)
	var want []string
	for i := range 60 {
		data := strings.Repeat(string(rune('A'+i)), 10)
		if i%20 == 13 {
			data = strings.Repeat(string(rune('A'+i)), largest)
		}
		b.put("s", "key", data)
		want = append(want, data)
	}
	least := base64.StdEncoding.EncodedLen(largest) + recordRest + answerRest + 64
	for _, room := range []int{0, 1 << 20, 2 * least, least} {
		b.room = room
		if got, _ := b.read(b.iterator("s", "0", "TRIM_HORIZON", "")); !slices.Equal(got, want) {
			t.Errorf("with room for %d bytes: %d records, expecting %d", room, len(got), len(want))
		}
	}
	b.room = largest
	it := b.iterator("s", "0", "TRIM_HORIZON", "")
	out := b.must("GetRecords", `{"ShardIterator":%q}`, it)
	if n := len(out.list("Records")); n != 13 {
		t.Errorf("%d records before the large one, expecting 13", n)
	}
	b.fails("ProvisionedThroughputExceededException", "GetRecords", `{"ShardIterator":%q}`, out.text("NextShardIterator"))

	b.room = 2 * least
	arn := b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c"}`, b.streamARN("s")).text("Consumer", "ConsumerARN")
	b.must("SplitShard", `{"StreamName":"s","ShardToSplit":"0","NewStartingHashKey":"170141183460469231731687303715884105728"}`)
	res := <-b.subscribe(context.Background(), arn, "shardId-000000000000", `{"Type":"TRIM_HORIZON"}`)
	var got []string
	for _, e := range events(t, res.Body) {
		for i := range e.list("Records") {
			raw, err := base64.StdEncoding.DecodeString(e.text("Records", i, "Data"))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(raw))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("a subscription gets %d records, expecting %d", len(got), len(want))
	}
}

// TestASubscriptionWithoutRoomBeats: it is not cut off, and goes on when there is room.
func TestASubscriptionWithoutRoomBeats(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.put("s", "k", strings.Repeat("x", 9000))
	arn := b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":"c"}`, b.streamARN("s")).text("Consumer", "ConsumerARN")
	b.room = 4096
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := b.subscribe(ctx, arn, "shardId-000000000000", `{"Type":"TRIM_HORIZON"}`)
	apitest.Until(t, "the subscription is there", func() bool {
		b.subscriptions.mu.Lock()
		defer b.subscriptions.mu.Unlock()
		return len(b.subscriptions.active) == 1
	})
	b.must("DeregisterStreamConsumer", `{"ConsumerARN":%q}`, arn)
	all := events(t, (<-done).Body)
	if k := kinds(all); !strings.HasPrefix(k, "initial-response ") || !strings.HasSuffix(k, "!ResourceNotFoundException") {
		t.Fatal(k)
	}
	for _, e := range all {
		if len(e.list("Records")) > 0 {
			t.Error("a record came without room for it")
		}
	}
}
