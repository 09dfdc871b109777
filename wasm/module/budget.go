package module

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/transform"
)

// Budget says how much a new version may fail before the catalogue goes back
// to the one before.
type Budget struct {
	Window      time.Duration // after activation in which a version is rolled back
	Poisoned    int           // records a minute that may break the module
	Starts      int           // batches in a row that may fail to run at all
	FailedRatio float64       // of the records since activation that may fail
	MinRecords  int           // before FailedRatio is looked at
}

// DefaultBudget allows, in the ten minutes after activation, five poisoned
// records a minute, three batches in a row that don't run, and 10 % failed
// records once 100 were seen (or twice the share that failed with the version before).
func DefaultBudget() Budget {
	return Budget{Window: 10 * time.Minute, Poisoned: 5, Starts: 3, FailedRatio: 0.1, MinRecords: 100}
}

// Outcome is what a batch tells about the version that ran it.
type Outcome struct {
	Records, Failed, Poisoned int
	Err                       error // the batch could not be run
}

// budgetState follows one version since its activation.
type budgetState struct {
	mu sync.Mutex
	spending
}

type spending struct {
	activated       time.Time
	minute          time.Time
	poisoned        int // in the running minute
	starts          int // batches in a row that failed
	records, failed int // since activation
	spent           bool
}

func (s *budgetState) start(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spending = spending{activated: at}
}

// ratio is the share of records that failed, and of how many.
func (s *budgetState) ratio() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == 0 {
		return 0
	}
	return float64(s.failed) / float64(s.records)
}

// spend adds an outcome and says why the budget is used up, once.
func (s *budgetState) spend(b Budget, now time.Time, o Outcome, before float64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.minute) >= time.Minute {
		s.minute, s.poisoned = now, 0
	}
	s.poisoned += o.Poisoned
	s.records += o.Records
	s.failed += o.Failed
	s.starts++
	if o.Err == nil {
		s.starts = 0
	}
	if s.spent || s.activated.IsZero() || now.Sub(s.activated) > b.Window {
		return ""
	}
	why := ""
	switch ratio := float64(s.failed) / float64(max(s.records, 1)); {
	case s.poisoned > b.Poisoned:
		why = fmt.Sprintf("%d records broke it within a minute; the budget is %d", s.poisoned, b.Poisoned)
	case s.starts >= b.Starts && b.Starts > 0:
		why = fmt.Sprintf("%d batches in a row could not be run; the last: %v", s.starts, o.Err)
	case s.records >= b.MinRecords && ratio > max(b.FailedRatio, 2*before):
		why = fmt.Sprintf("%d of %d records failed; the budget is %.0f %%", s.failed, s.records, 100*max(b.FailedRatio, 2*before))
	}
	s.spent = why != ""
	return why
}

// Judge tells the catalogue how a batch of a consumer's went. It may roll the
// version back, in the background.
func (c *Catalog) Judge(v *Version, r transform.Report) { v.observe(r) }

// judge spends a version's budget and rolls it back when that is used up.
func (c *Catalog) judge(v *Version, o Outcome) {
	// A box without memory to spare is not the module's fault.
	if v == nil || errors.Is(o.Err, context.Canceled) || errors.Is(o.Err, transform.ErrClosed) || errors.Is(o.Err, host.ErrBudget) {
		return
	}
	e := (*c.mods.Load())[v.Manifest.Name]
	if e == nil || e.active != v {
		return
	}
	before := 0.0
	if p := e.versions[e.row.Previous]; p != nil {
		before = p.budget.ratio()
	}
	why := v.budget.spend(c.o.Budget, c.o.Now(), o, before)
	if why == "" || e.row.Previous == "" {
		return
	}
	// Not from here: the batch that spent the budget still holds the version.
	c.goBackground(func() {
		err := c.change(context.Background(), v.Manifest.Name, func(e *entry) ([]Change, error) {
			if e.active != v && e.versions[e.row.Active] != v {
				return nil, errSame
			}
			return nil, c.rollback(e, "rolled back by itself: "+why)
		})
		if err != nil && !errors.Is(err, errSame) {
			c.o.Logger.Error("module rollback failed", "module", v.Manifest.Name, "version", v.Manifest.Version, "error", err)
		}
	})
}

// connectShadow gives an entry's active version the shadow its row names.
func (c *Catalog) connectShadow(e *entry) {
	for name, v := range e.versions {
		want := e.versions[e.row.Shadow]
		if v != e.active || want == v || want != nil && want.barred() != nil {
			want = nil
		}
		if v.transform == nil {
			v.compare(want) // consume.Engine runs the shadows of consumers
			continue
		}
		if want == nil {
			c.endShadow(v)
			v.takeFound()
			continue
		}
		if r, ok := v.transform.ShadowReport(); ok && r.Version == want.Manifest.Version {
			continue
		}
		c.endShadow(v)
		c.o.Logger.Info("module shadow run begins", "module", e.row.Name, "active", name, "shadow", e.row.Shadow)
		v.transform.SetShadow(transform.NewShadow(want.transform, v.takeFound()))
	}
}

// endShadow ends the shadow run of a version, without waiting for it. The version keeps
// what was found.
func (c *Catalog) endShadow(v *Version) {
	if s := v.transform.TakeShadow(); s != nil {
		v.found(s.Report())
		c.background.Go(s.Close)
	}
}
