// What a user of the AWS SDK for JavaScript v3 does with Kinesis, end to end, against the
// endpoint in WEIR_ENDPOINT. The SDK speaks HTTP/2 to it, with or without TLS.
// NODE_EXTRA_CA_CERTS names the server's CA.
import assert from "node:assert/strict";
import {
  KinesisClient, CreateStreamCommand, PutRecordCommand, PutRecordsCommand, ListShardsCommand, GetShardIteratorCommand,
  GetRecordsCommand, RegisterStreamConsumerCommand, SubscribeToShardCommand, DeregisterStreamConsumerCommand, SplitShardCommand,
  MergeShardsCommand, UpdateShardCountCommand, DescribeStreamSummaryCommand, DeleteStreamCommand, AddTagsToStreamCommand,
  ListTagsForStreamCommand, paginateListStreams, paginateListStreamConsumers, waitUntilStreamExists, waitUntilStreamNotExists,
} from "@aws-sdk/client-kinesis";

const client = new KinesisClient({ endpoint: process.env.WEIR_ENDPOINT, region: "eu-central-1", maxAttempts: 2 });
const StreamName = process.env.WEIR_STREAM;
const data = (i) => Buffer.from(`record ${i} \u0000\u00ff✓`);
const send = (command) => client.send(command);
let StreamARN;

async function create() {
  await send(new CreateStreamCommand({ StreamName, ShardCount: 2 }));
  await waitUntilStreamExists({ client, maxWaitTime: 30 }, { StreamName });
  const { StreamDescriptionSummary: d } = await send(new DescribeStreamSummaryCommand({ StreamName }));
  assert.equal(d.OpenShardCount, 2);
  assert.equal(d.StreamStatus, "ACTIVE");
  assert.equal(d.StreamId, undefined);
  StreamARN = d.StreamARN;
}

async function put() {
  const one = await send(new PutRecordCommand({ StreamName, Data: data(0), PartitionKey: "first" }));
  const two = await send(new PutRecordCommand({ StreamARN, Data: data(1), PartitionKey: "first" }));
  assert(BigInt(two.SequenceNumber) > BigInt(one.SequenceNumber));
  const Records = [];
  for (let i = 2; i < 500; i++) Records.push({ Data: data(i), PartitionKey: `key ${i % 7} ✓` });
  const out = await send(new PutRecordsCommand({ StreamName, Records }));
  assert.equal(out.FailedRecordCount, 0);
  assert.equal(out.Records.length, 498);
}

async function read(ShardIterator) {
  const records = [];
  let children;
  while (ShardIterator) {
    const out = await send(new GetRecordsCommand({ ShardIterator, Limit: 100 }));
    records.push(...out.Records);
    children = out.ChildShards;
    ShardIterator = out.MillisBehindLatest === 0 ? undefined : out.NextShardIterator;
  }
  return { records, children };
}

async function iterate() {
  const { Shards } = await send(new ListShardsCommand({ StreamName }));
  const seen = new Set();
  for (const { ShardId } of Shards) {
    const it = await send(new GetShardIteratorCommand({ StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" }));
    const { records } = await read(it.ShardIterator);
    for (const r of records) seen.add(Buffer.from(r.Data).toString("hex"));
    assert(Math.abs(Date.now() - records[0].ApproximateArrivalTimestamp.getTime()) < 3600_000);
    const at = await send(new GetShardIteratorCommand({
      StreamName, ShardId, ShardIteratorType: "AT_SEQUENCE_NUMBER", StartingSequenceNumber: records[1].SequenceNumber,
    }));
    assert.equal((await read(at.ShardIterator)).records.length, records.length - 1);
    const since = await send(new GetShardIteratorCommand({ StreamName, ShardId, ShardIteratorType: "AT_TIMESTAMP", Timestamp: new Date(0) }));
    assert.equal((await read(since.ShardIterator)).records.length, records.length);
  }
  for (let i = 0; i < 500; i++) assert(seen.has(data(i).toString("hex")), `record ${i} is missing`);
}

async function paginate() {
  const names = [];
  for await (const page of paginateListStreams({ client, pageSize: 1 }, {})) names.push(...page.StreamNames);
  assert(names.includes(StreamName) && names.includes("other"), `${names}`);
}

async function fanOut() {
  for (const ConsumerName of ["a", "b", "c"]) await send(new RegisterStreamConsumerCommand({ StreamARN, ConsumerName }));
  const consumers = [];
  for await (const page of paginateListStreamConsumers({ client, pageSize: 2 }, { StreamARN })) consumers.push(...page.Consumers);
  assert.equal(consumers.length, 3);
  const { ConsumerARN } = consumers[0];
  const sub = await send(new SubscribeToShardCommand({ ConsumerARN, ShardId: "shardId-000000000000", StartingPosition: { Type: "LATEST" } }));
  let found = false;
  const marker = send(new PutRecordCommand({ StreamName, Data: Buffer.from("live"), PartitionKey: "x", ExplicitHashKey: "0" }));
  for await (const event of sub.EventStream) {
    const e = event.SubscribeToShardEvent;
    if (!e) continue; // initial-response
    assert(e.ContinuationSequenceNumber && e.MillisBehindLatest !== undefined);
    if (e.Records.some((r) => Buffer.from(r.Data).toString() === "live")) { found = true; break; }
  }
  await marker;
  assert(found);
  for (const c of consumers) await send(new DeregisterStreamConsumerCommand({ ConsumerARN: c.ConsumerARN }));
}

async function reshard() {
  const ShardId = "shardId-000000000000";
  await send(new SplitShardCommand({ StreamName, ShardToSplit: ShardId, NewStartingHashKey: "85070591730234615865843651857942052864" }));
  const it = await send(new GetShardIteratorCommand({ StreamName, ShardId, ShardIteratorType: "LATEST" }));
  const { children } = await read(it.ShardIterator);
  assert.equal(children.length, 2);
  assert.deepEqual(children[0].ParentShards, [ShardId]);
  await send(new MergeShardsCommand({ StreamName, ShardToMerge: children[0].ShardId, AdjacentShardToMerge: children[1].ShardId }));
  const up = await send(new UpdateShardCountCommand({ StreamName, TargetShardCount: 3, ScalingType: "UNIFORM_SCALING" }));
  assert.equal(up.TargetShardCount, 3);
  const { Shards } = await send(new ListShardsCommand({ StreamName, ShardFilter: { Type: "AT_LATEST" } }));
  assert.equal(Shards.length, 3);
}

async function tags() {
  await send(new AddTagsToStreamCommand({ StreamName, Tags: { site: "roof" } }));
  assert.deepEqual((await send(new ListTagsForStreamCommand({ StreamName }))).Tags, [{ Key: "site", Value: "roof" }]);
}

async function errors() {
  const missing = { StreamName: "missing", Data: data(0), PartitionKey: "k" };
  await assert.rejects(send(new PutRecordCommand(missing)), { name: "ResourceNotFoundException" });
  await assert.rejects(send(new PutRecordCommand({ ...missing, DryRun: true })), { name: "ResourceNotFoundException" });
  await assert.rejects(send(new PutRecordCommand({ ...missing, StreamName, DryRun: true })), { name: "DryRunOperationException" });
  await assert.rejects(send(new CreateStreamCommand({ StreamName, ShardCount: 1 })), { name: "ResourceInUseException" });
  await assert.rejects(send(new GetRecordsCommand({ ShardIterator: "AAAAAAAAAAE=" })), { name: "InvalidArgumentException" });
  await assert.rejects(send(new PutRecordCommand({ ...missing, StreamName: "no/name" })), { name: "ValidationException" });
}

async function remove() {
  await send(new DeleteStreamCommand({ StreamName }));
  await waitUntilStreamNotExists({ client, maxWaitTime: 30 }, { StreamName });
}

for (const step of [create, put, iterate, paginate, fanOut, reshard, tags, errors, remove]) {
  await step();
  console.log("ok", step.name);
}
console.log("done");
process.exit(0);
