package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
)

type repairCmd struct {
	Adopt bool `help:"Make a stream, recovered-N, of the records of each shard whose stream's description was lost. Without it they are kept, but can't be read."`
}

// repaired is what repair prints with --json; the verification is that after it.
type repaired struct {
	Recovery  storage.Recovery     `json:"recovery"`
	Lost      []storage.ShardRange `json:"lost,omitempty"`
	Rewritten int                  `json:"rewritten"`
	SetAside  []storage.SetAside   `json:"set_aside,omitempty"`
	verification
}

// Run opens the log as a start of the box does, which cuts a torn tail and sets
// aside what can't be opened, takes out what can't be read, and verifies it.
func (c *repairCmd) Run(a *app) error {
	if _, err := os.Stat(appliance.StorePath(a.Dir)); err != nil {
		return appliance.DirectoryFault(a.Dir, err)
	}
	bar := a.progress("repair " + a.Dir)
	done, err := storage.Repair(a.ctx, appliance.StorePath(a.Dir), storage.Options{Adopt: c.Adopt})
	bar.done()
	if err != nil {
		return appliance.DirectoryFault(a.Dir, err)
	}
	r := done.After
	out := repaired{done.Recovery, done.Lost, done.Rewritten, done.SetAside, verification{r.OK(), r}}
	if err := a.emit(out, func(w io.Writer) {
		printRepair(w, done)
		printVerification(w, r)
	}); err != nil {
		return err
	}
	if !r.OK() {
		return &fault.Error{Class: fault.Runtime, Subject: a.Dir, Expect: plural(len(r.Problems), "problem") + " left", Try: "weir export of each stream, and weir import into a new directory"}
	}
	return nil
}

// printRepair tells what the open recovered and what was then taken out.
func printRepair(w io.Writer, done *storage.RepairReport) {
	r := done.Recovery
	switch {
	case !r.Clean:
		fmt.Fprintf(w, "The last process was cut off; recovered in %s.\n", span(r.Took))
	case len(done.Lost)+len(done.SetAside)+done.Rewritten == 0:
		fmt.Fprint(w, "The log was closed well: nothing had to be repaired.\n")
	default:
		fmt.Fprint(w, "The log was closed well, but was damaged since.\n")
	}
	for _, x := range r.Jumps {
		fmt.Fprintf(w, "  passed over  %s %s %d to %d: %s\n", x.Stream, x.Shard, x.First, x.Last, x.Reason)
	}
	for _, x := range r.Damaged {
		fmt.Fprintf(w, "  known lost   %s %s %d to %d: %s\n", x.Stream, x.Shard, x.First, x.Last, x.Reason)
	}
	for _, x := range r.Adopted {
		fmt.Fprintf(w, "  adopted      %s %d to %d: %s\n", x.Stream, x.First, x.Last, x.Reason)
	}
	for _, x := range r.Orphans {
		fmt.Fprintf(w, "  no stream    %d to %d of shard %s: %s; weir repair --adopt makes one\n", x.First, x.Last, strings.TrimPrefix(x.Stream, "recovered-"), x.Reason)
	}
	for _, x := range done.Lost {
		fmt.Fprintf(w, "  lost         %s %s %d to %d: %s\n", x.Stream, x.Shard, x.First, x.Last, x.Reason)
	}
	for _, x := range done.SetAside {
		fmt.Fprintf(w, "  set aside    %s, %s: %s\n", x.Path, size(x.Bytes), x.Reason)
	}
	if done.Rewritten > 0 {
		fmt.Fprintf(w, "  written anew %s, without the blocks that can't be read\n", plural(done.Rewritten, "epoch"))
	}
	fmt.Fprintln(w)
}
