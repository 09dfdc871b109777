package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weirhq/weir/wasm/adapter"
	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

// Environment is what a version needs of the box to run.
type Environment struct {
	Runtime   *host.Runtime // built with guest.Imports
	Ceiling   manifest.Limits
	Egress    egress.Policy
	Secret    func(name string) (string, bool)
	Instances int
	Now       func() time.Time
	Logger    *slog.Logger
	Rest      time.Duration // transform.Options.Rest
	// Observe is told what each batch of a transform did.
	Observe func(transform.Report)
}

// Version is one version of a module, loaded when it is first used. Safe for
// concurrent use.
type Version struct {
	Manifest *manifest.Manifest
	Digest   string          // hex SHA-256
	Limits   manifest.Limits // in effect

	env       Environment
	source    func(ctx context.Context) ([]byte, error)
	transform *transform.Transform // nil for consumers
	http      *egress.Client       // nil without hosts
	metrics   guest.Metrics
	logs      Log
	counters  counters
	budget    budgetState
	kept      keeping // under Catalog.write

	mu struct {
		sync.Mutex
		unsigned  error  // why the signature policy does not let it run
		refusal   string // last logged reason of a request that failed
		refusedAt time.Time
		// shadow is what a consumer's shadow did otherwise; nil = none. A transform's shadow
		// reports itself: here is what was found before it began and after it ended.
		shadow *transform.ShadowReport
	}

	// loading has a consumer's module. Its lock is held while the module is compiled.
	loading struct {
		sync.Mutex
		module *host.Module
		users  int
		closed bool
	}
}

// NewVersion returns a version whose bytes source reads. It loads nothing yet.
// Close frees it.
func NewVersion(m *manifest.Manifest, digest string, env Environment, source func(ctx context.Context) ([]byte, error)) *Version {
	if env.Now == nil {
		env.Now = time.Now
	}
	v := &Version{Manifest: m, Digest: digest, Limits: m.Limits.Within(env.Ceiling), env: env, source: source}
	if c := m.Capabilities; len(c.Hosts) > 0 {
		v.http = egress.New(egress.Options{
			Hosts: c.Hosts, Secrets: c.Secrets, Secret: env.Secret, Policy: env.Egress, Timeout: v.Limits.HTTPTimeout, Logger: env.Logger, Refused: v.RequestFailed,
		})
	}
	if m.Kind == manifest.Transform {
		v.transform = transform.New(transform.Options{
			Manifest: m, Digest: digest, Limits: v.Limits, Instances: env.Instances, Load: v.engines, Observe: v.observe, Rest: env.Rest,
		})
	}
	return v
}

// newVersion is NewVersion for a stored row.
func (c *Catalog) newVersion(name string, r *versionRow) (*Version, error) {
	m, err := manifest.Parse(r.Manifest)
	if err != nil {
		return nil, err
	}
	if m.Name != name {
		return nil, fmt.Errorf("manifest is of module %s", m.Name)
	}
	digest, err := ParseDigest(r.Digest)
	if err != nil {
		return nil, err
	}
	size := r.Size
	var v *Version
	env := Environment{
		Runtime: c.o.Runtime, Ceiling: c.o.Ceiling, Egress: c.o.Egress, Secret: c.o.Secret, Instances: c.o.Instances, Now: c.o.Now, Rest: c.o.Rest,
		Logger: c.o.Logger.With("module", name, "version", m.Version),
		Observe: func(rep transform.Report) {
			if rep.Repeat && rep.Err == nil {
				return // judged before
			}
			c.judge(v, Outcome{Records: rep.Records, Failed: rep.Failed, Poisoned: rep.Poisoned, Err: rep.Err})
		},
	}
	v = NewVersion(m, r.Digest, env, func(ctx context.Context) ([]byte, error) { return c.bytesOf(ctx, digest, size) })
	v.budget.start(r.Activated)
	v.kept.at = c.o.Now()
	return v, nil
}

// close frees the version once nobody uses it.
func (v *Version) close() {
	if v.transform != nil {
		v.transform.SetShadow(nil)
		v.transform.Close()
	}
	if v.http != nil {
		v.http.Close()
	}
	v.loading.Lock()
	defer v.loading.Unlock()
	v.loading.closed = true
	v.unloadLocked()
}

// Close frees the version once nobody uses it: for versions that no catalogue
// owns.
func (v *Version) Close() { v.close() }

// rest frees what a version that isn't used any more has loaded.
func (v *Version) rest() {
	if v.transform != nil {
		v.transform.Rest()
	}
}

// forget makes a version as if it had never run.
func (v *Version) forget() {
	v.rest()
	v.counters.reset()
	v.metrics.Reset()
	v.logs.reset()
	if v.http != nil {
		v.http.Restore(egress.Stats{})
	}
}

func (v *Version) unloadLocked() {
	if v.loading.module != nil && v.loading.users == 0 {
		// Freeing compiled code; there is nothing to do about a failure.
		_ = v.loading.module.Close(context.Background())
		v.loading.module = nil
	}
}

// barred returns why the signature policy does not let the version run; nil when it does.
func (v *Version) barred() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.unsigned
}

// bar says why the version may not run; nil lets it run.
func (v *Version) bar(why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.unsigned = why
}

func (v *Version) asTransform() (*transform.Transform, error) {
	if err := v.barred(); err != nil {
		return nil, err
	}
	if v.transform == nil {
		return nil, fmt.Errorf("module %s: %w: it is a %s, not a transform", v.Manifest.Name, ErrKind, v.Manifest.Kind)
	}
	return v.transform, nil
}

// Transform returns the version as a transform, or ErrKind.
func (v *Version) Transform() (*transform.Transform, error) { return v.asTransform() }

// compile reads and compiles the module.
func (v *Version) compile(ctx context.Context) (*host.Module, error) {
	wasm, err := v.source(ctx)
	if err != nil {
		return nil, err
	}
	return v.env.Runtime.Compile(ctx, wasm, host.CompileOptions{Grant: guest.Grant(v.Manifest), Ask: guest.Ask})
}

// engines loads a transform.
func (v *Version) engines(ctx context.Context, instances int) (transform.Engines, error) {
	m, err := v.compile(ctx)
	if err != nil {
		return nil, err
	}
	if v.Manifest.ABI == manifest.ABIWASILines {
		return adapter.NewLines(m, instances, v.options(guest.Services{}))
	}
	return transform.NewGuestEngines(m, instances, func() guest.Options { return v.options(guest.Services{}) })
}

// options are those of one instance: the version's services beside those given.
func (v *Version) options(s guest.Services) guest.Options {
	s.Metrics, s.Log = &v.metrics, func(level host.Level, line []byte) { v.logs.add(v.env.Now(), level, line) }
	if v.http != nil && v.Manifest.Kind == manifest.Transform {
		s.HTTP = v.http
	}
	return guest.Options{Manifest: v.Manifest, Limits: v.Limits, Services: s, Now: v.env.Now}
}

// Hold keeps a consumer's compiled code loaded until release, which must be called:
// an instance that takes the place of another need not load it again.
func (v *Version) Hold(ctx context.Context) (release func(), err error) {
	if _, err := v.use(ctx); err != nil {
		return nil, err
	}
	return v.unuse, nil
}

// Instantiate returns a new instance of a consumer with these services, and
// release, which closes it and must be called.
func (v *Version) Instantiate(ctx context.Context, s guest.Services) (g *guest.Guest, release func(), err error) {
	m, err := v.use(ctx)
	if err != nil {
		return nil, nil, err
	}
	g = guest.New(v.options(s))
	inst, err := m.Instantiate(ctx, g.InstanceOptions())
	if err != nil {
		v.unuse()
		return nil, nil, err
	}
	release = func() {
		// Closing an instance unmaps its memory; a failure has no remedy.
		_ = inst.Close()
		v.unuse()
	}
	if err := g.Bind(ctx, inst); err != nil {
		release()
		return nil, nil, err
	}
	return g, release, nil
}

func (v *Version) use(ctx context.Context) (*host.Module, error) {
	v.loading.Lock()
	defer v.loading.Unlock()
	if v.loading.closed {
		return nil, fmt.Errorf("module %s %s: %w", v.Manifest.Name, v.Manifest.Version, transform.ErrClosed)
	}
	if v.loading.module == nil {
		m, err := v.compile(ctx)
		if err != nil {
			return nil, err
		}
		if err := guest.Check(m); err != nil {
			return nil, errors.Join(err, m.Close(ctx))
		}
		v.loading.module = m
	}
	v.loading.users++
	return v.loading.module, nil
}

func (v *Version) unuse() {
	v.loading.Lock()
	defer v.loading.Unlock()
	v.loading.users--
	v.unloadLocked()
}

// HTTP is the version's way out, or nil when its manifest lists no hosts.
func (v *Version) HTTP() *egress.Client { return v.http }

// Compared adds what a shadow of this consumer did otherwise on a batch. What
// is found of a version that is no longer the shadow is dropped.
func (v *Version) Compared(r transform.ShadowReport) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.mu.shadow; s != nil && s.Version == r.Version {
		s.Add(r)
	}
}

// compare begins a consumer's report on a shadow, or with nil ends it.
func (v *Version) compare(shadow *Version) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case shadow == nil:
		v.mu.shadow = nil
	case v.mu.shadow == nil || v.mu.shadow.Version != shadow.Manifest.Version:
		v.mu.shadow = &transform.ShadowReport{Version: shadow.Manifest.Version}
	}
}

// found keeps what a transform's shadow has found.
func (v *Version) found(r transform.ShadowReport) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.shadow = &r
}

// takeFound returns what found kept and keeps it no more.
func (v *Version) takeFound() (found transform.ShadowReport) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.shadow != nil {
		found = *v.mu.shadow
	}
	v.mu.shadow = nil
	return found
}

// restore takes up what a version counted and logged before the process began.
func (v *Version) restore(k kept) {
	v.metrics.Restore(k.Stats.Metrics)
	if h := k.Stats.HTTP; h != nil && v.http != nil {
		v.http.Restore(*h)
	}
	v.mu.Lock()
	v.mu.shadow = k.Stats.Shadow
	v.mu.Unlock()
	v.logs.restore(k.Lines)
	k.Stats.Metrics, k.Stats.HTTP, k.Stats.Shadow = nil, nil, nil // not the counters' own
	v.counters.restore(k.Stats)
}

// RequestFailed logs why a request of the module's came to nothing: the module is told a
// code only, and its author reads its log. The same reason once a minute.
func (v *Version) RequestFailed(err error) {
	now, text := v.env.Now(), "host: request failed: "+err.Error()
	v.mu.Lock()
	again := text == v.mu.refusal && now.Sub(v.mu.refusedAt) < time.Minute
	if !again {
		v.mu.refusal, v.mu.refusedAt = text, now
	}
	v.mu.Unlock()
	if !again {
		v.logs.add(now, host.LevelWarn, []byte(text))
	}
}

// observe counts a transform's batch.
func (v *Version) observe(r transform.Report) {
	v.counters.add(v.env.Now(), &r)
	if r.Poison != "" {
		v.logs.add(v.env.Now(), host.LevelError, []byte("host: record failed: "+r.Poison))
	} else if r.Err != nil && !errors.Is(r.Err, context.Canceled) {
		v.logs.add(v.env.Now(), host.LevelError, []byte("host: batch failed: "+r.Err.Error()))
	}
	if v.env.Observe != nil {
		v.env.Observe(r)
	}
}

// Logs returns the last lines the version's instances and the host wrote about
// it, oldest first.
func (v *Version) Logs() []LogLine { return v.logs.Lines() }

// Stats returns the version's counters.
func (v *Version) Stats() Stats {
	s := v.counters.snapshot()
	s.Metrics = v.metrics.Snapshot()
	if v.http != nil {
		h := v.http.Stats()
		s.HTTP = &h
	}
	if v.transform != nil {
		if r, ok := v.transform.ShadowReport(); ok {
			s.Shadow = &r
			return s
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.shadow != nil {
		r := *v.mu.shadow
		r.Examples = slices.Clone(r.Examples)
		s.Shadow = &r
	}
	return s
}
