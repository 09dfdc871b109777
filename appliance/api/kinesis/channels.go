package kinesis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
)

// Channels delivers streams to object stores. The service keeps what a channel
// is, and leaves what it does to this.
type Channels interface {
	// OpenChannel starts delivery of records that arrive from now on. It returns when
	// the delivery is set up durably. An error for the caller is an *aws.Error.
	OpenChannel(ctx context.Context, spec ChannelSpec) error
	// UpdateChannel changes how long records wait at most.
	UpdateChannel(ctx context.Context, id string, freshness time.Duration) error
	// CloseChannel ends delivery for good. What was delivered stays. It is no error
	// if there is no such delivery.
	CloseChannel(ctx context.Context, id string) error
	// ChannelFailure says why a delivery cannot go on, empty if it can.
	ChannelFailure(id string) string
}

// ChannelSpec is what a channel delivers, where to and in what form.
type ChannelSpec struct {
	ID, Name, Stream string
	// Format is how records are checked before they are written: JSON, STRING or
	// BYTE_ARRAY.
	Format string
	// Bucket is the bucket's name. KeyTemplate, if not empty, makes the keys of the
	// objects, with !{…} variables. StorageClass may be empty.
	Bucket, KeyTemplate, StorageClass string
	// Compression is NONE, GZIP or ZSTD.
	Compression string
	// Freshness is how long a record waits at most before it is written.
	Freshness time.Duration
	// DeadLetterBucket and DeadLetterPrefix are where records go that fail the
	// format's check; the bucket may be the same.
	DeadLetterBucket, DeadLetterPrefix string
}

// Limits of channels (developer guide, data-delivery-quotas).
const (
	channelsPerStream = 2
	channelLimit      = 100
	listPageChannels  = 100
	minFreshness      = 300
	maxFreshness      = 900
	channelActive     = "ACTIVE"
	channelFailed     = "FAILED"
	channelPrefix     = "kinesis/channel/"
)

// channelRow is a channel as it is stored, by its id.
type channelRow struct {
	ID            string                          `json:"id"`
	Name          string                          `json:"name"`
	StreamID      uint32                          `json:"streamId"`
	Stream        string                          `json:"stream"`
	StreamCreated time.Time                       `json:"streamCreated"`
	Created       time.Time                       `json:"created"`
	Role          string                          `json:"role"`
	Record        recordConfiguration             `json:"record"`
	S3            s3DestinationConfiguration      `json:"s3"`
	Encryption    *channelEncryptionConfiguration `json:"encryption,omitempty"`
	Logging       *channelLoggingConfiguration    `json:"logging"`
	Tags          map[string]string               `json:"tags,omitempty"`
}

// channelRows are all channels, at most channelLimit of them. A row is never
// changed but replaced.
type channelRows struct {
	mu   sync.Mutex
	byID map[string]*channelRow
}

func (r *channelRows) load(store *storage.Store) error {
	r.byID = make(map[string]*channelRow)
	var bad error
	err := store.Scan(storage.TableSetting, []byte(channelPrefix), nil, channelLimit*2, func(key, value []byte) bool {
		row := new(channelRow)
		if bad = json.Unmarshal(value, row); bad != nil {
			bad = fmt.Errorf("channel row %s: %w", key, bad)
			return false
		}
		r.byID[row.ID] = row
		return true
	})
	if err != nil {
		return err
	}
	return bad
}

// of counts the channels of a stream.
func (r *channelRows) of(stream uint32) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, row := range r.byID {
		if row.StreamID == stream {
			n++
		}
	}
	return n
}

func (r *channelRows) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byID)
}

func (s *Service) channelARN(row *channelRow) string {
	return "arn:aws:kinesis:" + s.o.Region + ":" + s.o.Account + ":channel/" + row.Name + ":" + row.ID
}

// saveChannelLocked writes a channel's row and puts it in place.
func (s *Service) saveChannelLocked(ctx context.Context, row *channelRow) error {
	raw, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("channel %s: %w", row.Name, err)
	}
	txn, err := s.store.Begin(ctx, len(raw))
	if err != nil {
		return s.storeError(err, row.Stream)
	}
	txn.Put(storage.TableSetting, []byte(channelPrefix+row.ID), raw)
	if err := commit(ctx, txn); err != nil {
		return s.storeError(err, row.Stream)
	}
	s.channels.byID[row.ID] = row
	return nil
}

func (s *Service) createChannel(ctx context.Context, c *aws.Call, in *createChannelInput) (*createChannelOutput, error) {
	if len(in.StreamConfigurationList) != 1 {
		return nil, aws.InvalidArgument.New("Exactly one stream is supported per channel; the request has %d.", len(in.StreamConfigurationList))
	}
	source := &in.StreamConfigurationList[0]
	st, err := s.find(c, nil, &source.StreamARN)
	if err != nil {
		return nil, err
	}
	if err := s.checkChannel(in, st); err != nil {
		return nil, err
	}
	row := &channelRow{
		ID: s.unique(), Name: in.ChannelName, StreamID: st.ID(), Stream: st.Name(), StreamCreated: st.CreatedAt(),
		Created: s.now().UTC(), Role: in.ServiceExecutionRoleARN, Record: *source.RecordConfiguration,
		S3: *in.S3DestinationConfiguration, Encryption: in.EncryptionConfiguration, Logging: in.LoggingConfiguration, Tags: in.Tags,
	}
	if row.S3.DataFreshnessInSeconds == nil {
		def := minFreshness
		row.S3.DataFreshnessInSeconds = &def
	}
	if row.Logging == nil {
		row.Logging = &channelLoggingConfiguration{CloudWatchLogs: &cloudWatchLogs{}}
	}
	return s.openChannel(ctx, st, row)
}

// checkChannel checks a CreateChannel for what the tables do not say.
func (s *Service) checkChannel(in *createChannelInput, st *stream) error {
	format := in.StreamConfigurationList[0].RecordConfiguration.RecordFormatType
	switch {
	case s.o.Channels == nil:
		return aws.InvalidArgument.New("Channels are not available on this server: it runs without delivery.")
	case (in.S3DestinationConfiguration == nil) == (in.S3TablesDestinationConfiguration == nil):
		return aws.InvalidArgument.New("Exactly one of S3DestinationConfiguration and S3TablesDestinationConfiguration should be provided.")
	case in.S3TablesDestinationConfiguration != nil:
		return aws.InvalidArgument.New("S3TablesDestinationConfiguration is not supported by this server, which writes no Iceberg tables; use S3DestinationConfiguration.")
	case st.Config().Mode != storage.OnDemand:
		return notOnDemand("CreateChannel")
	case format == "GSR_JSON":
		return aws.InvalidArgument.New("RecordFormatType GSR_JSON is only valid with S3TablesDestinationConfiguration.")
	case in.EncryptionConfiguration != nil:
		return aws.InvalidArgument.New("EncryptionConfiguration is not supported by this server: it has no key service.")
	}
	if f := in.S3DestinationConfiguration.DataFreshnessInSeconds; f != nil {
		if err := checkFreshness(*f); err != nil {
			return err
		}
	}
	return checkTags(in.Tags)
}

func checkFreshness(seconds int) error {
	if seconds < minFreshness || seconds > maxFreshness {
		return aws.InvalidArgument.New("DataFreshnessInSeconds must be between %d and %d; the request has %d.", minFreshness, maxFreshness, seconds)
	}
	return nil
}

// openChannel stores a channel and starts its delivery.
func (s *Service) openChannel(ctx context.Context, st *stream, row *channelRow) (*createChannelOutput, error) {
	s.channels.mu.Lock()
	defer s.channels.mu.Unlock()
	onStream := 0
	for _, other := range s.channels.byID {
		if other.Name == row.Name {
			return nil, aws.ResourceInUse.New("Channel %s under account %s already exists.", row.Name, s.o.Account)
		}
		if other.StreamID == row.StreamID {
			onStream++
		}
	}
	if onStream >= channelsPerStream || len(s.channels.byID) >= channelLimit {
		return nil, aws.LimitExceeded.New("Stream %s has %d channels of at most %d, the account %d of at most %d.",
			st.Name(), onStream, channelsPerStream, len(s.channels.byID), channelLimit)
	}
	// The row comes first: what it says can be opened again, a delivery without a
	// row could not be closed.
	if err := s.saveChannelLocked(ctx, row); err != nil {
		return nil, err
	}
	if err := s.o.Channels.OpenChannel(ctx, row.spec()); err != nil {
		if undo := s.dropChannelLocked(ctx, row); undo != nil {
			s.o.Logger.Error("channel not removed", "channel", row.Name, "error", undo)
		}
		return nil, err
	}
	return &createChannelOutput{s.channelDescription(row)}, nil
}

func (row *channelRow) spec() ChannelSpec {
	bucket := func(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }
	spec := ChannelSpec{
		ID: row.ID, Name: row.Name, Stream: row.Stream, Format: row.Record.RecordFormatType,
		Bucket: bucket(row.S3.StorageConfiguration.BucketARN), KeyTemplate: value(row.S3.StorageConfiguration.OutputKeyTemplate),
		StorageClass: value(row.S3.StorageConfiguration.StorageClass), Compression: row.S3.StorageConfiguration.CompressionType,
		Freshness: time.Duration(*row.S3.DataFreshnessInSeconds) * time.Second,
	}
	dead := row.deadLetters()
	spec.DeadLetterBucket, spec.DeadLetterPrefix = bucket(dead.BucketARN), *dead.ErrorOutputPrefix
	return spec
}

// deadLetters is where records go that fail the format's check: by default to the
// channel's bucket, under a prefix of their own.
func (row *channelRow) deadLetters() *deadLetterQueueS3Configuration {
	to := row.S3.StorageConfiguration
	out := &deadLetterQueueS3Configuration{BucketARN: to.BucketARN, ExpectedBucketOwner: to.ExpectedBucketOwner}
	if d := row.S3.DeadLetterQueueS3Configuration; d != nil {
		*out = *d
	}
	if out.ErrorOutputPrefix == nil {
		prefix := "kinesis-channel-errors/" + row.Name + "/"
		out.ErrorOutputPrefix = &prefix
	}
	return out
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (s *Service) dropChannelLocked(ctx context.Context, row *channelRow) error {
	txn, err := s.store.Begin(ctx, 0)
	if err != nil {
		return s.storeError(err, row.Stream)
	}
	txn.Delete(storage.TableSetting, []byte(channelPrefix+row.ID))
	if err := commit(ctx, txn); err != nil {
		return s.storeError(err, row.Stream)
	}
	delete(s.channels.byID, row.ID)
	return nil
}

func (s *Service) channelStatus(row *channelRow) (status string, reason *string) {
	if s.o.Channels != nil {
		if why := s.o.Channels.ChannelFailure(row.ID); why != "" {
			return channelFailed, &why
		}
	}
	return channelActive, nil
}

func (s *Service) channelDescription(row *channelRow) channelDescription {
	status, reason := s.channelStatus(row)
	s3 := row.S3
	s3.DeadLetterQueueS3Configuration = row.deadLetters()
	return channelDescription{
		ChannelName: row.Name, ChannelARN: s.channelARN(row), ChannelId: row.ID, ChannelStatus: status, ChannelStatusReason: reason,
		ChannelCreationTimestamp: row.Created, ServiceExecutionRoleARN: row.Role,
		StreamConfigurationList: []channelStreamDescription{{
			StreamARN: s.streamARN(row.Stream), StreamCreationTimestamp: row.StreamCreated, RecordConfiguration: &row.Record,
		}},
		S3DestinationConfiguration: &s3, EncryptionConfiguration: row.Encryption, LoggingConfiguration: row.Logging,
	}
}

// findChannelLocked returns the channel of an ARN after asking whether the
// caller may use its stream.
func (s *Service) findChannelLocked(c *aws.Call, text string) (*channelRow, error) {
	a, ok := parseARN(text)
	if !ok || a.channel == "" {
		return nil, aws.InvalidArgument.New("Invalid ChannelARN: %s.", text)
	}
	name, id, _ := strings.Cut(a.channel, ":")
	row := s.channels.byID[id]
	if row == nil || row.Name != name || a.account != s.o.Account {
		return nil, aws.ResourceNotFound.New("Channel %s under account %s not found.", a.channel, a.account)
	}
	return row, c.Authorize(row.Stream)
}

func (s *Service) describeChannel(_ context.Context, c *aws.Call, in *describeChannelInput) (*describeChannelOutput, error) {
	s.channels.mu.Lock()
	defer s.channels.mu.Unlock()
	row, err := s.findChannelLocked(c, in.ChannelARN)
	if err != nil {
		return nil, err
	}
	return &describeChannelOutput{s.channelDescription(row)}, nil
}

func (s *Service) updateChannel(ctx context.Context, c *aws.Call, in *updateChannelInput) (*updateChannelOutput, error) {
	s.channels.mu.Lock()
	defer s.channels.mu.Unlock()
	row, err := s.findChannelLocked(c, in.ChannelARN)
	if err != nil {
		return nil, err
	}
	if in.S3TablesDestinationConfiguration != nil {
		return nil, aws.InvalidArgument.New("Channel %s does not deliver to tables.", row.Name)
	}
	changed := *row
	if d := in.S3DestinationConfiguration; d != nil {
		if err := checkFreshness(d.DataFreshnessInSeconds); err != nil {
			return nil, err
		}
		changed.S3.DataFreshnessInSeconds = &d.DataFreshnessInSeconds
		if err := s.o.Channels.UpdateChannel(ctx, row.ID, time.Duration(d.DataFreshnessInSeconds)*time.Second); err != nil {
			return nil, err
		}
	}
	if l := in.LoggingConfiguration; l != nil {
		changed.Logging = &channelLoggingConfiguration{CloudWatchLogs: &cloudWatchLogs{
			Enabled: l.CloudWatchLogs.Enabled, LogGroupName: l.CloudWatchLogs.LogGroupName, LogStreamName: l.CloudWatchLogs.LogStreamName,
		}}
	}
	if err := s.saveChannelLocked(ctx, &changed); err != nil {
		return nil, err
	}
	return &updateChannelOutput{s.channelDescription(&changed)}, nil
}

func (s *Service) deleteChannel(ctx context.Context, c *aws.Call, in *deleteChannelInput) (*aws.Empty, error) {
	s.channels.mu.Lock()
	defer s.channels.mu.Unlock()
	row, err := s.findChannelLocked(c, in.ChannelARN)
	if err != nil {
		return nil, err
	}
	if s.o.Channels != nil {
		if err := s.o.Channels.CloseChannel(ctx, row.ID); err != nil {
			return nil, err
		}
	}
	return nil, s.dropChannelLocked(ctx, row)
}

func (s *Service) listChannels(_ context.Context, c *aws.Call, in *listChannelsInput) (*listChannelsOutput, error) {
	if err := c.Authorize(""); err != nil {
		return nil, err
	}
	after := ""
	if in.NextToken != nil {
		p, err := s.turn(*in.NextToken, "ListChannels")
		if err != nil {
			return nil, err
		}
		after = p.after
	}
	s.channels.mu.Lock()
	var rows []*channelRow
	for _, row := range s.channels.byID {
		if row.Name > after && s.wanted(row, in.StreamFilter) {
			rows = append(rows, row)
		}
	}
	s.channels.mu.Unlock()
	slices.SortFunc(rows, func(a, b *channelRow) int { return strings.Compare(a.Name, b.Name) })
	limit := listPageChannels
	if in.MaxResults != nil {
		limit = min(limit, *in.MaxResults)
	}
	out := &listChannelsOutput{ChannelSummaries: []channelSummary{}}
	if len(rows) > limit {
		rows = rows[:limit]
		out.NextToken = s.nextPage("ListChannels", "", rows[limit-1].Name)
	}
	for _, row := range rows {
		status, reason := s.channelStatus(row)
		out.ChannelSummaries = append(out.ChannelSummaries, channelSummary{
			ChannelName: row.Name, ChannelARN: s.channelARN(row), ChannelId: row.ID, ChannelStatus: status, ChannelStatusReason: reason,
			ChannelCreationTimestamp: row.Created, ChannelDestinationType: "S3",
			Streams: []channelStreamIdentifier{{StreamARN: s.streamARN(row.Stream), StreamCreationTimestamp: row.StreamCreated}},
		})
	}
	return out, nil
}

// wanted tells whether a channel is of one of the streams a filter names.
func (s *Service) wanted(row *channelRow, filter []streamFilter) bool {
	for i := range filter {
		a, ok := parseARN(filter[i].StreamARN)
		at := filter[i].StreamCreationTimestamp
		if ok && a.stream == row.Stream && (at == nil || at.Unix() == row.StreamCreated.Unix()) {
			return true
		}
	}
	return len(filter) == 0
}

// channelTags is a channel as far as its tags go.
func (s *Service) channelTags(c *aws.Call, resource string) (tagged, error) {
	s.channels.mu.Lock()
	defer s.channels.mu.Unlock()
	row, err := s.findChannelLocked(c, resource)
	if err != nil {
		return tagged{}, err
	}
	return tagged{
		what: "channel " + row.Name,
		get:  func() map[string]string { return row.Tags },
		set: func(ctx context.Context, fn func(map[string]string) (map[string]string, error)) (err error) {
			s.channels.mu.Lock()
			defer s.channels.mu.Unlock()
			now := s.channels.byID[row.ID]
			if now == nil {
				return aws.ResourceNotFound.New("Channel %s was deleted meanwhile.", row.Name)
			}
			changed := *now
			if changed.Tags, err = fn(now.Tags); err != nil {
				return err
			}
			return s.saveChannelLocked(ctx, &changed)
		},
	}, nil
}
