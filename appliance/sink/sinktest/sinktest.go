// Package sinktest is what every sink has to do, as tests: one suite for sinks
// that store objects and one for those that take records, and the servers and
// faults that they are run against.
//
// It owns no server: versitygw is built from its module, everything that goes
// wrong between a sink and its server is done by the proxy here.
package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
)

// Objects is a sink under test and how to look behind it.
type Objects struct {
	Sink delivery.ObjectSink
	// Read returns what the store has under a name.
	Read func(key string) (data []byte, found bool)
	// Faults is between the sink and its store; nil when there is no line.
	Faults *Proxy
	// Guarantee is what Probe must find.
	Guarantee delivery.Guarantee
	// Lock makes the store refuse the sink, as it does when credentials have
	// expired, and lets it in again.
	Lock func(locked bool)
}

// Object makes an object of recipe with the given content.
func Object(key, recipe string, content []byte) *delivery.Object {
	return &delivery.Object{
		Key: key, ContentType: "application/octet-stream",
		Metadata: map[string]string{delivery.RecipeKey: recipe, delivery.RangesKey: "0:1-9"},
		Buffer:   make([]byte, 0, 5<<20),
		Render: func(w io.Writer) error {
			for rest := content; len(rest) > 0; {
				n, err := w.Write(rest[:min(len(rest), 60_000)])
				if err != nil {
					return err
				}
				rest = rest[n:]
			}
			return nil
		},
		Throttle: func(r io.Reader) io.Reader { return r },
	}
}

// Content is n bytes that differ from place to place.
func Content(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i*7919)
	}
	return b.Bytes()[:n]
}

// RunObjects runs the suite on sinks that open makes, one for each case.
func RunObjects(t *testing.T, open func(t *testing.T) Objects) {
	cases := map[string]func(t *testing.T, o Objects){
		"stores what it is given":               stores,
		"stores nothing for no records":         storesNothing,
		"finds its own object again":            findsOwn,
		"leaves an object of others alone":      leavesOthers,
		"stores objects larger than the buffer": storesLarge,
		"leaves nothing of a failed rendering":  leavesNothing,
		"ends with its context":                 endsWithContext,
		"probes and clears up":                  probes,
		"goes on after it was locked out":       goesOn,
		"waits for the line":                    waits,
		"leaves a busy store alone":             leavesAlone,
		"keeps its connection":                  keepsConnection,
		"says which names can't be":             refusesNames,
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			o := open(t)
			run(t, o)
			if err := o.Sink.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, f := range Faults {
		t.Run("survives "+f.Name, func(t *testing.T) {
			o := open(t)
			if o.Faults == nil {
				return
			}
			survives(t, o, f)
		})
	}
}

// goesOn has the credentials expire: the attempts meanwhile are refused, and
// the next one stores.
func goesOn(t *testing.T, o Objects) {
	content := Content(200_000)
	mustPut(t, o, Object("before", "r1", content))
	o.Lock(true)
	for _, mayExist := range []bool{false, true} {
		obj := Object("k", "r2", content)
		obj.MayExist = mayExist
		_, err := o.Sink.PutObject(t.Context(), obj)
		var s *delivery.SinkError
		if !errors.As(err, &s) || !s.Refused {
			t.Fatalf("locked out, MayExist %t: %v, want a refusal", mayExist, err)
		}
	}
	o.Lock(false)
	if stored := mustPut(t, o, Object("k", "r2", content)); stored.Duplicate {
		t.Error("an attempt that was refused has stored the object")
	}
	mustHold(t, o, "k", content)
	mustHold(t, o, "before", content)
}

// gated lets n bytes through and holds the rest back.
type gated struct {
	r    io.Reader
	left int
	full chan struct{}
	gate <-chan struct{}
}

func (g *gated) Read(p []byte) (int, error) {
	if g.left == 0 {
		select {
		case g.full <- struct{}{}:
		default:
		}
		<-g.gate
		g.left = math.MaxInt
	}
	n, err := g.r.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

// waits holds the line back in the middle of an object: nothing is there until
// it gets through, and then all of it.
func waits(t *testing.T, o Objects) {
	if !o.Sink.Metered() {
		return // nothing of it goes over a line
	}
	content := Content(300_000)
	gate, full := make(chan struct{}), make(chan struct{}, 1)
	obj := Object("slow", "r1", content)
	obj.Throttle = func(r io.Reader) io.Reader { return &gated{r: r, left: 100_000, full: full, gate: gate} }
	done := make(chan error, 1)
	go func() {
		_, err := o.Sink.PutObject(t.Context(), obj)
		done <- err
	}()
	<-full
	if _, found := o.Read("slow"); found {
		t.Error("part of an object is there")
	}
	select {
	case err := <-done:
		t.Fatalf("the put ended while the line was held back: %v", err)
	default:
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mustHold(t, o, "slow", content)
}

// leavesAlone has the store ask for a pause.
func leavesAlone(t *testing.T, o Objects) {
	if o.Faults == nil {
		return
	}
	o.Faults.Arm(Fault{Name: "503", Status: 503, Code: "SlowDown", RetryAfter: "7"})
	_, err := o.Sink.PutObject(t.Context(), Object("k", "r1", Content(1000)))
	var s *delivery.SinkError
	if !errors.As(err, &s) || s.RetryAfter != 7*time.Second {
		t.Errorf("got %v, want to be told to wait for 7 s", err)
	}
}

func mustPut(t *testing.T, o Objects, obj *delivery.Object) delivery.Stored {
	t.Helper()
	stored, err := o.Sink.PutObject(t.Context(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func mustHold(t *testing.T, o Objects, key string, want []byte) {
	t.Helper()
	got, found := o.Read(key)
	if !found || !bytes.Equal(got, want) {
		t.Fatalf("%s: found %t with %d bytes, want %d", key, found, len(got), len(want))
	}
}

func stores(t *testing.T, o Objects) {
	for _, size := range []int{0, 1, 100_000} {
		key := fmt.Sprintf("a/b c/%d=x.bin", size)
		content := Content(size)
		stored := mustPut(t, o, Object(key, "r1", content))
		if stored.Bytes != int64(size) || stored.Duplicate {
			t.Errorf("stored %+v of %d bytes", stored, size)
		}
		mustHold(t, o, key, content)
	}
}

// refusesNames: what comes into a name from records must not be tried for ever, nor lead
// out of the folder of a store that keeps objects as files. The last two are too long for
// a folder's entry.
func refusesNames(t *testing.T, o Objects) {
	for _, key := range []string{"../../out", "a/../../../out", "a\x00b", strings.Repeat("n", 300), "a/" + strings.Repeat("n", 300) + "/b"} {
		_, err := o.Sink.PutObject(t.Context(), Object(key, "r1", []byte("x")))
		var e *delivery.SinkError
		if !errors.As(err, &e) || !e.BadName || !e.Refused {
			t.Errorf("%.20q: %v", key, err)
		}
	}
	mustPut(t, o, Object("..a/b.../.c", "r1", []byte("x")))
}

func storesNothing(t *testing.T, o Objects) {
	obj := Object("none", "r1", nil)
	obj.Render = func(io.Writer) error { return delivery.ErrNoRecords }
	if _, err := o.Sink.PutObject(t.Context(), obj); !errors.Is(err, delivery.ErrNoRecords) {
		t.Fatalf("got %v", err)
	}
	if _, found := o.Read("none"); found {
		t.Error("an object is there")
	}
}

func findsOwn(t *testing.T, o Objects) {
	content := Content(5000)
	mustPut(t, o, Object("k", "r1", content))
	for _, mayExist := range []bool{false, true} {
		obj := Object("k", "r1", content)
		obj.MayExist = mayExist
		if stored := mustPut(t, o, obj); !stored.Duplicate || stored.Bytes != 5000 {
			t.Errorf("MayExist %t: stored %+v, want a duplicate of 5000 bytes", mayExist, stored)
		}
	}
	mustHold(t, o, "k", content)
}

func leavesOthers(t *testing.T, o Objects) {
	content := Content(5000)
	mustPut(t, o, Object("k", "theirs", content))
	_, err := o.Sink.PutObject(t.Context(), Object("k", "ours", []byte("other")))
	var s *delivery.SinkError
	if !errors.As(err, &s) {
		t.Fatalf("got %v, want a SinkError", err)
	}
	mustHold(t, o, "k", content)
}

func storesLarge(t *testing.T, o Objects) {
	content := Content(12 << 20)
	for _, cheap := range []bool{false, true} {
		key := fmt.Sprintf("large-%t", cheap)
		obj := Object(key, "r1", content)
		obj.Cheap = cheap
		if stored := mustPut(t, o, obj); stored.Bytes != int64(len(content)) {
			t.Errorf("stored %+v", stored)
		}
		mustHold(t, o, key, content)
		again := Object(key, "r1", content)
		again.Cheap = cheap
		if stored := mustPut(t, o, again); !stored.Duplicate {
			t.Errorf("a second put of %s is not a duplicate", key)
		}
	}
}

var errRender = errors.New("the log can't be read")

func leavesNothing(t *testing.T, o Objects) {
	for _, size := range []int{1000, 8 << 20} {
		obj := Object("broken", "r1", nil)
		obj.Render = func(w io.Writer) error {
			if _, err := w.Write(Content(size)); err != nil {
				return err
			}
			return errRender
		}
		if _, err := o.Sink.PutObject(t.Context(), obj); err == nil {
			t.Error("an object that can't be rendered was stored")
		}
		if _, found := o.Read("broken"); found {
			t.Error("an object is there")
		}
	}
}

func endsWithContext(t *testing.T, o Objects) {
	ctx, cancel := context.WithCancel(t.Context())
	obj := Object("cancelled", "r1", nil)
	obj.Render = func(w io.Writer) error {
		cancel()
		_, err := w.Write(Content(6 << 20))
		return err
	}
	if _, err := o.Sink.PutObject(ctx, obj); err == nil {
		t.Error("a put whose context has ended succeeds")
	}
	if _, found := o.Read("cancelled"); found {
		t.Error("an object is there")
	}
}

func probes(t *testing.T, o Objects) {
	found, err := o.Sink.Probe(t.Context())
	if err != nil || found.Guarantee != o.Guarantee || !strings.Contains(found.Tried, "removed") {
		t.Errorf("probe found %+v, %v; want %q", found, err, o.Guarantee)
	}
}

// keepsConnection stores objects in every way there is, and is refused besides: on
// a line that is paid for by the byte, a handshake for each would cost more than
// many an object. The proxy keeps connections, whatever the store behind it does.
func keepsConnection(t *testing.T, o Objects) {
	if o.Faults == nil {
		return
	}
	small, large := Content(2000), Content(12<<20)
	for n := range 10 {
		mustPut(t, o, Object(fmt.Sprintf("small-%d", n), "r1", small))
	}
	again := Object("small-0", "r1", small)
	mustPut(t, o, again) // refused, and asked for
	again.MayExist = true
	mustPut(t, o, again)
	o.Faults.Arm(Fault{Name: "503", Status: 503, Code: "SlowDown"})
	if _, err := o.Sink.PutObject(t.Context(), Object("busy", "r1", small)); err == nil {
		t.Error("a put that was answered with 503 succeeds")
	}
	mustPut(t, o, Object("parts", "r1", large))
	measured := Object("measured", "r1", large)
	measured.Cheap = true
	mustPut(t, o, measured)
	if n := o.Faults.Connections(); n != 1 {
		t.Errorf("%d connections for %d requests, want one", n, o.Faults.Requests())
	}
}

// survives has each attempt meet the fault once, and then the line be well:
// the object is there once and is whole.
func survives(t *testing.T, o Objects, f Fault) {
	for _, size := range []int{20_000, 7 << 20} {
		key := fmt.Sprintf("faulty-%d", size)
		content := Content(size)
		o.Faults.Arm(f)
		for attempt := 0; ; attempt++ {
			obj := Object(key, "r1", content)
			obj.MayExist = attempt > 0
			_, err := o.Sink.PutObject(t.Context(), obj)
			if err == nil {
				break
			}
			var s *delivery.SinkError
			if !errors.As(err, &s) || s.Code == "" {
				t.Fatalf("attempt %d: %v is not a SinkError", attempt, err)
			}
			if attempt == 10 {
				t.Fatalf("the 10th attempt still fails: %v", err)
			}
		}
		mustHold(t, o, key, content)
	}
}

// Numbered is a sink with names of its own in a store that cases share.
type Numbered struct {
	delivery.ObjectSink
	prefix string
}

// Prefixed gives the n-th case names of its own.
func Prefixed(s delivery.ObjectSink, n int) *Numbered {
	return &Numbered{ObjectSink: s, prefix: fmt.Sprintf("case-%d/", n)}
}

// Key is the name in the store.
func (n *Numbered) Key(key string) string { return n.prefix + key }

// PutObject stores under the case's own name.
func (n *Numbered) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	own := *o
	own.Key = n.Key(o.Key)
	return n.ObjectSink.PutObject(ctx, &own)
}
