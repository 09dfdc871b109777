package firehose

import (
	"context"
	"errors"
	"strconv"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// maxBatchBytes bounds the data of a PutRecordBatch, before base64.
const maxBatchBytes = 4 << 20

var (
	putRecordSchema      = aws.NewBatchSchema[putRecordInput](model)
	putRecordBatchSchema = aws.NewBatchSchema[putRecordBatchInput](model)
)

// noKey is the partition key of DirectPut records: they have none, and their
// buffer has one shard.
var noKey = []byte("-")

func (s *Service) putRecord(ctx context.Context, c *aws.Call) error {
	batch, err := putRecordSchema.Parse(c.Encoding, c.Body())
	if err != nil {
		return err
	}
	return s.putAll(ctx, c, batch, func(w *aws.Writer, st *storage.Stream, txn *storage.Txn, _ int) {
		w.Key("Encrypted")
		w.Bool(false)
		writeID(w, st, txn, 0)
	})
}

func (s *Service) putRecordBatch(ctx context.Context, c *aws.Call) error {
	batch, err := putRecordBatchSchema.Parse(c.Encoding, c.Body())
	if err != nil {
		return err
	}
	return s.putAll(ctx, c, batch, func(w *aws.Writer, st *storage.Stream, txn *storage.Txn, n int) {
		// First, and without a space: Fluent Bit looks for these very bytes.
		w.Key("FailedPutCount")
		w.Int(0)
		w.Key("Encrypted")
		w.Bool(false)
		w.Key("RequestResponses")
		w.BeginList()
		for i := range n {
			w.BeginMap()
			writeID(w, st, txn, i)
			w.EndMap()
		}
		w.EndList()
	})
}

// putAll puts a batch, which it releases, and has members write what the answer
// says about its n records.
func (s *Service) putAll(ctx context.Context, c *aws.Call, batch *aws.Batch, members func(w *aws.Writer, st *storage.Stream, txn *storage.Txn, n int)) error {
	defer batch.Release()
	txn, st, err := s.put(ctx, c, batch)
	if err != nil {
		return err
	}
	defer txn.Release()
	w := c.Writer()
	w.BeginMap()
	members(w, st, txn, len(batch.Records))
	w.EndMap()
	c.Finish(w)
	return nil
}

// writeID writes a record's id: its sequence number in the buffer.
func writeID(w *aws.Writer, st *storage.Stream, txn *storage.Txn, i int) {
	shard, index, arrival := txn.Result(i)
	w.Key("RecordId")
	w.String(st.Sequence(shard, index, arrival).String())
}

// put writes all records of a batch in one commit, or none: a producer that is
// told that some failed either loses them or sends all again. The caller
// releases the transaction.
func (s *Service) put(ctx context.Context, c *aws.Call, batch *aws.Batch) (*storage.Txn, *storage.Stream, error) {
	name := string(batch.DeliveryStreamName)
	if err := c.Authorize(name); err != nil {
		return nil, nil, err
	}
	st, err := s.engine.Buffer(name)
	if err != nil {
		return nil, nil, s.engineError(err, name)
	}
	if st == nil {
		return nil, nil, aws.InvalidArgument.New("This operation is not permitted on KinesisStreamAsSource delivery stream type.")
	}
	size := 0
	for i := range batch.Records {
		n := batch.Records[i].Data.Len()
		if n > delivery.MaxRecordBytes {
			return nil, nil, aws.ValidationError(aws.Violation{
				Value: "java.nio.HeapByteBuffer[pos=0 lim=" + strconv.Itoa(n) + " cap=" + strconv.Itoa(n) + "]",
				Path:  "records." + strconv.Itoa(i+1) + ".member.data", Constraint: "Member must have length less than or equal to 1024000",
			})
		}
		size += n
	}
	if size > maxBatchBytes {
		return nil, nil, aws.InvalidArgument.New("Records size exceeds 4 MB limit")
	}
	return s.write(ctx, st, batch, size)
}

func (s *Service) write(ctx context.Context, st *storage.Stream, batch *aws.Batch, size int) (*storage.Txn, *storage.Stream, error) {
	var patience api.Patience
	defer patience.End()
	txn, err := s.store.Begin(patience.Begin(ctx, s.o.AdmissionWait), size+len(batch.Records)*16)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	for i := range batch.Records {
		data := batch.Records[i].Data
		room, err := txn.Reserve(st, noKey, nil, data.Len())
		if err == nil {
			err = data.Decode(room)
		}
		if err != nil {
			txn.Release()
			return nil, nil, unavailable(err)
		}
	}
	if err := txn.Commit(ctx); err != nil {
		txn.Release()
		return nil, nil, unavailable(err)
	}
	return txn, st, nil
}

// unavailable turns what a producer should try again later into the error
// that makes it do so.
func unavailable(err error) error {
	for _, busy := range []error{
		storage.ErrDiskFull, storage.ErrReadOnly, storage.ErrClosed, storage.ErrOutcomeUnknown, context.DeadlineExceeded,
	} {
		if errors.Is(err, busy) {
			return aws.ServiceUnavailableException.Wrap(err)
		}
	}
	return err
}
