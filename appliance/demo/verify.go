package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/delivery"
)

// idleBelow is the module's min: readings below it are dropped.
const idleBelow = 0.5

// sample is what a record, in the log or in an object, says of itself.
type sample struct {
	Sensor string  `json:"sensor"`
	Seq    uint64  `json:"seq"`
	Value  float64 `json:"value"`
	State  string  `json:"state"`
}

// parse reads a record. Records of the demo's own form are read without
// encoding/json, as there may be millions.
func parse(data []byte, s *sample) error {
	rest, ok := bytes.CutPrefix(data, []byte(`{"sensor":"`))
	name, rest, ok2 := bytes.Cut(rest, []byte(`","seq":`))
	number, rest, ok3 := bytes.Cut(rest, []byte(`,"at":`))
	_, rest, ok4 := bytes.Cut(rest, []byte(`,"value":`))
	value, rest, ok5 := bytes.Cut(rest, []byte(`,"unit":`))
	if ok && ok2 && ok3 && ok4 && ok5 && !bytes.ContainsRune(name, '\\') {
		seq, err := strconv.ParseUint(string(number), 10, 64)
		v, err2 := strconv.ParseFloat(string(value), 64)
		if err == nil && err2 == nil {
			*s = sample{Sensor: string(name), Seq: seq, Value: v}
			if _, state, ok := bytes.Cut(rest, []byte(`,"state":"`)); ok {
				s.State = string(bytes.TrimSuffix(state, []byte(`"}`)))
			}
			return nil
		}
	}
	*s = sample{}
	return json.Unmarshal(data, s)
}

// logReader reads one shard from its oldest record on, through the AWS SDK.
type logReader struct {
	client  *kinesis.Client
	shard   string
	next    *string
	records []types.Record
	head    sample // the next record that is to be in an object
	more    bool
}

// verifier compares the log with what was acknowledged, and the objects with
// the log. Both are read once, side by side, so memory does not grow with them.
type verifier struct {
	run     *run
	summary *Summary
	shards  []*logReader
	inLog   map[string]*bitset // readings found in the log, by sensor
}

// verify fills in the counts of the summary.
func (r *run) verify(ctx context.Context, s *Summary) error {
	v := &verifier{run: r, summary: s, inLog: map[string]*bitset{}}
	if err := v.open(ctx); err != nil {
		return err
	}
	var objects admin.Objects
	if err := r.box.Call(ctx, "GET", "deliveries/"+deliveryName+"/objects?limit=100000", nil, &objects); err != nil {
		return err
	}
	slices.SortStableFunc(objects.Objects, func(a, b delivery.Manifest) int {
		return int(int64(a.Number) - int64(b.Number))
	})
	for i := range objects.Objects {
		o := &objects.Objects[i]
		s.Objects++
		s.BytesDelivered += o.Stored
		if err := v.object(ctx, o.Key); err != nil {
			return fmt.Errorf("object %s: %w", o.Key, err)
		}
	}
	for _, l := range v.shards { // nothing that belongs into an object is left
		for l.more {
			s.Missing++
			if err := v.advance(ctx, l); err != nil {
				return err
			}
		}
	}
	v.compareAcked()
	return nil
}

func (v *verifier) open(ctx context.Context) error {
	out, err := v.run.client.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String(streamName)})
	if err != nil {
		return err
	}
	for _, sh := range out.Shards {
		it, err := v.run.client.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
			StreamName: aws.String(streamName), ShardId: sh.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			return err
		}
		l := &logReader{client: v.run.client, shard: *sh.ShardId, next: it.ShardIterator}
		v.shards = append(v.shards, l)
		if err := v.advance(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// advance moves to the next record of the shard that is to be in an object,
// and notes those that the module drops.
func (v *verifier) advance(ctx context.Context, l *logReader) error {
	for {
		for len(l.records) > 0 {
			data := l.records[0].Data
			l.records = l.records[1:]
			if err := parse(data, &l.head); err != nil {
				return fmt.Errorf("log %s: %w in %.200q", l.shard, err, data)
			}
			v.note(&l.head)
			if l.head.Value >= idleBelow {
				l.more = true
				return nil
			}
			v.summary.RecordsDropped++
		}
		if l.next == nil {
			l.more = false
			return nil
		}
		out, err := l.client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: l.next, Limit: aws.Int32(2000)})
		if err != nil {
			return err
		}
		l.records, l.next = out.Records, out.NextShardIterator
		if len(out.Records) == 0 && aws.ToInt64(out.MillisBehindLatest) == 0 {
			l.next = nil // the tip: nobody writes any more
		}
	}
}

// note marks a reading as found in the log.
func (v *verifier) note(s *sample) {
	b := v.inLog[s.Sensor]
	if b == nil {
		b = &bitset{}
		v.inLog[s.Sensor] = b
	}
	if b.has(s.Seq) {
		v.summary.Repeated++
		v.run.show("REPEATED in the log: %s %d", s.Sensor, s.Seq)
	}
	b.set(s.Seq)
}

// object holds the lines of an object against the log: each has to be the next
// of one of the shards.
func (v *verifier) object(ctx context.Context, key string) error {
	f, err := v.run.objects.open(ctx, key)
	if err != nil {
		return err
	}
	defer f.Close()
	dec, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer dec.Close()
	lines := bufio.NewReaderSize(dec, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		var s sample
		if err := parse(bytes.TrimSuffix(line, []byte("\n")), &s); err != nil {
			return fmt.Errorf("%w in %.200q", err, line)
		}
		v.summary.RecordsDelivered++
		if s.State != "" {
			v.summary.RecordsTransformed++
		}
		if err := v.match(ctx, key, &s); err != nil {
			return err
		}
	}
}

func (v *verifier) match(ctx context.Context, key string, s *sample) error {
	for _, l := range v.shards {
		if l.more && l.head.Sensor == s.Sensor && l.head.Seq == s.Seq {
			return v.advance(ctx, l)
		}
	}
	// Not the next of any shard: a repeat when the log is past it already.
	if b := v.inLog[s.Sensor]; b != nil && b.has(s.Seq) {
		v.summary.Repeated++
		v.run.show("REPEATED: %s %d in %s", s.Sensor, s.Seq, key)
		return nil
	}
	v.summary.Disordered++
	v.run.show("OUT OF ORDER: %s %d in %s", s.Sensor, s.Seq, key)
	return nil
}

// compareAcked counts what was acknowledged and is not in the log.
func (v *verifier) compareAcked() {
	l := v.run.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, s := range l.mu.sensors {
		found := v.inLog[name]
		for seq := uint64(1); seq < s.next; seq++ {
			if s.acked.has(seq) && (found == nil || !found.has(seq)) {
				v.summary.Missing++
				v.run.show("MISSING from the log: %s %d", name, seq)
			}
		}
	}
}

// peakResident is the process's highest resident size so far, in MiB.
func peakResident() float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kb / 1024
		}
	}
	return 0
}
