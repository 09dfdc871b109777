package delivery

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// item is a record on its way through the stages of one recipe. What it
// points to is valid until the push that carries it returns.
type item struct {
	shard   record.ShardNumber
	index   uint64
	sub     int // number within the source record, after splitting
	arrival time.Time
	key     []byte // partition key of the source record
	hash    record.HashKey
	hasHash bool
	data    []byte
	raw     []byte   // the source record, for the failure row and the backup
	values  []string // of the partition keys, in the order of the names
	fail    *failure // set: this record failed, the stages after pass it on
}

// stage takes the records of a recipe in order. flush ends the recipe.
type stage interface {
	push(it *item) error
	flush() error
}

// stageFunc is a last stage that needs no flush.
type stageFunc func(it *item) error

func (f stageFunc) push(it *item) error { return f(it) }
func (f stageFunc) flush() error        { return nil }

// pipeline is the chain of stages of one configuration.
type pipeline struct {
	config    *Config
	transform Transformer // nil without one
	query     *query      // nil without one
	modKeys   []string    // names of the keys that come from the module
	known     int         // items at the start whose keys are not asked for
	stream    *storage.Stream
	read      *atomic.Int64 // bytes of data read from the log
}

// run reads the recipe's ranges in order and pushes what the stages make of
// them to last. The same recipe gives the same items in the same order each
// time, as long as the log still has the ranges and the module has no source
// of its own (a clock, state). It returns how many source records were read.
func (p *pipeline) run(ctx context.Context, r *Recipe, last stage) (read uint64, err error) {
	chain, done := p.chain(ctx, r, last)
	defer done()
	for _, g := range r.Ranges {
		n, err := p.readRange(ctx, g, chain)
		read += n
		if err != nil {
			return read, err
		}
		// A batch of a transform never spans shards.
		if err := chain.flush(); err != nil {
			return read, err
		}
	}
	return read, nil
}

// chain builds the stages, last first. done frees what they hold.
func (p *pipeline) chain(ctx context.Context, r *Recipe, last stage) (first stage, done func()) {
	done = func() {}
	if p.query != nil {
		last = &queryStage{query: p.query, next: last, skip: p.known}
	}
	if p.transform != nil {
		t := newTransformStage(ctx, p, r, last)
		last, done = t, t.release
	}
	if c := p.config.Check; c != "" {
		last = &checkStage{check: c, next: last}
	}
	if s := p.config.SubRecords; s != nil {
		last = &splitStage{settings: s, next: last}
	}
	if d := p.config.Decompress; d != nil {
		last = &gunzipStage{settings: d, next: last}
	}
	if p.config.Deaggregate {
		last = &aggregateStage{next: last}
	}
	return last, done
}

// readStep is how much is read at a time; the log is held open meanwhile.
const readStep = 256 << 10

// readRange pushes the records of one range.
func (p *pipeline) readRange(ctx context.Context, g Range, first stage) (read uint64, err error) {
	reader, err := p.stream.NewReader(g.Shard, storage.Position{Kind: storage.AtIndex, Index: g.First})
	if err != nil {
		return 0, readError(g.Shard, p.stream, err)
	}
	defer reader.Close()
	var it item
	for {
		if err := ctx.Err(); err != nil {
			return read, err
		}
		var pushErr error
		end, size := false, int64(0)
		n, err := reader.Read(1<<20, readStep, func(rec *record.Record) bool {
			if rec.Index > g.Last {
				end = true
				return false
			}
			read++
			size += int64(len(rec.Data))
			it = item{
				shard: g.Shard, index: rec.Index, arrival: rec.Arrival, key: rec.PartitionKey,
				hash: rec.ExplicitHashKey, hasHash: rec.HasExplicitHashKey, data: rec.Data, raw: rec.Data,
			}
			pushErr = first.push(&it)
			return pushErr == nil
		})
		p.read.Add(size)
		switch {
		case pushErr != nil:
			return read, pushErr
		case err != nil && !errors.Is(err, io.EOF):
			return read, readError(g.Shard, p.stream, err)
		case end || n == 0 || err != nil || reader.Position() > g.Last:
			return read, nil
		}
	}
}

// readError says that the log, and no sink, made an attempt fail.
func readError(shard record.ShardNumber, stream *storage.Stream, err error) error {
	return &SinkError{Code: "Log.ReadFailed", Refused: true, Err: fmt.Errorf("read %s of %s: %w", shard, stream.Name(), err)}
}

// aggregateStage takes KPL aggregates apart.
type aggregateStage struct{ next stage }

func (s *aggregateStage) flush() error { return s.next.flush() }

func (s *aggregateStage) push(it *item) error {
	if it.fail != nil || !isAggregate(it.data) {
		return s.next.push(it)
	}
	whole := *it
	n := 0
	err := walkAggregate(whole.data, func(key []byte, hash record.HashKey, hasHash bool, data []byte) error {
		sub := whole
		sub.sub, sub.key, sub.hash, sub.hasHash, sub.data = n, key, hash, hasHash, data
		n++
		return s.next.push(&sub)
	})
	if errors.Is(err, errNotAggregate) {
		return s.next.push(&whole) // the magic was chance: an ordinary record
	}
	return err
}

// maxUnpacked bounds what one record may grow to when it is decompressed.
const maxUnpacked = 64 << 20

// gunzipStage takes gzip off records. A record that isn't gzip fails as it is.
type gunzipStage struct {
	settings *Decompress
	next     stage
	reader   gzip.Reader
	out      bytes.Buffer
}

func (s *gunzipStage) flush() error { return s.next.flush() }

func (s *gunzipStage) push(it *item) error {
	if it.fail != nil {
		return s.next.push(it)
	}
	s.out.Reset()
	err := s.reader.Reset(bytes.NewReader(it.data))
	if err == nil {
		_, err = io.Copy(&s.out, io.LimitReader(&s.reader, maxUnpacked+1))
	}
	if err == nil && s.out.Len() > maxUnpacked {
		err = fmt.Errorf("record unpacks to more than %d bytes", maxUnpacked)
	}
	if err != nil {
		it.fail = &failure{kind: "decompression-failed", code: "Decompression.Failed", message: err.Error(), attempts: 1}
		return s.next.push(it)
	}
	it.data = s.out.Bytes()
	if !s.settings.Extract {
		return s.next.push(it)
	}
	return s.extract(it)
}

// extract replaces a CloudWatch Logs document by its messages.
func (s *gunzipStage) extract(it *item) error {
	var doc struct {
		MessageType string `json:"messageType"`
		LogEvents   []struct {
			Message string `json:"message"`
		} `json:"logEvents"`
	}
	if err := json.Unmarshal(it.data, &doc); err != nil {
		it.fail = &failure{kind: "processing-failed", code: "CloudWatchLogProcessing.InvalidDocument", message: err.Error(), attempts: 1}
		return s.next.push(it)
	}
	if doc.MessageType == "CONTROL_MESSAGE" {
		return nil
	}
	for i, e := range doc.LogEvents {
		sub := *it
		sub.sub, sub.data = i, []byte(e.Message)
		if err := s.next.push(&sub); err != nil {
			return err
		}
	}
	return nil
}

// maxSubRecords is Firehose's limit: a record that holds more is passed whole.
const maxSubRecords = 500

// splitStage takes JSON documents or delimited text apart.
type splitStage struct {
	settings *SubRecords
	next     stage
	parts    [][]byte
}

func (s *splitStage) flush() error { return s.next.flush() }

func (s *splitStage) push(it *item) error {
	if it.fail != nil {
		return s.next.push(it)
	}
	s.parts = s.parts[:0]
	var ok bool
	if s.settings.Type == "JSON" {
		s.parts, ok = splitJSON(s.parts, it.data)
	} else {
		s.parts, ok = splitDelimited(s.parts, it.data, s.settings.Delimiter)
	}
	if !ok {
		it.fail = &failure{kind: "processing-failed", code: "RecordDeAggregation.InvalidJSON", message: "the record is not a sequence of JSON objects", attempts: 1}
		return s.next.push(it)
	}
	if len(s.parts) > maxSubRecords {
		return s.next.push(it)
	}
	whole := *it
	for i, part := range s.parts {
		sub := whole
		sub.sub, sub.data = i, part
		if err := s.next.push(&sub); err != nil {
			return err
		}
	}
	return nil
}

// splitJSON appends each of the consecutive JSON documents in data.
func splitJSON(parts [][]byte, data []byte) ([][]byte, bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var doc json.RawMessage
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return parts, true
		}
		if err != nil || len(doc) == 0 || doc[0] != '{' {
			return parts, false
		}
		parts = append(parts, doc)
	}
}

func splitDelimited(parts [][]byte, data, delimiter []byte) ([][]byte, bool) {
	for len(data) > 0 {
		part, rest, found := bytes.Cut(data, delimiter)
		if len(part) > 0 {
			parts = append(parts, part)
		}
		if !found {
			break
		}
		data = rest
	}
	return parts, true
}

// checkStage fails the records that are not what they are to be.
type checkStage struct {
	check Check
	next  stage
}

func (s *checkStage) flush() error { return s.next.flush() }

func (s *checkStage) push(it *item) error {
	switch {
	case it.fail != nil:
	case s.check == CheckJSON && !json.Valid(it.data):
		it.fail = &failure{kind: processingFailed, code: "DataFormat.InvalidJSON", message: "the record is not one JSON value", attempts: 1}
	case s.check == CheckUTF8 && !utf8.Valid(it.data):
		it.fail = &failure{kind: processingFailed, code: "DataFormat.InvalidUTF8", message: "the record is not UTF-8 text", attempts: 1}
	}
	return s.next.push(it)
}

// failure says why a record did not come through.
type failure struct {
	kind     string // value of error-output-type
	code     string
	message  string
	attempts int
	module   string // digest, for a transform
}

// write appends the failed record as Firehose's error objects have it: one
// JSON object per line, the shape depending on the kind.
func (f *failure) write(w *bufio.Writer, it *item, seq string, at time.Time) error {
	type lambda struct {
		AttemptsMade           int    `json:"attemptsMade"`
		ArrivalTimestamp       int64  `json:"arrivalTimestamp"`
		ErrorCode              string `json:"errorCode"`
		ErrorMessage           string `json:"errorMessage"`
		AttemptEndingTimestamp int64  `json:"attemptEndingTimestamp"`
		RawData                []byte `json:"rawData"`
		LambdaArn              string `json:"lambdaArn,omitempty"`
		SequenceNumber         string `json:"sequenceNumber"`
		SubsequenceNumber      int    `json:"subsequenceNumber"`
		PartitionKey           string `json:"partitionKey,omitempty"`
	}
	type conversion struct {
		AttemptsMade           int    `json:"attemptsMade"`
		ArrivalTimestamp       int64  `json:"arrivalTimestamp"`
		LastErrorCode          string `json:"lastErrorCode"`
		LastErrorMessage       string `json:"lastErrorMessage"`
		AttemptEndingTimestamp int64  `json:"attemptEndingTimestamp"`
		RawData                []byte `json:"rawData"`
		SequenceNumber         string `json:"sequenceNumber"`
		SubSequenceNumber      int    `json:"subSequenceNumber"`
	}
	var row any
	if f.kind == conversionFailed {
		row = conversion{f.attempts, it.arrival.UnixMilli(), f.code, f.message, at.UnixMilli(), it.raw, seq, it.sub}
	} else {
		arn := ""
		if f.module != "" {
			arn = "weir:module:" + f.module
		}
		row = lambda{f.attempts, it.arrival.UnixMilli(), f.code, f.message, at.UnixMilli(), it.raw, arn, seq, it.sub, string(it.key)}
	}
	line, err := json.Marshal(row)
	if err != nil {
		return err
	}
	if _, err := w.Write(line); err != nil {
		return err
	}
	return w.WriteByte('\n')
}

// The kinds of failure: the values of error-output-type.
const (
	processingFailed = "processing-failed"
	conversionFailed = "format-conversion-failed"
)
