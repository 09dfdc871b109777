#!/bin/sh
# What a user of the AWS CLI does with Kinesis, end to end, against the endpoint in
# WEIR_ENDPOINT. AWS_CA_BUNDLE names the server's CA.
set -eu
k() { "$WEIR_AWS" --endpoint-url "$WEIR_ENDPOINT" --region eu-central-1 --output text --no-cli-pager kinesis "$@"; }
fail() { echo "cli: $*" >&2; exit 1; }
s=$WEIR_STREAM

# Whether a key works is what people ask first.
"$WEIR_AWS" --endpoint-url "$WEIR_ENDPOINT" --region eu-central-1 --output text sts get-caller-identity --query UserId | grep -qx "$AWS_ACCESS_KEY_ID" || fail "get-caller-identity"
echo ok identity

k create-stream --stream-name "$s" --shard-count 1
k wait stream-exists --stream-name "$s"
k put-record --stream-name "$s" --partition-key a --data "$(printf one | base64)" >/dev/null
k put-records --stream-name "$s" --records "Data=$(printf two | base64),PartitionKey=b" "Data=$(printf three | base64),PartitionKey=c" >/dev/null
echo ok put

it=$(k get-shard-iterator --stream-name "$s" --shard-id shardId-000000000000 --shard-iterator-type TRIM_HORIZON)
got=$(k get-records --shard-iterator "$it" --query 'Records[].Data' | tr '\t' '\n' | while read -r d; do echo "$d" | base64 -d; echo; done | tr '\n' ' ')
[ "$got" = "one two three " ] || fail "records: $got"
# Shell users leave the quotes of JSON output around an iterator.
k get-records --shard-iterator "\"$it\"" --query 'length(Records)' | grep -qx 3 || fail "iterator in quotes"
echo ok iterate

names=$(k list-streams --page-size 1 --query 'StreamNames' | tr '\t' '\n' | sort | tr '\n' ' ')
case $names in *"other "*) ;; *) fail "list-streams by pages: $names" ;; esac
case $names in *"$s "*) ;; *) fail "list-streams by pages: $names" ;; esac
echo ok paginate

arn=$(k describe-stream-summary --stream-name "$s" --query StreamDescriptionSummary.StreamARN)
k register-stream-consumer --stream-arn "$arn" --consumer-name fan --query Consumer.ConsumerStatus | grep -qx ACTIVE || fail "consumer not active"
k deregister-stream-consumer --stream-arn "$arn" --consumer-name fan
echo ok consumer

k update-shard-count --stream-name "$s" --target-shard-count 2 --scaling-type UNIFORM_SCALING --query TargetShardCount | grep -qx 2 || fail "shard count"
n=$(k list-shards --stream-name "$s" --query 'length(Shards)')
[ "$n" = 3 ] || fail "$n shards listed; want the closed one and two"
echo ok reshard

if out=$(k describe-stream --stream-name missing 2>&1); then fail "missing stream described"; fi
case $out in *ResourceNotFoundException*) ;; *) fail "missing stream: $out" ;; esac
echo ok errors

k delete-stream --stream-name "$s"
k wait stream-not-exists --stream-name "$s"
echo done
