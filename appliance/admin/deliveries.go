package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/storage/record"
)

// Deliveries is the answer to a list.
type Deliveries struct {
	Deliveries []delivery.Info `json:"deliveries"`
}

// Objects is what a delivery stream has delivered last, newest first.
type Objects struct {
	Objects []delivery.Manifest `json:"objects"`
}

// Places is where one record is, for each delivery stream that reads its stream.
type Places struct {
	Places []delivery.Place `json:"places"`
}

// Probed is what a test of a delivery stream's sinks found.
type Probed struct {
	Guarantees map[string]delivery.Guarantee `json:"guarantees"` // by sink, backup, on_failure or error_sink
	Tried      map[string]string             `json:"tried"`      // what was tried at it, for people
}

// DeliveryUpdate is a change of a delivery stream: Config takes the place of
// the configuration at Version.
type DeliveryUpdate struct {
	Version int             `json:"version"`
	Config  delivery.Config `json:"config"`
}

func (s *Service) deliveryRoutes() []route {
	return []route{
		{"GET", "deliveries", "ListDeliveries", s.listDeliveries},
		{"POST", "deliveries", "CreateDelivery", s.createDelivery},
		{"GET", "deliveries/{name}", "DescribeDelivery", s.describeDelivery},
		{"PUT", "deliveries/{name}", "UpdateDelivery", s.updateDelivery},
		{"DELETE", "deliveries/{name}", "DeleteDelivery", s.deliveryAction(s.Deliveries.Delete)},
		{"GET", "deliveries/{name}/objects", "ListObjects", s.listObjects},
		{"POST", "deliveries/{name}/pause", "PauseDelivery", s.deliveryAction(s.Deliveries.Pause)},
		{"POST", "deliveries/{name}/resume", "ResumeDelivery", s.deliveryAction(s.Deliveries.Resume)},
		{"POST", "deliveries/{name}/flush", "FlushDelivery", s.deliveryAction(func(_ context.Context, name string) error { return s.Deliveries.Flush(name) })},
		{"POST", "deliveries/{name}/test", "TestDelivery", s.testDelivery},
		{"POST", "deliveries/{name}/redrive", "RedriveDelivery", s.redriveDelivery},
		{"GET", "streams/{name}/where", "LocateRecord", s.where},
	}
}

// shown is a delivery stream without the secrets of its sinks.
func (s *Service) shown(i delivery.Info) delivery.Info {
	hide := func(t delivery.Target) delivery.Target {
		if len(t.Settings) == 0 {
			return t
		}
		_, settings, err := s.ShowSink(t)
		t.Settings, _ = json.Marshal(settings) // a struct that was read from JSON
		if err != nil {
			t.Settings = nil
		}
		return t
	}
	i.Sink = hide(i.Sink)
	if i.Config.Backup != nil {
		b := *i.Config.Backup
		b.Sink = hide(b.Sink)
		i.Config.Backup = &b
	}
	if i.Config.OnFailure != nil {
		f := *i.Config.OnFailure
		f.Sink = hide(f.Sink)
		i.Config.OnFailure = &f
	}
	if i.Config.ErrorSink != nil {
		t := hide(*i.Config.ErrorSink)
		i.Config.ErrorSink = &t
	}
	i.Annotations = nil // a front end's own, with what it was given as secrets
	return i
}

func (s *Service) listDeliveries(context.Context, *call) (any, error) {
	out := &Deliveries{Deliveries: []delivery.Info{}}
	for _, i := range s.Deliveries.List() {
		out.Deliveries = append(out.Deliveries, s.shown(i))
	}
	return out, nil
}

func (s *Service) describeDelivery(_ context.Context, c *call) (any, error) {
	info, err := s.Deliveries.Describe(c.params["name"])
	if err != nil {
		return nil, err
	}
	return s.shown(info), nil
}

func (s *Service) createDelivery(ctx context.Context, c *call) (any, error) {
	var in delivery.Config
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := s.fillDefaults(&in, c.query["default"]); err != nil {
		return nil, err
	}
	if err := s.Deliveries.Create(ctx, in); err != nil {
		return nil, err
	}
	c.params["name"] = in.Name
	return s.describeDelivery(ctx, c)
}

// fillDefaults sets what a caller has left to the box: objects are compressed by zstd and
// their records end with a newline; records for a sink that takes records stay as they are.
func (s *Service) fillDefaults(in *delivery.Config, left []string) error {
	if len(left) == 0 {
		return nil
	}
	records, err := s.Deliveries.TakesRecords(in.Sink)
	if err != nil {
		return err
	}
	for _, member := range left {
		switch {
		case member != "compression" && member != "delimiter":
			return &Error{Status: 400, Code: "InvalidQuery", Message: fmt.Sprintf("default=%q: compression and delimiter can be left to the box", member)}
		case records:
		case member == "compression":
			in.Compression.Format = codec.Zstd
		default:
			in.Delimiter = "\n"
		}
	}
	return nil
}

func (s *Service) updateDelivery(ctx context.Context, c *call) (any, error) {
	var in DeliveryUpdate
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	err := s.Deliveries.Update(ctx, c.params["name"], in.Version, func(cfg *delivery.Config) error {
		if err := keepSecrets(&in.Config, cfg); err != nil {
			return err
		}
		annotations := cfg.Annotations
		*cfg = in.Config
		cfg.Annotations = annotations
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.describeDelivery(ctx, c)
}

// keepSecrets puts back into a changed configuration what it was shown without: the
// secrets of its sinks where they stand as ***, and the settings of a sink that has none.
func keepSecrets(in, was *delivery.Config) error {
	if len(in.Sink.Settings) == 0 && in.Sink.Kind == was.Sink.Kind {
		in.Sink.Settings = was.Sink.Settings
	}
	olds, sinks := targets(was), targets(in)
	for _, path := range slices.Sorted(maps.Keys(sinks)) {
		var old delivery.Target
		if t := olds[path]; t != nil {
			old = *t
		}
		if err := reveal(path, sinks[path], old); err != nil {
			return err
		}
	}
	return nil
}

// targets are the sinks of a configuration by the paths of their settings.
func targets(c *delivery.Config) map[string]*delivery.Target {
	out := map[string]*delivery.Target{"sink": &c.Sink}
	if c.Backup != nil {
		out["backup.sink"] = &c.Backup.Sink
	}
	if c.OnFailure != nil {
		out["on_failure.sink"] = &c.OnFailure.Sink
	}
	if c.ErrorSink != nil {
		out["error_sink"] = c.ErrorSink
	}
	return out
}

// reveal replaces the settings of the sink at path that are *** by those of old.
func reveal(path string, t *delivery.Target, old delivery.Target) error {
	if !bytes.Contains(t.Settings, []byte(`"***"`)) {
		return nil
	}
	var settings, kept map[string]json.RawMessage
	if json.Unmarshal(t.Settings, &settings) != nil || old.Settings != nil && json.Unmarshal(old.Settings, &kept) != nil {
		return nil // whoever opens the sink says what is wrong
	}
	for name, v := range settings {
		if string(v) != `"***"` {
			continue
		}
		secret, ok := kept[name]
		if !ok || t.Kind != old.Kind {
			return &Error{Status: 400, Code: "InvalidDelivery", Message: fmt.Sprintf("%s.settings.%s: *** is how secrets are shown; expecting the secret itself", path, name)}
		}
		settings[name] = secret
	}
	var err error
	t.Settings, err = json.Marshal(settings)
	return err
}

// deliveryAction serves what changes a delivery stream and answers with it.
func (s *Service) deliveryAction(do func(ctx context.Context, name string) error) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		name := c.params["name"]
		if err := do(ctx, name); err != nil {
			return nil, err
		}
		info, err := s.Deliveries.Describe(name)
		if errors.Is(err, delivery.ErrNotFound) { // deleted just now
			return delivery.Info{Config: delivery.Config{Name: name}}, nil
		}
		return s.shown(info), err
	}
}

func (s *Service) listObjects(_ context.Context, c *call) (any, error) {
	limit := 100
	if text := c.query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100_000 {
			return nil, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("limit: %q; expecting 1 to 100000", text)}
		}
		limit = n
	}
	objects, err := s.Deliveries.Manifests(c.params["name"], limit)
	if err != nil {
		return nil, err
	}
	return &Objects{Objects: append([]delivery.Manifest{}, objects...)}, nil
}

func (s *Service) testDelivery(ctx context.Context, c *call) (any, error) {
	found, err := s.Deliveries.Test(ctx, c.params["name"])
	if errors.Is(err, delivery.ErrNotFound) {
		return nil, err
	}
	if err != nil {
		return nil, &Error{Status: 502, Code: "SinkFailed", Message: err.Error()}
	}
	out := &Probed{Guarantees: map[string]delivery.Guarantee{}, Tried: map[string]string{}}
	for path, p := range found {
		out.Guarantees[path], out.Tried[path] = p.Guarantee, p.Tried
	}
	return out, nil
}

func (s *Service) redriveDelivery(ctx context.Context, c *call) (any, error) {
	n, err := s.Deliveries.Redrive(ctx, c.params["name"])
	if err != nil {
		return nil, err
	}
	return struct {
		Records int64 `json:"records"`
	}{n}, nil
}

// where finds a record by its shard and its sequence number.
func (s *Service) where(ctx context.Context, c *call) (any, error) {
	shard, err := shardNumber(c.query.Get("shard"))
	if err != nil {
		return nil, err
	}
	seq, err := record.ParseSequenceNumber(c.query.Get("sequence"))
	if err != nil {
		return nil, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("sequence %q: expecting a sequence number as put and tail --json print it", c.query.Get("sequence"))}
	}
	st, err := s.Store.Stream(c.params["name"])
	if err != nil {
		return nil, err
	}
	// A shard of another stream may have a record of that index, too.
	if own := st.Sequence(shard, seq.Index(), time.Time{}); own.Shard() != seq.Shard() || own.Created() != seq.Created() {
		return nil, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("sequence %s: expecting one of %s of stream %s", seq, shard, st.Name())}
	}
	places, err := s.Deliveries.Where(ctx, c.params["name"], shard, seq.Index())
	if err != nil {
		return nil, err
	}
	for i := range places {
		places[i].ModuleVersion = s.moduleVersion(places[i].Module)
	}
	return &Places{Places: append([]delivery.Place{}, places...)}, nil
}

// moduleVersion is the name and version of a digest; "" when there is no such version any more.
func (s *Service) moduleVersion(digest string) string {
	if digest == "" || s.Modules == nil {
		return ""
	}
	for _, m := range s.Modules.List() {
		for _, v := range m.Versions {
			if v.Digest == digest {
				return m.Name + " " + v.Version
			}
		}
	}
	return ""
}
