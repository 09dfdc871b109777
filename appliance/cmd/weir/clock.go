package main

import (
	"fmt"
	"io"
	"time"

	"github.com/weirhq/weir/appliance/admin"
)

type clockCmd struct {
	Confirm bool `help:"The clock of the machine is right: stamp records by it from here on."`
}

// Run shows whether records are stamped by the clock of the machine. A clock
// that was never set, or that jumped by more than a day, is not believed: stamps
// go on from the last known time, and retention with them.
func (c *clockCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	method, path := "GET", "clock"
	if c.Confirm {
		method, path = "POST", "clock/confirm"
	}
	var out admin.Clock
	if err := b.Call(a.ctx, method, path, nil, &out); err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		fmt.Fprintf(w, "The box's clock is at %s.\n", out.Machine.Local().Format(time.DateTime))
		if out.Held {
			fmt.Fprintln(w, "It is not believed: it was never set, or it jumped by more than a day. Stamps go on from the last known time.")
			fmt.Fprintln(w, "Once it is right, this ends by itself after a clock that was not set; else: weir clock --confirm")
			return
		}
		fmt.Fprintln(w, "Records are stamped by it.")
	})
}
