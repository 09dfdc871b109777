package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
)

// noBox is what the checks of a running box say when there is none.
func noBox() []finding {
	return []finding{{unknown, "can't be seen: no box answers", ""}}
}

func checkBox(_ context.Context, p *patient) []finding {
	if p.silent != nil {
		return []finding{bad(boxAdvice(p), "%v", p.silent)}
	}
	if p.status == nil && exists(appliance.StorePath(p.a.Dir)) {
		return []finding{warn("weir serve --dir "+p.a.Dir+", or systemctl status weir", "none runs on this directory")}
	}
	if p.status == nil {
		return []finding{ok("none runs here yet")}
	}
	s := p.status
	text := fmt.Sprintf("version %s, up %s", s.Version, span(s.Now.Sub(s.Started)))
	if skew := time.Since(s.Now).Abs(); skew > time.Minute {
		return []finding{warn("set the clocks", "%s; its clock is at %s, %s from this one's: AWS clients that don't adjust are refused", text, s.Now.UTC().Format(time.DateTime), span(skew))}
	}
	if s.Storage.ClockHeld {
		return []finding{warn("weir clock --confirm, when its clock is right", "%s; its clock is not believed: stamps go on from the last known time", text)}
	}
	return []finding{ok("%s", text)}
}

// boxAdvice is what helps with a box that does not answer.
func boxAdvice(p *patient) string {
	if try := fault.TryOf(p.silent); p.a.Endpoint != "" || !strings.HasPrefix(try, "weir doctor") {
		return try
	}
	return "the log of the process that has the directory open: it starts, stops or hangs"
}

func checkLog(_ context.Context, p *patient) []finding {
	if p.status == nil {
		return noBox()
	}
	var out []finding
	if st := p.status.Storage; !st.Writable {
		out = append(out, bad("weir doctor --only space; after a failed sync, a restart", "takes no writes: %s", st.Reason))
	}
	r := p.status.Recovery
	for _, d := range r.Damaged {
		out = append(out, bad("weir verify, then weir repair, on the stopped box", "damaged: %s", d))
	}
	for _, f := range r.SetAside {
		out = append(out, warn("keep the file if you want it looked at", "set aside: %s", f))
	}
	if out != nil {
		return out
	}
	if !r.Clean {
		return []finding{ok("takes writes; the last process was cut off, nothing acknowledged was lost")}
	}
	return []finding{ok("takes writes; closed well before")}
}

func checkWear(_ context.Context, p *patient) []finding {
	if p.status == nil {
		return noBox()
	}
	w := p.status.Wear
	if w.IngestedBytes == 0 {
		return []finding{ok("nothing was taken in yet")}
	}
	text := fmt.Sprintf("%.2f bytes written per byte taken in, %s a day", w.Ratio, size(int64(w.PerDayBytes)))
	switch {
	case w.DaysLeft >= 0 && w.DaysLeft < 365:
		return []finding{warn("larger batches, a better codec or less retention", "%s: the flash is worn in %s", text, plural(w.DaysLeft, "day"))}
	case w.DaysLeft >= 0:
		return []finding{ok("%s, about %s left", text, plural(w.DaysLeft/365, "year"))}
	}
	return []finding{ok("%s; storage.endurance_bytes gives a forecast", text)}
}

func checkStreams(_ context.Context, p *patient) []finding {
	if p.status == nil {
		return noBox()
	}
	if len(p.status.Streams) == 0 {
		return []finding{warn("weir stream create NAME", "there are none")}
	}
	var out []finding
	for _, s := range p.status.Streams {
		if s.RetentionBytes > 0 && s.StoredBytes > int64(s.RetentionBytes) && s.WhenFull == "reject" {
			out = append(out, bad("weir stream retention "+s.Name+" --bytes SIZE, or --when-full drop-oldest", "%s is full: %s of %s, and rejects records", s.Name, size(s.StoredBytes), s.RetentionBytes))
		}
	}
	if out == nil {
		out = append(out, ok("%s", plural(len(p.status.Streams), "stream")))
	}
	return out
}

func checkModules(_ context.Context, p *patient) []finding {
	if p.status == nil {
		return noBox()
	}
	var out []finding
	for _, m := range p.status.Modules {
		for _, v := range m.Versions {
			active := v.Version == m.Active
			switch {
			case active && v.Barred:
				out = append(out, bad("sign it and weir module push it again, or weir module activate a signed version", "%s %s is %s", m.Name, v.Version, v.Warning))
			case active && v.Warning != "":
				out = append(out, warn("sign it and weir module push it again", "%s %s: %s", m.Name, v.Version, v.Warning))
			}
			switch {
			case active && v.Stats.LastError != "":
				out = append(out, warn("weir module logs "+m.Name, "%s %s: %s failed, last: %s", m.Name, v.Version, plural(v.Stats.Failed, "record"), v.Stats.LastError))
			case v.Failure != "":
				out = append(out, warn("weir module logs "+m.Name, "%s %s was rolled back: %s", m.Name, v.Version, v.Failure))
			}
		}
	}
	if out == nil {
		out = append(out, ok("%s", plural(len(p.status.Modules), "module")))
	}
	return out
}

func checkDeliveries(_ context.Context, p *patient) []finding {
	if p.status == nil {
		return noBox()
	}
	var out []finding
	for i := range p.status.Deliveries {
		d := &p.status.Deliveries[i]
		lag := fmt.Sprintf("%s: %s waiting, the oldest for %s", d.Name, plural(d.LagRecords, "record"), seconds(d.OldestAge))
		switch {
		case d.LastError != nil && d.Circuit != "closed":
			out = append(out, bad("weir delivery test "+d.Name, "%s; it fails since %s: %s", lag, d.LastError.Since.UTC().Format(time.DateTime), d.LastError.Error))
		case d.Lost > 0:
			out = append(out, bad("a longer retention of its stream", "%s; %s were lost to retention before they were delivered", lag, count(d.Lost)))
		case d.Failed > 0:
			out = append(out, warn("weir delivery redrive "+d.Name, "%s; %s failed and are kept", lag, count(d.Failed)))
		case d.LastError != nil:
			out = append(out, warn("weir delivery test "+d.Name, "%s; it failed and is tried again: %s", lag, d.LastError.Error))
		case d.Waiting != "":
			out = append(out, warn("weir delivery describe "+d.Name, "%s; %s", lag, d.Waiting))
		case d.LagRecords == 0:
			out = append(out, ok("%s: everything is delivered", d.Name))
		default:
			out = append(out, ok("%s", lag))
		}
	}
	if out == nil {
		out = append(out, ok("there are none"))
	}
	return out
}

func checkSinks(ctx context.Context, p *patient) []finding {
	if p.box == nil {
		return noBox()
	}
	var out []finding
	for i := range p.status.Deliveries {
		name := p.status.Deliveries[i].Name
		var probed admin.Probed
		if err := p.box.Call(ctx, "POST", deliveryPath(name, "/test"), nil, &probed); err != nil {
			out = append(out, bad("weir delivery describe "+name, "%s: %v", name, err))
		} else {
			out = append(out, ok("%s: %s; guarantees %s", name, probed.Tried["sink"], probed.Guarantees["sink"]))
		}
	}
	if out == nil {
		out = append(out, ok("there are none"))
	}
	return out
}
