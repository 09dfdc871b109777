package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

const (
	tailBatchRecords = 1000
	tailBatchBytes   = 256 << 10
	tailMaxShards    = 256
	tailRoundBytes   = 1 << 20 // of events at a time
	maxPosition      = 32      // of a shard in an event's id
)

// follow is one tail: a reader for each shard it follows.
type follow struct {
	s       *Service
	st      *storage.Stream
	one     bool             // only the shard that was asked for, not its children
	rest    storage.Position // where shards begin that come after those of the start
	readers []*shardReader   // the one whose turn it is first
}

type shardReader struct {
	n record.ShardNumber
	r *storage.Reader
}

// tail streams records as server-sent events until the client goes, the listener
// stops, or every shard has ended.
func (s *Service) tail(_ context.Context, req api.Request, res api.Response, name string) error {
	st, err := s.stream(req, name, actionGet)
	if err != nil {
		return err
	}
	f := &follow{s: s, st: st, one: queryValue(req, "shard") != "", rest: storage.Position{Kind: storage.TrimHorizon}}
	if err := f.open(req); err != nil {
		f.close()
		return err
	}
	if s.tails.Add(1) > int64(s.o.MaxTails) {
		s.tails.Add(-1)
		f.close()
		return refuse(429, "TooManyTails", fmt.Sprintf("this server has %d open tails, which is the limit", s.o.MaxTails))
	}
	res.SetHeader("Content-Type", "text/event-stream")
	res.SetHeader("Cache-Control", "no-store")
	res.Stream(func(ctx context.Context, w api.StreamWriter) error {
		defer s.tails.Add(-1)
		defer f.close()
		return f.run(ctx, w)
	})
	return nil
}

// open opens the readers a request asks for: those of Last-Event-ID where they
// were, others where the query says.
func (f *follow) open(req api.Request) error {
	p, err := positionOf(req, "latest")
	if err != nil {
		return err
	}
	resume, err := parseEventID(string(req.Header("Last-Event-Id")))
	if err != nil {
		return refuse(400, "BadEventID", err.Error())
	}
	if f.one {
		n, err := shardOf(req, f.st)
		if err != nil {
			return err
		}
		return f.add(n, at(resume, n, p))
	}
	if len(resume) == 0 && p.Kind == storage.AtTime {
		f.rest = p
	}
	there, known := map[record.ShardNumber]bool{}, map[record.ShardNumber]bool{}
	for _, info := range f.st.Shards() { // by number: after those they came of
		n, parents := info.Number, parentsOf(info)
		_, met := resume[n]
		came := slices.ContainsFunc(parents, func(p record.ShardNumber) bool { _, met := resume[p]; return met || known[p] })
		after := slices.ContainsFunc(parents, func(p record.ShardNumber) bool { return there[p] })
		there[n], known[n] = true, met || came
		begin := at(resume, n, p)
		switch {
		case met:
		case came:
			// It was made since the event id was sent: nothing of it was. With its parents
			// there, it comes after them, so that the records of a key keep their order.
			if begin = f.rest; after {
				continue
			}
		case p.Kind == storage.Latest || len(resume) > 0: // closed ones were sent, or are not asked for
			if !info.Open() {
				continue
			}
		case after:
			continue
		}
		if err := f.add(n, begin); err != nil {
			return err
		}
	}
	return nil
}

func at(resume map[record.ShardNumber]uint64, n record.ShardNumber, p storage.Position) storage.Position {
	if index, ok := resume[n]; ok {
		return storage.Position{Kind: storage.AtIndex, Index: index}
	}
	return p
}

func (f *follow) add(n record.ShardNumber, p storage.Position) error {
	if len(f.readers) == tailMaxShards {
		return refuse(400, "TooManyShards", fmt.Sprintf("a tail follows at most %d shards; expecting ?shard=", tailMaxShards))
	}
	if f.follows(n) {
		return nil
	}
	r, err := f.st.NewReader(n, p)
	if err != nil {
		return err
	}
	f.readers = append(f.readers, &shardReader{n, r})
	return nil
}

func (f *follow) follows(n record.ShardNumber) bool {
	return slices.ContainsFunc(f.readers, func(one *shardReader) bool { return one.n == n })
}

func (f *follow) close() {
	for _, one := range f.readers {
		one.r.Close()
	}
}

// run sends what there is and waits for more.
func (f *follow) run(ctx context.Context, w api.StreamWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := w.Write([]byte(": stream " + f.st.Name() + "\n\n")); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for {
		sent, err := f.send(ctx, w)
		if errors.Is(err, storage.ErrStreamNotFound) {
			return nil // deleted: that is the end of it
		}
		if err != nil || len(f.readers) == 0 {
			return err
		}
		select {
		case <-api.Draining(ctx):
			return nil
		default:
		}
		if sent {
			continue
		}
		woken, err := f.wait(ctx)
		if err != nil {
			return nil // the client or the stream is gone
		}
		if !woken {
			if err := f.stillHere(w); err != nil {
				return err
			}
		}
	}
}

// send writes one batch of each shard, as far as there is room. The last event has the
// positions of all.
func (f *follow) send(ctx context.Context, w api.StreamWriter) (bool, error) {
	rest := answerRest + maxPosition*len(f.readers)
	least, want := rest, rest
	for _, one := range f.readers {
		l, n := roomFor(one.r, tailBatchRecords, tailBatchBytes)
		least, want = max(least, rest+l), min(want+n, tailRoundBytes)
	}
	for {
		buf := w.Lend(ctx, least, want)
		switch {
		case ctx.Err() != nil:
			return false, nil
		case buf == nil: // try again, and say so to the client
			return true, f.stillHere(w)
		}
		b := tailBatch{buf: buf, room: cap(buf) - rest}
		if err := f.read(&b); err != nil {
			return false, err
		}
		switch {
		case b.lacks > 0:
			least, want = b.lacks+rest, 0
		case len(b.buf) == 0:
			return false, w.Flush()
		default:
			_, err := w.Write(slices.Insert(b.buf, b.last, f.eventID()...))
			return true, errors.Join(err, w.Flush())
		}
	}
}

// tailBatch is what is sent at a time.
type tailBatch struct {
	buf   []byte
	room  int // how long it may become
	last  int // where its last event begins
	full  bool
	lacks int // what the first event takes, if there is no room for it
}

// add appends an event, or notes that there is no room for it.
func (b *tailBatch) add(st *storage.Stream, n record.ShardNumber, rec *record.Record) bool {
	size := len(b.buf) + sizeOf(rec)
	if b.full = size > b.room; b.full {
		if len(b.buf) == 0 {
			b.lacks = size
		}
		return false
	}
	b.last = len(b.buf)
	b.buf = append(b.buf, "data: "...)
	b.buf = appendRecord(b.buf, st, n, rec)
	b.buf = append(b.buf, "\n\n"...)
	return true
}

// read reads from one shard after the other; the next time another one is first.
func (f *follow) read(b *tailBatch) error {
	for i := 0; i < len(f.readers) && !b.full; i++ {
		one := f.readers[i]
		n, err := one.r.Read(tailBatchRecords, tailBatchBytes, func(rec *record.Record) bool { return b.add(f.st, one.n, rec) })
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case err != nil && n == 0:
			if err := f.ended(i); err != nil {
				return err
			}
			i--
		}
	}
	if len(f.readers) > 1 && b.lacks == 0 {
		f.readers = append(f.readers[1:], f.readers[0])
	}
	return nil
}

// stillHere tells the client that it is connected.
func (f *follow) stillHere(w api.StreamWriter) error {
	_, err := w.Write([]byte(": still here\n\n"))
	return errors.Join(err, w.Flush())
}

// ended replaces the reader of a shard that was split or merged by those of its
// children. One that came of two shards comes after both.
func (f *follow) ended(i int) error {
	n := f.readers[i].n
	f.readers[i].r.Close()
	f.readers = slices.Delete(f.readers, i, i+1)
	if f.one {
		return nil
	}
	coming := map[record.ShardNumber]bool{} // followed, or to be when those they came of have ended
	for _, info := range f.st.Shards() {
		parents := parentsOf(info)
		waits := slices.ContainsFunc(parents, func(p record.ShardNumber) bool { return coming[p] })
		coming[info.Number] = waits || f.follows(info.Number)
		if !waits && slices.Contains(parents, n) {
			if err := f.add(info.Number, f.rest); err != nil {
				return err
			}
			coming[info.Number] = true
		}
	}
	return nil
}

// wait returns true when a shard may have more, false after the heartbeat time.
func (f *follow) wait(ctx context.Context) (bool, error) {
	waiting, cancel := context.WithTimeout(ctx, f.s.o.Heartbeat)
	defer cancel()
	var all sync.WaitGroup
	first := make(chan error, len(f.readers)+1)
	for _, one := range f.readers {
		all.Go(func() { first <- one.r.Wait(waiting) })
	}
	var err error
	woken := false
	select {
	case err = <-first:
		woken = err == nil
	case <-api.Draining(ctx):
		woken = true
	}
	cancel()
	all.Wait()
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
		return false, err
	}
	return woken, nil
}

// eventID is "id: " with the next index of every shard.
func (f *follow) eventID() []byte {
	b := []byte("id: ")
	for i, one := range f.readers {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%d:%d", uint32(one.n), one.r.Position())
	}
	return append(b, '\n')
}

func parseEventID(id string) (map[record.ShardNumber]uint64, error) {
	out := make(map[record.ShardNumber]uint64)
	if id == "" {
		return out, nil
	}
	for _, part := range strings.Split(id, ",") {
		number, index, ok := strings.Cut(part, ":")
		n, err1 := strconv.ParseUint(number, 10, 31)
		i, err2 := strconv.ParseUint(index, 10, 63)
		if !ok || err1 != nil || err2 != nil || len(out) >= tailMaxShards {
			return nil, fmt.Errorf("event id %.60q: expecting shard:index, comma separated, as the tail sent it", id)
		}
		out[record.ShardNumber(n)] = i
	}
	return out, nil
}
