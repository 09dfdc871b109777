package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
)

type inspectCmd struct {
	Stream  string `help:"Only this stream's shards and blocks." placeholder:"STREAM"`
	Table   string `help:"Only the rows of this table: lease, checkpoint, recipe, manifest, module, …" placeholder:"TABLE"`
	Blocks  bool   `help:"Show blocks too."`
	Records bool   `help:"Show records too."`
}

func (c *inspectCmd) Run(a *app) error {
	what := storage.InspectOptions{Stream: c.Stream, Table: c.Table, Blocks: c.Blocks, Records: c.Records}
	enc := json.NewEncoder(a.out)
	found := c.Stream == ""
	err := storage.Inspect(a.ctx, appliance.StorePath(a.Dir), storage.Options{}, what, func(i storage.Item) error {
		found = found || i.Kind == "stream"
		if row, ok := i.Fields.(storage.TableItem); ok {
			i.Fields = appliance.ShowRow(row)
		}
		if a.JSON {
			return enc.Encode(i)
		}
		fields, err := json.Marshal(i.Fields)
		if err != nil {
			return err
		}
		text := string(fields)
		if i.Error != "" {
			text = "UNREADABLE: " + i.Error
		}
		_, err = fmt.Fprintf(a.out, "%-8s %x  %s  %s\n", i.Kind, i.Key, plural(i.Bytes, "byte"), text)
		return err
	})
	switch {
	case errors.Is(err, storage.ErrInvalid):
		var tables []string
		for t := storage.Table(1); t.Valid(); t++ {
			tables = append(tables, t.String())
		}
		return &fault.Error{Class: fault.Usage, Subject: "--table", Value: c.Table, Expect: "expecting one of " + strings.Join(tables, ", ")}
	case err != nil:
		return appliance.DirectoryFault(a.Dir, err)
	case !found:
		return noStream(a, "--stream", c.Stream)
	}
	return nil
}
