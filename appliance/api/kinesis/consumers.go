package kinesis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
)

const (
	consumerLimit     = 20 // registered consumers of a stream
	advantageLimit    = 50 // of an on-demand stream while the account has a commitment
	listPageConsumers = 100
)

const consumerActive = "ACTIVE"

func (s *Service) registerStreamConsumer(ctx context.Context, c *aws.Call, in *registerStreamConsumerInput) (*registerStreamConsumerOutput, error) {
	st, err := s.find(c, nil, &in.StreamARN)
	if err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	n := &consumer{Name: in.ConsumerName, Created: s.now().UTC(), Tags: in.Tags}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.mu.consumers[n.Name] != nil {
		return nil, aws.ResourceInUse.New("Consumer %s under stream %s already exists for account %s.", n.Name, s.streamARN(st.Name()), s.o.Account)
	}
	limit := consumerLimit
	if account := s.account.get(); st.Config().Mode == storage.OnDemand && account.Commitment.Status == commitmentEnabled {
		limit = advantageLimit
	}
	if len(st.mu.consumers) >= limit {
		return nil, aws.LimitExceeded.New("Stream %s under account %s has %d registered consumers, which is the limit.", st.Name(), s.o.Account, limit)
	}
	if err := s.saveConsumer(ctx, st, n); err != nil {
		return nil, err
	}
	st.mu.consumers[n.Name] = n
	return &registerStreamConsumerOutput{s.consumerOutput(st, n)}, nil
}

// saveConsumer writes a consumer's row.
func (s *Service) saveConsumer(ctx context.Context, st *stream, c *consumer) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("consumer %s: %w", c.Name, err)
	}
	txn, err := s.store.Begin(ctx, len(raw))
	if err != nil {
		return s.storeError(err, st.Name())
	}
	txn.Put(storage.TableSetting, consumerKey(st.ID(), c.Name), raw)
	return s.storeError(commit(ctx, txn), st.Name())
}

func (s *Service) consumerOutput(st *stream, c *consumer) consumerOutput {
	return consumerOutput{
		ConsumerName: c.Name, ConsumerARN: s.consumerARN(st, c), ConsumerStatus: consumerActive,
		ConsumerCreationTimestamp: c.Created,
	}
}

// findConsumer returns the consumer that an input names by its ARN, or by its
// name and its stream's ARN.
func (s *Service) findConsumer(c *aws.Call, streamARN, name, consumerARN *string) (*stream, *consumer, error) {
	if consumerARN == nil && (streamARN == nil || name == nil) {
		return nil, nil, aws.InvalidArgument.New("Either ConsumerARN or both StreamARN and ConsumerName should be provided.")
	}
	var a arn
	if consumerARN != nil {
		var ok bool
		if a, ok = parseARN(*consumerARN); !ok || a.consumer == "" {
			return nil, nil, aws.InvalidArgument.New("Invalid ConsumerARN: %s.", *consumerARN)
		}
		own, _, _ := strings.Cut(*consumerARN, "/consumer/")
		plain, _, _ := strings.Cut(a.consumer, ":")
		if streamARN != nil && *streamARN != own || name != nil && *name != plain {
			return nil, nil, aws.InvalidArgument.New("ConsumerARN %s does not agree with the StreamARN or ConsumerName given with it.", *consumerARN)
		}
		streamARN, name = &own, &a.consumer
	}
	st, err := s.find(c, nil, streamARN)
	if err != nil {
		return nil, nil, err
	}
	found, err := s.consumerOf(st, *name)
	return st, found, err
}

// consumerOf returns a stream's consumer by name, or by name, colon and creation
// time as its ARN has it: a consumer registered again under the same name is
// another one.
func (s *Service) consumerOf(st *stream, name string) (*consumer, error) {
	plain, created, dated := strings.Cut(name, ":")
	st.mu.Lock()
	found := st.mu.consumers[plain]
	st.mu.Unlock()
	if found == nil || dated && fmt.Sprint(found.Created.Unix()) != created {
		return nil, aws.ResourceNotFound.New("Consumer %s under stream %s not found for account %s.", name, s.streamARN(st.Name()), s.o.Account)
	}
	return found, nil
}

func (s *Service) describeStreamConsumer(_ context.Context, c *aws.Call, in *describeStreamConsumerInput) (*describeStreamConsumerOutput, error) {
	st, found, err := s.findConsumer(c, in.StreamARN, in.ConsumerName, in.ConsumerARN)
	if err != nil {
		return nil, err
	}
	o := s.consumerOutput(st, found)
	return &describeStreamConsumerOutput{consumerDescription{
		ConsumerName: o.ConsumerName, ConsumerARN: o.ConsumerARN, ConsumerStatus: o.ConsumerStatus,
		ConsumerCreationTimestamp: o.ConsumerCreationTimestamp, StreamARN: s.streamARN(st.Name()),
	}}, nil
}

func (s *Service) deregisterStreamConsumer(ctx context.Context, c *aws.Call, in *deregisterStreamConsumerInput) (*aws.Empty, error) {
	st, found, err := s.findConsumer(c, in.StreamARN, in.ConsumerName, in.ConsumerARN)
	if err != nil {
		return nil, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	txn, err := s.store.Begin(ctx, 0)
	if err != nil {
		return nil, s.storeError(err, st.Name())
	}
	txn.Delete(storage.TableSetting, consumerKey(st.ID(), found.Name))
	if err := commit(ctx, txn); err != nil {
		return nil, s.storeError(err, st.Name())
	}
	delete(st.mu.consumers, found.Name)
	s.subscriptions.endConsumer(st.ID(), found.Name)
	return nil, nil
}

func (s *Service) listStreamConsumers(_ context.Context, c *aws.Call, in *listStreamConsumersInput) (*listStreamConsumersOutput, error) {
	st, err := s.find(c, nil, &in.StreamARN)
	if err != nil {
		return nil, err
	}
	if err := s.sameCreation(st, in.StreamCreationTimestamp); err != nil {
		return nil, err
	}
	after := ""
	if in.NextToken != nil {
		p, err := s.turn(*in.NextToken, "ListStreamConsumers")
		if err != nil {
			return nil, err
		}
		if p.scope != st.Name() {
			return nil, aws.InvalidArgument.New("Invalid NextToken.")
		}
		after = p.after
	}
	st.mu.Lock()
	all := make([]*consumer, 0, len(st.mu.consumers))
	for _, one := range st.mu.consumers {
		if one.Name > after {
			all = append(all, one)
		}
	}
	st.mu.Unlock()
	slices.SortFunc(all, func(a, b *consumer) int { return strings.Compare(a.Name, b.Name) })
	limit := listPageConsumers
	if in.MaxResults != nil {
		limit = min(limit, *in.MaxResults)
	}
	out := &listStreamConsumersOutput{Consumers: []consumerOutput{}}
	if len(all) > limit {
		all = all[:limit]
		out.NextToken = s.nextPage("ListStreamConsumers", st.Name(), all[limit-1].Name)
	}
	for _, one := range all {
		out.Consumers = append(out.Consumers, s.consumerOutput(st, one))
	}
	return out, nil
}
