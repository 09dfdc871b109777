package module

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/transform"
)

// Options of a Catalog.
type Options struct {
	Store   Store
	Runtime *host.Runtime // built with guest.Imports
	// Signatures defaults to off.
	Signatures  SignaturePolicy
	TrustedKeys []ed25519.PublicKey
	MaxBytes    int64           // of one module; zero = DefaultMaxBytes
	Ceiling     manifest.Limits // the operator's limits; zero fields set none
	Budget      Budget          // when a new version is rolled back; zero = DefaultBudget
	Egress      egress.Policy
	Secret      func(name string) (string, bool) // values of secrets; nil = none
	Instances   int                              // of one transform; zero = GOMAXPROCS
	// Rest is how long after its last batch a module's instances and compiled code
	// are freed until the next one, which waits for them (some 100 ms for Go's modules
	// on amd64, below 1 ms for others). Zero = DefaultRest.
	Rest   time.Duration
	Now    func() time.Time
	Logger *slog.Logger
}

// DefaultRest is Options.Rest by default.
const DefaultRest = 2 * time.Minute

// Catalog is a box's modules. Safe for concurrent use.
type Catalog struct {
	o Options

	// writes are one at a time; readers use what is in mods.
	write     sync.Mutex
	uploading map[string]bool // digests that have pieces stored and no version yet; under write
	mods      atomic.Pointer[map[string]*entry]

	watch struct {
		sync.Mutex
		changed chan struct{} // closed and replaced at every change
		closed  bool
	}
	background sync.WaitGroup // rollbacks, shadow runs, keepRows
	ending     chan struct{}  // closed by Close
}

// entry is a module in memory. A change makes a new entry.
type entry struct {
	row      row
	versions map[string]*Version
	active   *Version // nil = none
}

// Open reads the catalogue and makes the active versions ready to be loaded.
// A row that can't be read is reported to the log and left alone.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Signatures == "" {
		o.Signatures = SignaturesOff
	}
	if o.Rest <= 0 {
		o.Rest = DefaultRest
	}
	if o.Budget == (Budget{}) {
		o.Budget = DefaultBudget()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Catalog{o: o, uploading: map[string]bool{}, ending: make(chan struct{})}
	c.watch.changed = make(chan struct{})
	mods := map[string]*entry{}
	err := o.Store.Scan(ctx, []byte("m/"), func(key, value []byte) error {
		e, err := c.readEntry(value)
		if err != nil {
			o.Logger.Error("module row is not readable; left as it is", "key", string(key), "error", err)
			return nil
		}
		mods[e.row.Name] = e
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open module catalogue: %w", err)
	}
	for _, e := range mods {
		for _, v := range e.versions {
			c.recall(ctx, v)
		}
	}
	c.mods.Store(&mods)
	c.goBackground(c.keepRows)
	for _, e := range mods {
		c.connectShadow(e)
	}
	return c, nil
}

func (c *Catalog) readEntry(value []byte) (*entry, error) {
	var r row
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	e := &entry{row: r, versions: map[string]*Version{}}
	for i := range r.Versions {
		v, err := c.newVersion(r.Name, &r.Versions[i])
		if err != nil {
			return nil, fmt.Errorf("version %s: %w", r.Versions[i].Version, err)
		}
		e.versions[v.Manifest.Version] = v
		c.verifyAgain(e, v, &r.Versions[i])
	}
	e.active = e.versions[r.Active]
	return e, nil
}

// verifyAgain applies the signature policy, which may have changed since the upload. What
// it does not let run keeps its place: it runs again when it is signed, or the policy
// is another.
func (c *Catalog) verifyAgain(e *entry, v *Version, r *versionRow) {
	r.Warning = ""
	if c.o.Signatures == SignaturesOff {
		return
	}
	var err error
	if r.SignedBy, r.Warning, err = c.verify(mustDigest(r.Digest), r.Manifest, r.Signature); err == nil {
		return
	}
	r.Warning = "not run: " + err.Error()
	v.bar(fmt.Errorf("module %s %s: %w", e.row.Name, r.Version, err))
	if r.Version == e.row.Active || r.Version == e.row.Shadow {
		c.o.Logger.Error("module is not run: sign and upload it again, or activate a signed version", "module", e.row.Name, "version", r.Version, "error", err)
	}
}

// Close stops shadow runs, frees all loaded modules and writes what they counted and
// logged. It waits for batches at work.
func (c *Catalog) Close() {
	c.watch.Lock()
	if !c.watch.closed {
		close(c.ending)
	}
	c.watch.closed = true
	c.watch.Unlock()
	c.write.Lock()
	for _, e := range *c.mods.Load() {
		for _, v := range e.versions {
			if v.transform != nil {
				c.endShadow(v)
			}
		}
	}
	c.write.Unlock()
	c.background.Wait()
	for _, e := range *c.mods.Load() {
		for _, v := range e.versions {
			v.close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), keepPatience)
	defer cancel()
	c.keep(ctx, true)
}

// Changed returns a channel that is closed at the next upload, activation,
// rollback or removal.
func (c *Catalog) Changed() <-chan struct{} {
	c.watch.Lock()
	defer c.watch.Unlock()
	return c.watch.changed
}

func (c *Catalog) entry(name string) (*entry, error) {
	e := (*c.mods.Load())[name]
	if e == nil {
		return nil, fmt.Errorf("module %s: %w", name, ErrNotFound)
	}
	return e, nil
}

// Transform returns the active version of a transform module. It stays usable
// until the version is removed; ask again for each batch to follow activations.
func (c *Catalog) Transform(name string) (*transform.Transform, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	if e.active == nil {
		return nil, fmt.Errorf("module %s: %w: none is active", name, ErrNoVersion)
	}
	return e.active.asTransform()
}

// TransformByDigest returns the version of a transform module with this
// digest, active or not: a batch that was sealed with it can be made again.
func (c *Catalog) TransformByDigest(name, digest string) (*transform.Transform, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	var found *Version
	for _, v := range e.versions {
		if v.Digest == digest && (found == nil || found.barred() != nil) {
			found = v
		}
	}
	if found != nil {
		return found.asTransform()
	}
	return nil, fmt.Errorf("module %s: %w: none has digest %s", name, ErrNoVersion, digest)
}

// Active returns the active version of a module, or ErrSignature when the policy does
// not let it run.
func (c *Catalog) Active(name string) (*Version, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	if e.active == nil {
		return nil, fmt.Errorf("module %s: %w: none is active", name, ErrNoVersion)
	}
	if err := e.active.barred(); err != nil {
		return nil, err
	}
	return e.active, nil
}

// Version returns a version of a module, active or not.
func (c *Catalog) Version(name, version string) (*Version, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	if v := e.versions[version]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("module %s: version %q: %w", name, version, ErrNoVersion)
}

// Consumers returns the active versions of all consumer modules that may run, by name.
func (c *Catalog) Consumers() []*Version {
	var out []*Version
	for _, e := range *c.mods.Load() {
		if e.active != nil && e.active.Manifest.Kind == manifest.Consumer && e.active.barred() == nil {
			out = append(out, e.active)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Manifest.Name < out[j].Manifest.Name })
	return out
}

// ShadowOf returns the shadow version of a module that runs, or nil.
func (c *Catalog) ShadowOf(name string) *Version {
	e, err := c.entry(name)
	if err != nil {
		return nil
	}
	if v := e.versions[e.row.Shadow]; v != nil && v.barred() == nil {
		return v
	}
	return nil
}

// List returns all modules by name.
func (c *Catalog) List() []Info {
	mods := *c.mods.Load()
	out := make([]Info, 0, len(mods))
	for _, e := range mods {
		out = append(out, e.info())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Describe returns one module.
func (c *Catalog) Describe(name string) (Info, error) {
	e, err := c.entry(name)
	if err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

func (e *entry) info() Info {
	i := Info{Name: e.row.Name, Active: e.row.Active, Previous: e.row.Previous, Shadow: e.row.Shadow}
	for k := len(e.row.Versions) - 1; k >= 0; k-- {
		r := &e.row.Versions[k]
		v := e.versions[r.Version]
		i.Kind = v.Manifest.Kind
		i.Versions = append(i.Versions, VersionInfo{
			Version: r.Version, Digest: r.Digest, SizeBytes: r.Size, SignedBy: r.SignedBy, Warning: r.Warning, Barred: v.barred() != nil,
			Uploaded: r.Uploaded, Activated: r.Activated, Failure: r.Failure, Stats: v.Stats(),
		})
	}
	return i
}

// change applies fn to a copy of a module's row, stores it, and puts the new
// entry in place. Changes before fn's row, such as removed bytes, go along.
func (c *Catalog) change(ctx context.Context, name string, fn func(e *entry) ([]Change, error)) error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.changeLocked(ctx, name, fn)
}

func (c *Catalog) changeLocked(ctx context.Context, name string, fn func(e *entry) ([]Change, error)) error {
	if c.isClosed() {
		return ErrClosed
	}
	mods := *c.mods.Load()
	old := mods[name]
	next := &entry{row: row{Name: name}, versions: map[string]*Version{}}
	if old != nil {
		next.row = old.row
		next.row.Versions = slices.Clone(old.row.Versions)
		for k, v := range old.versions {
			next.versions[k] = v
		}
	}
	changes, err := fn(next)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	next.active = next.versions[next.row.Active]
	rowKey := []byte("m/" + name)
	if len(next.row.Versions) == 0 {
		changes = append(changes, Change{Key: rowKey})
	} else {
		value, err := json.Marshal(next.row)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		changes = append(changes, Change{Key: rowKey, Value: value})
	}
	if err := c.o.Store.Commit(ctx, changes); err != nil {
		return fmt.Errorf("module %s: store: %w", name, err)
	}
	c.swap(mods, old, next)
	return nil
}

// swap makes next what everyone sees and lets go of versions it no longer has.
func (c *Catalog) swap(mods map[string]*entry, old, next *entry) {
	all := make(map[string]*entry, len(mods)+1)
	for k, v := range mods {
		all[k] = v
	}
	all[next.row.Name] = next
	if len(next.row.Versions) == 0 {
		delete(all, next.row.Name)
	}
	c.mods.Store(&all)
	c.connectShadow(next)
	if old != nil {
		for k, v := range old.versions {
			switch {
			case next.versions[k] != v:
				c.closeLater(v)
			case v != next.active && v != next.versions[next.row.Shadow]:
				v.rest()
			}
		}
	}
	c.watch.Lock()
	close(c.watch.changed)
	c.watch.changed = make(chan struct{})
	c.watch.Unlock()
}

// closeLater frees a version when its last batch is done.
func (c *Catalog) closeLater(v *Version) {
	c.goBackground(v.close)
}

// goBackground runs fn unless the catalogue is closed.
func (c *Catalog) goBackground(fn func()) {
	c.watch.Lock()
	defer c.watch.Unlock()
	if !c.watch.closed {
		c.background.Go(fn)
	}
}

func (c *Catalog) isClosed() bool {
	c.watch.Lock()
	defer c.watch.Unlock()
	return c.watch.closed
}

// Activate makes a version the active one, durably and at once: batches that
// begin after it returned use it.
func (c *Catalog) Activate(ctx context.Context, name, version string) error {
	return c.change(ctx, name, func(e *entry) ([]Change, error) {
		v, err := e.row.find(version)
		if err != nil {
			return nil, err
		}
		if err := e.versions[version].barred(); err != nil {
			return nil, err
		}
		if e.row.Active == version {
			return nil, nil
		}
		if e.row.Shadow == version {
			e.row.Shadow = ""
		}
		if e.row.Active != "" {
			e.row.Previous = e.row.Active
		} else if e.row.Previous == version { // deactivated meanwhile
			e.row.Previous = ""
		}
		e.row.Active = version
		v.Activated, v.Failure = c.o.Now(), ""
		e.versions[version].budget.start(v.Activated)
		c.o.Logger.Info("module activated", "module", name, "version", version, "previous", e.row.Previous)
		return nil, nil
	})
}

// Rollback makes the version that was active before the active one again.
func (c *Catalog) Rollback(ctx context.Context, name string) error {
	return c.change(ctx, name, func(e *entry) ([]Change, error) { return nil, c.rollback(e, "rolled back by hand") })
}

func (c *Catalog) rollback(e *entry, why string) error {
	if len(e.row.Versions) == 0 {
		return ErrNotFound
	}
	if e.row.Active == "" {
		return fmt.Errorf("%w: none is active", ErrNoVersion)
	}
	if e.row.version(e.row.Previous) == nil {
		return ErrNoPrevious
	}
	if err := e.versions[e.row.Previous].barred(); err != nil {
		return err
	}
	failed := e.row.version(e.row.Active)
	failed.Failure = why
	e.row.Active, e.row.Previous = e.row.Previous, ""
	if e.row.Shadow == e.row.Active {
		e.row.Shadow = ""
	}
	c.o.Logger.Warn("module rolled back", "module", e.row.Name, "version", failed.Version, "to", e.row.Active, "reason", why)
	return nil
}

// Deactivate leaves a module without an active version: consumers stop,
// deliveries that use it wait.
func (c *Catalog) Deactivate(ctx context.Context, name string) error {
	return c.change(ctx, name, func(e *entry) ([]Change, error) {
		if len(e.row.Versions) == 0 {
			return nil, ErrNotFound
		}
		if e.row.Active != "" {
			e.row.Previous, e.row.Active = e.row.Active, ""
		}
		return nil, nil
	})
}

// Shadow runs a version on what the active version processes, without effect.
// An empty version ends it. ErrShadow when the two are of different kinds, or
// keep their state in different ways.
func (c *Catalog) Shadow(ctx context.Context, name, version string) error {
	return c.change(ctx, name, func(e *entry) ([]Change, error) {
		if version == "" && len(e.row.Versions) > 0 {
			e.row.Shadow = ""
			return nil, nil
		}
		if _, err := e.row.find(version); err != nil {
			return nil, err
		}
		if err := e.versions[version].barred(); err != nil {
			return nil, err
		}
		if version == e.row.Active {
			return nil, fmt.Errorf("version %q: %w; a shadow is compared with it", version, ErrActive)
		}
		if a := e.versions[e.row.Active]; a != nil {
			want, got := a.Manifest, e.versions[version].Manifest
			if got.Kind != want.Kind || got.StateVersion != want.StateVersion {
				return nil, fmt.Errorf("version %q: %w: it is a %s with state_version %d, the active version %s a %s with %d",
					version, ErrShadow, got.Kind, got.StateVersion, a.Manifest.Version, want.Kind, want.StateVersion)
			}
		}
		e.row.Shadow = version
		return nil, nil
	})
}

// Remove deletes a version, or with an empty version the whole module. An
// active version is not removed by itself.
func (c *Catalog) Remove(ctx context.Context, name, version string) error {
	return c.change(ctx, name, func(e *entry) ([]Change, error) {
		if len(e.row.Versions) == 0 {
			return nil, ErrNotFound
		}
		if version == "" {
			var changes []Change
			for i := range e.row.Versions {
				changes = append(changes, c.dropBytes(&e.row.Versions[i], name)...)
			}
			e.row.Versions, e.row.Active, e.row.Shadow = nil, "", ""
			clear(e.versions)
			return changes, nil
		}
		if _, err := e.row.find(version); err != nil {
			return nil, err
		}
		if e.row.Active == version {
			return nil, fmt.Errorf("version %q: %w", version, ErrActive)
		}
		return c.dropVersion(e, version), nil
	})
}

// dropVersion takes a version out of an entry and returns the deletion of its bytes.
func (c *Catalog) dropVersion(e *entry, version string) []Change {
	changes := c.dropBytes(e.row.version(version), e.row.Name)
	e.row.Versions = slices.DeleteFunc(e.row.Versions, func(r versionRow) bool { return r.Version == version })
	delete(e.versions, version)
	if e.row.Shadow == version {
		e.row.Shadow = ""
	}
	if e.row.Previous == version {
		e.row.Previous = ""
	}
	return changes
}

// dropBytes deletes a version's counters, and its bytes unless another version has the same.
func (c *Catalog) dropBytes(v *versionRow, name string) []Change {
	changes := []Change{{Key: keepKey(name, v.Version)}}
	for _, e := range *c.mods.Load() {
		for _, o := range e.row.Versions {
			if o.Digest == v.Digest && (e.row.Name != name || o.Version != v.Version) {
				return changes
			}
		}
	}
	for n := range chunks(v.Size) {
		changes = append(changes, Change{Key: chunkKey(mustDigest(v.Digest), n)})
	}
	return changes
}
