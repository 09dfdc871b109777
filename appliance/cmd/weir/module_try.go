package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/weirhq/weir/appliance/fault"
	wasmguest "github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
)

type moduleTestCmd struct {
	Path    string `arg:"" optional:"" default:"." help:"Folder of the project, or a .wasm file."`
	Records string `help:"File of records, one a line; - is standard input." placeholder:"FILE"`
	Key     string `help:"Partition key of the records of --records." default:"test"`
	Stream  string `help:"Replay records of a stream of the box." placeholder:"STREAM" xor:"from"`
	Since   string `help:"With --stream: begin with records of the last so long, as 1h; the oldest if not given." placeholder:"DURATION"`
	Limit   int    `help:"With --stream: at most so many records." default:"100"`
	Quiet   bool   `help:"Print the summary only." short:"q"`
}

// trialRecord is what became of a record.
type trialRecord struct {
	Index   uint64        `json:"index"`
	Key     string        `json:"key"`
	Before  string        `json:"before"`
	Status  string        `json:"status"`
	Outputs []trialOutput `json:"outputs,omitempty"`
	Code    uint32        `json:"code,omitempty"`
	Reason  string        `json:"reason,omitempty"`
}

type trialOutput struct {
	Stream    int    `json:"stream"`
	Key       string `json:"key,omitempty"`
	Partition string `json:"partition_key,omitempty"`
	Data      string `json:"data"`
}

// trialReport is what module test prints with --json.
type trialReport struct {
	Module      string                `json:"module"`
	Version     string                `json:"version"`
	Vectors     []module.VectorResult `json:"vectors"`
	Records     []trialRecord         `json:"records,omitempty"`
	Count       int                   `json:"count"`
	Fuel        uint64                `json:"fuel"`
	MemoryBytes int64                 `json:"memory_bytes"`
	WallSeconds float64               `json:"wall_seconds"`
	Emitted     []trialOutput         `json:"emitted,omitempty"` // consumers
	StateKeys   int                   `json:"state_keys,omitempty"`
	Requests    []string              `json:"requests,omitempty"` // consumers: the outbox
	Log         []module.LogLine      `json:"log,omitempty"`
}

func (c *moduleTestCmd) Run(a *app) error {
	p, err := openProject(c.Path)
	if err != nil {
		return err
	}
	wasm, _, m, err := p.read()
	if err != nil {
		return err
	}
	batch, err := c.batch(a)
	if err != nil {
		return err
	}
	runtime, err := host.New(a.ctx, host.Options{Imports: wasmguest.Imports()})
	if err != nil {
		return err
	}
	defer runtime.Close(context.Background())
	out := &trialReport{Module: m.Name, Version: m.Version}
	v := module.NewVersion(m, "", module.Environment{Runtime: runtime, Instances: 1, Observe: func(r transform.Report) {
		out.Fuel += r.Fuel
		out.MemoryBytes = max(out.MemoryBytes, r.MemoryBytes)
		out.WallSeconds += r.Wall.Seconds()
	}}, func(context.Context) ([]byte, error) { return wasm, nil })
	defer v.Close()
	if out.Vectors, err = v.RunVectors(a.ctx); err != nil {
		return &fault.Error{Class: fault.Runtime, Subject: p.wasm, Err: err}
	}
	out.Fuel, out.MemoryBytes, out.WallSeconds = 0, 0, 0
	if len(batch.Records) > 0 {
		if m.Kind == manifest.Transform {
			err = out.transform(a.ctx, v, batch)
		} else {
			err = out.consume(a.ctx, v, batch)
		}
		if err != nil {
			return &fault.Error{Class: fault.Runtime, Subject: m.Name, Err: err}
		}
	}
	out.Log = v.Logs()
	if err := a.emit(out, func(w io.Writer) { out.print(w, c.Quiet) }); err != nil {
		return err
	}
	failed := 0
	for _, r := range out.Vectors {
		if len(r.Problems) > 0 {
			failed++
		}
	}
	if failed > 0 {
		return &fault.Error{Class: fault.Runtime, Subject: p.manifest, Expect: fmt.Sprintf("%d of %s failed", failed, plural(len(out.Vectors), "test vector"))}
	}
	return nil
}

// batch reads the records to try the module on; none are fine.
func (c *moduleTestCmd) batch(a *app) (*wasmguest.Batch, error) {
	b := &wasmguest.Batch{Stream: "test", TimeMS: time.Now().UnixMilli(), ID: 1}
	if c.Stream != "" {
		b.Stream = c.Stream
		return b, c.replay(a, b)
	}
	if c.Records == "" {
		return b, nil
	}
	r := a.in
	if c.Records != "-" {
		f, err := openFile(c.Records, "")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		b.Records = append(b.Records, wasmguest.Record{
			Key: []byte(c.Key), Data: bytes.Clone(lines.Bytes()), ArrivalMS: b.TimeMS, Index: uint64(len(b.Records)),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, &fault.Error{Class: fault.Usage, Subject: c.Records, Err: err}
	}
	return b, nil
}

// replay reads records of a stream, shard after shard.
func (c *moduleTestCmd) replay(a *app, b *wasmguest.Batch) error {
	bx, err := a.box()
	if err != nil {
		return err
	}
	from := kinesis.GetShardIteratorInput{StreamName: &c.Stream, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	if c.Since != "" {
		d, err := time.ParseDuration(c.Since)
		if err != nil || d <= 0 {
			return &fault.Error{Class: fault.Usage, Subject: "--since", Value: c.Since, Expect: "expecting a duration such as 1h"}
		}
		at := time.Now().Add(-d)
		from.ShardIteratorType, from.Timestamp = types.ShardIteratorTypeAtTimestamp, &at
	}
	client := bx.Kinesis()
	shards, err := client.ListShards(a.ctx, &kinesis.ListShardsInput{StreamName: &c.Stream})
	if err != nil {
		return bx.Explain(err)
	}
	for i := range shards.Shards {
		from.ShardId = shards.Shards[i].ShardId
		it, err := client.GetShardIterator(a.ctx, &from)
		if err != nil {
			return bx.Explain(err)
		}
		for next := it.ShardIterator; next != nil && len(b.Records) < c.Limit; {
			limit := int32(min(c.Limit-len(b.Records), 10000))
			res, err := client.GetRecords(a.ctx, &kinesis.GetRecordsInput{ShardIterator: next, Limit: &limit})
			if err != nil {
				return bx.Explain(err)
			}
			for _, r := range res.Records {
				b.Records = append(b.Records, wasmguest.Record{
					Key: []byte(*r.PartitionKey), Data: r.Data, ArrivalMS: r.ApproximateArrivalTimestamp.UnixMilli(), Index: uint64(len(b.Records)),
				})
			}
			next = res.NextShardIterator
			if len(res.Records) == 0 && (res.MillisBehindLatest == nil || *res.MillisBehindLatest == 0) {
				break
			}
		}
	}
	return nil
}

// newRecords begins the report with what goes in.
func (t *trialReport) newRecords(b *wasmguest.Batch) {
	t.Count = len(b.Records)
	for i := range b.Records {
		r := &b.Records[i]
		t.Records = append(t.Records, trialRecord{Index: r.Index, Key: printable(r.Key), Before: printable(r.Data)})
	}
}

func (t *trialReport) transform(ctx context.Context, v *module.Version, b *wasmguest.Batch) error {
	t.newRecords(b)
	tr, err := v.Transform()
	if err != nil {
		return err
	}
	return tr.Process(ctx, b, func(o *transform.Output) error {
		r := &t.Records[o.Source]
		if o.Status >= transform.OkReplaced || r.Status == "" {
			r.Status = o.Status.String()
		}
		r.Code, r.Reason = o.Code, o.Reason
		if o.Status > transform.OkReplaced || o.Status == transform.OkUnchanged && o.Key == nil && o.PartitionKey == nil && o.Out == 0 {
			return nil
		}
		data := o.Data
		if data == nil {
			data = b.Records[o.Source].Data
		}
		r.Outputs = append(r.Outputs, trialOutput{Stream: o.Out, Key: printable(o.Key), Partition: printable(o.PartitionKey), Data: printable(data)})
		return nil
	})
}

// consume runs the records through one instance with empty state, in batches
// of the manifest's size. As on the box, a record that breaks the module fails by itself.
func (t *trialReport) consume(ctx context.Context, v *module.Version, b *wasmguest.Batch) error {
	t.newRecords(b)
	c := &consumerTrial{report: t, version: v, batch: b}
	defer c.drop()
	for lo := 0; lo < len(b.Records); {
		hi := min(lo+v.Manifest.Batch.Records, len(b.Records))
		if err := c.span(ctx, lo, hi); err != nil {
			return err
		}
		lo = hi
	}
	t.StateKeys = len(c.trial.State.Keys())
	for _, r := range c.trial.Requests {
		t.Requests = append(t.Requests, printable(r))
	}
	return nil
}

// consumerTrial is a consumer at work on records that are tried.
type consumerTrial struct {
	report  *trialReport
	version *module.Version
	batch   *wasmguest.Batch
	trial   module.Trial
	guest   *wasmguest.Guest // nil: none, or it broke
	release func()
}

func (c *consumerTrial) drop() {
	if c.guest != nil {
		c.release()
		c.guest = nil
	}
}

// span runs the records [lo, hi). When the module breaks on them it halves them until
// those that break it stand alone.
func (c *consumerTrial) span(ctx context.Context, lo, hi int) error {
	if c.guest == nil {
		g, release, err := c.version.Instantiate(ctx, wasmguest.Services{State: &c.trial.State, Emit: &c.trial, Outbox: &c.trial})
		if err != nil {
			return err
		}
		c.guest, c.release = g, release
	}
	t, before := c.report, c.trial.Mark()
	part := *c.batch
	part.Records = c.batch.Records[lo:hi]
	start := time.Now()
	got, err := c.trial.Run(ctx, c.guest, &part)
	t.WallSeconds += time.Since(start).Seconds()
	fuel, memory := c.guest.Used()
	t.Fuel += fuel
	t.MemoryBytes = max(t.MemoryBytes, memory)
	if err != nil {
		c.trial.Reset(before)
		return c.broke(ctx, lo, hi, err)
	}
	for i, o := range got {
		r := &t.Records[lo+i]
		r.Status, r.Code, r.Reason = o.Status, o.Code, o.Reason
	}
	for _, e := range c.trial.Emits[len(before.Emits):] {
		o := trialOutput{Stream: e.Stream, Key: printable(e.Key), Data: printable(e.Data)}
		if e.Source >= 0 {
			r := &t.Records[lo+e.Source]
			r.Outputs = append(r.Outputs, o)
		} else {
			t.Emitted = append(t.Emitted, o)
		}
	}
	return nil
}

// broke goes on after the module broke on the records [lo, hi).
func (c *consumerTrial) broke(ctx context.Context, lo, hi int, err error) error {
	code := transform.FailureCode(err)
	if code == 0 {
		return fmt.Errorf("records %d to %d: %w", lo, hi-1, err)
	}
	if !c.guest.Instance().Healthy() {
		c.drop()
	}
	if hi-lo > 1 {
		mid := lo + (hi-lo)/2
		if err := c.span(ctx, lo, mid); err != nil {
			return err
		}
		return c.span(ctx, mid, hi)
	}
	var call *host.CallError
	if errors.As(err, &call) && call.Trace != "" {
		err = fmt.Errorf("%w\n%s", err, call.Trace)
	}
	r := &c.report.Records[lo]
	r.Status, r.Code, r.Reason = transform.ProcessingFailed.String(), code, err.Error()
	return nil
}

// printable is text as it is, and anything else quoted.
func printable(b []byte) string {
	if utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return string(b)
	}
	return strconv.Quote(string(b))
}

func (t *trialReport) print(w io.Writer, quiet bool) {
	for _, v := range t.Vectors {
		if len(v.Problems) == 0 {
			fmt.Fprintf(w, "ok    %s\n", v.Name)
			continue
		}
		fmt.Fprintf(w, "FAIL  %s\n", v.Name)
		for _, p := range v.Problems {
			fmt.Fprintf(w, "      %s\n", p)
		}
	}
	if len(t.Vectors) == 0 {
		fmt.Fprintln(w, "No test vectors in the manifest (tests:).")
	}
	if t.Count == 0 {
		return
	}
	fmt.Fprintln(w)
	counts := map[string]int{}
	for i := range t.Records {
		counts[t.Records[i].Status]++
		if !quiet {
			t.Records[i].print(w)
		}
	}
	for _, e := range t.Emitted {
		fmt.Fprintf(w, "      → %d %s %s\n", e.Stream, e.Key, e.Data)
	}
	for _, r := range t.Requests {
		fmt.Fprintf(w, "      request %s\n", r)
	}
	for _, l := range t.Log {
		if !quiet {
			fmt.Fprintf(w, "%-5s %s\n", l.Level, l.Text)
		}
	}
	var parts []string
	for _, s := range []string{"unchanged", "replaced", "dropped", "failed", "retry later"} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	fmt.Fprintf(w, "%s: %s\n", plural(t.Count, "record"), strings.Join(parts, ", "))
	n := uint64(t.Count)
	fmt.Fprintf(w, "%s fuel a record, %.0f ns a record on this machine, instance of %s", count(t.Fuel/n), t.WallSeconds*1e9/float64(n), size(t.MemoryBytes))
	if t.StateKeys > 0 {
		fmt.Fprintf(w, ", %s of state", plural(t.StateKeys, "key"))
	}
	fmt.Fprintln(w)
}

// print shows one record: its outcome, and what changed.
func (r *trialRecord) print(w io.Writer) {
	fmt.Fprintf(w, "#%-4d %s", r.Index, r.Status)
	if r.Status == "failed" || r.Code != 0 {
		code := strconv.FormatUint(uint64(r.Code), 10)
		if r.Code >= transform.CodeTrap { // the host's
			code = fmt.Sprintf("%#x", r.Code)
		}
		fmt.Fprintf(w, " code %s %s", code, strings.ReplaceAll(r.Reason, "\n", "\n      "))
	}
	fmt.Fprintln(w)
	if r.Status == "unchanged" && len(r.Outputs) == 0 {
		return
	}
	fmt.Fprintf(w, "      - %s\n", r.Before)
	for _, o := range r.Outputs {
		fmt.Fprintf(w, "      + %s", o.Data)
		if o.Stream != 0 {
			fmt.Fprintf(w, "   output %d", o.Stream)
		}
		if o.Key != "" && o.Key != r.Key {
			fmt.Fprintf(w, "   key %s", o.Key)
		}
		if o.Partition != "" {
			fmt.Fprintf(w, "   partition %s", strings.ReplaceAll(o.Partition, "\n", " "))
		}
		fmt.Fprintln(w)
		for _, d := range members(r.Before, o.Data) {
			fmt.Fprintf(w, "        %s\n", d)
		}
	}
}

// members says how the members of two JSON objects differ; nothing for other data.
func members(before, after string) []string {
	var a, b map[string]json.RawMessage
	if json.Unmarshal([]byte(before), &a) != nil || json.Unmarshal([]byte(after), &b) != nil {
		return nil
	}
	var out []string
	for _, k := range sortedKeys(a, b) {
		was, had := a[k]
		is, has := b[k]
		switch {
		case had && !has:
			out = append(out, fmt.Sprintf("- %s: %s", k, was))
		case !had && has:
			out = append(out, fmt.Sprintf("+ %s: %s", k, is))
		case !bytes.Equal(was, is):
			out = append(out, fmt.Sprintf("~ %s: %s → %s", k, was, is))
		}
	}
	return out
}

func sortedKeys(objects ...map[string]json.RawMessage) []string {
	var keys []string
	for _, m := range objects {
		keys = slices.AppendSeq(keys, maps.Keys(m))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
