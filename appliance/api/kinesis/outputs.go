package kinesis

import "time"

// The outputs of the operations and the structures in them, as the service's
// model has them, except for StreamId, which is never sent: a client that gets
// one leaves the configured endpoint and talks to the real service. Nil
// pointers, slices and maps and zero times are left out of an answer.

type createChannelOutput struct {
	ChannelDescription channelDescription
}

type channelDescription struct {
	ChannelName                      string
	ChannelARN                       string
	ChannelId                        string
	ChannelStatus                    string
	ChannelStatusReason              *string
	ChannelCreationTimestamp         time.Time
	ServiceExecutionRoleARN          string
	StreamConfigurationList          []channelStreamDescription
	S3DestinationConfiguration       *s3DestinationConfiguration
	S3TablesDestinationConfiguration *s3TablesDestinationConfiguration
	EncryptionConfiguration          *channelEncryptionConfiguration
	LoggingConfiguration             *channelLoggingConfiguration
}

type channelStreamDescription struct {
	StreamARN               string
	StreamCreationTimestamp time.Time
	RecordConfiguration     *recordConfiguration
}

type describeAccountSettingsOutput struct {
	MinimumThroughputBillingCommitment *minimumThroughputBillingCommitmentOutput
}

type minimumThroughputBillingCommitmentOutput struct {
	Status               string
	StartedAt            time.Time
	EndedAt              time.Time
	EarliestAllowedEndAt time.Time
}

type describeChannelOutput struct {
	ChannelDescription channelDescription
}

type describeLimitsOutput struct {
	ShardLimit               int
	OpenShardCount           int
	OnDemandStreamCount      int
	OnDemandStreamCountLimit int
	ChannelCount             *int
	ChannelCountLimit        *int
}

type describeStreamOutput struct {
	StreamDescription streamDescription
}

type streamDescription struct {
	StreamName              string
	StreamARN               string
	StreamStatus            string
	StreamModeDetails       *streamModeDetails
	Shards                  []shardOutput
	HasMoreShards           bool
	RetentionPeriodHours    int
	StreamCreationTimestamp time.Time
	EnhancedMonitoring      []enhancedMetrics
	EncryptionType          *string
	KeyId                   *string
}

type shardOutput struct {
	ShardId               string
	ParentShardId         *string
	AdjacentParentShardId *string
	HashKeyRange          hashKeyRange
	SequenceNumberRange   sequenceNumberRange
}

type hashKeyRange struct {
	StartingHashKey string
	EndingHashKey   string
}

type sequenceNumberRange struct {
	StartingSequenceNumber string
	EndingSequenceNumber   *string
}

type enhancedMetrics struct {
	ShardLevelMetrics []string
}

type describeStreamConsumerOutput struct {
	ConsumerDescription consumerDescription
}

type consumerDescription struct {
	ConsumerName              string
	ConsumerARN               string
	ConsumerStatus            string
	ConsumerCreationTimestamp time.Time
	StreamARN                 string
}

type describeStreamSummaryOutput struct {
	StreamDescriptionSummary streamDescriptionSummary
}

type streamDescriptionSummary struct {
	StreamName                 string
	StreamARN                  string
	StreamStatus               string
	StreamModeDetails          *streamModeDetails
	RetentionPeriodHours       int
	StreamCreationTimestamp    time.Time
	EnhancedMonitoring         []enhancedMetrics
	EncryptionType             *string
	KeyId                      *string
	OpenShardCount             int
	ConsumerCount              *int
	WarmThroughput             *warmThroughputObject
	MaxRecordSizeInKiB         *int
	ChannelCount               *int
	RecordDistributionStrategy *string
}

type warmThroughputObject struct {
	TargetMiBps  *int
	CurrentMiBps *int
}

type enhancedMonitoringOutput struct {
	StreamName               *string
	CurrentShardLevelMetrics []string
	DesiredShardLevelMetrics []string
	StreamARN                *string
}

type childShard struct {
	ShardId      string
	ParentShards []string
	HashKeyRange hashKeyRange
}

type getResourcePolicyOutput struct {
	Policy string
}

type getShardIteratorOutput struct {
	ShardIterator *string
}

type listChannelsOutput struct {
	ChannelSummaries []channelSummary
	NextToken        *string
}

type channelSummary struct {
	ChannelName              string
	ChannelARN               string
	ChannelId                string
	ChannelStatus            string
	ChannelStatusReason      *string
	ChannelCreationTimestamp time.Time
	ChannelDestinationType   string
	Streams                  []channelStreamIdentifier
}

type channelStreamIdentifier struct {
	StreamARN               string
	StreamCreationTimestamp time.Time
}

type listShardsOutput struct {
	Shards    []shardOutput
	NextToken *string
}

type listStreamConsumersOutput struct {
	Consumers []consumerOutput
	NextToken *string
}

type consumerOutput struct {
	ConsumerName              string
	ConsumerARN               string
	ConsumerStatus            string
	ConsumerCreationTimestamp time.Time
}

type listStreamsOutput struct {
	StreamNames     []string
	HasMoreStreams  bool
	NextToken       *string
	StreamSummaries []streamSummary
}

type streamSummary struct {
	StreamName              string
	StreamARN               string
	StreamStatus            string
	StreamModeDetails       *streamModeDetails
	StreamCreationTimestamp time.Time
}

type listTagsForResourceOutput struct {
	Tags []tagOutput
}

type tagOutput struct {
	Key   string
	Value *string
}

type listTagsForStreamOutput struct {
	Tags        []tagOutput
	HasMoreTags bool
}

type registerStreamConsumerOutput struct {
	Consumer consumerOutput
}

type updateAccountSettingsOutput struct {
	MinimumThroughputBillingCommitment *minimumThroughputBillingCommitmentOutput
}

type updateChannelOutput struct {
	ChannelDescription channelDescription
}

type updateShardCountOutput struct {
	StreamName        *string
	CurrentShardCount *int
	TargetShardCount  *int
	StreamARN         *string
}

type updateStreamWarmThroughputOutput struct {
	StreamARN      *string
	StreamName     *string
	WarmThroughput *warmThroughputObject
}
