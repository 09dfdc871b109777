package transform

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/weirhq/weir/wasm/abi"
)

// Limits of what a shadow looks at and keeps.
const (
	shadowRecords = 1000 // of one batch
	shadowBytes   = 1 << 20
	exampleBytes  = 512
	// ShadowExamples is how many differences a report shows.
	ShadowExamples = 10
)

// Difference is a record on which two versions disagree, or one thing that only
// one of two versions of a consumer did.
type Difference struct {
	// What is empty for transforms. For consumers it is "emitted", "request",
	// "record" (that failed) or a key of the state; Index is then the batch's first
	// record's, but for "record".
	What   string `json:"what,omitempty"`
	Stream string `json:"stream"`
	Shard  uint32 `json:"shard"`
	Index  uint64 `json:"index"`
	Active string `json:"active"` // what became of it, cut to 512 bytes
	Shadow string `json:"shadow"`
}

// ShadowReport is what a shadow run has found so far.
type ShadowReport struct {
	Version  string       `json:"version"`
	Records  uint64       `json:"records"` // compared
	Differ   uint64       `json:"differ"`  // records, or for consumers differences
	Skipped  uint64       `json:"skipped"` // not looked at: the shadow was busy, or the batch was large
	Errors   uint64       `json:"errors"`  // batches the shadow could not run
	Error    string       `json:"error,omitempty"`
	Examples []Difference `json:"examples,omitempty"` // the first ten
}

// Add adds what another batch showed, and keeps the first examples.
func (r *ShadowReport) Add(o ShadowReport) {
	r.Records += o.Records
	r.Differ += o.Differ
	r.Skipped += o.Skipped
	r.Errors += o.Errors
	if o.Error != "" {
		r.Error = o.Error
	}
	r.Examples = append(r.Examples, o.Examples[:min(len(o.Examples), ShadowExamples-len(r.Examples))]...)
}

// Shadow runs a second version on what a transform has processed, in the
// background, one batch at a time, and compares. It never delays the active
// version: while it is busy, batches pass it by.
type Shadow struct {
	with *Transform
	busy atomic.Bool
	jobs chan *shadowJob
	stop context.CancelFunc
	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		report ShadowReport
	}
}

// shadowJob is a copy of a batch with what the active version made of it.
type shadowJob struct {
	batch    Batch
	outcomes []string
	skipped  int
}

// NewShadow returns a running shadow; Close ends it. The transform must run
// with abi.FlagShadow. The report goes on from found when that is of the same version.
func NewShadow(with *Transform, found ShadowReport) *Shadow {
	ctx, stop := context.WithCancel(context.Background())
	s := &Shadow{with: with, jobs: make(chan *shadowJob, 1), stop: stop}
	s.mu.report.Version = with.Version()
	if found.Version == with.Version() {
		s.mu.report = found
	}
	s.done.Go(func() { s.loop(ctx) })
	return s
}

// Close ends the shadow and waits for it.
func (s *Shadow) Close() {
	s.stop()
	s.done.Wait()
}

// Report returns what was found so far.
func (s *Shadow) Report() ShadowReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.mu.report
	r.Examples = append([]Difference(nil), r.Examples...)
	return r
}

// SetShadow makes s see what t processes from now on; nil ends that.
func (t *Transform) SetShadow(s *Shadow) { t.shadow.Store(s) }

// TakeShadow ends t's shadow run and returns the shadow, to be closed; nil when
// there is none.
func (t *Transform) TakeShadow() *Shadow { return t.shadow.Swap(nil) }

// ShadowReport returns what t's shadow has found; false when there is none.
func (t *Transform) ShadowReport() (ShadowReport, bool) {
	s := t.shadow.Load()
	if s == nil {
		return ShadowReport{}, false
	}
	return s.Report(), true
}

// begin returns a job for a copy of b, or nil when the shadow is busy.
func (s *Shadow) begin(b *Batch) *shadowJob {
	if !s.busy.CompareAndSwap(false, true) {
		s.mu.Lock()
		s.mu.report.Skipped += uint64(len(b.Records))
		s.mu.Unlock()
		return nil
	}
	job := &shadowJob{batch: *b}
	size := 0
	for i := range b.Records {
		r := &b.Records[i]
		if size += len(r.Key) + len(r.Data); i == shadowRecords || size > shadowBytes {
			job.skipped = len(b.Records) - i
			break
		}
	}
	n := len(b.Records) - job.skipped
	job.batch.Records = make([]Record, n)
	for i := range n {
		r := b.Records[i]
		r.Key, r.Data = bytes.Clone(r.Key), bytes.Clone(r.Data)
		job.batch.Records[i] = r
	}
	job.outcomes = make([]string, n)
	job.batch.Flags |= abi.FlagShadow
	return job
}

// saw notes one output of the active version.
func (j *shadowJob) saw(o *Output) {
	if o.Source < len(j.outcomes) {
		j.outcomes[o.Source] += outcome(o)
	}
}

// end hands the job to the shadow, or drops it when the batch failed.
func (s *Shadow) end(j *shadowJob, err error) {
	if err != nil {
		s.busy.Store(false)
		return
	}
	s.jobs <- j // there is room: only the one who set busy sends
}

// outcome prints an output for comparison; failures are the same whatever
// their reason.
func outcome(o *Output) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", o.Status)
	if o.Data != nil {
		fmt.Fprintf(&b, " data=%q", o.Data)
	}
	if o.Key != nil {
		fmt.Fprintf(&b, " key=%q", o.Key)
	}
	if o.PartitionKey != nil {
		fmt.Fprintf(&b, " partition=%q", o.PartitionKey)
	}
	if o.Out != 0 {
		fmt.Fprintf(&b, " out=%d", o.Out)
	}
	b.WriteByte('\n')
	return b.String()
}

func (s *Shadow) loop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-s.jobs:
			s.compare(ctx, j)
			s.busy.Store(false)
		}
	}
}

func (s *Shadow) compare(ctx context.Context, j *shadowJob) {
	got := make([]string, len(j.outcomes))
	err := s.with.Process(ctx, &j.batch, func(o *Output) error {
		got[o.Source] += outcome(o)
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.report
	r.Skipped += uint64(j.skipped)
	if err != nil {
		r.Errors++
		r.Error = err.Error()
		return
	}
	for i, want := range j.outcomes {
		r.Records++
		if got[i] == want {
			continue
		}
		r.Differ++
		if len(r.Examples) < ShadowExamples {
			r.Examples = append(r.Examples, Difference{
				Stream: j.batch.Stream, Shard: j.batch.Shard, Index: j.batch.Records[i].Index, Active: cut(want), Shadow: cut(got[i]),
			})
		}
	}
}

func cut(s string) string {
	s = strings.TrimSuffix(s, "\n")
	if len(s) > exampleBytes {
		return strings.ToValidUTF8(s[:exampleBytes], "") + "…"
	}
	return s
}
