package firehose

import "time"

// The structures of the service's API model, version 2015-08-04, as far as they
// are served. A new version of the model is a change of these and of the table
// in model.go. Members that point to unserved are there to be refused.

// unserved is a structure of which only the presence matters.
type unserved struct{}

type bufferingHints struct {
	SizeInMBs         *int `aws:"shape=SizeInMBs"`
	IntervalInSeconds *int `aws:"shape=IntervalInSeconds"`
}

type cloudWatchLoggingOptions struct {
	Enabled       *bool
	LogGroupName  *string `aws:"shape=LogGroupName"`
	LogStreamName *string `aws:"shape=LogStreamName"`
}

type createDeliveryStreamInput struct {
	DeliveryStreamName                                 *string `aws:"required,shape=DeliveryStreamName"`
	DeliveryStreamType                                 *string `aws:"shape=DeliveryStreamType"`
	DirectPutSourceConfiguration                       *directPutSourceConfiguration
	KinesisStreamSourceConfiguration                   *kinesisStreamSourceConfiguration
	DeliveryStreamEncryptionConfigurationInput         *deliveryStreamEncryptionConfigurationInput
	S3DestinationConfiguration                         *s3DestinationConfiguration
	ExtendedS3DestinationConfiguration                 *extendedS3DestinationConfiguration
	RedshiftDestinationConfiguration                   *unserved
	ElasticsearchDestinationConfiguration              *unserved
	AmazonopensearchserviceDestinationConfiguration    *unserved
	SplunkDestinationConfiguration                     *unserved
	HTTPEndpointDestinationConfiguration               *httpEndpointDestinationConfiguration `aws:"name=HttpEndpointDestinationConfiguration"`
	Tags                                               []tag                                 `aws:"shape=TagDeliveryStreamInputTagList"`
	AmazonOpenSearchServerlessDestinationConfiguration *unserved
	MSKSourceConfiguration                             *unserved
	SnowflakeDestinationConfiguration                  *unserved
	IcebergDestinationConfiguration                    *unserved
	DatabaseSourceConfiguration                        *unserved
}

type createDeliveryStreamOutput struct {
	DeliveryStreamARN *string
}

type dataFormatConversionConfiguration struct {
	SchemaConfiguration       *schemaConfiguration
	InputFormatConfiguration  *inputFormatConfiguration
	OutputFormatConfiguration *outputFormatConfiguration
	Enabled                   *bool
}

type deleteDeliveryStreamInput struct {
	DeliveryStreamName *string `aws:"required,shape=DeliveryStreamName"`
	AllowForceDelete   *bool
}

type deliveryStreamDescription struct {
	DeliveryStreamName                    *string
	DeliveryStreamARN                     *string
	DeliveryStreamStatus                  *string
	DeliveryStreamEncryptionConfiguration *deliveryStreamEncryptionConfiguration
	DeliveryStreamType                    *string
	VersionID                             *string `aws:"name=VersionId"`
	CreateTimestamp                       *time.Time
	LastUpdateTimestamp                   *time.Time
	Source                                *sourceDescription
	Destinations                          []destinationDescription
	HasMoreDestinations                   *bool
}

type deliveryStreamEncryptionConfiguration struct {
	KeyARN  *string
	KeyType *string
	Status  *string
}

type deliveryStreamEncryptionConfigurationInput struct {
	KeyARN  *string `aws:"shape=AWSKMSKeyARN"`
	KeyType *string `aws:"required,shape=KeyType"`
}

type describeDeliveryStreamInput struct {
	DeliveryStreamName          *string `aws:"required,shape=DeliveryStreamName"`
	Limit                       *int    `aws:"shape=DescribeDeliveryStreamInputLimit"`
	ExclusiveStartDestinationID *string `aws:"name=ExclusiveStartDestinationId,shape=DestinationId"`
}

type describeDeliveryStreamOutput struct {
	DeliveryStreamDescription *deliveryStreamDescription
}

type deserializer struct {
	OpenXJsonSerDe *openXJsonSerDe
	HiveJSONSerDe  *hiveJSONSerDe `aws:"name=HiveJsonSerDe"`
}

type destinationDescription struct {
	DestinationID                      *string `aws:"name=DestinationId"`
	S3DestinationDescription           *s3DestinationDescription
	ExtendedS3DestinationDescription   *extendedS3DestinationDescription
	HTTPEndpointDestinationDescription *httpEndpointDestinationDescription `aws:"name=HttpEndpointDestinationDescription"`
}

type directPutSourceConfiguration struct {
	ThroughputHintInMBs *int `aws:"required,shape=ThroughputHintInMBs"`
}

type directPutSourceDescription struct {
	ThroughputHintInMBs *int
}

type dynamicPartitioningConfiguration struct {
	RetryOptions *retryOptions
	Enabled      *bool
}

type encryptionConfiguration struct {
	NoEncryptionConfig  *string `aws:"shape=NoEncryptionConfig"`
	KMSEncryptionConfig *kMSEncryptionConfig
}

type extendedS3DestinationConfiguration struct {
	RoleARN                           *string `aws:"required,shape=RoleARN"`
	BucketARN                         *string `aws:"required,shape=BucketARN"`
	Prefix                            *string `aws:"shape=Prefix"`
	ErrorOutputPrefix                 *string `aws:"shape=ErrorOutputPrefix"`
	BufferingHints                    *bufferingHints
	CompressionFormat                 *string `aws:"shape=CompressionFormat"`
	EncryptionConfiguration           *encryptionConfiguration
	CloudWatchLoggingOptions          *cloudWatchLoggingOptions
	ProcessingConfiguration           *processingConfiguration
	S3BackupMode                      *string `aws:"shape=S3BackupMode"`
	S3BackupConfiguration             *s3DestinationConfiguration
	DataFormatConversionConfiguration *dataFormatConversionConfiguration
	DynamicPartitioningConfiguration  *dynamicPartitioningConfiguration
	FileExtension                     *string `aws:"shape=FileExtension"`
	CustomTimeZone                    *string `aws:"shape=CustomTimeZone"`
}

type extendedS3DestinationDescription struct {
	RoleARN                           *string
	BucketARN                         *string
	Prefix                            *string
	ErrorOutputPrefix                 *string
	BufferingHints                    *bufferingHints
	CompressionFormat                 *string
	EncryptionConfiguration           *encryptionConfiguration
	CloudWatchLoggingOptions          *cloudWatchLoggingOptions
	ProcessingConfiguration           *processingConfiguration
	S3BackupMode                      *string
	S3BackupDescription               *s3DestinationDescription
	DataFormatConversionConfiguration *dataFormatConversionConfiguration
	DynamicPartitioningConfiguration  *dynamicPartitioningConfiguration
	FileExtension                     *string
	CustomTimeZone                    *string
}

type extendedS3DestinationUpdate struct {
	RoleARN                           *string `aws:"shape=RoleARN"`
	BucketARN                         *string `aws:"shape=BucketARN"`
	Prefix                            *string `aws:"shape=Prefix"`
	ErrorOutputPrefix                 *string `aws:"shape=ErrorOutputPrefix"`
	BufferingHints                    *bufferingHints
	CompressionFormat                 *string `aws:"shape=CompressionFormat"`
	EncryptionConfiguration           *encryptionConfiguration
	CloudWatchLoggingOptions          *cloudWatchLoggingOptions
	ProcessingConfiguration           *processingConfiguration
	S3BackupMode                      *string `aws:"shape=S3BackupMode"`
	S3BackupUpdate                    *s3DestinationUpdate
	DataFormatConversionConfiguration *dataFormatConversionConfiguration
	DynamicPartitioningConfiguration  *dynamicPartitioningConfiguration
	FileExtension                     *string `aws:"shape=FileExtension"`
	CustomTimeZone                    *string `aws:"shape=CustomTimeZone"`
}

type hiveJSONSerDe struct {
	TimestampFormats []string `aws:"shape=ListOfNonEmptyStrings"`
}

type httpEndpointBufferingHints struct {
	SizeInMBs         *int `aws:"shape=HttpEndpointBufferingSizeInMBs"`
	IntervalInSeconds *int `aws:"shape=HttpEndpointBufferingIntervalInSeconds"`
}

type httpEndpointCommonAttribute struct {
	AttributeName  *string `aws:"required,shape=HttpEndpointAttributeName"`
	AttributeValue *string `aws:"required,shape=HttpEndpointAttributeValue"`
}

type httpEndpointConfiguration struct {
	URL       *string `aws:"name=Url,required,shape=HttpEndpointUrl"`
	Name      *string `aws:"shape=HttpEndpointName"`
	AccessKey *string `aws:"shape=HttpEndpointAccessKey"`
}

type httpEndpointDescription struct {
	URL  *string `aws:"name=Url"`
	Name *string
}

type httpEndpointDestinationConfiguration struct {
	EndpointConfiguration       *httpEndpointConfiguration `aws:"required"`
	BufferingHints              *httpEndpointBufferingHints
	CloudWatchLoggingOptions    *cloudWatchLoggingOptions
	RequestConfiguration        *httpEndpointRequestConfiguration
	ProcessingConfiguration     *processingConfiguration
	RoleARN                     *string `aws:"shape=RoleARN"`
	RetryOptions                *httpEndpointRetryOptions
	S3BackupMode                *string                     `aws:"shape=HttpEndpointS3BackupMode"`
	S3Configuration             *s3DestinationConfiguration `aws:"required"`
	SecretsManagerConfiguration *secretsManagerConfiguration
}

type httpEndpointDestinationDescription struct {
	EndpointConfiguration       *httpEndpointDescription
	BufferingHints              *httpEndpointBufferingHints
	CloudWatchLoggingOptions    *cloudWatchLoggingOptions
	RequestConfiguration        *httpEndpointRequestConfiguration
	ProcessingConfiguration     *processingConfiguration
	RoleARN                     *string
	RetryOptions                *httpEndpointRetryOptions
	S3BackupMode                *string
	S3DestinationDescription    *s3DestinationDescription
	SecretsManagerConfiguration *secretsManagerConfiguration
}

type httpEndpointDestinationUpdate struct {
	EndpointConfiguration       *httpEndpointConfiguration
	BufferingHints              *httpEndpointBufferingHints
	CloudWatchLoggingOptions    *cloudWatchLoggingOptions
	RequestConfiguration        *httpEndpointRequestConfiguration
	ProcessingConfiguration     *processingConfiguration
	RoleARN                     *string `aws:"shape=RoleARN"`
	RetryOptions                *httpEndpointRetryOptions
	S3BackupMode                *string `aws:"shape=HttpEndpointS3BackupMode"`
	S3Update                    *s3DestinationUpdate
	SecretsManagerConfiguration *secretsManagerConfiguration
}

type httpEndpointRequestConfiguration struct {
	ContentEncoding  *string                       `aws:"shape=ContentEncoding"`
	CommonAttributes []httpEndpointCommonAttribute `aws:"shape=HttpEndpointCommonAttributesList"`
}

type httpEndpointRetryOptions struct {
	DurationInSeconds *int `aws:"shape=HttpEndpointRetryDurationInSeconds"`
}

type inputFormatConfiguration struct {
	Deserializer *deserializer
}

type kMSEncryptionConfig struct {
	AWSKMSKeyARN *string `aws:"required,shape=AWSKMSKeyARN"`
}

type kinesisStreamSourceConfiguration struct {
	KinesisStreamARN *string `aws:"required,shape=KinesisStreamARN"`
	RoleARN          *string `aws:"required,shape=RoleARN"`
}

type kinesisStreamSourceDescription struct {
	KinesisStreamARN       *string
	RoleARN                *string
	DeliveryStartTimestamp *time.Time
}

type listDeliveryStreamsInput struct {
	Limit                            *int    `aws:"shape=ListDeliveryStreamsInputLimit"`
	DeliveryStreamType               *string `aws:"shape=DeliveryStreamType"`
	ExclusiveStartDeliveryStreamName *string `aws:"shape=DeliveryStreamName"`
}

type listDeliveryStreamsOutput struct {
	DeliveryStreamNames    []string
	HasMoreDeliveryStreams *bool
}

type listTagsForDeliveryStreamInput struct {
	DeliveryStreamName   *string `aws:"required,shape=DeliveryStreamName"`
	ExclusiveStartTagKey *string `aws:"shape=TagKey"`
	Limit                *int    `aws:"shape=ListTagsForDeliveryStreamInputLimit"`
}

type listTagsForDeliveryStreamOutput struct {
	Tags        []tag
	HasMoreTags *bool
}

type openXJsonSerDe struct {
	ConvertDotsInJSONKeysToUnderscores *bool `aws:"name=ConvertDotsInJsonKeysToUnderscores"`
	CaseInsensitive                    *bool
	ColumnToJSONKeyMappings            map[string]string `aws:"name=ColumnToJsonKeyMappings"`
}

type orcSerDe struct {
	StripeSizeBytes                     *int `aws:"shape=OrcStripeSizeBytes"`
	BlockSizeBytes                      *int `aws:"shape=BlockSizeBytes"`
	RowIndexStride                      *int `aws:"shape=OrcRowIndexStride"`
	EnablePadding                       *bool
	PaddingTolerance                    *float64 `aws:"shape=Proportion"`
	Compression                         *string  `aws:"shape=OrcCompression"`
	BloomFilterColumns                  []string `aws:"shape=ListOfNonEmptyStringsWithoutWhitespace"`
	BloomFilterFalsePositiveProbability *float64 `aws:"shape=Proportion"`
	DictionaryKeyThreshold              *float64 `aws:"shape=Proportion"`
	FormatVersion                       *string  `aws:"shape=OrcFormatVersion"`
}

type outputFormatConfiguration struct {
	Serializer *serializer
}

type parquetSerDe struct {
	BlockSizeBytes              *int    `aws:"shape=BlockSizeBytes"`
	PageSizeBytes               *int    `aws:"shape=ParquetPageSizeBytes"`
	Compression                 *string `aws:"shape=ParquetCompression"`
	EnableDictionaryCompression *bool
	MaxPaddingBytes             *int    `aws:"shape=NonNegativeIntegerObject"`
	WriterVersion               *string `aws:"shape=ParquetWriterVersion"`
}

type processingConfiguration struct {
	Enabled    *bool
	Processors []processor
}

type processor struct {
	Type       *string `aws:"required,shape=ProcessorType"`
	Parameters []processorParameter
}

type processorParameter struct {
	ParameterName  *string `aws:"required,shape=ProcessorParameterName"`
	ParameterValue *string `aws:"required,shape=ProcessorParameterValue"`
}

type putRecordBatchInput struct {
	DeliveryStreamName *string  `aws:"required,shape=DeliveryStreamName"`
	Records            []record `aws:"required,shape=PutRecordBatchRequestEntryList"`
}

type putRecordInput struct {
	DeliveryStreamName *string `aws:"required,shape=DeliveryStreamName"`
	Record             *record `aws:"required"`
}

type record struct {
	Data []byte `aws:"required,shape=Data"`
}

type retryOptions struct {
	DurationInSeconds *int `aws:"shape=RetryDurationInSeconds"`
}

type s3DestinationConfiguration struct {
	RoleARN                  *string `aws:"required,shape=RoleARN"`
	BucketARN                *string `aws:"required,shape=BucketARN"`
	Prefix                   *string `aws:"shape=Prefix"`
	ErrorOutputPrefix        *string `aws:"shape=ErrorOutputPrefix"`
	BufferingHints           *bufferingHints
	CompressionFormat        *string `aws:"shape=CompressionFormat"`
	EncryptionConfiguration  *encryptionConfiguration
	CloudWatchLoggingOptions *cloudWatchLoggingOptions
}

type s3DestinationDescription struct {
	RoleARN                  *string
	BucketARN                *string
	Prefix                   *string
	ErrorOutputPrefix        *string
	BufferingHints           *bufferingHints
	CompressionFormat        *string
	EncryptionConfiguration  *encryptionConfiguration
	CloudWatchLoggingOptions *cloudWatchLoggingOptions
}

type s3DestinationUpdate struct {
	RoleARN                  *string `aws:"shape=RoleARN"`
	BucketARN                *string `aws:"shape=BucketARN"`
	Prefix                   *string `aws:"shape=Prefix"`
	ErrorOutputPrefix        *string `aws:"shape=ErrorOutputPrefix"`
	BufferingHints           *bufferingHints
	CompressionFormat        *string `aws:"shape=CompressionFormat"`
	EncryptionConfiguration  *encryptionConfiguration
	CloudWatchLoggingOptions *cloudWatchLoggingOptions
}

type schemaConfiguration struct {
	RoleARN      *string `aws:"shape=NonEmptyStringWithoutWhitespace"`
	CatalogID    *string `aws:"name=CatalogId,shape=NonEmptyStringWithoutWhitespace"`
	DatabaseName *string `aws:"shape=NonEmptyStringWithoutWhitespace"`
	TableName    *string `aws:"shape=NonEmptyStringWithoutWhitespace"`
	Region       *string `aws:"shape=NonEmptyStringWithoutWhitespace"`
	VersionID    *string `aws:"name=VersionId,shape=NonEmptyStringWithoutWhitespace"`
}

type secretsManagerConfiguration struct {
	SecretARN *string `aws:"shape=SecretARN"`
	RoleARN   *string `aws:"shape=RoleARN"`
	Enabled   *bool   `aws:"required"`
}

type serializer struct {
	ParquetSerDe *parquetSerDe
	OrcSerDe     *orcSerDe
}

type sourceDescription struct {
	DirectPutSourceDescription     *directPutSourceDescription
	KinesisStreamSourceDescription *kinesisStreamSourceDescription
}

type startDeliveryStreamEncryptionInput struct {
	DeliveryStreamName                         *string `aws:"required,shape=DeliveryStreamName"`
	DeliveryStreamEncryptionConfigurationInput *deliveryStreamEncryptionConfigurationInput
}

type stopDeliveryStreamEncryptionInput struct {
	DeliveryStreamName *string `aws:"required,shape=DeliveryStreamName"`
}

type tag struct {
	Key   *string `aws:"required,shape=TagKey"`
	Value *string `aws:"shape=TagValue"`
}

type tagDeliveryStreamInput struct {
	DeliveryStreamName *string `aws:"required,shape=DeliveryStreamName"`
	Tags               []tag   `aws:"required,shape=TagDeliveryStreamInputTagList"`
}

type untagDeliveryStreamInput struct {
	DeliveryStreamName *string  `aws:"required,shape=DeliveryStreamName"`
	TagKeys            []string `aws:"required,shape=TagKeyList"`
}

type updateDestinationInput struct {
	DeliveryStreamName                          *string `aws:"required,shape=DeliveryStreamName"`
	CurrentDeliveryStreamVersionID              *string `aws:"name=CurrentDeliveryStreamVersionId,required,shape=DeliveryStreamVersionId"`
	DestinationID                               *string `aws:"name=DestinationId,required,shape=DestinationId"`
	S3DestinationUpdate                         *s3DestinationUpdate
	ExtendedS3DestinationUpdate                 *extendedS3DestinationUpdate
	RedshiftDestinationUpdate                   *unserved
	ElasticsearchDestinationUpdate              *unserved
	AmazonopensearchserviceDestinationUpdate    *unserved
	SplunkDestinationUpdate                     *unserved
	HTTPEndpointDestinationUpdate               *httpEndpointDestinationUpdate `aws:"name=HttpEndpointDestinationUpdate"`
	AmazonOpenSearchServerlessDestinationUpdate *unserved
	SnowflakeDestinationUpdate                  *unserved
	IcebergDestinationUpdate                    *unserved
}
