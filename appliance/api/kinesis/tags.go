package kinesis

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/weirhq/weir/appliance/api/aws"
)

const (
	tagLimit     = 50 // of a resource
	listPageTags = 50
)

// tagged is a resource that carries tags: its name for messages, and how its
// tags are read and replaced.
type tagged struct {
	what string
	get  func() map[string]string
	set  func(context.Context, func(map[string]string) (map[string]string, error)) error
}

// tagsOf returns the stream, consumer or channel an ARN names, as far as its
// tags go.
func (s *Service) tagsOf(c *aws.Call, resource string) (tagged, error) {
	a, ok := parseARN(resource)
	if !ok {
		return tagged{}, aws.InvalidArgument.New("Invalid ResourceARN: %s.", resource)
	}
	if a.channel != "" {
		return s.channelTags(c, resource)
	}
	if a.consumer != "" {
		st, found, err := s.findConsumer(c, nil, nil, &resource)
		if err != nil {
			return tagged{}, err
		}
		return s.consumerTags(st, found.Name), nil
	}
	st, err := s.find(c, nil, &resource)
	if err != nil {
		return tagged{}, err
	}
	return s.streamTags(st), nil
}

func (s *Service) streamTags(st *stream) tagged {
	return tagged{
		what: "stream " + st.Name(),
		get:  func() map[string]string { return st.settings.get().Tags },
		set: func(ctx context.Context, fn func(map[string]string) (map[string]string, error)) error {
			return s.storeError(st.settings.update(ctx, s.store, func(v *streamSettings) (err error) {
				v.Tags, err = fn(v.Tags)
				return err
			}), st.Name())
		},
	}
}

func (s *Service) consumerTags(st *stream, name string) tagged {
	return tagged{
		what: "consumer " + name,
		get: func() map[string]string {
			found, err := s.consumerOf(st, name)
			if err != nil {
				return nil
			}
			return found.Tags
		},
		set: func(ctx context.Context, fn func(map[string]string) (map[string]string, error)) error {
			return s.updateConsumer(ctx, st, name, func(c *consumer) (err error) {
				c.Tags, err = fn(c.Tags)
				return err
			})
		},
	}
}

// updateConsumer lets fn change a copy of a consumer and stores it.
func (s *Service) updateConsumer(ctx context.Context, st *stream, name string, fn func(*consumer) error) error {
	if _, err := s.consumerOf(st, name); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	have := st.mu.consumers[name]
	if have == nil {
		return aws.ResourceNotFound.New("Consumer %s was deregistered meanwhile.", name)
	}
	changed := *have
	if err := fn(&changed); err != nil {
		return err
	}
	if err := s.saveConsumer(ctx, st, &changed); err != nil {
		return err
	}
	st.mu.consumers[name] = &changed
	return nil
}

// checkTags refuses tags with characters that the service does not allow.
func checkTags(tags map[string]string) error {
	for k, v := range tags {
		if !tagText(k) || !tagText(v) {
			return aws.InvalidArgument.New("Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - %% @.")
		}
	}
	return nil
}

func tagText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsSpace(r) && !strings.ContainsRune("_./=+-@:", r)
	})
}

func (s *Service) addTags(ctx context.Context, t tagged, tags map[string]string) error {
	if err := checkTags(tags); err != nil {
		return err
	}
	return t.set(ctx, func(have map[string]string) (map[string]string, error) {
		all := maps.Clone(have)
		if all == nil {
			all = make(map[string]string, len(tags))
		}
		maps.Copy(all, tags)
		if len(all) > tagLimit {
			return nil, aws.InvalidArgument.New("Failed to add tags to %s under account %s because a given resource cannot have more than %d tags associated with it.",
				t.what, s.o.Account, tagLimit)
		}
		return all, nil
	})
}

func removeTags(ctx context.Context, t tagged, keys []string) error {
	for _, k := range keys {
		if !tagText(k) {
			return checkTags(map[string]string{k: ""})
		}
	}
	return t.set(ctx, func(have map[string]string) (map[string]string, error) {
		rest := maps.Clone(have)
		for _, k := range keys {
			delete(rest, k)
		}
		return rest, nil
	})
}

// tagOutputs are the tags by key.
func tagOutputs(tags map[string]string) []tagOutput {
	out := make([]tagOutput, 0, len(tags))
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		v := tags[k]
		out = append(out, tagOutput{Key: k, Value: &v})
	}
	return out
}

func (s *Service) addTagsToStream(ctx context.Context, c *aws.Call, in *addTagsToStreamInput) (*aws.Empty, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	return nil, s.addTags(ctx, s.streamTags(st), in.Tags)
}

func (s *Service) removeTagsFromStream(ctx context.Context, c *aws.Call, in *removeTagsFromStreamInput) (*aws.Empty, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	return nil, removeTags(ctx, s.streamTags(st), in.TagKeys)
}

func (s *Service) listTagsForStream(_ context.Context, c *aws.Call, in *listTagsForStreamInput) (*listTagsForStreamOutput, error) {
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	all := tagOutputs(st.settings.get().Tags)
	if in.ExclusiveStartTagKey != nil {
		all = slices.DeleteFunc(all, func(t tagOutput) bool { return t.Key <= *in.ExclusiveStartTagKey })
	}
	limit := listPageTags
	if in.Limit != nil {
		limit = *in.Limit
	}
	return &listTagsForStreamOutput{Tags: all[:min(limit, len(all))], HasMoreTags: len(all) > limit}, nil
}

func (s *Service) tagResource(ctx context.Context, c *aws.Call, in *tagResourceInput) (*aws.Empty, error) {
	t, err := s.tagsOf(c, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return nil, s.addTags(ctx, t, in.Tags)
}

func (s *Service) untagResource(ctx context.Context, c *aws.Call, in *untagResourceInput) (*aws.Empty, error) {
	t, err := s.tagsOf(c, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return nil, removeTags(ctx, t, in.TagKeys)
}

func (s *Service) listTagsForResource(_ context.Context, c *aws.Call, in *listTagsForResourceInput) (*listTagsForResourceOutput, error) {
	t, err := s.tagsOf(c, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return &listTagsForResourceOutput{Tags: tagOutputs(t.get())}, nil
}
