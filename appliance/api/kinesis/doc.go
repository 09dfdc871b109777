// Package kinesis serves the Amazon Kinesis Data Streams API, all 45 operations
// of its model of 2026-09, over the streams of a storage.Store, so that SDKs,
// the AWS CLI, KCL, KPL and the agents run unmodified.
//
// It owns the service's words: inputs, outputs, constraints, error texts, shard
// iterators and pagination tokens, fan-out consumers, and the settings that mean
// something only in AWS's account world. Those (encryption keys, resource
// policies, monitoring levels, warm throughput, billing commitment, tags) are
// stored and given back, and have no effect: a stream with a KMS key is not
// encrypted with it, and no record claims to be.
//
// It never parses HTTP, never decides who a caller is, and holds no records:
// PutRecord and PutRecords decode straight into the open group's buffers of the
// store, GetRecords and SubscribeToShard write their answers straight from its
// blocks.
//
// # Durability
//
// PutRecord and PutRecords answer after the records' fsync, in one transaction.
// Every change of a stream, consumer, tag or setting is on disk before its
// answer. Iterators and tokens live in the client alone; the key they are
// sealed with is stored, so they outlive a restart.
//
// # Differences from the real service
//
// Streams, consumers and channels are ACTIVE in the answer that makes them: there
// is nothing to wait for. Operations that reshard do so before they answer, and
// other callers see UPDATING meanwhile. Control-plane call rates are not limited.
// Per-shard throughput is limited only if Options.Quotas says so.
package kinesis
