//go:build wasm

// The router module chooses each record's partition key, dynamic partition and
// output by what it says. The data is passed on as it is; nothing is copied.
//
// A record goes to output 1 when its match field is equals, to output 0
// otherwise, under the partition key that is the value of its key field.
//
//	config: {key: site, match: severity, equals: alarm}
package main

import (
	"errors"

	"github.com/weirhq/weir/sdk/guest/go/weir"
)

var _ = weir.Register(weir.Module{Configure: configure, Record: onRecord})

var key, match, equals = "site", "severity", "alarm"

func main() {}

func configure(json []byte) error {
	for name, dst := range map[string]*string{"key": &key, "match": &match, "equals": &equals} {
		if f, ok := weir.Find(json, name); ok {
			s, ok := weir.String(f.Value)
			if !ok {
				return errors.New(name + ": expecting a string")
			}
			*dst = string(s)
		}
	}
	return nil
}

func onRecord(r *weir.Record) {
	f, _ := weir.Find(r.Data(), key)
	site, _ := weir.String(f.Value)
	if len(site) == 0 {
		r.Fail(1, "the field to route by is missing or not a string")
		return
	}
	to := 0
	if f, ok := weir.Find(r.Data(), match); ok {
		if s, ok := weir.String(f.Value); ok && string(s) == equals {
			to = 1
		}
	}
	r.SetKey(site)
	r.PartitionKey(site)
	r.Forward(to)
}
