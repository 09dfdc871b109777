package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/delivery/prefix"
)

// forwards says whether stored frames can be the object as they are.
func (b *binding) forwards() bool {
	c := &b.config
	return c.Compression.Format == codec.Zstd && c.Compression.Level == 0 && c.Transform == nil && c.Partition == nil &&
		c.Delimiter == "" && c.Parquet == nil && !c.Deaggregate && c.Decompress == nil && c.SubRecords == nil && c.Check == ""
}

// inJSON says whether records go out in base64, inside JSON.
func (b *binding) inJSON() bool {
	_, ok := b.sink.(RecordSink)
	return ok
}

// memory is what one attempt at a recipe of this binding holds at most, with so many
// goroutines that compress, and so many columns met in Parquet.
func (b *binding) memory(r *Recipe, workers int, columns int64) int64 {
	most := b.config.Compression.Format.Memory(workers)
	if f := b.config.OnFailure; f != nil {
		most = max(most, f.Compression.Format.Memory(workers))
	}
	if k := b.config.Backup; k != nil {
		most = max(most, k.Compression.Format.Memory(workers))
	}
	n := int64(partBytes + most + 1<<20)
	if c := &b.config; c.Partition != nil {
		assigned := r.Records()
		if c.Deaggregate || c.SubRecords != nil || c.Decompress != nil || c.Transform != nil {
			assigned = maxAssigned // a record may be many
		}
		n += arenaBytes + 2*int64(min(assigned, maxAssigned))
	}
	if b.config.Transform != nil {
		n += 2 * batchBytes
	}
	if p := b.config.Parquet; p != nil {
		n += rowGroupBytes + columnBytes*max(int64(p.Schema.Leaves())-freeColumns, columns-freeColumns, 0)
	}
	if b.inJSON() {
		n += requestBytes
	}
	return n
}

// workers is how many goroutines may compress so that an attempt takes no more than most,
// of those there are. One may.
func (b *binding) workers(r *Recipe, there int, columns, most int64) int {
	for there > 1 && b.memory(r, there, columns) > most {
		there--
	}
	return there
}

const (
	// rowGroupBytes is the JSON that may go into a Parquet row group before it is written,
	// and more than its columns, mostly encoded and compressed, hold of it: up to
	// freeColumns. Each one beyond takes columnBytes.
	rowGroupBytes = 4 << 20
	freeColumns   = 16
	columnBytes   = 32 << 10
	// requestBytes is a request to a RecordSink once more, in base64, and its list of records.
	requestBytes = partBytes*4/3 + 1<<20
)

// job is a recipe on its way: what has been learnt and done about it. It lives
// until the recipe is finished or the worker starts anew; everything in it can
// be found out again.
type job struct {
	engine  *Engine
	def     *definition
	bind    *binding
	recipe  *Recipe
	taker   *taker
	spent   func(ctx context.Context, n int) error
	stats   *stats
	pipe    *pipeline
	attempt int
	before  bool // it was sealed by an earlier run, so attempts may have been made
	clear   bool // no attempt can have stored anything

	parts   map[string]bool // parts that are acknowledged or empty
	torn    map[string]int  // torn answers in a row, by part
	rows    []Manifest      // of the acknowledged ones
	kinds   map[string]bool // failures met
	plan    *plan           // partitions, once counted
	schemas converters
	workers int   // that may compress
	columns int64 // of Parquet that the attempt's memory was counted for

	// Of the monthly budget. A request that failed may still be read from, so these are changed by its holder.
	reserved int64        // for the attempt under way, and not sent
	sent     atomic.Int64 // by the attempt under way, of what is not acknowledged
	least    int64        // that an attempt takes, as one found out that was cut short
	short    atomic.Bool  // the attempt under way was cut short

	cost int64 // bytes of it that the acknowledged parts took

	chunk     int // of a RecordSink: next request
	chunkDone int // records of it that are acknowledged
	given     []chunkRange
	since     time.Time // first failure
}

// run makes one attempt at everything that is still to do.
func (j *job) run(ctx context.Context) error {
	if err := j.open(); err != nil {
		return err
	}
	var err error
	switch sink := j.bind.sink.(type) {
	case ObjectSink:
		if j.bind.config.Partition != nil {
			err = j.partitions(ctx, sink)
		} else {
			err = j.whole(ctx, sink)
		}
	case RecordSink:
		err = j.requests(ctx, sink)
	default:
		err = fmt.Errorf("BUG: sink %T takes neither objects nor records", sink)
	}
	if err != nil {
		return err
	}
	if err := j.failedObjects(ctx); err != nil {
		return err
	}
	return j.backupObject(ctx)
}

// open builds the pipeline with the module that the recipe names.
func (j *job) open() error {
	if j.pipe != nil {
		return nil
	}
	p := &pipeline{config: &j.bind.config, stream: j.bind.stream, query: j.bind.query, modKeys: j.bind.data.ModuleKeys(), read: &j.stats.read}
	if j.bind.transform != nil {
		t, err := j.bind.transform(j.recipe.Module)
		if err != nil {
			return &SinkError{Code: "Transform.ModuleUnavailable", Refused: true, Err: err}
		}
		p.transform = t
	}
	j.pipe = p
	j.parts, j.kinds, j.torn = map[string]bool{}, map[string]bool{}, map[string]int{}
	j.schemas = newConverters()
	return nil
}

func (j *job) renderer() *renderer {
	return &renderer{workers: j.workers, at: j.recipe.Oldest}
}

// good is the source of the records that came through all stages.
func (j *job) good(ctx context.Context, emit func(data []byte) error) error {
	_, err := j.pipe.run(ctx, j.recipe, stageFunc(func(it *item) error {
		if it.fail != nil {
			j.kinds[it.fail.kind] = true
			return nil
		}
		return emit(it.data)
	}))
	return err
}

// whole stores all records of the recipe as one object.
func (j *job) whole(ctx context.Context, sink ObjectSink) error {
	o := objectSpec{part: "data", sink: sink, target: "sink", expression: j.bind.data, extension: j.extension()}
	switch {
	case j.bind.forwards():
		o.contentType = codec.Zstd.ContentType()
		f := &forward{stream: j.bind.stream, level: j.bind.config.Compression.Level}
		o.cheap = true
		o.render = func(ctx context.Context, w io.Writer) (counts, error) {
			n, err := f.render(ctx, w, j.recipe)
			j.stats.read.Add(n.bytes)
			return n, err
		}
	default:
		o.contentType = j.contentType()
		o.cheap = j.bind.config.Compression.Format == codec.Uncompressed && j.bind.config.Transform == nil && j.bind.config.Parquet == nil
		o.render = j.dataRender("data", j.good)
	}
	return j.put(ctx, &o)
}

// dataRender renders the records of from as a data object.
func (j *job) dataRender(part string, from source) func(ctx context.Context, w io.Writer) (counts, error) {
	if c := &j.bind.config; c.Parquet == nil {
		return func(ctx context.Context, w io.Writer) (counts, error) {
			return j.renderer().plain(ctx, w, c.Compression, []byte(c.Delimiter), j.suffix(part), from)
		}
	}
	return func(ctx context.Context, w io.Writer) (counts, error) {
		conv, err := j.converter(ctx, part, from)
		if err != nil {
			return counts{}, err
		}
		return conv.render(ctx, w, from, func() { j.kinds[conversionFailed] = true })
	}
}

func (j *job) extension() string {
	c := &j.bind.config
	switch {
	case c.FileExtension != "":
		return c.FileExtension
	case c.Parquet != nil:
		return ".parquet"
	}
	return c.Compression.Format.Extension()
}

func (j *job) contentType() string {
	if j.bind.config.Parquet != nil {
		return "application/vnd.apache.parquet"
	}
	return j.bind.config.Compression.Format.ContentType()
}

// objectSpec is one object to be put.
type objectSpec struct {
	part        string
	sink        ObjectSink
	target      string // for the manifest: sink, backup, failure, error_sink
	expression  *prefix.Expression
	keys        map[string]string // partition keys
	errorType   string
	extension   string
	contentType string
	cheap       bool
	render      func(ctx context.Context, w io.Writer) (counts, error)
	runs        *[]Range // of failed records, filled by render
}

// suffix is the part of an object's name that Firehose fixes.
func (j *job) suffix(part string) string {
	id := j.def.identity(j.recipe, part)
	at := j.recipe.Oldest.In(j.bind.zone).Format("2006-01-02-15-04-05")
	return fmt.Sprintf("%s-%d-%s-%s", j.def.Config.Name, j.recipe.Version, at, objectUUID(j.recipe.Number, id))
}

// key is the name of an object: the same each time.
func (j *job) key(o *objectSpec) (string, error) {
	id := j.def.identity(j.recipe, o.part)
	before, err := o.expression.Evaluate(prefix.Values{
		Instant: j.recipe.Oldest.In(j.bind.zone), ErrorType: o.errorType, Keys: o.keys,
		Random: func(i int) string { return randomString(id, i) },
	})
	if err != nil {
		return "", &SinkError{Code: "Delivery.NameTooLong", Refused: true, BadName: true, Err: err}
	}
	return before + j.suffix(o.part) + o.extension, nil
}

// put stores one object and notes it. Parts that are done are passed over.
func (j *job) put(ctx context.Context, o *objectSpec) error {
	if j.parts[o.part] {
		return nil
	}
	key, err := j.key(o)
	if err != nil {
		return err
	}
	buffer, err := regions.take()
	if err != nil {
		return err
	}
	defer regions.give(buffer)
	var n counts
	var ours *SinkError // rendering failed, whatever the sink makes of that
	rendered := false
	throttle := j.throttle(ctx, o.sink, o.target)
	stored, err := o.sink.PutObject(ctx, &Object{
		Key: key, ContentType: o.contentType, Cheap: o.cheap, Buffer: buffer[:0],
		Metadata: map[string]string{RecipeKey: j.def.identity(j.recipe, o.part), RangesKey: j.recipe.shortRanges()},
		MayExist: j.before || j.attempt > 0, Replace: j.torn[o.part] >= TornAfter,
		Render: func(w io.Writer) (err error) {
			ours = nil
			n, err = o.render(ctx, w)
			errors.As(err, &ours)
			rendered = err == nil
			return err
		},
		Throttle: throttle,
	})
	if errors.Is(err, ErrNoRecords) {
		j.parts[o.part] = true
		return nil
	}
	if err != nil {
		if ours != nil {
			err = ours
		}
		s := sinkError(err)
		if !s.Refused {
			j.clear = false
		}
		if s.Torn {
			j.torn[o.part]++
		} else if j.torn[o.part] < TornAfter {
			delete(j.torn, o.part)
		}
		return err
	}
	j.clear = false
	if !rendered {
		// It was there already, by a run that ended before the recipe did. Which records failed, and so
		// which objects there are to be besides, only rendering tells.
		if n, err = o.render(ctx, io.Discard); err != nil && !errors.Is(err, ErrNoRecords) {
			return err
		}
	}
	j.parts[o.part] = true
	j.sent.Store(0)
	if o.sink.Metered() || o.target == "sink" {
		j.cost += stored.Bytes
	}
	row := Manifest{
		Part: o.part, Key: key, Target: o.target, Number: j.recipe.Number, Version: j.recipe.Version, Ranges: j.recipe.Ranges,
		Records: n.records, Bytes: n.bytes, Stored: stored.Bytes, Duplicate: stored.Duplicate, Oldest: j.recipe.Oldest,
		Sealed: j.recipe.Sealed, Delivered: j.engine.clock.Now().UTC(), Module: j.recipe.Module, Attempts: j.attempt + 1,
	}
	if o.runs != nil {
		row.Failed = *o.runs
	}
	j.rows = append(j.rows, row)
	return nil
}

// throttle wraps what goes to a sink. One that is metered shares the box's uplink.
// What the delivery stream itself was given, a cap and a budget, holds for its
// own sink whichever it is, and for the others when they are metered.
func (j *job) throttle(ctx context.Context, sink Sink, target string) func(io.Reader) io.Reader {
	t := throttled{ctx: ctx, link: j.engine.link, taker: j.taker, count: j.spent}
	if !sink.Metered() {
		u := &j.def.Config.Uplink
		if target != "sink" || u.BytesPerSecond == 0 && u.MonthlyBytes == 0 {
			return func(r io.Reader) io.Reader { return r }
		}
		t.link, t.taker = j.taker.before, j.taker.account
	} else {
		t.count = func(ctx context.Context, n int) error {
			j.stats.uplink.Add(int64(n))
			return j.spent(ctx, n)
		}
	}
	return func(r io.Reader) io.Reader {
		one := t
		one.r = r
		return &one
	}
}

// shortRanges is the object's RangesKey; S3 gives all metadata 2 KiB.
func (r *Recipe) shortRanges() string {
	s := r.ranges()
	if len(s) > 1024 {
		s = s[:strings.LastIndexByte(s[:1000], ' ')] + " …"
	}
	return s
}

// failedObjects stores the records that failed, one object for each kind.
func (j *job) failedObjects(ctx context.Context) error {
	kinds := make([]string, 0, len(j.kinds))
	for k := range j.kinds {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	sink, expression, target := ObjectSink(nil), j.bind.errors, "sink"
	if s, ok := j.bind.sink.(ObjectSink); !ok {
		sink, expression, target = j.bind.failure, j.bind.failures, "failure"
	} else if sink = s; j.bind.errorSink != nil {
		sink, target = j.bind.errorSink, "error_sink"
	}
	for _, kind := range kinds {
		if sink == nil {
			return fmt.Errorf("BUG: delivery %s has %s records and no place for them", j.def.Config.Name, kind)
		}
		var runs []Range
		err := j.put(ctx, j.packed(&objectSpec{
			part: "error:" + kind, sink: sink, target: target, expression: expression, errorType: kind,
			contentType: "application/json", runs: &runs,
			render: func(ctx context.Context, w io.Writer) (n counts, err error) {
				n, runs, err = failed(ctx, w, j.pipe, j.recipe, kind, j.failures())
				return n, err
			},
		}))
		if err != nil {
			return err
		}
	}
	return nil
}

// failures returns a function that is called with the items of the recipe in
// order and says why each failed, or nil.
func (j *job) failures() func(it *item) *failure {
	ordinal := -1
	return func(it *item) *failure {
		ordinal++
		if it.fail != nil {
			return it.fail
		}
		part := "data"
		if j.plan != nil {
			n := j.plan.at(ordinal, it)
			if n == unassigned {
				return &failure{
					kind: processingFailed, code: "DynamicPartitioning.ActivePartitionLimitExceeded", attempts: 1,
					message: fmt.Sprintf("more than %d partitions are active", j.bind.config.Partition.MaxActive),
				}
			}
			p := j.plan.partitions[n]
			if p.bad != "" {
				return &failure{kind: processingFailed, code: "DynamicPartitioning.InvalidObjectName", message: p.bad, attempts: 1}
			}
			part = p.part
		}
		if err := j.schemas.check(part, it.data); err != nil {
			return &failure{kind: conversionFailed, code: "DataFormatConversion.ParseError", message: err.Error(), attempts: 1}
		}
		return nil
	}
}

// packed has an object for the failure target compressed as that is set.
func (j *job) packed(o *objectSpec) *objectSpec {
	if o.target != "failure" {
		return o
	}
	c, render := j.bind.config.OnFailure.Compression, o.render
	if c.Format == "" || c.Format == codec.Uncompressed {
		return o
	}
	o.extension, o.contentType = c.Format.Extension(), c.Format.ContentType()
	o.render = func(ctx context.Context, w io.Writer) (counts, error) {
		lazy := &lazyWriter{open: func() (io.WriteCloser, error) {
			return c.Format.NewWriter(w, codec.Options{Level: c.Level, Workers: j.workers, Entry: j.suffix(o.part), Modified: j.recipe.Oldest})
		}}
		n, err := render(ctx, lazy)
		return n, errors.Join(err, lazy.close(err == nil))
	}
	return o
}

// backupObject stores the source records as they came.
func (j *job) backupObject(ctx context.Context) error {
	b := j.bind.config.Backup
	if b == nil {
		return nil
	}
	raw := &pipeline{config: &Config{}, stream: j.bind.stream, read: &j.stats.read}
	return j.put(ctx, &objectSpec{
		part: "backup", sink: j.bind.backup, target: "backup", expression: j.bind.backups,
		extension: b.Compression.Format.Extension(), contentType: b.Compression.Format.ContentType(),
		render: func(ctx context.Context, w io.Writer) (counts, error) {
			return j.renderer().plain(ctx, w, b.Compression, nil, j.suffix("backup"), func(ctx context.Context, emit func([]byte) error) error {
				_, err := raw.run(ctx, j.recipe, stageFunc(func(it *item) error { return emit(it.data) }))
				return err
			})
		},
	})
}

// Manifest is what is kept of an object, or of a request, that was delivered.
type Manifest struct {
	Part      string    `json:"part"` // data, p:…, error:…, backup, request:n
	Key       string    `json:"key"`
	Target    string    `json:"target"`
	Number    uint64    `json:"recipe"`
	Version   int       `json:"version"`
	Ranges    []Range   `json:"ranges"`
	Failed    []Range   `json:"failed,omitempty"` // records in an error object
	Records   int64     `json:"records"`
	Bytes     int64     `json:"bytes"`  // before compression
	Stored    int64     `json:"stored"` // as stored or sent
	Duplicate bool      `json:"duplicate,omitempty"`
	Attempts  int       `json:"attempts"`
	Oldest    time.Time `json:"oldest"`
	Sealed    time.Time `json:"sealed"`
	Delivered time.Time `json:"delivered"`
	Module    string    `json:"module,omitempty"`
	Redriven  bool      `json:"redriven,omitempty"`
}
