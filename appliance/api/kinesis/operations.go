package kinesis

import (
	"errors"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
)

// Target is the service part of X-Amz-Target.
const Target = "Kinesis_20131202"

// operations is the table of the service's operations.
func (s *Service) operations() *aws.Service {
	return aws.NewService(aws.ServiceOptions{Target: Target, Name: "kinesis", CBOR: true, Model: model, Logger: s.o.Logger},
		// Data plane.
		aws.RawOp("PutRecord", s.putRecord),
		aws.RawOp("PutRecords", s.putRecords),
		aws.Op("GetShardIterator", s.getShardIterator),
		aws.RawOp("GetRecords", s.getRecords),
		aws.RawOp("SubscribeToShard", s.subscribeToShard),
		// Streams.
		aws.Op("CreateStream", s.createStream),
		aws.Op("DeleteStream", s.deleteStream),
		aws.Op("DescribeStream", s.describeStream),
		aws.Op("DescribeStreamSummary", s.describeStreamSummary),
		aws.Op("ListStreams", s.listStreams),
		aws.Op("IncreaseStreamRetentionPeriod", s.increaseStreamRetentionPeriod),
		aws.Op("DecreaseStreamRetentionPeriod", s.decreaseStreamRetentionPeriod),
		aws.Op("UpdateMaxRecordSize", s.updateMaxRecordSize),
		aws.Op("UpdateStreamMode", s.updateStreamMode),
		aws.Op("UpdateStreamRecordDistributionStrategy", s.updateStreamRecordDistributionStrategy),
		// Shards.
		aws.Op("ListShards", s.listShards),
		aws.Op("SplitShard", s.splitShard),
		aws.Op("MergeShards", s.mergeShards),
		aws.Op("UpdateShardCount", s.updateShardCount),
		// Fan-out consumers.
		aws.Op("RegisterStreamConsumer", s.registerStreamConsumer),
		aws.Op("DeregisterStreamConsumer", s.deregisterStreamConsumer),
		aws.Op("DescribeStreamConsumer", s.describeStreamConsumer),
		aws.Op("ListStreamConsumers", s.listStreamConsumers),
		// Tags.
		aws.Op("AddTagsToStream", s.addTagsToStream),
		aws.Op("RemoveTagsFromStream", s.removeTagsFromStream),
		aws.Op("ListTagsForStream", s.listTagsForStream),
		aws.Op("TagResource", s.tagResource),
		aws.Op("UntagResource", s.untagResource),
		aws.Op("ListTagsForResource", s.listTagsForResource),
		// Settings that are stored and given back.
		aws.Op("EnableEnhancedMonitoring", s.enableEnhancedMonitoring),
		aws.Op("DisableEnhancedMonitoring", s.disableEnhancedMonitoring),
		aws.Op("StartStreamEncryption", s.startStreamEncryption),
		aws.Op("StopStreamEncryption", s.stopStreamEncryption),
		aws.Op("PutResourcePolicy", s.putResourcePolicy),
		aws.Op("GetResourcePolicy", s.getResourcePolicy),
		aws.Op("DeleteResourcePolicy", s.deleteResourcePolicy),
		aws.Op("UpdateStreamWarmThroughput", s.updateStreamWarmThroughput),
		// Account.
		aws.Op("DescribeLimits", s.describeLimits),
		aws.Op("DescribeAccountSettings", s.describeAccountSettings),
		aws.Op("UpdateAccountSettings", s.updateAccountSettings),
		// Channels.
		aws.Op("CreateChannel", s.createChannel),
		aws.Op("DescribeChannel", s.describeChannel),
		aws.Op("UpdateChannel", s.updateChannel),
		aws.Op("DeleteChannel", s.deleteChannel),
		aws.Op("ListChannels", s.listChannels),
	)
}

// find returns the stream an operation is about, given by name, by ARN or by
// both, after asking whether the caller may.
func (s *Service) find(c *aws.Call, name, streamARN *string) (*stream, error) {
	n, err := s.nameOf(name, streamARN)
	if err != nil {
		return nil, err
	}
	return s.open(c, n)
}

// nameOf returns the name of the stream that an input names.
func (s *Service) nameOf(name, streamARN *string) (string, error) {
	if streamARN == nil {
		if name == nil {
			return "", aws.InvalidArgument.New("Either StreamName or StreamARN should be provided.")
		}
		return *name, nil
	}
	a, ok := parseARN(*streamARN)
	if !ok || a.stream == "" {
		return "", aws.InvalidArgument.New("Invalid StreamARN: %s.", *streamARN)
	}
	if name != nil && *name != a.stream {
		return "", aws.InvalidArgument.New("StreamName %s and StreamARN %s do not name the same stream.", *name, *streamARN)
	}
	if a.account != s.o.Account {
		return "", aws.ResourceNotFound.New("Stream %s under account %s not found.", a.stream, a.account)
	}
	return a.stream, nil
}

// open returns the stream of a name after asking whether the caller may use it.
func (s *Service) open(c *aws.Call, name string) (*stream, error) {
	if err := c.Authorize(name); err != nil {
		return nil, err
	}
	st, err := s.stream([]byte(name))
	if err != nil {
		return nil, s.storeError(err, name)
	}
	return st, nil
}

func (s *Service) notFound(name string) *aws.Error {
	return aws.ResourceNotFound.New("Stream %s under account %s not found.", name, s.o.Account)
}

// storeError is what a client sees of an error of the store in a control-plane
// operation on a stream.
func (s *Service) storeError(err error, name string) error {
	var known *aws.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, storage.ErrStreamNotFound):
		return s.notFound(name)
	case errors.Is(err, storage.ErrStreamExists):
		return aws.ResourceInUse.New("Stream %s under account %s already exists.", name, s.o.Account)
	case errors.Is(err, storage.ErrReadOnly), errors.Is(err, storage.ErrDiskFull):
		return &aws.Error{Kind: aws.LimitExceeded, Message: "This server takes no changes now: " + reasonOf(err) + ".", Cause: err}
	case errors.Is(err, storage.ErrClosed):
		return aws.ServiceUnavailable.Wrap(err)
	}
	return err
}

// reasonOf names the state of the store that an error tells of, for a client.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, storage.ErrDiskFull):
		return "its disk is full"
	case errors.Is(err, storage.ErrReadOnly):
		return "its store is read-only"
	}
	return "it has more to write than it can take in"
}
