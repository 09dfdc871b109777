package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // boxes have no zone files

	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/columnar"
	"github.com/weirhq/weir/appliance/delivery/prefix"
)

// Limits of a delivery stream. Those of Firehose where it has them.
const (
	MaxBufferBytes    = 128 << 20
	MaxBufferInterval = 900 * time.Second
	MaxActive         = 5000
	defaultBuffer     = 5 << 20
	defaultInterval   = 300 * time.Second
	defaultActive     = 500
	maxPartitionKeys  = 50
)

// Config defines a delivery stream. The zero value of everything but Name,
// Source and Sink is a usable default. Sizes are in bytes.
type Config struct {
	Name   string `json:"name"`
	Source Source `json:"source"`
	Sink   Target `json:"sink"`

	Prefix        string `json:"prefix,omitempty"`         // of data objects; see package prefix
	ErrorPrefix   string `json:"error_prefix,omitempty"`   // of objects with failed records
	TimeZone      string `json:"time_zone,omitempty"`      // IANA name for the times in object names; default UTC
	FileExtension string `json:"file_extension,omitempty"` // replaces the codec's own

	Buffer      Buffer      `json:"buffer"`
	Compression Compression `json:"compression"`

	// The stages, in the order in which they work.
	Deaggregate bool        `json:"deaggregate,omitempty"` // take KPL aggregates apart
	Decompress  *Decompress `json:"decompress,omitempty"`  // gzip inside records
	SubRecords  *SubRecords `json:"sub_records,omitempty"` // several records in one
	Check       Check       `json:"check,omitempty"`       // records that are not what they are to be fail
	Transform   *Transform  `json:"transform,omitempty"`   // a Wasm module
	Partition   *Partition  `json:"partition,omitempty"`   // dynamic partitioning
	Delimiter   string      `json:"delimiter,omitempty"`   // appended to each record, "\n" for lines
	Parquet     *Parquet    `json:"parquet,omitempty"`     // format conversion
	Backup      *Backup     `json:"backup,omitempty"`      // untransformed records too
	ErrorSink   *Target     `json:"error_sink,omitempty"`  // of failed records; default: with the others
	OnFailure   *OnFailure  `json:"on_failure,omitempty"`  // of a RecordSink
	Uplink      Uplink      `json:"uplink"`                // how it shares the line
	Paused      bool        `json:"paused,omitempty"`      // keeps its place, sends nothing
	Attributes  []Attribute `json:"attributes,omitempty"`  // Firehose common attributes of an HTTP endpoint
	Description string      `json:"description,omitempty"` // for people
	Annotations Annotations `json:"annotations,omitempty"` // what a protocol front end keeps with it
}

// Annotations are documents that the Firehose front end keeps with a
// delivery stream; the engine stores them and never looks inside.
type Annotations map[string]json.RawMessage

// Attribute is a name and value sent along with every request.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Start is where in its source a new delivery stream begins.
type Start string

// The starts.
const (
	TrimHorizon Start = "TRIM_HORIZON" // the oldest record kept; default
	Latest      Start = "LATEST"       // records put after the creation
)

// Source is where records come from.
type Source struct {
	// Stream is the stream read. Empty for DirectPut, whose buffer stream
	// is made and scaled by the engine.
	Stream    string   `json:"stream,omitempty"`
	DirectPut bool     `json:"direct_put,omitempty"`
	Start     Start    `json:"start,omitempty"`
	Retention Duration `json:"retention,omitempty"` // of the DirectPut buffer; default 7 days
}

// Target names a sink.
type Target struct {
	// Name is that of a sink in the configuration.
	Name string `json:"name,omitempty"`
	// Bucket replaces the sink's own bucket (s3) or folder (file).
	Bucket string `json:"bucket,omitempty"`
	// Kind and Settings define a sink here instead of by name.
	Kind     string          `json:"kind,omitempty"`
	Settings json.RawMessage `json:"settings,omitempty"`
}

// Buffer holds the buffer hints: an object is sealed at the first of the two.
type Buffer struct {
	SizeBytes int64 `json:"size_bytes"` // source bytes, default 5 MiB, at most 128 MiB
	// Interval since the oldest record came in. nil is the default of 300 s;
	// 0 seals whatever there is as soon as the sink is free.
	Interval *Duration `json:"interval,omitempty"`
}

// Every returns a Buffer.Interval.
func Every(d time.Duration) *Duration {
	e := Duration(d)
	return &e
}

// Compression of data objects.
type Compression struct {
	Format codec.Codec `json:"format,omitempty"` // default UNCOMPRESSED
	Level  int         `json:"level,omitempty"`  // 0: the codec's default
}

// Decompress takes gzip off each record, as CloudWatch Logs puts it on.
type Decompress struct {
	// Extract keeps only the logEvents[].message of a CloudWatch Logs
	// document, one record each.
	Extract bool `json:"extract,omitempty"`
}

// SubRecords splits a record into several: consecutive JSON documents, or
// text between delimiters.
type SubRecords struct {
	Type      string `json:"type"`                // JSON or DELIMITED
	Delimiter []byte `json:"delimiter,omitempty"` // of DELIMITED
}

// Check is what each record has to be.
type Check string

// The checks.
const (
	CheckJSON Check = "JSON"  // one JSON value
	CheckUTF8 Check = "UTF-8" // text
)

// Transform runs a Wasm module over the records.
type Transform struct {
	Module string `json:"module"` // name in the catalogue
	// Retries of a batch that the module fails on, 0 to 300. nil is the default of 3.
	Retries *int `json:"retries,omitempty"`
}

// Limits of Transform.Retries.
const (
	MaxTransformRetries = 300
	defaultRetries      = 3
)

// Partition is dynamic partitioning: records with the same keys share objects.
// With a Query the keys come from gojq; otherwise from the transform.
type Partition struct {
	Query     string `json:"query,omitempty"`      // one jq object: {customer: .customer_id, …}
	MaxActive int    `json:"max_active,omitempty"` // partitions per recipe; default 500
}

// Parquet converts JSON records.
type Parquet struct {
	columnar.Options
	// Schema is declared; when it is empty it is inferred from the records
	// of each object.
	Schema columnar.Schema `json:"schema,omitempty"`
}

// Backup stores the records as they came, beside what becomes of them.
type Backup struct {
	Sink        Target      `json:"sink"`
	Prefix      string      `json:"prefix,omitempty"`
	Compression Compression `json:"compression"`
}

// OnFailure takes over records that a RecordSink won't take.
type OnFailure struct {
	Sink        Target      `json:"sink"`
	ErrorPrefix string      `json:"error_prefix,omitempty"`
	After       Duration    `json:"after"` // of failed attempts; 0 means only what is refused for good
	Compression Compression `json:"compression"`
}

// Uplink is how a delivery stream shares the line with the others.
type Uplink struct {
	// Priority: a stream with a higher one sends first when the line is
	// short. Equal ones share. Default 0.
	Priority int `json:"priority,omitempty"`
	// LivePercent of the stream's share goes to what is coming in now while
	// it works off a backlog. 0 sends strictly in order.
	LivePercent int `json:"live_percent,omitempty"`
	// BytesPerSecond caps what goes to the stream's own sink, a folder included,
	// and to its others over the uplink. 0: no cap.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// Windows are the times of day in which it may send, "22:00-06:00", in
	// TimeZone. Empty: always.
	Windows []string `json:"windows,omitempty"`
	// MonthlyBytes may be sent per calendar month (TimeZone), retries included and
	// headers not; it is never passed. A batch is begun when the rest is enough for
	// what it should take, going by the last one, and cut short when it takes more
	// than there is. The first of a month always is begun. 0: no budget.
	MonthlyBytes int64 `json:"monthly_bytes,omitempty"`
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

var extensionForm = regexp.MustCompile(`^$|^\.[0-9a-z!\-_.*'()]+$`)

// withDefaults fills what the user left out.
func (c Config) withDefaults() Config {
	if c.Source.Start == "" {
		c.Source.Start = TrimHorizon
	}
	if c.Source.DirectPut && c.Source.Retention == 0 {
		c.Source.Retention = Duration(7 * 24 * time.Hour)
	}
	if c.Buffer.SizeBytes == 0 {
		c.Buffer.SizeBytes = defaultBuffer
	}
	if c.Buffer.Interval == nil {
		c.Buffer.Interval = Every(defaultInterval)
	}
	if c.TimeZone == "" {
		c.TimeZone = "UTC"
	}
	if c.Compression.Format == "" {
		c.Compression.Format = codec.Uncompressed
	}
	if c.Transform != nil && c.Transform.Retries == nil {
		t, retries := *c.Transform, defaultRetries
		t.Retries = &retries
		c.Transform = &t
	}
	if c.Partition != nil && c.Partition.MaxActive == 0 {
		p := *c.Partition
		p.MaxActive = defaultActive
		c.Partition = &p
	}
	return c
}

// Validate returns every problem of c, each with the path of its setting, or
// nil. c has its defaults filled in.
func (c *Config) Validate() error {
	var problems []error
	bad := func(path, format string, args ...any) {
		problems = append(problems, fmt.Errorf("delivery %s: %s: %s", c.Name, path, fmt.Sprintf(format, args...)))
	}
	if !nameForm.MatchString(c.Name) {
		bad("name", "%q must be 1 to 64 of a-z A-Z 0-9 _ . -", c.Name)
	}
	c.validateSource(bad)
	c.validateNames(bad)
	c.validateStages(bad)
	c.validateUplink(bad)
	return errors.Join(problems...)
}

type complain func(path, format string, args ...any)

func (c *Config) validateSource(bad complain) {
	switch {
	case c.Source.DirectPut == (c.Source.Stream != ""):
		bad("source", "give either a stream to read or direct_put")
	case c.Source.Start != TrimHorizon && c.Source.Start != Latest:
		bad("source.start", "%q is not TRIM_HORIZON or LATEST", c.Source.Start)
	}
	c.Sink.validate("sink", bad)
	if n := c.Buffer.SizeBytes; n < 1 || n > MaxBufferBytes {
		bad("buffer.size_bytes", "%d is not between 1 and %d, which is %d MiB", n, int64(MaxBufferBytes), MaxBufferBytes>>20)
	}
	if d := c.interval(); d < 0 || d > MaxBufferInterval {
		bad("buffer.interval", "%v is not between 0s and %v", d, MaxBufferInterval)
	}
}

func (t *Target) validate(path string, bad complain) {
	if (t.Name != "") == (t.Kind != "") {
		bad(path, "give either the name of a configured sink or a kind with its settings")
	}
}

func (c *Config) validateNames(bad complain) {
	if _, err := time.LoadLocation(c.TimeZone); err != nil {
		bad("time_zone", "%q is not an IANA time zone", c.TimeZone)
	}
	if len(c.FileExtension) > 128 || !extensionForm.MatchString(c.FileExtension) {
		bad("file_extension", `%q must begin with "." and have only 0-9 a-z ! - _ . * ' ( )`, c.FileExtension)
	}
	data, err := prefix.Parse(c.Prefix, prefix.Data)
	if err != nil {
		bad("prefix", "%v", err)
		return
	}
	if _, err := prefix.Parse(c.ErrorPrefix, prefix.Error); err != nil {
		bad("error_prefix", "%v", err)
	}
	if data.HasExpressions() && c.ErrorPrefix == "" {
		bad("error_prefix", "must be given when prefix has expressions")
	}
	keys := append(data.QueryKeys(), data.ModuleKeys()...)
	switch {
	case len(keys) > 0 && c.Partition == nil:
		bad("prefix", "has partition keys %s, but partition is not configured", strings.Join(keys, ", "))
	case len(keys) == 0 && c.Partition != nil:
		bad("prefix", "must use the partition keys when partition is configured")
	case c.Partition != nil && c.ErrorPrefix == "":
		bad("error_prefix", "must be given with dynamic partitioning")
	case len(data.ModuleKeys()) > 0 && c.Transform == nil:
		bad("prefix", "has keys from a module, but transform is not configured")
	case c.Partition != nil && c.Partition.Query == "" && len(data.QueryKeys()) > 0:
		bad("partition.query", "is needed for the keys %s of prefix", strings.Join(data.QueryKeys(), ", "))
	}
	if c.Partition != nil && c.Partition.Query != "" {
		c.validateQuery(data, bad)
	}
}

func (c *Config) validateQuery(data *prefix.Expression, bad complain) {
	q, err := compileQuery(c.Partition.Query)
	if err != nil {
		bad("partition.query", "%v", err)
		return
	}
	if len(q.names) > maxPartitionKeys {
		bad("partition.query", "has %d keys; the limit is %d", len(q.names), maxPartitionKeys)
	}
	used := data.QueryKeys()
	for _, name := range used {
		if !contains(q.names, name) {
			bad("prefix", "uses key %q, which partition.query does not make (it makes %s)", name, strings.Join(q.names, ", "))
		}
	}
	for _, name := range q.names {
		if !contains(used, name) {
			bad("prefix", "does not use key %q of partition.query; every key must be used", name)
		}
	}
}

// checkPatterns refuses a query whose regular expressions can't work. It isn't part of Validate: one that was taken
// by an older version may be on a way that no record goes, and must not be in the way of a pause.
func (c *Config) checkPatterns(old *Config) error {
	if c.Partition == nil || c.Partition.Query == "" || old.Partition != nil && old.Partition.Query == c.Partition.Query {
		return nil
	}
	if err := checkPatterns(c.Partition.Query); err != nil {
		return fmt.Errorf("%w: delivery %s: partition.query: jq expression %q: %w", ErrInvalid, c.Name, c.Partition.Query, err)
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func (c *Config) validateStages(bad complain) {
	if err := c.Compression.validate(); err != nil {
		bad("compression", "%v", err)
	}
	if s := c.SubRecords; s != nil {
		switch {
		case s.Type != "JSON" && s.Type != "DELIMITED":
			bad("sub_records.type", "%q is not JSON or DELIMITED", s.Type)
		case s.Type == "DELIMITED" && len(s.Delimiter) == 0:
			bad("sub_records.delimiter", "must be given for DELIMITED")
		}
	}
	if c.Check != "" && c.Check != CheckJSON && c.Check != CheckUTF8 {
		bad("check", "%q is not JSON or UTF-8", c.Check)
	}
	if c.ErrorSink != nil {
		c.ErrorSink.validate("error_sink", bad)
	}
	if t := c.Transform; t != nil {
		if t.Module == "" {
			bad("transform.module", "must name a module")
		}
		if n := *t.Retries; n < 0 || n > MaxTransformRetries {
			bad("transform.retries", "%d is not between 0 and %d", n, MaxTransformRetries)
		}
	}
	if p := c.Partition; p != nil && (p.MaxActive < 1 || p.MaxActive > MaxActive) {
		bad("partition.max_active", "%d is not between 1 and %d", p.MaxActive, MaxActive)
	}
	if p := c.Parquet; p != nil {
		if c.Compression.Format != codec.Uncompressed {
			bad("compression", "must be UNCOMPRESSED with parquet, which compresses its pages")
		}
		if c.Delimiter != "" {
			bad("delimiter", "has no meaning in parquet")
		}
		if err := p.Options.Validate(p.Schema); err != nil {
			bad("parquet", "%v", err)
		}
	}
	if b := c.Backup; b != nil {
		b.Sink.validate("backup.sink", bad)
		if e, err := prefix.Parse(b.Prefix, prefix.Data); err != nil {
			bad("backup.prefix", "%v", err)
		} else if len(e.QueryKeys())+len(e.ModuleKeys()) > 0 {
			bad("backup.prefix", "can't have partition keys: a backup is not partitioned")
		}
		if err := b.Compression.validate(); err != nil {
			bad("backup.compression", "%v", err)
		}
	}
	if f := c.OnFailure; f != nil {
		f.Sink.validate("on_failure.sink", bad)
		if _, err := prefix.Parse(f.ErrorPrefix, prefix.Error); err != nil {
			bad("on_failure.error_prefix", "%v", err)
		}
		if err := f.Compression.validate(); err != nil {
			bad("on_failure.compression", "%v", err)
		}
	}
}

func (c Compression) validate() error {
	f, err := codec.Parse(string(c.Format))
	if err != nil {
		return err
	}
	return f.CheckLevel(c.Level)
}

func (c *Config) validateUplink(bad complain) {
	u := c.Uplink
	if u.LivePercent < 0 || u.LivePercent > 90 {
		bad("uplink.live_percent", "%d is not between 0 and 90", u.LivePercent)
	}
	if u.BytesPerSecond < 0 {
		bad("uplink.bytes_per_second", "%d is negative", u.BytesPerSecond)
	}
	if u.MonthlyBytes < 0 {
		bad("uplink.monthly_bytes", "%d is negative", u.MonthlyBytes)
	}
	if _, err := parseWindows(u.Windows); err != nil {
		bad("uplink.windows", "%v", err)
	}
}

// interval is the buffer interval of a validated config.
func (c *Config) interval() time.Duration { return time.Duration(*c.Buffer.Interval) }

// location is the zone of a validated config.
func (c *Config) location() *time.Location {
	l, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		return time.UTC
	}
	return l
}
