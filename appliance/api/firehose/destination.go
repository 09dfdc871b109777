package firehose

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/columnar"
	"github.com/weirhq/weir/appliance/delivery/prefix"
)

// destination is what a delivery stream was given as its destination, kept
// as it was written so that Describe can echo it. One of the two is set.
type destination struct {
	ExtendedS3 *extendedS3DestinationConfiguration   `json:",omitempty"`
	HTTP       *httpEndpointDestinationConfiguration `json:",omitempty"`
	// Aggregates says that it was applied by a version which takes those of a
	// Kinesis source apart.
	Aggregates bool `json:",omitempty"`

	own   map[string]delivery.Target // of ARNs that stand for sinks which have no bucket
	stand bool                       // the buffer hints stand, and may by other means be less than the API's
}

const annotation = "firehose"

// asJSON keeps a structure of ours.
func asJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: marshal %T: %v", v, err))
	}
	return raw
}

// pointer points to a copy of v, as members of the API do that may be absent.
func pointer[T any](v T) *T { return &v }

// value is what a pointer points to, or what stands in its place.
func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// unservedDestinations are refused by name.
func destinationOf(in *createDeliveryStreamInput) (*destination, error) {
	for name, d := range map[string]*unserved{
		"Redshift": in.RedshiftDestinationConfiguration, "Elasticsearch": in.ElasticsearchDestinationConfiguration,
		"Amazonopensearchservice":    in.AmazonopensearchserviceDestinationConfiguration,
		"AmazonOpenSearchServerless": in.AmazonOpenSearchServerlessDestinationConfiguration,
		"Splunk":                     in.SplunkDestinationConfiguration, "Snowflake": in.SnowflakeDestinationConfiguration, "Iceberg": in.IcebergDestinationConfiguration,
	} {
		if d != nil {
			return nil, aws.InvalidArgument.New("%sDestinationConfiguration is not supported. Supported are S3, ExtendedS3 and HttpEndpoint", name)
		}
	}
	d := &destination{ExtendedS3: in.ExtendedS3DestinationConfiguration, HTTP: in.HTTPEndpointDestinationConfiguration}
	given := 0
	for _, is := range []bool{in.S3DestinationConfiguration != nil, d.ExtendedS3 != nil, d.HTTP != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, aws.InvalidArgument.New("Exactly one destination configuration is supported for a Firehose")
	}
	if in.S3DestinationConfiguration != nil {
		d.ExtendedS3 = &extendedS3DestinationConfiguration{}
		overlay(d.ExtendedS3, in.S3DestinationConfiguration)
	}
	return d, nil
}

// overlay copies each member of from that is set to the member of that name.
func overlay(to, from any) {
	dst, src := reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem()
	for i := range src.NumField() {
		f := src.Field(i)
		if f.IsNil() {
			continue
		}
		if d := dst.FieldByName(src.Type().Field(i).Name); d.IsValid() && d.Type() == f.Type() {
			d.Set(f)
		}
	}
}

// merge applies an update: members that are left out stay as they are while
// the kind of destination stays, and a change of kind replaces everything.
func (d *destination) merge(in *updateDestinationInput) error {
	for name, u := range map[string]*unserved{
		"Redshift": in.RedshiftDestinationUpdate, "Elasticsearch": in.ElasticsearchDestinationUpdate,
		"Amazonopensearchservice":    in.AmazonopensearchserviceDestinationUpdate,
		"AmazonOpenSearchServerless": in.AmazonOpenSearchServerlessDestinationUpdate,
		"Splunk":                     in.SplunkDestinationUpdate, "Snowflake": in.SnowflakeDestinationUpdate, "Iceberg": in.IcebergDestinationUpdate,
	} {
		if u != nil {
			return aws.InvalidArgument.New("%sDestinationUpdate is not supported. Supported are S3, ExtendedS3 and HttpEndpoint", name)
		}
	}
	given := 0
	for _, is := range []bool{in.S3DestinationUpdate != nil, in.ExtendedS3DestinationUpdate != nil, in.HTTPEndpointDestinationUpdate != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return aws.InvalidArgument.New("Exactly one destination update is supported for a Firehose")
	}
	if in.HTTPEndpointDestinationUpdate != nil {
		return d.mergeHTTP(in.HTTPEndpointDestinationUpdate)
	}
	if d.ExtendedS3 == nil {
		d.ExtendedS3, d.HTTP = &extendedS3DestinationConfiguration{}, nil
	}
	if u := in.S3DestinationUpdate; u != nil {
		overlay(d.ExtendedS3, u)
		d.stand = d.stand && u.BufferingHints == nil
		return nil
	}
	u := in.ExtendedS3DestinationUpdate
	if value(d.ExtendedS3.S3BackupMode, "Disabled") == "Enabled" && value(u.S3BackupMode, "Enabled") == "Disabled" {
		return aws.InvalidArgument.New("S3 backup cannot be disabled once it is enabled")
	}
	if p := u.DynamicPartitioningConfiguration; p != nil && p.Enabled == nil {
		enabled := d.partitioned()
		p.Enabled = &enabled
	} else if p != nil && *p.Enabled != d.partitioned() {
		return aws.InvalidArgument.New("Dynamic partitioning can only be enabled when a delivery stream is created, and cannot be disabled")
	}
	overlay(d.ExtendedS3, u)
	d.stand = d.stand && u.BufferingHints == nil && u.DataFormatConversionConfiguration == nil
	if u.S3BackupUpdate != nil {
		if d.ExtendedS3.S3BackupConfiguration == nil {
			d.ExtendedS3.S3BackupConfiguration = &s3DestinationConfiguration{}
		}
		overlay(d.ExtendedS3.S3BackupConfiguration, u.S3BackupUpdate)
	}
	return nil
}

func (d *destination) partitioned() bool {
	p := d.ExtendedS3.DynamicPartitioningConfiguration
	return p != nil && value(p.Enabled, false)
}

func (d *destination) mergeHTTP(u *httpEndpointDestinationUpdate) error {
	if d.HTTP == nil {
		d.HTTP, d.ExtendedS3 = &httpEndpointDestinationConfiguration{}, nil
	}
	if e := u.EndpointConfiguration; e != nil && e.AccessKey == nil && d.HTTP.EndpointConfiguration != nil {
		e.AccessKey = d.HTTP.EndpointConfiguration.AccessKey
	}
	overlay(d.HTTP, u)
	if u.S3Update != nil {
		if d.HTTP.S3Configuration == nil {
			d.HTTP.S3Configuration = &s3DestinationConfiguration{}
		}
		overlay(d.HTTP.S3Configuration, u.S3Update)
	}
	if d.HTTP.EndpointConfiguration == nil || d.HTTP.S3Configuration == nil {
		return aws.InvalidArgument.New("EndpointConfiguration and S3Update must be given when the destination becomes an HTTP endpoint")
	}
	return nil
}

// apply makes a configuration of the destination and keeps the destination.
func (s *Service) apply(c *delivery.Config, d *destination) error {
	fresh := delivery.Config{
		Name: c.Name, Source: c.Source, Uplink: c.Uplink, Paused: c.Paused, Description: c.Description, Annotations: maps.Clone(c.Annotations),
		// What a destination has no words for stays as it was set otherwise.
		Check: c.Check, ErrorSink: c.ErrorSink,
	}
	var err error
	if d.HTTP != nil {
		err = s.applyHTTP(&fresh, d)
	} else {
		err = s.applyS3(&fresh, d)
	}
	if err != nil {
		return err
	}
	// Firehose takes KPL aggregates apart when it reads a Kinesis stream.
	fresh.Deaggregate = !c.Source.DirectPut
	if fresh.Annotations == nil {
		fresh.Annotations = delivery.Annotations{}
	}
	d.Aggregates = true
	fresh.Annotations[annotation] = asJSON(d)
	*c = fresh
	return nil
}

// target finds the sink for a bucket.
func (s *Service) target(d *destination, arn *string) (delivery.Target, error) {
	if arn == nil {
		return delivery.Target{}, aws.InvalidArgument.New("BucketARN must be given")
	}
	if t, ok := d.own[*arn]; ok {
		return t, nil
	}
	bucket := (*arn)[strings.LastIndexByte(*arn, ':')+1:]
	t, err := s.o.Bucket(bucket)
	if err != nil {
		return t, aws.InvalidArgument.New("BucketARN %s: %v", *arn, err)
	}
	return t, nil
}

// plain refuses what every S3 destination may have and no sink here has.
func plain(e *encryptionConfiguration, l *cloudWatchLoggingOptions) error {
	if e != nil && e.KMSEncryptionConfig != nil {
		return aws.InvalidArgument.New("EncryptionConfiguration: the key of an object store is a setting of its sink (sse, kms_key_id), not of a destination")
	}
	if l != nil && value(l.Enabled, false) {
		return aws.InvalidArgument.New("CloudWatchLoggingOptions: there is no CloudWatch here; errors of deliveries are in the log and in weir delivery stats")
	}
	return nil
}

func buffer(h *bufferingHints, size, interval int) (delivery.Buffer, error) {
	if h != nil {
		if (h.SizeInMBs == nil) != (h.IntervalInSeconds == nil) {
			return delivery.Buffer{}, aws.InvalidArgument.New("Both SizeInMBs and IntervalInSeconds must be specified in BufferingHints")
		}
		size, interval = value(h.SizeInMBs, size), value(h.IntervalInSeconds, interval)
	}
	return delivery.Buffer{SizeBytes: int64(size) << 20, Interval: delivery.Every(time.Duration(interval) * time.Second)}, nil
}

func (s *Service) applyS3(c *delivery.Config, of *destination) error {
	d := of.ExtendedS3
	if err := plain(d.EncryptionConfiguration, d.CloudWatchLoggingOptions); err != nil {
		return err
	}
	var err error
	if c.Sink, err = s.target(of, d.BucketARN); err != nil {
		return err
	}
	partitioned := d.DynamicPartitioningConfiguration != nil && value(d.DynamicPartitioningConfiguration.Enabled, false)
	converts := d.DataFormatConversionConfiguration != nil && value(d.DataFormatConversionConfiguration.Enabled, d.DataFormatConversionConfiguration != nil)
	size := 5
	if partitioned || converts {
		size = 128
	}
	if c.Buffer, err = buffer(d.BufferingHints, size, 300); err != nil {
		return err
	}
	if (partitioned || converts) && !of.stand && c.Buffer.SizeBytes < 64<<20 {
		return aws.InvalidArgument.New("BufferingHints.SizeInMBs must be at least 64 when data format conversion or dynamic partitioning is enabled")
	}
	if partitioned && !of.stand && time.Duration(*c.Buffer.Interval) < time.Minute {
		return aws.InvalidArgument.New("BufferingHints.IntervalInSeconds must be at least 60 when dynamic partitioning is enabled")
	}
	format, err := codec.Parse(value(d.CompressionFormat, ""))
	if err != nil {
		return aws.InvalidArgument.New("%v", err)
	}
	c.Compression.Format = format
	c.Prefix, c.ErrorPrefix = value(d.Prefix, ""), value(d.ErrorOutputPrefix, "")
	c.FileExtension, c.TimeZone = value(d.FileExtension, ""), value(d.CustomTimeZone, "")
	if partitioned {
		c.Partition = &delivery.Partition{}
	}
	if converts {
		if err := applyConversion(c, d.DataFormatConversionConfiguration); err != nil {
			return err
		}
	}
	if err := s.applyProcessors(c, d.ProcessingConfiguration); err != nil {
		return err
	}
	if value(d.S3BackupMode, "Disabled") == "Enabled" {
		if d.S3BackupConfiguration == nil {
			return aws.InvalidArgument.New("S3BackupConfiguration must be given when S3BackupMode is Enabled")
		}
		c.Backup, err = s.backup(of, d.S3BackupConfiguration)
	}
	return err
}

func (s *Service) backup(of *destination, b *s3DestinationConfiguration) (*delivery.Backup, error) {
	if err := plain(b.EncryptionConfiguration, b.CloudWatchLoggingOptions); err != nil {
		return nil, err
	}
	t, err := s.target(of, b.BucketARN)
	if err != nil {
		return nil, err
	}
	// Nothing of a backup fails, but what is kept and described has to make sense.
	if _, err := prefix.Parse(value(b.ErrorOutputPrefix, ""), prefix.Error); err != nil {
		return nil, aws.InvalidArgument.New("S3BackupConfiguration: %v", err)
	}
	format, err := codec.Parse(value(b.CompressionFormat, ""))
	if err != nil {
		return nil, aws.InvalidArgument.New("%v", err)
	}
	return &delivery.Backup{Sink: t, Prefix: value(b.Prefix, ""), Compression: delivery.Compression{Format: format}}, nil
}

func (s *Service) applyHTTP(c *delivery.Config, of *destination) error {
	d := of.HTTP
	if err := plain(nil, d.CloudWatchLoggingOptions); err != nil {
		return err
	}
	if m := d.SecretsManagerConfiguration; m != nil && value(m.Enabled, false) {
		return aws.InvalidArgument.New("SecretsManagerConfiguration: there is no Secrets Manager here; give the AccessKey")
	}
	var err error
	hints := d.BufferingHints
	if hints == nil {
		hints = &httpEndpointBufferingHints{}
	}
	if c.Buffer, err = buffer(&bufferingHints{SizeInMBs: hints.SizeInMBs, IntervalInSeconds: hints.IntervalInSeconds}, 5, 300); err != nil {
		return err
	}
	settings := map[string]any{"url": *d.EndpointConfiguration.URL, "name": value(d.EndpointConfiguration.Name, ""), "access_key": value(d.EndpointConfiguration.AccessKey, "")}
	if r := d.RequestConfiguration; r != nil {
		settings["content_encoding"] = value(r.ContentEncoding, "NONE")
		attributes := map[string]string{}
		for _, a := range r.CommonAttributes {
			attributes[*a.AttributeName] = *a.AttributeValue
		}
		settings["common_attributes"] = attributes
	}
	c.Sink = delivery.Target{Kind: "http", Settings: asJSON(settings)}
	t, err := s.target(of, d.S3Configuration.BucketARN)
	if err != nil {
		return err
	}
	format, err := codec.Parse(value(d.S3Configuration.CompressionFormat, ""))
	if err != nil {
		return aws.InvalidArgument.New("%v", err)
	}
	c.OnFailure = &delivery.OnFailure{
		Sink: t, ErrorPrefix: value(d.S3Configuration.ErrorOutputPrefix, ""), After: delivery.Duration(d.retry()),
		Compression: delivery.Compression{Format: format},
	}
	if value(d.S3BackupMode, "FailedDataOnly") == "AllData" {
		if c.Backup, err = s.backup(of, d.S3Configuration); err != nil {
			return err
		}
	}
	return s.applyProcessors(c, d.ProcessingConfiguration)
}

// retry is for how long a batch is tried before it goes to the bucket.
func (h *httpEndpointDestinationConfiguration) retry() time.Duration {
	seconds := 300
	if h.RetryOptions != nil {
		seconds = value(h.RetryOptions.DurationInSeconds, seconds)
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

// processorParameters are the parameters that each type of processor has.
var processorParameters = map[string][]string{
	"RecordDeAggregation":     {"SubRecordType", "Delimiter"},
	"Decompression":           {"CompressionFormat"},
	"CloudWatchLogProcessing": {"DataMessageExtraction"},
	"Lambda":                  {"LambdaArn", "NumberOfRetries", "RoleArn", "BufferSizeInMBs", "BufferIntervalInSeconds"},
	"MetadataExtraction":      {"MetadataExtractionQuery", "JsonParsingEngine"},
	"AppendDelimiterToRecord": {"Delimiter"},
}

// applyProcessors turns the processors into stages.
func (s *Service) applyProcessors(c *delivery.Config, p *processingConfiguration) error {
	if p == nil || !value(p.Enabled, false) {
		return nil
	}
	for _, processor := range p.Processors {
		parameters := map[string]string{}
		for _, q := range processor.Parameters {
			if !slices.Contains(processorParameters[*processor.Type], *q.ParameterName) {
				return aws.InvalidArgument.New("%s processor: it has no parameter %s; its parameters are %s", *processor.Type, *q.ParameterName, strings.Join(processorParameters[*processor.Type], ", "))
			}
			parameters[*q.ParameterName] = *q.ParameterValue
		}
		if err := s.applyProcessor(c, *processor.Type, parameters); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) applyProcessor(c *delivery.Config, kind string, p map[string]string) error {
	bad := func(format string, args ...any) error {
		return aws.InvalidArgument.New(kind+" processor: "+format, args...)
	}
	switch kind {
	case "AppendDelimiterToRecord":
		c.Delimiter = unescaped.Replace(p["Delimiter"])
		if c.Delimiter == "" {
			c.Delimiter = "\n"
		}
	case "Decompression":
		if f := p["CompressionFormat"]; f != "" && f != "GZIP" {
			return bad("CompressionFormat %s is not supported; GZIP is", f)
		}
		c.Decompress = &delivery.Decompress{}
	case "CloudWatchLogProcessing":
		if c.Decompress == nil {
			return bad("must come after a Decompression processor")
		}
		c.Decompress.Extract = strings.EqualFold(p["DataMessageExtraction"], "true")
	case "RecordDeAggregation":
		c.SubRecords = &delivery.SubRecords{Type: p["SubRecordType"]}
		if d := p["Delimiter"]; d != "" {
			raw, err := base64.StdEncoding.DecodeString(d)
			if err != nil {
				return bad("Delimiter must be base64: %v", err)
			}
			c.SubRecords.Delimiter = raw
		}
	case "MetadataExtraction":
		if e := p["JsonParsingEngine"]; e != "JQ-1.6" {
			return bad("JsonParsingEngine %q must be JQ-1.6", e)
		}
		if c.Partition == nil {
			return bad("needs DynamicPartitioningConfiguration")
		}
		c.Partition.Query = p["MetadataExtractionQuery"]
	case "Lambda":
		return s.applyLambda(c, p, bad)
	}
	return nil
}

// A parameter can't be white space alone, so a delimiter has it in these words.
var (
	unescaped = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\\`, `\`)
	escaped   = strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`, `\`, `\\`)
)

// applyLambda takes a function's name for a module's.
func (s *Service) applyLambda(c *delivery.Config, p map[string]string, bad func(string, ...any) error) error {
	_, name, found := strings.Cut(p["LambdaArn"], ":function:")
	if !found {
		return bad("LambdaArn %q must be arn:aws:lambda:REGION:ACCOUNT:function:NAME, where NAME is a module here", p["LambdaArn"])
	}
	name, _, _ = strings.Cut(name, ":")
	if !s.o.Module(name) {
		return bad("there is no module %q for LambdaArn %s; add it with weir module push", name, p["LambdaArn"])
	}
	c.Transform = &delivery.Transform{Module: name}
	if n, given := p["NumberOfRetries"]; given {
		v, err := strconv.Atoi(n)
		if err != nil || v < 0 || v > delivery.MaxTransformRetries {
			return bad("NumberOfRetries %q is not a number from 0 to %d", n, delivery.MaxTransformRetries)
		}
		c.Transform.Retries = &v
	}
	// The two hints are echoed and have no other effect: a module is called when an
	// object is made, with what is there.
	if n, given := p["BufferSizeInMBs"]; given {
		if v, err := strconv.ParseFloat(n, 64); err != nil || !(v >= 0.2 && v <= 3) {
			return bad("BufferSizeInMBs %q is not a number from 0.2 to 3", n)
		}
	}
	if n, given := p["BufferIntervalInSeconds"]; given {
		if v, err := strconv.Atoi(n); err != nil || v < 0 || v > 900 {
			return bad("BufferIntervalInSeconds %q is not a number from 0 to 900", n)
		}
	}
	return nil
}

// applyConversion turns a format conversion into Parquet.
func applyConversion(c *delivery.Config, d *dataFormatConversionConfiguration) error {
	if d.OutputFormatConfiguration == nil || d.OutputFormatConfiguration.Serializer == nil || d.InputFormatConfiguration == nil || d.InputFormatConfiguration.Deserializer == nil {
		return aws.InvalidArgument.New("DataFormatConversionConfiguration needs InputFormatConfiguration.Deserializer and OutputFormatConfiguration.Serializer")
	}
	out, in := d.OutputFormatConfiguration.Serializer, d.InputFormatConfiguration.Deserializer
	if out.OrcSerDe != nil || out.ParquetSerDe == nil {
		return aws.InvalidArgument.New("OrcSerDe is not supported: there is no maintained ORC writer to build on. Use ParquetSerDe")
	}
	if s := d.SchemaConfiguration; s != nil && (s.TableName != nil || s.DatabaseName != nil) {
		return aws.InvalidArgument.New("SchemaConfiguration: there is no Glue Data Catalog here. Leave it out to have the schema inferred from the records, or declare it in a file for weir delivery create --file")
	}
	if (in.OpenXJsonSerDe == nil) == (in.HiveJSONSerDe == nil) {
		return aws.InvalidArgument.New("Deserializer: give either OpenXJsonSerDe or HiveJsonSerDe")
	}
	p := &delivery.Parquet{}
	o, q := &p.Options, out.ParquetSerDe
	o.Compression, o.WriterVersion = value(q.Compression, ""), value(q.WriterVersion, "")
	o.BlockSizeBytes, o.PageSizeBytes, o.MaxPaddingBytes = value(q.BlockSizeBytes, 0), value(q.PageSizeBytes, 0), value(q.MaxPaddingBytes, 0)
	o.Dictionary = value(q.EnableDictionaryCompression, false)
	if h := in.HiveJSONSerDe; h != nil {
		o.Serde, o.TimestampFormats = columnar.Hive, h.TimestampFormats
	} else {
		o.CaseSensitive = !value(in.OpenXJsonSerDe.CaseInsensitive, true)
		o.DotsToUnderscores = value(in.OpenXJsonSerDe.ConvertDotsInJSONKeysToUnderscores, false)
		o.Keys = in.OpenXJsonSerDe.ColumnToJSONKeyMappings
	}
	c.Parquet = p
	return nil
}
