"""Writes what it is told to with boto3: a request a line on standard input, an answer a line on standard output."""

import json
import sys

import boto3
from botocore.config import Config

session = boto3.session.Session()
clients = {}
# A request whose answer is lost must not be sent again: the test counts what was acknowledged.
once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)

for line in sys.stdin:
    ask = json.loads(line)
    endpoint = ask["endpoint"]
    try:
        if endpoint not in clients:
            clients = {endpoint: session.client(
                "kinesis", endpoint_url=endpoint, region_name="eu-central-1", verify=ask["ca"], config=once,
                aws_access_key_id=ask["id"], aws_secret_access_key=ask["secret"],
            )}
        out = clients[endpoint].put_records(StreamName=ask["stream"], Records=[{"Data": r, "PartitionKey": ask["key"]} for r in ask["records"]])
        answer = {"acked": ["ErrorCode" not in r for r in out["Records"]]}
    except Exception as e:  # the box was killed: Go decides what that means
        answer = {"error": repr(e)}
    print(json.dumps(answer), flush=True)
