// Package firehose serves the Amazon Data Firehose API: its twelve operations in
// JSON 1.1, over the delivery streams of appliance/delivery.
//
// It owns the API's shapes, limits, texts and defaults, what its destinations
// mean here, and the tags of delivery streams. It never delivers anything. A
// destination's BucketARN is resolved to a sink of the configuration: the one
// with that bucket, or the default object store. What can't be served is
// refused when it is asked for, with the reason. Three settings are kept and
// described and decide nothing: the BufferingHints of a backup and of an HTTP
// endpoint's bucket, which get the records of the destination's own batch, and
// dynamic partitioning's RetryOptions, since retries don't end.
//
// Source: the service model 2015-08-04 (botocore) and the Firehose API reference.
package firehose

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
)

// Options says how the service behaves. Bucket is needed.
type Options struct {
	// Account and Region are those of the ARNs that the service makes.
	// Defaults "000000000000" and "us-east-1".
	Account, Region string
	// Bucket finds the sink for a bucket that a destination names.
	Bucket func(bucket string) (delivery.Target, error)
	// Module says whether there is a module of that name, for the Lambda
	// functions of destinations. Without it there is none.
	Module func(name string) bool
	// AdmissionWait is how long a put waits for its turn before it is
	// refused with ServiceUnavailableException. Default 4 s.
	AdmissionWait time.Duration
	// Logger gets internal failures. Default: nothing is logged.
	Logger *slog.Logger
}

// Service serves the API. It is an api.Handler.
type Service struct {
	store  *storage.Store
	engine *delivery.Engine
	o      Options
	*aws.Service
}

// New returns the service over the delivery streams of engine.
func New(store *storage.Store, engine *delivery.Engine, o Options) *Service {
	if o.Account == "" {
		o.Account = "000000000000"
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.AdmissionWait == 0 {
		o.AdmissionWait = 4 * time.Second
	}
	if o.Module == nil {
		o.Module = func(string) bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{store: store, engine: engine, o: o}
	s.Service = aws.NewService(
		aws.ServiceOptions{Target: "Firehose_20150804", Name: "firehose", JSONVersion: "1.1", Model: model, Logger: o.Logger},
		aws.Op("CreateDeliveryStream", s.create), aws.Op("DeleteDeliveryStream", s.remove),
		aws.Op("DescribeDeliveryStream", s.describe), aws.Op("ListDeliveryStreams", s.list),
		aws.Op("UpdateDestination", s.update),
		aws.Op("ListTagsForDeliveryStream", s.listTags), aws.Op("TagDeliveryStream", s.tag), aws.Op("UntagDeliveryStream", s.untag),
		aws.Op("StartDeliveryStreamEncryption", s.startEncryption), aws.Op("StopDeliveryStreamEncryption", s.stopEncryption),
		aws.RawOp("PutRecord", s.putRecord), aws.RawOp("PutRecordBatch", s.putRecordBatch),
	)
	return s
}

func (s *Service) arn(name string) string {
	return "arn:aws:firehose:" + s.o.Region + ":" + s.o.Account + ":deliverystream/" + name
}

// engineError says an engine's error in the service's words.
func (s *Service) engineError(err error, name string) error {
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return aws.ResourceNotFound.New("Firehose %s under account %s not found.", name, s.o.Account)
	case errors.Is(err, delivery.ErrExists):
		return aws.ResourceInUse.New("Firehose %s under accountId %s already exists", name, s.o.Account)
	case errors.Is(err, delivery.ErrVersion):
		return aws.ConcurrentModification.New("Cannot update firehose: %s since the current version id does not match.", name)
	case errors.Is(err, delivery.ErrInvalid):
		return aws.InvalidArgument.New("%s", inTheirWords(name, strings.TrimPrefix(err.Error(), delivery.ErrInvalid.Error()+": ")))
	case errors.Is(err, storage.ErrStreamNotFound):
		return aws.ResourceNotFound.New("The source stream of %s does not exist: %v", name, err)
	}
	return err
}

// members are the API's names of what a configuration calls otherwise.
var members = strings.NewReplacer(
	"on_failure.error_prefix", "ErrorOutputPrefix", "backup.prefix", "S3BackupConfiguration.Prefix", "backup.compression", "S3BackupConfiguration.CompressionFormat",
	"error_prefix", "ErrorOutputPrefix", "partition.query", "MetadataExtractionQuery", "sub_records.type", "SubRecordType", "sub_records.delimiter", "Delimiter",
	"time_zone", "CustomTimeZone", "file_extension", "FileExtension", "on_failure", "S3Configuration", "parquet", "ParquetSerDe", "transform", "Lambda",
	"partition", "DynamicPartitioningConfiguration", "compression", "CompressionFormat", "prefix", "Prefix", "delimiter", "AppendDelimiterToRecord",
)

// inTheirWords says what is wrong with a configuration by the names that the caller
// gave: each line is "delivery NAME: MEMBER: what", and only the member is ours.
func inTheirWords(name, text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line, ours := strings.CutPrefix(line, "delivery "+name+": ")
		member, what, found := strings.Cut(line, ": ")
		if !ours || !found {
			continue
		}
		what = strings.NewReplacer("partition.query", "MetadataExtractionQuery", "when prefix has", "when Prefix has", " of prefix", " of Prefix", "dynamic partitioning", "DynamicPartitioningConfiguration").Replace(what)
		lines[i] = members.Replace(member) + ": " + what
	}
	return strings.Join(lines, "; ")
}

const destinationID = "destinationId-000000000001"

func (s *Service) create(ctx context.Context, c *aws.Call, in *createDeliveryStreamInput) (*createDeliveryStreamOutput, error) {
	name := *in.DeliveryStreamName
	if err := c.Authorize(name); err != nil {
		return nil, err
	}
	if _, _, err := s.engine.Definition(name); err == nil {
		return nil, s.engineError(delivery.ErrExists, name)
	}
	config := delivery.Config{Name: name}
	if err := s.source(&config, in); err != nil {
		return nil, err
	}
	if e := in.DeliveryStreamEncryptionConfigurationInput; e != nil {
		return nil, errNoEncryption
	}
	d, err := destinationOf(in)
	if err != nil {
		return nil, err
	}
	if err := s.apply(&config, d); err != nil {
		return nil, err
	}
	tags, err := addTags(nil, in.Tags)
	if err != nil {
		return nil, err
	}
	if err := s.engine.Create(ctx, config); errors.Is(err, storage.ErrStreamNotFound) {
		// The API has no ResourceNotFoundException here: the name is an argument.
		return nil, aws.InvalidArgument.New("KinesisStreamARN %s: there is no stream %s", *in.KinesisStreamSourceConfiguration.KinesisStreamARN, config.Source.Stream)
	} else if err != nil {
		return nil, s.engineError(err, name)
	}
	if err := s.saveTags(ctx, name, tags); err != nil {
		return nil, err
	}
	arn := s.arn(name)
	return &createDeliveryStreamOutput{DeliveryStreamARN: &arn}, nil
}

// source fills the source of a new delivery stream.
func (s *Service) source(config *delivery.Config, in *createDeliveryStreamInput) error {
	kind := "DirectPut"
	if in.DeliveryStreamType != nil {
		kind = *in.DeliveryStreamType
	}
	switch {
	case in.MSKSourceConfiguration != nil || kind == "MSKAsSource":
		return aws.InvalidArgument.New("MSKAsSource is not supported: records come by DirectPut or from a Kinesis stream")
	case in.DatabaseSourceConfiguration != nil || kind == "DatabaseAsSource":
		return aws.InvalidArgument.New("DatabaseAsSource is not supported: records come by DirectPut or from a Kinesis stream")
	case kind == "DirectPut" && in.KinesisStreamSourceConfiguration != nil:
		return aws.InvalidArgument.New("KinesisStreamSourceConfig is only applicable for KinesisStreamAsSource stream type.")
	case kind == "DirectPut":
		config.Source.DirectPut = true
		if d := in.DirectPutSourceConfiguration; d != nil {
			config.Annotations = delivery.Annotations{"source": asJSON(d)}
		}
		return nil
	case in.KinesisStreamSourceConfiguration == nil:
		return aws.InvalidArgument.New("KinesisStreamSourceConfig must be specified for KinesisStreamAsSource stream type.")
	case in.DirectPutSourceConfiguration != nil:
		return aws.InvalidArgument.New("DirectPutSourceConfiguration is only applicable for DirectPut stream type.")
	}
	arn := *in.KinesisStreamSourceConfiguration.KinesisStreamARN
	config.Source.Stream = arn[strings.LastIndexByte(arn, '/')+1:]
	config.Annotations = delivery.Annotations{"source": asJSON(in.KinesisStreamSourceConfiguration)}
	return nil
}

func (s *Service) remove(ctx context.Context, c *aws.Call, in *deleteDeliveryStreamInput) (*aws.Empty, error) {
	name := *in.DeliveryStreamName
	if err := c.Authorize(name); err != nil {
		return nil, err
	}
	if err := s.engine.Delete(ctx, name); err != nil {
		return nil, s.engineError(err, name)
	}
	return nil, s.saveTags(ctx, name, nil)
}

func (s *Service) list(_ context.Context, c *aws.Call, in *listDeliveryStreamsInput) (*listDeliveryStreamsOutput, error) {
	if err := c.Authorize(""); err != nil {
		return nil, err
	}
	limit := 10
	if in.Limit != nil {
		limit = *in.Limit
	}
	out := &listDeliveryStreamsOutput{DeliveryStreamNames: []string{}}
	more := false
	for _, info := range s.engine.Configs() {
		after := in.ExclusiveStartDeliveryStreamName
		if after != nil && info.Name <= *after || in.DeliveryStreamType != nil && *in.DeliveryStreamType != streamType(&info) {
			continue
		}
		if len(out.DeliveryStreamNames) == limit {
			more = true
			break
		}
		out.DeliveryStreamNames = append(out.DeliveryStreamNames, info.Name)
	}
	out.HasMoreDeliveryStreams = &more
	return out, nil
}

func streamType(c *delivery.Config) string {
	if c.Source.DirectPut {
		return "DirectPut"
	}
	return "KinesisStreamAsSource"
}

func (s *Service) update(ctx context.Context, c *aws.Call, in *updateDestinationInput) (*aws.Empty, error) {
	name := *in.DeliveryStreamName
	if err := c.Authorize(name); err != nil {
		return nil, err
	}
	if *in.DestinationID != destinationID {
		return nil, aws.InvalidArgument.New("Destination Id %s not found", *in.DestinationID)
	}
	version, err := strconv.Atoi(*in.CurrentDeliveryStreamVersionID)
	if err != nil || version == 0 {
		return nil, s.engineError(delivery.ErrVersion, name)
	}
	err = s.engine.Update(ctx, name, version, func(config *delivery.Config) error {
		d, err := s.standing(config)
		if err != nil {
			return err
		}
		before, after, http := *config, *config, d.HTTP != nil
		if err := s.apply(&before, d); err != nil {
			return err
		}
		if err := d.merge(in); err != nil {
			return err
		}
		if err := s.apply(&after, d); err != nil {
			return err
		}
		if http == (d.HTTP != nil) { // a destination of another kind replaces everything
			keep(config, &before, &after)
		}
		*config = after
		return nil
	})
	if err != nil {
		return nil, s.engineError(err, name)
	}
	return nil, nil
}

// errNoEncryption says why encryption at rest can't be turned on.
var errNoEncryption = aws.InvalidKMSResource.New("Encryption at rest by a KMS key is not supported: there is no key service on this box. Encrypt the disk instead")

func (s *Service) startEncryption(_ context.Context, c *aws.Call, in *startDeliveryStreamEncryptionInput) (*aws.Empty, error) {
	if err := s.directPut(c, *in.DeliveryStreamName); err != nil {
		return nil, err
	}
	return nil, errNoEncryption
}

// stopEncryption succeeds: encryption is off already.
func (s *Service) stopEncryption(_ context.Context, c *aws.Call, in *stopDeliveryStreamEncryptionInput) (*aws.Empty, error) {
	return nil, s.directPut(c, *in.DeliveryStreamName)
}

func (s *Service) directPut(c *aws.Call, name string) error {
	if err := c.Authorize(name); err != nil {
		return err
	}
	config, _, err := s.engine.Definition(name)
	if err != nil {
		return s.engineError(err, name)
	}
	if !config.Source.DirectPut {
		return aws.InvalidArgument.New("Server-side encryption is only supported for DirectPut delivery streams. %s has the type KinesisStreamAsSource", name)
	}
	return nil
}
