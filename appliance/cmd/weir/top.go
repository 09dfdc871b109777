package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
)

type topCmd struct {
	Interval time.Duration `default:"2s" help:"Time between two looks."`
	Count    int           `short:"n" help:"End after so many." placeholder:"N"`
}

// topLeast is the shortest time between two looks: a look costs the box a few milliseconds.
const topLeast = 100 * time.Millisecond

func (c *topCmd) Run(a *app) error {
	if c.Interval < topLeast {
		return &fault.Error{Class: fault.Usage, Subject: "--interval", Value: c.Interval.String(), Expect: "expecting " + topLeast.String() + " or more"}
	}
	b, err := a.box()
	if err != nil {
		return err
	}
	var before *admin.Status
	for n := 0; c.Count == 0 || n < c.Count; n++ {
		now := &admin.Status{}
		if err := b.Call(a.ctx, "GET", "status", nil, now); err != nil {
			return err
		}
		if a.JSON {
			if err := json.NewEncoder(a.out).Encode(now); err != nil {
				return err
			}
		} else {
			if isTerminal(a.out) {
				fmt.Fprint(a.out, "\x1b[H\x1b[2J")
			}
			printTop(a.out, before, now)
		}
		before = now
		if n+1 == c.Count {
			break
		}
		select {
		case <-a.ctx.Done():
			return nil
		case <-time.After(c.Interval):
		}
	}
	return nil
}

// printTop writes the box on two lines and a table of streams and deliveries.
// Rates need an earlier status.
func printTop(w io.Writer, before, now *admin.Status) {
	state := "writable"
	if !now.Storage.Writable {
		state = "READ-ONLY: " + now.Storage.Reason
	}
	fmt.Fprintf(w, "weir %s  up %s  %s  disk %s free of %s  memory %s\n\n", now.Version, span(now.Now.Sub(now.Started)), state,
		size(now.Storage.FreeBytes), size(now.Storage.TotalBytes), size(int64(now.Memory.FromSystem)))
	if len(now.Streams) == 0 {
		fmt.Fprintln(w, "No streams. Try: weir stream create NAME")
		return
	}
	t := newTable("STREAM", "SHARDS ", "RECORDS/S ", "RECORDS ", "STORED ", "LAST RECORD ")
	for _, s := range now.Streams {
		rate := "-"
		if before != nil {
			for _, old := range before.Streams {
				if old.Name == s.Name && s.TakenRecords >= old.TakenRecords {
					rate = count(int64(float64(s.TakenRecords-old.TakenRecords)/now.Now.Sub(before.Now).Seconds() + 0.5))
				}
			}
		}
		t.add(s.Name, count(s.OpenShards), rate, count(s.Records), size(s.StoredBytes), ago(s.LastArrival, now.Now))
	}
	t.write(w)
	if len(now.Deliveries) == 0 {
		return
	}
	fmt.Fprintln(w)
	t = newTable("DELIVERY", "LAG ", "OLDEST ", "DONE IN ", "OBJECTS ", "RECORDS ", "FAILED ", "SENT ", "STATE")
	for i := range now.Deliveries {
		d := &now.Deliveries[i]
		finish := "-"
		if d.LagRecords > 0 && !d.Finish.IsZero() {
			finish = span(d.Finish.Sub(now.Now))
		}
		t.add(d.Name, count(d.LagRecords), seconds(d.OldestAge), finish, count(d.Objects), count(d.Records), count(d.Failed), size(d.Stored), workState(d))
	}
	t.write(w)
}
