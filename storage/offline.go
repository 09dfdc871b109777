package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// offline is a stopped data directory, opened to be looked at only.
type offline struct {
	db   *pebble.DB
	lock interface{ Close() error }
}

// openOffline opens the directory without changing anything in it.
func openOffline(dir string, o Options) (*offline, error) {
	o = o.complete()
	wrap := func(err error) error { return fmt.Errorf("open store %s to read: %w", dir, err) }
	if _, err := o.FS.Stat(o.FS.PathJoin(dir, engineDir)); err != nil {
		return nil, wrap(err)
	}
	lock, err := o.FS.Lock(o.FS.PathJoin(dir, "LOCK"))
	if err != nil {
		return nil, wrap(fmt.Errorf("%w: %w", ErrLocked, err))
	}
	db, err := openReadOnly(o, o.FS.PathJoin(dir, engineDir))
	if err != nil {
		_ = lock.Close()
		return nil, wrap(err)
	}
	return &offline{db, lock}, nil
}

func openReadOnly(o Options, path string) (*pebble.DB, error) {
	logger := engineLogger{o.Logger, func(err error) { o.Logger.Error("storage engine", "error", err) }}
	p := pebbleOptions(o, o.FS, logger, &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			o.Logger.Error("table is damaged", "path", i.Path, "cause", i.Details)
		},
	})
	p.ReadOnly = true
	return pebble.Open(path, p)
}

func (o *offline) Close() error {
	err := o.db.Close()
	if e := o.lock.Close(); err == nil {
		err = e
	}
	return err
}
