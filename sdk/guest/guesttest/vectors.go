package guesttest

import (
	"bytes"
	"context"
	"fmt"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/manifest"
)

// RunVector runs one test vector of m on a fresh instance of wasm and returns
// what differs from it, nil when nothing does.
func (h *Host) RunVector(ctx context.Context, m *manifest.Manifest, wasm []byte, v *manifest.Vector) error {
	h.Reset()
	g, err := h.Instantiate(ctx, wasm, string(m.Config))
	if err != nil {
		return err
	}
	defer g.Close(ctx)
	records := make([]Record, len(v.Records))
	for i, r := range v.Records {
		records[i] = Record{Key: string(r.Key), Data: string(r.Data), TimestampMS: r.TimeMS}
	}
	got, err := g.Process(ctx, v.TimeMS, records, m.Streams())
	if err != nil {
		return err
	}
	var emitted []Output
	for i := range got {
		if err := compareOutcome(&v.Expect[i], &got[i]); err != nil {
			return fmt.Errorf("record %d %s: %w", i, v.Records[i].Data, err)
		}
		emitted = append(emitted, got[i].Outputs...)
	}
	if v.TickMS > 0 {
		ticked, err := g.Tick(ctx, v.TickMS, m.Streams())
		if err != nil {
			return err
		}
		emitted = append(emitted, ticked...)
	}
	if v.Emits != nil {
		if err := compareOutputs(v.Emits, emitted); err != nil {
			return fmt.Errorf("emitted: %w", err)
		}
	}
	for _, s := range v.State {
		if got := h.State[string(s.Key)]; got != string(s.Value) {
			return fmt.Errorf("state %s: %x, expecting %x", s.Key, got, s.Value)
		}
	}
	return nil
}

var statusNames = map[abi.Status]string{
	abi.StatusUnchanged: "unchanged", abi.StatusReplaced: "replaced", abi.StatusDropped: "dropped",
	abi.StatusFailed: "failed", abi.StatusRetry: "retry",
}

func compareOutcome(want *manifest.VectorOutcome, got *Outcome) error {
	if name := statusNames[got.Status]; name != want.Status {
		return fmt.Errorf("%s %q, expecting %s", name, got.Reason, want.Status)
	}
	if want.Code != 0 && got.Code != want.Code {
		return fmt.Errorf("code %d %q, expecting %d", got.Code, got.Reason, want.Code)
	}
	if got.Status == abi.StatusFailed && got.Reason == "" {
		return fmt.Errorf("failed with code %d and no reason", got.Code)
	}
	return compareOutputs(want.Outputs, got.Outputs)
}

func compareOutputs(want []manifest.VectorOutput, got []Output) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d outputs, expecting %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		g := got[i]
		if g.Output != w.Stream || !bytes.Equal([]byte(g.Data), w.Data) || w.Key != nil && g.Key != string(w.Key) ||
			w.PartitionKey != nil && g.Parts != string(w.PartitionKey) {
			return fmt.Errorf("output %d: %+v, expecting stream %d key %q parts %q data %s", i, g, w.Stream, w.Key, w.PartitionKey, w.Data)
		}
	}
	return nil
}
