package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/weirhq/weir/appliance/admin"
)

type reloadCmd struct{}

func (c *reloadCmd) Run(a *app) error {
	b, err := a.box()
	if err != nil {
		return err
	}
	var out admin.Reloaded
	if err := b.Call(a.ctx, "POST", "reload", nil, &out); err != nil {
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
