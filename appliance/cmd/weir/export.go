package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

type exportCmd struct {
	Stream string    `arg:"" help:"Stream to export."`
	File   string    `arg:"" help:"File to write; - is standard output."`
	Shard  string    `help:"Only this shard." placeholder:"SHARD"`
	From   time.Time `help:"Only records that came at this time or later." placeholder:"2026-01-02T15:04:05Z"`
	To     time.Time `help:"Only records that came before this time." placeholder:"2026-01-02T15:04:05Z"`
}

func (c *exportCmd) Run(a *app) (err error) {
	what := storage.ExportOptions{Stream: c.Stream, From: c.From, To: c.To}
	if c.Shard != "" {
		n, err := record.ParseShardNumber(c.Shard)
		if err != nil {
			return &fault.Error{Class: fault.Usage, Subject: "--shard", Value: c.Shard, Expect: "expecting a shard id such as shardId-000000000000"}
		}
		what.Shard = &n
	}
	store, err := openStopped(a)
	if err != nil {
		return err
	}
	defer func() {
		if e := store.Close(); err == nil {
			err = e
		}
	}()
	if _, err := store.Stream(c.Stream); err != nil {
		return noStream(a, "stream", c.Stream)
	}
	out := a.out
	if c.File != "-" {
		f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return &fault.Error{Class: fault.Environment, Subject: c.File, Expect: "can't be made", Err: fault.Cause(err), Try: "another name: a file that is there is not written over"}
		}
		defer func() {
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil { // half an export is none
				err = errors.Join(err, os.Remove(c.File))
			}
		}()
		out = f
	}
	bar := a.progress("export " + c.Stream)
	defer bar.done()
	what.Progress = func(r storage.ExportReport) { bar.step(int64(r.Records), 0, "records") }
	r, err := store.Export(a.ctx, out, what)
	if errors.Is(err, storage.ErrShardNotFound) {
		return &fault.Error{Class: fault.Usage, Subject: "--shard", Value: c.Shard, Expect: "stream " + c.Stream + " has none of this name", Try: "weir verify --dir " + a.Dir + ", which lists the shards"}
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", c.Stream, err)
	}
	bar.done()
	if c.File == "-" {
		return nil
	}
	return a.emit(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s of %s, %s, in %s.\n", plural(r.Records, "record"), c.Stream, size(int64(r.BytesFile)), c.File)
		if r.Missing > 0 {
			fmt.Fprintf(w, "Of the range, %s could not be read: gone, or damaged.\n", plural(r.Missing, "record"))
		}
	})
}

// openStopped opens the log of a box that does not run; there has to be one.
func openStopped(a *app) (*storage.Store, error) {
	if _, err := os.Stat(appliance.StorePath(a.Dir)); err != nil {
		return nil, appliance.DirectoryFault(a.Dir, err)
	}
	store, err := storage.Open(a.ctx, appliance.StorePath(a.Dir), storage.Options{})
	if err != nil {
		return nil, appliance.DirectoryFault(a.Dir, err)
	}
	return store, nil
}

// noStream says that the data directory has no stream of the name.
func noStream(a *app, subject, name string) error {
	return &fault.Error{Class: fault.Usage, Subject: subject, Value: name, Expect: "there is none of this name in " + a.Dir, Try: "weir verify --dir " + a.Dir + ", which lists the streams"}
}
