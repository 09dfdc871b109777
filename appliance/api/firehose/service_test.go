package firehose_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/api/firehose"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/columnar"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/storage"
)

// box is the service over a store of its own, with a folder as the default
// object store.
type box struct {
	t       testing.TB
	store   *storage.Store
	engine  *delivery.Engine
	service *firehose.Service
	dir     string
}

func newBox(t testing.TB) *box {
	t.Helper()
	return newBoxOn(t, nil)
}

func newBoxOn(t testing.TB, disk vfs.FS) *box {
	t.Helper()
	store, err := storage.Open(t.Context(), t.TempDir(), storage.Options{FS: disk, SoftFreeBytes: 1, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	b := &box{t: t, store: store, dir: t.TempDir()}
	settings, _ := json.Marshal(map[string]string{"dir": b.dir})
	table, err := sink.New([]sink.Config{{Name: "folder", Kind: "file", Default: true, Settings: settings}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.engine, err = delivery.New(store, delivery.Options{OpenSink: table.Open}); err != nil {
		t.Fatal(err)
	}
	b.service = firehose.New(store, b.engine, firehose.Options{Bucket: table.Bucket, Module: func(n string) bool { return n == "upper" }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.engine.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// call makes one call and returns status and body.
func (b *box) call(action, body string) (int, map[string]any) {
	b.t.Helper()
	res := apitest.Do(b.t.Context(), b.service, &apitest.Request{
		Headers: http.Header{"X-Amz-Target": {"Firehose_20150804." + action}, "Content-Type": {"application/x-amz-json-1.1"}},
		Payload: []byte(body), Who: &api.Identity{Name: "test", Policy: api.FullAccess},
	})
	out := map[string]any{}
	if len(res.Body) > 0 {
		if err := json.Unmarshal(res.Body, &out); err != nil {
			b.t.Fatalf("%s: %q: %v", action, res.Body, err)
		}
	}
	return res.Status, out
}

func (b *box) must(action, body string) map[string]any {
	b.t.Helper()
	status, out := b.call(action, body)
	if status != 200 {
		b.t.Fatalf("%s %s: %d %v", action, body, status, out)
	}
	return out
}

const role = `"RoleARN":"arn:aws:iam::123456789012:role/r"`

// TestDescribeEchoesDefaults compares with what AWS answered when it was recorded.
func TestDescribeEchoesDefaults(t *testing.T) {
	b := newBox(t)
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","ExtendedS3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake","Prefix":"p/"},"Tags":[{"Key":"a","Value":"1"}]}`)
	d := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"d"}`)["DeliveryStreamDescription"].(map[string]any)
	if created, ok := d["CreateTimestamp"].(float64); !ok || created < 1.7e9 {
		t.Errorf("CreateTimestamp %v", d["CreateTimestamp"])
	}
	delete(d, "CreateTimestamp")
	s3 := map[string]any{
		"RoleARN": "arn:aws:iam::123456789012:role/r", "BucketARN": "arn:aws:s3:::lake", "Prefix": "p/",
		"BufferingHints": map[string]any{"SizeInMBs": 5.0, "IntervalInSeconds": 300.0}, "CompressionFormat": "UNCOMPRESSED",
		"EncryptionConfiguration": map[string]any{"NoEncryptionConfig": "NoEncryption"}, "CloudWatchLoggingOptions": map[string]any{"Enabled": false},
	}
	extended := map[string]any{"S3BackupMode": "Disabled", "ProcessingConfiguration": map[string]any{"Enabled": false, "Processors": []any{}}}
	for k, v := range s3 {
		extended[k] = v
	}
	want := map[string]any{
		"DeliveryStreamName": "d", "DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/d",
		"DeliveryStreamStatus": "ACTIVE", "DeliveryStreamType": "DirectPut", "VersionId": "1", "HasMoreDestinations": false,
		"DeliveryStreamEncryptionConfiguration": map[string]any{"Status": "DISABLED"},
		"Destinations": []any{map[string]any{
			"DestinationId": "destinationId-000000000001", "S3DestinationDescription": s3, "ExtendedS3DestinationDescription": extended,
		}},
	}
	got, _ := json.Marshal(d)
	expected, _ := json.Marshal(want)
	if string(got) != string(expected) {
		t.Errorf("described as\n%s\nwant\n%s", got, expected)
	}
}

// TestDescribeEchoesWhatWasGiven: a throughput hint, and what dynamic partitioning has by
// default and keeps through an update of its retries.
func TestDescribeEchoesWhatWasGiven(t *testing.T) {
	b := newBox(t)
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","DirectPutSourceConfiguration":{"ThroughputHintInMBs":7},"ExtendedS3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake",
		"Prefix":"!{partitionKeyFromQuery:a}/","ErrorOutputPrefix":"e/!{firehose:error-output-type}/","DynamicPartitioningConfiguration":{"Enabled":true},
		"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"MetadataExtraction","Parameters":[{"ParameterName":"MetadataExtractionQuery","ParameterValue":"{a:.a}"},{"ParameterName":"JsonParsingEngine","ParameterValue":"JQ-1.6"}]}]}}}`)
	look := func() (hint, partitioning string) {
		d := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"d"}`)["DeliveryStreamDescription"].(map[string]any)
		x := d["Destinations"].([]any)[0].(map[string]any)["ExtendedS3DestinationDescription"].(map[string]any)
		source, _ := json.Marshal(d["Source"])
		p, _ := json.Marshal(x["DynamicPartitioningConfiguration"])
		return string(source), string(p)
	}
	hint, p := look()
	if hint != `{"DirectPutSourceDescription":{"ThroughputHintInMBs":7}}` || p != `{"Enabled":true,"RetryOptions":{"DurationInSeconds":300}}` {
		t.Errorf("described as %s and %s", hint, p)
	}
	b.must("UpdateDestination", `{"DeliveryStreamName":"d","CurrentDeliveryStreamVersionId":"1","DestinationId":"destinationId-000000000001","ExtendedS3DestinationUpdate":{"DynamicPartitioningConfiguration":{"RetryOptions":{"DurationInSeconds":60}}}}`)
	if hint, p = look(); hint != `{"DirectPutSourceDescription":{"ThroughputHintInMBs":7}}` || p != `{"Enabled":true,"RetryOptions":{"DurationInSeconds":60}}` {
		t.Errorf("after an update described as %s and %s", hint, p)
	}
}

func TestLifeOfADeliveryStream(t *testing.T) {
	b := newBox(t)
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","S3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake","BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":0}}}`)
	var entries []string
	for i := range 500 {
		entries = append(entries, fmt.Sprintf(`{"Data":%q}`, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "r%d\n", i))))
	}
	out := b.must("PutRecordBatch", `{"DeliveryStreamName":"d","Records":[`+strings.Join(entries, ",")+`]}`)
	if out["FailedPutCount"] != 0.0 || len(out["RequestResponses"].([]any)) != 500 {
		t.Fatalf("answered %v", out)
	}
	ids := map[any]bool{}
	for _, r := range out["RequestResponses"].([]any) {
		e := r.(map[string]any)
		if _, failed := e["ErrorCode"]; failed || e["RecordId"] == "" || ids[e["RecordId"]] {
			t.Fatalf("entry %v", e)
		}
		ids[e["RecordId"]] = true
	}
	b.must("PutRecord", `{"DeliveryStreamName":"d","Record":{"Data":"cjUwMAo="}}`)
	b.waitFor(501)
	if err := b.engine.Update(t.Context(), "d", 1, func(c *delivery.Config) error {
		c.Check = delivery.CheckUTF8 // Firehose has no word for it
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.must("UpdateDestination", `{"DeliveryStreamName":"d","CurrentDeliveryStreamVersionId":"2","DestinationId":"destinationId-000000000001","ExtendedS3DestinationUpdate":{"CompressionFormat":"GZIP"}}`)
	if c, _, err := b.engine.Definition("d"); err != nil || c.Check != delivery.CheckUTF8 {
		t.Errorf("the check after the update: %q, %v", c.Check, err)
	}
	d := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"d"}`)["DeliveryStreamDescription"].(map[string]any)
	x := d["Destinations"].([]any)[0].(map[string]any)["ExtendedS3DestinationDescription"].(map[string]any)
	if d["VersionId"] != "3" || x["CompressionFormat"] != "GZIP" || x["BufferingHints"].(map[string]any)["SizeInMBs"] != 1.0 {
		t.Errorf("after the update: %v", d)
	}
	b.must("TagDeliveryStream", `{"DeliveryStreamName":"d","Tags":[{"Key":"b","Value":"2"},{"Key":"a"}]}`)
	tags := b.must("ListTagsForDeliveryStream", `{"DeliveryStreamName":"d","Limit":1}`)
	if tags["HasMoreTags"] != true || tags["Tags"].([]any)[0].(map[string]any)["Key"] != "a" {
		t.Errorf("tags %v", tags)
	}
	b.must("UntagDeliveryStream", `{"DeliveryStreamName":"d","TagKeys":["a"]}`)
	b.must("StopDeliveryStreamEncryption", `{"DeliveryStreamName":"d"}`)
	if l := b.must("ListDeliveryStreams", `{}`); fmt.Sprint(l) != "map[DeliveryStreamNames:[d] HasMoreDeliveryStreams:false]" {
		t.Errorf("list %v", l)
	}
	b.must("DeleteDeliveryStream", `{"DeliveryStreamName":"d"}`)
	if status, out := b.call("DescribeDeliveryStream", `{"DeliveryStreamName":"d"}`); status != 400 || out["__type"] != "ResourceNotFoundException" {
		t.Errorf("after the deletion: %d %v", status, out)
	}
}

// waitFor waits until the folder has n lines.
func (b *box) waitFor(n int) {
	b.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		lines := 0
		_ = filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == ".weir" {
				return filepath.SkipDir
			}
			if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".part") {
				raw, _ := os.ReadFile(path)
				lines += strings.Count(string(raw), "\n")
			}
			return nil
		})
		if lines == n {
			return
		}
		select {
		case <-deadline:
			b.t.Fatalf("%d lines were delivered, want %d", lines, n)
		case <-tick.C:
		}
	}
}

// TestErrors pins code and text of what is refused.
func TestErrors(t *testing.T) {
	b := newBox(t)
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","S3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake"}}`)
	if _, err := b.store.CreateStream(t.Context(), storage.StreamConfig{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"k","DeliveryStreamType":"KinesisStreamAsSource","KinesisStreamSourceConfiguration":{"KinesisStreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s",`+role+`},"S3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake"}}`)
	s3 := func(more string) string {
		return `{"DeliveryStreamName":"x","ExtendedS3DestinationConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"` + more + `}}`
	}
	for _, c := range []struct{ action, body, code, text string }{
		{"PutRecord", `{"DeliveryStreamName":"no","Record":{"Data":""}}`, "ResourceNotFoundException", "Firehose no under account 000000000000 not found."},
		{"PutRecord", `{"DeliveryStreamName":"k","Record":{"Data":""}}`, "InvalidArgumentException", "This operation is not permitted on KinesisStreamAsSource delivery stream type."},
		{"PutRecord", `{"DeliveryStreamName":"d"}`, "ValidationException", "1 validation error detected: Value null at 'record' failed to satisfy constraint: Member must not be null"},
		{"PutRecordBatch", `{"DeliveryStreamName":"d","Records":[]}`, "ValidationException", "Member must have length greater than or equal to 1"},
		{"PutRecordBatch", `{"DeliveryStreamName":"d","Records":[` + strings.Repeat(`{"Data":"`+strings.Repeat("AAAA", 1<<18)+`"},`, 6)[:6*(4<<18+12)-1] + `]}`, "InvalidArgumentException", "4 MB limit"},
		{"CreateDeliveryStream", `{"DeliveryStreamName":"d","S3DestinationConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"}}`, "ResourceInUseException", "Firehose d under accountId 000000000000 already exists"},
		{"CreateDeliveryStream", `{"DeliveryStreamName":"bad name","S3DestinationConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"}}`, "ValidationException", "[a-zA-Z0-9_.-]+"},
		{"CreateDeliveryStream", `{"DeliveryStreamName":"x"}`, "InvalidArgumentException", "Exactly one destination"},
		{"CreateDeliveryStream", `{"DeliveryStreamName":"x","SplunkDestinationConfiguration":{}}`, "InvalidArgumentException", "SplunkDestinationConfiguration is not supported"},
		{"CreateDeliveryStream", s3(`,"BufferingHints":{"SizeInMBs":5}`), "InvalidArgumentException", "Both SizeInMBs and IntervalInSeconds"},
		{"CreateDeliveryStream", s3(`,"BufferingHints":{"SizeInMBs":500,"IntervalInSeconds":1}`), "ValidationException", "less than or equal to 128"},
		{"CreateDeliveryStream", s3(`,"Prefix":"!{timestamp:yyyy}/"`), "InvalidArgumentException", "ErrorOutputPrefix: must be given when Prefix has expressions"},
		{"CreateDeliveryStream", s3(`,"Prefix":"` + strings.Repeat("p", 600) + `!{timestamp:yyyy}/","ErrorOutputPrefix":"!{firehose:error-output-type}/"`), "InvalidArgumentException", "the limit is 512 after evaluation"},
		{"CreateDeliveryStream", s3(`,"S3BackupMode":"Enabled","S3BackupConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake","ErrorOutputPrefix":"e/!{a:b}/"}`), "InvalidArgumentException", `S3BackupConfiguration: ErrorOutputPrefix "e/!{a:b}/"`},
		{"CreateDeliveryStream", s3(`,"CustomTimeZone":"Mars/Base"`), "InvalidArgumentException", `CustomTimeZone: "Mars/Base" is not an IANA time zone`},
		{"CreateDeliveryStream", s3(`,"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"AppendDelimiterToRecord","Parameters":[{"ParameterName":"LambdaArn","ParameterValue":"x"}]}]}`), "InvalidArgumentException", "AppendDelimiterToRecord processor: it has no parameter LambdaArn"},
		{"CreateDeliveryStream", `{"DeliveryStreamName":"x","DeliveryStreamType":"KinesisStreamAsSource","KinesisStreamSourceConfiguration":{"KinesisStreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/none",` + role + `},"S3DestinationConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"}}`, "InvalidArgumentException", "there is no stream none"},
		{"CreateDeliveryStream", s3(`,"DataFormatConversionConfiguration":{"Enabled":true,"InputFormatConfiguration":{"Deserializer":{"OpenXJsonSerDe":{}}},"OutputFormatConfiguration":{"Serializer":{"OrcSerDe":{}}}}`), "InvalidArgumentException", "OrcSerDe is not supported"},
		{"CreateDeliveryStream", s3(`,"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"Lambda","Parameters":[{"ParameterName":"LambdaArn","ParameterValue":"arn:aws:lambda:us-east-1:123456789012:function:nope"}]}]}`), "InvalidArgumentException", `there is no module "nope"`},
		{"CreateDeliveryStream", s3(lambda("NumberOfRetries", "301")), "InvalidArgumentException", `NumberOfRetries "301" is not a number from 0 to 300`},
		{"CreateDeliveryStream", s3(lambda("BufferSizeInMBs", "0.1")), "InvalidArgumentException", `BufferSizeInMBs "0.1" is not a number from 0.2 to 3`},
		{"CreateDeliveryStream", s3(lambda("BufferSizeInMBs", "NaN")), "InvalidArgumentException", `BufferSizeInMBs "NaN" is not a number from 0.2 to 3`},
		{"CreateDeliveryStream", s3(lambda("BufferIntervalInSeconds", "901")), "InvalidArgumentException", `BufferIntervalInSeconds "901" is not a number from 0 to 900`},
		{"CreateDeliveryStream", s3(`,"CloudWatchLoggingOptions":{"Enabled":true}`), "InvalidArgumentException", "there is no CloudWatch here"},
		{"UpdateDestination", `{"DeliveryStreamName":"d","CurrentDeliveryStreamVersionId":"7","DestinationId":"destinationId-000000000001","S3DestinationUpdate":{}}`, "ConcurrentModificationException", "version id"},
		{"UpdateDestination", `{"DeliveryStreamName":"d","CurrentDeliveryStreamVersionId":"1","DestinationId":"other","S3DestinationUpdate":{}}`, "InvalidArgumentException", "Destination Id other not found"},
		{"StartDeliveryStreamEncryption", `{"DeliveryStreamName":"d"}`, "InvalidKMSResourceException", "no key service"},
		{"TagDeliveryStream", `{"DeliveryStreamName":"d","Tags":[{"Key":"aws:x"}]}`, "InvalidArgumentException", "may not begin with aws:"},
		{"Nope", `{}`, "UnknownOperationException", ""},
	} {
		status, out := b.call(c.action, c.body)
		message, _ := out["message"].(string)
		if status != 400 || out["__type"] != c.code || !strings.Contains(message, c.text) {
			t.Errorf("%s %.120s: %d %v, want %s with %q", c.action, c.body, status, out, c.code, c.text)
		}
	}
}

// lambda is a processor with one parameter besides its module.
func lambda(name, value string) string {
	return `,"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"Lambda","Parameters":[` +
		`{"ParameterName":"LambdaArn","ParameterValue":"arn:aws:lambda:us-east-1:123456789012:function:upper"},{"ParameterName":"` + name + `","ParameterValue":"` + value + `"}]}]}`
}

// TestUpdateKeepsWhatTheAPIHasNoWordsFor: a delivery stream that was made, or changed, by other means is
// described as it is, and an update changes what it names and nothing else.
func TestUpdateKeepsWhatTheAPIHasNoWordsFor(t *testing.T) {
	b := newBox(t)
	other := t.TempDir()
	settings, _ := json.Marshal(map[string]string{"dir": other})
	made := delivery.Config{
		Name: "d", Source: delivery.Source{DirectPut: true}, Sink: delivery.Target{Kind: "file", Settings: settings},
		Prefix: "p/", Delimiter: "\n", Compression: delivery.Compression{Format: codec.Gzip, Level: 9}, Check: delivery.CheckJSON,
		Buffer: delivery.Buffer{SizeBytes: 1000, Interval: delivery.Every(1500 * time.Millisecond)}, SubRecords: &delivery.SubRecords{Type: "JSON"},
		Uplink: delivery.Uplink{Priority: 3}, Backup: &delivery.Backup{Sink: delivery.Target{Name: "folder", Bucket: "copies"}},
	}
	if err := b.engine.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	schema := columnar.Schema{{Name: "a", Type: "bigint"}}
	columns := delivery.Config{
		Name: "c", Source: delivery.Source{DirectPut: true}, Sink: delivery.Target{Kind: "file", Settings: settings},
		Parquet: &delivery.Parquet{Schema: schema, Options: columnar.Options{Dictionary: true}},
	}
	if err := b.engine.Create(t.Context(), columns); err != nil {
		t.Fatal(err)
	}
	extended := func(name string) map[string]any {
		d := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"`+name+`"}`)["DeliveryStreamDescription"].(map[string]any)
		return d["Destinations"].([]any)[0].(map[string]any)["ExtendedS3DestinationDescription"].(map[string]any)
	}
	update := func(name string, version int, what string) {
		b.must("UpdateDestination", fmt.Sprintf(`{"DeliveryStreamName":%q,"CurrentDeliveryStreamVersionId":"%d","DestinationId":"destinationId-000000000001","ExtendedS3DestinationUpdate":%s}`, name, version, what))
	}
	same := func(what string, got, want delivery.Config) {
		t.Helper()
		got.Annotations, want.Annotations = nil, nil
		g, _ := json.Marshal(got)
		if w, _ := json.Marshal(want); string(g) != string(w) {
			t.Errorf("%s:\n%s\nwant\n%s", what, g, w)
		}
	}
	now := func(name string) delivery.Config {
		c, _, err := b.engine.Definition(name)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if x := extended("d"); x["CompressionFormat"] != "GZIP" || x["S3BackupMode"] != "Enabled" || fmt.Sprint(x["BufferingHints"]) != "map[IntervalInSeconds:2 SizeInMBs:1]" ||
		!strings.Contains(fmt.Sprint(x["ProcessingConfiguration"]), "RecordDeAggregation") || !strings.Contains(fmt.Sprint(x["ProcessingConfiguration"]), "AppendDelimiterToRecord") {
		t.Errorf("described as %v", x)
	}
	want := now("d")
	update("d", 1, `{"Prefix":"q/"}`)
	want.Prefix = "q/"
	same("after a change of Prefix", now("d"), want)
	err := b.engine.Update(t.Context(), "d", 2, func(c *delivery.Config) error { c.Prefix, c.Compression.Level, c.Delimiter = "r/", 5, ""; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if x := extended("d"); x["Prefix"] != "r/" || strings.Contains(fmt.Sprint(x["ProcessingConfiguration"]), "AppendDelimiterToRecord") {
		t.Errorf("changed by other means, it is described as %v", x)
	}
	update("d", 3, `{"BufferingHints":{"SizeInMBs":7,"IntervalInSeconds":60},"CompressionFormat":"ZIP","ProcessingConfiguration":{"Enabled":false}}`)
	want = now("d")
	want.Prefix, want.Buffer, want.Compression = "r/", delivery.Buffer{SizeBytes: 7 << 20, Interval: delivery.Every(time.Minute)}, delivery.Compression{Format: codec.Zip}
	want.SubRecords, want.Delimiter, want.Check, want.Uplink.Priority = nil, "", delivery.CheckJSON, 3
	same("after an update of more", now("d"), want)

	want = now("c")
	update("c", 1, `{"Prefix":"q/"}`)
	want.Prefix = "q/"
	same("Parquet after a change of Prefix", now("c"), want)
	update("c", 2, `{"BufferingHints":{"SizeInMBs":64,"IntervalInSeconds":60},"DataFormatConversionConfiguration":{"Enabled":true,"InputFormatConfiguration":{"Deserializer":{"OpenXJsonSerDe":{}}},"OutputFormatConfiguration":{"Serializer":{"ParquetSerDe":{"Compression":"GZIP"}}}}}`)
	if p := now("c").Parquet; p == nil || len(p.Schema) != 1 || p.Compression != "GZIP" || p.Dictionary {
		t.Errorf("Parquet is now %+v", p)
	}
	status, out := b.call("UpdateDestination", `{"DeliveryStreamName":"c","CurrentDeliveryStreamVersionId":"3","DestinationId":"destinationId-000000000001","ExtendedS3DestinationUpdate":{"BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":60}}}`)
	if status != 400 || !strings.Contains(fmt.Sprint(out), "at least 64") {
		t.Errorf("hints below the API's least: %d %v", status, out)
	}
}

// TestBucketOfAnHTTPEndpoint: what the bucket for failed records is given holds, and is described.
func TestBucketOfAnHTTPEndpoint(t *testing.T) {
	b := newBox(t)
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","HttpEndpointDestinationConfiguration":{"EndpointConfiguration":{"Url":"https://x.invalid"},"RetryOptions":{"DurationInSeconds":7},
		"S3Configuration":{`+role+`,"BucketARN":"arn:aws:s3:::lake","CompressionFormat":"GZIP","ErrorOutputPrefix":"e/"}}}`)
	for version, update := range []string{"", `{"BufferingHints":{"SizeInMBs":2,"IntervalInSeconds":9}}`} {
		if update != "" {
			b.must("UpdateDestination", fmt.Sprintf(`{"DeliveryStreamName":"d","CurrentDeliveryStreamVersionId":"%d","DestinationId":"destinationId-000000000001","HttpEndpointDestinationUpdate":%s}`, version, update))
		}
		c, _, err := b.engine.Definition("d")
		if f := c.OnFailure; err != nil || f == nil || f.Compression.Format != codec.Gzip || f.ErrorPrefix != "e/" || time.Duration(f.After) != 7*time.Second || f.Sink.Bucket != "lake" {
			t.Errorf("%+v, %v", c.OnFailure, err)
		}
		d := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"d"}`)["DeliveryStreamDescription"].(map[string]any)
		raw, _ := json.Marshal(d["Destinations"])
		for _, want := range []string{`"CompressionFormat":"GZIP"`, `"BucketARN":"arn:aws:s3:::lake"`, `"DurationInSeconds":7`, `"ErrorOutputPrefix":"e/"`} {
			if !strings.Contains(string(raw), want) {
				t.Errorf("%s is not in %s", want, raw)
			}
		}
	}
}

// TestAggregatesOfAKinesisSourceAreTakenApart, as Firehose does unasked, also after
// an update; those that are put directly are not.
func TestAggregatesOfAKinesisSourceAreTakenApart(t *testing.T) {
	b := newBox(t)
	if _, err := b.store.CreateStream(t.Context(), storage.StreamConfig{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	destination := `"S3DestinationConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"}}`
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"k","DeliveryStreamType":"KinesisStreamAsSource","KinesisStreamSourceConfiguration":{"KinesisStreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s",`+role+`},`+destination)
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d",`+destination)
	for range 2 {
		for name, want := range map[string]bool{"k": true, "d": false} {
			c, version, err := b.engine.Definition(name)
			if err != nil || c.Deaggregate != want {
				t.Errorf("version %d of %s: %+v, %v", version, name, c, err)
			}
			b.must("UpdateDestination", `{"DeliveryStreamName":"`+name+`","CurrentDeliveryStreamVersionId":"`+strconv.Itoa(version)+`","DestinationId":"destinationId-000000000001","S3DestinationUpdate":{"Prefix":"p/"}}`)
		}
	}
}

// TestRenewTakesAggregatesApartOnce: what an older version made, and not what was switched off since.
func TestRenewTakesAggregatesApartOnce(t *testing.T) {
	b := newBox(t)
	if _, err := b.store.CreateStream(t.Context(), storage.StreamConfig{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	b.must("CreateDeliveryStream", `{"DeliveryStreamName":"k","DeliveryStreamType":"KinesisStreamAsSource","KinesisStreamSourceConfiguration":{"KinesisStreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s",`+role+`},"S3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake"}}`)
	if err := b.engine.Create(t.Context(), delivery.Config{Name: "cli", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: "folder"}}); err != nil {
		t.Fatal(err)
	}
	set := func(older bool) {
		err := b.engine.Update(t.Context(), "k", 0, func(c *delivery.Config) error {
			c.Deaggregate = false
			if older {
				c.Annotations["firehose"] = json.RawMessage(strings.Replace(string(c.Annotations["firehose"]), `,"Aggregates":true`, "", 1))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []bool{true, false} {
		set(want)
		before := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"k"}`)["DeliveryStreamDescription"].(map[string]any)["Destinations"]
		b.service.Renew(t.Context())
		for name, want := range map[string]bool{"k": want, "cli": false} {
			if c, version, err := b.engine.Definition(name); err != nil || c.Deaggregate != want {
				t.Errorf("version %d of %s: takes aggregates apart: %t, want %t (%v)", version, name, c.Deaggregate, want, err)
			}
		}
		after := b.must("DescribeDeliveryStream", `{"DeliveryStreamName":"k"}`)["DeliveryStreamDescription"].(map[string]any)["Destinations"]
		if x, y := fmt.Sprint(before), fmt.Sprint(after); x != y {
			t.Errorf("described as\n%s\nbefore\n%s", y, x)
		}
	}
}

// TestRetriesOfALambdaProcessor: none is another number than none given.
func TestRetriesOfALambdaProcessor(t *testing.T) {
	b := newBox(t)
	for name, want := range map[string]int{"NumberOfRetries\x000": 0, "NumberOfRetries\x007": 7, "BufferSizeInMBs\x000.2": 3} {
		parameter, value, _ := strings.Cut(name, "\x00")
		b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","ExtendedS3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake"`+lambda(parameter, value)+`}}`)
		c, _, err := b.engine.Definition("d")
		if err != nil || c.Transform == nil || *c.Transform.Retries != want {
			t.Errorf("%s %s: %+v, %v; want %d retries", parameter, value, c.Transform, err, want)
		}
		b.must("DeleteDeliveryStream", `{"DeliveryStreamName":"d"}`)
	}
}

// TestDelimiters: a parameter that is white space alone is none, so it comes in words, and is described in them.
func TestDelimiters(t *testing.T) {
	b := newBox(t)
	for given, want := range map[string]string{`\\n`: "\n", `\\r\\n`: "\r\n", `\\t`: "\t", `|`: "|", `\\\\n`: `\n`, `;\n`: ";\n"} {
		b.must("CreateDeliveryStream", `{"DeliveryStreamName":"d","ExtendedS3DestinationConfiguration":{`+role+`,"BucketARN":"arn:aws:s3:::lake","ProcessingConfiguration":{"Enabled":true,"Processors":[
			{"Type":"AppendDelimiterToRecord","Parameters":[{"ParameterName":"Delimiter","ParameterValue":"`+given+`"}]}]}}}`)
		// One that was set by other means is described so that it can be set again.
		if err := b.engine.Update(t.Context(), "d", 0, func(c *delivery.Config) error {
			if c.Delimiter != want {
				t.Errorf("%s is %q, want %q", given, c.Delimiter, want)
			}
			c.Annotations = nil
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		b.must("UpdateDestination", `{"DeliveryStreamName":"d","CurrentDeliveryStreamVersionId":"2","DestinationId":"destinationId-000000000001","S3DestinationUpdate":{"Prefix":"p/"}}`)
		if c, _, err := b.engine.Definition("d"); err != nil || c.Delimiter != want || c.Prefix != "p/" {
			t.Errorf("%s is %q after an update, want %q; %v", given, c.Delimiter, want, err)
		}
		b.must("DeleteDeliveryStream", `{"DeliveryStreamName":"d"}`)
	}
}

// server puts the service behind HTTP for clients that aren't ours. Their
// signatures are the gate's business, not this package's.
func (b *box) server() string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		res := apitest.Do(r.Context(), b.service, &apitest.Request{Headers: r.Header, Payload: body, Who: &api.Identity{Name: "client", Policy: api.FullAccess}})
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(res.Status)
		_, _ = w.Write(res.Body)
	}))
	b.t.Cleanup(s.Close)
	return s.URL
}

func TestGoSDK(t *testing.T) {
	b := newBox(t)
	c := sdk.New(sdk.Options{
		BaseEndpoint: aws.String(b.server()), Region: "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
	})
	ctx := t.Context()
	_, err := c.CreateDeliveryStream(ctx, &sdk.CreateDeliveryStreamInput{
		DeliveryStreamName: aws.String("d"),
		ExtendedS3DestinationConfiguration: &types.ExtendedS3DestinationConfiguration{
			RoleARN: aws.String("arn:aws:iam::123456789012:role/r"), BucketARN: aws.String("arn:aws:s3:::lake"),
			BufferingHints: &types.BufferingHints{SizeInMBs: aws.Int32(1), IntervalInSeconds: aws.Int32(0)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.PutRecordBatch(ctx, &sdk.PutRecordBatchInput{DeliveryStreamName: aws.String("d"), Records: []types.Record{{Data: []byte("a\n")}, {Data: []byte("b\n")}}})
	if err != nil || *out.FailedPutCount != 0 || len(out.RequestResponses) != 2 {
		t.Fatalf("%+v, %v", out, err)
	}
	b.waitFor(2)
	d, err := c.DescribeDeliveryStream(ctx, &sdk.DescribeDeliveryStreamInput{DeliveryStreamName: aws.String("d")})
	if err != nil || d.DeliveryStreamDescription.DeliveryStreamStatus != types.DeliveryStreamStatusActive {
		t.Fatalf("%+v, %v", d, err)
	}
}

// TestUnmodifiedClients runs the AWS CLI, boto3 and the JavaScript SDK.
func TestUnmodifiedClients(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	const python = `
import boto3, sys
c = boto3.client("firehose", endpoint_url=sys.argv[1], region_name="us-east-1")
c.create_delivery_stream(DeliveryStreamName="d", ExtendedS3DestinationConfiguration={"RoleARN": "arn:aws:iam::123456789012:role/r", "BucketARN": "arn:aws:s3:::lake", "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}})
assert c.put_record(DeliveryStreamName="d", Record={"Data": b"a\n"})["RecordId"]
r = c.put_record_batch(DeliveryStreamName="d", Records=[{"Data": b"b\n"}, {"Data": b"c\n"}])
assert r["FailedPutCount"] == 0 and len(r["RequestResponses"]) == 2
assert c.list_delivery_streams()["DeliveryStreamNames"] == ["d"]
d = c.describe_delivery_stream(DeliveryStreamName="d")["DeliveryStreamDescription"]
assert d["DeliveryStreamStatus"] == "ACTIVE" and d["CreateTimestamp"].year > 2000
try:
    c.describe_delivery_stream(DeliveryStreamName="no")
    assert False
except c.exceptions.ResourceNotFoundException:
    pass
`
	const shell = `
set -e
export AWS_ENDPOINT_URL=$1
aws firehose create-delivery-stream --delivery-stream-name d --s3-destination-configuration RoleARN=arn:aws:iam::123456789012:role/r,BucketARN=arn:aws:s3:::lake,BufferingHints='{SizeInMBs=1,IntervalInSeconds=0}'
case "$(aws --version 2>&1)" in # the first version takes text, the second base64
aws-cli/1*) data='a\n' ;;
*) data='YQo=' ;;
esac
aws firehose put-record --delivery-stream-name d --record '{"Data":"'$data'"}'
aws firehose put-record-batch --delivery-stream-name d --records '[{"Data":"'$data'"},{"Data":"'$data'"}]'
aws firehose describe-delivery-stream --delivery-stream-name d
`
	const script = `
const { FirehoseClient, CreateDeliveryStreamCommand, PutRecordCommand, PutRecordBatchCommand, DescribeDeliveryStreamCommand } = require("@aws-sdk/client-firehose");
(async () => {
  const c = new FirehoseClient({ endpoint: process.argv[2], region: "us-east-1" });
  await c.send(new CreateDeliveryStreamCommand({ DeliveryStreamName: "d", S3DestinationConfiguration: { RoleARN: "arn:aws:iam::123456789012:role/r", BucketARN: "arn:aws:s3:::lake", BufferingHints: { SizeInMBs: 1, IntervalInSeconds: 0 } } }));
  const one = await c.send(new PutRecordCommand({ DeliveryStreamName: "d", Record: { Data: Buffer.from("a\n") } }));
  const two = await c.send(new PutRecordBatchCommand({ DeliveryStreamName: "d", Records: [{ Data: Buffer.from("b\n") }, { Data: Buffer.from("c\n") }] }));
  const d = await c.send(new DescribeDeliveryStreamCommand({ DeliveryStreamName: "d" }));
  if (!one.RecordId || two.FailedPutCount !== 0 || !(d.DeliveryStreamDescription.CreateTimestamp instanceof Date)) throw new Error(JSON.stringify([one, two, d]));
})().catch((e) => { console.error(e); process.exit(1); });
`
	js := filepath.Join(t.TempDir(), "client.js")
	if err := os.WriteFile(js, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, command := range map[string][]string{
		"boto3": {"python3", "-c", python}, "AWS CLI": {"bash", "-c", shell, "aws"}, "JavaScript": {"node", js},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			cmd := exec.Command(command[0], append(command[1:], b.server())...)
			cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_DEFAULT_REGION=us-east-1",
				"AWS_REGION=us-east-1", "NODE_PATH="+filepath.Join(cache, "weir-test", "firehose-js", "node_modules"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s (appliance/delivery/install.sh installs what this test needs)", err, out)
			}
			b.waitFor(3)
		})
	}
}

// FuzzCreate: no body makes a panic, and what is refused says why.
func FuzzCreate(f *testing.F) {
	b := newBoxOn(f, vfs.NewMem()) // a disk would be synced for each delivery stream that comes and goes
	f.Add(`{"DeliveryStreamName":"d","ExtendedS3DestinationConfiguration":{` + role + `,"BucketARN":"arn:aws:s3:::lake","Prefix":"!{timestamp:yyyy}/"}}`)
	f.Add(`{"DeliveryStreamName":"d","HttpEndpointDestinationConfiguration":{"EndpointConfiguration":{"Url":"https://x"},"S3Configuration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"}}}`)
	f.Add(`{"DeliveryStreamName":"d","HttpEndpointDestinationConfiguration":{"EndpointConfiguration":{"Url":"https://"},"S3Configuration":{` + role + `,"BucketARN":"arn:aws:s3:::lake"}}}`)
	f.Add(`{"DeliveryStreamName":"d","DynamicPartitioningConfiguration":{},"Tags":[null]}`)
	f.Fuzz(func(t *testing.T, body string) {
		res := apitest.Do(t.Context(), b.service, &apitest.Request{
			Headers: http.Header{"X-Amz-Target": {"Firehose_20150804.CreateDeliveryStream"}, "Content-Type": {"application/x-amz-json-1.1"}},
			Payload: []byte(body), Who: &api.Identity{Name: "test", Policy: api.FullAccess},
		})
		if res.Status >= 500 {
			t.Fatalf("%q: %d %s", body, res.Status, res.Body)
		}
		if res.Status == 200 {
			for _, c := range b.engine.Configs() {
				if err := b.engine.Delete(t.Context(), c.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
