package firehose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
)

// tagLimit is how many tags a delivery stream may have.
const tagLimit = 50

func tagsKey(name string) []byte { return []byte("firehose/tags/" + name) }

func (s *Service) tags(name string) (map[string]string, error) {
	raw, err := s.store.Get(storage.TableSetting, tagsKey(name))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var tags map[string]string
	if err := json.Unmarshal(raw, &tags); err != nil {
		return nil, fmt.Errorf("tags of %s: %w", name, err)
	}
	return tags, nil
}

func (s *Service) saveTags(ctx context.Context, name string, tags map[string]string) error {
	txn, err := s.store.Begin(ctx, 16<<10)
	if err != nil {
		return err
	}
	defer txn.Release()
	if len(tags) == 0 {
		txn.Delete(storage.TableSetting, tagsKey(name))
	} else {
		txn.Put(storage.TableSetting, tagsKey(name), asJSON(tags))
	}
	return txn.Commit(ctx)
}

func addTags(tags map[string]string, added []tag) (map[string]string, error) {
	out := map[string]string{}
	for k, v := range tags {
		out[k] = v
	}
	for _, t := range added {
		if strings.HasPrefix(*t.Key, "aws:") {
			return nil, aws.InvalidArgument.New("Tag key %s: keys may not begin with aws:", *t.Key)
		}
		out[*t.Key] = value(t.Value, "")
	}
	if len(out) > tagLimit {
		return nil, aws.LimitExceeded.New("A delivery stream may have at most %d tags", tagLimit)
	}
	return out, nil
}

// known checks that the caller may and that the delivery stream is there.
func (s *Service) known(c *aws.Call, name string) error {
	if err := c.Authorize(name); err != nil {
		return err
	}
	if _, _, err := s.engine.Definition(name); err != nil {
		return s.engineError(err, name)
	}
	return nil
}

func (s *Service) tag(ctx context.Context, c *aws.Call, in *tagDeliveryStreamInput) (*aws.Empty, error) {
	if err := s.known(c, *in.DeliveryStreamName); err != nil {
		return nil, err
	}
	tags, err := s.tags(*in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	if tags, err = addTags(tags, in.Tags); err != nil {
		return nil, err
	}
	return nil, s.saveTags(ctx, *in.DeliveryStreamName, tags)
}

func (s *Service) untag(ctx context.Context, c *aws.Call, in *untagDeliveryStreamInput) (*aws.Empty, error) {
	if err := s.known(c, *in.DeliveryStreamName); err != nil {
		return nil, err
	}
	tags, err := s.tags(*in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	for _, k := range in.TagKeys {
		delete(tags, k)
	}
	return nil, s.saveTags(ctx, *in.DeliveryStreamName, tags)
}

func (s *Service) listTags(_ context.Context, c *aws.Call, in *listTagsForDeliveryStreamInput) (*listTagsForDeliveryStreamOutput, error) {
	if err := s.known(c, *in.DeliveryStreamName); err != nil {
		return nil, err
	}
	tags, err := s.tags(*in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	var keys []string
	for k := range tags {
		if in.ExclusiveStartTagKey == nil || k > *in.ExclusiveStartTagKey {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	limit := value(in.Limit, tagLimit)
	more := len(keys) > limit
	out := &listTagsForDeliveryStreamOutput{Tags: []tag{}, HasMoreTags: &more}
	for _, k := range keys[:min(limit, len(keys))] {
		out.Tags = append(out.Tags, tag{Key: pointer(k), Value: pointer(tags[k])})
	}
	return out, nil
}
