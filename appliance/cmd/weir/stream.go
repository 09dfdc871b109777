package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
)

type streamCmd struct {
	Create    streamCreateCmd    `cmd:"" help:"Make a stream."`
	List      streamListCmd      `cmd:"" help:"List the streams."`
	Describe  streamDescribeCmd  `cmd:"" help:"Show one stream with its shards."`
	Delete    streamDeleteCmd    `cmd:"" help:"Delete a stream and everything in it."`
	Reshard   streamReshardCmd   `cmd:"" help:"Change the shards: to a number (--shards), by a split (--split) or by a merge (--merge)."`
	Retention streamRetentionCmd `cmd:"" help:"Change how long and how much a stream keeps."`
}

type streamCreateCmd struct {
	Name           string  `arg:"" help:"1 to 128 of a-z A-Z 0-9 _ . -"`
	Shards         *int    `help:"Shards to begin with; 1, or 4 on demand, unless set." placeholder:"N"`
	OnDemand       bool    `help:"Split and merge by itself, down to 4 shards."`
	Retention      *string `help:"How long a record is kept, such as 24h or 7d." placeholder:"24h"`
	RetentionBytes *string `help:"Bytes stored at most, such as 2GiB." placeholder:"SIZE"`
	WhenFull       *string `help:"reject, drop-oldest or thin-out." placeholder:"reject"`
	Codec          *string `help:"zstd, s2, none or auto." placeholder:"zstd"`
	MaxRecord      *string `help:"Largest record, 1MiB to 10MiB." placeholder:"1MiB"`
	IfMissing      bool    `help:"Succeed when the stream is there already."`
}

func (c *streamCreateCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	in := admin.StreamSettings{
		Name: c.Name, Shards: c.Shards, Retention: c.Retention, RetentionBytes: c.RetentionBytes,
		WhenFull: c.WhenFull, Codec: c.Codec, MaxRecordBytes: c.MaxRecord,
	}
	if c.OnDemand {
		mode := "on-demand"
		in.Mode = &mode
	}
	var out admin.Stream
	if c.IfMissing && b.Call(a.ctx, "GET", "streams/"+url.PathEscape(c.Name), nil, &out) == nil {
		return a.emit(out, func(w io.Writer) { fmt.Fprintf(w, "Stream %s is there already.\n", out.Name) })
	}
	if err := b.Call(a.ctx, "POST", "streams", in, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		fmt.Fprintf(w, "Stream %s: %s, %s, kept for %s.\n", out.Name, out.Mode, plural(out.OpenShards, "shard"), out.Retention)
	})
}

type streamListCmd struct {
	System bool `help:"Show the box's own streams too: the buffers of direct-put delivery streams."`
}

func (c *streamListCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out struct {
		Streams []admin.Stream `json:"streams"`
	}
	path := "streams"
	if c.System {
		path += "?system=true"
	}
	if err := b.Call(a.ctx, "GET", path, nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		if len(out.Streams) == 0 {
			fmt.Fprintln(w, "No streams. Try: weir stream create NAME")
			return
		}
		t, now := newTable("STREAM", "MODE", "SHARDS ", "RECORDS ", "STORED ", "KEPT ", "LAST RECORD "), time.Now()
		for _, s := range out.Streams {
			t.add(s.Name, s.Mode, count(s.OpenShards), count(s.Records), size(s.StoredBytes), s.Retention, ago(s.LastArrival, now))
		}
		t.write(w)
	})
}

type streamDescribeCmd struct {
	Name string `arg:"" help:"Stream."`
}

func (c *streamDescribeCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Stream
	if err := b.Call(a.ctx, "GET", "streams/"+url.PathEscape(c.Name), nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) { describeStream(w, &out) })
}

func describeStream(w io.Writer, s *admin.Stream) {
	bound := "no bound"
	if s.RetentionBytes > 0 {
		bound = s.RetentionBytes.String()
	}
	fmt.Fprintf(w, "%s: %s, made %s\n", s.Name, s.Mode, s.Created.Local().Format(time.DateTime))
	fmt.Fprintf(w, "  keeps      %s, %s; when full: %s\n", s.Retention, bound, s.WhenFull)
	fmt.Fprintf(w, "  blocks     %s; largest record %s\n", s.Codec, s.MaxRecordBytes)
	fmt.Fprintf(w, "  holds      %s, %s on disk\n\n", plural(s.Records, "record"), size(s.StoredBytes))
	t, now := newTable("SHARD", "STATE", "FROM ", "TO ", "STORED ", "LAST RECORD ", "PARENTS"), time.Now()
	for _, sh := range s.Shards {
		state, parents := "open", sh.Parent
		if !sh.Open {
			state = "closed"
		}
		if sh.AdjacentParent != "" {
			parents += " " + sh.AdjacentParent
		}
		from, to := "-", "-"
		if sh.LastIndex >= sh.FirstIndex {
			from, to = count(sh.FirstIndex), count(sh.LastIndex)
		}
		t.add(sh.ID, state, from, to, size(sh.StoredBytes), ago(sh.LastArrival, now), parents)
	}
	t.write(w)
}

type streamDeleteCmd struct {
	Name string `arg:"" help:"Stream."`
	Yes  bool   `help:"Don't ask." short:"y"`
}

func (c *streamDeleteCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	path := "streams/" + url.PathEscape(c.Name)
	var s admin.Stream
	if err := b.Call(a.ctx, "GET", path, nil, &s); err != nil {
		return err
	}
	if err := a.confirm(c.Yes, fmt.Sprintf("Delete %s with %s?", s.Name, plural(s.Records, "record"))); err != nil {
		return err
	}
	var out struct {
		Deleted string `json:"deleted"`
	}
	if err := b.Call(a.ctx, "DELETE", path, nil, &out); err != nil {
		return c.advise(a, b, err)
	}
	return a.emit(out, func(w io.Writer) { fmt.Fprintf(w, "Stream %s is deleted.\n", out.Deleted) })
}

// advise adds, to the refusal to delete a stream, how to delete the delivery streams that
// read it.
func (c *streamDeleteCmd) advise(a *app, b *remote.Box, refusal error) error {
	var list admin.Deliveries
	if fault.ClassOf(refusal) != fault.Usage || b.Call(a.ctx, "GET", "deliveries", nil, &list) != nil {
		return refusal
	}
	var first []string
	for i := range list.Deliveries {
		if d := &list.Deliveries[i]; d.Config.Source.Stream == c.Name {
			first = append(first, "weir delivery delete "+d.Config.Name)
		}
	}
	if first == nil {
		return refusal
	}
	return &fault.Error{Class: fault.Usage, Err: refusal, Try: strings.Join(first, ", ") + "; what it has delivered stays"}
}

type streamReshardCmd struct {
	Name   string   `arg:"" help:"Stream."`
	Shards int      `help:"Number of equal shards to have." placeholder:"N" xor:"how"`
	Split  string   `help:"Shard to split in two." placeholder:"SHARD" xor:"how"`
	At     string   `help:"With --split: first hash key of the upper half; the middle if not given." placeholder:"KEY"`
	Merge  []string `help:"Two adjacent shards to merge, with a comma between." placeholder:"A,B" xor:"how"`
}

func (c *streamReshardCmd) Run(a *app) error {
	if c.Shards == 0 && c.Split == "" && len(c.Merge) == 0 {
		return &fault.Error{Class: fault.Usage, Expect: "expecting one of --shards, --split and --merge"}
	}
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Stream
	in := admin.Reshard{Shards: c.Shards, Split: c.Split, At: c.At, Merge: c.Merge}
	a.progress("reshard").during(c.Name, func() {
		err = b.Call(a.ctx, "POST", "streams/"+url.PathEscape(c.Name)+"/reshard", in, &out)
	})
	if err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) { describeStream(w, &out) })
}

type streamRetentionCmd struct {
	Name     string  `arg:"" help:"Stream."`
	Time     *string `arg:"" optional:"" help:"How long a record is kept, such as 24h or 7d."`
	Bytes    *string `help:"Bytes stored at most; 0 sets no bound." placeholder:"SIZE"`
	WhenFull *string `help:"reject, drop-oldest or thin-out." placeholder:"POLICY"`
}

func (c *streamRetentionCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Stream
	in := admin.StreamSettings{Retention: c.Time, RetentionBytes: c.Bytes, WhenFull: c.WhenFull}
	method, body := "PATCH", any(in)
	if in == (admin.StreamSettings{}) {
		method, body = "GET", nil
	}
	if err := b.Call(a.ctx, method, "streams/"+url.PathEscape(c.Name), body, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		bound := "no bound on bytes"
		if out.RetentionBytes > 0 {
			bound = "at most " + out.RetentionBytes.String()
		}
		fmt.Fprintf(w, "Stream %s keeps %s, %s; when full: %s.\n", out.Name, out.Retention, bound, out.WhenFull)
	})
}
