package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirhq/weir/appliance/delivery/prefix"
	"github.com/weirhq/weir/storage"
)

// binding is one version of a delivery stream's configuration with all it
// names opened: sinks, prefixes, module. A recipe is made with the binding of
// the version that it was sealed under.
type binding struct {
	version   int
	config    Config
	zone      *time.Location
	stream    *storage.Stream
	sink      Sink
	backup    ObjectSink // nil without one
	failure   ObjectSink // nil without one; of a RecordSink
	errorSink ObjectSink // nil without one; of an ObjectSink
	data      *prefix.Expression
	errors    *prefix.Expression
	backups   *prefix.Expression
	failures  *prefix.Expression
	query     *query
	transform func(digest string) (Transformer, error) // nil without one
}

func (b *binding) close() error {
	errs := []error{}
	if b.sink != nil {
		errs = append(errs, b.sink.Close())
	}
	if b.backup != nil {
		errs = append(errs, b.backup.Close())
	}
	if b.failure != nil {
		errs = append(errs, b.failure.Close())
	}
	if b.errorSink != nil {
		errs = append(errs, b.errorSink.Close())
	}
	return errors.Join(errs...)
}

// bindings are the versions of a definition that are in use.
type bindings struct {
	current *binding
	older   map[int]*binding
}

func (b *bindings) close() {
	_ = b.current.close()
	for _, o := range b.older {
		_ = o.close()
	}
}

// module is the digest that a recipe sealed now names.
func (b *binding) module() string {
	if b.transform == nil {
		return ""
	}
	t, err := b.transform("")
	if err != nil {
		return "" // the attempt will say so, and go on when there is one
	}
	return t.Digest()
}

// bind opens what a configuration names. It does no I/O.
func (e *Engine) bind(d *definition, version int, c Config) (*binding, error) {
	b := &binding{version: version, config: c, zone: c.location()}
	name := c.Source.Stream
	if c.Source.DirectPut {
		name = d.Buffer
	}
	var err error
	if b.stream, err = e.store.Stream(name); err != nil {
		return nil, fmt.Errorf("delivery %s: source %q: %w", c.Name, name, err)
	}
	if b.data, err = prefix.Parse(c.Prefix, prefix.Data); err != nil {
		return nil, err
	}
	errorPrefix := c.ErrorPrefix
	if errorPrefix == "" {
		errorPrefix = c.Prefix // has no expressions: validated
	}
	if b.errors, err = prefix.Parse(errorPrefix, prefix.Error); err != nil {
		return nil, err
	}
	if c.Partition != nil && c.Partition.Query != "" {
		if b.query, err = compileQuery(c.Partition.Query); err != nil {
			return nil, err
		}
	}
	if c.Transform != nil {
		b.transform = func(digest string) (Transformer, error) { return e.options.Transforms(c.Transform.Module, digest) }
	}
	return b, e.bindSinks(b)
}

func (e *Engine) bindSinks(b *binding) error {
	c := &b.config
	var err error
	if b.sink, err = e.options.OpenSink(c.Sink); err != nil {
		return fmt.Errorf("%w: delivery %s: sink: %w", ErrInvalid, c.Name, err)
	}
	object := func(path string, t Target) (ObjectSink, error) {
		s, err := e.options.OpenSink(t)
		if err != nil {
			return nil, fmt.Errorf("%w: delivery %s: %s: %w", ErrInvalid, c.Name, path, err)
		}
		o, ok := s.(ObjectSink)
		if !ok {
			return nil, errors.Join(fmt.Errorf("%w: delivery %s: %s: it must be a sink that stores objects", ErrInvalid, c.Name, path), s.Close())
		}
		return o, nil
	}
	if c.Backup != nil {
		if b.backup, err = object("backup.sink", c.Backup.Sink); err != nil {
			return errors.Join(err, b.close())
		}
		if b.backups, err = prefix.Parse(c.Backup.Prefix, prefix.Data); err != nil {
			return errors.Join(err, b.close())
		}
	}
	if c.OnFailure != nil {
		if b.failure, err = object("on_failure.sink", c.OnFailure.Sink); err != nil {
			return errors.Join(err, b.close())
		}
		if b.failures, err = prefix.Parse(c.OnFailure.ErrorPrefix, prefix.Error); err != nil {
			return errors.Join(err, b.close())
		}
	}
	if c.ErrorSink != nil {
		if b.errorSink, err = object("error_sink", *c.ErrorSink); err != nil {
			return errors.Join(err, b.close())
		}
	}
	return b.fits()
}

// fits refuses options that the kind of sink has no use for.
func (b *binding) fits() error {
	c := &b.config
	refuse := func(path, why string) error {
		return errors.Join(fmt.Errorf("%w: delivery %s: %s: %s", ErrInvalid, c.Name, path, why), b.close())
	}
	if _, records := b.sink.(RecordSink); !records {
		if c.OnFailure != nil {
			return refuse("on_failure", "belongs to sinks that take records; this one stores objects, and is tried until it does")
		}
		return nil
	}
	switch {
	case c.ErrorSink != nil:
		return refuse("error_sink", "belongs to sinks that store objects; this one takes records: use on_failure")
	case c.Partition != nil:
		return refuse("partition", "the sink takes records, not objects")
	case c.Parquet != nil:
		return refuse("parquet", "the sink takes records, not objects")
	case c.Compression.Format != "" && c.Compression.Format != "UNCOMPRESSED":
		return refuse("compression", "the sink takes records; its own settings say how requests are encoded")
	case c.Uplink.LivePercent > 0:
		return refuse("uplink.live_percent", "records would reach the sink out of order")
	case c.OnFailure == nil && (c.Transform != nil || c.Decompress != nil || c.SubRecords != nil || c.Check != ""):
		return refuse("on_failure", "must be given: records that fail a stage need a place")
	}
	return nil
}

// openBindings opens the current version and those of sealed recipes.
func (w *worker) openBindings(d *definition) (*bindings, error) {
	current, err := w.engine.bind(d, d.Version, d.Config)
	if err != nil {
		return nil, err
	}
	out := &bindings{current: current, older: map[int]*binding{}}
	recipes, err := w.engine.recipes(d.ID)
	if err != nil {
		out.close()
		return nil, err
	}
	for _, r := range recipes {
		if r.Version == d.Version || out.older[r.Version] != nil {
			continue
		}
		raw, err := w.engine.store.Get(storage.TableDelivery, versionKey(d.ID, r.Version))
		if err != nil {
			out.close()
			return nil, fmt.Errorf("delivery %s: version %d, which recipe %d needs: %w", d.Config.Name, r.Version, r.Number, err)
		}
		var c Config
		if err := json.Unmarshal(raw, &c); err != nil {
			out.close()
			return nil, fmt.Errorf("delivery %s: version %d: %w", d.Config.Name, r.Version, err)
		}
		if out.older[r.Version], err = w.engine.bind(d, r.Version, c); err != nil {
			out.close()
			return nil, err
		}
	}
	return out, nil
}
