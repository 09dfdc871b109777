//go:build wasm

// The probe module does what a record's "do" says and answers with what it got.
// The tests run it to see every call of the SDK at work; it is no example.
package main

import (
	"errors"

	"github.com/weirhq/weir/sdk/guest/go/weir"
)

var _ = weir.Register(weir.Module{Configure: configure, Record: onRecord, Tick: tick, Migrate: migrate})

var (
	counter, gauge, histogram weir.Metric
	page                      [2048]byte
)

func main() {}

func configure(json []byte) error {
	counter, gauge, histogram = weir.Counter("probe_total"), weir.Gauge("probe_level"), weir.Histogram("probe_size")
	if _, refuse := weir.Find(json, "refuse"); refuse {
		return errors.New("refused")
	}
	return nil
}

func migrate(from uint32) error {
	if from != 1 {
		return errors.New("can't")
	}
	return nil
}

func tick(nowMS int64) { weir.Emit(1, nil, weir.AppendInt(weir.Buffer(20), nowMS)) }

// code is an answer as the host gave it.
func code(err error) int64 {
	var e weir.Error
	if errors.As(err, &e) {
		return int64(e)
	}
	return 0
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func about(b []byte, r *weir.Record) []byte {
	i := weir.BatchInfo()
	b = weir.AppendQuoted(b, r.Key())
	for _, n := range []int64{
		flag(r.Key() != nil), r.TimestampMS(), int64(r.Index()), int64(r.Input()), int64(r.Number()), int64(i.Shard),
		int64(i.BaseIndex), i.TimeMS, int64(i.ID), int64(i.Attempt), int64(i.Flags), int64(i.CPUBudgetMS),
		int64(i.Seed), int64(i.Records), weir.BatchTimeMS(), weir.WallTimeMS(), weir.MonotonicNS(),
	} {
		b = weir.AppendInt(append(b, ' '), n)
	}
	return b
}

func state(b []byte) []byte {
	k := []byte("k")
	_, err := weir.StateGet(k, page[:])
	b = weir.AppendInt(b, code(err))
	b = weir.AppendInt(b, code(weir.StatePut(k, []byte("value"))))
	n, err := weir.StateGet(k, page[:2])
	b = weir.AppendInt(weir.AppendInt(b, code(err)), int64(n))
	n, err = weir.StateGet(k, page[:])
	b = append(weir.AppendInt(b, code(err)), page[:n]...)
	_, err = weir.StateIncr(k, 1)
	b = weir.AppendInt(b, code(err))
	b = weir.AppendInt(b, code(weir.StateDelete(k)))
	_, err = weir.StateIncr([]byte("n"), 5)
	b = weir.AppendInt(b, code(err))
	sum, err := weir.StateIncr([]byte("n"), -12)
	return weir.AppendInt(weir.AppendInt(b, code(err)), sum)
}

func scan(b []byte) []byte {
	key := []byte("p/00")
	for i := range 100 {
		key[2], key[3] = byte('0'+i/10), byte('0'+i%10)
		_ = weir.StatePut(key, page[:i])
	}
	entries, size := int64(0), int64(0)
	_ = weir.StateScan([]byte("p/"), page[:256], func(k, v []byte) bool {
		entries++
		size += int64(len(v)) + int64(k[3])
		return true
	})
	b = weir.AppendInt(append(weir.AppendInt(b, entries), ' '), size)
	found := false
	err := weir.StateScan([]byte("p/"), page[:8], func(_, _ []byte) bool {
		found = true
		return true
	})
	return weir.AppendInt(weir.AppendInt(b, flag(found)), code(err))
}

func http(b []byte) []byte {
	request := []byte("POST https://example.com/a\nContent-Type: text/plain\n\nhello")
	status, n, err := weir.HTTPCall(request, page[:])
	b = append(weir.AppendInt(b, int64(status)+code(err)), ' ')
	b = append(b, weir.HTTPBody(page[:n])...)
	return weir.AppendInt(b, code(weir.HTTPEnqueue(request)))
}

func number(b, data []byte) []byte {
	f, _ := weir.Find(data, "v")
	if d, ok := weir.Number(f.Value); ok {
		b = weir.AppendFixed(b, d, 9)
	}
	b = append(b, ' ')
	if i, ok := weir.Integer(f.Value); ok {
		b = weir.AppendInt(b, i)
	}
	return b
}

func logAll(r *weir.Record) {
	weir.Log(weir.LevelWarn, string(r.Data()))
	counter.Add(2)
	gauge.Set(3.5)
	histogram.Observe(1.25)
}

func onRecord(r *weir.Record) {
	f, _ := weir.Find(r.Data(), "do")
	what, _ := weir.String(f.Value)
	b := weir.Buffer(256)
	switch string(what) {
	case "about":
		b = about(b, r)
	case "state":
		b = state(b)
	case "scan":
		b = scan(b)
	case "http":
		b = http(b)
	case "big":
		for i := range int64(40000) {
			b = weir.AppendInt(b, i)
		}
	case "log":
		logAll(r)
	case "number":
		b = number(b, r.Data())
	case "now":
		b = weir.AppendInt(b, code(r.EmitNow(1, []byte("other"), []byte("at once"))))
		b = weir.AppendInt(b, code(r.EmitNow(0, nil, []byte("under its own key"))))
	default:
		verdict(r, string(what))
		return
	}
	r.ReplaceTo(1, b)
}

func verdict(r *weir.Record, what string) {
	switch what {
	case "emit":
		r.Emit(1, []byte("other"), []byte("one"))
		r.Emit(1, nil, []byte("two"))
		r.Forward(0)
		r.SetKey([]byte("forwarded"))
		r.Drop() // what was emitted stays
	case "keyed":
		r.SetKey([]byte("new key"))
		r.PartitionKey([]byte("a=1\nb=2"))
	case "retry":
		r.Forward(0)
		r.Retry()
	case "code":
		r.Forward(0)
		r.Fail(77, "")
	case "":
		r.Fail(78, "nothing to do")
	default:
		r.Forward(0)
		r.Fail(78, what)
	}
}
