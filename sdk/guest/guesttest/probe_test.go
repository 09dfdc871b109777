package guesttest

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/weirhq/weir/wasm/abi"
)

var longText = func() string {
	var b strings.Builder
	for i := range 40000 {
		fmt.Fprint(&b, i)
	}
	return b.String()
}()

// probes are commands to the probe and what becomes of the record; an answer goes
// to output 1 under the record's own key.
var probes = []struct {
	command, answer string
	outcome         *Outcome // where an answer isn't all
}{
	{command: `{"do":"about"}`, answer: `"k\"\\\u000a" 1 1700000000123 1000 0 0 3 1000 1700000009999 0 0 0 100 42 16 1700000009999 1700000009999 1700000009999000000`},
	{command: `{"do":"state"}`, answer: "-10-250value-30" + "00-7"},
	{command: `{"do":"scan"}`, answer: "100 10200" + "0-2"},
	{command: `{"do":"http"}`, answer: "201 {\"ok\":true}0"},
	{command: `{"do":"big"}`, answer: longText},
	{command: `{"do":"log"}`, answer: ""},
	{command: `{"do":"number","v":-1234.5678901234}`, answer: "-1234.567890123 "},
	{command: `{"do":"number","v":-987654321012345678}`, answer: "null -987654321012345678"},
	{command: `{"do":"number","v":9e99999}`, answer: "null "},
	{command: `{"do":"now"}`, answer: "00"},
	{command: `{"do":"emit"}`, outcome: &Outcome{Status: abi.StatusReplaced, Outputs: []Output{
		{Source: 10, Output: 1, Key: "other", Data: "one"},
		{Source: 10, Output: 1, Key: "k\"\\\n", Data: "two"},
		{Source: 10, Output: 0, Key: "forwarded", Data: `{"do":"emit"}`},
	}}},
	{command: `{"do":"keyed"}`, outcome: &Outcome{Status: abi.StatusReplaced, Outputs: []Output{
		{Source: 11, Key: "new key", Data: `{"do":"keyed"}`, Parts: "a=1\nb=2"},
	}}},
	{command: `{"do":"retry"}`, outcome: &Outcome{Status: abi.StatusRetry}},
	{command: `{"do":"code"}`, outcome: &Outcome{Status: abi.StatusFailed, Code: 77}},
	{command: `{"do":"what?"}`, outcome: &Outcome{Status: abi.StatusFailed, Code: 78, Reason: "what?"}},
	{command: ``, outcome: &Outcome{Status: abi.StatusFailed, Code: 78, Reason: "nothing to do"}},
}

// TestEveryCallOfTheSDKs runs the probe in each language and compares all that
// the host saw of it.
func TestEveryCallOfTheSDKs(t *testing.T) {
	records := make([]Record, len(probes))
	want := make([]Outcome, len(probes))
	for i, p := range probes {
		records[i] = Record{Key: "k\"\\\n", Data: p.command, TimestampMS: 1700000000123}
		if want[i] = (Outcome{Status: abi.StatusReplaced, Outputs: []Output{{Source: i, Output: 1, Key: records[i].Key, Data: p.answer}}}); p.outcome != nil {
			want[i] = *p.outcome
		}
	}
	engines(t, func(t *testing.T, h *Host) {
		h.HTTP = func(request string) (int, string) {
			if request != "POST https://example.com/a\nContent-Type: text/plain\n\nhello" {
				t.Errorf("HTTP request %q", request)
			}
			return 201, "201\ncontent-type: application/json\n\n{\"ok\":true}"
		}
		for _, language := range languages {
			h.Reset()
			g, err := h.Instantiate(t.Context(), dist(t, language, "probe"), "{}")
			if err != nil {
				t.Fatal(err)
			}
			for round := range 3 { // the second round runs in what the first has used
				h.State = map[string]string{}
				g.batches = 0
				got, err := g.Process(t.Context(), 1700000009999, records, 2)
				if err != nil {
					t.Fatalf("%s: round %d: %v", language, round, err)
				}
				for i := range got {
					if !reflect.DeepEqual(got[i], want[i]) {
						t.Errorf("%s: round %d: %s: %s, expecting %s", language, round, probes[i].command, brief(got[i]), brief(want[i]))
					}
				}
			}
			checkEffects(t, h, language)
			ticked, err := g.Tick(t.Context(), 1700000012345, 2)
			if tick := []Output{{Source: -1, Output: 1, Data: "1700000012345"}}; err != nil || !reflect.DeepEqual(ticked, tick) {
				t.Errorf("%s: tick: %+v, %v", language, ticked, err)
			}
			if err := g.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// checkEffects looks at what three rounds of the probe left behind.
func checkEffects(t *testing.T, h *Host, language string) {
	t.Helper()
	if line := `warn {"do":"log"}`; !reflect.DeepEqual(h.Log, []string{line, line, line}) {
		t.Errorf("%s: log %q", language, h.Log)
	}
	if want := map[string]float64{"probe_total": 6, "probe_level": 3.5, "probe_size": 3.75}; !reflect.DeepEqual(h.Metrics, want) {
		t.Errorf("%s: metrics %v, expecting %v", language, h.Metrics, want)
	}
	if len(h.Outbox) != 3 || len(h.State) != 101 || h.State["n"] != "\xf9\xff\xff\xff\xff\xff\xff\xff" {
		t.Errorf("%s: %d requests in the outbox, %d state entries, n = %x", language, len(h.Outbox), len(h.State), h.State["n"])
	}
	chunks := []Output{{Source: 9, Output: 1, Key: "other", Data: "at once"}, {Source: 9, Output: 0, Key: "k\"\\\n", Data: "under its own key"}}
	if len(h.Chunks) != 6 || !reflect.DeepEqual(h.Chunks[:2], chunks) {
		t.Errorf("%s: handed over at once: %+v", language, h.Chunks)
	}
}

// brief prints an outcome with long data cut to its hash.
func brief(o Outcome) string {
	out := fmt.Sprintf("status %d code %d reason %q", o.Status, o.Code, o.Reason)
	for _, x := range o.Outputs {
		if len(x.Data) > 300 {
			x.Data = fmt.Sprintf("%d bytes %x", len(x.Data), sha256.Sum256([]byte(x.Data)))
		}
		out += fmt.Sprintf(" %+v", x)
	}
	return out
}

// TestRefusedConfigAndMigration covers the answers below zero.
func TestRefusedConfigAndMigration(t *testing.T) {
	engines(t, func(t *testing.T, h *Host) {
		for _, language := range languages {
			wasm := dist(t, language, "probe")
			if _, err := h.Instantiate(t.Context(), wasm, `{"refuse":true}`); err == nil || !strings.Contains(err.Error(), "refused with -3") {
				t.Errorf("%s: refused config: %v", language, err)
			}
			g, err := h.Instantiate(t.Context(), wasm, "{}")
			if err != nil {
				t.Fatal(err)
			}
			for from, want := range map[uint64]int32{1: 0, 2: -3} {
				if got, err := g.mod.ExportedFunction(abi.ExportMigrate).Call(t.Context(), from); err != nil || int32(got[0]) != want {
					t.Errorf("%s: migrate from %d: %v, %v; expecting %d", language, from, got, err, want)
				}
			}
		}
	})
}
