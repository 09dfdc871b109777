package storage

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestBatchLeftBehindIsNotGivenBack has the engine fail before its rows are written: who
// waits for them goes on at once, and who writes them still has them.
func TestBatchLeftBehindIsNotGivenBack(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem(), nil))
	s.fail(errors.New("the disk is gone"))
	for range 2000 {
		s.saveLedger()
	}
	if err := s.Close(); err != nil && !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
}
