package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// engineDir is where Pebble's files lie in the data directory, and
// quarantineDir where files are kept that can't be used.
const (
	engineDir     = "db"
	quarantineDir = "quarantine"
)

// openEngine opens Pebble and takes stock of it. When its files are damaged it saves
// what can be read of them, first of the log, then of everything.
func (s *Store) openEngine(ctx context.Context) error {
	fs, closer := s.disk.wrap()
	s.health = closer
	path := s.o.FS.PathJoin(s.dir, engineDir)
	again := false
	openOnce := func() (*pebble.DB, error) {
		s.disk.reopening()
		if again {
			s.disk.lookAhead(ctx, path) // the first time that was done earlier
		}
		again = true
		taking := &stockTaking{reads: &s.disk.read, take: func(db *pebble.DB, flush pebble.FlushInfo) error { return s.takeStockAhead(ctx, db, flush) }}
		p := pebbleOptions(s.o, fs, engineLogger{s.log, s.fail}, s.disk.listener(taking.flushed))
		p.DisableConsistencyCheck = true // survey does, for less
		sampled := p.Levels[0].Compression
		p.Levels[0].Compression = func() *sstable.CompressionProfile {
			if s.packed.Load() {
				return sstable.NoCompression
			}
			return sampled()
		}
		p.Experimental.SpanPolicyFunc = s.spans.policy
		s.compacting = newCompactions()
		s.compacting.registered = func(db *pebble.DB) { taking.db = db }
		p.Experimental.CompactionScheduler = s.compacting
		db, err := pebble.Open(path, p)
		taken, err2 := taking.end()
		err2 = errors.Join(err2, s.disk.looked())
		if err != nil {
			return nil, err
		}
		if err = err2; err == nil && !taken {
			err = s.takeStock(ctx, db)
		}
		if err == nil {
			err = s.checkNamed(db)
		}
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		s.disk.opened()
		return db, nil
	}
	open := func() (db *pebble.DB, err error) {
		for {
			if db, err = openOnce(); !errors.Is(err, errStoodIn) {
				return db, err
			}
		}
	}
	db, err := open()
	if err == nil {
		s.db = db
		return nil
	}
	if strings.Contains(err.Error(), "format major version") {
		return fmt.Errorf("%w: %w", ErrNewerFormat, err)
	}
	if !isDamage(err) {
		return err
	}
	s.log.Error("the data directory is damaged: saving what can be read", "cause", firstLine(err.Error()))
	logs, err2 := s.setLogAside(path, err)
	if err2 != nil {
		return err2
	}
	busy := func() (*pebble.DB, error) { // much will be written to it
		db, err := open()
		if err == nil {
			s.compacting.begin()
		}
		return db, err
	}
	if s.db, err = s.rescueLog(logs, busy); err != nil {
		saved := map[uint32][]segment{}
		if s.db, err = s.rescueAll(path, logs, err, busy, saved); err != nil {
			return err
		}
		if err := s.takeStock(ctx, s.db); err != nil {
			return err
		}
		return s.nameLost(saved)
	}
	return s.takeStock(ctx, s.db)
}

// isDamage tells what saving may help against from what the operator must
// mend: rights, a disk without space or out of order, another process.
func isDamage(err error) bool {
	return !NoSpace(err) && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EROFS) &&
		!oserror.IsPermission(err) && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EMFILE) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// aside returns a new directory in the quarantine.
func (s *Store) aside(what string) (string, error) {
	fs := s.o.FS
	for n := 1; ; n++ {
		dir := fs.PathJoin(s.dir, quarantineDir, fmt.Sprintf("%s-%d", what, n))
		if _, err := fs.Stat(dir); vfsNotExist(err) {
			return dir, fs.MkdirAll(dir, 0o750)
		} else if err != nil {
			return "", err
		}
	}
}

// keepFile copies a file into a directory of the quarantine and notes it.
func (s *Store) keepFile(path, dir, reason string) error {
	fs := s.o.FS
	to := fs.PathJoin(dir, fs.PathBase(path))
	if err := vfs.Copy(fs, path, to); err != nil {
		return err
	}
	s.noteAside(to, reason)
	return nil
}

func (s *Store) noteAside(path, reason string) {
	a := SetAside{Path: path, Reason: reason}
	if info, err := s.o.FS.Stat(path); err == nil {
		a.Bytes = info.Size()
		if info.IsDir() {
			a.Bytes = s.bytesIn(path)
		}
	}
	s.recovery.SetAside = append(s.recovery.SetAside, a)
}

// bytesIn is how long the files in a directory are together.
func (s *Store) bytesIn(dir string) (n int64) {
	names, err := s.o.FS.List(dir)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if info, err := s.o.FS.Stat(s.o.FS.PathJoin(dir, name)); err == nil && !info.IsDir() {
			n += info.Size()
		}
	}
	return n
}

// readWhole reads a file or says what is wrong with it.
func readWhole(fs vfs.FS, path string) (vfs.File, int64, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if info.Size() == 0 {
		return nil, 0, errors.Join(io.ErrUnexpectedEOF, f.Close())
	}
	return f, info.Size(), nil
}

// commit commits a batch and gives it back, unless the engine fails meanwhile: who is
// left behind with it then keeps it. One that is never committed needs no giving back.
func (s *Store) commit(b *pebble.Batch, o *pebble.WriteOptions) error {
	return s.guard(func() error { return errors.Join(b.Commit(o), b.Close()) })
}

// guard runs fn, which uses the engine, and returns its error. When the engine
// fails meanwhile, fn may never end, because Pebble ended its goroutine or it is
// parked: guard then returns ErrReadOnly with the cause, and leaves it behind.
func (s *Store) guard(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			// Pebble panics with the error where it can't go on; a bug panics otherwise.
			switch r := recover().(type) {
			case nil:
			case runtime.Error:
				panic(r)
			case error:
				s.fail(r)
			default:
				panic(r)
			}
		}()
		done <- fn()
	}()
	select {
	case err := <-done:
		return err
	case <-s.failed:
	}
	select {
	case err := <-done:
		return err
	default:
		return fmt.Errorf("%w: %w", ErrReadOnly, s.Failed())
	}
}
