package firehose

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/delivery"
)

func (s *Service) describe(_ context.Context, c *aws.Call, in *describeDeliveryStreamInput) (*describeDeliveryStreamOutput, error) {
	name := *in.DeliveryStreamName
	if err := c.Authorize(name); err != nil {
		return nil, err
	}
	info, err := s.engine.Describe(name)
	if err != nil {
		return nil, s.engineError(err, name)
	}
	d, err := s.standing(&info.Config)
	if err != nil {
		return nil, err
	}
	no := false
	out := &deliveryStreamDescription{
		DeliveryStreamName: &name, DeliveryStreamARN: pointer(s.arn(name)), DeliveryStreamStatus: pointer("ACTIVE"),
		DeliveryStreamEncryptionConfiguration: &deliveryStreamEncryptionConfiguration{Status: pointer("DISABLED")},
		DeliveryStreamType:                    pointer(streamType(&info.Config)), VersionID: pointer(strconv.Itoa(info.Version)),
		CreateTimestamp: &info.Created, HasMoreDestinations: &no, Destinations: []destinationDescription{},
	}
	if info.Version > 1 {
		out.LastUpdateTimestamp = &info.Updated
	}
	if err := s.describeSource(out, &info); err != nil {
		return nil, err
	}
	if after := in.ExclusiveStartDestinationID; after == nil || *after < destinationID {
		out.Destinations = append(out.Destinations, d.describe())
	}
	return &describeDeliveryStreamOutput{DeliveryStreamDescription: out}, nil
}

func (s *Service) describeSource(out *deliveryStreamDescription, info *delivery.Info) error {
	if info.Source.DirectPut {
		raw, ok := info.Annotations["source"]
		if !ok {
			return nil
		}
		out.Source = &sourceDescription{DirectPutSourceDescription: &directPutSourceDescription{}}
		return json.Unmarshal(raw, out.Source.DirectPutSourceDescription)
	}
	source := &kinesisStreamSourceDescription{
		KinesisStreamARN: pointer("arn:aws:kinesis:" + s.o.Region + ":" + s.o.Account + ":stream/" + info.Source.Stream),
		RoleARN:          pointer("arn:aws:iam::" + s.o.Account + ":role/weir"), DeliveryStartTimestamp: &info.Created,
	}
	if raw, ok := info.Annotations["source"]; ok {
		var given kinesisStreamSourceConfiguration
		if err := json.Unmarshal(raw, &given); err != nil {
			return err
		}
		source.KinesisStreamARN, source.RoleARN = given.KinesisStreamARN, given.RoleARN
	}
	out.Source = &sourceDescription{KinesisStreamSourceDescription: source}
	return nil
}

// describe echoes the destination with the defaults that AWS fills in.
func (d *destination) describe() destinationDescription {
	out := destinationDescription{DestinationID: pointer(destinationID)}
	if d.HTTP != nil {
		out.HTTPEndpointDestinationDescription = d.HTTP.describe()
		return out
	}
	x := &extendedS3DestinationDescription{}
	overlay(x, d.ExtendedS3)
	size := 5
	if d.partitioned() || x.DataFormatConversionConfiguration != nil && value(x.DataFormatConversionConfiguration.Enabled, true) {
		size = 128
	}
	x.BufferingHints = hints(x.BufferingHints, size)
	if x.CompressionFormat == nil {
		x.CompressionFormat = pointer("UNCOMPRESSED")
	}
	x.EncryptionConfiguration = encryption(x.EncryptionConfiguration)
	x.CloudWatchLoggingOptions = logging(x.CloudWatchLoggingOptions)
	x.ProcessingConfiguration = processing(x.ProcessingConfiguration)
	if x.S3BackupMode == nil {
		x.S3BackupMode = pointer("Disabled")
	}
	if p := x.DynamicPartitioningConfiguration; d.partitioned() && p.RetryOptions == nil {
		seconds := 300
		x.DynamicPartitioningConfiguration = &dynamicPartitioningConfiguration{Enabled: p.Enabled, RetryOptions: &retryOptions{DurationInSeconds: &seconds}}
	}
	if d.ExtendedS3.S3BackupConfiguration != nil {
		x.S3BackupDescription = d.ExtendedS3.S3BackupConfiguration.describe()
	}
	out.ExtendedS3DestinationDescription = x
	out.S3DestinationDescription = &s3DestinationDescription{}
	overlay(out.S3DestinationDescription, x)
	return out
}

func (c *s3DestinationConfiguration) describe() *s3DestinationDescription {
	out := &s3DestinationDescription{}
	overlay(out, c)
	out.BufferingHints = hints(out.BufferingHints, 5)
	if out.CompressionFormat == nil {
		out.CompressionFormat = pointer("UNCOMPRESSED")
	}
	out.EncryptionConfiguration = encryption(out.EncryptionConfiguration)
	out.CloudWatchLoggingOptions = logging(out.CloudWatchLoggingOptions)
	return out
}

func (c *httpEndpointDestinationConfiguration) describe() *httpEndpointDestinationDescription {
	out := &httpEndpointDestinationDescription{}
	overlay(out, c)
	out.EndpointConfiguration = &httpEndpointDescription{URL: c.EndpointConfiguration.URL, Name: c.EndpointConfiguration.Name}
	if out.BufferingHints == nil {
		five, minutes := 5, 300
		out.BufferingHints = &httpEndpointBufferingHints{SizeInMBs: &five, IntervalInSeconds: &minutes}
	}
	if out.RetryOptions == nil {
		seconds := 300
		out.RetryOptions = &httpEndpointRetryOptions{DurationInSeconds: &seconds}
	}
	if out.RequestConfiguration == nil {
		out.RequestConfiguration = &httpEndpointRequestConfiguration{ContentEncoding: pointer("NONE"), CommonAttributes: []httpEndpointCommonAttribute{}}
	}
	out.CloudWatchLoggingOptions = logging(out.CloudWatchLoggingOptions)
	out.ProcessingConfiguration = processing(out.ProcessingConfiguration)
	if out.S3BackupMode == nil {
		out.S3BackupMode = pointer("FailedDataOnly")
	}
	out.S3DestinationDescription = c.S3Configuration.describe()
	return out
}

func hints(h *bufferingHints, size int) *bufferingHints {
	if h != nil {
		return h
	}
	interval := 300
	return &bufferingHints{SizeInMBs: &size, IntervalInSeconds: &interval}
}

func encryption(e *encryptionConfiguration) *encryptionConfiguration {
	if e != nil {
		return e
	}
	return &encryptionConfiguration{NoEncryptionConfig: pointer("NoEncryption")}
}

func logging(l *cloudWatchLoggingOptions) *cloudWatchLoggingOptions {
	if l != nil && l.Enabled != nil {
		return l
	}
	off := false
	return &cloudWatchLoggingOptions{Enabled: &off}
}

// processing fills in the parameters that a Lambda processor has by default.
func processing(p *processingConfiguration) *processingConfiguration {
	off := false
	if p == nil {
		return &processingConfiguration{Enabled: &off, Processors: []processor{}}
	}
	out := &processingConfiguration{Enabled: &off, Processors: []processor{}}
	if p.Enabled != nil {
		out.Enabled = p.Enabled
	}
	for _, q := range p.Processors {
		if *q.Type == "Lambda" {
			for _, d := range []struct{ name, value string }{
				{"NumberOfRetries", "3"}, {"BufferSizeInMBs", "1"}, {"BufferIntervalInSeconds", "60"},
			} {
				if !q.has(d.name) {
					q.Parameters = append(q.Parameters[:len(q.Parameters):len(q.Parameters)], processorParameter{pointer(d.name), pointer(d.value)})
				}
			}
		}
		out.Processors = append(out.Processors, q)
	}
	return out
}

func (p *processor) has(name string) bool {
	for _, q := range p.Parameters {
		if *q.ParameterName == name {
			return true
		}
	}
	return false
}
