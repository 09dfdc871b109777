package module

import (
	"bytes"
	"context"
	"fmt"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

// VectorResult is how a module did on one of its test vectors.
type VectorResult struct {
	Name     string   `json:"name"`
	Problems []string `json:"problems,omitempty"` // none = passed
}

// RunVectors loads the version, makes one instance of it, and runs the
// manifest's test vectors. The error is one of loading; a vector that does not
// come out as expected is in the results.
func (v *Version) RunVectors(ctx context.Context) ([]VectorResult, error) {
	if v.transform == nil {
		return v.consumerVectors(ctx)
	}
	// Loading must succeed even when there are no vectors.
	if err := v.transform.Warm(ctx); err != nil {
		return nil, err
	}
	var results []VectorResult
	for i := range v.Manifest.Tests {
		t := &v.Manifest.Tests[i]
		r := VectorResult{Name: t.Name}
		got := make([][]outcome, len(t.Records))
		err := v.transform.Process(ctx, vectorBatch(t), func(o *transform.Output) error {
			got[o.Source] = append(got[o.Source], copyOutcome(o))
			return nil
		})
		if err != nil {
			return nil, err
		}
		for k := range t.Expect {
			if p := compareOutcome(&t.Expect[k], t.Records[k].Data, got[k]); p != "" {
				r.Problems = append(r.Problems, fmt.Sprintf("record %d: %s", k, p))
			}
		}
		results = append(results, r)
	}
	return results, nil
}

func vectorBatch(t *manifest.Vector) *guest.Batch {
	b := &guest.Batch{Stream: "test", TimeMS: t.TimeMS, ID: 1}
	for i, r := range t.Records {
		b.Records = append(b.Records, guest.Record{Key: r.Key, Data: r.Data, ArrivalMS: r.TimeMS, Index: uint64(i)})
	}
	return b
}

// outcome is an Output that outlives emit.
type outcome struct {
	status             transform.Status
	data, key, keys    []byte
	stream             int
	code               uint32
	reason             string
	inheritData, noKey bool
}

func copyOutcome(o *transform.Output) outcome {
	return outcome{
		status: o.Status, data: bytes.Clone(o.Data), key: bytes.Clone(o.Key), keys: bytes.Clone(o.PartitionKey),
		stream: o.Out, code: o.Code, reason: o.Reason, inheritData: o.Data == nil, noKey: o.Key == nil,
	}
}

// compareOutcome says how what became of a record differs from what was expected.
func compareOutcome(want *manifest.VectorOutcome, input []byte, got []outcome) string {
	status := transform.OkUnchanged
	for _, g := range got {
		status = max(status, g.status)
	}
	name := status.String()
	// A record routed or keyed anew with its own bytes is replaced to its author.
	if status == transform.OkUnchanged && want.Status == "replaced" && (len(got) > 1 || got[0].stream != 0 || !got[0].noKey || got[0].keys != nil) {
		name = "replaced"
	}
	if name != want.Status {
		return fmt.Sprintf("%s (code %#x %s); expecting %s", name, got[0].code, got[0].reason, want.Status)
	}
	if want.Code != 0 && want.Code != got[0].code {
		return fmt.Sprintf("code %#x; expecting %#x", got[0].code, want.Code)
	}
	if want.Outputs == nil {
		return ""
	}
	if len(got) != len(want.Outputs) {
		return fmt.Sprintf("%d outputs; expecting %d", len(got), len(want.Outputs))
	}
	for i := range got {
		g := got[i]
		if g.inheritData {
			g.data = input
		}
		if p := compareOutput(&want.Outputs[i], g.stream, g.key, g.data, g.keys); p != "" {
			return fmt.Sprintf("output %d: %s", i, p)
		}
	}
	return ""
}

func compareOutput(want *manifest.VectorOutput, stream int, key, data, keys []byte) string {
	switch {
	case stream != want.Stream:
		return fmt.Sprintf("stream %d; expecting %d", stream, want.Stream)
	case want.Data != nil && !bytes.Equal(data, want.Data):
		return fmt.Sprintf("data %.200q; expecting %.200q", data, want.Data)
	case want.Key != nil && !bytes.Equal(key, want.Key):
		return fmt.Sprintf("key %.200q; expecting %.200q", key, want.Key)
	case want.PartitionKey != nil && !bytes.Equal(keys, want.PartitionKey):
		return fmt.Sprintf("partition key %.200q; expecting %.200q", keys, want.PartitionKey)
	}
	return ""
}

// Emitted is an output of a consumer that outlives the call it came from.
type Emitted struct {
	Source    int // number of the record, -1 = none
	Stream    int
	Key, Data []byte
}

// Trial runs a consumer on state that is kept in memory: for trying a module
// out. It is a guest.Emitter and a guest.Outbox.
type Trial struct {
	State    guest.MemoryState
	Emits    []Emitted
	Requests [][]byte
	batch    *guest.Batch
}

// Mark is what a trial has had of effects so far, for Reset.
func (t *Trial) Mark() Trial {
	return Trial{State: t.State.Clone(), Emits: t.Emits, Requests: t.Requests}
}

// Reset undoes what came after mark.
func (t *Trial) Reset(mark Trial) {
	t.State, t.Emits, t.Requests = mark.State, mark.Emits, mark.Requests
}

// EmitChunk implements guest.Emitter.
func (t *Trial) EmitChunk(r *abi.Result) abi.Code {
	for k := range r.Outputs() {
		if err := t.emit(r, k); err != nil {
			return abi.Invalid
		}
	}
	return 0
}

// Enqueue implements guest.Outbox.
func (t *Trial) Enqueue(request []byte) abi.Code {
	t.Requests = append(t.Requests, bytes.Clone(request))
	return 0
}

func (t *Trial) emit(r *abi.Result, k int) error {
	var o abi.Output
	if err := r.Output(k, &o); err != nil {
		return err
	}
	e := Emitted{Source: -1, Stream: int(o.Stream), Key: bytes.Clone(o.Key), Data: bytes.Clone(o.Value)}
	if o.Source != abi.None && t.batch != nil {
		src := &t.batch.Records[o.Source]
		e.Source = int(o.Source)
		if o.InheritKey {
			e.Key = bytes.Clone(src.Key)
		}
		if o.InheritValue {
			e.Data = bytes.Clone(src.Data)
		}
	}
	t.Emits = append(t.Emits, e)
	return nil
}

// Run hands a batch to the guest and returns each record's status and code.
func (t *Trial) Run(ctx context.Context, g *guest.Guest, b *guest.Batch) ([]TrialOutcome, error) {
	t.batch = b
	res, err := g.Process(ctx, b)
	if err != nil {
		return nil, err
	}
	g.Accept()
	out := make([]TrialOutcome, len(b.Records))
	for i := range out {
		e := res.Entry(i)
		out[i] = TrialOutcome{Status: statusName(e.Status)}
		if e.Status == abi.StatusFailed {
			text, code := res.Reason(e)
			out[i].Reason, out[i].Code = string(text), code
		}
	}
	return out, t.collect(&res)
}

// TrialOutcome is what a consumer answered for a record.
type TrialOutcome struct {
	Status, Reason string
	Code           uint32
}

func statusName(s abi.Status) string {
	switch s {
	case abi.StatusUnchanged:
		return "unchanged"
	case abi.StatusReplaced:
		return "replaced"
	case abi.StatusDropped:
		return "dropped"
	case abi.StatusRetry:
		return "retry later"
	}
	return "failed"
}

// Tick calls weir_tick.
func (t *Trial) Tick(ctx context.Context, g *guest.Guest, nowMS int64) error {
	t.batch = nil
	res, err := g.Tick(ctx, nowMS)
	if err != nil {
		return err
	}
	g.Accept()
	return t.collect(&res)
}

// collect keeps the outputs of an answer, leaving out reasons of failures.
func (t *Trial) collect(res *abi.Result) error {
	for k := range res.Outputs() {
		if !res.IsReason(k) {
			if err := t.emit(res, k); err != nil {
				return err
			}
		}
	}
	return nil
}

// consumerVectors runs each vector on a new instance with empty state.
func (v *Version) consumerVectors(ctx context.Context) ([]VectorResult, error) {
	release, err := v.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	var results []VectorResult
	for i := range max(1, len(v.Manifest.Tests)) {
		t := &Trial{}
		g, release, err := v.Instantiate(ctx, guest.Services{State: &t.State, Emit: t, Outbox: t})
		if err != nil {
			return nil, err
		}
		if i < len(v.Manifest.Tests) {
			results = append(results, runConsumerVector(ctx, g, t, &v.Manifest.Tests[i]))
		}
		release()
	}
	return results, nil
}

func runConsumerVector(ctx context.Context, g *guest.Guest, t *Trial, w *manifest.Vector) VectorResult {
	r := VectorResult{Name: w.Name}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	if len(w.Records) > 0 {
		got, err := t.Run(ctx, g, vectorBatch(w))
		if err != nil {
			problem("%v", err)
			return r
		}
		for i, want := range w.Expect {
			if got[i].Status != want.Status || want.Code != 0 && want.Code != got[i].Code {
				problem("record %d: %s (code %#x %s); expecting %s", i, got[i].Status, got[i].Code, got[i].Reason, want.Status)
			}
		}
	}
	if w.TickMS > 0 {
		if err := t.Tick(ctx, g, w.TickMS); err != nil {
			problem("tick: %v", err)
			return r
		}
	}
	if w.Emits != nil {
		if len(t.Emits) != len(w.Emits) {
			problem("%d records emitted; expecting %d", len(t.Emits), len(w.Emits))
		}
		for i := range min(len(t.Emits), len(w.Emits)) {
			e := t.Emits[i]
			if p := compareOutput(&w.Emits[i], e.Stream, e.Key, e.Data, nil); p != "" {
				problem("emit %d: %s", i, p)
			}
		}
	}
	for _, s := range w.State {
		if got, ok, _ := t.State.Get(s.Key); !ok || !bytes.Equal(got, s.Value) {
			problem("state %q is %q; expecting %q", s.Key, got, s.Value)
		}
	}
	return r
}
