package main

import (
	"fmt"
	"io"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
)

type repairCmd struct{}

// repaired is what repair prints with --json.
type repaired struct {
	Recovery storage.Recovery `json:"recovery"`
	verification
}

// Run opens the log as a start of the box does, which cuts a torn tail and sets
// aside what can't be read, and then verifies it.
func (c *repairCmd) Run(a *app) error {
	if !exists(appliance.StorePath(a.Dir)) {
		return &fault.Error{Class: fault.Environment, Subject: "data directory", Value: a.Dir, Expect: "there is no log in it"}
	}
	bar := a.progress("repair " + a.Dir)
	defer bar.done()
	store, err := storage.Open(a.ctx, appliance.StorePath(a.Dir), storage.Options{})
	if err != nil {
		return appliance.DirectoryFault(a.Dir, err)
	}
	out := repaired{Recovery: store.Recovery()}
	r, err := store.Verify(a.ctx, func(blocks uint64) { bar.step(int64(blocks), 0, "blocks") })
	if closed := store.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return appliance.DirectoryFault(a.Dir, err)
	}
	bar.done()
	out.verification = verification{r.OK(), r}
	if err := a.emit(out, func(w io.Writer) {
		printRecovery(w, &out.Recovery)
		printVerification(w, r)
	}); err != nil {
		return err
	}
	if !r.OK() {
		return &fault.Error{Class: fault.Runtime, Subject: a.Dir, Expect: plural(len(r.Problems), "problem") + " left", Try: "weir export of each stream, and weir import into a new directory"}
	}
	return nil
}

func printRecovery(w io.Writer, r *storage.Recovery) {
	if r.Clean && len(r.Damaged)+len(r.SetAside) == 0 {
		fmt.Fprint(w, "The log was closed well: nothing had to be repaired.\n\n")
		return
	}
	fmt.Fprintf(w, "The last process was cut off; recovered in %s.\n", span(r.Took))
	for _, x := range r.Jumps {
		fmt.Fprintf(w, "  passed over  %s %s %d to %d: %s\n", x.Stream, x.Shard, x.First, x.Last, x.Reason)
	}
	for _, x := range r.Damaged {
		fmt.Fprintf(w, "  lost         %s %s %d to %d: %s\n", x.Stream, x.Shard, x.First, x.Last, x.Reason)
	}
	for _, x := range r.SetAside {
		fmt.Fprintf(w, "  set aside    %s, %s: %s\n", x.Path, size(x.Bytes), x.Reason)
	}
	fmt.Fprintln(w)
}
