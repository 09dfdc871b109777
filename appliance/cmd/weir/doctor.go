package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
)

type doctorCmd struct {
	Only []string `help:"Only the checks of these names." placeholder:"NAME"`
	List bool     `help:"Print the names of the checks and what each looks at."`
}

// verdict is the outcome of one check.
type verdict int

const (
	fine verdict = iota
	unknown
	warning
	failing
)

func (v verdict) String() string { return [...]string{"ok", "unknown", "warning", "error"}[v] }

// MarshalText is String, for JSON.
func (v verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// finding is what a check found, and what to do about it.
type finding struct {
	Verdict verdict `json:"verdict"`
	Text    string  `json:"text"`
	Try     string  `json:"try,omitempty"`
}

func ok(format string, args ...any) finding { return finding{fine, fmt.Sprintf(format, args...), ""} }

func warn(try, format string, args ...any) finding {
	return finding{warning, fmt.Sprintf(format, args...), try}
}

func bad(try, format string, args ...any) finding {
	return finding{failing, fmt.Sprintf(format, args...), try}
}

// check is one thing the doctor looks at.
type check struct {
	name, about string
	look        func(ctx context.Context, p *patient) []finding
}

// patient is what the checks look at, gathered once.
type patient struct {
	a      *app
	config *config.Loaded // nil when it can't be loaded
	broken error          // why not
	box    *remote.Box    // nil when none runs, or none answers
	status *admin.Status  // of the box that runs
	silent error          // why a box that runs, or ran, on the directory does not answer
}

// checks is every check, in the order a person would ask.
var checks = []check{
	{"configuration", "the file and the environment are valid", checkConfiguration},
	{"clock", "the time is plausible and synchronized", checkClock},
	{"directory", "the data directory is there, ours and private", checkDirectory},
	{"file-system", "the data directory is on a local disk", checkFileSystem},
	{"space", "the disk has room, in bytes and in files", checkSpace},
	{"fsync", "how long the disk takes to make a write durable", checkFsync},
	{"secrets", "keys and passwords are readable by their owner only", checkSecrets},
	{"certificate", "the certificate is valid and not near its end", checkCertificate},
	{"names", "the certificate has this box's names and addresses", checkNames},
	{"port", "the port is free, or the box answers on it", checkPort},
	{"box", "the box that runs is healthy", checkBox},
	{"log", "the log takes writes, and what its last start found", checkLog},
	{"wear", "how much is written to flash per byte taken in", checkWear},
	{"streams", "every stream takes records and holds its retention", checkStreams},
	{"modules", "every active module works, and none was rolled back", checkModules},
	{"deliveries", "every delivery stream is running, and how far behind", checkDeliveries},
	{"sinks", "every sink can be reached and written to", checkSinks},
	{"memory", "there is memory left, within the limits of the service", checkMemory},
	{"descriptors", "the limit of open files is high enough", checkDescriptors},
	{"processor", "modules are compiled on this processor", checkProcessor},
	{"temperature", "the box is not too hot", checkTemperature},
	{"service", "the service manager restarts and watches the box", checkService},
}

// examined is one line of the report.
type examined struct {
	Check string `json:"check"`
	finding
}

func (c *doctorCmd) Run(a *app) error {
	if c.List {
		return a.emit(checkNamesAndAbouts(), func(w io.Writer) {
			t := newTable("CHECK", "LOOKS AT")
			for _, k := range checks {
				t.add(k.name, k.about)
			}
			t.write(w)
		})
	}
	for _, name := range c.Only {
		if !known(name) {
			return &fault.Error{Class: fault.Usage, Subject: "--only", Value: name, Expect: "not a check", Try: "weir doctor --list"}
		}
	}
	p := admit(a)
	report := struct {
		Checks   []examined `json:"checks"`
		Warnings int        `json:"warnings"`
		Errors   int        `json:"errors"`
	}{Checks: []examined{}}
	bar := a.progress("doctor")
	for _, k := range checks {
		if len(c.Only) > 0 && !contains(c.Only, k.name) {
			continue
		}
		ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
		var found []finding
		bar.during(k.name, func() { found = k.look(ctx, p) })
		for _, f := range found {
			report.Checks = append(report.Checks, examined{k.name, f})
			switch f.Verdict {
			case warning:
				report.Warnings++
			case failing:
				report.Errors++
			}
			if !a.JSON {
				printFinding(a.out, k.name, f)
			}
		}
		cancel()
	}
	if a.JSON {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(report); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "\n%s, %s, %s.\n", plural(len(report.Checks), "finding"), plural(report.Warnings, "warning"), plural(report.Errors, "error"))
	}
	if report.Errors > 0 {
		return &fault.Error{Class: fault.Environment, Subject: "doctor", Expect: plural(report.Errors, "error") + " found"}
	}
	return nil
}

func checkNamesAndAbouts() []map[string]string {
	var out []map[string]string
	for _, k := range checks {
		out = append(out, map[string]string{"check": k.name, "about": k.about})
	}
	return out
}

func known(name string) bool {
	for _, k := range checks {
		if k.name == name {
			return true
		}
	}
	return false
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// admit gathers what the checks look at. What is missing is for them to say.
func admit(a *app) *patient {
	p := &patient{a: a}
	p.config, p.broken = a.load()
	b, err := a.box()
	if err != nil {
		if !errors.Is(err, errNoBox) {
			p.silent = err
		}
		return p
	}
	ctx, cancel := context.WithTimeout(a.ctx, 10*time.Second)
	defer cancel()
	status := &admin.Status{}
	if err := b.Call(ctx, "GET", "status", nil, status); err != nil {
		p.silent = err
		return p
	}
	p.box, p.status = b, status
	return p
}

func printFinding(w io.Writer, name string, f finding) {
	mark := map[verdict]string{fine: "ok     ", unknown: "-      ", warning: "WARNING", failing: "ERROR  "}[f.Verdict]
	fmt.Fprintf(w, "%s  %-14s %s\n", mark, name, f.Text)
	if f.Try != "" {
		fmt.Fprintf(w, "%*s Try: %s\n", 23, "", f.Try)
	}
}
