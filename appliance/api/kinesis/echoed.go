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

// This file has the settings that mean something only in the real service's
// account world: they are stored and given back, and do nothing.

// shardMetrics are the shard-level metrics; ALL stands for all of them.
var shardMetrics = []string{
	"IncomingBytes", "IncomingRecords", "OutgoingBytes", "OutgoingRecords",
	"WriteProvisionedThroughputExceeded", "ReadProvisionedThroughputExceeded", "IteratorAgeMilliseconds",
}

func monitoring(v *streamSettings) []enhancedMetrics {
	metrics := v.Metrics
	if metrics == nil {
		metrics = []string{}
	}
	return []enhancedMetrics{{ShardLevelMetrics: metrics}}
}

func (s *Service) enableEnhancedMonitoring(ctx context.Context, c *aws.Call, in *enableEnhancedMonitoringInput) (*enhancedMonitoringOutput, error) {
	return s.monitor(ctx, c, in.StreamName, in.StreamARN, in.ShardLevelMetrics, true)
}

func (s *Service) disableEnhancedMonitoring(ctx context.Context, c *aws.Call, in *disableEnhancedMonitoringInput) (*enhancedMonitoringOutput, error) {
	return s.monitor(ctx, c, in.StreamName, in.StreamARN, in.ShardLevelMetrics, false)
}

func (s *Service) monitor(ctx context.Context, c *aws.Call, name, streamARN *string, metrics []string, on bool) (*enhancedMonitoringOutput, error) {
	st, err := s.find(c, name, streamARN)
	if err != nil {
		return nil, err
	}
	var before, after []string
	err = st.settings.update(ctx, s.store, func(v *streamSettings) error {
		before, after = v.Metrics, []string{}
		for _, m := range shardMetrics {
			named := slices.Contains(metrics, m) || slices.Contains(metrics, "ALL")
			if named && on || !named && slices.Contains(before, m) {
				after = append(after, m)
			}
		}
		v.Metrics = after
		return nil
	})
	if err != nil {
		return nil, s.storeError(err, st.Name())
	}
	if before == nil {
		before = []string{}
	}
	n, a := st.Name(), s.streamARN(st.Name())
	return &enhancedMonitoringOutput{StreamName: &n, StreamARN: &a, CurrentShardLevelMetrics: before, DesiredShardLevelMetrics: after}, nil
}

func encryptionOf(v *streamSettings) (kind string, key *string) {
	if v.KeyID == "" {
		return "NONE", nil
	}
	return "KMS", &v.KeyID
}

// keyChangesPerDay is how often encryption of a stream is started, and how often it
// is stopped, within 24 hours (API reference, StartStreamEncryption).
const keyChangesPerDay = 25

func (s *Service) startStreamEncryption(ctx context.Context, c *aws.Call, in *startStreamEncryptionInput) (*aws.Empty, error) {
	return s.encrypt(ctx, c, in.StreamName, in.StreamARN, in.EncryptionType, in.KeyId)
}

func (s *Service) stopStreamEncryption(ctx context.Context, c *aws.Call, in *stopStreamEncryptionInput) (*aws.Empty, error) {
	return s.encrypt(ctx, c, in.StreamName, in.StreamARN, in.EncryptionType, "")
}

func (s *Service) encrypt(ctx context.Context, c *aws.Call, name, streamARN *string, kind, key string) (*aws.Empty, error) {
	st, err := s.find(c, name, streamARN)
	if err != nil {
		return nil, err
	}
	if kind != "KMS" {
		return nil, aws.InvalidArgument.New("EncryptionType %s is not valid here. The only valid value is KMS.", kind)
	}
	err = st.settings.update(ctx, s.store, func(v *streamSettings) error {
		times, what := &v.KeyStarts, "been given a key"
		if key == "" {
			times, what = &v.KeyStops, "been left without a key"
		}
		if v.KeyID == key {
			return nil
		}
		recent := within(*times, s.now(), 24*time.Hour)
		if len(recent) >= keyChangesPerDay {
			return aws.LimitExceeded.New("Stream %s under account %s has %s %d times in the last 24 hours, which is the limit.",
				st.Name(), s.o.Account, what, len(recent))
		}
		*times, v.KeyID = append(recent, s.now()), key
		return nil
	})
	return nil, s.storeError(err, st.Name())
}

// policyOf returns where the policy of a stream or consumer is kept.
func (s *Service) policyOf(c *aws.Call, resource string) (st *stream, consumer string, err error) {
	a, ok := parseARN(resource)
	if !ok || a.channel != "" {
		return nil, "", aws.InvalidArgument.New("Invalid ResourceARN: %s.", resource)
	}
	if a.consumer == "" {
		st, err = s.find(c, nil, &resource)
		return st, "", err
	}
	st, found, err := s.findConsumer(c, nil, nil, &resource)
	if err != nil {
		return nil, "", err
	}
	return st, found.Name, nil
}

func (s *Service) putResourcePolicy(ctx context.Context, c *aws.Call, in *putResourcePolicyInput) (*aws.Empty, error) {
	st, consumer, err := s.policyOf(c, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	if !json.Valid([]byte(in.Policy)) || !strings.HasPrefix(strings.TrimSpace(in.Policy), "{") {
		return nil, aws.Validation.New("The resource policy is not a JSON object.")
	}
	return nil, s.setPolicy(ctx, st, consumer, in.Policy)
}

func (s *Service) setPolicy(ctx context.Context, st *stream, name, policy string) error {
	if name != "" {
		return s.updateConsumer(ctx, st, name, func(c *consumer) error { c.Policy = policy; return nil })
	}
	err := st.settings.update(ctx, s.store, func(v *streamSettings) error { v.Policy = policy; return nil })
	return s.storeError(err, st.Name())
}

func (s *Service) getResourcePolicy(_ context.Context, c *aws.Call, in *getResourcePolicyInput) (*getResourcePolicyOutput, error) {
	st, name, err := s.policyOf(c, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	policy := st.settings.get().Policy
	if name != "" {
		found, err := s.consumerOf(st, name)
		if err != nil {
			return nil, err
		}
		policy = found.Policy
	}
	if policy == "" {
		policy = "{}" // what the real service says of a policy that was never set
	}
	return &getResourcePolicyOutput{Policy: policy}, nil
}

func (s *Service) deleteResourcePolicy(ctx context.Context, c *aws.Call, in *deleteResourcePolicyInput) (*aws.Empty, error) {
	st, name, err := s.policyOf(c, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return nil, s.setPolicy(ctx, st, name, "")
}

// warmable checks a warm throughput.
func (s *Service) warmable(mib int) error {
	if s.account.get().Commitment.Status != commitmentEnabled {
		return aws.InvalidArgument.New("WarmThroughputMiBps needs MinimumThroughputBillingCommitment to be ENABLED for the account %s.", s.o.Account)
	}
	if mib > warmThroughputLimit {
		return aws.LimitExceeded.New("WarmThroughputMiBps %d exceeds the limit of %d.", mib, warmThroughputLimit)
	}
	return nil
}

// warmThroughput is the target that was set and what the open shards take in.
func warmThroughput(st *storage.Stream, v *streamSettings) *warmThroughputObject {
	current := openShards(st) * mibPerShard
	target := max(warmThroughputFloor, current)
	if v.WarmMiBps != nil {
		target = *v.WarmMiBps
	}
	return &warmThroughputObject{TargetMiBps: &target, CurrentMiBps: &current}
}

func (s *Service) updateStreamWarmThroughput(ctx context.Context, c *aws.Call, in *updateStreamWarmThroughputInput) (*updateStreamWarmThroughputOutput, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	if st.Config().Mode != storage.OnDemand {
		return nil, notOnDemand("WarmThroughputMiBps")
	}
	if err := s.warmable(in.WarmThroughputMiBps); err != nil {
		return nil, err
	}
	err = st.settings.update(ctx, s.store, func(v *streamSettings) error { v.WarmMiBps = &in.WarmThroughputMiBps; return nil })
	if err != nil {
		return nil, s.storeError(err, st.Name())
	}
	settings := st.settings.get()
	n, a := st.Name(), s.streamARN(st.Name())
	return &updateStreamWarmThroughputOutput{StreamName: &n, StreamARN: &a, WarmThroughput: warmThroughput(st.Stream, &settings)}, nil
}

// accountSettings are the settings of the one account.
type accountSettings struct {
	Commitment struct {
		Status             string    `json:"status,omitempty"`
		Started, Ended     time.Time `json:",omitzero"`
		EarliestAllowedEnd time.Time `json:",omitzero"`
	} `json:"commitment"`
}

const (
	commitmentEnabled  = "ENABLED"
	commitmentDisabled = "DISABLED"
	// commitmentTerm is how long a commitment lasts at least in the real service.
	commitmentTerm = 24 * time.Hour
)

func (a *accountSettings) output() *minimumThroughputBillingCommitmentOutput {
	out := &minimumThroughputBillingCommitmentOutput{
		Status: a.Commitment.Status, StartedAt: a.Commitment.Started, EndedAt: a.Commitment.Ended,
		EarliestAllowedEndAt: a.Commitment.EarliestAllowedEnd,
	}
	if out.Status == "" {
		out.Status = commitmentDisabled
	}
	return out
}

func (s *Service) describeAccountSettings(_ context.Context, c *aws.Call, _ *describeAccountSettingsInput) (*describeAccountSettingsOutput, error) {
	if err := c.Authorize(""); err != nil {
		return nil, err
	}
	settings := s.account.get()
	return &describeAccountSettingsOutput{settings.output()}, nil
}

func (s *Service) updateAccountSettings(ctx context.Context, c *aws.Call, in *updateAccountSettingsInput) (*updateAccountSettingsOutput, error) {
	if err := c.Authorize(""); err != nil {
		return nil, err
	}
	err := s.account.update(ctx, s.store, func(v *accountSettings) error {
		to := in.MinimumThroughputBillingCommitment.Status
		if to == v.output().Status {
			return nil
		}
		v.Commitment.Status = to
		if to == commitmentEnabled {
			v.Commitment.Started, v.Commitment.Ended = s.now().UTC(), time.Time{}
			v.Commitment.EarliestAllowedEnd = v.Commitment.Started.Add(commitmentTerm)
		} else {
			v.Commitment.Ended, v.Commitment.EarliestAllowedEnd = s.now().UTC(), time.Time{}
		}
		return nil
	})
	if err != nil {
		return nil, s.storeError(err, "")
	}
	settings := s.account.get()
	return &updateAccountSettingsOutput{settings.output()}, nil
}

func (s *Service) describeLimits(_ context.Context, c *aws.Call, _ *describeLimitsInput) (*describeLimitsOutput, error) {
	if err := c.Authorize(""); err != nil {
		return nil, err
	}
	open, onDemand := s.usage()
	channels, limit := s.channels.count(), channelLimit
	return &describeLimitsOutput{
		ShardLimit: s.o.ShardLimit, OpenShardCount: open,
		OnDemandStreamCount: onDemand, OnDemandStreamCountLimit: s.o.OnDemandStreamLimit,
		ChannelCount: &channels, ChannelCountLimit: &limit,
	}, nil
}
