package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
)

type reloadCmd struct{}

func (c *reloadCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Reloaded
	if err := b.Call(a.ctx, "POST", "reload", nil, &out); fault.ClassOf(err) == fault.Usage {
		return &fault.Error{Class: fault.Usage, Err: err, Try: "a corrected file; weir check reads it without applying it, and what ran before goes on"}
	} else if err != nil {
		return err
	}
	return a.emit(out, func(w io.Writer) {
		from := "the defaults and the environment"
		if out.File != "" {
			from = out.File
		}
		fmt.Fprintf(w, "Configuration read again from %s.\n", from)
		if len(out.NeedRestart) > 0 {
			fmt.Fprintf(w, "Waiting for a restart: %s.\n", strings.Join(out.NeedRestart, ", "))
		}
	})
}
