package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// Stream is one stream as listed. Durations and sizes are written as in the
// configuration file.
type Stream struct {
	Name           string       `json:"name"`
	Mode           string       `json:"mode"`
	System         bool         `json:"system,omitempty"`
	Created        time.Time    `json:"created"`
	Retention      string       `json:"retention"`
	RetentionBytes config.Bytes `json:"retention_bytes"`
	WhenFull       string       `json:"when_full"`
	Codec          string       `json:"codec"`
	MaxRecordBytes config.Bytes `json:"max_record_bytes"`
	OpenShards     int          `json:"open_shards"`
	Records        uint64       `json:"records"`               // kept; what was thinned out counts
	StoredBytes    int64        `json:"stored_bytes"`          // on disk, about
	TakenRecords   uint64       `json:"taken_records"`         // taken in since the box started
	LastArrival    time.Time    `json:"last_arrival,omitzero"` // absent when empty
	Shards         []Shard      `json:"shards,omitempty"`      // when one stream is described
}

// Shard is one shard of a described stream.
type Shard struct {
	ID             string    `json:"id"`
	Open           bool      `json:"open"`
	FirstHashKey   string    `json:"first_hash_key"`
	LastHashKey    string    `json:"last_hash_key"`
	Parent         string    `json:"parent,omitempty"`
	AdjacentParent string    `json:"adjacent_parent,omitempty"`
	Created        time.Time `json:"created"`
	Closed         time.Time `json:"closed,omitzero"`
	FirstIndex     uint64    `json:"first_index"`
	LastIndex      uint64    `json:"last_index"`
	LastArrival    time.Time `json:"last_arrival,omitzero"`
	StoredBytes    int64     `json:"stored_bytes"`
}

// StreamSettings is what a stream is made with, and what may be changed; a
// member that is absent keeps the default, or what it was.
type StreamSettings struct {
	Name           string  `json:"name,omitempty"`
	Shards         *int    `json:"shards,omitempty"`
	Mode           *string `json:"mode,omitempty"`
	Retention      *string `json:"retention,omitempty"`
	RetentionBytes *string `json:"retention_bytes,omitempty"`
	WhenFull       *string `json:"when_full,omitempty"`
	Codec          *string `json:"codec,omitempty"`
	MaxRecordBytes *string `json:"max_record_bytes,omitempty"`
}

// Reshard changes the shards of a stream: to a number of equal ones, or by one
// split or one merge. Exactly one of the three is given.
type Reshard struct {
	Shards int      `json:"shards,omitempty"`
	Split  string   `json:"split,omitempty"` // shard id
	At     string   `json:"at,omitempty"`    // first hash key of the upper half; the middle if empty
	Merge  []string `json:"merge,omitempty"` // two adjacent shard ids
}

func (s *Service) streamRoutes() []route {
	return []route{
		{"GET", "streams", "ListStreams", s.listStreams},
		{"POST", "streams", "CreateStream", s.createStream},
		{"GET", "streams/{name}", "DescribeStream", s.describeStream},
		{"PATCH", "streams/{name}", "UpdateStream", s.updateStream},
		{"DELETE", "streams/{name}", "DeleteStream", s.deleteStream},
		{"POST", "streams/{name}/reshard", "ReshardStream", s.reshardStream},
	}
}

func (s *Service) listStreams(_ context.Context, c *call) (any, error) {
	out := struct {
		Streams []Stream `json:"streams"`
	}{Streams: []Stream{}}
	for _, st := range s.Store.Streams() {
		if !st.Config().System || c.query.Get("system") == "true" {
			out.Streams = append(out.Streams, streamOf(st, false))
		}
	}
	return out, nil
}

func (s *Service) describeStream(_ context.Context, c *call) (any, error) {
	st, err := s.Store.Stream(c.params["name"])
	if err != nil {
		return nil, err
	}
	return streamOf(st, true), nil
}

func (s *Service) createStream(ctx context.Context, c *call) (any, error) {
	var in StreamSettings
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	defaults := config.DefaultStream()
	cfg, err := StorageStream(&defaults)
	if err != nil {
		return nil, err
	}
	cfg.Name = in.Name
	if in.Shards != nil {
		if *in.Shards < 1 {
			return nil, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("shards: %d; expecting at least 1", *in.Shards)}
		}
		cfg.Shards = *in.Shards
	}
	if err := in.apply(&cfg); err != nil {
		return nil, err
	}
	if in.Shards == nil && cfg.Mode == storage.OnDemand {
		cfg.Shards = config.OnDemandShards
	}
	st, err := s.Store.CreateStream(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return streamOf(st, true), nil
}

func (s *Service) updateStream(ctx context.Context, c *call) (any, error) {
	var in StreamSettings
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Shards != nil || in.Name != "" {
		return nil, &Error{Status: 400, Code: "InvalidArgument", Message: "name and shards can't be changed here; expecting retention, retention_bytes, when_full, codec, mode or max_record_bytes"}
	}
	st, err := s.Store.Stream(c.params["name"])
	if err != nil {
		return nil, err
	}
	trial := st.Config()
	if err := in.apply(&trial); err != nil {
		return nil, err
	}
	if err := st.Update(ctx, func(cfg *storage.StreamConfig) { _ = in.apply(cfg) }); err != nil { // parsed well above
		return nil, err
	}
	return streamOf(st, true), nil
}

func (s *Service) deleteStream(ctx context.Context, c *call) (any, error) {
	name := c.params["name"]
	if readers := s.Deliveries.Readers(name); len(readers) > 0 {
		return nil, &Error{Status: 409, Code: "ResourceInUse", Message: fmt.Sprintf("stream %q is the source of delivery stream %s; delete that first", name, strings.Join(readers, ", "))}
	}
	if err := s.Store.DeleteStream(ctx, name); err != nil {
		return nil, err
	}
	return struct {
		Deleted string `json:"deleted"`
	}{name}, nil
}

func (s *Service) reshardStream(ctx context.Context, c *call) (any, error) {
	var in Reshard
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	st, err := s.Store.Stream(c.params["name"])
	if err != nil {
		return nil, err
	}
	switch {
	case in.Shards > 0 && in.Split == "" && in.Merge == nil:
		err = st.UpdateShardCount(ctx, in.Shards)
	case in.Shards == 0 && in.Split != "" && in.Merge == nil:
		err = split(ctx, st, in.Split, in.At)
	case in.Shards == 0 && in.Split == "" && len(in.Merge) == 2:
		var a, b record.ShardNumber
		if a, err = shardNumber(in.Merge[0]); err != nil {
			return nil, err
		}
		if b, err = shardNumber(in.Merge[1]); err != nil {
			return nil, err
		}
		err = st.Merge(ctx, a, b)
	default:
		err = &Error{Status: 400, Code: "InvalidArgument", Message: "expecting exactly one of shards (at least 1), split (a shard id) and merge (two shard ids)"}
	}
	if err != nil {
		return nil, err
	}
	return streamOf(st, true), nil
}

func shardNumber(id string) (record.ShardNumber, error) {
	n, err := record.ParseShardNumber(id)
	if err != nil {
		return 0, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("%q is not a shard id; expecting one such as shardId-000000000000", id)}
	}
	return n, nil
}

func split(ctx context.Context, st *storage.Stream, id, at string) error {
	n, err := shardNumber(id)
	if err != nil {
		return err
	}
	info, err := st.Shard(n)
	if err != nil {
		return err
	}
	start, ok := info.Hash.Mid()
	if at == "" && !ok {
		return &Error{Status: 400, Code: "InvalidArgument", Message: id + " has one hash key only and can't be split"}
	}
	if at != "" {
		if start, err = record.ParseHashKey(at); err != nil {
			return &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("%q is not a hash key; expecting a decimal number below 2^128", at)}
		}
	}
	return st.Split(ctx, n, start)
}

// streamOf describes the stream, with its shards when asked.
func streamOf(st *storage.Stream, withShards bool) Stream {
	cfg := st.Config()
	out := Stream{
		Name: st.Name(), Mode: nameOf(modes, cfg.Mode), System: cfg.System, Created: st.CreatedAt(),
		Retention: config.FormatDuration(cfg.Retention), RetentionBytes: config.Bytes(cfg.RetentionBytes),
		WhenFull: nameOf(policies, cfg.WhenFull), Codec: nameOf(codecs, cfg.Codec), MaxRecordBytes: config.Bytes(cfg.MaxRecordBytes),
		TakenRecords: st.Taken(),
	}
	for _, sh := range st.Shards() {
		if sh.Open() {
			out.OpenShards++
		}
		out.Records += sh.Records
		out.StoredBytes += sh.Bytes
		if sh.LastArrival.After(out.LastArrival) {
			out.LastArrival = sh.LastArrival
		}
		if withShards {
			out.Shards = append(out.Shards, shardOf(sh))
		}
	}
	return out
}

func shardOf(sh storage.ShardInfo) Shard {
	out := Shard{
		ID: sh.Number.String(), Open: sh.Open(), FirstHashKey: sh.Hash.First.String(), LastHashKey: sh.Hash.Last.String(),
		Created: sh.Created, Closed: sh.Closed, FirstIndex: sh.First, LastIndex: sh.Last, LastArrival: sh.LastArrival, StoredBytes: sh.Bytes,
	}
	if sh.HasParent {
		out.Parent = sh.Parent.String()
	}
	if sh.HasAdjacentParent {
		out.AdjacentParent = sh.AdjacentParent.String()
	}
	return out
}

// The names of storage's choices, in the order of its constants, as the
// configuration and the API write them.
var (
	modes    = []string{"provisioned", "on-demand"}
	policies = []string{"reject", "drop-oldest", "thin-out"}
	codecs   = []string{"zstd", "s2", "none", "auto"}
)

func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("unknown-%d", v)
}

func parseName[T ~uint8](names []string, field, text string, v *T) error {
	i := slices.Index(names, text)
	if i < 0 {
		return &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("%s: %q is unknown; expecting one of %s", field, text, strings.Join(names, ", "))}
	}
	*v = T(i)
	return nil
}

// apply sets what is given.
func (in *StreamSettings) apply(cfg *storage.StreamConfig) error {
	invalid := func(field string, err error) error {
		return &Error{Status: 400, Code: "InvalidArgument", Message: field + ": " + err.Error()}
	}
	if in.Mode != nil {
		if err := parseName(modes, "mode", *in.Mode, &cfg.Mode); err != nil {
			return err
		}
	}
	if in.WhenFull != nil {
		if err := parseName(policies, "when_full", *in.WhenFull, &cfg.WhenFull); err != nil {
			return err
		}
	}
	if in.Codec != nil {
		if err := parseName(codecs, "codec", *in.Codec, &cfg.Codec); err != nil {
			return err
		}
	}
	if in.Retention != nil {
		d, err := config.ParseDuration(*in.Retention)
		if err != nil {
			return invalid("retention", err)
		}
		cfg.Retention = d
	}
	if in.RetentionBytes != nil {
		n, err := config.ParseBytes(*in.RetentionBytes)
		if err != nil {
			return invalid("retention_bytes", err)
		}
		cfg.RetentionBytes = int64(n)
	}
	if in.MaxRecordBytes != nil {
		n, err := config.ParseBytes(*in.MaxRecordBytes)
		if err != nil {
			return invalid("max_record_bytes", err)
		}
		cfg.MaxRecordBytes = int(min(n, 1<<30))
	}
	return nil
}

// Follow changes the stream to what the configuration says of it, durable on return, and
// returns the keys that differed. Only those of which set is true are looked at, and never
// the number of shards.
func Follow(ctx context.Context, st *storage.Stream, c *config.Stream, set func(key string) bool) (changed []string, err error) {
	want, err := StorageStream(c)
	if err != nil {
		return nil, err
	}
	now, next := st.Config(), st.Config()
	for _, k := range []struct {
		key   string
		alike bool
		copy  func()
	}{
		{"mode", now.Mode == want.Mode, func() { next.Mode = want.Mode }},
		{"retention", now.Retention == want.Retention, func() { next.Retention = want.Retention }},
		{"retention_bytes", now.RetentionBytes == want.RetentionBytes, func() { next.RetentionBytes = want.RetentionBytes }},
		{"when_full", now.WhenFull == want.WhenFull, func() { next.WhenFull = want.WhenFull }},
		{"codec", now.Codec == want.Codec, func() { next.Codec = want.Codec }},
		{"max_record_bytes", now.MaxRecordBytes == want.MaxRecordBytes, func() { next.MaxRecordBytes = want.MaxRecordBytes }},
	} {
		if !k.alike && set(k.key) {
			k.copy()
			changed = append(changed, k.key)
		}
	}
	if changed == nil {
		return nil, nil
	}
	return changed, st.Update(ctx, func(cfg *storage.StreamConfig) {
		cfg.Mode, cfg.Retention, cfg.RetentionBytes = next.Mode, next.Retention, next.RetentionBytes
		cfg.WhenFull, cfg.Codec, cfg.MaxRecordBytes = next.WhenFull, next.Codec, next.MaxRecordBytes
	})
}

// StorageStream is the storage settings of a stream of the configuration.
func StorageStream(c *config.Stream) (storage.StreamConfig, error) {
	cfg := storage.StreamConfig{
		Name: c.Name, Shards: c.Shards, Retention: c.Retention, RetentionBytes: int64(c.RetentionBytes), MaxRecordBytes: int(c.MaxRecordBytes),
	}
	in := StreamSettings{Mode: &c.Mode, WhenFull: &c.WhenFull, Codec: &c.Codec}
	return cfg, in.apply(&cfg)
}
