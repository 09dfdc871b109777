package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/weirhq/weir/appliance/demo"
	"github.com/weirhq/weir/appliance/fault"
)

type demoCmd struct {
	Duration time.Duration `help:"End after so long; until Ctrl-C if not given." placeholder:"30s"`
	Sensors  int           `help:"Simulated sensors besides this machine's own; none if not given, and 100 with --rate." placeholder:"N"`
	Rate     float64       `help:"Readings per second of all simulated sensors together; 10 of each if not given." placeholder:"R"`
	S3       string        `name:"s3" help:"Deliver to a bucket of an S3-compatible store: https://host:9000/bucket, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." placeholder:"URL"`
}

func (c *demoCmd) Run(a *app) error {
	if c.Rate < 0 || c.Sensors < 0 {
		return &fault.Error{Class: fault.Usage, Expect: "--rate and --sensors can't be negative"}
	}
	sensors, rate := c.Sensors, c.Rate
	switch {
	case rate > 0 && sensors == 0:
		sensors = 100
	case rate == 0:
		rate = 10 * float64(sensors)
	}
	dir, keep := a.Dir, a.dirGiven
	if !keep {
		var err error
		if dir, err = os.MkdirTemp("", "weir-demo-"); err != nil {
			return &fault.Error{Class: fault.Environment, Subject: "temporary directory", Err: err, Try: "weir demo --dir DIR"}
		}
		defer os.RemoveAll(dir)
	}
	o := demo.Options{Dir: absolute(dir), Duration: c.Duration, Sensors: sensors, Rate: rate, Log: a.err, Version: buildInfo().Version}
	if c.S3 != "" {
		o.Objects = &demo.S3{
			URL: c.S3, Region: a.env("AWS_REGION"),
			AccessKeyID: a.env("AWS_ACCESS_KEY_ID"), SecretAccessKey: a.env("AWS_SECRET_ACCESS_KEY"), SessionToken: a.env("AWS_SESSION_TOKEN"),
		}
	}
	if !a.JSON {
		o.Show = func(line string) { fmt.Fprintln(a.out, line) }
		if c.Duration == 0 {
			o.Show("Feeding this machine's sensors until Ctrl-C.")
		}
	}
	keepSmall(a)
	s, err := demo.Run(a.ctx, o)
	if s != nil {
		if e := c.report(a, s, dir, keep); err == nil {
			err = e
		}
	}
	if errors.Is(err, context.Canceled) && s != nil {
		err = nil
	}
	return err
}

func (c *demoCmd) report(a *app, s *demo.Summary, dir string, keep bool) error {
	if a.JSON {
		return json.NewEncoder(a.out).Encode(s)
	}
	return a.emit(s, func(w io.Writer) {
		fmt.Fprintf(w, "\n%s in, %s dropped by the module, %s transformed and delivered in %s.\n",
			plural(s.RecordsIn, "record"), count(s.RecordsDropped), count(s.RecordsDelivered), plural(s.Objects, "object"))
		fmt.Fprintf(w, "%s of records became %s of objects; %.2f bytes were written to flash per byte taken in.\n",
			size(s.BytesIn), size(s.BytesDelivered), s.FlashBytesPerByte)
		fmt.Fprintf(w, "First object after %.1f s; %.0f MiB of memory at most, sensors and reader included.\n", s.FirstObjectSeconds, s.ResidentMiB)
		if s.Verified && s.Missing+s.Repeated+s.Disordered == 0 {
			fmt.Fprintln(w, "Read back and compared: nothing is missing, nothing twice, everything in order.")
		}
		if keep {
			fmt.Fprintf(w, "Objects are in %s; weir serve --dir %s goes on with this box.\n", filepath.Join(dir, "objects"), dir)
		}
	})
}
