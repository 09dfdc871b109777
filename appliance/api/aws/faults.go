package aws

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api"
)

// Faults are failures put on purpose between a client and a service, so that
// users can test how their programs take them. The zero value has none. Shares
// are percentages of the calls they are for, drawn independently.
type Faults struct {
	// Throttle is answered with the service's own throttling error, nothing done.
	Throttle float64
	// Fail is answered with InternalFailure (500), nothing done.
	Fail float64
	// ExpireIterators of GetRecords calls are answered with ExpiredIteratorException.
	ExpireIterators float64
	// Delay of calls are held back by up to DelayBy, then served.
	Delay   float64
	DelayBy time.Duration
	// Operations limits the faults to these operations; all if empty.
	Operations []string
	// Random draws numbers in [0, 1); math/rand/v2's Float64 if nil.
	Random func() float64
}

// Any tells whether there is any fault to inject.
func (f *Faults) Any() bool {
	return f.Throttle > 0 || f.Fail > 0 || f.ExpireIterators > 0 || f.Delay > 0 && f.DelayBy > 0
}

// Validate returns what is wrong with the settings, nil if nothing is.
func (f *Faults) Validate() error {
	for _, p := range [...]struct {
		name  string
		value float64
	}{{"throttle", f.Throttle}, {"fail", f.Fail}, {"expire_iterators", f.ExpireIterators}, {"delay", f.Delay}} {
		if !(p.value >= 0 && p.value <= 100) {
			return fmt.Errorf("faults.%s: %v is no percentage: expecting 0 to 100", p.name, p.value)
		}
	}
	if f.DelayBy < 0 || f.DelayBy > time.Minute {
		return fmt.Errorf("faults.delay_by: %v: expecting 0 to 1m", f.DelayBy)
	}
	return nil
}

// InjectFaults returns next with faults before it, or next itself when there are none.
func InjectFaults(f Faults, next api.Handler) api.Handler {
	if !f.Any() {
		return next
	}
	if f.Random == nil {
		f.Random = rand.Float64
	}
	return &faulty{f, next}
}

type faulty struct {
	Faults
	next api.Handler
}

var _ api.Refuser = (*faulty)(nil)

// Refuse passes refusals on: they are no matter of faults.
func (f *faulty) Refuse(ctx context.Context, req api.Request, res api.Response, why *api.Refusal) {
	if r, ok := f.next.(api.Refuser); ok {
		r.Refuse(ctx, req, res, why)
		return
	}
	api.WriteError(res, why)
}

// Serve fails or delays the call, or just passes it on.
func (f *faulty) Serve(ctx context.Context, req api.Request, res api.Response) {
	service, operation, _ := strings.Cut(string(req.Header("X-Amz-Target")), ".")
	if operation == "" || len(f.Operations) > 0 && !slices.Contains(f.Operations, operation) {
		f.next.Serve(ctx, req, res)
		return
	}
	if f.hits(f.Delay) {
		t := time.NewTimer(time.Duration(f.Random() * float64(f.DelayBy)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	switch {
	case f.hits(f.Throttle):
		f.fail(req, res, throttlingOf(service, operation).New("Rate exceeded (fault injected by configuration)"))
	case f.hits(f.Fail):
		f.fail(req, res, InternalFailure.New("Internal Service Failure (fault injected by configuration)"))
	case operation == "GetRecords" && f.hits(f.ExpireIterators):
		f.fail(req, res, ExpiredIterator.New("Iterator expired. (fault injected by configuration)"))
	default:
		f.next.Serve(ctx, req, res)
	}
}

func (f *faulty) hits(percent float64) bool { return percent > 0 && f.Random()*100 < percent }

// throttlingOf is the error that the service's clients take for "slow down".
func throttlingOf(service, operation string) *ErrorKind {
	switch {
	case strings.HasPrefix(service, "Firehose"):
		return ServiceUnavailableException
	case strings.HasPrefix(service, "DynamoDB"):
		return ProvisionedThroughputExceeded
	case slices.Contains([]string{"PutRecord", "PutRecords", "GetRecords", "GetShardIterator"}, operation):
		return ProvisionedThroughputExceeded
	}
	return LimitExceeded
}

func (f *faulty) fail(req api.Request, res api.Response, e *Error) {
	SetRequestIDs(res)
	media := mediaType(req.Header("Content-Type"))
	enc := JSON
	if bytes.Contains(bytes.ToLower(media), []byte("cbor")) {
		enc = CBOR
	}
	WriteError(res, string(media), enc, "", e)
}
