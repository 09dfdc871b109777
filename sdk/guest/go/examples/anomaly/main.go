//go:build wasm

// The anomaly module emits an alert for a reading that is far from the device's
// last ones.
//
// A consumer: the state holds the last window values of each device. A value
// whose distance from their mean is more than z standard deviations is an alert;
// it enters the window all the same, so that a new level becomes normal.
//
//	in:     {"device":"pump-1","value":12.5}
//	out:    {"device":"pump-1","value":99,"mean":12.4,"z":8.21}
//	config: {z: 4, window: 32, warmup: 8}
package main

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/weirhq/weir/sdk/guest/go/weir"
)

var _ = weir.Register(weir.Module{Configure: configure, Record: onRecord})

const maxWindow = 128

var (
	zLimit         = 4.0
	window, warmup = int64(32), int64(8)
	cell           [8 + 8*maxWindow]byte
)

func main() {}

func configure(json []byte) error {
	if f, ok := weir.Find(json, "z"); ok {
		if zLimit, ok = weir.Number(f.Value); !ok {
			return errors.New("z: expecting a number")
		}
	}
	for name, dst := range map[string]*int64{"window": &window, "warmup": &warmup} {
		if f, ok := weir.Find(json, name); ok {
			if *dst, ok = weir.Integer(f.Value); !ok {
				return errors.New(name + ": expecting a whole number")
			}
		}
	}
	if zLimit <= 0 || window > maxWindow || warmup < 2 || warmup > window {
		return errors.New("expecting z above 0 and 2 <= warmup <= window <= 128")
	}
	return nil
}

// The state holds, under a device's name: u32 count, u32 place of the next
// value, then window values as f64, all little-endian.

func valueAt(i uint32) float64 {
	return math.Float64frombits(binary.LittleEndian.Uint64(cell[8+8*i:]))
}

func alert(r *weir.Record, device []byte, v, mean, z float64) {
	b := append(weir.Buffer(128+len(device)), `{"device":"`...)
	b = append(b, device...)
	b = append(b, `","value":`...)
	b = weir.AppendFixed(b, v, 3)
	b = append(b, `,"mean":`...)
	b = weir.AppendFixed(b, mean, 3)
	b = append(b, `,"z":`...)
	b = weir.AppendFixed(b, z, 2)
	r.Emit(0, device, append(b, '}'))
}

// judge compares v with the count values in cell.
func judge(r *weir.Record, device []byte, v float64, count uint32) {
	sum, squares := 0.0, 0.0
	for i := range count {
		sum += valueAt(i)
	}
	mean := sum / float64(count)
	for i := range count {
		squares += (valueAt(i) - mean) * (valueAt(i) - mean)
	}
	deviation, distance := math.Sqrt(squares/float64(count)), math.Abs(v-mean)
	if distance <= zLimit*deviation || distance <= 1e-9 {
		return
	}
	z := 1e6
	if deviation > 0 {
		z = distance / deviation
	}
	alert(r, device, v, mean, z)
}

func onRecord(r *weir.Record) {
	d, _ := weir.Find(r.Data(), "device")
	f, _ := weir.Find(r.Data(), "value")
	device, _ := weir.String(d.Value)
	v, isNumber := weir.Number(f.Value)
	if len(device) == 0 || !isNumber {
		r.Fail(1, "expecting device and value")
		return
	}
	size := 8 + 8*int(window)
	state := cell[:size]
	if n, err := weir.StateGet(device, state); err != nil || n != size {
		clear(state)
	}
	count, next := binary.LittleEndian.Uint32(state), binary.LittleEndian.Uint32(state[4:])
	if count >= uint32(warmup) {
		judge(r, device, v, count)
	}
	binary.LittleEndian.PutUint64(state[8+8*next:], math.Float64bits(v))
	binary.LittleEndian.PutUint32(state, min(count+1, uint32(window)))
	binary.LittleEndian.PutUint32(state[4:], (next+1)%uint32(window))
	if weir.StatePut(device, state) != nil {
		r.Fail(2, "the state is full")
	}
}
