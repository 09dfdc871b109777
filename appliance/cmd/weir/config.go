package main

import (
	"fmt"
	"io"

	"github.com/weirhq/weir/appliance/fault"
)

type configCmd struct {
	Explain configExplainCmd `cmd:"" help:"Print every setting with its value, its origin and what it does."`
}

// elsewhere is said below all settings: it holds for each of them.
const elsewhere = `
Any value of the file may stand elsewhere, a secret for one: "${file:/run/secrets/lake}" is the content of a
file, "${env:LAKE_SECRET}" a variable of the environment, each as the whole value. A reload reads files again.`

type configExplainCmd struct {
	Changed bool   `help:"Only the settings that are not at their default."`
	Path    string `arg:"" optional:"" help:"Only settings whose path begins so."`
}

func (c *configExplainCmd) Run(a *app) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	settings := loaded.Explain()
	kept := settings[:0]
	for _, s := range settings {
		if (!c.Changed || s.Origin != "default") && len(s.Path) >= len(c.Path) && s.Path[:len(c.Path)] == c.Path {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 && c.Path != "" && !c.Changed {
		return &fault.Error{Class: fault.Usage, Subject: "setting", Value: c.Path, Expect: "there is none of this name", Try: "weir config explain"}
	}
	return a.emit(kept, func(w io.Writer) {
		for _, s := range kept {
			value := s.Value
			if value == "" {
				value = `""`
			}
			fmt.Fprintf(w, "%s: %s\n    %s\n", s.Path, value, s.Doc)
			from := "from " + s.Origin
			if s.Origin != "default" && s.Default != "" {
				from += ", default " + s.Default
			}
			for _, part := range []struct{ label, text string }{{"one of", s.OneOf}, {"at least", s.Min}, {"at most", s.Max}, {"set by", s.Env}} {
				if part.text != "" {
					from += "; " + part.label + " " + part.text
				}
			}
			if s.Live {
				from += "; live"
			}
			fmt.Fprintf(w, "    %s\n", from)
		}
		if c.Path == "" && !c.Changed {
			fmt.Fprintln(w, elsewhere)
		}
	})
}
