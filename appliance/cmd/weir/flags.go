package main

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/weirhq/weir/appliance/cmd/internal/kong"
	"github.com/weirhq/weir/appliance/fault"
)

// Globals are the flags that many verbs share. They may stand before the verb; which
// verb takes which says flagsOf.
type Globals struct {
	Dir      string `help:"Data directory of the box (WEIR_DIR); weir-data if not given." placeholder:"DIR"`
	Config   string `help:"Configuration file (WEIR_CONFIG); weir.yaml in the data directory if it is there." placeholder:"FILE"`
	Endpoint string `help:"URL of a box elsewhere (WEIR_ENDPOINT), with WEIR_ACCESS_KEY_ID and WEIR_SECRET_ACCESS_KEY." placeholder:"URL"`
	CA       string `name:"ca" help:"Certificate of the authority that signed the box's certificate (WEIR_CA)." placeholder:"FILE"`
	JSON     bool   `name:"json" help:"Print JSON."`
}

// shared are the flags of Globals that not every verb takes, with what is said to who
// gives one to a verb that does not.
var shared = []struct {
	name  string
	value func(g *Globals) string
	none  string
}{
	{"dir", func(g *Globals) string { return g.Dir }, "needs no data directory"},
	{"config", func(g *Globals) string { return g.Config }, "reads no configuration; a box has its own from weir serve"},
	{"endpoint", func(g *Globals) string { return g.Endpoint }, "works on this machine and talks to no box"},
	{"ca", func(g *Globals) string { return g.CA }, "works on this machine and talks to no box"},
}

var (
	ofNothing   = []string{}
	ofDirectory = []string{"dir"}
	ofConfig    = []string{"dir", "config"}
	ofBox       = []string{"dir", "endpoint", "ca"} // a verb that is not in flagsOf
	ofAll       = []string{"dir", "config", "endpoint", "ca"}
)

// flagsOf is which of the shared flags a verb takes, when it is not one that talks to a box.
var flagsOf = map[string][]string{
	"serve": ofConfig, "demo": ofDirectory, "check": ofAll, "doctor": ofAll,
	"verify": ofDirectory, "repair": ofDirectory, "inspect": ofDirectory, "export": ofDirectory, "import": ofDirectory,
	"trust": ofConfig, "config explain": ofConfig, "version": ofNothing, "completion": ofNothing,
	"module new": ofNothing, "module build": ofNothing, "module keygen": ofNothing, "module sign": ofNothing,
}

// takes says whether the verb, or one below it, takes a shared flag.
func takes(verb *kong.Node, flag string) bool {
	if len(verb.Children) > 0 {
		return slices.ContainsFunc(verb.Children, func(n *kong.Node) bool { return takes(n, flag) })
	}
	list, ok := flagsOf[verb.Path()]
	if !ok {
		list = ofBox
	}
	return slices.Contains(list, flag)
}

// dirOf is what --dir is for a verb that has no box's data directory for it.
var dirOf = map[string]string{
	"demo": "Directory to keep the box in (WEIR_DIR); a temporary one, removed at the end, if not given.",
}

// showFlagsOf leaves only the shared flags in the help and the completion that the verb takes.
func showFlagsOf(root, verb *kong.Node) {
	for _, s := range shared {
		for _, f := range root.Flags {
			if f.Name == s.name {
				f.Hidden = !takes(verb, s.name)
				if help, other := dirOf[verb.Path()]; other && s.name == "dir" {
					f.Help = help
				}
			}
		}
	}
}

// help prints the help of the verb on the command line.
func help(o kong.HelpOptions, ctx *kong.Context) error {
	if verb := ctx.Selected(); verb != nil {
		showFlagsOf(ctx.Model.Node, verb)
	}
	return kong.DefaultHelpPrinter(o, ctx)
}

// negative refuses a number below zero: no flag of ours has a use for one.
func negative(verb *kong.Node) error {
	for _, f := range verb.Flags {
		v := f.Target
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		if v.CanInt() && v.Int() < 0 || v.CanFloat() && v.Float() < 0 {
			return &fault.Error{Class: fault.Usage, Subject: "--" + f.Name, Value: fmt.Sprint(v.Interface()), Expect: "expecting 0 or more", Try: helpOf(verb)}
		}
	}
	return nil
}

// unused refuses a shared flag that the verb would ignore.
func (a *app) unused(verb *kong.Node) error {
	for _, s := range shared {
		if value := s.value(&a.Globals); value != "" && !takes(verb, s.name) {
			return &fault.Error{
				Class: fault.Usage, Subject: "--" + s.name, Value: value,
				Expect: "weir " + verb.Path() + " " + s.none, Try: "the same command without --" + s.name,
			}
		}
	}
	return nil
}
