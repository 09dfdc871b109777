package storage

import (
	"github.com/cockroachdb/pebble/v2"
)

// engineDir is where Pebble's files lie in the data directory.
const engineDir = "db"

// openEngine opens Pebble.
func (s *Store) openEngine() error {
	fs, closer := s.disk.wrap()
	s.health = closer
	path := s.o.FS.PathJoin(s.dir, engineDir)
	db, err := pebble.Open(path, pebbleOptions(s.o, fs, engineLogger{s.log, s.fail}, s.disk.listener()))
	if err != nil {
		return err
	}
	s.db = db
	return nil
}
