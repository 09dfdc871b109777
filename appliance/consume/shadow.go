package consume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
)

// What a shadow may take of its shard's time.
const (
	// shadowBatch is when a shadow gives up a batch that it breaks on again and again.
	// Engine.shadowBatch and shadowHead are what counts.
	shadowBatch = 250 * time.Millisecond
	// shadowHead is how much longer than the active version it may have run in
	// all before batches pass it by.
	shadowHead = 500 * time.Millisecond
	// shadowAgain is when one that could not be started is tried again.
	shadowAgain = 30 * time.Second
	// exampleText is how much of a key, record or request an example shows, bytes.
	exampleText = 200
)

var (
	errShadowSlow  = errors.New("gave up a batch after 250 ms")
	errShadowRetry = errors.New("asked to be tried again later")
	errShadowState = errors.New("its state_version is not that of the active version")
)

// shadow is another version of the consumer, run on the batches of one shard
// just before the active version is, over the same state and without effect:
// what it reads comes from the worker's state, what it writes lives until the
// batch is compared.
type shadow struct {
	version *module.Version
	run     *worker // borrows the methods that run batches; never commits
	spent   time.Duration
	active  time.Duration
	again   time.Time // when it could not be started: not before this
}

// under is a worker's state as the source of its shadow's.
type under struct{ s *state }

func (u under) get(key []byte) ([]byte, bool, error) {
	v, present, err := u.s.Get(key)
	return slices.Clone(v), present, err
}

func (u under) scan(prefix, after []byte, fn func(key, value []byte) bool) error {
	return u.s.Scan(prefix, after, math.MaxInt, fn)
}

// followShadow makes the shadow the one that the catalogue names.
func (w *worker) followShadow() {
	v := w.e.o.Modules.ShadowOf(w.k.consumer)
	if w.shadow != nil && w.shadow.version != v {
		w.dropShadow()
	}
	if w.shadow == nil && v != nil {
		w.shadow = &shadow{version: v}
	}
}

func (w *worker) dropShadow() {
	if w.shadow != nil && w.shadow.run != nil {
		w.shadow.run.dropInstance()
	}
	w.shadow = nil
}

// compared runs what is to be done for n records, first by the shadow if there
// is one, and reports what the two did differently. Only the active version's
// error counts.
func (w *worker) compared(ctx context.Context, n int, run func(w *worker) error) error {
	s := w.shadow
	if s == nil {
		return run(w)
	}
	found := transform.ShadowReport{Version: s.version.Manifest.Version}
	theirs := s.try(ctx, w, n, run, &found)
	emits, requests, failed, commits := len(w.group.emits), len(w.group.requests), len(w.failed), w.stored.Commits
	w.state.watch = map[string]image{}
	start := time.Now()
	err := run(w)
	s.active += time.Since(start)
	before := w.state.watch
	w.state.watch = nil
	if err != nil {
		return err
	}
	switch {
	case theirs == nil:
	case w.stored.Commits != commits: // a retry: part of what it did is stored already
		found.Skipped += uint64(n)
	default:
		ours := effectsOf(w, emits, requests, failed)
		found.Records += uint64(n)
		w.differences(&found, ours, theirs, before)
	}
	w.version.Compared(found)
	return nil
}

// try runs the shadow and returns what it did, nil when it was passed by or did
// not get to an end; found says so then.
func (s *shadow) try(ctx context.Context, w *worker, n int, run func(w *worker) error, found *transform.ShadowReport) *effects {
	now := time.Now()
	if now.Before(s.again) || s.spent > s.active+w.e.shadowHead {
		found.Skipped += uint64(n)
		return nil
	}
	if s.run == nil {
		if err := s.start(ctx, w); err != nil {
			s.again = now.Add(shadowAgain)
			found.Errors++
			found.Error = err.Error()
			found.Skipped += uint64(n)
			return nil
		}
	}
	r := s.run
	r.batch, r.at, r.until = w.batch, w.at, now.Add(w.e.shadowBatch)
	r.group.fallback, r.group.waiting = w.group.fallback, w.group.waiting+len(w.group.requests)
	r.state.bytes, r.state.count = w.state.bytes, w.state.count
	err := run(r)
	var did *effects
	if err == nil {
		did = effectsOf(r, 0, 0, 0)
	} else {
		found.Skipped += uint64(n)
		if !errors.Is(err, errShadowRetry) {
			found.Errors++
			found.Error = err.Error()
		}
	}
	r.judge()
	r.group.reset()
	r.state.forget()
	if r.guest == nil || !r.guest.Instance().Healthy() { // ended by an error that the worker would end its tenure for
		r.dropInstance()
		s.run = nil
	}
	s.spent += time.Since(now)
	return did
}

// start makes the shadow's instance.
func (s *shadow) start(ctx context.Context, w *worker) error {
	m := s.version.Manifest
	if m.StateVersion != w.version.Manifest.StateVersion {
		return errShadowState
	}
	r := &worker{e: w.e, k: w.k, stream: w.stream, shardName: w.shardName, version: s.version}
	r.group.check, r.group.room = checkRequest(s.version.HTTP()), w.group.room
	for _, name := range m.Outputs {
		st, err := w.e.o.Store.Stream(name)
		if err != nil {
			return fmt.Errorf("%w: %s", errOutput, name)
		}
		r.group.outputs = append(r.group.outputs, st)
	}
	r.state = &state{source: under{w.state}, limit: s.version.Limits.StateBytes, entries: map[string]*entry{}, batch: 1}
	if err := r.instance(ctx); err != nil {
		return err
	}
	s.run = r
	return nil
}

// effects is what a version did with a batch, as it is compared.
type effects struct {
	emits    []string
	requests []string
	failed   []uint64
	state    map[string]image // keys that were written, as they are then
}

// effectsOf collects what stands in a worker's group beyond these lengths, and
// the keys its state would store.
func effectsOf(w *worker, emits, requests, failed int) *effects {
	d := &effects{state: map[string]image{}, failed: slices.Clone(w.failed[failed:])}
	for _, e := range w.group.emits[emits:] {
		d.emits = append(d.emits, fmt.Sprintf("to %s key=%q data=%q", w.group.outputs[e.stream].Name(), w.group.at(e.key), w.group.at(e.data)))
	}
	for _, r := range w.group.requests[requests:] {
		d.requests = append(d.requests, fmt.Sprintf("%q", w.group.at(r)))
	}
	for _, e := range w.state.dirty {
		d.state[e.key] = e.image()
	}
	return d
}

// differences adds to found what ours, the active version's effects, and
// theirs differ in. before is how the keys were that ours wrote.
func (w *worker) differences(found *transform.ShadowReport, ours, theirs *effects, before map[string]image) {
	first := w.at.Next
	if len(w.batch.Records) > 0 {
		first = w.batch.Records[0].Index
	}
	add := func(what string, index uint64, active, shadow string) {
		found.Differ++
		if len(found.Examples) < transform.ShadowExamples {
			found.Examples = append(found.Examples, transform.Difference{
				What: what, Stream: w.stream.Name(), Shard: uint32(w.k.shard), Index: index, Active: shorten(active), Shadow: shorten(shadow),
			})
		}
	}
	unmatched("emitted", first, ours.emits, theirs.emits, add)
	unmatched("request", first, ours.requests, theirs.requests, add)
	for _, i := range ours.failed {
		if !slices.Contains(theirs.failed, i) {
			add("record", i, "failed", "did not fail")
		}
	}
	for _, i := range theirs.failed {
		if !slices.Contains(ours.failed, i) {
			add("record", i, "did not fail", "failed")
		}
	}
	keys := make([]string, 0, len(before)+len(theirs.state))
	for k := range before {
		keys = append(keys, k)
	}
	for k := range theirs.state {
		if _, ok := before[k]; !ok {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		e, err := w.state.load([]byte(k))
		if err != nil {
			return // the worker meets it at its next call
		}
		shadow, wrote := theirs.state[k]
		if !wrote {
			shadow = before[k]
		}
		if active := e.image(); active != shadow {
			add(fmt.Sprintf("state %q", k), first, active.String(), shadow.String())
		}
	}
}

// unmatched pairs what only one of the two did, in order; the same things in
// another order are one difference.
func unmatched(what string, index uint64, ours, theirs []string, add func(what string, index uint64, active, shadow string)) {
	if slices.Equal(ours, theirs) {
		return
	}
	count := map[string]int{}
	for _, t := range theirs {
		count[t]++
	}
	var a, b []string
	for _, o := range ours {
		if count[o]--; count[o] < 0 {
			a = append(a, o)
		}
	}
	for _, t := range slices.Backward(theirs) { // what is left over of equal things are the last
		if count[t] > 0 {
			count[t]--
			b = append(b, t)
		}
	}
	slices.Reverse(b)
	if len(a)+len(b) == 0 {
		for i := range ours {
			if ours[i] != theirs[i] {
				add(what+" in another order", index, ours[i], theirs[i])
				return
			}
		}
	}
	for i := range max(len(a), len(b)) {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		add(what, index, x, y)
	}
}

// String prints a key's value for an example.
func (i image) String() string {
	if !i.present {
		return "absent"
	}
	return fmt.Sprintf("%q", i.value)
}

func shorten(s string) string {
	if len(s) > exampleText {
		return strings.ToValidUTF8(s[:exampleText], "") + "…"
	}
	return s
}
