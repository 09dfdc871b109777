package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"golang.org/x/sync/errgroup"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
)

type tailCmd struct {
	Stream string `arg:"" help:"Stream to read."`
	From   string `default:"latest" help:"latest, trim-horizon, a time (2026-01-02T15:04:05Z, or 10m or 7d for so long ago) or a sequence number."`
	Shard  string `help:"Only this shard." placeholder:"SHARD"`
	Limit  int    `help:"End after so many records." placeholder:"N"`
	Follow bool   `default:"true" negatable:"" help:"Wait for more at the end."`
	Raw    bool   `help:"Only the data of each record, a line each."`
}

// tailed is a record as tail prints it with --json, one object a line.
type tailed struct {
	Shard          string    `json:"shard"`
	SequenceNumber string    `json:"sequence_number"`
	PartitionKey   string    `json:"partition_key"`
	Arrival        time.Time `json:"arrival"`
	Text           *string   `json:"text,omitempty"` // the data, when it is UTF-8
	Data           []byte    `json:"data,omitempty"` // the data in base64, when it is not
}

// tailPoll is how long tail waits at the end of a shard before it asks again.
const tailPoll = 200 * time.Millisecond

// tailer prints the records of all shards as they come.
type tailer struct {
	a      *app
	cmd    *tailCmd
	client *kinesis.Client
	group  *errgroup.Group
	mu     struct {
		sync.Mutex
		printed int
		shards  map[string]reading
	}
}

// reading is how far a shard is.
type reading uint8

const (
	waits reading = iota // for its parents, so that records come in the order of their keys
	begun
	ended
)

// errEnough ends the tail at its limit.
var errEnough = fmt.Errorf("limit reached")

func (c *tailCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	start, err := c.start(time.Now())
	if err != nil {
		return err
	}
	t := &tailer{a: a, cmd: c, client: b.Kinesis()}
	t.mu.shards = map[string]reading{}
	shards, err := t.shards()
	if err != nil {
		return b.Explain(err)
	}
	for i := range shards {
		t.mu.shards[deref(shards[i].ShardId)] = waits
	}
	var ctx context.Context
	t.group, ctx = errgroup.WithContext(a.ctx)
	for i := range shards {
		t.read(ctx, deref(shards[i].ShardId), []string{deref(shards[i].ParentShardId), deref(shards[i].AdjacentParentShardId)}, start)
	}
	if err := t.group.Wait(); err != nil && err != errEnough && a.ctx.Err() == nil {
		return b.Explain(t.missing(err))
	}
	return nil
}

// missing turns the answer that there is no shard, which the API gives for a stream
// that is not there or has just been deleted too, into what is said of such a stream.
func (t *tailer) missing(err error) error {
	var none *types.ResourceNotFoundException
	if !errors.As(err, &none) {
		return err
	}
	_, gone := t.client.DescribeStreamSummary(t.a.ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &t.cmd.Stream})
	if errors.As(gone, &none) {
		return gone
	}
	return err
}

// start reads --from.
func (c *tailCmd) start(now time.Time) (kinesis.GetShardIteratorInput, error) {
	in := kinesis.GetShardIteratorInput{StreamName: &c.Stream}
	switch c.From {
	case "latest":
		in.ShardIteratorType = types.ShardIteratorTypeLatest
		return in, nil
	case "trim-horizon":
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
		return in, nil
	}
	if n, ok := new(big.Int).SetString(c.From, 10); ok && n.BitLen() > 64 {
		if c.Shard == "" {
			return in, &fault.Error{Class: fault.Usage, Subject: "--from", Value: c.From, Expect: "a sequence number belongs to one shard; expecting --shard too", Try: "weir stream describe " + c.Stream}
		}
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, &c.From
		return in, nil
	}
	in.ShardIteratorType = types.ShardIteratorTypeAtTimestamp
	if d, err := config.ParseDuration(c.From); err == nil && d >= 0 {
		at := now.Add(-d)
		in.Timestamp = &at
		return in, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime, time.DateOnly} {
		if at, err := time.ParseInLocation(layout, c.From, time.Local); err == nil {
			in.Timestamp = &at
			return in, nil
		}
	}
	return in, &fault.Error{Class: fault.Usage, Subject: "--from", Value: c.From, Expect: "expecting latest, trim-horizon, a time such as 2026-01-02T15:04:05Z or 10m, or a sequence number", Try: "weir tail --help"}
}

func (t *tailer) shards() ([]types.Shard, error) {
	if t.cmd.Shard != "" {
		return []types.Shard{{ShardId: &t.cmd.Shard}}, nil
	}
	var shards []types.Shard
	var next *string
	for {
		in := &kinesis.ListShardsInput{NextToken: next}
		if next == nil {
			in.StreamName = &t.cmd.Stream
			if t.cmd.From == "latest" {
				in.ShardFilter = &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}
			}
		}
		out, err := t.client.ListShards(t.a.ctx, in)
		if err != nil {
			return nil, err
		}
		shards = append(shards, out.Shards...)
		if next = out.NextToken; next == nil {
			return shards, nil
		}
	}
}

// read begins to read a shard, once, when those of its parents that are read have
// ended.
func (t *tailer) read(ctx context.Context, id string, parents []string, start kinesis.GetShardIteratorInput) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.shards[id] != waits {
		return
	}
	for _, p := range parents {
		if at, is := t.mu.shards[p]; is && at != ended {
			return // the last parent begins it
		}
	}
	t.mu.shards[id] = begun
	start.ShardId = &id
	t.group.Go(func() error { return t.shard(ctx, id, start) })
}

// children begins what became of a shard that was read to its end.
func (t *tailer) children(ctx context.Context, id string, children []types.ChildShard, start kinesis.GetShardIteratorInput) {
	t.mu.Lock()
	t.mu.shards[id] = ended
	t.mu.Unlock()
	if start.ShardIteratorType != types.ShardIteratorTypeAtTimestamp {
		start = kinesis.GetShardIteratorInput{StreamName: start.StreamName, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	}
	for _, c := range children {
		t.read(ctx, deref(c.ShardId), c.ParentShards, start)
	}
}

// shard reads one shard to its end, and then what became of it.
func (t *tailer) shard(ctx context.Context, id string, start kinesis.GetShardIteratorInput) error {
	it, err := t.client.GetShardIterator(ctx, &start)
	if err != nil {
		return err
	}
	for next := it.ShardIterator; next != nil; {
		out, err := t.client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next})
		if err != nil {
			return err
		}
		for i := range out.Records {
			if err := t.print(id, &out.Records[i]); err != nil {
				return err
			}
		}
		if next = out.NextShardIterator; next == nil {
			t.children(ctx, id, out.ChildShards, start)
			return nil
		}
		if len(out.Records) > 0 || (out.MillisBehindLatest != nil && *out.MillisBehindLatest > 0) {
			continue
		}
		if !t.cmd.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tailPoll):
		}
	}
	return nil
}

func (t *tailer) print(shard string, r *types.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cmd.Limit > 0 && t.mu.printed == t.cmd.Limit {
		return errEnough
	}
	if err := t.line(shard, r); err != nil {
		return err
	}
	if t.mu.printed++; t.cmd.Limit > 0 && t.mu.printed == t.cmd.Limit {
		return errEnough
	}
	return nil
}

func (t *tailer) line(shard string, r *types.Record) error {
	if t.cmd.Raw {
		_, err := t.a.out.Write(append(r.Data, '\n'))
		return err
	}
	out := tailed{Shard: shard, SequenceNumber: deref(r.SequenceNumber), PartitionKey: deref(r.PartitionKey)}
	if r.ApproximateArrivalTimestamp != nil {
		out.Arrival = *r.ApproximateArrivalTimestamp
	}
	if text := string(r.Data); utf8.ValidString(text) {
		out.Text = &text
	} else {
		out.Data = r.Data
	}
	if t.a.JSON {
		return json.NewEncoder(t.a.out).Encode(out)
	}
	data := fmt.Sprintf("%d bytes, not text", len(r.Data))
	if out.Text != nil {
		if data = *out.Text; strings.ContainsFunc(data, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			data = strconv.Quote(data) // one line a record, and nothing that a terminal obeys
		}
	}
	_, err := io.WriteString(t.a.out, fmt.Sprintf("%s  %s  %s  %s\n", out.Arrival.Local().Format("15:04:05.000"), shardShort(shard), out.PartitionKey, data))
	return err
}

// shardShort is the number of a shard without the zeros before it: "#12".
func shardShort(id string) string {
	n := len("shardId-")
	for n < len(id)-1 && id[n] == '0' {
		n++
	}
	if n >= len(id) {
		return id
	}
	return "#" + id[n:]
}
