package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weirhq/weir/storage/record"
)

// Guarantee is what a sink promises about a batch that is sent twice, which
// happens whenever an answer is lost.
type Guarantee string

// The guarantees, strongest first.
const (
	// ExactlyOnce: the sink refuses to create an object that is there, and
	// says whose it is. A repeat changes nothing.
	ExactlyOnce Guarantee = "exactly-once"
	// ByName: the sink can't refuse, but a repeat has the same name and the
	// same records, so it replaces itself.
	ByName Guarantee = "exactly-once-by-name"
	// AtLeastOnce: a repeat is a second copy, with the same request id.
	AtLeastOnce Guarantee = "at-least-once"
)

// Probed is what a probe found.
type Probed struct {
	Guarantee Guarantee
	// Tried says for people what was tried, and worked: "reached, written and removed".
	Tried string
}

// Sink is where batches go. A sink is safe for concurrent use. Every sink is
// also an ObjectSink or a RecordSink.
type Sink interface {
	// Probe finds out, by doing, whether the sink can be written to and
	// which guarantee it gives. It leaves nothing: what can be removed is
	// written and removed, elsewhere it tries what comes nearest.
	Probe(ctx context.Context) (Probed, error)
	// Metered says whether what is sent goes over the uplink, so that the
	// box's cap applies to it. A delivery stream's own limits always do.
	Metered() bool
	// Close releases connections. Calls in progress fail.
	Close() error
}

// ObjectSink stores whole objects under names.
type ObjectSink interface {
	Sink
	// PutObject stores o, all or nothing, and returns when it is durable in
	// the sink. An object of that name that carries the same recipe in its
	// metadata is success, with Duplicate set. The error is a *SinkError.
	// ErrNoRecords from o.Render is returned as it is, with nothing stored.
	PutObject(ctx context.Context, o *Object) (Stored, error)
}

// RecordSink takes records in requests.
type RecordSink interface {
	Sink
	// Limits are those of one request. Constant.
	Limits() BatchLimits
	// PutRecords sends b and returns when the sink has acknowledged all of
	// it, in order. On an error done tells how many records from the start
	// are known to be acknowledged; the rest is unknown. The error is a
	// *SinkError.
	PutRecords(ctx context.Context, b *Batch) (done int, err error)
}

// BatchLimits bound one request to a RecordSink.
type BatchLimits struct {
	Records   int // most records
	DataBytes int // most bytes of data and partition keys, before any encoding
}

// RecipeKey is the metadata key that carries the identity of an object: which
// delivery stream, which recipe, which part of it. Two objects with the same
// value hold the same records.
const RecipeKey = "weir-recipe"

// RangesKey is the metadata key that lists the index ranges an object was
// made from.
const RangesKey = "weir-ranges"

// Object is an object to store. It and what it points to belong to the
// engine; a sink keeps nothing of it after PutObject.
type Object struct {
	Key         string
	ContentType string
	// Metadata holds RecipeKey and RangesKey.
	Metadata map[string]string
	// Render writes the object's bytes from the start. It may be called any
	// number of times, one at a time, and writes the same each time. It
	// returns ErrNoRecords when the object would hold nothing.
	Render func(w io.Writer) error
	// Cheap means that Render costs little more than reading, so that
	// rendering once to learn the size is better than buffering.
	Cheap bool
	// Buffer is memory lent to the sink until PutObject returns. Its
	// capacity is the part size of uploads in parts.
	Buffer []byte
	// MayExist means that an earlier attempt may have stored the object, so
	// that asking first is cheaper than sending again.
	MayExist bool
	// Replace means that attempt after attempt ended with a torn SinkError, so
	// that the object is to be stored over whatever has its name.
	Replace bool
	// Throttle wraps what is sent over the uplink. Never nil.
	Throttle func(io.Reader) io.Reader
}

// Stored tells what became of an object.
type Stored struct {
	Bytes     int64 // size as stored
	Duplicate bool  // it was there already, by an earlier attempt
}

// Batch is one request to a RecordSink. It belongs to the engine.
type Batch struct {
	// RequestID is the same whenever the same records are sent again.
	RequestID string
	Delivery  string // name of the delivery stream
	Time      time.Time
	Records   []OutRecord
	Throttle  func(io.Reader) io.Reader
}

// OutRecord is a record on its way to a RecordSink.
type OutRecord struct {
	Shard           record.ShardNumber
	Index           uint64
	Arrival         time.Time
	PartitionKey    []byte
	ExplicitHashKey record.HashKey
	HasExplicitHash bool
	Data            []byte
}

// ErrNoRecords is what rendering an object without records returns.
var ErrNoRecords = errors.New("object has no records")

// SinkError is a failed attempt. Its message is what an operator reads.
type SinkError struct {
	// Code is stable, in the manner of Firehose's delivery errors:
	// S3.AccessDenied, HttpEndpoint.ConnectionReset and the like.
	Code string
	// Refused means that the sink certainly stored nothing.
	Refused bool
	// Permanent means that the same records will never be taken (HTTP 413).
	// They go to the failure target when there is one.
	Permanent bool
	// Torn means that the sink refuses the name as taken and, asked for what
	// has it, says that nothing has. After TornAfter such answers in a row
	// the object is stored over it.
	Torn bool
	// BadName means that the sink will never have an object of that name. When the
	// name is made of partition keys, the records that have them fail.
	BadName bool
	// RetryAfter is how long the sink asked to be left alone, or 0.
	RetryAfter time.Duration
	Err        error
}

// TornAfter is how many torn answers in a row it takes to store an object over
// what has its name. Once can be a race in the sink.
const TornAfter = 6

// Error has the code before the cause.
func (e *SinkError) Error() string { return fmt.Sprintf("%s: %v", e.Code, e.Err) }

// Unwrap returns the cause.
func (e *SinkError) Unwrap() error { return e.Err }

// sinkError makes any error one that attempts understand.
func sinkError(err error) *SinkError {
	var s *SinkError
	if errors.As(err, &s) {
		return s
	}
	return &SinkError{Code: "Delivery.Failed", Err: err}
}
