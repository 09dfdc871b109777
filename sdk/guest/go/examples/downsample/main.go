//go:build wasm

// The downsample module turns readings a second apart into one record a minute
// and device, with count, mean, min and max.
//
// A consumer: the open window of each device is kept in the state, and commits
// together with the records it came from and the ones it emits. A window is
// emitted when a reading of a later one arrives, or by the tick when its time and
// the grace are over. Readings of a window that was emitted are counted as late.
//
//	in:     {"device":"pump-1","ts":1700000000123,"value":12.5}    ts in ms
//	out:    {"device":"pump-1","window":1699999980000,"count":60,"mean":12.41,"min":11.9,"max":13.2}
//	config: {window_ms: 60000, grace_ms: 5000}
package main

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/weirhq/weir/sdk/guest/go/weir"
)

var _ = weir.Register(weir.Module{Configure: configure, Record: onRecord, Tick: tick})

var (
	windowMS, graceMS = int64(60000), int64(5000)
	late              weir.Metric
	cell              [windowSize]byte
	page              [16384]byte
)

func main() {}

func configure(json []byte) error {
	for name, dst := range map[string]*int64{"window_ms": &windowMS, "grace_ms": &graceMS} {
		if f, ok := weir.Find(json, name); ok {
			if *dst, ok = weir.Integer(f.Value); !ok {
				return errors.New(name + ": expecting a whole number")
			}
		}
	}
	if windowMS <= 0 || graceMS < 0 {
		return errors.New("expecting window_ms above 0 and grace_ms not below")
	}
	late = weir.Counter("late")
	return nil
}

// window is what the state holds under a device's name, as 40 little-endian bytes.
type window struct {
	start         int64 // ms
	count         uint64
	sum, min, max float64
}

const windowSize = 40

func (w *window) load(b []byte) {
	w.start = int64(binary.LittleEndian.Uint64(b))
	w.count = binary.LittleEndian.Uint64(b[8:])
	w.sum = math.Float64frombits(binary.LittleEndian.Uint64(b[16:]))
	w.min = math.Float64frombits(binary.LittleEndian.Uint64(b[24:]))
	w.max = math.Float64frombits(binary.LittleEndian.Uint64(b[32:]))
}

func (w *window) store(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(w.start))
	binary.LittleEndian.PutUint64(b[8:], w.count)
	binary.LittleEndian.PutUint64(b[16:], math.Float64bits(w.sum))
	binary.LittleEndian.PutUint64(b[24:], math.Float64bits(w.min))
	binary.LittleEndian.PutUint64(b[32:], math.Float64bits(w.max))
}

// text returns the record to emit, and the device's name in it.
func (w *window) text(device []byte) (key, data []byte) {
	const head = `{"device":"`
	b := append(weir.Buffer(160+len(device)), head...)
	b = append(b, device...)
	b = append(b, `","window":`...)
	b = weir.AppendInt(b, w.start)
	b = append(b, `,"count":`...)
	b = weir.AppendInt(b, int64(w.count))
	b = append(b, `,"mean":`...)
	b = weir.AppendFixed(b, w.sum/float64(w.count), 3)
	b = append(b, `,"min":`...)
	b = weir.AppendFixed(b, w.min, 3)
	b = append(b, `,"max":`...)
	b = weir.AppendFixed(b, w.max, 3)
	b = append(b, '}')
	return b[len(head) : len(head)+len(device)], b
}

func (w *window) add(v float64) {
	w.count++
	w.sum += v
	if v < w.min {
		w.min = v
	}
	if v > w.max {
		w.max = v
	}
}

func onRecord(r *weir.Record) {
	d, _ := weir.Find(r.Data(), "device")
	t, _ := weir.Find(r.Data(), "ts")
	f, _ := weir.Find(r.Data(), "value")
	device, _ := weir.String(d.Value)
	ts, isTime := weir.Integer(t.Value)
	v, isNumber := weir.Number(f.Value)
	if len(device) == 0 || !isTime || ts < 0 || !isNumber {
		r.Fail(1, "expecting device, ts and value")
		return
	}
	var w window
	start := ts - ts%windowMS
	n, err := weir.StateGet(device, cell[:])
	open := err == nil && n == windowSize
	if open {
		w.load(cell[:])
	}
	if open && start < w.start {
		late.Add(1)
		r.Drop()
		return
	}
	if open && start > w.start {
		key, data := w.text(device)
		r.Emit(0, key, data)
		open = false
	}
	if !open {
		w = window{start: start, min: v, max: v}
	}
	w.add(v)
	w.store(cell[:])
	if weir.StatePut(device, cell[:]) != nil {
		r.Fail(2, "the state is full")
	}
}

func tick(nowMS int64) {
	_ = weir.StateScan(nil, page[:], func(device, value []byte) bool {
		if len(value) != windowSize {
			return true
		}
		var w window
		w.load(value)
		if w.start+windowMS+graceMS <= nowMS {
			key, data := w.text(device)
			weir.Emit(0, key, data)
			_ = weir.StateDelete(device)
		}
		return true
	})
}
