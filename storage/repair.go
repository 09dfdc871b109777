package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
)

// RepairReport says what Repair did.
type RepairReport struct {
	// Before and After are what Verify found.
	Before, After *VerifyReport
	// Recovery is what the open found and did.
	Recovery Recovery
	// Lost are the ranges newly recorded as lost by damage.
	Lost []ShardRange
	// Rewritten counts epochs of which the readable blocks were written anew.
	Rewritten int
	// SetAside are the files kept in the quarantine.
	SetAside []SetAside
}

// Repair makes a stopped data directory sound again: what can't be read is
// copied to its quarantine directory and then taken out, what is missing is
// recorded as lost with its exact range. No readable record is dropped.
func Repair(ctx context.Context, dir string, o Options) (*RepairReport, error) {
	s, err := Open(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	p := &repairer{s: s, report: RepairReport{Recovery: s.Recovery()}}
	err = p.run(ctx)
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, fmt.Errorf("repair %s: %w", dir, err)
	}
	p.report.SetAside = s.recovery.SetAside
	return &p.report, nil
}

type repairer struct {
	s      *Store
	report RepairReport
	shards []namedShard // by id
}

// namedShard is a shard and the name of its stream, or of what that would be adopted as.
type namedShard struct {
	*shard.Shard
	stream string
}

func (p *repairer) run(ctx context.Context) (err error) {
	s := p.s
	if p.report.Before, err = s.Verify(ctx, nil); err != nil {
		return err
	}
	if err := s.committer.CloseEpoch(); err != nil {
		return err
	}
	if err := p.list(ctx); err != nil {
		return err
	}
	damaged, err := p.walk(ctx)
	if err != nil {
		return err
	}
	files, err := p.s.recordFiles()
	if err != nil {
		return err
	}
	for _, span := range spans(damaged, files) {
		if err := p.rewrite(ctx, span); err != nil {
			return fmt.Errorf("epochs %d to %d in lane %d: %w", span.From, span.To-1, span.Lane, err)
		}
	}
	if err := p.recordMissing(ctx); err != nil {
		return err
	}
	p.report.After, err = s.Verify(ctx, nil)
	return err
}

// list lists the shards, those with records that no stream has included: what is
// written anew must have those too.
func (p *repairer) list(ctx context.Context) error {
	s := p.s
	for _, st := range s.all() {
		for _, sh := range st.All() {
			p.shards = append(p.shards, namedShard{sh, st.Name()})
		}
	}
	f, err := readRows(ctx, s.db)
	if err != nil {
		return err
	}
	live := s.shardIDs()
	for id, runs := range f.runs() {
		if live[id] || f.trims[id] == keyspace.TrimmedAll {
			continue
		}
		last := runs[len(runs)-1]
		log := commit.NewLog(id, 0, last.Lane, 0, commit.LogState{
			Runs: runs, Jumps: f.jumps[id], First: max(runs[0].First(), f.trims[id]), Last: last.Last, Next: last.Last + 1, Sealed: true,
		})
		sh := shard.New(s.env, log, record.HashRange{}, keyspace.ShardRow{ID: id}, f.losses[id])
		p.shards = append(p.shards, namedShard{sh, adoptedName(id)})
	}
	slices.SortFunc(p.shards, func(a, b namedShard) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

// walk reads every stored block through readers, which record what they
// can't read, and returns the epochs that hold damage.
func (p *repairer) walk(ctx context.Context) (map[epoch.Key]bool, error) {
	damaged := map[epoch.Key]bool{}
	for _, k := range p.s.unreadable {
		damaged[k] = true
	}
	for _, sh := range p.shards {
		before := sh.Losses()
		r, err := sh.NewReader(shard.Position{})
		if err != nil {
			return nil, err
		}
		for pos := uint64(0); pos != r.Position(); {
			pos = r.Position()
			err := r.Frames(8<<20, func(f Frame) bool { return ctx.Err() == nil })
			if err != nil && err != io.EOF {
				return nil, err
			}
		}
		r.Close()
		for _, l := range sh.Losses() {
			if !slices.Contains(before, l) {
				p.lost(sh, l)
			}
			for _, run := range sh.Closed() {
				if l.Reason == keyspace.LossDamage && l.First <= run.Last && l.Last >= run.First() {
					damaged[epoch.Key{Lane: run.Lane, Epoch: run.Epoch}] = true
				}
			}
		}
	}
	return damaged, ctx.Err()
}

func (p *repairer) lost(sh namedShard, l shard.Loss) {
	p.report.Lost = append(p.report.Lost, ShardRange{sh.stream, sh.Number, l.First, l.Last, l.Reason.String()})
}

// spans are the epochs of the files that hold something of damaged ones, those that
// follow one another in a lane joined. A file only goes as a whole: Pebble reads on to
// a damaged block from what it keeps of the file before it, and a table that can't be
// opened may hold several epochs.
func spans(damaged map[epoch.Key]bool, files []garbage) (out []epoch.Span) {
	all := maps.Clone(damaged)
	for k := range damaged {
		for _, f := range files {
			if k.Lane != f.Lane || k.Epoch < f.From || k.Epoch >= f.To {
				continue
			}
			for e := f.From; e < f.To; e++ {
				all[epoch.Key{Lane: f.Lane, Epoch: e}] = true
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(all), func(a, b epoch.Key) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Epoch, b.Epoch))
	})
	for _, k := range keys {
		if n := len(out); n > 0 && out[n-1].Lane == k.Lane && out[n-1].To == k.Epoch {
			out[n-1].To++
			continue
		}
		out = append(out, epoch.Span{Lane: k.Lane, From: k.Epoch, To: k.Epoch + 1})
	}
	return out
}

// rewrite replaces epochs by a table of their readable blocks, after keeping
// their files aside.
func (p *repairer) rewrite(ctx context.Context, span epoch.Span) error {
	s := p.s
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	from, to := keyspace.EpochStart(span.Lane, span.From), keyspace.EpochStart(span.Lane, span.To)
	if err := p.keepTables(from, to); err != nil {
		return err
	}
	path := s.o.FS.PathJoin(s.dir, fmt.Sprintf("repair-%d-%d.sst", span.Lane, span.From))
	n, err := p.writeReadable(path, span)
	if err != nil {
		return errors.Join(err, removeIfThere(s.o.FS, path))
	}
	p.report.Rewritten += int(span.To - span.From)
	if n == 0 {
		return errors.Join(removeIfThere(s.o.FS, path), s.excise(ctx, from, to))
	}
	return s.replaceRange(ctx, path, from, to)
}

// keepTables copies the tables that overlap a range to the quarantine.
func (p *repairer) keepTables(from, to []byte) error {
	s := p.s
	levels, err := s.db.SSTables()
	if err != nil {
		return err
	}
	dir, err := s.aside("tables")
	if err != nil {
		return err
	}
	for _, level := range levels {
		for _, t := range level {
			if string(t.Largest.UserKey) < string(from) || string(t.Smallest.UserKey) >= string(to) {
				continue
			}
			err := s.keepFile(s.o.FS.PathJoin(s.dir, engineDir, tableName(uint64(t.BackingSSTNum))), dir, "holds blocks that can't be read")
			if err != nil && !vfsNotExist(err) { // one that was merged meanwhile could be read whole
				return err
			}
		}
	}
	return syncDir(s.o.FS, dir)
}

// writeReadable writes the blocks of epochs that can be read to a table.
func (p *repairer) writeReadable(path string, span epoch.Span) (blocks int, err error) {
	s := p.s
	f, err := s.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.tableOptions())
	for e := span.From; e < span.To; e++ {
		for _, sh := range p.shards {
			for _, run := range sh.Closed() {
				if run.Lane != span.Lane || run.Epoch != e {
					continue
				}
				n, err := copyRun(w, sh.Shard, run)
				blocks += n
				if err != nil {
					return blocks, errors.Join(err, w.Close())
				}
			}
		}
	}
	return blocks, w.Close()
}

// copyRun copies a run's readable blocks.
func copyRun(w *sstable.Writer, sh *shard.Shard, run epoch.Run) (blocks int, err error) {
	r, err := sh.NewReader(shard.Position{Kind: shard.AtIndex, Index: max(run.First(), sh.First())})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for r.Position() <= run.Last {
		before := r.Position()
		var failed error
		err := r.Frames(1<<20, func(f Frame) bool {
			if f.First > run.Last {
				return false
			}
			key := keyspace.DataKey{Lane: run.Lane, Epoch: run.Epoch, Shard: sh.ID, Last: f.Last}.Append(nil)
			failed = w.Set(key, f.Block())
			blocks++
			return failed == nil
		})
		if err == io.EOF {
			err = nil
		}
		if err := errors.Join(failed, err); err != nil || r.Position() == before {
			return blocks, err
		}
	}
	return blocks, nil
}

// recordMissing records what is missing without a reason as lost, and brings
// directory rows up to date with what is there.
func (p *repairer) recordMissing(ctx context.Context) error {
	s := p.s
	r, err := s.Verify(ctx, nil)
	if err != nil {
		return err
	}
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	c := &cut{s: s}
	for _, problem := range r.Problems {
		st, err := s.Stream(problem.Stream)
		if err != nil || problem.What != problemMissing {
			continue
		}
		sh, err := st.Find(problem.Shard)
		if err != nil {
			continue
		}
		l := shard.Loss{First: problem.First, Last: problem.Last, Records: problem.Last - problem.First + 1, Time: s.now(), Reason: keyspace.LossDamage}
		c.losses = append(c.losses, lossOf{st.Name(), sh, l})
		p.lost(namedShard{sh, st.Name()}, l)
	}
	return c.apply(ctx)
}
