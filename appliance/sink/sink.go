// Package sink is the table of the kinds of sinks: it turns a target that a
// delivery stream names into an open sink.
//
// It owns the names of configured sinks and the way from a bucket's name to
// one of them. It never talks to a sink itself.
package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink/file"
	"github.com/weirhq/weir/appliance/sink/http"
	"github.com/weirhq/weir/appliance/sink/kinesis"
	"github.com/weirhq/weir/appliance/sink/s3"
)

// Config is a sink that the configuration names. Settings are those of the
// package of its kind.
type Config struct {
	Name string `json:"name" yaml:"name"`
	Kind string `json:"kind" yaml:"kind"` // file, s3, http, kinesis
	// Default makes it the object store for buckets that no sink has: the
	// bucket's name takes the place of the sink's own.
	Default  bool            `json:"default,omitempty" yaml:"default"`
	Settings json.RawMessage `json:"settings" yaml:"settings"`
}

// kind is one row of the table.
type kind struct {
	open   func(raw json.RawMessage, bucket string, clock func() time.Time) (delivery.Sink, error)
	show   func(raw json.RawMessage) (any, error)
	check  func(raw json.RawMessage) []Problem
	bucket func(raw json.RawMessage) string // "" for kinds without
}

// kinds is the table: a kind is what is listed here.
var kinds = map[string]kind{
	"file": {
		open: func(raw json.RawMessage, bucket string, _ func() time.Time) (delivery.Sink, error) {
			s, err := decode[file.Settings](raw)
			if err != nil {
				return nil, err
			}
			if bucket != "" {
				s.Bucket = bucket
			}
			return file.Open(s)
		},
		show:   show[file.Settings],
		check:  func(raw json.RawMessage) []Problem { return check(raw, (*file.Settings).Validate) },
		bucket: func(raw json.RawMessage) string { s, _ := decode[file.Settings](raw); return s.Bucket },
	},
	"s3": {
		open: func(raw json.RawMessage, bucket string, clock func() time.Time) (delivery.Sink, error) {
			s, err := decode[s3.Settings](raw)
			if err != nil {
				return nil, err
			}
			if bucket != "" {
				s.Bucket = bucket
			}
			return s3.Open(s, clock)
		},
		show:   show[s3.Settings],
		check:  func(raw json.RawMessage) []Problem { return check(raw, checkS3) },
		bucket: func(raw json.RawMessage) string { s, _ := decode[s3.Settings](raw); return s.Bucket },
	},
	"http": {
		open: func(raw json.RawMessage, bucket string, _ func() time.Time) (delivery.Sink, error) {
			s, err := decode[http.Settings](raw)
			if err != nil {
				return nil, err
			}
			return noBucket(bucket, func() (delivery.Sink, error) { return http.Open(s) })
		},
		show:   show[http.Settings],
		check:  func(raw json.RawMessage) []Problem { return check(raw, (*http.Settings).Validate) },
		bucket: func(json.RawMessage) string { return "" },
	},
	"kinesis": {
		open: func(raw json.RawMessage, bucket string, _ func() time.Time) (delivery.Sink, error) {
			s, err := decode[kinesis.Settings](raw)
			if err != nil {
				return nil, err
			}
			return noBucket(bucket, func() (delivery.Sink, error) { return kinesis.Open(s) })
		},
		show:   show[kinesis.Settings],
		check:  func(raw json.RawMessage) []Problem { return check(raw, (*kinesis.Settings).Validate) },
		bucket: func(json.RawMessage) string { return "" },
	},
}

func noBucket(bucket string, open func() (delivery.Sink, error)) (delivery.Sink, error) {
	if bucket != "" {
		return nil, fmt.Errorf("bucket: this kind of sink has none")
	}
	return open()
}

// decode reads settings strictly.
func decode[T any](raw json.RawMessage) (T, error) {
	var s T
	if len(raw) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("settings: %w", err)
	}
	return s, nil
}

func show[T any](raw json.RawMessage) (any, error) { return decode[T](raw) }

// Table is the set of configured sinks. It is immutable.
type Table struct {
	named map[string]Config
	clock func() time.Time
}

// New checks the configured sinks and returns their table. clock, which may be
// nil, is what requests are signed by.
func New(sinks []Config, clock func() time.Time) (*Table, error) {
	t := &Table{named: map[string]Config{}, clock: clock}
	var problems []error
	for _, p := range Check(sinks) {
		problems = append(problems, fmt.Errorf("%s: %s", p.Path, p.Text))
	}
	for _, c := range sinks {
		t.named[c.Name] = c
	}
	return t, errors.Join(problems...)
}

// Kinds are the names of the kinds.
func Kinds() []string {
	var names []string
	for k := range kinds {
		names = append(names, k)
	}
	sort.Strings(names)
	return names
}

// Open opens what a target names. It does no I/O.
func (t *Table) Open(target delivery.Target) (delivery.Sink, error) {
	if target.Name == "" {
		return t.open(Config{Kind: target.Kind, Settings: target.Settings}, target.Bucket)
	}
	c, ok := t.named[target.Name]
	if !ok {
		return nil, fmt.Errorf("there is no sink %q; configured are: %s", target.Name, t.names())
	}
	s, err := t.open(c, target.Bucket)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", c.Name, err)
	}
	return s, nil
}

func (t *Table) open(c Config, bucket string) (delivery.Sink, error) {
	k, ok := kinds[c.Kind]
	if !ok {
		return nil, fmt.Errorf("kind %q is not one of %s", c.Kind, strings.Join(Kinds(), ", "))
	}
	return k.open(c.Settings, bucket, t.clock)
}

func (t *Table) names() string {
	var names []string
	for n := range t.named {
		names = append(names, n)
	}
	sort.Strings(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Bucket finds the sink for a bucket that a Firehose destination names by its
// ARN: the one whose bucket it is, or the default object store with that
// bucket in it.
func (t *Table) Bucket(bucket string) (delivery.Target, error) {
	var names []string
	for n := range t.named {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		c := t.named[n]
		if kinds[c.Kind].bucket(c.Settings) == bucket {
			return delivery.Target{Name: n}, nil
		}
	}
	for _, n := range names {
		if t.named[n].Default {
			return delivery.Target{Name: n, Bucket: bucket}, nil
		}
	}
	for i, n := range names {
		c := t.named[n]
		if of := kinds[c.Kind].bucket(c.Settings); of != "" {
			names[i] += " with the bucket " + of
		} else {
			names[i] += " with no bucket"
		}
	}
	configured := "none"
	if len(names) > 0 {
		configured = strings.Join(names, ", ")
	}
	return delivery.Target{}, fmt.Errorf("no sink has %q as bucket in its settings, and none is the default object store; configured: %s", bucket, configured)
}

// Show returns the settings of a target without its secrets.
func (t *Table) Show(target delivery.Target) (kindName string, settings any, err error) {
	c := Config{Kind: target.Kind, Settings: target.Settings}
	if target.Name != "" {
		named, ok := t.named[target.Name]
		if !ok {
			return "", nil, fmt.Errorf("there is no sink %q; configured are: %s", target.Name, t.names())
		}
		c = named
	}
	k, ok := kinds[c.Kind]
	if !ok {
		return "", nil, fmt.Errorf("kind %q is not one of %s", c.Kind, strings.Join(Kinds(), ", "))
	}
	settings, err = k.show(c.Settings)
	return c.Kind, settings, err
}

// HideSecrets returns a JSON document with every secret in the settings of the sinks in it
// as ***, and settings that are of no kind known as *** altogether.
func HideSecrets(doc []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("hide secrets: %w", err)
	}
	hide(v)
	return json.Marshal(v)
}

// hide replaces the settings in every object of v that has some.
func hide(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			hide(x)
		}
	case map[string]any:
		for name, x := range v {
			if name == "settings" {
				v[name] = shown(v["kind"], x)
			} else {
				hide(x)
			}
		}
	}
}

// shown returns settings without their secrets.
func shown(kindName, settings any) any {
	name, _ := kindName.(string)
	if k, ok := kinds[name]; ok {
		if raw, err := json.Marshal(settings); err == nil {
			if out, err := k.show(raw); err == nil {
				return out
			}
		}
	}
	return "***"
}
