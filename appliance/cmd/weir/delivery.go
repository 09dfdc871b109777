package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
)

type deliveryCmd struct {
	Create   deliveryCreateCmd   `cmd:"" help:"Make a delivery stream: from a stream, through a module, to a sink."`
	List     deliveryListCmd     `cmd:"" help:"List the delivery streams and how far they are."`
	Describe deliveryDescribeCmd `cmd:"" help:"Show one delivery stream."`
	Update   deliveryUpdateCmd   `cmd:"" help:"Change a delivery stream to what a file says."`
	Delete   deliveryDeleteCmd   `cmd:"" help:"Delete a delivery stream. What it delivered stays."`
	Pause    deliveryPauseCmd    `cmd:"" help:"Send nothing until resume; the place is kept."`
	Resume   deliveryResumeCmd   `cmd:"" help:"Go on after a pause."`
	Flush    deliveryFlushCmd    `cmd:"" help:"Send what is gathered now, whatever the buffer hints say."`
	Test     deliveryTestCmd     `cmd:"" help:"Try the sinks, leave nothing there, and say what was tried and what they guarantee."`
	Stats    deliveryStatsCmd    `cmd:"" help:"Show the counters of a delivery stream."`
	Objects  deliveryObjectsCmd  `cmd:"" help:"List what was delivered last."`
	Where    deliveryWhereCmd    `cmd:"" help:"Tell in which object a record is, or why not yet."`
	Redrive  deliveryRedriveCmd  `cmd:"" help:"Send the records that failed once more."`
}

func deliveryPath(name string, more ...string) string {
	return "deliveries/" + url.PathEscape(name) + strings.Join(more, "")
}

type deliveryCreateCmd struct {
	Name        string        `arg:"" help:"Name of the delivery stream."`
	Stream      string        `help:"Stream to read; a direct-put buffer of its own if not given." placeholder:"STREAM"`
	To          string        `help:"Where to: file:///folder, s3://bucket, sink:NAME of the configuration." placeholder:"URL"`
	Endpoint    string        `name:"s3-endpoint" help:"With s3://: URL of the store, if it is not AWS." placeholder:"URL"`
	S3Region    string        `name:"s3-region" help:"With s3://: region." placeholder:"REGION"`
	Prefix      string        `help:"Prefix of object names, Firehose expressions allowed." placeholder:"PREFIX"`
	ErrorPrefix string        `help:"The same of objects with records that failed; needed when --prefix has expressions, such as failed/!{firehose:error-output-type}/." placeholder:"PREFIX"`
	Size        string        `help:"Buffer hint: send when so much has come in." default:"5MiB"`
	Interval    time.Duration `help:"Buffer hint: send when the oldest record has waited so long." default:"60s"`
	Compression string        `help:"zstd, gzip, zip, snappy, hadoop_snappy or none; zstd if not given, and none for a sink that takes records." placeholder:"FORMAT"`
	Module      string        `help:"Module that transforms the records." placeholder:"MODULE"`
	Lines       *bool         `help:"End each record with a newline, for which stored blocks are unpacked and packed anew; so it is if not given, but for a sink that takes records. With --no-lines and zstd they are sent as they are stored." negatable:""`
	Latest      bool          `help:"Begin with records that come from now on, not with the oldest."`
	File        string        `help:"Read the whole definition from a JSON file instead; - is standard input." placeholder:"FILE"`
}

func (c *deliveryCreateCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var cfg delivery.Config
	if c.File != "" {
		if err := readJSON(a, c.File, &cfg); err != nil {
			return err
		}
		cfg.Name = c.Name
	} else if cfg, err = c.config(a); err != nil {
		return err
	}
	var out delivery.Info
	if err := b.Call(a.ctx, "POST", "deliveries"+c.left(), cfg, &out); err != nil {
		return err
	}
	c.warn(a, b)
	return a.emit(out, func(w io.Writer) { describeDelivery(w, &out) })
}

// tryTime is how long a new delivery stream's sink may take to answer before
// its maker is told that it doesn't.
const tryTime = 10 * time.Second

// warn tries the sink and the module of the delivery stream that was just made, and says so when it
// can't deliver. That is no error: a box may be set up before its line is.
func (c *deliveryCreateCmd) warn(a *app, b *remote.Box) {
	ctx, cancel := context.WithTimeout(a.ctx, tryTime)
	defer cancel()
	var err error
	a.progress("test").during(c.Name, func() { err = b.Call(ctx, "POST", deliveryPath(c.Name, "/test"), nil, new(admin.Probed)) })
	switch {
	case a.ctx.Err() != nil || err == nil:
		return
	case ctx.Err() != nil:
		err = fmt.Errorf("it did not answer within %v", tryTime)
	}
	text := fmt.Sprintf("%s is made, and can't deliver yet: %v. Records wait until it can", c.Name, err)
	if a.JSON {
		line, _ := json.Marshal(map[string]string{"warning": text, "try": "weir delivery test " + c.Name}) // strings only
		fmt.Fprintf(a.err, "%s\n", line)
		return
	}
	fmt.Fprintf(a.err, "Warning: %s.\nTry: weir delivery test %s\n", text, c.Name)
}

// left names what is left to the box, which knows what the sink takes.
func (c *deliveryCreateCmd) left() string {
	left := url.Values{}
	if c.File == "" && c.Compression == "" {
		left.Add("default", "compression")
	}
	if c.File == "" && c.Lines == nil {
		left.Add("default", "delimiter")
	}
	if len(left) == 0 {
		return ""
	}
	return "?" + left.Encode()
}

// config makes the definition from the flags.
func (c *deliveryCreateCmd) config(a *app) (delivery.Config, error) {
	cfg := delivery.Config{Name: c.Name, Prefix: c.Prefix, ErrorPrefix: c.ErrorPrefix, Source: delivery.Source{Stream: c.Stream, DirectPut: c.Stream == ""}}
	if c.Latest {
		cfg.Source.Start = delivery.Latest
	}
	var err error
	if cfg.Sink, err = c.target(a); err != nil {
		return cfg, err
	}
	n, err := parseSize("--size", c.Size)
	if err == nil && n == 0 { // which would stand for the default
		err = &fault.Error{Class: fault.Usage, Subject: "--size", Value: c.Size, Expect: "expecting 1B or more", Try: "weir delivery create --help"}
	}
	if err != nil {
		return cfg, err
	}
	cfg.Buffer = delivery.Buffer{SizeBytes: n, Interval: delivery.Every(c.Interval)}
	name := c.Compression
	if name == "none" {
		name = ""
	}
	if cfg.Compression.Format, err = codec.Parse(name); err != nil {
		return cfg, &fault.Error{Class: fault.Usage, Subject: "--compression", Err: err}
	}
	if c.Module != "" {
		cfg.Transform = &delivery.Transform{Module: c.Module}
	}
	if c.Lines != nil && *c.Lines {
		cfg.Delimiter = "\n"
	}
	return cfg, nil
}

// target reads --to.
func (c *deliveryCreateCmd) target(a *app) (delivery.Target, error) {
	if name, ok := strings.CutPrefix(c.To, "sink:"); ok {
		return delivery.Target{Name: name}, nil
	}
	u, err := url.Parse(c.To)
	if err != nil || c.To == "" {
		return delivery.Target{}, &fault.Error{Class: fault.Usage, Subject: "--to", Value: fmt.Sprintf("%q", c.To), Expect: "expecting file:///folder, s3://bucket or sink:NAME", Try: "weir delivery create --help"}
	}
	settings := map[string]any{}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.Path == "" {
			return delivery.Target{}, &fault.Error{Class: fault.Usage, Subject: "--to", Value: c.To, Expect: "expecting a whole path behind file://, such as " + (&url.URL{Scheme: "file", Path: absolute(u.Host + u.Path)}).String()}
		}
		settings["dir"], settings["create"] = u.Path, true
	case "s3":
		if within := strings.Trim(u.Path, "/"); within != "" {
			return delivery.Target{}, &fault.Error{Class: fault.Usage, Subject: "--to", Value: c.To, Expect: "expecting a bucket alone", Try: "--to s3://" + u.Host + " --prefix " + within + "/"}
		}
		settings["bucket"] = u.Host
		for name, value := range map[string]string{"endpoint": c.Endpoint, "region": c.S3Region, "access_key_id": a.env("AWS_ACCESS_KEY_ID"), "secret_access_key": a.env("AWS_SECRET_ACCESS_KEY"), "session_token": a.env("AWS_SESSION_TOKEN")} {
			if value != "" {
				settings[name] = value
			}
		}
	default:
		return delivery.Target{}, &fault.Error{Class: fault.Usage, Subject: "--to", Value: c.To, Expect: "expecting file:///folder, s3://bucket or sink:NAME; other kinds of sinks are named in the configuration, under sinks"}
	}
	data, err := json.Marshal(settings)
	return delivery.Target{Kind: u.Scheme, Settings: data}, err
}

// readJSON reads a file, or standard input, strictly.
func readJSON(a *app, name string, v any) error {
	in := a.in
	if name != "-" {
		f, err := openFile(name, "a file with a definition, as weir delivery describe NAME --json prints it")
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if name == "-" {
		name = "standard input"
	}
	dec := json.NewDecoder(in)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return &fault.Error{Class: fault.Usage, Subject: name, Expect: "not a definition", Err: err, Try: "weir delivery describe NAME --json, for the form"}
	}
	return nil
}

type deliveryListCmd struct{}

func (c *deliveryListCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Deliveries
	if err := b.Call(a.ctx, "GET", "deliveries", nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		if len(out.Deliveries) == 0 {
			fmt.Fprintln(w, "No delivery streams. Try: weir delivery create NAME --stream STREAM --to file:///FOLDER")
			return
		}
		t := newTable("DELIVERY", "FROM", "TO", "STATE", "LAG ", "OLDEST ", "OBJECTS ", "RECORDS ", "FAILED ", "SENT ")
		for i := range out.Deliveries {
			d := &out.Deliveries[i]
			from := d.Source.Stream
			if d.Source.DirectPut {
				from = "direct put"
			}
			t.add(d.Name, from, targetText(&d.Sink), deliveryState(d), count(d.Stats.LagRecords), seconds(d.Stats.OldestAge), count(d.Stats.Objects), count(d.Stats.Records), count(d.Stats.Failed), size(d.Stats.Stored))
		}
		t.write(w)
	})
}

func targetText(t *delivery.Target) string {
	if t.Name != "" {
		return t.Name
	}
	var s struct{ Dir, Bucket, URL string }
	_ = json.Unmarshal(t.Settings, &s) // what is not there is not shown
	for _, v := range []string{t.Bucket, s.Bucket, s.Dir, s.URL} {
		if v != "" {
			return t.Kind + " " + v
		}
	}
	return t.Kind
}

// deliveryState says in a word or a few what a delivery stream does.
func deliveryState(d *delivery.Info) string {
	if d.Paused {
		return "paused"
	}
	return workState(&d.Stats)
}

func workState(s *delivery.Stats) string {
	switch {
	case s.Circuit != "closed" && s.Waiting != "paused":
		return "failing"
	case s.Waiting != "":
		return s.Waiting
	}
	return "running"
}

func seconds(s float64) string {
	if s <= 0 {
		return "-"
	}
	return span(time.Duration(s * float64(time.Second)))
}

type deliveryDescribeCmd struct {
	Name string `arg:"" help:"Delivery stream."`
}

func (c *deliveryDescribeCmd) Run(a *app) error {
	return deliveryInfo(a, "GET", deliveryPath(c.Name), describeDelivery)
}

// deliveryInfo makes one call that answers with a delivery stream.
func deliveryInfo(a *app, method, path string, human func(io.Writer, *delivery.Info)) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out delivery.Info
	if err := b.Call(a.ctx, method, path, nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) { human(w, &out) })
}

func describeDelivery(w io.Writer, d *delivery.Info) {
	from := "stream " + d.Source.Stream
	if d.Source.DirectPut {
		from = "direct put"
	}
	fmt.Fprintf(w, "%s: %s -> ", d.Name, from)
	if d.Transform != nil {
		fmt.Fprintf(w, "module %s -> ", d.Transform.Module)
	}
	fmt.Fprintf(w, "%s, version %d, %s\n", targetText(&d.Sink), d.Version, deliveryState(d))
	interval := 300 * time.Second
	if d.Config.Buffer.Interval != nil {
		interval = time.Duration(*d.Config.Buffer.Interval)
	}
	format := string(d.Compression.Format)
	if format == "" {
		format = "UNCOMPRESSED"
	}
	fmt.Fprintf(w, "  objects    of %s or after %s, %s\n", size(d.Config.Buffer.SizeBytes), span(interval), format)
	printDeliveryStats(w, &d.Stats)
}

func printDeliveryStats(w io.Writer, s *delivery.Stats) {
	fmt.Fprintf(w, "  delivered  %s in %s, %s, stored as %s\n", plural(s.Records, "record"), plural(s.Objects, "object"), size(s.Bytes), size(s.Stored))
	lag := fmt.Sprintf("%s, %s, oldest %s", plural(s.LagRecords, "record"), size(s.LagBytes), seconds(s.OldestAge))
	if !s.Finish.IsZero() && s.LagRecords > 0 {
		lag += ", done in about " + span(time.Until(s.Finish))
	}
	fmt.Fprintf(w, "  waiting    %s\n", lag)
	if s.Failed+s.Lost+s.Duplicates > 0 {
		fmt.Fprintf(w, "  besides    %s failed, %s lost to retention, %s found to be there already\n", count(s.Failed), count(s.Lost), plural(s.Duplicates, "object"))
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Retries)) {
		n := s.Retries[reason]
		fmt.Fprintf(w, "  retried    %s: %s\n", plural(n, "time"), reason)
	}
	if e := s.LastError; e != nil {
		fmt.Fprintf(w, "  last error %s: %s\n", e.Code, e.Error)
		fmt.Fprintf(w, "             %s in a row since %s", plural(int64(e.Failures), "attempt"), e.Since.UTC().Format(time.RFC3339))
		if !e.Next.IsZero() {
			fmt.Fprintf(w, ", next at %s", e.Next.UTC().Format(time.RFC3339))
		}
		fmt.Fprintln(w)
	}
	if s.BudgetLeft != nil {
		fmt.Fprintf(w, "  this month %s sent, %s left\n", size(s.MonthlyBytes), size(*s.BudgetLeft))
	}
}

type deliveryUpdateCmd struct {
	Name string `arg:"" help:"Delivery stream."`
	File string `arg:"" help:"JSON file with its definition, as describe --json prints it; - is standard input."`
}

func (c *deliveryUpdateCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var in delivery.Info
	if err := readJSON(a, c.File, &in); err != nil {
		return err
	}
	var out delivery.Info
	if err := b.Call(a.ctx, "PUT", deliveryPath(c.Name), admin.DeliveryUpdate{Version: in.Version, Config: in.Config}, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) { describeDelivery(w, &out) })
}

type deliveryDeleteCmd struct {
	Name string `arg:"" help:"Delivery stream."`
	Yes  bool   `help:"Don't ask." short:"y"`
}

func (c *deliveryDeleteCmd) Run(a *app) error {
	if err := a.confirm(c.Yes, "Delete the delivery stream "+c.Name+"? What it has not delivered stays undelivered."); err != nil {
		return err
	}
	return deliveryInfo(a, "DELETE", deliveryPath(c.Name), func(w io.Writer, _ *delivery.Info) { fmt.Fprintf(w, "Delivery stream %s is deleted.\n", c.Name) })
}

type deliveryPauseCmd struct {
	Name string `arg:"" help:"Delivery stream."`
}

func (c *deliveryPauseCmd) Run(a *app) error {
	return deliveryInfo(a, "POST", deliveryPath(c.Name, "/pause"), describeDelivery)
}

type deliveryResumeCmd struct {
	Name string `arg:"" help:"Delivery stream."`
}

func (c *deliveryResumeCmd) Run(a *app) error {
	return deliveryInfo(a, "POST", deliveryPath(c.Name, "/resume"), describeDelivery)
}

type deliveryFlushCmd struct {
	Name string        `arg:"" help:"Delivery stream."`
	Wait time.Duration `help:"Wait until everything is delivered, so long at most." placeholder:"60s"`
}

func (c *deliveryFlushCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	bar := a.progress("flush " + c.Name)
	defer bar.done()
	var out delivery.Info
	for deadline := time.Now().Add(c.Wait); ; {
		// Only what is not sealed needs to be asked for again; a sink that fails
		// is tried at once by the first flush, and then when its time comes.
		method, path := "POST", deliveryPath(c.Name, "/flush")
		if out.Stats.LastError != nil {
			method, path = "GET", deliveryPath(c.Name)
		}
		out = delivery.Info{} // an answer leaves out what is no more, such as the last error
		if err := b.Call(a.ctx, method, path, nil, &out); err != nil {
			return err
		}
		if c.Wait == 0 || (out.Stats.LagRecords == 0 && out.Stats.Pending == 0) {
			break
		}
		if time.Now().After(deadline) {
			return &fault.Error{Class: fault.Runtime, Subject: c.Name, Value: plural(out.Stats.LagRecords, "record"), Expect: "still not delivered after " + c.Wait.String() + "; the delivery stream is " + deliveryState(&out), Try: "weir delivery describe " + c.Name}
		}
		bar.step(out.Stats.Records, out.Stats.Records+int64(out.Stats.LagRecords), "records")
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	bar.done()
	return a.emit(out, func(w io.Writer) { describeDelivery(w, &out) })
}

type deliveryTestCmd struct {
	Name string `arg:"" help:"Delivery stream."`
}

func (c *deliveryTestCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Probed
	a.progress("test").during(c.Name, func() { err = b.Call(a.ctx, "POST", deliveryPath(c.Name, "/test"), nil, &out) })
	if err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		for _, path := range slices.Sorted(maps.Keys(out.Guarantees)) {
			fmt.Fprintf(w, "%s: %s; guarantees %s\n", path, out.Tried[path], out.Guarantees[path])
		}
	})
}

type deliveryStatsCmd struct {
	Name string `arg:"" help:"Delivery stream."`
}

func (c *deliveryStatsCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out delivery.Info
	if err := b.Call(a.ctx, "GET", deliveryPath(c.Name), nil, &out); err != nil {
		return err
	}
	return a.emit(out.Stats, func(w io.Writer) { printDeliveryStats(w, &out.Stats) })
}

type deliveryObjectsCmd struct {
	Name  string `arg:"" help:"Delivery stream."`
	Limit int    `default:"20" help:"So many at most, the newest first."`
}

func (c *deliveryObjectsCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Objects
	if err := b.Call(a.ctx, "GET", deliveryPath(c.Name, fmt.Sprintf("/objects?limit=%d", c.Limit)), nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		t, now := newTable("OBJECT", "RECORDS ", "BYTES ", "STORED ", "DELIVERED ", "ATTEMPTS "), time.Now()
		for _, o := range out.Objects {
			t.add(o.Key, count(o.Records), size(o.Bytes), size(o.Stored), ago(o.Delivered, now), count(o.Attempts))
		}
		t.write(w)
	})
}

type deliveryWhereCmd struct {
	Stream   string `arg:"" help:"Stream."`
	Shard    string `arg:"" help:"Shard."`
	Sequence string `arg:"" help:"Sequence number."`
}

func (c *deliveryWhereCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Places
	query := url.Values{"shard": {c.Shard}, "sequence": {c.Sequence}}
	if err := b.Call(a.ctx, "GET", "streams/"+url.PathEscape(c.Stream)+"/where?"+query.Encode(), nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		if len(out.Places) == 0 {
			fmt.Fprintf(w, "No delivery stream reads %s.\n", c.Stream)
		}
		for i := range out.Places {
			printPlace(w, &out.Places[i])
		}
	})
}

func printPlace(w io.Writer, p *delivery.Place) {
	fmt.Fprintf(w, "%s: %s", p.Delivery, p.State)
	if p.Why != "" {
		fmt.Fprintf(w, ", %s", p.Why)
	}
	fmt.Fprintln(w)
	if !p.Arrival.IsZero() {
		fmt.Fprintf(w, "  accepted   %s\n", p.Arrival.Local().Format("2006-01-02 15:04:05.000"))
	}
	switch {
	case p.ModuleVersion != "":
		fmt.Fprintf(w, "  module     %s (%.12s)\n", p.ModuleVersion, p.Module)
	case p.Module != "":
		fmt.Fprintf(w, "  module     %s, which is no longer on the box\n", p.Module)
	}
	for _, o := range p.Objects {
		fmt.Fprintf(w, "  object     %s, delivered %s\n", o.Key, o.Delivered.Local().Format("2006-01-02 15:04:05.000"))
	}
	if p.Position != nil {
		fmt.Fprintf(w, "  bytes      %d to %d of the content of %s\n", p.Position.Offset, p.Position.Offset+int64(p.Position.Length)-1, p.Position.Key)
	}
}

type deliveryRedriveCmd struct {
	Name string `arg:"" help:"Delivery stream."`
}

func (c *deliveryRedriveCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out struct {
		Records int64 `json:"records"`
	}
	if err := b.Call(a.ctx, "POST", deliveryPath(c.Name, "/redrive"), nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) { fmt.Fprintf(w, "To be sent again: %s.\n", plural(out.Records, "record")) })
}
