// Package channel carries out the channels of the Kinesis API with the delivery
// engine: a channel is a delivery stream named "channel." and its id, which reads its
// stream from the moment it was made.
//
// It owns the translation, nothing else. JSON records have to be one JSON value each
// and STRING records UTF-8 text; each becomes a line of its object. BYTE_ARRAY records
// stand end to end, as they are. What fails goes to the dead letters, with the reason.
// Storage classes are refused: a sink has one, in its settings.
package channel

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
)

// Deliveries implements kinesis.Channels.
type Deliveries struct {
	// Engine has the delivery streams.
	Engine *delivery.Engine
	// Bucket finds the sink of a bucket.
	Bucket func(bucket string) (delivery.Target, error)
}

var _ kinesis.Channels = (*Deliveries)(nil)

func nameOf(id string) string { return "channel." + id }

// OpenChannel makes the delivery stream, durable on return.
func (d *Deliveries) OpenChannel(ctx context.Context, spec kinesis.ChannelSpec) error {
	c, err := d.config(spec)
	if err != nil {
		return err
	}
	return refused(d.Engine.Create(ctx, c))
}

// refused is what the caller of the API sees of an error of the engine.
func refused(err error) error {
	if errors.Is(err, delivery.ErrInvalid) {
		return aws.InvalidArgument.New("%v", err)
	}
	return err
}

// UpdateChannel changes how long records wait at most.
func (d *Deliveries) UpdateChannel(ctx context.Context, id string, freshness time.Duration) error {
	return refused(d.Engine.Update(ctx, nameOf(id), 0, func(c *delivery.Config) error {
		c.Buffer.Interval = delivery.Every(freshness)
		return nil
	}))
}

// CloseChannel deletes the delivery stream.
func (d *Deliveries) CloseChannel(ctx context.Context, id string) error {
	err := d.Engine.Delete(ctx, nameOf(id))
	if errors.Is(err, delivery.ErrNotFound) {
		return nil
	}
	return err
}

// ChannelFailure tells that somebody deleted the delivery stream. A sink that does
// not answer is no failure: it is tried again for ever.
func (d *Deliveries) ChannelFailure(id string) string {
	_, _, err := d.Engine.Definition(nameOf(id))
	if errors.Is(err, delivery.ErrNotFound) {
		return "the delivery stream " + nameOf(id) + " was deleted"
	}
	return ""
}

// config translates a channel.
func (d *Deliveries) config(spec kinesis.ChannelSpec) (delivery.Config, error) {
	var none delivery.Config
	switch {
	case spec.StorageClass != "" && spec.StorageClass != "STANDARD":
		return none, aws.InvalidArgument.New("StorageClass %s is not supported by this server; the only one is STANDARD.", spec.StorageClass)
	case spec.Format == "GSR_JSON":
		return none, aws.InvalidArgument.New("RecordFormatType GSR_JSON is not supported by this server: it has no schema registry.")
	}
	target, err := d.Bucket(spec.Bucket)
	if err != nil {
		return none, aws.InvalidArgument.New("BucketARN: %v.", err)
	}
	prefix, err := prefixOf(spec)
	if err != nil {
		return none, err
	}
	c := delivery.Config{
		Name: nameOf(spec.ID), Source: delivery.Source{Stream: spec.Stream, Start: delivery.Latest}, Sink: target,
		Prefix: prefix, ErrorPrefix: spec.DeadLetterPrefix,
		Buffer:      delivery.Buffer{SizeBytes: delivery.MaxBufferBytes, Interval: delivery.Every(spec.Freshness)},
		Description: "channel " + spec.Name,
	}
	if spec.DeadLetterBucket != spec.Bucket {
		dead, err := d.Bucket(spec.DeadLetterBucket)
		if err != nil {
			return none, aws.InvalidArgument.New("DeadLetterQueueS3Configuration.BucketARN: %v.", err)
		}
		c.ErrorSink = &dead
	}
	switch spec.Compression {
	case "GZIP":
		c.Compression.Format = codec.Gzip
	case "ZSTD":
		c.Compression.Format = codec.Zstd
	}
	switch spec.Format {
	case "JSON":
		c.Check, c.Delimiter = delivery.CheckJSON, "\n"
	case "STRING":
		c.Check, c.Delimiter = delivery.CheckUTF8, "\n"
	}
	return c, nil
}

// defaultTemplate groups objects as the real service does.
const defaultTemplate = "kinesis-channel/!{channel-name}/!{channel-id}/!{yyyy}/!{MM}/!{dd}/!{HH}/"

var variable = regexp.MustCompile(`!\{([^}]*)\}`)

// prefixOf translates an OutputKeyTemplate to a prefix of the engine, which puts a
// unique name and the extension behind it.
func prefixOf(spec kinesis.ChannelSpec) (string, error) {
	template := spec.KeyTemplate
	if template == "" {
		template = defaultTemplate
	}
	template = strings.TrimSuffix(strings.TrimSuffix(template, "!{extension}"), ".")
	var bad error
	out := variable.ReplaceAllStringFunc(template, func(v string) string {
		switch name := v[2 : len(v)-1]; name {
		case "channel-name":
			return spec.Name
		case "channel-id":
			return spec.ID
		case "yyyy", "MM", "dd", "HH", "mm":
			return "!{timestamp:" + name + "}"
		default:
			bad = aws.InvalidArgument.New("OutputKeyTemplate: %s is none of !{channel-name}, !{channel-id}, !{yyyy}, !{MM}, !{dd}, !{HH}, !{mm} and, at its end, !{extension}.", v)
			return v
		}
	})
	return out, bad
}
