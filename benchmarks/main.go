// Command benchmarks measures the appliance and its parts against limits and
// peers, in one interleaved run each.
//
//	go run ./benchmarks NAME [--quick] [--json] [--peers=false]
//
// It owns the table of benchmarks and what is printed. A benchmark is a package
// below with a Run function; it imports the product, and nothing imports it.
// Gates that are missed are printed, and the exit code is 0 all the same: it is 1
// when a benchmark could not run and 2 when the command line is wrong.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/weirhq/weir/benchmarks/delivery"
	"github.com/weirhq/weir/benchmarks/ingest"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/benchmarks/storage"
	"github.com/weirhq/weir/benchmarks/wasm"
	"github.com/weirhq/weir/wasm/host"
)

// benchmarks is every benchmark, by name.
var benchmarks = []struct {
	name, about string
	run         func(ctx context.Context, o report.Options, r *report.Report) error
}{
	{"delivery", "from the log to a folder: speed, CPU and flash, against the compressors alone", delivery.Run},
	{"delivery-memory", "the part of delivery that measures memory, alone", delivery.Memory},
	{"wasm", "users' modules: per record, per module, and hostile ones beside appends", wasm.Run},
	{"storage", "the shard log against a segment log and one key per record", storage.Run},
	{"ingest", "the front door against a handler that only answers, the store alone, NATS JetStream and kinesis-local", ingest.Run},
	{delivery.ChildName, "(run by delivery: memory in a process of its own)", delivery.Child},
	{ingest.ChildName, "(run by ingest: the servers)", ingest.Child},
	{wasm.ChildName, "(run by wasm: a box under attack)", wasm.Child},
	{storage.ChildName, "(run by storage: what needs a process of its own)", storage.Child},
}

func main() {
	host.ServeCompile() // returns unless this process was started to compile a module
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, progress io.Writer) int {
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	flags.SetOutput(progress)
	quick := flags.Bool("quick", false, "end within 50 s")
	asJSON := flags.Bool("json", false, "print one JSON object")
	peers := flags.Bool("peers", true, "measure the peers too")
	dir := flags.String("dir", "", "directory on the disk to measure (the system's for temporary files)")
	flags.Usage = func() {
		fmt.Fprintln(progress, "Usage: go run ./benchmarks NAME [--quick] [--json] [--peers=false] [--dir DIR]")
		for _, b := range benchmarks {
			if !strings.HasSuffix(b.name, "-child") { // they are started by those
				fmt.Fprintf(progress, "  %-15s %s\n", b.name, b.about)
			}
		}
		flags.PrintDefaults()
	}
	var name string
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") { // the name may stand first, as flag stops at it
		name, args = args[0], args[1:]
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if name == "" && flags.NArg() == 1 {
		name = flags.Arg(0)
	} else if flags.NArg() > 0 {
		flags.Usage()
		return 2
	}
	for _, b := range benchmarks {
		if b.name != name {
			continue
		}
		r := &report.Report{Name: name, Quick: *quick, Command: command(name, *quick, *peers)}
		if err := measure(ctx, b.run, report.Options{Quick: *quick, Peers: *peers, Dir: *dir, Progress: progress}, r); err != nil {
			fmt.Fprintf(progress, "benchmarks %s: %v\n", name, err)
			return 1
		}
		return show(r, *asJSON, out, progress)
	}
	if name != "" {
		fmt.Fprintf(progress, "benchmarks: %q is not a benchmark\n", name)
	}
	flags.Usage()
	return 2
}

func measure(ctx context.Context, run func(context.Context, report.Options, *report.Report) error, o report.Options, r *report.Report) error {
	dir, err := os.MkdirTemp(o.Dir, "weir-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.Dir = dir
	r.Machine = report.ThisMachine(dir)
	return run(ctx, o, r)
}

func show(r *report.Report, asJSON bool, out, progress io.Writer) int {
	if !asJSON {
		r.Print(out)
		return 0
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		fmt.Fprintf(progress, "benchmarks %s: %v\n", r.Name, err)
		return 1
	}
	return 0
}

func command(name string, quick, peers bool) string {
	c := "go run ./benchmarks " + name
	if quick {
		c += " --quick"
	}
	if !peers {
		c += " --peers=false"
	}
	return c
}
