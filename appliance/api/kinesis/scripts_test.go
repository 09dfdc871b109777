package kinesis

import (
	"strings"
	"time"
)

// script is what a transcript is made of: the exchanges of one operation, with
// those of others that set the scene.
type script struct {
	op    string
	steps []step
}

// step is one exchange. in is JSON, whatever the encoding it is sent in, or "raw:"
// and the body itself; {{Member}} in it is what an earlier step saved of its answer.
type step struct {
	op, title, in string
	save          []string
	pass          time.Duration
}

// Steps that set a scene.
var (
	aStream       = step{op: "CreateStream", title: "a stream of two shards", in: `{"StreamName":"s","ShardCount":2}`}
	anOnDemand    = step{op: "CreateStream", title: "an on-demand stream", in: `{"StreamName":"d","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`}
	aRecord       = step{op: "PutRecord", title: "a record", in: `{"StreamName":"s","PartitionKey":"sensor","ExplicitHashKey":"0","Data":"eyJ0IjoyMX0="}`, save: []string{"SequenceNumber"}}
	aSplit        = step{op: "SplitShard", title: "its first shard is split", in: `{"StreamName":"s","ShardToSplit":"shardId-000000000000","NewStartingHashKey":"85070591730234615865843651857942052863"}`}
	aConsumer     = step{op: "RegisterStreamConsumer", title: "a consumer", in: `{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s","ConsumerName":"fan"}`, save: []string{"Consumer.ConsumerARN"}}
	aCommitment   = step{op: "UpdateAccountSettings", title: "the account commits itself", in: `{"MinimumThroughputBillingCommitment":{"Status":"ENABLED"}}`}
	aChannel      = step{op: "CreateChannel", title: "a channel", in: theChannel, save: []string{"ChannelDescription.ChannelARN"}}
	anIterator    = step{op: "GetShardIterator", title: "an iterator", in: `{"StreamName":"s","ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON"}`, save: []string{"ShardIterator"}}
	theStream     = `"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s"`
	theOnDemand   = `"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/d"`
	theResource   = `"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s"`
	missingStream = `{"StreamName":"missing"}`
)

const theChannel = `{"ChannelName":"lake","ServiceExecutionRoleARN":"arn:aws:iam::000000000000:role/edge","StreamConfigurationList":[{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/d","RecordConfiguration":{"RecordFormatType":"JSON"}}],"S3DestinationConfiguration":{"StorageConfiguration":{"BucketARN":"arn:aws:s3:::lake","CompressionType":"ZSTD","ExpectedBucketOwner":"000000000000"}},"Tags":{"site":"roof"}}`

// of makes the steps of an operation: titles and inputs in turn.
func of(op string, setup []step, titlesAndInputs ...string) script {
	sc := script{op: op, steps: setup}
	for i := 0; i < len(titlesAndInputs); i += 2 {
		sc.steps = append(sc.steps, step{op: op, title: titlesAndInputs[i], in: titlesAndInputs[i+1]})
	}
	return sc
}

func scene(steps ...step) []step { return append([]step(nil), steps...) }

func scripts() []script {
	out := append(dataScripts(), streamScripts()...)
	out = append(out, shardScripts()...)
	out = append(out, settingScripts()...)
	return append(out, channelScripts()...)
}

func dataScripts() []script {
	return []script{
		of("PutRecord", scene(aStream),
			"a record", `{"StreamName":"s","PartitionKey":"sensor ✓","Data":"eyJ0IjoyMX0="}`,
			"no data, to a shard of the caller's choice, by ARN", `{`+theStream+`,"PartitionKey":"k","ExplicitHashKey":"340282366920938463463374607431768211455","Data":""}`,
			"dry run", `{"StreamName":"s","PartitionKey":"k","Data":"","DryRun":true}`,
			"no such stream", `{"StreamName":"missing","PartitionKey":"k","Data":""}`,
			"every member missing", `{}`,
			"constraints", `{"StreamName":"no/name","PartitionKey":"","ExplicitHashKey":"-1","Data":""}`,
			"hash key above the range", `{"StreamName":"s","PartitionKey":"k","Data":"","ExplicitHashKey":"340282366920938463463374607431768211456"}`,
			"number of a time to come", `{"StreamName":"s","PartitionKey":"k","Data":"","SequenceNumberForOrdering":"99999999999999999999999999999999999999999999999999999999"}`,
			"no body that can be read", "raw:{",
			"no partition key", `{"StreamName":"s","Data":""}`),
		of("PutRecords", scene(aStream),
			"three records", `{"StreamName":"s","Records":[{"PartitionKey":"a","Data":"MQ=="},{"PartitionKey":"b","Data":"Mg=="},{"PartitionKey":"c","ExplicitHashKey":"0","Data":""}]}`,
			"dry run", `{"StreamName":"s","Records":[{"PartitionKey":"a","Data":"MQ=="}],"DryRun":true}`,
			"no records", `{"StreamName":"s","Records":[]}`,
			"members missing in the second record", `{"StreamName":"s","Records":[{"PartitionKey":"a","Data":"MQ=="},{"PartitionKey":""}]}`,
			"no such stream", `{"StreamName":"missing","Records":[{"PartitionKey":"a","Data":""}]}`),
		of("GetShardIterator", scene(aStream, aRecord),
			"from the oldest record", anIterator.in,
			"behind a record", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"AFTER_SEQUENCE_NUMBER","StartingSequenceNumber":"{{SequenceNumber}}"}`,
			"at a time", `{`+theStream+`,"ShardId":"shardId-000000000000","ShardIteratorType":"AT_TIMESTAMP","Timestamp":1799999999.5}`,
			"a time to come", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"AT_TIMESTAMP","Timestamp":1800000001}`,
			"of another shard", `{"StreamName":"s","ShardId":"1","ShardIteratorType":"AT_SEQUENCE_NUMBER","StartingSequenceNumber":"{{SequenceNumber}}"}`,
			"a number too many", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"LATEST","StartingSequenceNumber":"{{SequenceNumber}}"}`,
			"a number too few", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"AT_SEQUENCE_NUMBER"}`,
			"no such shard", `{"StreamName":"s","ShardId":"shardId-000000000007","ShardIteratorType":"LATEST"}`,
			"no such type", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"SOMEWHERE"}`,
			"dry run", `{"StreamName":"s","ShardId":"0","ShardIteratorType":"LATEST","DryRun":true}`),
		{op: "GetRecords", steps: append(of("", scene(aStream, aRecord, anIterator)).steps,
			step{op: "GetRecords", title: "all there is", in: `{"ShardIterator":"{{ShardIterator}}"}`, save: []string{"NextShardIterator"}},
			step{op: "GetRecords", title: "nothing new", in: `{"ShardIterator":"{{NextShardIterator}}"}`},
			aSplit,
			step{op: "GetRecords", title: "the end of a shard that was split", in: `{"ShardIterator":"{{NextShardIterator}}","Limit":10}`},
			step{op: "GetRecords", title: "dry run", in: `{"ShardIterator":"{{ShardIterator}}","DryRun":true}`},
			step{op: "GetRecords", title: "too many", in: `{"ShardIterator":"{{ShardIterator}}","Limit":10001}`},
			step{op: "GetRecords", title: "no iterator of this server", in: `{"ShardIterator":"AAAAAAAAAAE="}`},
			step{op: "GetRecords", title: "too late", in: `{"ShardIterator":"{{ShardIterator}}"}`, pass: 301 * time.Second},
		)},
		of("SubscribeToShard", scene(aStream, aConsumer, aRecord, aSplit),
			"a record and the end of a shard that was split", `{"ConsumerARN":"{{Consumer.ConsumerARN}}","ShardId":"shardId-000000000000","StartingPosition":{"Type":"TRIM_HORIZON"}}`,
			"no such consumer", `{"ConsumerARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/none:1","ShardId":"0","StartingPosition":{"Type":"LATEST"}}`,
			"no such shard", `{"ConsumerARN":"{{Consumer.ConsumerARN}}","ShardId":"9","StartingPosition":{"Type":"LATEST"}}`,
			"dry run", `{"ConsumerARN":"{{Consumer.ConsumerARN}}","ShardId":"0","StartingPosition":{"Type":"LATEST"},"DryRun":true}`,
			"no position", `{"ConsumerARN":"{{Consumer.ConsumerARN}}","ShardId":"0"}`),
	}
}

func streamScripts() []script {
	return []script{
		of("CreateStream", nil,
			"two shards", aStream.in,
			"four shards, as nothing else is said", `{"StreamName":"four","Tags":{"site":"roof"}}`,
			"on demand", `{"StreamName":"d","StreamModeDetails":{"StreamMode":"ON_DEMAND"},"RecordDistributionStrategy":"AUTO","MaxRecordSizeInKiB":10240}`,
			"a name that is taken", aStream.in,
			"no shards", `{"StreamName":"z","ShardCount":0}`,
			"more shards than the account may have", `{"StreamName":"z","ShardCount":100000}`,
			"shards of an on-demand stream", `{"StreamName":"z","ShardCount":1,"StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`),
		of("DeleteStream", scene(aStream, aConsumer), "with consumers", `{"StreamName":"s"}`, "with consumers, and meant", `{"StreamName":"s","EnforceConsumerDeletion":true}`, "no such stream", `{"StreamName":"s"}`),
		of("DescribeStream", scene(aStream, aSplit),
			"by name", `{"StreamName":"s"}`, "one shard at a time", `{`+theStream+`,"Limit":1,"ExclusiveStartShardId":"shardId-000000000000"}`,
			"no such stream", missingStream, "no name", `{}`),
		of("DescribeStreamSummary", scene(aStream, anOnDemand, aConsumer), "provisioned", `{"StreamName":"s"}`, "on demand", `{`+theOnDemand+`}`, "no such stream", missingStream),
		{op: "ListStreams", steps: append(of("", scene(aStream, anOnDemand)).steps,
			step{op: "ListStreams", title: "all", in: `{}`},
			step{op: "ListStreams", title: "the first page", in: `{"Limit":1}`, save: []string{"NextToken"}},
			step{op: "ListStreams", title: "the last page", in: `{"Limit":1,"NextToken":"{{NextToken}}"}`},
			step{op: "ListStreams", title: "too late", in: `{"NextToken":"{{NextToken}}"}`, pass: 301 * time.Second},
			step{op: "ListStreams", title: "no token of this server", in: `{"NextToken":"bm9uZQ=="}`},
		)},
		of("IncreaseStreamRetentionPeriod", scene(aStream),
			"to two days", `{"StreamName":"s","RetentionPeriodHours":48}`, "below what it is", `{"StreamName":"s","RetentionPeriodHours":24}`,
			"below the least", `{"StreamName":"s","RetentionPeriodHours":1}`, "above the most", `{"StreamName":"s","RetentionPeriodHours":8761}`),
		of("DecreaseStreamRetentionPeriod", scene(aStream), "to what it is", `{"StreamName":"s","RetentionPeriodHours":24}`, "above what it is", `{"StreamName":"s","RetentionPeriodHours":48}`),
		of("UpdateMaxRecordSize", scene(aStream), "10 MiB", `{`+theStream+`,"MaxRecordSizeInKiB":10240}`, "more", `{`+theStream+`,"MaxRecordSizeInKiB":10241}`),
		of("UpdateStreamMode", scene(aStream),
			"on demand", `{`+theStream+`,"StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`, "and back", `{`+theStream+`,"StreamModeDetails":{"StreamMode":"PROVISIONED"}}`,
			"a third time within a day", `{`+theStream+`,"StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`, "no mode", `{`+theStream+`}`),
		of("UpdateStreamRecordDistributionStrategy", scene(aStream, anOnDemand),
			"of an on-demand stream", `{`+theOnDemand+`,"RecordDistributionStrategy":"AUTO"}`, "of a provisioned one", `{`+theStream+`,"RecordDistributionStrategy":"AUTO"}`),
	}
}

func shardScripts() []script {
	return []script{
		{op: "ListShards", steps: append(of("", scene(aStream, aRecord, aSplit)).steps,
			step{op: "ListShards", title: "all that can be read", in: `{"StreamName":"s"}`},
			step{op: "ListShards", title: "those that are open", in: `{"StreamName":"s","ShardFilter":{"Type":"AT_LATEST"}}`},
			step{op: "ListShards", title: "those behind another", in: `{"StreamName":"s","ShardFilter":{"Type":"AFTER_SHARD_ID","ShardId":"shardId-000000000002"}}`},
			step{op: "ListShards", title: "the first page", in: `{"StreamName":"s","MaxResults":3}`, save: []string{"NextToken"}},
			step{op: "ListShards", title: "the last page", in: `{"NextToken":"{{NextToken}}"}`},
			step{op: "ListShards", title: "name and token", in: `{"StreamName":"s","NextToken":"{{NextToken}}"}`},
			step{op: "ListShards", title: "neither", in: `{}`},
			step{op: "ListShards", title: "too late", in: `{"NextToken":"{{NextToken}}"}`, pass: 301 * time.Second},
		)},
		of("SplitShard", scene(aStream), "in the middle", aSplit.in,
			"a key at its edge", `{"StreamName":"s","ShardToSplit":"shardId-000000000001","NewStartingHashKey":"170141183460469231731687303715884105728"}`,
			"no such shard", `{"StreamName":"s","ShardToSplit":"shardId-000000000009","NewStartingHashKey":"5"}`),
		of("MergeShards", scene(aStream), "not neighbours in this order", `{"StreamName":"s","ShardToMerge":"shardId-000000000001","AdjacentShardToMerge":"shardId-000000000000"}`,
			"neighbours", `{"StreamName":"s","ShardToMerge":"shardId-000000000000","AdjacentShardToMerge":"shardId-000000000001"}`,
			"no such shard", `{"StreamName":"s","ShardToMerge":"shardId-000000000008","AdjacentShardToMerge":"shardId-000000000009"}`),
		of("UpdateShardCount", scene(aStream, anOnDemand), "twice as many", `{"StreamName":"s","TargetShardCount":4,"ScalingType":"UNIFORM_SCALING"}`,
			"more than that", `{"StreamName":"s","TargetShardCount":9,"ScalingType":"UNIFORM_SCALING"}`,
			"of an on-demand stream", `{"StreamName":"d","TargetShardCount":5,"ScalingType":"UNIFORM_SCALING"}`,
			"no such scaling", `{"StreamName":"s","TargetShardCount":4,"ScalingType":"BY_HAND"}`),
		of("RegisterStreamConsumer", scene(aStream), "a consumer", aConsumer.in, "again", aConsumer.in, "no such stream", `{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/missing","ConsumerName":"fan"}`),
		of("DeregisterStreamConsumer", scene(aStream, aConsumer), "by its ARN", `{"ConsumerARN":"{{Consumer.ConsumerARN}}"}`, "again", `{"ConsumerARN":"{{Consumer.ConsumerARN}}"}`),
		of("DescribeStreamConsumer", scene(aStream, aConsumer), "by its ARN", `{"ConsumerARN":"{{Consumer.ConsumerARN}}"}`,
			"by name", `{`+theStream+`,"ConsumerName":"fan"}`, "no such consumer", `{`+theStream+`,"ConsumerName":"none"}`, "no name", `{`+theStream+`}`),
		of("ListStreamConsumers", scene(aStream, aConsumer), "all", `{`+theStream+`}`, "of a stream created at another time", `{`+theStream+`,"StreamCreationTimestamp":1700000000}`),
	}
}

func settingScripts() []script {
	return []script{
		of("AddTagsToStream", scene(aStream), "two tags", `{"StreamName":"s","Tags":{"site":"roof","empty":""}}`, "a character that may not be", `{"StreamName":"s","Tags":{"a<b":"c"}}`, "none", `{"StreamName":"s","Tags":{}}`),
		of("RemoveTagsFromStream", scene(aStream), "a tag, there or not", `{"StreamName":"s","TagKeys":["site"]}`, "none", `{"StreamName":"s","TagKeys":[]}`),
		of("ListTagsForStream", scene(aStream, step{op: "AddTagsToStream", title: "two tags", in: `{"StreamName":"s","Tags":{"a":"1","b":"2"}}`}),
			"one", `{"StreamName":"s","Limit":1}`, "the others", `{"StreamName":"s","ExclusiveStartTagKey":"a"}`, "no such stream", missingStream),
		of("TagResource", scene(aStream, aConsumer), "a stream", `{`+theResource+`,"Tags":{"site":"roof"}}`, "a consumer", `{"ResourceARN":"{{Consumer.ConsumerARN}}","Tags":{"team":"edge"}}`, "no ARN", `{"ResourceARN":"s","Tags":{"a":"b"}}`),
		of("UntagResource", scene(aStream), "a stream", `{`+theResource+`,"TagKeys":["site"]}`, "no such stream", `{"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/missing","TagKeys":["site"]}`),
		of("ListTagsForResource", scene(aStream), "none", `{`+theResource+`}`, "no such stream", `{"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/missing"}`),
		of("EnableEnhancedMonitoring", scene(aStream), "two metrics", `{"StreamName":"s","ShardLevelMetrics":["OutgoingBytes","IncomingBytes"]}`, "no such metric", `{"StreamName":"s","ShardLevelMetrics":["Weather"]}`),
		of("DisableEnhancedMonitoring", scene(aStream), "all", `{"StreamName":"s","ShardLevelMetrics":["ALL"]}`, "none", `{"StreamName":"s","ShardLevelMetrics":[]}`),
		of("StartStreamEncryption", scene(aStream), "with a key", `{"StreamName":"s","EncryptionType":"KMS","KeyId":"alias/aws/kinesis"}`, "with none", `{"StreamName":"s","EncryptionType":"NONE","KeyId":"alias/aws/kinesis"}`),
		of("StopStreamEncryption", scene(aStream), "with a key", `{"StreamName":"s","EncryptionType":"KMS","KeyId":"alias/aws/kinesis"}`, "no key", `{"StreamName":"s","EncryptionType":"KMS"}`),
		of("PutResourcePolicy", scene(aStream), "a policy", `{`+theResource+`,"Policy":"{\"Version\":\"2012-10-17\",\"Statement\":[]}"}`, "no JSON", `{`+theResource+`,"Policy":"everybody"}`),
		of("GetResourcePolicy", scene(aStream), "never set", `{`+theResource+`}`, "no such stream", `{"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/missing"}`),
		of("DeleteResourcePolicy", scene(aStream), "there or not", `{`+theResource+`}`, "no such stream", `{"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/missing"}`),
		of("UpdateStreamWarmThroughput", scene(anOnDemand), "without the commitment", `{"StreamName":"d","WarmThroughputMiBps":8}`).then(aCommitment,
			step{op: "UpdateStreamWarmThroughput", title: "with it", in: `{"StreamName":"d","WarmThroughputMiBps":8}`}),
		of("DescribeLimits", scene(aStream, anOnDemand), "of the account", `{}`, "no body that can be read", "raw:}"),
		of("DescribeAccountSettings", nil, "never set", `{}`, "no body that can be read", "raw:}"),
		of("UpdateAccountSettings", nil, "the account commits itself", aCommitment.in, "no such status", `{"MinimumThroughputBillingCommitment":{"Status":"MAYBE"}}`, "nothing", `{}`),
	}
}

func (sc script) then(steps ...step) script {
	sc.steps = append(sc.steps, steps...)
	return sc
}

func channelScripts() []script {
	missing := `{"ChannelARN":"arn:aws:kinesis:us-east-1:000000000000:channel/none:000000000000000000000001"}`
	return []script{
		of("CreateChannel", scene(aStream, anOnDemand), "to a bucket", theChannel, "again", theChannel,
			"text, with dead letters in a bucket of their own", strings.NewReplacer(`"lake"`, `"text"`, "JSON", "STRING", `"S3DestinationConfiguration":{`,
				`"S3DestinationConfiguration":{"DeadLetterQueueS3Configuration":{"BucketARN":"arn:aws:s3:::letters","ExpectedBucketOwner":"000000000000","ErrorOutputPrefix":"bad/"},`).Replace(theChannel),
			"records of a schema registry", strings.NewReplacer(`"lake"`, `"registry"`, "JSON", "GSR_JSON").Replace(theChannel),
			"to nowhere", `{"ChannelName":"c","ServiceExecutionRoleARN":"arn:aws:iam::000000000000:role/edge","StreamConfigurationList":[{`+theOnDemand+`,"RecordConfiguration":{"RecordFormatType":"JSON"}}]}`,
			"members missing", `{"ChannelName":"c","StreamConfigurationList":[{"StreamARN":"s"}]}`),
		of("DescribeChannel", scene(anOnDemand, aChannel), "by its ARN", `{"ChannelARN":"{{ChannelDescription.ChannelARN}}"}`, "no such channel", missing),
		of("UpdateChannel", scene(anOnDemand, aChannel), "later", `{"ChannelARN":"{{ChannelDescription.ChannelARN}}","S3DestinationConfiguration":{"DataFreshnessInSeconds":600}}`,
			"sooner than can be", `{"ChannelARN":"{{ChannelDescription.ChannelARN}}","S3DestinationConfiguration":{"DataFreshnessInSeconds":1}}`),
		of("DeleteChannel", scene(anOnDemand, aChannel), "by its ARN", `{"ChannelARN":"{{ChannelDescription.ChannelARN}}"}`, "again", `{"ChannelARN":"{{ChannelDescription.ChannelARN}}"}`),
		of("ListChannels", scene(anOnDemand, aChannel), "of a stream", `{"StreamFilter":[{`+theOnDemand+`}]}`, "no token of this server", `{"NextToken":"bm9uZQ=="}`),
	}
}
