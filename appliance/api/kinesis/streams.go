package kinesis

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
)

// Limits and defaults of streams (reference: "Quotas and limits", Amazon Kinesis
// Data Streams developer guide).
const (
	onDemandShards       = 4 // of a new on-demand stream, and of one made with no count
	minRetentionHours    = 24
	maxRetentionHours    = 8760
	defaultRecordKiB     = 1024
	describePageShards   = 100
	listPageStreams      = 100
	modeChangesPerDay    = 2
	streamShardLimit     = 10000
	warmThroughputLimit  = 10240 // MiB/s, 10 GiB/s
	warmThroughputFloor  = 4     // MiB/s of a new on-demand stream
	mibPerShard          = 1
	updateCountsPerDay   = 10
	strategyAuto         = "AUTO"
	strategyPartitionKey = "USER_PARTITION_KEY"
)

func (s *Service) createStream(ctx context.Context, c *aws.Call, in *createStreamInput) (*aws.Empty, error) {
	if err := c.Authorize(in.StreamName); err != nil {
		return nil, err
	}
	config, settings, err := s.newStream(in)
	if err != nil {
		return nil, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	if _, err := s.store.Stream(in.StreamName); err == nil {
		return nil, s.storeError(storage.ErrStreamExists, in.StreamName)
	}
	if err := s.roomFor(config.Shards, config.Mode); err != nil {
		return nil, err
	}
	row, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	st, err := s.store.CreateStream(ctx, config, func(id uint32) storage.Row {
		return storage.Row{Table: storage.TableSetting, Key: settingsKey(id), Value: row}
	})
	if err != nil {
		return nil, s.storeError(err, in.StreamName)
	}
	_, err = s.adopt(st)
	return nil, err
}

// newStream checks an input of CreateStream for what the tables do not say.
func (s *Service) newStream(in *createStreamInput) (storage.StreamConfig, streamSettings, error) {
	config := storage.StreamConfig{
		Name: in.StreamName, Shards: onDemandShards, Retention: minRetentionHours * time.Hour,
		MaxRecordBytes: defaultRecordKiB << 10,
	}
	settings := streamSettings{Tags: in.Tags, WarmMiBps: in.WarmThroughputMiBps}
	if in.MaxRecordSizeInKiB != nil {
		config.MaxRecordBytes = *in.MaxRecordSizeInKiB << 10
	}
	if in.RecordDistributionStrategy != nil {
		settings.Auto = *in.RecordDistributionStrategy == strategyAuto
	}
	if in.StreamModeDetails != nil && in.StreamModeDetails.StreamMode == "ON_DEMAND" {
		config.Mode = storage.OnDemand
	}
	switch {
	case config.Mode == storage.OnDemand && in.ShardCount != nil:
		return config, settings, aws.Validation.New("Requests to create an ON_DEMAND stream can not have a ShardCount.")
	case config.Mode == storage.OnDemand:
		if in.WarmThroughputMiBps != nil {
			if err := s.warmable(*in.WarmThroughputMiBps); err != nil {
				return config, settings, err
			}
			config.Shards = max(onDemandShards, *in.WarmThroughputMiBps/mibPerShard)
		}
	case in.WarmThroughputMiBps != nil:
		return config, settings, notOnDemand("WarmThroughputMiBps")
	case settings.Auto:
		return config, settings, notOnDemand("RecordDistributionStrategy AUTO")
	case in.ShardCount != nil:
		config.Shards = *in.ShardCount
	}
	return config, settings, checkTags(in.Tags)
}

func notOnDemand(what string) *aws.Error {
	return aws.InvalidArgument.New("%s is only supported for data streams with the on-demand capacity mode.", what)
}

// roomFor tells whether more open shards, and one more on-demand stream, fit the
// limits. The caller holds s.creating when it goes on to make them.
func (s *Service) roomFor(more int, mode storage.Mode) error {
	open, onDemand := s.usage()
	if mode == storage.OnDemand && onDemand >= s.o.OnDemandStreamLimit {
		return aws.LimitExceeded.New("This request would exceed the on-demand stream limit for the account %s in %s. Current on-demand stream count for the account: %d. Limit: %d.",
			s.o.Account, s.o.Region, onDemand, s.o.OnDemandStreamLimit)
	}
	if open+more > s.o.ShardLimit {
		return aws.LimitExceeded.New("This request would exceed the shard limit for the account %s in %s. Current shard count for the account: %d. Limit: %d. Number of additional shards that would have resulted from this request: %d. Refer to the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits.",
			s.o.Account, s.o.Region, open, s.o.ShardLimit, more)
	}
	return nil
}

// usage counts the open shards of all streams and the on-demand streams.
func (s *Service) usage() (open, onDemand int) {
	for _, st := range s.visible() {
		open += openShards(st)
		if st.Config().Mode == storage.OnDemand {
			onDemand++
		}
	}
	return open, onDemand
}

func (s *Service) deleteStream(ctx context.Context, c *aws.Call, in *deleteStreamInput) (*aws.Empty, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	if n := s.channels.of(st.ID()); n > 0 {
		return nil, aws.ResourceInUse.New("Stream %s under account %s has %d channels. Delete them before you delete the stream.",
			st.Name(), s.o.Account, n)
	}
	if s.o.Readers != nil {
		if readers := s.o.Readers(st.Name()); len(readers) > 0 {
			return nil, aws.ResourceInUse.New("Stream %s under account %s is the source of delivery stream %s. Delete that before you delete the stream.",
				st.Name(), s.o.Account, strings.Join(readers, ", "))
		}
	}
	st.mu.Lock()
	consumers := len(st.mu.consumers)
	st.mu.Unlock()
	if consumers > 0 && (in.EnforceConsumerDeletion == nil || !*in.EnforceConsumerDeletion) {
		return nil, aws.ResourceInUse.New("Stream %s under account %s has %d registered consumers. Deregister them, or set EnforceConsumerDeletion.",
			st.Name(), s.o.Account, consumers)
	}
	if err := s.store.DeleteStream(ctx, st.Name()); err != nil {
		return nil, s.storeError(err, st.Name())
	}
	s.forget(st)
	s.subscriptions.endStream(st.ID())
	return nil, s.dropRows(ctx, st.ID())
}

// dropRows removes what the service kept of a stream that is gone.
func (s *Service) dropRows(ctx context.Context, id uint32) error {
	txn, err := s.store.Begin(ctx, 0)
	if err != nil {
		return err
	}
	txn.Delete(storage.TableSetting, settingsKey(id))
	txn.DeletePrefix(storage.TableSetting, consumersOf(id))
	return commit(ctx, txn)
}

func (s *Service) describeStream(_ context.Context, c *aws.Call, in *describeStreamInput) (*describeStreamOutput, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	shards := st.Shards()
	if in.ExclusiveStartShardId != nil {
		after, err := parseShard(*in.ExclusiveStartShardId)
		if err != nil {
			return nil, aws.InvalidArgument.New("Invalid ExclusiveStartShardId: %s.", *in.ExclusiveStartShardId)
		}
		shards = slices.DeleteFunc(shards, func(i storage.ShardInfo) bool { return i.Number <= after })
	}
	limit := describePageShards
	if in.Limit != nil {
		limit = min(limit, *in.Limit)
	}
	more := len(shards) > limit
	if more {
		shards = shards[:limit]
	}
	settings := st.settings.get()
	encryption, key := encryptionOf(&settings)
	return &describeStreamOutput{streamDescription{
		StreamName: st.Name(), StreamARN: s.streamARN(st.Name()), StreamStatus: s.status(st.Stream),
		StreamModeDetails: &streamModeDetails{mode(st.Stream)}, Shards: shardOutputs(shards), HasMoreShards: more,
		RetentionPeriodHours: retentionHours(st.Stream), StreamCreationTimestamp: st.CreatedAt(),
		EnhancedMonitoring: monitoring(&settings), EncryptionType: &encryption, KeyId: key,
	}}, nil
}

func (s *Service) describeStreamSummary(_ context.Context, c *aws.Call, in *describeStreamSummaryInput) (*describeStreamSummaryOutput, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	settings := st.settings.get()
	encryption, key := encryptionOf(&settings)
	st.mu.Lock()
	consumers := len(st.mu.consumers)
	st.mu.Unlock()
	recordKiB := st.Config().MaxRecordBytes >> 10
	channels := s.channels.of(st.ID())
	out := streamDescriptionSummary{
		StreamName: st.Name(), StreamARN: s.streamARN(st.Name()), StreamStatus: s.status(st.Stream),
		StreamModeDetails: &streamModeDetails{mode(st.Stream)}, RetentionPeriodHours: retentionHours(st.Stream),
		StreamCreationTimestamp: st.CreatedAt(), EnhancedMonitoring: monitoring(&settings),
		EncryptionType: &encryption, KeyId: key, OpenShardCount: openShards(st.Stream), ConsumerCount: &consumers,
		MaxRecordSizeInKiB: &recordKiB, ChannelCount: &channels,
	}
	if st.Config().Mode == storage.OnDemand {
		strategy := strategyPartitionKey
		if settings.Auto {
			strategy = strategyAuto
		}
		out.RecordDistributionStrategy = &strategy
		out.WarmThroughput = warmThroughput(st.Stream, &settings)
	}
	return &describeStreamSummaryOutput{out}, nil
}

func retentionHours(st *storage.Stream) int { return int(st.Config().Retention / time.Hour) }

func (s *Service) listStreams(_ context.Context, c *aws.Call, in *listStreamsInput) (*listStreamsOutput, error) {
	if err := c.Authorize(""); err != nil {
		return nil, err
	}
	after := ""
	if in.ExclusiveStartStreamName != nil {
		after = *in.ExclusiveStartStreamName
	}
	if in.NextToken != nil {
		p, err := s.turn(*in.NextToken, "ListStreams")
		if err != nil {
			return nil, err
		}
		after = p.after
	}
	limit := listPageStreams
	if in.Limit != nil {
		limit = *in.Limit
	}
	all := s.visible()
	from, found := slices.BinarySearchFunc(all, after, func(st *storage.Stream, name string) int { return strings.Compare(st.Name(), name) })
	if found {
		from++
	}
	all = all[from:]
	out := &listStreamsOutput{HasMoreStreams: len(all) > limit, StreamNames: []string{}, StreamSummaries: []streamSummary{}}
	for _, st := range all[:min(limit, len(all))] {
		out.StreamNames = append(out.StreamNames, st.Name())
		out.StreamSummaries = append(out.StreamSummaries, streamSummary{
			StreamName: st.Name(), StreamARN: s.streamARN(st.Name()), StreamStatus: s.status(st),
			StreamModeDetails: &streamModeDetails{mode(st)}, StreamCreationTimestamp: st.CreatedAt(),
		})
	}
	if out.HasMoreStreams {
		out.NextToken = s.nextPage("ListStreams", "", out.StreamNames[limit-1])
	}
	return out, nil
}

// tokenLife is how long an iterator or pagination token is good for.
const tokenLife = 300 * time.Second

// nextPage makes the token of the page after an item.
func (s *Service) nextPage(operation, scope, after string) *string {
	token := string(s.appendPage(nil, &page{operation: operation, scope: scope, after: after, issued: s.now()}))
	return &token
}

// turn opens a pagination token.
func (s *Service) turn(token, operation string) (page, error) {
	p, err := s.openPage(token)
	if err != nil || p.operation != operation {
		return page{}, aws.InvalidArgument.New("Invalid NextToken.")
	}
	if age := s.now().Sub(p.issued); age > tokenLife {
		return page{}, aws.ExpiredNextToken.New("The pagination token has expired. The token was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			amazonDate(p.issued), amazonDate(s.now()), tokenLife.Milliseconds())
	}
	return p, nil
}

// amazonDate prints a time the way the service's messages have it.
func amazonDate(t time.Time) string { return t.UTC().Format("Mon Jan 02 15:04:05 MST 2006") }

func (s *Service) increaseStreamRetentionPeriod(ctx context.Context, c *aws.Call, in *increaseStreamRetentionPeriodInput) (*aws.Empty, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	if err := checkRetention(in.RetentionPeriodHours); err != nil {
		return nil, err
	}
	if have := retentionHours(st.Stream); in.RetentionPeriodHours < have {
		return nil, aws.InvalidArgument.New("Requested retention period (%d hours) for stream %s can not be shorter than existing retention period (%d hours). Use DecreaseRetentionPeriod API.",
			in.RetentionPeriodHours, st.Name(), have)
	}
	return nil, s.setRetention(ctx, st, in.RetentionPeriodHours)
}

func (s *Service) decreaseStreamRetentionPeriod(ctx context.Context, c *aws.Call, in *decreaseStreamRetentionPeriodInput) (*aws.Empty, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	if err := checkRetention(in.RetentionPeriodHours); err != nil {
		return nil, err
	}
	if have := retentionHours(st.Stream); in.RetentionPeriodHours > have {
		return nil, aws.InvalidArgument.New("Requested retention period (%d hours) for stream %s can not be longer than existing retention period (%d hours). Use IncreaseRetentionPeriod API.",
			in.RetentionPeriodHours, st.Name(), have)
	}
	return nil, s.setRetention(ctx, st, in.RetentionPeriodHours)
}

func checkRetention(hours int) error {
	switch {
	case hours < minRetentionHours:
		return aws.InvalidArgument.New("Minimum allowed retention period is %d hours. Requested retention period (%d hours) is too short.", minRetentionHours, hours)
	case hours > maxRetentionHours:
		return aws.InvalidArgument.New("Maximum allowed retention period is %d hours. Requested retention period (%d hours) is too long.", maxRetentionHours, hours)
	}
	return nil
}

func (s *Service) setRetention(ctx context.Context, st *stream, hours int) error {
	return s.change(ctx, st, func(c *storage.StreamConfig) { c.Retention = time.Duration(hours) * time.Hour })
}

// change updates the store's configuration of a stream. Whoever is in the middle
// of a reshard keeps others out.
func (s *Service) change(ctx context.Context, st *stream, fn func(*storage.StreamConfig)) error {
	if s.status(st.Stream) != statusActive {
		return s.notActive(st)
	}
	if err := st.Update(ctx, fn); err != nil {
		return s.storeError(err, st.Name())
	}
	return nil
}

func (s *Service) updateMaxRecordSize(ctx context.Context, c *aws.Call, in *updateMaxRecordSizeInput) (*aws.Empty, error) {
	st, err := s.find(c, nil, in.StreamARN)
	if err != nil {
		return nil, err
	}
	return nil, s.change(ctx, st, func(c *storage.StreamConfig) { c.MaxRecordBytes = in.MaxRecordSizeInKiB << 10 })
}

func (s *Service) updateStreamMode(ctx context.Context, c *aws.Call, in *updateStreamModeInput) (*aws.Empty, error) {
	st, err := s.find(c, nil, &in.StreamARN)
	if err != nil {
		return nil, err
	}
	to := storage.Provisioned
	if in.StreamModeDetails.StreamMode == "ON_DEMAND" {
		to = storage.OnDemand
	}
	if in.WarmThroughputMiBps != nil {
		if to != storage.OnDemand {
			return nil, notOnDemand("WarmThroughputMiBps")
		}
		if err := s.warmable(*in.WarmThroughputMiBps); err != nil {
			return nil, err
		}
	}
	if to == storage.Provisioned && s.channels.of(st.ID()) > 0 {
		return nil, aws.ResourceInUse.New("Stream %s under account %s has channels, which need the on-demand capacity mode.", st.Name(), s.o.Account)
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	if st.Config().Mode == to {
		return nil, nil
	}
	if err := s.roomFor(0, to); err != nil {
		return nil, err
	}
	if err := s.countChange(ctx, st, to, in.WarmThroughputMiBps); err != nil {
		return nil, err
	}
	return nil, s.change(ctx, st, func(c *storage.StreamConfig) { c.Mode = to })
}

// countChange notes a change of mode, of which a day has only so many, and the
// settings that go with it.
func (s *Service) countChange(ctx context.Context, st *stream, to storage.Mode, warm *int) error {
	err := st.settings.update(ctx, s.store, func(v *streamSettings) error {
		recent := within(v.ModeChanges, s.now(), 24*time.Hour)
		if len(recent) >= modeChangesPerDay {
			return aws.LimitExceeded.New("Stream %s under account %s has changed its mode %d times in the last 24 hours, which is the limit.",
				st.Name(), s.o.Account, len(recent))
		}
		v.ModeChanges = append(recent, s.now())
		v.WarmMiBps = warm
		if to == storage.Provisioned {
			v.Auto = false
		}
		return nil
	})
	st.auto.Store(st.settings.get().Auto)
	return err
}

// within returns a copy of the times that are not older than d.
func within(times []time.Time, now time.Time, d time.Duration) []time.Time {
	var out []time.Time
	for _, t := range times {
		if now.Sub(t) < d {
			out = append(out, t)
		}
	}
	return out
}

func (s *Service) updateStreamRecordDistributionStrategy(ctx context.Context, c *aws.Call, in *updateStreamRecordDistributionStrategyInput) (*aws.Empty, error) {
	st, err := s.find(c, nil, &in.StreamARN)
	if err != nil {
		return nil, err
	}
	auto := in.RecordDistributionStrategy == strategyAuto
	if st.Config().Mode != storage.OnDemand && auto {
		return nil, notOnDemand("RecordDistributionStrategy AUTO")
	}
	err = st.settings.update(ctx, s.store, func(v *streamSettings) error { v.Auto = auto; return nil })
	st.auto.Store(st.settings.get().Auto)
	return nil, err
}
