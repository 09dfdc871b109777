package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/weirhq/weir/storage/keyspace"
)

// openBrim opens a store on a disk that has no space for an open, which writes a
// manifest, the session's row and what the log holds. It is opened on an overlay. When
// retention or a policy takes records then that make room, what is in memory is written
// and the store is opened as ever. Else it can be read: it is read-only, for the cause.
func openBrim(ctx context.Context, dir string, o Options, cause error) (*Store, error) {
	if _, err := o.FS.Stat(o.FS.PathJoin(dir, engineDir)); err != nil {
		return nil, cause // there is nothing to read
	}
	o.Logger.Warn("the disk is full: the store is opened in memory", "cause", cause)
	lock, err := lockDir(o.FS, dir)
	if err != nil {
		return nil, errors.Join(cause, err)
	}
	s, err := openOverlay(ctx, dir, o)
	if err != nil {
		return nil, errors.Join(cause, err, lock.Close())
	}
	spent, enough, err := s.makeRoom(ctx, max(o.ReserveBytes, 0))
	if err == nil && enough {
		opened, err := s.reopen(ctx, o, spent, lock)
		if err == nil {
			opened.recovery.after(s.recovery)
			return opened, nil
		}
		o.Logger.Warn("make room", "cause", err)
		if lock, err = lockDir(o.FS, dir); err == nil {
			s, err = openOverlay(ctx, dir, o)
		}
		if err != nil {
			return nil, errors.Join(cause, err)
		}
	} else if err != nil {
		o.Logger.Warn("make room", "cause", err)
	}
	s.lock = lock
	s.disk.look()
	s.disk.level.Store(int32(hard))
	s.fail(fmt.Errorf("%w: there is no space to open the log for writing; it can be read: %w", ErrDiskFull, cause))
	return s, nil
}

// openOverlay opens the store of which nothing is written to the disk. It does nothing
// by itself, and whoever calls it holds the lock.
func openOverlay(ctx context.Context, dir string, o Options) (*Store, error) {
	// What the log holds is flushed: as much as the memtables, twice if it has to be saved.
	o.FS, o.ReserveBytes = newOverlay(o.FS, 8*o.MemTableBytes+16<<20), -1
	return openStore(ctx, dir, o)
}

// overlay is what the store was opened on, nil when that is the disk.
func (s *Store) overlay() *overlay {
	o, _ := s.o.FS.(*overlay)
	return o
}

// makeRoom drops what retention takes, and then what the policies let go, until there is
// room for what is in memory, for an open and, if it can be, the ballast. It says whether
// there is, and which tables have nothing but dropped records.
func (s *Store) makeRoom(ctx context.Context, ballast int64) (spent []string, enough bool, err error) {
	least := 2*s.o.MemTableBytes + settleBytes
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	before, err := s.dataTables()
	if err != nil {
		return nil, false, err
	}
	c := &cut{s: s}
	for _, st := range s.all() {
		c.byTime(st, s.now())
		c.byBytes(st)
	}
	for err = c.apply(ctx); err == nil; err = c.apply(ctx) {
		var free int64
		if spent, free, err = s.room(before); err != nil {
			break
		}
		if enough = free >= least; free >= least+ballast {
			break
		}
		st := s.victim()
		if st == nil {
			break
		}
		// To thin an epoch out is to write what stays of it, and there is no room for that.
		c = &cut{s: s}
		c.dropEpoch(st, keyspace.LossDropped)
	}
	return spent, enough, err
}

// dataTables are the names of the tables of records, which are all on the disk but for
// what came of the log.
func (s *Store) dataTables() (map[string]bool, error) {
	levels, err := s.db.SSTables()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, level := range levels {
		for i := range level {
			if _, err := keyspace.ParseDataKey(level[i].Smallest.UserKey); err == nil {
				names[s.o.FS.PathJoin(s.dir, engineDir, tableName(uint64(level[i].BackingSSTNum)))] = true
			}
		}
	}
	return names, nil
}

// room says which tables of before are not needed any more, and how much space there is
// without them, when what is in memory is on the disk.
func (s *Store) room(before map[string]bool) (spent []string, free int64, err error) {
	now, err := s.dataTables()
	if err != nil {
		return nil, 0, err
	}
	over := s.overlay()
	usage, err := over.FS.GetDiskUsage(s.dir)
	if err != nil {
		return nil, 0, err
	}
	for name := range before {
		if made, _ := over.state(name); !made && !now[name] {
			spent = append(spent, name)
		}
	}
	slices.Sort(spent)
	return spent, int64(usage.AvailBytes) + bytesOf(over.FS, spent) - bytesOf(over.memory, over.files()), nil
}

// reopen writes what is in memory and opens the store as ever, with the options o.
// The lock is given back.
func (s *Store) reopen(ctx context.Context, o Options, spent []string, lock io.Closer) (*Store, error) {
	err := s.Close()
	if err == nil {
		err = s.Failed() // what is in memory is not whole then
	}
	if err == nil {
		err = s.overlay().settle(spent)
	}
	if err = errors.Join(err, lock.Close()); err != nil {
		return nil, err
	}
	return openStore(ctx, s.dir, o)
}

// after takes over what an open found out that went before this one.
func (r *Recovery) after(first Recovery) {
	r.Clean, r.Took = first.Clean, r.Took+first.Took
	r.Jumps, r.Finished = append(first.Jumps, r.Jumps...), append(first.Finished, r.Finished...)
	r.Damaged, r.SetAside = append(first.Damaged, r.Damaged...), append(first.SetAside, r.SetAside...)
	r.Adopted = append(first.Adopted, r.Adopted...)
}
