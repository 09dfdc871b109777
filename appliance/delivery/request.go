package delivery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// chunkRange is a run of items, by their ordinal in the recipe, that a
// RecordSink would not take.
type chunkRange struct {
	chunk    int
	from, to int
	skip     int // sound items at its start that the sink did take
	fail     failure
}

// requests sends the recipe to a RecordSink, request by request, in order.
// Requests are cut by the sink's limits from the start of the recipe, so a
// repeated one has the same records and the same id.
func (j *job) requests(ctx context.Context, sink RecordSink) error {
	limits := sink.Limits()
	limits.DataBytes = min(limits.DataBytes, partBytes)
	buffer, err := regions.take()
	if err != nil {
		return err
	}
	defer regions.give(buffer)
	c := &cutter{job: j, sink: sink, limits: limits, arena: buffer[:0], ctx: ctx}
	if _, err := j.pipe.run(ctx, j.recipe, stageFunc(c.add)); err != nil {
		return err
	}
	if err := c.send(); err != nil {
		return err
	}
	return j.givenUp(ctx)
}

// cutter gathers items into requests.
type cutter struct {
	ctx     context.Context
	job     *job
	sink    RecordSink
	limits  BatchLimits
	arena   []byte
	records []OutRecord
	chunk   int
	first   int // ordinal of the first item gathered
	ordinal int
}

func (c *cutter) add(it *item) error {
	if it.fail != nil {
		c.job.kinds[it.fail.kind] = true
		c.ordinal++
		return nil
	}
	size := len(it.key) + len(it.data) + len(c.job.bind.config.Delimiter)
	if len(c.records) == c.limits.Records || len(c.records) > 0 && len(c.arena)+size > c.limits.DataBytes {
		if err := c.send(); err != nil {
			return err
		}
	}
	if len(c.records) == 0 {
		c.first = c.ordinal
	}
	c.ordinal++
	r := OutRecord{Shard: it.shard, Index: it.index, Arrival: it.arrival, ExplicitHashKey: it.hash, HasExplicitHash: it.hasHash}
	r.PartitionKey = c.keep(it.key, "")
	r.Data = c.keep(it.data, c.job.bind.config.Delimiter)
	c.records = append(c.records, r)
	return nil
}

func (c *cutter) keep(b []byte, tail string) []byte {
	n := len(c.arena)
	c.arena = append(append(c.arena, b...), tail...)
	return c.arena[n:len(c.arena):len(c.arena)]
}

// send sends what is gathered, unless an earlier attempt did.
func (c *cutter) send() error {
	if len(c.records) == 0 {
		return nil
	}
	defer func() {
		c.records, c.arena = c.records[:0], c.arena[:0]
		c.chunk++
	}()
	j := c.job
	if c.chunk < j.chunk {
		return nil
	}
	id := requestID(j.def.identity(j.recipe, fmt.Sprintf("request:%d", c.chunk)))
	j.clear = false
	sent := &atomic.Int64{}
	throttle := j.throttle(c.ctx, c.sink, "sink")
	done, err := c.sink.PutRecords(c.ctx, &Batch{
		RequestID: id, Delivery: j.def.Config.Name, Time: j.recipe.Sealed, Records: c.records[j.chunkDone:],
		Throttle: func(r io.Reader) io.Reader {
			return &counted{r: throttle(r), n: sent}
		},
	})
	taken := c.records
	if err != nil {
		j.chunkDone += done
		if !c.givesUp(err) {
			return err
		}
		taken = c.records[:j.chunkDone]
	}
	if len(taken) > 0 {
		n := sent.Load()
		j.rows = append(j.rows, c.manifest(id, n, taken))
		j.cost += n
	}
	j.chunk, j.chunkDone = c.chunk+1, 0
	j.sent.Store(0)
	return nil
}

// counted counts what is read through it. An HTTP client may still read from a request that
// was answered early.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *cutter) manifest(id string, sent int64, taken []OutRecord) Manifest {
	j := c.job
	size := 0
	for i := range taken {
		size += len(taken[i].PartitionKey) + len(taken[i].Data)
	}
	return Manifest{
		Part: fmt.Sprintf("request:%d", c.chunk), Key: id, Target: "sink", Number: j.recipe.Number, Version: j.recipe.Version,
		Ranges: j.recipe.Ranges, Records: int64(len(taken)), Bytes: int64(size), Stored: sent,
		Oldest: j.recipe.Oldest, Sealed: j.recipe.Sealed, Delivered: j.engine.clock.Now().UTC(),
		Module: j.recipe.Module, Attempts: j.attempt + 1,
	}
}

// givesUp decides that a request goes to the failure target: at once when the
// sink refused it for good, otherwise after the time that was configured.
func (c *cutter) givesUp(err error) bool {
	j := c.job
	f := j.bind.config.OnFailure
	if f == nil || c.ctx.Err() != nil {
		return false
	}
	if j.short.Load() {
		return false // it was not the sink
	}
	s := sinkError(err)
	if j.since.IsZero() {
		j.since = j.engine.clock.Now()
	}
	late := f.After > 0 && j.engine.clock.Now().Sub(j.since) >= time.Duration(f.After)
	if !s.Permanent && !late {
		return false
	}
	j.since = time.Time{}
	j.given = append(j.given, chunkRange{
		chunk: c.chunk, from: c.first, to: c.ordinal, skip: j.chunkDone,
		fail: failure{kind: "http-endpoint-failed", code: s.Code, message: s.Err.Error(), attempts: j.attempt + 1},
	})
	return true
}

// givenUp stores what was not taken of the requests that were given up, one error
// object each.
func (j *job) givenUp(ctx context.Context) error {
	for _, g := range j.given {
		var runs []Range
		err := j.put(ctx, j.packed(&objectSpec{
			part: fmt.Sprintf("failed:%d", g.chunk), sink: j.bind.failure, target: "failure", expression: j.bind.failures,
			errorType: g.fail.kind, contentType: "application/json", runs: &runs,
			render: func(ctx context.Context, w io.Writer) (n counts, err error) {
				n, runs, err = j.renderGiven(ctx, w, g)
				return n, err
			},
		}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *job) renderGiven(ctx context.Context, w io.Writer, g chunkRange) (counts, []Range, error) {
	var n counts
	var runs []Range
	ordinal, skip := 0, g.skip
	out := bufio.NewWriterSize(w, 32<<10)
	_, err := j.pipe.run(ctx, j.recipe, stageFunc(func(it *item) error {
		ordinal++
		if it.fail != nil || ordinal <= g.from || ordinal > g.to {
			return nil
		}
		if skip > 0 {
			skip--
			return nil
		}
		n.records++
		n.bytes += int64(len(it.data))
		runs = addRun(runs, it.shard, it.index, len(it.data))
		return g.fail.write(out, it, j.bind.stream.Sequence(it.shard, it.index, it.arrival).String(), j.recipe.Sealed)
	}))
	if err == nil {
		err = out.Flush()
	}
	return n, runs, err
}
