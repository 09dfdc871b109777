//go:build wasm

// The rename module converts a field's unit and renames it, and keeps the rest
// of the record as it is: {"temp_f":77.9} becomes {"temp_c":25.5}. The new value
// is (value + offset) * factor.
//
//	config: {from: temp_f, to: temp_c, offset: -32, factor: 0.5555555555555556, decimals: 2}
package main

import (
	"errors"

	"github.com/weirhq/weir/sdk/guest/go/weir"
)

var _ = weir.Register(weir.Module{Configure: configure, Record: onRecord})

var (
	from, to       = "temp_f", "temp_c"
	offset, factor = -32.0, 5.0 / 9.0
	decimals       = int64(2)
)

func main() {}

func configure(json []byte) error {
	for name, dst := range map[string]*string{"from": &from, "to": &to} {
		if f, ok := weir.Find(json, name); ok {
			s, ok := weir.String(f.Value)
			if !ok {
				return errors.New(name + ": expecting a string")
			}
			*dst = string(s)
		}
	}
	for name, dst := range map[string]*float64{"offset": &offset, "factor": &factor} {
		if f, ok := weir.Find(json, name); ok {
			if *dst, ok = weir.Number(f.Value); !ok {
				return errors.New(name + ": expecting a number")
			}
		}
	}
	if f, ok := weir.Find(json, "decimals"); ok {
		if decimals, ok = weir.Integer(f.Value); !ok {
			return errors.New("decimals: expecting a whole number")
		}
	}
	return nil
}

func onRecord(r *weir.Record) {
	data := r.Data()
	f, ok := weir.Find(data, from)
	if !ok {
		return // nothing to convert: pass it on
	}
	v, ok := weir.Number(f.Value)
	if !ok {
		r.Fail(1, "the field is not a number")
		return
	}
	b := weir.Buffer(len(data) + len(to) + 32)
	b = append(b, data[:f.NameAt]...)
	b = append(b, to...)
	b = append(b, data[f.NameAt+len(from):f.ValueAt]...)
	b = weir.AppendFixed(b, (v+offset)*factor, int(decimals))
	b = append(b, data[f.ValueAt+len(f.Value):]...)
	r.Replace(b)
}
