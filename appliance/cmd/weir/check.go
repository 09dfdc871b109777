package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/sink"
)

type checkCmd struct {
	Sinks bool `help:"Try every sink: write a probe, read it, remove it." default:"true" negatable:""`
}

// checked is one thing that check tried.
type checked struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Reason string `json:"reason,omitempty"` // why not
}

// Run validates the configuration, opens the files it names, and tries each
// sink: those of the configuration, and those of the box that runs.
func (c *checkCmd) Run(a *app) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	name := loaded.File
	if name == "" {
		name = "the defaults, without a file"
	}
	found := []checked{{What: "configuration", OK: true, Found: name}}
	found = append(found, checkFiles(loaded)...)
	if c.Sinks {
		found = append(found, a.trySinks(loaded)...)
		found = append(found, a.tryDeliveries()...)
	}
	failed := 0
	for _, f := range found {
		if !f.OK {
			failed++
		}
	}
	if err := a.emit(found, func(w io.Writer) {
		for _, f := range found {
			mark, text := "ok   ", f.Found
			if !f.OK {
				mark, text = "ERROR", f.Reason
			}
			fmt.Fprintf(w, "%s  %-28s %s\n", mark, f.What, text)
		}
	}); err != nil {
		return err
	}
	if failed > 0 {
		return &fault.Error{Class: fault.Environment, Subject: "check", Expect: plural(failed, "failure"), Try: "weir config explain for the settings, weir delivery describe NAME"}
	}
	return nil
}

// checkFiles reads the files that the configuration names.
func checkFiles(c *config.Loaded) []checked {
	var out []checked
	for _, f := range appliance.Files(c.Config) {
		item := checked{What: f.Setting, OK: true, Found: f.Name}
		switch {
		case f.Err != nil:
			item.OK, item.Found, item.Reason = false, "", strings.TrimPrefix(f.Err.Error(), f.Setting+": ")
		case !f.Until.IsZero() && time.Now().After(f.Until):
			item.OK, item.Found, item.Reason = false, "", f.Name+": the certificate ended on "+f.Until.Format(time.DateOnly)
		case !f.Until.IsZero():
			item.Found += ", valid until " + f.Until.Format(time.DateOnly)
		}
		out = append(out, item)
	}
	return out
}

// trySinks probes the sinks of the configuration.
func (a *app) trySinks(c *config.Loaded) []checked {
	configs := appliance.Sinks(c.Config)
	table, err := sink.New(configs, nil)
	if err != nil {
		return []checked{{What: "sinks", Reason: err.Error()}}
	}
	var out []checked
	bar := a.progress("check")
	for _, s := range configs {
		item := checked{What: "sink " + s.Name}
		bar.during(item.What, func() {
			if p, err := probe(a.ctx, table, s.Name); err != nil {
				item.Reason = err.Error()
			} else {
				item.OK, item.Found = true, fmt.Sprintf("%s: %s; guarantees %s", s.Kind, p.Tried, p.Guarantee)
			}
		})
		out = append(out, item)
	}
	return out
}

func probe(ctx context.Context, table *sink.Table, name string) (delivery.Probed, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s, err := table.Open(delivery.Target{Name: name})
	if err != nil {
		return delivery.Probed{}, err
	}
	defer s.Close()
	return s.Probe(ctx)
}

// tryDeliveries has the box that runs, if one does, test its delivery streams.
func (a *app) tryDeliveries() []checked {
	b, err := a.box()
	if err != nil {
		return nil // no box runs here: the configuration is all there is
	}
	ctx, cancel := context.WithTimeout(a.ctx, 2*time.Minute)
	defer cancel()
	var list admin.Deliveries
	if err := b.Call(ctx, "GET", "deliveries", nil, &list); err != nil {
		return []checked{{What: "box", Reason: err.Error()}}
	}
	var out []checked
	bar := a.progress("check")
	for i := range list.Deliveries {
		d := &list.Deliveries[i]
		item := checked{What: "delivery " + d.Name}
		var probed admin.Probed
		var err error
		bar.during(item.What, func() { err = b.Call(ctx, "POST", deliveryPath(d.Name, "/test"), nil, &probed) })
		if err != nil {
			item.Reason = err.Error()
		} else {
			item.OK, item.Found = true, fmt.Sprintf("%s: %s; guarantees %s", targetText(&d.Sink), probed.Tried["sink"], probed.Guarantees["sink"])
		}
		out = append(out, item)
	}
	return out
}
