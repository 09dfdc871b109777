package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// offline is a stopped data directory, opened to be looked at only.
type offline struct {
	db   *pebble.DB
	lock interface{ Close() error }
}

// openOffline opens the directory without changing anything in it. ErrNewerFormat: a
// newer version wrote it, whose rows and blocks would be taken for damage.
func openOffline(dir string, o Options) (*offline, error) {
	o = o.complete()
	wrap := func(err error) error { return fmt.Errorf("open store %s to read: %w", dir, err) }
	if _, err := o.FS.Stat(o.FS.PathJoin(dir, engineDir)); err != nil {
		return nil, wrap(err)
	}
	lock, err := lockDir(o.FS, dir)
	if errors.Is(err, syscall.EROFS) { // nobody can have a file open there to write to it
		o.FS = unlocked{o.FS}
		lock, err = lockDir(o.FS, dir)
	}
	if err != nil {
		return nil, wrap(err)
	}
	// What is else with that file keeps nobody from reading the rest.
	if err := newerFormat(o.FS, dir); errors.Is(err, ErrNewerFormat) {
		_ = lock.Close()
		return nil, wrap(err)
	}
	db, err := openReadOnly(o, o.FS.PathJoin(dir, engineDir))
	if err != nil {
		if vfsNotExist(err) {
			err = fmt.Errorf("a file is missing: %v", err) // and not the directory, as the error would say
		}
		_ = lock.Close()
		return nil, wrap(err)
	}
	return &offline{db, lock}, nil
}

// lockFile is locked by the process that has the directory open.
const lockFile = "LOCK"

// lockDir keeps other processes out of the directory until the lock is closed.
// ErrLocked means that one is in it; that the file of the lock can't be made is
// another matter, and comes as it is.
func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	lock, err := fs.Lock(fs.PathJoin(dir, lockFile))
	if file := (*os.PathError)(nil); err != nil && !errors.As(err, &file) {
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return lock, err
}

// unlocked is a file system on which locks are given for the asking.
type unlocked struct{ vfs.FS }

func (unlocked) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func openReadOnly(o Options, path string) (*pebble.DB, error) {
	logger := engineLogger{o.Logger, func(err error) { o.Logger.Error("storage engine", "error", err) }}
	p := pebbleOptions(o, o.FS, logger, &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			o.Logger.Error("table is damaged", "path", i.Path, "cause", i.Details)
		},
	})
	p.ReadOnly = true
	p.DisableConsistencyCheck = true // a table that was cut short costs its own records only
	return pebble.Open(path, p)
}

func (o *offline) Close() error {
	err := o.db.Close()
	if e := o.lock.Close(); err == nil {
		err = e
	}
	return err
}
