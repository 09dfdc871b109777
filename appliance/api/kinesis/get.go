package kinesis

import (
	"context"
	"encoding/base64"
	"errors"
	"io"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// Limits of one GetRecords answer (API reference, GetRecords).
const (
	getRecordsLimit = 10000
	getRecordsBytes = 10 << 20
)

func (s *Service) getRecords(ctx context.Context, c *aws.Call) error {
	var in getRecordsInput
	if err := c.Decode(&in); err != nil {
		return err
	}
	it, err := s.openIterator([]byte(in.ShardIterator))
	if err != nil {
		return aws.InvalidArgument.New("Invalid ShardIterator.")
	}
	st, info, err := s.atIterator(c, &in, &it)
	if err != nil {
		return err
	}
	if in.DryRun != nil && *in.DryRun {
		return aws.DryRunOperation.Default()
	}
	if s.o.Quotas && !st.quotas.read(it.shard, s.now()) {
		return aws.ProvisionedThroughputExceeded.New("%s", s.rateExceeded(st, it.shard))
	}
	limit := getRecordsLimit
	if in.Limit != nil {
		limit = *in.Limit
	}
	return s.answerRecords(ctx, c, st, &info, it, limit)
}

// atIterator checks an iterator and finds its shard.
func (s *Service) atIterator(c *aws.Call, in *getRecordsInput, it *iterator) (*stream, storage.ShardInfo, error) {
	var none storage.ShardInfo
	if err := c.Authorize(it.stream); err != nil {
		return nil, none, err
	}
	if in.StreamARN != nil {
		if _, err := s.nameOf(&it.stream, in.StreamARN); err != nil {
			return nil, none, err
		}
	}
	now := s.now()
	if now.Sub(it.issued) > tokenLife {
		return nil, none, aws.ExpiredIterator.New("Iterator expired. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			amazonDate(it.issued), amazonDate(now), tokenLife.Milliseconds())
	}
	st, err := s.stream([]byte(it.stream))
	if err == nil && st.ID() != it.streamID {
		err = storage.ErrStreamNotFound
	}
	if err != nil {
		return nil, none, s.readError(err, it.stream, it.shard)
	}
	info, err := st.Shard(it.shard)
	if err != nil {
		return nil, none, s.readError(err, it.stream, it.shard)
	}
	return st, info, nil
}

// answerRecords reads from an iterator's position on and writes the answer
// straight from the reader's records, as many as there is room for.
func (s *Service) answerRecords(ctx context.Context, c *aws.Call, st *stream, info *storage.ShardInfo, it iterator, limit int) error {
	r, err := st.NewReader(it.shard, storage.Position{Kind: storage.AtIndex, Index: it.index})
	if err != nil {
		return s.readError(err, st.Name(), it.shard)
	}
	defer r.Close()
	out := recordWriter{st: st, shard: it.shard}
	least, want := roomFor(r, limit, getRecordsBytes)
	for {
		room := c.Response.Reserve(ctx, least, want)
		if room == 0 {
			return aws.ProvisionedThroughputExceeded.New("This server has no memory for the records of shard %s in stream %s now. Try again.", it.shard, st.Name())
		}
		out.w, out.room = c.Writer(), room-answerRest
		out.w.BeginMap()
		out.w.Key("Records")
		out.w.BeginList()
		if _, err = r.Read(limit, getRecordsBytes, out.write); err != nil && !errors.Is(err, io.EOF) {
			return s.readError(err, st.Name(), it.shard)
		}
		if out.lacks == 0 {
			break
		}
		least, want, out.lacks = out.lacks+answerRest, 0, 0
	}
	w := out.w
	w.EndList()
	now := s.now()
	if s.o.Quotas {
		st.quotas.wasRead(it.shard, out.bytes, now)
	}
	w.Key("MillisBehindLatest")
	if atEnd(st, info, r.Position()) {
		w.Int(0)
		writeChildShards(w, childrenOf(st.Shards(), it.shard))
	} else {
		w.Int(behind(r))
		next := iterator{streamID: it.streamID, shard: it.shard, index: r.Position(), issued: now, stream: it.stream}
		var buf [iteratorMaxChars]byte
		w.Key("NextShardIterator")
		w.Text(s.appendIterator(buf[:0], &next))
	}
	w.EndMap()
	c.Finish(w)
	return nil
}

// atEnd tells whether a position is behind the last record of a closed shard. A
// shard that was closed during the read is noticed at the next one.
func atEnd(st *stream, info *storage.ShardInfo, next uint64) bool {
	return !info.Open() && next > info.Last
}

// behind is how far, in milliseconds, a reader is from the tip of its shard.
func behind(r *storage.Reader) int64 {
	records, _, age := r.Lag()
	if records == 0 {
		return 0
	}
	return max(age.Milliseconds(), 1)
}

const (
	// answerRest is what an answer has besides its records: iterator, child shards.
	answerRest = 2 << 10
	// recordRest is what a record in an answer has at most besides its data and key.
	recordRest = 192
)

// roomFor is how much room an answer with what there is to read takes.
func roomFor(r *storage.Reader, maxRecords, maxBytes int) (least, want int) {
	records, size, _ := r.Lag()
	return api.RoomForRecords(records, size, maxRecords, maxBytes, recordRest, answerRest)
}

// recordWriter writes records as GetRecords and SubscribeToShard show them, as long as
// there is room.
type recordWriter struct {
	w     *aws.Writer
	room  int // how long the buffer may become
	lacks int // what the first record takes, if that is more
	st    *stream
	shard record.ShardNumber
	n     int
	bytes int
	last  record.SequenceNumber // of the last record written
}

// fits tells whether there is room for a record.
func (o *recordWriter) fits(r *record.Record) bool {
	size := len(o.w.Buf) + recordRest + base64.StdEncoding.EncodedLen(len(r.Data)) + 6*len(r.PartitionKey)
	if size > o.room && o.n == 0 {
		o.lacks = size
	}
	return size <= o.room
}

// The parts of a record in JSON, put end to end.
const (
	jsonRecord  = `{"SequenceNumber":"`
	jsonArrival = `","ApproximateArrivalTimestamp":`
	jsonData    = `,"Data":"`
	jsonKey     = `","PartitionKey":`
)

func (o *recordWriter) write(r *record.Record) bool {
	if !o.fits(r) {
		return false
	}
	o.last = o.st.sequence(o.shard, r.Index, r.Arrival)
	o.bytes += len(r.Data) + len(r.PartitionKey)
	o.n++
	if o.w.Encoding == aws.JSON {
		o.writeJSON(r)
		return true
	}
	var buf [64]byte
	o.w.BeginMap()
	o.w.Key("SequenceNumber")
	o.w.Text(o.last.AppendTo(buf[:0]))
	o.w.Key("ApproximateArrivalTimestamp")
	o.w.Time(r.Arrival)
	o.w.Key("Data")
	o.w.Blob(r.Data)
	if len(r.PartitionKey) > 0 {
		o.w.Key("PartitionKey")
		o.w.Text(r.PartitionKey)
	}
	o.w.EndMap()
	return true
}

func (o *recordWriter) writeJSON(r *record.Record) {
	part := aws.Writer{Buf: o.w.Buf} // a Writer of its own: no commas in between
	if o.n > 1 {
		part.Buf = append(part.Buf, ',')
	}
	part.Buf = append(part.Buf, jsonRecord...)
	part.Buf = o.last.AppendTo(part.Buf)
	part.Buf = append(part.Buf, jsonArrival...)
	part.Time(r.Arrival)
	part.Buf = append(part.Buf, jsonData...)
	part.Buf = base64.StdEncoding.AppendEncode(part.Buf, r.Data)
	if len(r.PartitionKey) > 0 {
		part.Buf = append(part.Buf, jsonKey...)
		text := aws.Writer{Buf: part.Buf}
		text.Text(r.PartitionKey)
		part.Buf = append(text.Buf, '}')
	} else {
		part.Buf = append(part.Buf, `"}`...)
	}
	o.w.Buf = part.Buf
}

func writeChildShards(w *aws.Writer, children []childShard) {
	w.Key("ChildShards")
	w.BeginList()
	for i := range children {
		model.Encode(w, &children[i])
	}
	w.EndList()
}
