package kinesis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// maxRequestBytes bounds the data and partition keys of one PutRecords.
const maxRequestBytes = 10 << 20

var (
	putRecordSchema  = aws.NewBatchSchema[putRecordInput](model)
	putRecordsSchema = aws.NewBatchSchema[putRecordsInput](model)
)

// put is one PutRecord or PutRecords on its way. It comes from a pool and
// holds nothing by the record that is not reused.
type put struct {
	st    *stream
	batch *aws.Batch
	many  bool // PutRecords
	// keys are the explicit hash keys by record, those chosen under AUTO included.
	keys []explicitKey
	// refused are the records that the shard quotas let not through.
	refused []refusal
	failed  int
	size    int
	txn     *storage.Txn

	patience api.Patience // of write
}

type explicitKey struct {
	set bool
	key record.HashKey
}

type refusal struct {
	set   bool
	shard record.ShardNumber
}

var puts = sync.Pool{New: func() any { return new(put) }}

func (p *put) release() {
	p.batch.Release()
	clear(p.keys)
	clear(p.refused)
	*p = put{keys: p.keys[:0], refused: p.refused[:0]}
	puts.Put(p)
}

func (s *Service) putRecord(ctx context.Context, c *aws.Call) error {
	batch, err := putRecordSchema.Parse(c.Encoding, c.Body())
	if err != nil {
		return err
	}
	p := puts.Get().(*put)
	p.batch = batch
	defer p.release()
	if err := s.preparePut(c, p); err != nil {
		return err
	}
	if p.failed > 0 {
		return aws.ProvisionedThroughputExceeded.New("%s", s.rateExceeded(p.st, p.refused[0].shard))
	}
	if err := s.write(ctx, p); err != nil {
		return s.writeError(err, p.st)
	}
	defer p.txn.Release()
	w := c.Writer()
	w.BeginMap()
	p.writeResult(w, 0)
	w.EndMap()
	c.Finish(w)
	return nil
}

func (s *Service) putRecords(ctx context.Context, c *aws.Call) error {
	batch, err := putRecordsSchema.Parse(c.Encoding, c.Body())
	if err != nil {
		return err
	}
	p := puts.Get().(*put)
	p.batch, p.many = batch, true
	defer p.release()
	if err := s.preparePut(c, p); err != nil {
		return err
	}
	if err := s.write(ctx, p); err != nil {
		code, message := s.refusalOf(err, p.st)
		if code == "" {
			return s.writeError(err, p.st)
		}
		p.writeRefusal(c, code, message)
		return nil
	}
	defer p.txn.Release()
	s.writeResults(c, p)
	return nil
}

// preparePut does everything that comes before the store is asked for room: who
// may, which stream, whether each record is right, dry run and
// quotas. Nothing has been buffered when it fails.
func (s *Service) preparePut(c *aws.Call, p *put) error {
	b := p.batch
	name, err := s.putName(b)
	if err != nil {
		return err
	}
	if err := c.Authorize(text(name)); err != nil {
		return err
	}
	if p.st, err = s.stream(name); err != nil {
		return s.storeError(err, string(name))
	}
	auto := p.st.auto.Load()
	if err := p.check(auto); err != nil {
		return err
	}
	if err := s.checkOrdering(p); err != nil {
		return err
	}
	if b.DryRun {
		return aws.DryRunOperation.Default()
	}
	if auto {
		p.distribute()
	}
	if s.o.Quotas {
		s.applyQuotas(p)
	}
	return nil
}

// putName returns the name of the stream a put is for, in place if it can.
func (s *Service) putName(b *aws.Batch) ([]byte, error) {
	if b.StreamARN == nil && b.StreamName != nil {
		return b.StreamName, nil
	}
	var name, streamARN *string
	if b.StreamName != nil {
		n := string(b.StreamName)
		name = &n
	}
	if b.StreamARN != nil {
		a := string(b.StreamARN)
		streamARN = &a
	}
	n, err := s.nameOf(name, streamARN)
	return []byte(n), err
}

// text is b as a string without a copy, for callees that keep nothing.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// check finds what is wrong with the records and reads their explicit hash keys.
func (p *put) check(auto bool) error {
	limit := p.st.Config().MaxRecordBytes
	for i := range p.batch.Records {
		r := &p.batch.Records[i]
		p.keys = append(p.keys, explicitKey{})
		size := r.Data.Len() + len(r.PartitionKey)
		p.size += size
		switch {
		case r.PartitionKey == nil && !auto:
			return aws.ValidationError(aws.Violation{Value: aws.Null, Path: p.path(i, "partitionKey"), Constraint: aws.MustNotBeNull})
		case r.Data.Len() > limit:
			return aws.ValidationError(aws.Violation{
				Value: fmt.Sprintf("java.nio.HeapByteBuffer[pos=0 lim=%d cap=%[1]d]", r.Data.Len()),
				Path:  p.path(i, "data"), Constraint: fmt.Sprintf("Member must have length less than or equal to %d", limit),
			})
		case size > limit:
			return aws.InvalidArgument.New("The size of record %d, its data and its partition key, is %d bytes, which exceeds the maximum record size of stream %s, %d bytes.",
				i+1, size, p.st.Name(), limit)
		case auto || r.ExplicitHashKey == nil:
			continue
		}
		key, err := record.ParseHashKey(text(r.ExplicitHashKey))
		if err != nil {
			return aws.InvalidArgument.New("Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", r.ExplicitHashKey)
		}
		p.keys[i] = explicitKey{true, key}
	}
	if p.many && p.size > maxRequestBytes {
		return aws.InvalidArgument.New("Records size exceeds 10 MB limit")
	}
	return nil
}

// path is the place of a record's member in validation errors.
func (p *put) path(i int, member string) string {
	if p.many {
		return fmt.Sprintf("records.%d.member.%s", i+1, member)
	}
	return member
}

// checkOrdering checks SequenceNumberForOrdering: a number of a time to come is
// refused. Any other is below every number still to be given out in its shard.
func (s *Service) checkOrdering(p *put) error {
	if p.batch.SequenceNumberForOrdering == nil {
		return nil
	}
	given := string(p.batch.SequenceNumberForOrdering)
	n, err := record.ParseSequenceNumber(given)
	if err == nil && n.Seconds() <= s.now().Unix() && n.Index() != record.MaxIndex || err != nil && olderSequence(given) {
		return nil
	}
	return aws.InvalidArgument.New("ExclusiveMinimumSequenceNumber %s used in PutRecord on stream %s under account %s is invalid.",
		given, p.st.Name(), s.o.Account)
}

// distribute spreads the records over the open shards in turn, whatever their
// keys are.
func (p *put) distribute() {
	shards := p.st.Shards()
	open := shards[:0]
	for i := range shards {
		if shards[i].Open() {
			open = append(open, shards[i])
		}
	}
	if len(open) == 0 {
		return
	}
	at := p.st.spread.Add(uint64(len(p.keys))) - uint64(len(p.keys))
	for i := range p.keys {
		p.keys[i] = explicitKey{true, open[(at+uint64(i))%uint64(len(open))].Hash.First}
	}
}

// applyQuotas marks the records that their shard has no room for.
func (s *Service) applyQuotas(p *put) {
	shards := p.st.Shards()
	now := s.now()
	for i := range p.batch.Records {
		r := &p.batch.Records[i]
		key := p.keys[i].key
		if !p.keys[i].set {
			key = record.HashOf(r.PartitionKey)
		}
		var ref refusal
		for j := range shards {
			if shards[j].Open() && shards[j].Hash.Contains(key) {
				ref.shard = shards[j].Number
				ref.set = !p.st.quotas.write(ref.shard, r.Data.Len()+len(r.PartitionKey), now)
				break
			}
		}
		if ref.set {
			p.failed++
		}
		p.refused = append(p.refused, ref)
	}
}

// write stores the records that were not refused, decoding their data straight
// into the open group's buffers, and returns when they are on disk. p.txn then
// holds their places, until it is released. When it fails, nothing was written
// unless the error is storage.ErrOutcomeUnknown.
func (s *Service) write(ctx context.Context, p *put) error {
	// It bounds the wait for a group, too, which the first reservation may need.
	defer p.patience.End()
	txn, err := s.store.Begin(p.patience.Begin(ctx, s.o.AdmissionWait), p.size)
	if err != nil {
		return err
	}
	for i := range p.batch.Records {
		if p.failed > 0 && p.refused[i].set {
			continue
		}
		if err := p.reserve(txn, i); err != nil {
			txn.Release()
			return err
		}
	}
	if err := txn.Commit(ctx); err != nil {
		txn.Release()
		return err
	}
	p.txn = txn
	return nil
}

// reserve decodes one record into the transaction.
func (p *put) reserve(txn *storage.Txn, i int) error {
	r := &p.batch.Records[i]
	var explicit *record.HashKey
	if p.keys[i].set {
		explicit = &p.keys[i].key
	}
	data, err := txn.Reserve(p.st.Stream, r.PartitionKey, explicit, r.Data.Len())
	if err != nil {
		return err
	}
	return r.Data.Decode(data)
}

// The parts of a PutRecords answer in JSON, put end to end.
const (
	jsonFailed   = `{"FailedRecordCount":`
	jsonRecords  = `,"Records":[`
	jsonSequence = `{"SequenceNumber":"`
	jsonShard    = `","ShardId":"`
	jsonEndEntry = `"}`
	jsonEnd      = `]}`
)

// writeResults answers a PutRecords that was stored, in whole or but for the
// records its shards have no room for.
func (s *Service) writeResults(c *aws.Call, p *put) {
	w := c.Writer()
	if c.Encoding == aws.JSON && p.failed == 0 {
		p.appendJSON(w)
		c.Finish(w)
		return
	}
	w.BeginMap()
	w.Key("FailedRecordCount")
	w.Int(int64(p.failed))
	w.Key("Records")
	w.BeginList()
	stored := 0
	for i := range p.batch.Records {
		w.BeginMap()
		if p.failed > 0 && p.refused[i].set {
			w.Key("ErrorCode")
			w.String(aws.ProvisionedThroughputExceeded.Name)
			w.Key("ErrorMessage")
			w.String(s.rateExceeded(p.st, p.refused[i].shard))
		} else {
			p.writeResult(w, stored)
			stored++
		}
		w.EndMap()
	}
	w.EndList()
	w.EndMap()
	c.Finish(w)
}

// appendJSON is the answer that nearly every PutRecords gets.
func (p *put) appendJSON(w *aws.Writer) {
	b := append(w.Buf, jsonFailed...)
	b = append(b, '0')
	b = append(b, jsonRecords...)
	for i := range p.batch.Records {
		if i > 0 {
			b = append(b, ',')
		}
		shard, index, arrival := p.txn.Result(i)
		b = append(b, jsonSequence...)
		b = p.st.sequence(shard, index, arrival).AppendTo(b)
		b = append(b, jsonShard...)
		b = appendShardID(b, shard)
		b = append(b, jsonEndEntry...)
	}
	w.Buf = append(b, jsonEnd...)
}

// writeResult writes the members that say where a stored record is.
func (p *put) writeResult(w *aws.Writer, i int) {
	shard, index, arrival := p.txn.Result(i)
	var buf [64]byte
	w.Key("SequenceNumber")
	w.Text(p.st.sequence(shard, index, arrival).AppendTo(buf[:0]))
	w.Key("ShardId")
	w.Text(appendShardID(buf[:0], shard))
}

// appendShardID appends "shardId-" and twelve digits.
func appendShardID(b []byte, n record.ShardNumber) []byte {
	b = append(b, "shardId-000000000000"...)
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// writeRefusal answers a PutRecords of which nothing was stored.
func (p *put) writeRefusal(c *aws.Call, code, message string) {
	w := c.Writer()
	w.BeginMap()
	w.Key("FailedRecordCount")
	w.Int(int64(len(p.batch.Records)))
	w.Key("Records")
	w.BeginList()
	for range p.batch.Records {
		w.BeginMap()
		w.Key("ErrorCode")
		w.String(code)
		w.Key("ErrorMessage")
		w.String(message)
		w.EndMap()
	}
	w.EndList()
	w.EndMap()
	c.Finish(w)
}

func (s *Service) rateExceeded(st *stream, n record.ShardNumber) string {
	return fmt.Sprintf("Rate exceeded for shard %s in stream %s under account %s.", n, st.Name(), s.o.Account)
}

// refusalOf is the per-record error of a PutRecords that could not be stored:
// the store's back-pressure, or that its fate is not known. Clients send such
// records again. Any other error, with an empty code, fails the call.
func (s *Service) refusalOf(err error, st *stream) (code, message string) {
	var known *aws.Error
	switch {
	case errors.As(err, &known):
		return "", ""
	case isBackPressure(err):
		return aws.ProvisionedThroughputExceeded.Name, s.backPressure(err, st)
	case errors.Is(err, storage.ErrStreamNotFound), errors.Is(err, storage.ErrClosed), errors.Is(err, storage.ErrTooLarge):
		return "", ""
	}
	s.o.Logger.Error("records not stored", "stream", st.Name(), "error", err)
	return "InternalFailure", "Internal Service Failure"
}

func isBackPressure(err error) bool {
	return errors.Is(err, storage.ErrDiskFull) || errors.Is(err, storage.ErrReadOnly) || errors.Is(err, context.DeadlineExceeded)
}

func (s *Service) backPressure(err error, st *stream) string {
	return fmt.Sprintf("Rate exceeded for stream %s under account %s: this server takes no records now, %s.", st.Name(), s.o.Account, reasonOf(err))
}

// writeError is what the caller of a put sees of an error of the store.
func (s *Service) writeError(err error, st *stream) error {
	if isBackPressure(err) {
		return &aws.Error{Kind: aws.ProvisionedThroughputExceeded, Message: s.backPressure(err, st), Cause: err}
	}
	if errors.Is(err, storage.ErrTooLarge) {
		return aws.InvalidArgument.New("A record is too large for stream %s: %v", st.Name(), err)
	}
	return s.storeError(err, st.Name())
}
