package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
)

// TestTotalsOutliveARestart: what a delivery stream has done is counted on from
// where it was, and is gone with it.
func TestTotalsOutliveARestart(t *testing.T) {
	o := newOutage(t)
	st := o.stream("s", 1)
	d := delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon()}
	o.off.Store(true)
	o.create(d)
	o.put(st, 0, 1000)
	o.run("an attempt fails", time.Second, func() bool {
		s, err := o.engine.Stats("d")
		return err == nil && s.Retries["Test.Off"] > 0
	})
	o.off.Store(false)
	totals := func() delivery.Stats {
		s, err := o.engine.Stats("d")
		if err != nil {
			t.Fatal(err)
		}
		return delivery.Stats{
			Recipes: s.Recipes, Objects: s.Objects, Records: s.Records, Bytes: s.Bytes, Stored: s.Stored,
			Uplink: s.Uplink, Retries: s.Retries,
		}
	}
	deliverTo := func(n int64) {
		t.Helper()
		o.run("deliver", time.Second, func() bool { return totals().Records == n && o.lag("d") == 0 })
	}
	deliverTo(1000)
	before := totals()
	o.stop()
	e, err := delivery.New(o.store, delivery.Options{OpenSink: o.open, Clock: o.clock})
	if err != nil {
		t.Fatal(err)
	}
	o.engine = e
	if got := totals(); !reflect.DeepEqual(got, before) || got.Objects == 0 || got.Stored == 0 || got.Uplink == 0 || got.Retries["Test.Off"] == 0 {
		t.Errorf("after a restart %+v, before it %+v", got, before)
	}
	o.start()
	o.put(st, 1000, 1500)
	deliverTo(1500)
	if err := e.Delete(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	d.Source.Start = delivery.Latest
	o.create(d)
	if got := totals(); got.Records != 0 || got.Retries != nil {
		t.Errorf("another of the name has %+v", got)
	}
}

// trouble is a module that fails: as often as told, before or after it has given
// a result.
type trouble struct {
	after bool
	calls atomic.Int64
}

func (*trouble) Digest() string { return "trouble" }

func (m *trouble) Process(_ context.Context, b *delivery.TransformBatch, emit func(*delivery.TransformOutput) error) error {
	m.calls.Add(1)
	if m.after {
		if err := emit(&delivery.TransformOutput{}); err != nil {
			return err
		}
	}
	return errors.New("trapped")
}

// TestAModuleThatFailsIsNotTheSink: what people read names who failed.
func TestAModuleThatFailsIsNotTheSink(t *testing.T) {
	for code, transforms := range map[string]func(string, string) (delivery.Transformer, error){
		"Transform.ModuleUnavailable": func(string, string) (delivery.Transformer, error) { return nil, errors.New("no such module") },
		"Transform.Failed":            func(string, string) (delivery.Transformer, error) { return &trouble{after: true}, nil },
	} {
		t.Run(code, func(t *testing.T) {
			r := newRig(t, func(o *delivery.Options) { o.Transforms = transforms })
			st := r.stream("s", 1)
			r.put(st, 0, 10)
			r.create(delivery.Config{Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), Transform: &delivery.Transform{Module: "m"}})
			var s delivery.Stats
			until(t, "it is said who failed", func() (said bool) {
				var err error
				if s, err = r.engine.Stats("d"); err != nil {
					t.Fatal(err)
				}
				return s.Waiting == "the module failed" && s.LastError != nil
			})
			if _, err := r.engine.Test(t.Context(), "d"); (err != nil) != (code == "Transform.ModuleUnavailable") || err != nil && err.Error() != "transform: no such module" {
				t.Errorf("a test finds %v", err)
			}
			if s.LastError.Code != code || s.Retries[code] == 0 {
				t.Errorf("the last error is %+v of %v, want %s", s.LastError, s.Retries, code)
			}
		})
	}
}

// TestRetriesOfAModule: none means none.
func TestRetriesOfAModule(t *testing.T) {
	for _, retries := range []int{0, 2} {
		m := &trouble{}
		r := newRig(t, func(o *delivery.Options) {
			o.Transforms = func(string, string) (delivery.Transformer, error) { return m, nil }
		})
		st := r.stream("s", 1)
		r.put(st, 0, 10)
		r.create(delivery.Config{
			Name: "d", Source: delivery.Source{Stream: "s"}, Buffer: soon(), ErrorPrefix: "failed/", Transform: &delivery.Transform{Module: "m", Retries: &retries},
		})
		r.drained("d")
		rows := 0
		for name, raw := range r.objects() {
			if !strings.HasPrefix(name, "failed/") {
				t.Errorf("object %s of a module that always fails", name)
			}
			rows += bytes.Count(raw, []byte(`"attemptsMade":`+string(rune('1'+retries))+`,`))
		}
		// Once for the data, once for the rows of what failed.
		if calls := m.calls.Load(); rows != 10 || calls != int64(2*(retries+1)) {
			t.Errorf("%d retries: %d rows, %d calls", retries, rows, calls)
		}
	}
}
