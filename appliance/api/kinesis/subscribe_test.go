package kinesis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/api/aws"
)

// event is a decoded frame of a subscription.
type event struct {
	kind string // event type, or exception type
	answer
}

func events(t *testing.T, body []byte) []event {
	t.Helper()
	var out []event
	for len(body) > 0 {
		e, rest, err := aws.DecodeEvent(body)
		if err != nil {
			t.Fatal(err)
		}
		body = rest
		ev := event{kind: e.Headers[":event-type"] + e.Headers[":exception-type"], answer: answer{}}
		if e.Headers[":message-type"] == "exception" {
			ev.kind = "!" + ev.kind
		}
		d := json.NewDecoder(strings.NewReader(string(e.Payload)))
		d.UseNumber()
		if err := d.Decode(&ev.answer); err != nil {
			t.Fatalf("%v in %s", err, e.Payload)
		}
		out = append(out, ev)
	}
	return out
}

func kinds(evs []event) string {
	var out []string
	for _, e := range evs {
		out = append(out, e.kind)
	}
	return strings.Join(out, " ")
}

// subscription starts a subscription in a goroutine of its own.
func (b *box) subscribe(ctx context.Context, consumer, shard, position string) <-chan *apitest.Result {
	done := make(chan *apitest.Result, 1)
	r := b.request("SubscribeToShard", fmt.Sprintf(`{"ConsumerARN":%q,"ShardId":%q,"StartingPosition":%s}`, consumer, shard, position))
	r.Version = "HTTP/2.0"
	go func() { done <- apitest.Do(ctx, b.Service, r) }()
	return done
}

func (b *box) subscribed() int {
	b.subscriptions.mu.Lock()
	defer b.subscriptions.mu.Unlock()
	return len(b.subscriptions.active)
}

func (b *box) consumer(stream, name string) string {
	b.t.Helper()
	return b.must("RegisterStreamConsumer", `{"StreamARN":%q,"ConsumerName":%q}`, b.streamARN(stream), name).text("Consumer", "ConsumerARN")
}

const fromOldest = `{"Type":"TRIM_HORIZON"}`

func TestSubscriptionBeginsBeatsAndEnds(t *testing.T) {
	b := newBox(t, Options{Heartbeat: 5 * time.Millisecond, SubscriptionLife: 60 * time.Millisecond})
	b.create("s", 1)
	for i := range 3 {
		b.put("s", "k", fmt.Sprint("r", i))
	}
	r := <-b.subscribe(context.Background(), b.consumer("s", "c"), "shardId-000000000000", fromOldest)
	evs := events(t, r.Body)
	if r.Err != nil || r.Status != 200 || r.Header.Get("Content-Type") != aws.EventStreamType || len(r.Flushes) != len(evs) {
		t.Fatalf("%d %v, %d flushes for %d events, %v", r.Status, r.Header, len(r.Flushes), len(evs), r.Err)
	}
	if len(evs) < 3 || evs[0].kind != "initial-response" || len(evs[0].answer) != 0 {
		t.Fatalf("%s", kinds(evs))
	}
	if len(evs[1].list("Records")) != 3 || evs[1].text("Records", 2, "Data") != "cjI=" || evs[1].number("MillisBehindLatest") != 0 {
		t.Fatalf("%v", evs[1])
	}
	for _, e := range evs[2:] {
		if e.kind != "SubscribeToShardEvent" || e.at("Records") == nil || len(e.list("Records")) != 0 || e.text("ContinuationSequenceNumber") != evs[1].text("Records", 2, "SequenceNumber") {
			t.Fatalf("heartbeat %s %v", e.kind, e.answer)
		}
	}
	if b.subscribed() != 0 {
		t.Fatal("the subscription is still there")
	}
}

func TestContinuationSequenceNumberResumes(t *testing.T) {
	b := newBox(t, Options{Heartbeat: time.Millisecond, SubscriptionLife: 10 * time.Millisecond})
	b.create("s", 1)
	consumer := b.consumer("s", "c")
	position := fromOldest
	var want, got []string
	for i := range 8 {
		if i%2 == 1 { // every other time nothing is new
			d := fmt.Sprint("r", i)
			b.put("s", "k", d)
			want = append(want, d)
		}
		r := <-b.subscribe(context.Background(), consumer, "0", position)
		for _, e := range events(t, r.Body) {
			for j := range e.list("Records") {
				got = append(got, decoded(t, e.text("Records", j, "Data")))
			}
			if c := e.text("ContinuationSequenceNumber"); c != "" {
				position = fmt.Sprintf(`{"Type":"AFTER_SEQUENCE_NUMBER","SequenceNumber":%q}`, c)
			}
		}
		b.clock.Pass(6 * time.Second)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%q; want %q", got, want)
	}
}

func decoded(t testing.TB, s string) string {
	t.Helper()
	var raw []byte
	if err := json.Unmarshal([]byte(`"`+s+`"`), &raw); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestSubscriptionEndsWithTheShard(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	b.put("s", "k", "last")
	done := b.subscribe(context.Background(), b.consumer("s", "c"), "0", fromOldest)
	apitest.Until(t, "the subscription is open", func() bool { return b.subscribed() == 1 })
	b.must("SplitShard", `{"StreamName":"s","ShardToSplit":"0","NewStartingHashKey":"5"}`)
	r := <-done
	evs := events(t, r.Body)
	last := evs[len(evs)-1]
	if _, has := last.answer["ContinuationSequenceNumber"]; has || len(last.list("ChildShards")) != 2 || r.Err != nil || last.at("Records") == nil {
		t.Fatalf("%v %v", last, r.Err)
	}
	if last.text("ChildShards", 0, "ParentShards", 0) != "shardId-000000000000" {
		t.Fatalf("%v", last)
	}
}

func TestOneSubscriptionPerConsumerAndShard(t *testing.T) {
	b := newBox(t, Options{SubscriptionLimit: 3})
	b.create("s", 3)
	c, d := b.consumer("s", "c"), b.consumer("s", "d")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := b.subscribe(ctx, c, "0", fromOldest)
	apitest.Until(t, "the first one is open", func() bool { return b.subscribed() == 1 })
	in := `{"ConsumerARN":%q,"ShardId":"0","StartingPosition":{"Type":"LATEST"}}`
	b.clock.Pass(subscribeAgainAfter - time.Millisecond)
	b.fails("ResourceInUseException", "SubscribeToShard", in, c)
	other := b.subscribe(ctx, d, "0", fromOldest) // another consumer's is none of its business
	third := b.subscribe(ctx, c, "1", fromOldest)
	apitest.Until(t, "three are open", func() bool { return b.subscribed() == 3 })
	b.fails("LimitExceededException", "SubscribeToShard", `{"ConsumerARN":%q,"ShardId":"2","StartingPosition":{"Type":"LATEST"}}`, c)
	b.clock.Pass(time.Millisecond)
	second := b.subscribe(ctx, c, "0", fromOldest)
	r := <-first
	if got := kinds(events(t, r.Body)); got != "initial-response !ResourceInUseException" || r.Err != nil {
		t.Fatalf("the one that was taken over: %s, %v", got, r.Err)
	}
	b.must("DeregisterStreamConsumer", `{"ConsumerARN":%q}`, d)
	if got := kinds(events(t, (<-other).Body)); got != "initial-response !ResourceNotFoundException" {
		t.Fatalf("that of a deregistered consumer: %s", got)
	}
	b.must("DeleteStream", `{"StreamName":"s","EnforceConsumerDeletion":true}`)
	for _, ch := range []<-chan *apitest.Result{second, third} {
		if got := kinds(events(t, (<-ch).Body)); got != "initial-response !ResourceNotFoundException" {
			t.Fatalf("that of a deleted stream: %s", got)
		}
	}
	apitest.Until(t, "all are gone", func() bool { return b.subscribed() == 0 })
}

func TestSubscriptionEndsWhenTheListenerDrains(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	draining := make(chan struct{})
	done := b.subscribe(api.WithDraining(context.Background(), draining), b.consumer("s", "c"), "0", fromOldest)
	apitest.Until(t, "it is open", func() bool { return b.subscribed() == 1 })
	close(draining)
	if r := <-done; r.Err != nil || kinds(events(t, r.Body)) != "initial-response" {
		t.Fatalf("%s, %v", kinds(events(t, r.Body)), r.Err)
	}
}

func TestSubscriptionChecksItsInput(t *testing.T) {
	b := newBox(t, Options{})
	b.create("s", 1)
	c := b.consumer("s", "c")
	b.fails("DryRunOperationException", "SubscribeToShard", `{"ConsumerARN":%q,"ShardId":"0","StartingPosition":{"Type":"LATEST"},"DryRun":true}`, c)
	b.fails("ResourceNotFoundException", "SubscribeToShard", `{"ConsumerARN":%q,"ShardId":"9","StartingPosition":{"Type":"LATEST"}}`, c)
	b.fails("ResourceNotFoundException", "SubscribeToShard", `{"ConsumerARN":%q,"ShardId":"0","StartingPosition":{"Type":"LATEST"}}`, c+"0")
	b.fails("InvalidArgumentException", "SubscribeToShard", `{"ConsumerARN":%q,"ShardId":"0","StartingPosition":{"Type":"AFTER_SEQUENCE_NUMBER"}}`, c)
	b.fails("ValidationException", "SubscribeToShard", `{"ConsumerARN":%q,"ShardId":"0"}`, c)
	if b.subscribed() != 0 {
		t.Fatal("a refused subscription is there")
	}
}
