package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/weirhq/weir/appliance/delivery/prefix"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// collector gathers ranges of one lane until a batch is due. It looks at the
// headers of stored blocks only and holds no data.
type collector struct {
	store  *storage.Store
	stream *storage.Stream
	config *Config
	clock  Clock
	lane   Lane
	prefix *prefix.Expression
	// frozen: a backlog lane, whose set of shards and ends are given.
	frozen bool
	// most is the size at which a batch is due.
	most   int64
	shards []*gather
	oldest time.Time // of what is gathered; zero: nothing is
	newest time.Time
	due    time.Time // set with oldest
	bytes  int64
	lost   func(storage.Gap)
}

// gather is the collector's place in one shard.
type gather struct {
	number  record.ShardNumber
	state   shardState
	reader  *storage.Reader
	first   uint64 // gathered range; records 0: nothing
	last    uint64
	records uint64
	bytes   int64
	head    time.Time // arrival of the next block, once it is known
	cut     bool      // the next block belongs to a later object
	tip     bool      // no more for now
	ended   bool      // no more ever
}

func (c *collector) close() {
	for _, g := range c.shards {
		g.reset()
	}
}

func (g *gather) reset() {
	if g.reader != nil {
		g.reader.Close()
		g.reader = nil
	}
}

// load takes over a lane's part of the cursor.
func (c *collector) load(shards map[record.ShardNumber]shardState) {
	c.close()
	c.shards = c.shards[:0]
	for n, s := range shards {
		c.shards = append(c.shards, &gather{number: n, state: s})
	}
	c.sort()
}

func (c *collector) sort() {
	sort.Slice(c.shards, func(i, j int) bool { return c.shards[i].number < c.shards[j].number })
}

// discover adds shards that came by split or merge: after their parents are
// sealed to the end, so that the records of a partition key keep their order.
func (c *collector) discover() {
	if c.frozen {
		return
	}
	for _, info := range c.stream.Shards() {
		if c.find(info.Number) != nil || c.waitsForParent(info) {
			continue
		}
		c.shards = append(c.shards, &gather{number: info.Number, state: shardState{Next: info.First}})
		c.sort()
	}
}

func (c *collector) find(n record.ShardNumber) *gather {
	for _, g := range c.shards {
		if g.number == n {
			return g
		}
	}
	return nil
}

func (c *collector) waitsForParent(info storage.ShardInfo) bool {
	waits := func(n record.ShardNumber) bool {
		if g := c.find(n); g != nil {
			return !g.state.Done
		}
		// Not followed: either its records are gone, or it will be added first.
		_, err := c.stream.Shard(n)
		return err == nil
	}
	return info.HasParent && waits(info.Parent) || info.HasAdjacentParent && waits(info.AdjacentParent)
}

// scan gathers whole blocks from all shards in the order of their arrival,
// until each shard stops. That order makes a later batch never older than an
// earlier one, so that names sort as their records do.
func (c *collector) scan() error {
	for _, g := range c.shards {
		g.tip, g.head = false, time.Time{}
	}
	for c.bytes < c.most {
		g, bound, err := c.oldestShard()
		if g == nil || err != nil {
			return err
		}
		if err := c.scanShard(g, bound); err != nil {
			return err
		}
	}
	return nil
}

// oldestShard finds the shard whose next block is the oldest, and the arrival
// of the one after; nil when all shards have stopped.
func (c *collector) oldestShard() (oldest *gather, bound time.Time, err error) {
	bound = endOfTime
	for _, g := range c.shards {
		if g.head.IsZero() && !g.stopped() {
			if err := c.scanShard(g, time.Time{}); err != nil { // a look
				return nil, bound, err
			}
		}
		switch {
		case g.stopped():
		case oldest == nil || g.head.Before(oldest.head):
			if oldest != nil && oldest.head.Before(bound) {
				bound = oldest.head
			}
			oldest = g
		case g.head.Before(bound):
			bound = g.head
		}
	}
	return oldest, bound, nil
}

var endOfTime = time.Unix(1<<40, 0)

func (g *gather) stopped() bool { return g.state.Done || g.cut || g.tip || g.ended }

// scanStep is how much stored data is looked at before others have their turn.
const scanStep = 1 << 20

// scanShard takes blocks that arrived no later than bound.
func (c *collector) scanShard(g *gather, bound time.Time) error {
	if g.reader == nil {
		at := g.state.Next
		if g.records > 0 {
			at = g.last + 1
		}
		var err error
		g.reader, err = c.stream.NewReader(g.number, storage.Position{Kind: storage.AtIndex, Index: at})
		if errors.Is(err, storage.ErrShardNotFound) {
			g.ended = true // retention took it
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", g.number, c.stream.Name(), err)
		}
	}
	any := false
	err := g.reader.Frames(scanStep, func(f storage.Frame) bool {
		any = true
		g.head = f.Arrival
		// A block that is refused is read again next time.
		return !f.Arrival.After(bound) && c.bytes < c.most && c.take(g, &f)
	})
	for _, gap := range g.reader.Skipped() {
		c.lost(gap)
	}
	switch {
	case errors.Is(err, io.EOF):
		g.ended = true
		return nil
	case err != nil:
		return fmt.Errorf("read %s of %s: %w", g.number, c.stream.Name(), err)
	}
	g.tip = !any
	return nil
}

// take adds a block to the batch, or refuses it when it belongs to a later one.
func (c *collector) take(g *gather, f *storage.Frame) bool {
	first, last := f.First, f.Last
	if g.state.Until > 0 && first >= g.state.Until {
		g.ended = true
		return false
	}
	if !c.oldest.IsZero() && !c.fits(f.Arrival) {
		g.cut = true
		return false
	}
	if c.oldest.IsZero() || f.Arrival.Before(c.oldest) {
		c.setOldest(f.Arrival)
	}
	if f.Arrival.After(c.newest) {
		c.newest = f.Arrival
	}
	if g.records == 0 {
		g.first = first
	}
	g.last = last
	g.records += uint64(f.Count)
	g.bytes += int64(f.RawLen)
	c.bytes += int64(f.RawLen)
	return true
}

func (c *collector) setOldest(arrival time.Time) {
	first := c.oldest.IsZero()
	c.oldest = arrival
	if !first {
		return
	}
	now := c.clock.Now()
	interval := c.config.interval()
	age := min(max(now.Sub(arrival), 0), interval)
	c.due = now.Add(interval - age)
}

// fits says whether a record that arrived then may share an object with the
// oldest: inside the buffer interval always; beyond it, which happens only
// when a backlog is worked off, as long as the object's name stays the same.
func (c *collector) fits(arrival time.Time) bool {
	if arrival.Sub(c.oldest) < c.config.interval() {
		return true
	}
	return c.evaluate(arrival) == c.evaluate(c.oldest)
}

func (c *collector) evaluate(at time.Time) string {
	s, err := c.prefix.Evaluate(prefix.Values{Instant: at.In(c.config.location()), Random: func(int) string { return "" }})
	if err != nil {
		return ""
	}
	return s
}

// isDue says whether what is gathered has to be sealed now.
func (c *collector) isDue() bool {
	if c.oldest.IsZero() {
		return false
	}
	if c.bytes >= c.most || !c.clock.Now().Before(c.due) {
		return true
	}
	// Each shard stands either at a block of a later object or at its end.
	cut := false
	for _, g := range c.shards {
		if !g.cut && !g.ended && !g.state.Done {
			return false
		}
		cut = cut || g.cut
	}
	return cut || c.frozen
}

// recipe makes a recipe of what is gathered.
func (c *collector) recipe(number uint64, version int, module string) *Recipe {
	r := &Recipe{
		Number: number, Version: version, Oldest: c.oldest.UTC(), Newest: c.newest.UTC(),
		Sealed: c.clock.Now().UTC(), Module: module, Lane: c.lane,
	}
	for _, g := range c.shards {
		if g.records > 0 {
			r.Ranges = append(r.Ranges, Range{Shard: g.number, First: g.first, Last: g.last, Records: g.records, Bytes: g.bytes})
		}
	}
	return r
}

// sealed returns the lane's cursor as it is after the gathered batch, and
// whether it differs from the one loaded (a shard may be done without records).
func (c *collector) sealed() (map[record.ShardNumber]shardState, bool) {
	out := make(map[record.ShardNumber]shardState, len(c.shards))
	changed := false
	for _, g := range c.shards {
		s := g.state
		if g.records > 0 {
			s.Next = g.last + 1
		}
		if g.ended && !s.Done {
			s.Done = true
		}
		changed = changed || s != g.state
		out[g.number] = s
	}
	return out, changed
}

// advance forgets the batch that was sealed.
func (c *collector) advance() {
	states, _ := c.sealed()
	kept := c.shards[:0]
	for _, g := range c.shards {
		g.state = states[g.number]
		g.records, g.bytes, g.cut = 0, 0, false
		if g.state.Done {
			g.reset()
			if !c.frozen {
				if _, err := c.stream.Shard(g.number); errors.Is(err, storage.ErrShardNotFound) {
					continue
				}
			}
		}
		kept = append(kept, g)
	}
	c.shards = kept
	c.oldest, c.newest, c.due, c.bytes = time.Time{}, time.Time{}, time.Time{}, 0
}

// finished says whether a frozen lane has sealed all of its ranges.
func (c *collector) finished() bool {
	for _, g := range c.shards {
		if !g.state.Done {
			return false
		}
	}
	return true
}

// wait returns when there may be something to gather, or after the batch is
// due, or when poke has something. It polls only while a batch is open.
func (c *collector) wait(ctx context.Context, poke <-chan struct{}) error {
	if !c.oldest.IsZero() {
		pause := min(max(c.config.interval()/16, 20*time.Millisecond), time.Second)
		if left := c.due.Sub(c.clock.Now()); left < pause {
			pause = max(left, 0)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poke:
		case <-c.clock.After(pause):
		}
		return nil
	}
	return c.waitForData(ctx, poke)
}

// waitForData waits on all shards at once.
func (c *collector) waitForData(ctx context.Context, poke <-chan struct{}) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	done := make(chan error, len(c.shards)+1)
	for _, g := range c.shards {
		if g.state.Done || g.ended || g.reader == nil {
			continue
		}
		n++
		go func() {
			err := g.reader.Wait(waiting)
			cancel()
			done <- err
		}()
	}
	if n == 0 {
		// No shard to wait on: the stream is being resharded, or all is done.
		n++
		go func() {
			select {
			case <-waiting.Done():
			case <-c.clock.After(time.Second):
			}
			done <- nil
		}()
	}
	go func() {
		select {
		case <-poke:
			cancel()
		case <-waiting.Done():
		}
	}()
	var err error
	for range n {
		if e := <-done; e != nil && !errors.Is(e, context.Canceled) {
			err = e
		}
		cancel()
	}
	return errors.Join(ctx.Err(), err)
}
