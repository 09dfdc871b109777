// Command gosdk is what a user of the AWS SDK for Go v2 does with Kinesis, end to
// end, against the endpoint in WEIR_ENDPOINT. It is built twice, with two versions of
// the SDK, so it uses only what both have.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gosdk:", err)
		os.Exit(1)
	}
	fmt.Println("done")
}

type scenario struct {
	*kinesis.Client
	stream string
	arn    string
}

func run(ctx context.Context) error {
	client, err := connect()
	if err != nil {
		return err
	}
	s := &scenario{Client: client, stream: os.Getenv("WEIR_STREAM")}
	for _, step := range []struct {
		name string
		fn   func(context.Context) error
	}{
		{"create", s.create}, {"put", s.put}, {"iterate", s.iterate}, {"paginate", s.paginate},
		{"fan-out", s.fanOut}, {"reshard", s.reshard}, {"tags", s.tags}, {"errors", s.errors}, {"delete", s.delete},
	} {
		if err := step.fn(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println("ok", step.name)
	}
	return nil
}

func connect() (*kinesis.Client, error) {
	transport := awshttp.NewBuildableClient()
	if ca := os.Getenv("WEIR_CA"); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport = transport.WithTransportOptions(func(t *http.Transport) { t.TLSClientConfig = &tls.Config{RootCAs: pool} })
	}
	return kinesis.New(kinesis.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(os.Getenv("WEIR_ENDPOINT")), HTTPClient: transport,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")}, nil
		}),
	}), nil
}

func (s *scenario) create(ctx context.Context) error {
	if _, err := s.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &s.stream, ShardCount: aws.Int32(2)}); err != nil {
		return err
	}
	if err := kinesis.NewStreamExistsWaiter(s.Client).Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &s.stream}, 30*time.Second); err != nil {
		return err
	}
	out, err := s.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &s.stream})
	if err != nil {
		return err
	}
	d := out.StreamDescriptionSummary
	s.arn = aws.ToString(d.StreamARN)
	if aws.ToInt32(d.OpenShardCount) != 2 || d.StreamStatus != types.StreamStatusActive || s.arn == "" {
		return fmt.Errorf("summary %+v", d)
	}
	return nil
}

func data(i int) []byte { return fmt.Appendf(nil, "record %d \x00\xff\u00e9", i) }

func (s *scenario) put(ctx context.Context) error {
	one, err := s.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &s.stream, Data: data(0), PartitionKey: aws.String("first")})
	if err != nil {
		return err
	}
	second, err := s.PutRecord(ctx, &kinesis.PutRecordInput{
		StreamARN: &s.arn, Data: data(1), PartitionKey: aws.String("first"), SequenceNumberForOrdering: one.SequenceNumber,
	})
	if err != nil {
		return err
	}
	if a, b := *one.SequenceNumber, *second.SequenceNumber; len(a) > len(b) || len(a) == len(b) && a >= b {
		return fmt.Errorf("sequence numbers %s, %s do not grow", a, b)
	}
	in := &kinesis.PutRecordsInput{StreamName: &s.stream}
	for i := 2; i < 500; i++ {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{Data: data(i), PartitionKey: aws.String(fmt.Sprint("key ", i%7, " \u2713"))})
	}
	in.Records[0].ExplicitHashKey = aws.String("340282366920938463463374607431768211455")
	out, err := s.PutRecords(ctx, in)
	if err != nil {
		return err
	}
	if out.FailedRecordCount == nil || *out.FailedRecordCount != 0 || len(out.Records) != len(in.Records) || *out.Records[0].ShardId != "shardId-000000000001" {
		return fmt.Errorf("%d results, failed %v", len(out.Records), out.FailedRecordCount)
	}
	return nil
}

// read reads a shard from an iterator on until it has n records or the shard ends.
func (s *scenario) read(ctx context.Context, it *string, n int) (records []types.Record, children []types.ChildShard, err error) {
	for it != nil && len(records) < n {
		out, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
		if err != nil {
			return nil, nil, err
		}
		if out.MillisBehindLatest == nil {
			return nil, nil, errors.New("no MillisBehindLatest")
		}
		records = append(records, out.Records...)
		it, children = out.NextShardIterator, out.ChildShards
	}
	return records, children, nil
}

func (s *scenario) iterate(ctx context.Context) error {
	shards, err := s.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &s.stream})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	total := 0
	for _, shard := range shards.Shards {
		it, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
			StreamName: &s.stream, ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			return err
		}
		out, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
		if err != nil {
			return err
		}
		for _, r := range out.Records {
			seen[string(r.Data)] = true
			if time.Since(*r.ApproximateArrivalTimestamp).Abs() > time.Hour {
				return fmt.Errorf("arrival %v", r.ApproximateArrivalTimestamp)
			}
		}
		total += len(out.Records)
		if err := s.afterFirst(ctx, shard.ShardId, out.Records); err != nil {
			return err
		}
	}
	for i := range 500 {
		if !seen[string(data(i))] {
			return fmt.Errorf("record %d is missing", i)
		}
	}
	if total != 500 {
		return fmt.Errorf("%d records; want 500", total)
	}
	return nil
}

// afterFirst reads again from behind the first record.
func (s *scenario) afterFirst(ctx context.Context, shard *string, want []types.Record) error {
	it, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: &s.stream, ShardId: shard, ShardIteratorType: types.ShardIteratorTypeAfterSequenceNumber, StartingSequenceNumber: want[0].SequenceNumber,
	})
	if err != nil {
		return err
	}
	got, _, err := s.read(ctx, it.ShardIterator, len(want)-1)
	if err != nil {
		return err
	}
	if len(got) != len(want)-1 || !bytes.Equal(got[0].Data, want[1].Data) || *got[0].PartitionKey != *want[1].PartitionKey {
		return fmt.Errorf("AFTER_SEQUENCE_NUMBER on %s: %d records; want %d", *shard, len(got), len(want)-1)
	}
	return nil
}

func (s *scenario) paginate(ctx context.Context) error {
	names := map[string]bool{}
	pages := kinesis.NewListStreamsPaginator(s.Client, &kinesis.ListStreamsInput{Limit: aws.Int32(1)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, n := range p.StreamNames {
			names[n] = true
		}
	}
	if !names[s.stream] || !names["other"] {
		return fmt.Errorf("ListStreams: %v", names)
	}
	shards := 0
	for token := (*string)(nil); ; {
		in := &kinesis.ListShardsInput{MaxResults: aws.Int32(1), NextToken: token}
		if token == nil {
			in.StreamName = &s.stream
		}
		out, err := s.ListShards(ctx, in)
		if err != nil {
			return err
		}
		shards += len(out.Shards)
		if token = out.NextToken; token == nil {
			break
		}
	}
	if shards != 2 {
		return fmt.Errorf("ListShards by pages: %d shards; want 2", shards)
	}
	return nil
}

func (s *scenario) fanOut(ctx context.Context) error {
	reg, err := s.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: &s.arn, ConsumerName: aws.String("fan")})
	if err != nil {
		return err
	}
	sub, err := s.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
		ConsumerARN: reg.Consumer.ConsumerARN, ShardId: aws.String("shardId-000000000000"),
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
	})
	if err != nil {
		return err
	}
	stream := sub.GetStream()
	defer func() { _ = stream.Close() }()
	_, err = s.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &s.stream, Data: []byte("live"), PartitionKey: aws.String("x"), ExplicitHashKey: aws.String("0")})
	if err != nil {
		return err
	}
	for event := range stream.Events() {
		e, ok := event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		if !ok {
			return fmt.Errorf("event %T", event)
		}
		if e.Value.ContinuationSequenceNumber == nil || e.Value.MillisBehindLatest == nil {
			return errors.New("an event without continuation or lag")
		}
		for _, r := range e.Value.Records {
			if string(r.Data) == "live" {
				_, err := s.DeregisterStreamConsumer(ctx, &kinesis.DeregisterStreamConsumerInput{ConsumerARN: reg.Consumer.ConsumerARN})
				return err
			}
		}
	}
	return fmt.Errorf("the subscription ended early: %w", stream.Err())
}

func (s *scenario) reshard(ctx context.Context) error {
	if _, err := s.SplitShard(ctx, &kinesis.SplitShardInput{
		StreamName: &s.stream, ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("85070591730234615865843651857942052864"),
	}); err != nil {
		return err
	}
	it, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: &s.stream, ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	if err != nil {
		return err
	}
	records, children, err := s.read(ctx, it.ShardIterator, 1<<20)
	if err != nil {
		return err
	}
	if len(records) == 0 || len(children) != 2 || len(children[0].ParentShards) != 1 {
		return fmt.Errorf("end of the split shard: %d records, children %+v", len(records), children)
	}
	if _, err := s.MergeShards(ctx, &kinesis.MergeShardsInput{
		StreamName: &s.stream, ShardToMerge: children[0].ShardId, AdjacentShardToMerge: children[1].ShardId,
	}); err != nil {
		return err
	}
	up, err := s.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{StreamName: &s.stream, TargetShardCount: aws.Int32(4), ScalingType: types.ScalingTypeUniformScaling})
	if err != nil {
		return err
	}
	if aws.ToInt32(up.CurrentShardCount) != 2 || aws.ToInt32(up.TargetShardCount) != 4 {
		return fmt.Errorf("UpdateShardCount: %+v", up)
	}
	now, err := s.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &s.stream, ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}})
	if err != nil {
		return err
	}
	if len(now.Shards) != 4 {
		return fmt.Errorf("AT_LATEST: %d shards; want 4", len(now.Shards))
	}
	return nil
}

func (s *scenario) tags(ctx context.Context) error {
	if _, err := s.AddTagsToStream(ctx, &kinesis.AddTagsToStreamInput{StreamName: &s.stream, Tags: map[string]string{"site": "roof", "empty": ""}}); err != nil {
		return err
	}
	out, err := s.ListTagsForStream(ctx, &kinesis.ListTagsForStreamInput{StreamName: &s.stream})
	if err != nil {
		return err
	}
	if len(out.Tags) != 2 || out.HasMoreTags == nil || *out.HasMoreTags {
		return fmt.Errorf("tags %+v", out)
	}
	return nil
}

func (s *scenario) errors(ctx context.Context) error {
	var notFound *types.ResourceNotFoundException
	_, err := s.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: aws.String("missing"), Data: []byte("x"), PartitionKey: aws.String("k")})
	if !errors.As(err, &notFound) {
		return fmt.Errorf("missing stream: %w", err)
	}
	var inUse *types.ResourceInUseException
	if _, err = s.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &s.stream, ShardCount: aws.Int32(1)}); !errors.As(err, &inUse) {
		return fmt.Errorf("stream that exists: %w", err)
	}
	var invalid *types.InvalidArgumentException
	if _, err = s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAAAAAAAAE=")}); !errors.As(err, &invalid) {
		return fmt.Errorf("foreign iterator: %w", err)
	}
	var api smithy.APIError
	_, err = s.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: aws.String("no/name"), Data: []byte("x"), PartitionKey: aws.String("k")})
	if !errors.As(err, &api) || api.ErrorCode() != "ValidationException" {
		return fmt.Errorf("name that is none: %w", err)
	}
	return nil
}

func (s *scenario) delete(ctx context.Context) error {
	if _, err := s.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: &s.stream}); err != nil {
		return err
	}
	return kinesis.NewStreamNotExistsWaiter(s.Client).Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &s.stream}, 30*time.Second)
}
