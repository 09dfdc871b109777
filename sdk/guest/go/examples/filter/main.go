//go:build wasm

// The filter module passes on the records whose field is at least min and drops
// the others.
//
//	config: {field: temp, min: 25}
package main

import (
	"errors"

	"github.com/weirhq/weir/sdk/guest/go/weir"
)

var _ = weir.Register(weir.Module{Configure: configure, Record: onRecord})

var (
	field = "temp"
	least = 25.0
)

func main() {}

func configure(json []byte) error {
	if f, ok := weir.Find(json, "field"); ok {
		s, ok := weir.String(f.Value)
		if !ok {
			return errors.New("field: expecting a string")
		}
		field = string(s)
	}
	if f, ok := weir.Find(json, "min"); ok {
		if least, ok = weir.Number(f.Value); !ok {
			return errors.New("min: expecting a number")
		}
	}
	return nil
}

func onRecord(r *weir.Record) {
	f, ok := weir.Find(r.Data(), field)
	v, isNumber := weir.Number(f.Value)
	switch {
	case !ok || !isNumber:
		r.Fail(1, "the field is missing or not a number")
	case v < least:
		r.Drop()
	}
}
