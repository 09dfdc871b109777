package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
)

type importCmd struct {
	File   string `arg:"" help:"File that export wrote; - is standard input."`
	Stream string `help:"Stream to import into; the name in the file if not given." placeholder:"STREAM"`
	Create bool   `help:"Make the stream when it is missing." default:"true" negatable:""`
}

func (c *importCmd) Run(a *app) (err error) {
	in := a.in
	if c.File != "-" {
		f, err := openFile(c.File, "")
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	file := bufio.NewReader(in)
	// Nothing is made for a file that is none.
	if head, err := file.Peek(8); !storage.IsExport(head) {
		if err != nil && !errors.Is(err, io.EOF) {
			return unreadable(c.File, err, "")
		}
		return &fault.Error{Class: fault.Usage, Subject: c.File, Expect: "not a file that export wrote", Try: "weir export --help"}
	}
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return appliance.DirectoryFault(a.Dir, err)
	}
	store, err := storage.Open(a.ctx, appliance.StorePath(a.Dir), storage.Options{})
	if err != nil {
		return appliance.DirectoryFault(a.Dir, err)
	}
	defer func() {
		if e := store.Close(); err == nil {
			err = e
		}
	}()
	bar := a.progress("import " + c.File)
	defer bar.done()
	r, err := store.Import(a.ctx, file, storage.ImportOptions{Stream: c.Stream, Create: c.Create, Progress: func(r storage.ImportReport) { bar.step(int64(r.Records), 0, "records") }})
	if errors.Is(err, storage.ErrExport) {
		return &fault.Error{Class: fault.Usage, Subject: c.File, Value: plural(int(r.Records), "record") + " imported", Expect: "the file was cut or changed", Err: err, Try: "another copy of the file: what was imported is left out the second time"}
	}
	if errors.Is(err, storage.ErrSameStream) {
		return &fault.Error{Class: fault.Usage, Subject: "stream", Value: r.Stream, Expect: c.File + " was exported from it: its records are there already", Try: "weir import " + c.File + " --stream NAME, for a second copy under another name"}
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", c.File, err)
	}
	bar.done()
	return a.emit(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s into %s; %s were there already.\n", plural(r.Records, "record"), r.Stream, count(r.Duplicates))
	})
}
