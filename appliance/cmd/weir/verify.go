package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
)

type verifyCmd struct{}

// verification is what verify and repair print with --json.
type verification struct {
	OK bool `json:"ok"`
	*storage.VerifyReport
}

func (c *verifyCmd) Run(a *app) error {
	bar := a.progress("verify " + a.Dir)
	r, err := storage.Verify(a.ctx, appliance.StorePath(a.Dir), storage.Options{}, func(blocks uint64) { bar.step(int64(blocks), 0, "blocks") })
	bar.done()
	if err != nil {
		err = appliance.DirectoryFault(a.Dir, err)
		if f := (*fault.Error)(nil); errors.As(err, &f) && f.Expect == "can't be used" {
			f.Try = "weir repair --dir " + a.Dir
		}
		return err
	}
	if err := a.emit(verification{r.OK(), r}, func(w io.Writer) { printVerification(w, r) }); err != nil {
		return err
	}
	if !r.OK() {
		return &fault.Error{Class: fault.Runtime, Subject: a.Dir, Expect: plural(len(r.Problems), "problem") + " found", Try: "weir repair --dir " + a.Dir}
	}
	return nil
}

func printVerification(w io.Writer, r *storage.VerifyReport) {
	t := newTable("STREAM", "SHARD", "FIRST ", "LAST ", "RECORDS ", "JUMPED ", "LOST ")
	for _, s := range r.Shards {
		t.add(s.Stream, s.Shard.String(), count(s.First), count(s.Last), count(s.Records), count(s.Jumped), count(s.Lost))
	}
	t.write(w)
	fmt.Fprintf(w, "\n%s in %s, %s of data in %s: every checksum holds", plural(r.Records, "record"), plural(r.Blocks, "block"), size(int64(r.BytesData)), size(int64(r.BytesStored)))
	if r.OK() {
		fmt.Fprintln(w, ", every index is accounted for.")
		return
	}
	fmt.Fprint(w, " but for:\n")
	for _, p := range r.Problems {
		if p.Stream == "" {
			fmt.Fprintf(w, "  %s\n", p.What)
			continue
		}
		fmt.Fprintf(w, "  %s %s %d to %d: %s\n", p.Stream, p.Shard, p.First, p.Last, p.What)
	}
}
