package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weirhq/weir/storage/record"
)

// Transformer runs one version of a module over batches. The same batch gives
// the same outputs, unless the module has a clock or state of its own.
type Transformer interface {
	// Process calls emit with the outputs in the order of their sources.
	// What an output points to is valid until emit returns.
	Process(ctx context.Context, b *TransformBatch, emit func(*TransformOutput) error) error
	// Digest is the SHA-256 of the module, in hex.
	Digest() string
}

// TransformBatch is what a module is given at a time: records of one shard.
type TransformBatch struct {
	Stream  string
	Shard   uint32
	TimeMS  int64 // the recipe's instant, so that a repeat sees the same
	ID      uint64
	Attempt int
	Records []TransformRecord
}

// TransformRecord is a record of a TransformBatch.
type TransformRecord struct {
	Key, Data []byte
	ArrivalMS int64
	Index     uint64
}

// TransformStatus is what a module says about a record: Firehose's results.
type TransformStatus uint8

// The statuses.
const (
	TransformOk      TransformStatus = iota // Data replaces the record's; nil keeps it
	TransformDropped                        // left out, successfully
	TransformFailed                         // to the error output
)

// TransformOutput is one record that came out. A source may have several.
type TransformOutput struct {
	Source       int // index into the batch
	Status       TransformStatus
	Data         []byte
	PartitionKey []byte
	Reason       string // of TransformFailed
}

const (
	batchRecords = 500     // records a module is given at a time
	batchBytes   = 1 << 20 // and bytes of them
)

// transformStage gathers batches and passes on what the module makes of them.
// Batches are cut by count and size from the start of a range, so they are the
// same in each run of a recipe.
type transformStage struct {
	ctx     context.Context
	p       *pipeline
	recipe  *Recipe
	next    stage
	batch   TransformBatch
	items   []item
	arena   []byte // keys and data of the batch
	values  []string
	batches uint64
}

func newTransformStage(ctx context.Context, p *pipeline, r *Recipe, next stage) *transformStage {
	return &transformStage{ctx: ctx, p: p, recipe: r, next: next, arena: make([]byte, 0, batchBytes+64<<10)}
}

func (t *transformStage) release() { t.arena, t.items = nil, nil }

func (t *transformStage) push(it *item) error {
	if it.fail != nil {
		// Keep the order: what came before goes first.
		if err := t.process(); err != nil {
			return err
		}
		return t.next.push(it)
	}
	if len(t.items) == batchRecords || len(t.items) > 0 && len(t.arena)+len(it.key)+len(it.data) > batchBytes {
		if err := t.process(); err != nil {
			return err
		}
	}
	kept := *it
	kept.key = t.keep(it.key)
	kept.data = t.keep(it.data)
	kept.raw = kept.data
	if !sameBytes(it.raw, it.data) {
		kept.raw = t.keep(it.raw)
	}
	t.items = append(t.items, kept)
	return nil
}

// sameBytes says whether a and b are the very same memory.
func sameBytes(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// keep copies b to the arena. When the arena grows, earlier slices keep
// pointing into the old one, which is what they were copied to.
func (t *transformStage) keep(b []byte) []byte {
	n := len(t.arena)
	t.arena = append(t.arena, b...)
	return t.arena[n:len(t.arena):len(t.arena)]
}

func (t *transformStage) flush() error {
	if err := t.process(); err != nil {
		return err
	}
	return t.next.flush()
}

// errEmit carries an error of the stages after through a Transformer.
type errEmit struct{ error }

func (e errEmit) Unwrap() error { return e.error }

func (t *transformStage) process() error {
	if len(t.items) == 0 {
		return nil
	}
	defer func() { t.items, t.arena = t.items[:0], t.arena[:0] }()
	t.batch = TransformBatch{
		Stream: t.p.stream.Name(), Shard: uint32(t.items[0].shard), TimeMS: t.recipe.Oldest.UnixMilli(),
		ID: t.batchID(), Records: t.batch.Records[:0],
	}
	for i := range t.items {
		it := &t.items[i]
		t.batch.Records = append(t.batch.Records, TransformRecord{Key: it.key, Data: it.data, ArrivalMS: it.arrival.UnixMilli(), Index: it.index})
	}
	t.batches++
	var err error
	for attempt := range *t.p.config.Transform.Retries + 1 {
		t.batch.Attempt = attempt
		emitted := false
		err = t.p.transform.Process(t.ctx, &t.batch, func(o *TransformOutput) error {
			emitted = true
			if e := t.output(o); e != nil {
				return errEmit{e}
			}
			return nil
		})
		var later errEmit
		switch {
		case err == nil:
			return nil
		case errors.As(err, &later):
			return later.error
		case t.ctx.Err() != nil:
			return t.ctx.Err()
		case emitted:
			return &SinkError{Code: "Transform.Failed", Refused: true, Err: fmt.Errorf("module %s: batch %d failed after it had given results: %w", t.p.config.Transform.Module, t.batch.ID, err)}
		}
	}
	return t.failAll(err)
}

// batchID is made of the recipe and the batch's place in it.
func (t *transformStage) batchID() uint64 { return t.recipe.Number<<20 | t.batches&(1<<20-1) }

// failAll sends a batch that the module could not process to the error output.
func (t *transformStage) failAll(cause error) error {
	for i := range t.items {
		it := t.items[i]
		it.fail = &failure{
			kind: processingFailed, code: "Transform.InvocationFailed", message: cause.Error(),
			attempts: *t.p.config.Transform.Retries + 1, module: t.p.transform.Digest(),
		}
		if err := t.next.push(&it); err != nil {
			return err
		}
	}
	return nil
}

func (t *transformStage) output(o *TransformOutput) error {
	if o.Source < 0 || o.Source >= len(t.items) {
		return &SinkError{Code: "Transform.Failed", Refused: true, Err: fmt.Errorf("BUG: module %s gave a result for record %d of %d", t.p.config.Transform.Module, o.Source, len(t.items))}
	}
	it := t.items[o.Source]
	switch o.Status {
	case TransformDropped:
		return nil
	case TransformFailed:
		reason := o.Reason
		if reason == "" {
			reason = "The module returned ProcessingFailed for this record"
		}
		it.fail = &failure{kind: processingFailed, code: "Transform.ProcessingFailedStatus", message: reason, attempts: 1, module: t.p.transform.Digest()}
		return t.next.push(&it)
	}
	if o.Data != nil {
		it.data = o.Data
	}
	if len(t.p.modKeys) > 0 {
		values, err := moduleValues(t.values[:0], t.p.modKeys, o.PartitionKey)
		if err != nil {
			it.fail = &failure{kind: processingFailed, code: "DynamicPartitioning.MetadataExtractionFailed", message: err.Error(), attempts: 1, module: t.p.transform.Digest()}
			return t.next.push(&it)
		}
		t.values, it.values = values, values
	} else if t.p.config.Partition == nil && len(o.PartitionKey) > 0 {
		it.key, it.hasHash, it.hash = o.PartitionKey, false, record.HashKey{}
	}
	return t.next.push(&it)
}

// partitionID identifies the partition of an item: its values, each with its
// length before it, so that no two lists are alike.
func partitionID(dst []byte, values []string) []byte {
	for _, v := range values {
		dst = binary.AppendUvarint(dst, uint64(len(v)))
		dst = append(dst, v...)
	}
	return dst
}
