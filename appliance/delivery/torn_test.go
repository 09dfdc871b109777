package delivery_test

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

// TestPastATornObject delivers into a store that for ever refuses names as
// taken under which it has nothing: what was stuck goes on, each record once.
func TestPastATornObject(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	p := sinktest.Contradicting(t, g.URL)
	settings, _ := json.Marshal(map[string]string{"endpoint": p.URL, "bucket": "bucket", "access_key_id": g.Access, "secret_access_key": g.Secret})
	table, err := sink.New([]sink.Config{{Name: "store", Kind: "s3", Settings: settings}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *delivery.Options) { o.OpenSink, o.MaxBackoff = table.Open, 10*time.Millisecond })
	st := r.stream("s", 1)
	r.put(st, 0, 1000)
	err = r.engine.Create(t.Context(), delivery.Config{
		Name: "d", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: "store"},
		Buffer: delivery.Buffer{SizeBytes: 8000, Interval: delivery.Every(10 * time.Millisecond)},
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "everything is delivered", func() bool {
		s, err := r.engine.Stats("d")
		if err != nil {
			t.Fatal(err)
		}
		return s.Records == 1000 && s.LagRecords == 0 && s.Retries["S3.ObjectTorn"] >= delivery.TornAfter
	})
	seen := map[int]bool{}
	for _, n := range delivered(t, filepath.Join(g.Dir, "bucket")) {
		if seen[n] {
			t.Errorf("record %d was delivered twice", n)
		}
		seen[n] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 records were delivered", len(seen))
	}
}
