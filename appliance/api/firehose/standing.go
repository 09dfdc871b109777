package firehose

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/columnar"
)

// standing is the destination of a delivery stream as it is now: the one that was
// kept, with what was changed by other means since, or one that says the same as
// a configuration which was made by other means.
func (s *Service) standing(c *delivery.Config) (*destination, error) {
	d := &destination{}
	if raw, ok := c.Annotations[annotation]; ok {
		if err := json.Unmarshal(raw, d); err != nil {
			return nil, fmt.Errorf("delivery %s: stored destination: %w", c.Name, err)
		}
	}
	d.own, d.stand = map[string]delivery.Target{}, true
	if d.HTTP != nil {
		s.standingHTTP(c, d)
		return d, nil
	}
	if d.ExtendedS3 == nil {
		d.ExtendedS3 = &extendedS3DestinationConfiguration{RoleARN: pointer("arn:aws:iam::" + s.o.Account + ":role/weir")}
	}
	s.standingS3(c, d)
	return d, nil
}

// Renew has the delivery streams with a Kinesis source that an older version's API made take
// KPL aggregates apart, once: it had no part in what the user asked for, and Firehose does so. A stream that can't
// be changed now, for want of space, is logged and left to the next start.
func (s *Service) Renew(ctx context.Context) {
	for _, c := range s.engine.Configs() {
		raw, ok := c.Annotations[annotation]
		d := &destination{}
		if !ok || c.Source.DirectPut || json.Unmarshal(raw, d) != nil || d.Aggregates {
			continue
		}
		err := s.engine.Update(ctx, c.Name, 0, func(c *delivery.Config) error {
			d.Aggregates, c.Deaggregate = true, true
			c.Annotations[annotation] = asJSON(d)
			return nil
		})
		if err != nil {
			s.o.Logger.Warn("delivery stream goes on without taking KPL aggregates apart", "delivery", c.Name, "error", err)
			continue
		}
		s.o.Logger.Info("delivery stream takes KPL aggregates apart from now on", "delivery", c.Name)
	}
}

// bucket is the ARN for a target: the one that was given, when it still leads there.
func (s *Service) bucket(d *destination, given *string, t delivery.Target) *string {
	if given != nil {
		if found, err := s.target(d, given); err == nil && bytes.Equal(asJSON(found), asJSON(t)) {
			return given
		}
	}
	var settings struct{ Bucket string }
	_ = json.Unmarshal(t.Settings, &settings) // without settings there is no bucket in them
	name := t.Kind
	for _, other := range []string{t.Name, settings.Bucket, t.Bucket} {
		if other != "" {
			name = other
		}
	}
	arn := "arn:aws:s3:::" + name
	d.own[arn] = t
	return &arn
}

// say sets a member to what stands, unless it says so already.
func say(member **string, stands string) {
	if value(*member, "") != stands {
		*member = &stands
	}
}

func sayFormat(member **string, stands codec.Codec) {
	if stands == "" {
		stands = codec.Uncompressed
	}
	if given, err := codec.Parse(value(*member, "")); err != nil || given != stands {
		*member = pointer(string(stands))
	}
}

func (s *Service) standingS3(c *delivery.Config, d *destination) {
	x := d.ExtendedS3
	x.BucketARN = s.bucket(d, x.BucketARN, c.Sink)
	say(&x.Prefix, c.Prefix)
	say(&x.ErrorOutputPrefix, c.ErrorPrefix)
	say(&x.FileExtension, c.FileExtension)
	if zone := value(x.CustomTimeZone, ""); zone != c.TimeZone && (zone != "" || c.TimeZone != "UTC") {
		x.CustomTimeZone = &c.TimeZone
	}
	sayFormat(&x.CompressionFormat, c.Compression.Format)
	if (c.Partition != nil) != d.partitioned() {
		x.DynamicPartitioningConfiguration = &dynamicPartitioningConfiguration{Enabled: pointer(c.Partition != nil)}
	}
	x.ProcessingConfiguration = s.standingProcessors(c, x.ProcessingConfiguration)
	converts := x.DataFormatConversionConfiguration
	given := delivery.Config{}
	if on := converts != nil && value(converts.Enabled, true); on && applyConversion(&given, converts) != nil {
		given.Parquet = nil
	}
	if (c.Parquet == nil) != (given.Parquet == nil) || c.Parquet != nil && !reflect.DeepEqual(c.Parquet.Options, given.Parquet.Options) {
		x.DataFormatConversionConfiguration = conversion(c.Parquet)
	}
	size := 5
	if c.Partition != nil || c.Parquet != nil {
		size = 128
	}
	if b, err := buffer(x.BufferingHints, size, 300); err != nil || b.SizeBytes != c.Buffer.SizeBytes || *b.Interval != *c.Buffer.Interval {
		x.BufferingHints = standingHints(c)
	}
	if c.Backup == nil {
		x.S3BackupMode = nil
		return
	}
	x.S3BackupMode = pointer("Enabled")
	if x.S3BackupConfiguration == nil {
		x.S3BackupConfiguration = &s3DestinationConfiguration{RoleARN: x.RoleARN}
	}
	b := x.S3BackupConfiguration
	b.BucketARN = s.bucket(d, b.BucketARN, c.Backup.Sink)
	say(&b.Prefix, c.Backup.Prefix)
	sayFormat(&b.CompressionFormat, c.Backup.Compression.Format)
}

func (s *Service) standingHTTP(c *delivery.Config, d *destination) {
	h := d.HTTP
	h.ProcessingConfiguration = s.standingProcessors(c, h.ProcessingConfiguration)
	given := &bufferingHints{}
	if h.BufferingHints != nil {
		given = &bufferingHints{SizeInMBs: h.BufferingHints.SizeInMBs, IntervalInSeconds: h.BufferingHints.IntervalInSeconds}
	}
	if b, err := buffer(given, 5, 300); err != nil || b.SizeBytes != c.Buffer.SizeBytes || *b.Interval != *c.Buffer.Interval {
		now := standingHints(c)
		h.BufferingHints = &httpEndpointBufferingHints{SizeInMBs: now.SizeInMBs, IntervalInSeconds: now.IntervalInSeconds}
	}
	if f := c.OnFailure; f != nil {
		h.S3Configuration.BucketARN = s.bucket(d, h.S3Configuration.BucketARN, f.Sink)
		say(&h.S3Configuration.ErrorOutputPrefix, f.ErrorPrefix)
		sayFormat(&h.S3Configuration.CompressionFormat, f.Compression.Format)
		if seconds := int(time.Duration(f.After).Seconds()); h.retry() != time.Duration(f.After) {
			h.RetryOptions = &httpEndpointRetryOptions{DurationInSeconds: &seconds}
		}
	}
}

// standingHints are buffer hints in the API's units, rounded up.
func standingHints(c *delivery.Config) *bufferingHints {
	size := int((c.Buffer.SizeBytes + 1<<20 - 1) >> 20)
	interval := int((time.Duration(*c.Buffer.Interval) + time.Second - 1) / time.Second)
	return &bufferingHints{SizeInMBs: &size, IntervalInSeconds: &interval}
}

// stages are what processors make of a configuration.
func stages(c *delivery.Config) []byte {
	own := delivery.Config{Decompress: c.Decompress, SubRecords: c.SubRecords, Delimiter: c.Delimiter}
	if t := c.Transform; t != nil {
		retries := value(t.Retries, 3)
		own.Transform = &delivery.Transform{Module: t.Module, Retries: &retries}
	}
	if c.Partition != nil {
		own.Partition = &delivery.Partition{Query: c.Partition.Query}
	}
	return asJSON(&own)
}

// standingProcessors are the processors that were given, unless the stages are others now.
func (s *Service) standingProcessors(c *delivery.Config, given *processingConfiguration) *processingConfiguration {
	then := delivery.Config{}
	if c.Partition != nil {
		then.Partition = &delivery.Partition{}
	}
	if err := s.applyProcessors(&then, given); err == nil && bytes.Equal(stages(&then), stages(c)) {
		return given
	}
	out := &processingConfiguration{Processors: []processor{}}
	add := func(kind string, parameters ...string) {
		p := processor{Type: &kind, Parameters: []processorParameter{}}
		for i := 0; i < len(parameters); i += 2 {
			if parameters[i+1] != "" {
				p.Parameters = append(p.Parameters, processorParameter{&parameters[i], &parameters[i+1]})
			}
		}
		out.Processors = append(out.Processors, p)
	}
	if c.Decompress != nil {
		add("Decompression", "CompressionFormat", "GZIP")
		if c.Decompress.Extract {
			add("CloudWatchLogProcessing", "DataMessageExtraction", "true")
		}
	}
	if r := c.SubRecords; r != nil {
		add("RecordDeAggregation", "SubRecordType", r.Type, "Delimiter", base64.StdEncoding.EncodeToString(r.Delimiter))
	}
	if t := c.Transform; t != nil {
		add("Lambda", "LambdaArn", "arn:aws:lambda:"+s.o.Region+":"+s.o.Account+":function:"+t.Module, "NumberOfRetries", strconv.Itoa(value(t.Retries, 3)))
	}
	if c.Partition != nil && c.Partition.Query != "" {
		add("MetadataExtraction", "MetadataExtractionQuery", c.Partition.Query, "JsonParsingEngine", "JQ-1.6")
	}
	if c.Delimiter != "" {
		add("AppendDelimiterToRecord", "Delimiter", escaped.Replace(c.Delimiter))
	}
	out.Enabled = pointer(len(out.Processors) > 0)
	return out
}

// conversion is a format conversion in the API's words, which have none for a schema.
func conversion(p *delivery.Parquet) *dataFormatConversionConfiguration {
	if p == nil {
		return &dataFormatConversionConfiguration{Enabled: pointer(false)}
	}
	in, out := &deserializer{}, &parquetSerDe{}
	if p.Serde == columnar.Hive {
		in.HiveJSONSerDe = &hiveJSONSerDe{TimestampFormats: p.TimestampFormats}
	} else {
		in.OpenXJsonSerDe = &openXJsonSerDe{ColumnToJSONKeyMappings: p.Keys}
		if p.CaseSensitive {
			in.OpenXJsonSerDe.CaseInsensitive = pointer(false)
		}
		if p.DotsToUnderscores {
			in.OpenXJsonSerDe.ConvertDotsInJSONKeysToUnderscores = pointer(true)
		}
	}
	if p.BlockSizeBytes > 0 {
		out.BlockSizeBytes = &p.BlockSizeBytes
	}
	if p.PageSizeBytes > 0 {
		out.PageSizeBytes = &p.PageSizeBytes
	}
	if p.Dictionary {
		out.EnableDictionaryCompression = pointer(true)
	}
	if p.Compression != "" {
		out.Compression = &p.Compression
	}
	if p.WriterVersion != "" {
		out.WriterVersion = &p.WriterVersion
	}
	return &dataFormatConversionConfiguration{
		Enabled: pointer(true), InputFormatConfiguration: &inputFormatConfiguration{Deserializer: in},
		OutputFormatConfiguration: &outputFormatConfiguration{Serializer: &serializer{ParquetSerDe: out}},
	}
}

// keep has what an update did not change stay as it is in now, where it may be what the
// API has no words for. before and after are what the destination says without and with
// the update.
func keep(now, before, after *delivery.Config) {
	if after.Parquet != nil && now.Parquet != nil {
		after.Parquet.Schema = now.Parquet.Schema
		before.Parquet.Schema = now.Parquet.Schema
	}
	n, b, a := reflect.ValueOf(now).Elem(), reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem()
	for i := range n.NumField() {
		if reflect.DeepEqual(b.Field(i).Interface(), a.Field(i).Interface()) {
			a.Field(i).Set(n.Field(i))
		}
	}
}
