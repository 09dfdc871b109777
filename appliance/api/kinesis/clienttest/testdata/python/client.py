"""What a user of boto3 does with Kinesis, end to end, against the endpoint in WEIR_ENDPOINT."""

import datetime
import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

STREAM = os.environ["WEIR_STREAM"]
client = boto3.client(
    "kinesis", endpoint_url=os.environ["WEIR_ENDPOINT"], region_name="eu-central-1",
    verify=os.environ.get("WEIR_CA") or None, config=Config(retries={"max_attempts": 1}),
)
state = {}


def data(i):
    return b"record %d \x00\xff" % i


def create():
    client.create_stream(StreamName=STREAM, ShardCount=2)
    client.get_waiter("stream_exists").wait(StreamName=STREAM)
    d = client.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    assert d["OpenShardCount"] == 2 and d["StreamStatus"] == "ACTIVE" and "StreamId" not in d, d
    state["arn"] = d["StreamARN"]


def put():
    one = client.put_record(StreamName=STREAM, Data=data(0), PartitionKey="first")
    two = client.put_record(StreamName=STREAM, Data=data(1), PartitionKey="first", SequenceNumberForOrdering=one["SequenceNumber"])
    assert int(two["SequenceNumber"]) > int(one["SequenceNumber"])
    out = client.put_records(StreamName=STREAM, Records=[{"Data": data(i), "PartitionKey": "key %d \u2713" % (i % 7)} for i in range(2, 500)])
    assert out["FailedRecordCount"] == 0 and len(out["Records"]) == 498, out


def read(iterator):
    records, children = [], None
    while iterator:
        out = client.get_records(ShardIterator=iterator, Limit=100)
        records += out["Records"]
        children = out.get("ChildShards")
        iterator = out.get("NextShardIterator") if out["MillisBehindLatest"] else None
    return records, children


def iterate():
    seen = set()
    for shard in client.list_shards(StreamName=STREAM)["Shards"]:
        where = {"StreamName": STREAM, "ShardId": shard["ShardId"]}
        records, _ = read(client.get_shard_iterator(ShardIteratorType="TRIM_HORIZON", **where)["ShardIterator"])
        seen |= {r["Data"] for r in records}
        age = datetime.datetime.now(datetime.timezone.utc) - records[0]["ApproximateArrivalTimestamp"]
        assert abs(age.total_seconds()) < 3600
        after, _ = read(client.get_shard_iterator(
            ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=records[0]["SequenceNumber"], **where)["ShardIterator"])
        assert [r["SequenceNumber"] for r in after] == [r["SequenceNumber"] for r in records[1:]]
        since, _ = read(client.get_shard_iterator(
            ShardIteratorType="AT_TIMESTAMP", Timestamp=datetime.datetime(2020, 1, 1), **where)["ShardIterator"])
        assert len(since) == len(records)
    assert seen == {data(i) for i in range(500)}


def paginate():
    names = [n for p in client.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 1}) for n in p["StreamNames"]]
    assert STREAM in names and "other" in names, names
    pages = client.get_paginator("describe_stream").paginate(StreamName=STREAM, PaginationConfig={"PageSize": 1})
    assert len([s for p in pages for s in p["StreamDescription"]["Shards"]]) == 2
    pages = client.get_paginator("list_shards").paginate(StreamName=STREAM, PaginationConfig={"PageSize": 1})
    try:
        shards = [s for p in pages for s in p["Shards"]]
    except ClientError as e:
        # botocore repeats StreamName with NextToken, which the real service refuses, too.
        assert e.response["Error"]["Code"] == "InvalidArgumentException", e
    else:
        assert len(shards) == 2


def fan_out():
    for name in ("a", "b"):
        client.register_stream_consumer(StreamARN=state["arn"], ConsumerName=name)
    pages = client.get_paginator("list_stream_consumers").paginate(StreamARN=state["arn"], PaginationConfig={"PageSize": 1})
    consumers = [c for p in pages for c in p["Consumers"]]
    assert [c["ConsumerName"] for c in consumers] == ["a", "b"]
    sub = client.subscribe_to_shard(
        ConsumerARN=consumers[0]["ConsumerARN"], ShardId="shardId-000000000000", StartingPosition={"Type": "TRIM_HORIZON"})
    client.put_record(StreamName=STREAM, Data=b"live", PartitionKey="x", ExplicitHashKey="0")
    for event in sub["EventStream"]:
        e = event["SubscribeToShardEvent"]
        assert e["ContinuationSequenceNumber"] and "MillisBehindLatest" in e
        if any(r["Data"] == b"live" for r in e["Records"]):
            break
    else:
        raise AssertionError("the subscription ended early")
    try:
        client.subscribe_to_shard(
            ConsumerARN=consumers[0]["ConsumerARN"], ShardId="shardId-000000000000", StartingPosition={"Type": "LATEST"})
        raise AssertionError("subscribed twice within five seconds")
    except client.exceptions.ResourceInUseException:
        pass
    sub["EventStream"].close()
    for c in consumers:
        client.deregister_stream_consumer(ConsumerARN=c["ConsumerARN"])


def reshard():
    shard = "shardId-000000000000"
    client.split_shard(StreamName=STREAM, ShardToSplit=shard, NewStartingHashKey="85070591730234615865843651857942052864")
    records, children = read(client.get_shard_iterator(StreamName=STREAM, ShardId=shard, ShardIteratorType="LATEST")["ShardIterator"])
    assert not records and len(children) == 2 and children[0]["ParentShards"] == [shard], children
    client.merge_shards(StreamName=STREAM, ShardToMerge=children[0]["ShardId"], AdjacentShardToMerge=children[1]["ShardId"])
    up = client.update_shard_count(StreamName=STREAM, TargetShardCount=1, ScalingType="UNIFORM_SCALING")
    assert (up["CurrentShardCount"], up["TargetShardCount"]) == (2, 1), up
    assert len(client.list_shards(StreamName=STREAM, ShardFilter={"Type": "AT_LATEST"})["Shards"]) == 1


def code(call, **arguments):
    try:
        call(**arguments)
    except ClientError as e:
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        return e.response["Error"]["Code"]
    raise AssertionError("no error")


def errors():
    assert code(client.put_record, StreamName="missing", Data=b"x", PartitionKey="k") == "ResourceNotFoundException"
    assert code(client.create_stream, StreamName=STREAM, ShardCount=1) == "ResourceInUseException"
    assert code(client.get_records, ShardIterator="AAAAAAAAAAE=") == "InvalidArgumentException"
    assert code(client.describe_stream, StreamName="no/name") == "ValidationException"
    assert code(client.put_record, StreamName=STREAM, Data=b"x", PartitionKey="k", ExplicitHashKey=str(2**128)) == "InvalidArgumentException"


def delete():
    client.delete_stream(StreamName=STREAM)
    client.get_waiter("stream_not_exists").wait(StreamName=STREAM)


for step in (create, put, iterate, paginate, fan_out, reshard, errors, delete):
    step()
    print("ok", step.__name__)
print("done")
