package kinesis

import (
	"context"
	"errors"
	"math/big"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// position is where a client wants to begin to read: the members of
// GetShardIterator, or the StartingPosition of SubscribeToShard.
type position struct {
	kind     string
	sequence *string
	at       *time.Time
}

func (s *Service) getShardIterator(_ context.Context, c *aws.Call, in *getShardIteratorInput) (*getShardIteratorOutput, error) {
	n, err := s.nameOf(in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	if err := c.Authorize(n); err != nil {
		return nil, err
	}
	number, err := parseShard(in.ShardId)
	if err != nil {
		return nil, aws.ResourceNotFound.New("Could not find shard %s in stream %s under account %s.", in.ShardId, n, s.o.Account)
	}
	st, err := s.stream([]byte(n))
	if err != nil {
		return nil, s.readError(err, n, number)
	}
	info, err := st.Shard(number)
	if err != nil {
		return nil, s.readError(err, n, number)
	}
	index, err := s.resolve(st, &info, position{in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp}, "GetShardIterator")
	if err != nil {
		return nil, err
	}
	if in.DryRun != nil && *in.DryRun {
		return nil, aws.DryRunOperation.Default()
	}
	token := string(s.appendIterator(nil, &iterator{streamID: st.ID(), shard: number, index: index, issued: s.now(), stream: st.Name()}))
	return &getShardIteratorOutput{ShardIterator: &token}, nil
}

// readError is what a client sees of an error of the store while it reads.
func (s *Service) readError(err error, stream string, n record.ShardNumber) error {
	if errors.Is(err, storage.ErrStreamNotFound) || errors.Is(err, storage.ErrShardNotFound) {
		return aws.ResourceNotFound.New("Shard %s in stream %s under account %s does not exist", n, stream, s.o.Account)
	}
	return s.storeError(err, stream)
}

// resolve turns a position into the index of the first record to read. What
// stands for "now" is fixed here: records written later are read.
func (s *Service) resolve(st *stream, info *storage.ShardInfo, p position, operation string) (uint64, error) {
	switch p.kind {
	case "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER":
		if p.sequence == nil {
			return 0, needsSequence(p.kind, "no")
		}
		return s.resolveSequence(st, info, p, operation)
	case "AT_TIMESTAMP":
		if p.at == nil {
			return 0, aws.InvalidArgument.New("Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
		}
		if now := s.now(); p.at.After(now) {
			return 0, aws.InvalidArgument.New("The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d",
				p.at.UnixMilli(), now.UnixMilli())
		}
		return s.seek(st, info.Number, storage.Position{Kind: storage.AtTime, Time: *p.at})
	}
	if p.sequence != nil {
		return 0, needsSequence(p.kind, "also a")
	}
	if p.kind == "LATEST" {
		return s.seek(st, info.Number, storage.Position{Kind: storage.Latest})
	}
	return 0, nil
}

// needsSequence says that a sequence number was given or left out wrongly.
func needsSequence(kind, what string) error {
	return aws.InvalidArgument.New("Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified %s and %s StartingSequenceNumber.", kind, what)
}

func (s *Service) seek(st *stream, n record.ShardNumber, p storage.Position) (uint64, error) {
	r, err := st.NewReader(n, p)
	if err != nil {
		return 0, s.readError(err, st.Name(), n)
	}
	defer r.Close()
	return r.Position(), nil
}

// resolveSequence checks that a sequence number is one of the shard's.
func (s *Service) resolveSequence(st *stream, info *storage.ShardInfo, p position, operation string) (uint64, error) {
	invalid := func(why string) error {
		return aws.InvalidArgument.New("StartingSequenceNumber %s used in %s on shard %s in stream %s under account %s is invalid%s.",
			*p.sequence, operation, info.Number, st.Name(), s.o.Account, why)
	}
	n, err := record.ParseSequenceNumber(*p.sequence)
	if err != nil {
		if olderSequence(*p.sequence) {
			return 0, invalid(" because it did not come from this stream")
		}
		return 0, invalid("")
	}
	if n.Shard() != info.Number {
		return 0, aws.InvalidArgument.New("Invalid StartingSequenceNumber. It encodes %s, while it was used in a call to a shard with %s", n.Shard(), info.Number)
	}
	if n.Created() != info.StartingSequenceNumber().Created() {
		return 0, invalid(" because it did not come from this stream")
	}
	if n.Index() == record.MaxIndex {
		return 0, invalid(" because the sequence number has reached max possible value for the shard")
	}
	if p.kind == "AFTER_SEQUENCE_NUMBER" {
		return n.Index() + 1, nil
	}
	return n.Index(), nil
}

var (
	sequenceV1First = new(big.Int).Lsh(big.NewInt(1), 185)
	sequenceV0End   = new(big.Int).Lsh(big.NewInt(1), 129)
)

// olderSequence tells whether text is a sequence number of the layouts before
// version 2: below 2^129, or of 186 bits with a last digit of 1. Such numbers
// are well formed and come from no stream of ours.
func olderSequence(text string) bool {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.Sign() < 0 {
		return false
	}
	if n.Cmp(sequenceV0End) < 0 {
		return true
	}
	return n.BitLen() == sequenceV1First.BitLen() && n.Bit(0) == 1 && n.Bit(1) == 0 && n.Bit(2) == 0 && n.Bit(3) == 0
}
