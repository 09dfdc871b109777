package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/cmd/internal/kong"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
)

// exitSignal stands for 128 plus the signal's number, which only main knows.
const exitSignal = -1

// commandLine is the grammar: a field per verb, in the order of the help.
type commandLine struct {
	Globals

	Serve  serveCmd  `cmd:"" help:"Run the box: one port for everything." group:"run"`
	Demo   demoCmd   `cmd:"" help:"See it work: this machine's sensors through the whole path." group:"run"`
	Check  checkCmd  `cmd:"" help:"Validate the configuration and try every sink." group:"run"`
	Doctor doctorCmd `cmd:"" help:"Look at the machine, the configuration and the box, and say what is wrong." group:"run"`

	Stream streamCmd `cmd:"" help:"Make, list, describe, reshard and delete streams." group:"data"`
	Put    putCmd    `cmd:"" help:"Write records: arguments, files or lines of standard input." group:"data"`
	Tail   tailCmd   `cmd:"" help:"Print records as they come." group:"data"`

	Top topCmd `cmd:"" help:"Show the box as it works: streams, rates, lag, deliveries." group:"data"`

	Module   moduleCmd   `cmd:"" help:"Modules: write, try, sign, upload, switch over." group:"extend"`
	Delivery deliveryCmd `cmd:"" help:"Delivery streams: from a stream to objects and other sinks." group:"extend"`

	Verify  verifyCmd  `cmd:"" help:"Read everything, check every checksum, and prove that no record is missing." group:"offline"`
	Repair  repairCmd  `cmd:"" help:"Recover the log as a start does, set aside what can't be read, and verify." group:"offline"`
	Inspect inspectCmd `cmd:"" help:"Print what is stored, key by key." group:"offline"`
	Export  exportCmd  `cmd:"" help:"Write a stream to a portable file." group:"offline"`
	Import  importCmd  `cmd:"" help:"Read a portable file into a stream, without duplicates." group:"offline"`

	Trust      trustCmd      `cmd:"" help:"Print the box's authority and settings for clients." group:"about"`
	Reload     reloadCmd     `cmd:"" help:"Have the running box read its configuration again." group:"about"`
	Clock      clockCmd      `cmd:"" help:"Show the box's clock, and confirm it after a jump that is not believed." group:"about"`
	Config     configCmd     `cmd:"" help:"What the settings are and where they come from." group:"about"`
	Version    versionCmd    `cmd:"" help:"Print version, build and data format." group:"about"`
	Completion completionCmd `cmd:"" help:"Print a completion script for bash, zsh or fish." group:"about"`
	Complete   completeCmd   `cmd:"" hidden:"" name:"__complete" passthrough:"" help:"Print the candidates for the last word."`
}

var groups = kong.ExplicitGroups([]kong.Group{
	{Key: "run", Title: "Run the box"},
	{Key: "data", Title: "Streams and records"},
	{Key: "extend", Title: "Modules and deliveries"},
	{Key: "offline", Title: "A stopped data directory"},
	{Key: "about", Title: "Settings and help"},
})

// app is one run of the command, handed to the verb's Run.
type app struct {
	Globals
	streams
	ctx     context.Context
	environ []string
	parser  *kong.Kong

	dirGiven bool // by flag or by environment
}

// env returns the variable's value, the last one when it is there twice.
func (a *app) env(name string) string {
	value := ""
	for _, pair := range a.environ {
		if k, v, _ := strings.Cut(pair, "="); k == name {
			value = v
		}
	}
	return value
}

// exited carries the exit code that kong asks for (after --help) up to run.
type exited int

// run is the whole command but for the process around it.
func run(ctx context.Context, args []string, s streams, environ []string) (code int) {
	a := &app{streams: s, ctx: ctx, environ: environ}
	line := &commandLine{}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			code = int(r)
		default:
			panic(r)
		}
	}()
	a.parser = kong.Must(line, groups,
		kong.Name("weir"),
		kong.Description("Kinesis and Firehose for a small box: durable streams, WebAssembly on the way, objects out."),
		kong.Writers(s.out, s.err),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Help(help),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	parsed, err := a.parser.Parse(args)
	if err != nil {
		a.JSON = slices.Contains(args, "--json")
		return a.report(usage(err, args))
	}
	a.Globals = line.Globals
	if err := a.unused(parsed.Selected()); err != nil {
		return a.report(err)
	}
	if err := negative(parsed.Selected()); err != nil {
		return a.report(err)
	}
	a.fromEnvironment()
	verb, ok := parsed.Selected().Target.Addr().Interface().(interface{ Run(a *app) error })
	if !ok {
		panic("BUG: verb " + parsed.Command() + " has no Run")
	}
	if err := verb.Run(a); err != nil {
		if fault.ClassOf(err) == fault.Usage && fault.TryOf(err) == "" {
			err = &fault.Error{Class: fault.Usage, Err: err, Try: helpOf(parsed.Selected())}
		}
		return a.report(err)
	}
	return 0
}

// fromEnvironment fills the flags that were not given.
func (a *app) fromEnvironment() {
	for _, f := range []struct {
		flag *string
		name string
	}{{&a.Dir, "WEIR_DIR"}, {&a.Config, "WEIR_CONFIG"}, {&a.Endpoint, "WEIR_ENDPOINT"}, {&a.CA, "WEIR_CA"}} {
		if *f.flag == "" {
			*f.flag = a.env(f.name)
		}
	}
	if a.dirGiven = a.Dir != ""; !a.dirGiven {
		a.Dir = config.Default().Dir
	}
}

// load reads the configuration that the flags name.
func (a *app) load() (*config.Loaded, error) {
	file := a.Config
	if file == "" {
		if inDir := filepath.Join(a.Dir, "weir.yaml"); exists(inDir) {
			file = inDir
		}
	}
	l, err := config.Load(file, a.environ, appliance.CheckSinks)
	if err != nil {
		return nil, err
	}
	l.Dir = a.Dir
	return l, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// usage turns an error of the parser into a fault that names the help to read.
func usage(err error, args []string) error {
	try := "weir --help"
	var p *kong.ParseError
	if errors.As(err, &p) && p.Context != nil {
		if n := p.Context.Selected(); n != nil {
			try = helpOf(n)
		}
	}
	return &fault.Error{Class: fault.Usage, Err: err, Try: try}
}

// helpOf is the command line that explains a verb.
func helpOf(n *kong.Node) string { return "weir " + n.Path() + " --help" }

// report prints the error and returns the exit code.
func (a *app) report(err error) int {
	if errors.Is(err, context.Canceled) && a.ctx.Err() != nil {
		return exitSignal
	}
	class, try := fault.ClassOf(err), fault.TryOf(err)
	if a.JSON {
		body := map[string]any{"error": err.Error(), "exit_code": int(class)}
		if try != "" {
			body["try"] = try
		}
		var f *fault.Error
		if errors.As(err, &f) && f.Subject != "" {
			body["subject"] = f.Subject
		}
		var problems config.Problems
		if errors.As(err, &problems) {
			body["problems"] = problems
		}
		line, _ := json.Marshal(body) // strings and numbers only
		fmt.Fprintf(a.err, "%s\n", line)
		return int(class)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(a.err, "weir: %s\n", line)
	}
	if try != "" {
		fmt.Fprintf(a.err, "Try: %s\n", try)
	}
	return int(class)
}
