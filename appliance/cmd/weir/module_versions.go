package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/module"
)

// moduleChange asks the box for one change of a module and prints a sentence.
func (a *app) moduleChange(name, path string, in any, sentence func(module.Info) string) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var info module.Info
	if err := b.Call(a.ctx, "POST", modulePath(name, path), in, &info); err != nil {
		return tryList(err)
	}
	return a.emit(info, func(w io.Writer) { fmt.Fprintln(w, sentence(info)) })
}

// tryList points to the list of modules when a name or version was wrong.
func tryList(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Class == fault.Usage && f.Try == "" {
		f.Try = "weir module list"
	}
	return err
}

type moduleActivateCmd struct {
	Name    string `arg:"" help:"Module."`
	Version string `arg:"" help:"Version to make active."`
}

func (c *moduleActivateCmd) Run(a *app) error {
	return a.moduleChange(c.Name, "/activate", admin.ModuleVersion{Version: c.Version}, func(i module.Info) string {
		s := fmt.Sprintf("%s %s is active.", i.Name, i.Active)
		if i.Previous != "" {
			s += fmt.Sprintf(" Back to %s: weir module rollback %s", i.Previous, i.Name)
		}
		return s
	})
}

type moduleDeactivateCmd struct {
	Name string `arg:"" help:"Module."`
}

func (c *moduleDeactivateCmd) Run(a *app) error {
	return a.moduleChange(c.Name, "/deactivate", nil, func(i module.Info) string {
		return fmt.Sprintf("%s has no active version. Consumers have stopped where they were; deliveries through it wait.", i.Name)
	})
}

type moduleRollbackCmd struct {
	Name string `arg:"" help:"Module."`
}

func (c *moduleRollbackCmd) Run(a *app) error {
	return a.moduleChange(c.Name, "/rollback", nil, func(i module.Info) string {
		return fmt.Sprintf("%s is back at %s.", i.Name, i.Active)
	})
}

type moduleShadowCmd struct {
	Name    string `arg:"" help:"Module."`
	Version string `arg:"" optional:"" help:"Version to run as a shadow; ends the shadow run if not given."`
}

func (c *moduleShadowCmd) Run(a *app) error {
	return a.moduleChange(c.Name, "/shadow", admin.ModuleVersion{Version: c.Version}, func(i module.Info) string {
		if i.Shadow == "" {
			return fmt.Sprintf("%s has no shadow.", i.Name)
		}
		if i.Active == "" {
			return fmt.Sprintf("%s %s is a shadow, with nothing to compare it with until a version is active.", i.Name, i.Shadow)
		}
		return fmt.Sprintf("%s %s sees what %s sees and has no effect. Its differences: weir module stats %s", i.Name, i.Shadow, i.Active, i.Name)
	})
}

type moduleResumeCmd struct {
	Name string `arg:"" help:"Consumer module."`
}

func (c *moduleResumeCmd) Run(a *app) error {
	return a.moduleChange(c.Name, "/resume", nil, func(i module.Info) string {
		return fmt.Sprintf("%s tries again. Where it is: weir module stats %s", i.Name, i.Name)
	})
}

type moduleRmCmd struct {
	Name    string `arg:"" help:"Module."`
	Version string `arg:"" optional:"" help:"Version to remove; all of them if not given."`
	State   bool   `help:"Also delete what a consumer keeps: its place in the streams, its state, its outbox."`
	Yes     bool   `help:"Don't ask." short:"y"`
}

func (c *moduleRmCmd) Run(a *app) error {
	if c.State && c.Version != "" {
		return &fault.Error{Class: fault.Usage, Subject: "--state", Expect: "goes with a whole module, not with a version"}
	}
	what := fmt.Sprintf("Remove %s with all its versions", c.Name)
	switch {
	case c.Version != "":
		what = fmt.Sprintf("Remove version %s of %s", c.Version, c.Name)
	case c.State:
		what += " and the state of its consumers"
	}
	if err := a.confirm(c.Yes, what+"?"); err != nil {
		return err
	}
	b, err := a.box()
	if err != nil {
		return err
	}
	var info module.Info
	if err := b.Call(a.ctx, "POST", modulePath(c.Name, "/remove"), admin.ModuleVersion{Version: c.Version}, &info); err != nil {
		var f *fault.Error
		if errors.As(err, &f) && strings.Contains(err.Error(), module.ErrActive.Error()) {
			f.Try = fmt.Sprintf("weir module rollback %s, or weir module deactivate %s", c.Name, c.Name)
			return err
		}
		return tryList(err)
	}
	if c.State {
		if err := forget(a, b, c.Name); err != nil {
			return err
		}
	}
	return a.emit(info, func(w io.Writer) { fmt.Fprintln(w, "Removed.") })
}

// forget deletes a consumer's state as soon as its workers have stopped.
func forget(a *app, b *remote.Box, name string) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := b.Call(a.ctx, "POST", modulePath(name, "/forget"), nil, nil)
		if err == nil || time.Now().After(deadline) || !strings.Contains(err.Error(), consume.ErrActive.Error()) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-a.ctx.Done():
			return a.ctx.Err()
		}
	}
}

type moduleListCmd struct{}

func (c *moduleListCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Modules
	if err := b.Call(a.ctx, "GET", "modules", nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		if len(out.Modules) == 0 {
			fmt.Fprintln(w, "No modules. Try: weir module new NAME")
			return
		}
		t := newTable("MODULE", "KIND", "VERSION", "", "SIZE ", "UPLOADED", "SIGNED BY", "RECORDS ", "FAILED ")
		now := time.Now()
		for _, m := range out.Modules {
			for i, v := range m.Versions {
				name, kind := m.Name, string(m.Kind)
				if i > 0 {
					name, kind = "", ""
				}
				signed := v.SignedBy
				if signed == "" {
					signed = "-"
				}
				t.add(name, kind, v.Version, versionRole(&m, &v), size(v.SizeBytes), ago(v.Uploaded, now), signed, count(v.Stats.Records), count(v.Stats.Failed))
			}
		}
		t.write(w)
	})
}

func versionRole(m *module.Info, v *module.VersionInfo) string {
	switch {
	case v.Barred && v.Version == m.Active:
		return "active, not run: unsigned"
	case v.Barred:
		return "unsigned"
	case v.Version == m.Active:
		return "active"
	case v.Version == m.Shadow:
		return "shadow"
	case v.Failure != "":
		return "rolled back"
	case v.Version == m.Previous:
		return "previous"
	}
	return ""
}

type moduleStatsCmd struct {
	Name string `arg:"" help:"Module."`
}

func (c *moduleStatsCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	out := struct {
		module.Info
		Consumers []consume.ShardStatus `json:"consumers,omitempty"`
	}{}
	if err := b.Call(a.ctx, "GET", modulePath(c.Name, ""), nil, &out.Info); err != nil {
		return tryList(err)
	}
	var all admin.Consumers
	if err := b.Call(a.ctx, "GET", "consumers", nil, &all); err != nil {
		return err
	}
	for _, s := range all.Consumers {
		if s.Consumer == c.Name {
			out.Consumers = append(out.Consumers, s)
		}
	}
	return a.emit(out, func(w io.Writer) {
		for i := range out.Versions {
			v := &out.Versions[i]
			printVersion(w, &out.Info, v)
		}
		printShards(w, out.Consumers)
	})
}

func printVersion(w io.Writer, m *module.Info, v *module.VersionInfo) {
	s := &v.Stats
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s %s  %s", m.Name, v.Version, versionRole(m, v)), " "))
	if v.Failure != "" {
		fmt.Fprintf(w, "  %s\n", v.Failure)
	}
	if v.Warning != "" {
		fmt.Fprintf(w, "  %s\n", v.Warning)
	}
	if s.Batches > 0 || s.Errors > 0 {
		fmt.Fprintf(w, "  since %s: %s in %s, %s out, %s dropped, %s failed\n", s.Since.Local().Format(time.DateTime), plural(s.Records, "record"), plural(s.Batches, "batch"), count(s.Outputs), count(s.Dropped), count(s.Failed))
		if s.Records > 0 {
			fmt.Fprintf(w, "  %.0f ns and %s fuel a record, largest instance %s, %s lost, %s\n", s.WallSeconds*1e9/float64(s.Records), count(s.Fuel/s.Records), size(s.MemoryBytes), plural(int(s.Aborts), "instance"), plural(s.Retries, "retry"))
		}
	}
	if s.LastError != "" {
		fmt.Fprintf(w, "  last error: %s\n", strings.ReplaceAll(s.LastError, "\n", "\n    "))
	}
	for _, x := range s.Metrics {
		if x.Kind == "histogram" {
			fmt.Fprintf(w, "  %s: %s, mean %g\n", x.Name, plural(int(x.Count), "value"), x.Sum/max(float64(x.Count), 1))
		} else {
			fmt.Fprintf(w, "  %s: %g\n", x.Name, x.Value)
		}
	}
	if h := s.HTTP; h != nil {
		fmt.Fprintf(w, "  requests: %s answered, %s failed, %s denied\n", count(h.Requests), count(h.Failed), count(h.Denied))
	}
	if r := s.Shadow; r != nil {
		of := fmt.Sprintf("%s of %s compared differ", count(r.Differ), plural(r.Records, "record"))
		if m.Kind == manifest.Consumer {
			of = fmt.Sprintf("%s in %s compared", plural(r.Differ, "difference"), plural(r.Records, "record"))
		}
		fmt.Fprintf(w, "  shadow %s: %s, %s not looked at, %s\n", r.Version, of, count(r.Skipped), plural(int(r.Errors), "error"))
		if r.Error != "" {
			fmt.Fprintf(w, "    last error: %s\n", strings.ReplaceAll(r.Error, "\n", "\n      "))
		}
		for _, d := range r.Examples {
			fmt.Fprintf(w, "    %s\n      active  %s\n      shadow  %s\n", strings.TrimLeft(fmt.Sprintf("%s %s shard %d index %d", d.What, d.Stream, d.Shard, d.Index), " "), d.Active, d.Shadow)
		}
	}
}

func printShards(w io.Writer, shards []consume.ShardStatus) {
	if len(shards) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable("STREAM", "SHARD", "STATE", "BEHIND ", "OLDEST ", "COMMITS ", "KEYS ", "STATE SIZE ")
	for _, s := range shards {
		t.add(s.Stream, s.Shard, string(s.State), count(s.LagRecords), span(s.LagAge), count(s.Commits), count(s.StateEntries), size(s.StateBytes))
	}
	t.write(w)
	for _, s := range shards {
		if s.Reason != "" {
			fmt.Fprintf(w, "%s %s: %s\n", s.Stream, s.Shard, s.Reason)
		}
	}
	if s := shards[0]; s.DeadLetters != "" {
		fmt.Fprintf(w, "Records that fail for good: weir tail %s --from trim-horizon\n", s.DeadLetters)
	}
}

type moduleLogsCmd struct {
	Name    string `arg:"" help:"Module."`
	Version string `help:"Version; the active one if not given." placeholder:"VERSION"`
	Lines   int    `help:"How many lines at most." default:"100" short:"n"`
}

func (c *moduleLogsCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	path := modulePath(c.Name, "/logs")
	if c.Version != "" {
		path += "?version=" + url.QueryEscape(c.Version)
	}
	var out admin.ModuleLogs
	if err := b.Call(a.ctx, "GET", path, nil, &out); err != nil {
		return tryList(err)
	}
	out.Lines = out.Lines[max(0, len(out.Lines)-c.Lines):]
	return a.emit(out, func(w io.Writer) {
		if len(out.Lines) == 0 {
			fmt.Fprintln(a.err, "Nothing logged.")
		}
		for _, l := range out.Lines {
			fmt.Fprintf(w, "%s %-5s %s\n", l.Time.Local().Format("2006-01-02 15:04:05.000"), l.Level, strings.ReplaceAll(l.Text, "\n", "\n    "))
		}
	})
}
