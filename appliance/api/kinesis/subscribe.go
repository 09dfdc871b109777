package kinesis

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

const (
	// subscribeAgainAfter is how long a subscription is safe from being taken over
	// (API reference, SubscribeToShard).
	subscribeAgainAfter = 5 * time.Second
	// subscribeEventBytes bounds the data of one event; a larger record goes alone.
	subscribeEventBytes = 512 << 10
	// subscribeEventRecords bounds the records of one event.
	subscribeEventRecords = 10000
	// subscribePause is waited before an answer over HTTP/1.1. The AWS SDK for Go
	// closes a request's body as soon as it has the answer's header, and its
	// transport, if it is not quite done with that body, then takes the connection
	// down, and with it the events. The real service is never that fast.
	subscribePause   = 25 * time.Millisecond
	eventContentType = "application/x-amz-json-1.1"
)

// subscriptions are those that are open, at most Options.SubscriptionLimit.
type subscriptions struct {
	mu     sync.Mutex
	active map[subscriptionKey]*subscription
}

type subscriptionKey struct {
	stream   uint32
	consumer string
	shard    record.ShardNumber
}

// subscription is one SubscribeToShard from its answer's first event to its last.
type subscription struct {
	key   subscriptionKey
	since time.Time
	end   chan *aws.Error // holds at most the one reason to end it that counts
}

// stop ends a subscription from outside; its client is told why.
func (sub *subscription) stop(why *aws.Error) {
	select {
	case sub.end <- why:
	default:
	}
}

// start enters a subscription. One of the same consumer and shard that is old
// enough is ended in its favour.
func (s *Service) start(key subscriptionKey, st *stream) (*subscription, error) {
	ss := &s.subscriptions
	ss.mu.Lock()
	defer ss.mu.Unlock()
	now := s.now()
	if old := ss.active[key]; old != nil {
		if now.Sub(old.since) < subscribeAgainAfter {
			return nil, aws.ResourceInUse.New("Another active subscription exists for this consumer: %s:%s:%s:%s",
				s.o.Account, st.Name(), key.shard, key.consumer)
		}
		old.stop(aws.ResourceInUse.New("Another subscription of consumer %s to shard %s took over.", key.consumer, key.shard))
	} else if len(ss.active) >= s.o.SubscriptionLimit {
		return nil, aws.LimitExceeded.New("This server has %d open subscriptions, which is the limit.", len(ss.active))
	}
	sub := &subscription{key: key, since: now, end: make(chan *aws.Error, 1)}
	ss.active[key] = sub
	return sub, nil
}

// leave removes a subscription that has ended.
func (ss *subscriptions) leave(sub *subscription) {
	ss.mu.Lock()
	if ss.active[sub.key] == sub {
		delete(ss.active, sub.key)
	}
	ss.mu.Unlock()
}

// endStream ends the subscriptions to a stream that was deleted.
func (ss *subscriptions) endStream(id uint32) {
	ss.endIf(func(k subscriptionKey) bool { return k.stream == id }, aws.ResourceNotFound.New("The stream was deleted."))
}

// endConsumer ends the subscriptions of a consumer that was deregistered.
func (ss *subscriptions) endConsumer(id uint32, name string) {
	ss.endIf(func(k subscriptionKey) bool { return k.stream == id && k.consumer == name },
		aws.ResourceNotFound.New("Consumer %s was deregistered.", name))
}

func (ss *subscriptions) endIf(match func(subscriptionKey) bool, why *aws.Error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for k, sub := range ss.active {
		if match(k) {
			sub.stop(why)
		}
	}
}

func (s *Service) subscribeToShard(ctx context.Context, c *aws.Call) error {
	var in subscribeToShardInput
	if err := c.Decode(&in); err != nil {
		return err
	}
	st, found, err := s.findConsumer(c, nil, nil, &in.ConsumerARN)
	if err != nil {
		return err
	}
	n, err := parseShard(in.ShardId)
	if err != nil {
		return aws.ResourceNotFound.New("Could not find shard %s in stream %s under account %s.", in.ShardId, st.Name(), s.o.Account)
	}
	info, err := st.Shard(n)
	if err != nil {
		return s.readError(err, st.Name(), n)
	}
	p := in.StartingPosition
	index, err := s.resolve(st, &info, position{p.Type, p.SequenceNumber, p.Timestamp}, "SubscribeToShard")
	if err != nil {
		return err
	}
	if in.DryRun != nil && *in.DryRun {
		return aws.DryRunOperation.Default()
	}
	r, err := st.NewReader(n, storage.Position{Kind: storage.AtIndex, Index: index})
	if err != nil {
		return s.readError(err, st.Name(), n)
	}
	sub, err := s.start(subscriptionKey{st.ID(), found.Name, n}, st)
	if err != nil {
		r.Close()
		return err
	}
	if c.Request.Proto() == "HTTP/1.1" {
		pause := time.NewTimer(subscribePause)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	c.Response.SetHeader("Content-Type", aws.EventStreamType)
	c.Response.Stream(func(ctx context.Context, w api.StreamWriter) error {
		defer s.subscriptions.leave(sub)
		defer r.Close()
		p := &push{s: s, st: st, shard: n, r: r, w: w, sub: sub}
		return p.run(ctx)
	})
	return nil
}

// push sends the records of a shard to one subscriber.
type push struct {
	s     *Service
	st    *stream
	shard record.ShardNumber
	r     *storage.Reader
	w     api.StreamWriter
	sub   *subscription
	buf   []byte // of heartbeats
	out   bucket // what the consumer may still get, if quotas are on
}

// errEnd ends a subscription for a reason that its client is not told.
var errEnd = errors.New("subscription is over")

// run sends events until the subscription's time is over, the shard ends, the
// client is gone or somebody takes the subscription over.
func (p *push) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	life := time.AfterFunc(p.s.o.SubscriptionLife, func() { cancel(errEnd) })
	defer life.Stop()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case why := <-p.sub.end:
			cancel(why)
		case <-api.Draining(ctx):
			cancel(errEnd)
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(nil); <-watching }()
	err := p.send(aws.AppendEventBytes(nil, "initial-response", eventContentType, []byte("{}")))
	for err == nil {
		err = p.step(ctx)
	}
	return p.finish(err)
}

// finish turns the reason of the end into the last frame, if there is to be one.
func (p *push) finish(err error) error {
	var told *aws.Error
	switch {
	case errors.Is(err, errEnd):
		return nil
	case errors.As(err, &told):
		return p.send(aws.AppendException(nil, told, true))
	}
	return err
}

// step sends one event: records if there are any, the end of the shard, or after
// some waiting an empty event that tells the client it is still connected.
func (p *push) step(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	info, err := p.st.Shard(p.shard)
	if err != nil {
		return p.gone(err)
	}
	n, err := p.event(ctx, &info)
	if err != nil {
		return err
	}
	if n > 0 {
		return p.pace(ctx, n)
	}
	wait, cancel := context.WithTimeout(ctx, p.s.o.Heartbeat)
	defer cancel()
	err = p.r.Wait(wait)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case wait.Err() != nil:
		return p.heartbeat()
	case err != nil:
		return p.gone(err)
	}
	return nil
}

// gone is what the client is told of an error of the store.
func (p *push) gone(err error) error {
	return aws.AsError(p.s.readError(err, p.st.Name(), p.shard))
}

// event sends what can be read now and returns its size; 0 means that there was
// nothing, or no memory for it. At the end of a closed shard it sends the children
// and ends.
func (p *push) event(ctx context.Context, info *storage.ShardInfo) (int, error) {
	if info.Open() && p.r.Position() > info.Last {
		return 0, nil
	}
	out := recordWriter{st: p.st, shard: p.shard}
	least, want := roomFor(p.r, subscribeEventRecords, subscribeEventBytes)
	for {
		buf := p.w.Lend(ctx, least, want)
		if buf == nil && ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if buf == nil {
			return 0, p.heartbeat()
		}
		ended, err := p.build(&buf, &out, info)
		switch {
		case err != nil:
			return 0, err
		case out.lacks > 0:
			least, want, out.lacks = out.lacks+answerRest, 0, 0
		case ended:
			if err := p.send(buf); err != nil {
				return 0, err
			}
			return 0, errEnd
		case out.n == 0:
			return 0, nil
		default:
			return out.bytes, p.send(buf)
		}
	}
}

// build makes an event of what there is room for.
func (p *push) build(buf *[]byte, out *recordWriter, info *storage.ShardInfo) (ended bool, err error) {
	out.room = cap(*buf) - answerRest
	*buf = aws.AppendEvent(*buf, "SubscribeToShardEvent", eventContentType, func(b []byte) []byte {
		w := &aws.Writer{Buf: b}
		out.w = w
		w.BeginMap()
		w.Key("Records")
		w.BeginList()
		_, err = p.r.Read(subscribeEventRecords, subscribeEventBytes, out.write)
		w.EndList()
		if ended = atEnd(p.st, info, p.r.Position()); ended {
			writeChildShards(w, childrenOf(p.st.Shards(), p.shard))
		}
		p.tail(w, ended)
		w.EndMap()
		return w.Buf
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return false, p.gone(err)
	}
	return ended, nil
}

// tail writes the members that every event has. The continuation is where the
// client goes on with AFTER_SEQUENCE_NUMBER; at the end of the shard it is left
// out, which is how KCL knows the end.
func (p *push) tail(w *aws.Writer, ended bool) {
	if ended {
		w.Key("MillisBehindLatest")
		w.Int(0)
		return
	}
	var buf [64]byte
	last := max(p.r.Position(), 1) - 1
	w.Key("ContinuationSequenceNumber")
	w.Text(p.st.Sequence(p.shard, last, p.s.now()).AppendTo(buf[:0]))
	w.Key("MillisBehindLatest")
	w.Int(behind(p.r))
}

func (p *push) heartbeat() error {
	p.buf = aws.AppendEvent(p.buf[:0], "SubscribeToShardEvent", eventContentType, func(b []byte) []byte {
		w := &aws.Writer{Buf: b}
		w.BeginMap()
		w.Key("Records")
		w.BeginList()
		w.EndList()
		p.tail(w, false)
		w.EndMap()
		return w.Buf
	})
	return p.send(p.buf)
}

// pace waits until the consumer may get more, if quotas are on.
func (p *push) pace(ctx context.Context, sent int) error {
	if !p.s.o.Quotas {
		return nil
	}
	p.out.refill(p.s.now(), shardBytesOutPerSecond)
	p.out.level -= float64(sent)
	if p.out.level >= 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(-p.out.level / shardBytesOutPerSecond * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *push) send(frame []byte) error {
	if _, err := p.w.Write(frame); err != nil {
		return err
	}
	return p.w.Flush()
}
