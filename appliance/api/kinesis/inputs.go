package kinesis

import "time"

// The inputs of the operations and the structures in them, as the service's
// model has them. An
// optional member that is absent is nil. StreamId is taken and ignored: the
// model reserves it.

type addTagsToStreamInput struct {
	StreamName *string           `aws:"shape=StreamName"`
	Tags       map[string]string `aws:"required,shape=TagMap"`
	StreamARN  *string           `aws:"shape=StreamARN"`
	StreamId   *string           `aws:"shape=StreamId"`
}

type channelLoggingUpdateInput struct {
	CloudWatchLogs *cloudWatchLogsUpdateInput `aws:"required"`
}

type cloudWatchLogsUpdateInput struct {
	Enabled       bool    `aws:"required"`
	LogGroupName  *string `aws:"shape=CloudWatchLogGroupName"`
	LogStreamName *string `aws:"shape=CloudWatchLogStreamName"`
}

type createChannelInput struct {
	ChannelName                      string                       `aws:"required,shape=ChannelName"`
	ServiceExecutionRoleARN          string                       `aws:"required,shape=RoleARN"`
	StreamConfigurationList          []channelStreamConfiguration `aws:"required,shape=ChannelStreamConfigurationList"`
	S3DestinationConfiguration       *s3DestinationConfiguration
	S3TablesDestinationConfiguration *s3TablesDestinationConfiguration
	EncryptionConfiguration          *channelEncryptionConfiguration
	Tags                             map[string]string `aws:"shape=TagMap"`
	LoggingConfiguration             *channelLoggingConfiguration
}

type createStreamInput struct {
	StreamName                 string `aws:"required,shape=StreamName"`
	ShardCount                 *int   `aws:"shape=PositiveIntegerObject"`
	StreamModeDetails          *streamModeDetails
	Tags                       map[string]string `aws:"shape=TagMap"`
	WarmThroughputMiBps        *int              `aws:"shape=NaturalIntegerObject"`
	MaxRecordSizeInKiB         *int              `aws:"shape=MaxRecordSizeInKiB"`
	RecordDistributionStrategy *string           `aws:"shape=RecordDistributionStrategy"`
}

type decreaseStreamRetentionPeriodInput struct {
	StreamName           *string `aws:"shape=StreamName"`
	RetentionPeriodHours int     `aws:"required"`
	StreamARN            *string `aws:"shape=StreamARN"`
	StreamId             *string `aws:"shape=StreamId"`
}

type deleteChannelInput struct {
	ChannelARN string `aws:"required,shape=ChannelARN"`
}

type deleteResourcePolicyInput struct {
	ResourceARN string  `aws:"required,shape=ResourceARN"`
	StreamId    *string `aws:"shape=StreamId"`
}

type deleteStreamInput struct {
	StreamName              *string `aws:"shape=StreamName"`
	EnforceConsumerDeletion *bool
	StreamARN               *string `aws:"shape=StreamARN"`
	StreamId                *string `aws:"shape=StreamId"`
}

type deregisterStreamConsumerInput struct {
	StreamARN    *string `aws:"shape=StreamARN"`
	ConsumerName *string `aws:"shape=ConsumerName"`
	ConsumerARN  *string `aws:"shape=ConsumerARN"`
	StreamId     *string `aws:"shape=StreamId"`
}

type describeAccountSettingsInput struct{}

type describeChannelInput struct {
	ChannelARN string `aws:"required,shape=ChannelARN"`
}

type describeLimitsInput struct{}

type describeStreamConsumerInput struct {
	StreamARN    *string `aws:"shape=StreamARN"`
	ConsumerName *string `aws:"shape=ConsumerName"`
	ConsumerARN  *string `aws:"shape=ConsumerARN"`
	StreamId     *string `aws:"shape=StreamId"`
}

type describeStreamInput struct {
	StreamName            *string `aws:"shape=StreamName"`
	Limit                 *int    `aws:"shape=DescribeStreamInputLimit"`
	ExclusiveStartShardId *string `aws:"shape=ShardId"`
	StreamARN             *string `aws:"shape=StreamARN"`
	StreamId              *string `aws:"shape=StreamId"`
}

type describeStreamSummaryInput struct {
	StreamName *string `aws:"shape=StreamName"`
	StreamARN  *string `aws:"shape=StreamARN"`
	StreamId   *string `aws:"shape=StreamId"`
}

type disableEnhancedMonitoringInput struct {
	StreamName        *string  `aws:"shape=StreamName"`
	ShardLevelMetrics []string `aws:"required,shape=MetricsNameList"`
	StreamARN         *string  `aws:"shape=StreamARN"`
	StreamId          *string  `aws:"shape=StreamId"`
}

type enableEnhancedMonitoringInput struct {
	StreamName        *string  `aws:"shape=StreamName"`
	ShardLevelMetrics []string `aws:"required,shape=MetricsNameList"`
	StreamARN         *string  `aws:"shape=StreamARN"`
	StreamId          *string  `aws:"shape=StreamId"`
}

type getRecordsInput struct {
	ShardIterator string  `aws:"required,shape=ShardIterator"`
	Limit         *int    `aws:"shape=GetRecordsInputLimit"`
	StreamARN     *string `aws:"shape=StreamARN"`
	StreamId      *string `aws:"shape=StreamId"`
	DryRun        *bool
}

type getResourcePolicyInput struct {
	ResourceARN string  `aws:"required,shape=ResourceARN"`
	StreamId    *string `aws:"shape=StreamId"`
}

type getShardIteratorInput struct {
	StreamName             *string `aws:"shape=StreamName"`
	ShardId                string  `aws:"required,shape=ShardId"`
	ShardIteratorType      string  `aws:"required,shape=ShardIteratorType"`
	StartingSequenceNumber *string `aws:"shape=SequenceNumber"`
	Timestamp              *time.Time
	StreamARN              *string `aws:"shape=StreamARN"`
	StreamId               *string `aws:"shape=StreamId"`
	DryRun                 *bool
}

type increaseStreamRetentionPeriodInput struct {
	StreamName           *string `aws:"shape=StreamName"`
	RetentionPeriodHours int     `aws:"required"`
	StreamARN            *string `aws:"shape=StreamARN"`
	StreamId             *string `aws:"shape=StreamId"`
}

type listChannelsInput struct {
	StreamFilter []streamFilter `aws:"shape=StreamFilterList"`
	MaxResults   *int           `aws:"shape=ListChannelsInputLimit"`
	NextToken    *string        `aws:"shape=NextToken"`
}

type listShardsInput struct {
	StreamName              *string `aws:"shape=StreamName"`
	NextToken               *string `aws:"shape=NextToken"`
	ExclusiveStartShardId   *string `aws:"shape=ShardId"`
	MaxResults              *int    `aws:"shape=ListShardsInputLimit"`
	StreamCreationTimestamp *time.Time
	ShardFilter             *shardFilter
	StreamARN               *string `aws:"shape=StreamARN"`
	StreamId                *string `aws:"shape=StreamId"`
}

type listStreamConsumersInput struct {
	StreamARN               string  `aws:"required,shape=StreamARN"`
	NextToken               *string `aws:"shape=NextToken"`
	MaxResults              *int    `aws:"shape=ListStreamConsumersInputLimit"`
	StreamCreationTimestamp *time.Time
	StreamId                *string `aws:"shape=StreamId"`
}

type listStreamsInput struct {
	Limit                    *int    `aws:"shape=ListStreamsInputLimit"`
	ExclusiveStartStreamName *string `aws:"shape=StreamName"`
	NextToken                *string `aws:"shape=NextToken"`
}

type listTagsForResourceInput struct {
	ResourceARN string  `aws:"required,shape=ResourceARN"`
	StreamId    *string `aws:"shape=StreamId"`
}

type listTagsForStreamInput struct {
	StreamName           *string `aws:"shape=StreamName"`
	ExclusiveStartTagKey *string `aws:"shape=TagKey"`
	Limit                *int    `aws:"shape=ListTagsForStreamInputLimit"`
	StreamARN            *string `aws:"shape=StreamARN"`
	StreamId             *string `aws:"shape=StreamId"`
}

type mergeShardsInput struct {
	StreamName           *string `aws:"shape=StreamName"`
	ShardToMerge         string  `aws:"required,shape=ShardId"`
	AdjacentShardToMerge string  `aws:"required,shape=ShardId"`
	StreamARN            *string `aws:"shape=StreamARN"`
	StreamId             *string `aws:"shape=StreamId"`
}

type minimumThroughputBillingCommitmentInput struct {
	Status string `aws:"required,shape=MinimumThroughputBillingCommitmentInputStatus"`
}

type putResourcePolicyInput struct {
	ResourceARN string  `aws:"required,shape=ResourceARN"`
	StreamId    *string `aws:"shape=StreamId"`
	Policy      string  `aws:"required"`
}

type registerStreamConsumerInput struct {
	StreamARN    string            `aws:"required,shape=StreamARN"`
	ConsumerName string            `aws:"required,shape=ConsumerName"`
	StreamId     *string           `aws:"shape=StreamId"`
	Tags         map[string]string `aws:"shape=TagMap"`
}

type removeTagsFromStreamInput struct {
	StreamName *string  `aws:"shape=StreamName"`
	TagKeys    []string `aws:"required,shape=TagKeyList"`
	StreamARN  *string  `aws:"shape=StreamARN"`
	StreamId   *string  `aws:"shape=StreamId"`
}

type s3DestinationUpdateInput struct {
	DataFreshnessInSeconds int `aws:"required"`
}

type s3TablesDestinationUpdateInput struct {
	DataFreshnessInSeconds int `aws:"required"`
}

type splitShardInput struct {
	StreamName         *string `aws:"shape=StreamName"`
	ShardToSplit       string  `aws:"required,shape=ShardId"`
	NewStartingHashKey string  `aws:"required,shape=HashKey"`
	StreamARN          *string `aws:"shape=StreamARN"`
	StreamId           *string `aws:"shape=StreamId"`
}

type startStreamEncryptionInput struct {
	StreamName     *string `aws:"shape=StreamName"`
	EncryptionType string  `aws:"required,shape=EncryptionType"`
	KeyId          string  `aws:"required,shape=KeyId"`
	StreamARN      *string `aws:"shape=StreamARN"`
	StreamId       *string `aws:"shape=StreamId"`
}

type stopStreamEncryptionInput struct {
	StreamName     *string `aws:"shape=StreamName"`
	EncryptionType string  `aws:"required,shape=EncryptionType"`
	KeyId          string  `aws:"required,shape=KeyId"`
	StreamARN      *string `aws:"shape=StreamARN"`
	StreamId       *string `aws:"shape=StreamId"`
}

type subscribeToShardInput struct {
	ConsumerARN      string            `aws:"required,shape=ConsumerARN"`
	StreamId         *string           `aws:"shape=StreamId"`
	ShardId          string            `aws:"required,shape=ShardId"`
	StartingPosition *startingPosition `aws:"required"`
	DryRun           *bool
}

type tagResourceInput struct {
	Tags        map[string]string `aws:"required,shape=TagMap"`
	ResourceARN string            `aws:"required,shape=ResourceARN"`
	StreamId    *string           `aws:"shape=StreamId"`
}

type untagResourceInput struct {
	TagKeys     []string `aws:"required,shape=TagKeyList"`
	ResourceARN string   `aws:"required,shape=ResourceARN"`
	StreamId    *string  `aws:"shape=StreamId"`
}

type updateAccountSettingsInput struct {
	MinimumThroughputBillingCommitment *minimumThroughputBillingCommitmentInput `aws:"required"`
}

type updateChannelInput struct {
	ChannelARN                       string `aws:"required,shape=ChannelARN"`
	S3DestinationConfiguration       *s3DestinationUpdateInput
	S3TablesDestinationConfiguration *s3TablesDestinationUpdateInput
	LoggingConfiguration             *channelLoggingUpdateInput
}

type updateMaxRecordSizeInput struct {
	StreamARN          *string `aws:"shape=StreamARN"`
	StreamId           *string `aws:"shape=StreamId"`
	MaxRecordSizeInKiB int     `aws:"required,shape=MaxRecordSizeInKiB"`
}

type updateShardCountInput struct {
	StreamName       *string `aws:"shape=StreamName"`
	TargetShardCount int     `aws:"required,shape=PositiveIntegerObject"`
	ScalingType      string  `aws:"required,shape=ScalingType"`
	StreamARN        *string `aws:"shape=StreamARN"`
	StreamId         *string `aws:"shape=StreamId"`
}

type updateStreamModeInput struct {
	StreamARN           string             `aws:"required,shape=StreamARN"`
	StreamId            *string            `aws:"shape=StreamId"`
	StreamModeDetails   *streamModeDetails `aws:"required"`
	WarmThroughputMiBps *int               `aws:"shape=NaturalIntegerObject"`
}

type updateStreamRecordDistributionStrategyInput struct {
	StreamARN                  string  `aws:"required,shape=StreamARN"`
	StreamId                   *string `aws:"shape=StreamId"`
	RecordDistributionStrategy string  `aws:"required,shape=RecordDistributionStrategy"`
}

type updateStreamWarmThroughputInput struct {
	StreamARN           *string `aws:"shape=StreamARN"`
	StreamName          *string `aws:"shape=StreamName"`
	StreamId            *string `aws:"shape=StreamId"`
	WarmThroughputMiBps int     `aws:"required,shape=NaturalIntegerObject"`
}

type channelEncryptionConfiguration struct {
	EncryptionType string `aws:"required,shape=ChannelEncryptionType"`
	KeyId          string `aws:"required,shape=KeyId"`
}

type channelLoggingConfiguration struct {
	CloudWatchLogs *cloudWatchLogs `aws:"required"`
}

type channelStreamConfiguration struct {
	StreamARN           string               `aws:"required,shape=StreamARN"`
	RecordConfiguration *recordConfiguration `aws:"required"`
}

type cloudWatchLogs struct {
	Enabled       bool    `aws:"required"`
	LogGroupName  *string `aws:"shape=CloudWatchLogGroupName"`
	LogStreamName *string `aws:"shape=CloudWatchLogStreamName"`
}

type deadLetterQueueS3Configuration struct {
	BucketARN           string  `aws:"required,shape=BucketARN"`
	ExpectedBucketOwner string  `aws:"required,shape=ExpectedBucketOwner"`
	ErrorOutputPrefix   *string `aws:"shape=S3ErrorOutputPrefix"`
}

type partitionField struct {
	Transform  string `aws:"required,shape=PartitionTransform"`
	SourceName string `aws:"required,shape=PartitionSourceName"`
}

type partitionSpec struct {
	PartitionFields []partitionField `aws:"required,shape=PartitionFieldList"`
}

type recordConfiguration struct {
	RecordFormatType string  `aws:"required,shape=RecordFormatType"`
	GSRSchemaARN     *string `aws:"shape=GSRSchemaARN"`
}

type s3DestinationConfiguration struct {
	DataFreshnessInSeconds         *int
	DeadLetterQueueS3Configuration *deadLetterQueueS3Configuration
	StorageConfiguration           *s3StorageConfiguration `aws:"required"`
}

type s3StorageConfiguration struct {
	BucketARN           string  `aws:"required,shape=BucketARN"`
	ExpectedBucketOwner string  `aws:"required,shape=ExpectedBucketOwner"`
	OutputKeyTemplate   *string `aws:"shape=S3OutputKeyTemplate"`
	StorageClass        *string `aws:"shape=S3StorageClass"`
	CompressionType     string  `aws:"required,shape=S3CompressionType"`
}

type s3TablesConfiguration struct {
	TableBucketARN  string `aws:"required,shape=TableBucketARN"`
	Namespace       string `aws:"required,shape=S3TablesNamespace"`
	TableName       string `aws:"required,shape=S3TablesTableName"`
	CompressionType string `aws:"required,shape=S3TablesCompressionType"`
	PartitionSpec   *partitionSpec
}

type s3TablesDestinationConfiguration struct {
	DataFreshnessInSeconds         *int
	DeadLetterQueueS3Configuration *deadLetterQueueS3Configuration `aws:"required"`
	S3TablesConfigurationList      []s3TablesConfiguration         `aws:"required,shape=S3TablesConfigurationList"`
}

type shardFilter struct {
	Type      string  `aws:"required,shape=ShardFilterType"`
	ShardId   *string `aws:"shape=ShardId"`
	Timestamp *time.Time
}

type startingPosition struct {
	Type           string  `aws:"required,shape=ShardIteratorType"`
	SequenceNumber *string `aws:"shape=SequenceNumber"`
	Timestamp      *time.Time
}

type streamFilter struct {
	StreamARN               string `aws:"required,shape=StreamARN"`
	StreamCreationTimestamp *time.Time
}

type streamModeDetails struct {
	StreamMode string `aws:"required,shape=StreamMode"`
}

type putRecordInput struct {
	StreamName                *string `aws:"shape=StreamName"`
	Data                      []byte  `aws:"required,shape=Data"`
	PartitionKey              *string `aws:"shape=PartitionKey"`
	ExplicitHashKey           *string `aws:"shape=HashKey"`
	SequenceNumberForOrdering *string `aws:"shape=SequenceNumber"`
	StreamARN                 *string `aws:"shape=StreamARN"`
	StreamId                  *string `aws:"shape=StreamId"`
	DryRun                    *bool
}

type putRecordsInput struct {
	Records    []putRecordsRequestEntry `aws:"required,shape=PutRecordsRequestEntryList"`
	StreamName *string                  `aws:"shape=StreamName"`
	StreamARN  *string                  `aws:"shape=StreamARN"`
	StreamId   *string                  `aws:"shape=StreamId"`
	DryRun     *bool
}

type putRecordsRequestEntry struct {
	Data            []byte  `aws:"required,shape=Data"`
	ExplicitHashKey *string `aws:"shape=HashKey"`
	PartitionKey    *string `aws:"shape=PartitionKey"`
}
