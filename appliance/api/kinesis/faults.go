package kinesis

import (
	"context"
	"math/rand/v2"
	"path"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
)

// Faults makes data-plane requests fail on purpose, so that users can see how
// their producers and consumers take it. The zero Faults does nothing.
// Percentages are of requests, 0 to 100, each drawn on its own.
type Faults struct {
	// Streams are patterns of the names of the streams it is about (path.Match);
	// none means all.
	Streams []string
	// ThrottlePercent of requests get ProvisionedThroughputExceededException.
	ThrottlePercent float64
	// FailPercent of requests get InternalFailure.
	FailPercent float64
	// ExpirePercent of GetRecords get ExpiredIteratorException.
	ExpirePercent float64
	// Delay is added to every request, before it is carried out.
	Delay time.Duration
}

func (f *Faults) off() bool {
	return f.ThrottlePercent == 0 && f.FailPercent == 0 && f.ExpirePercent == 0 && f.Delay == 0
}

func (f *Faults) concerns(stream string) bool {
	for _, p := range f.Streams {
		if ok, err := path.Match(p, stream); ok && err == nil {
			return true
		}
	}
	return len(f.Streams) == 0
}

func drawn(percent float64) bool { return percent > 0 && rand.Float64()*100 < percent }

// fault delays or fails a request on a stream as Options.Faults says. Nothing
// has been written or read yet.
func (s *Service) fault(ctx context.Context, stream string) error {
	f := &s.o.Faults
	if f.off() || !f.concerns(stream) {
		return nil
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case drawn(f.ThrottlePercent):
		return aws.ProvisionedThroughputExceeded.New("Rate exceeded for stream %s under account %s: injected fault.", stream, s.o.Account)
	case drawn(f.FailPercent):
		return &aws.Error{Kind: aws.InternalFailure, Message: "Internal Service Failure: injected fault."}
	}
	return nil
}
