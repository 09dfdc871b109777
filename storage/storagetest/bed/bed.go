// Package bed is what tests of the parts of package storage stand on: a committer over
// a database in memory, without the rest of a store.
//
// It owns nothing beyond one test. It is apart from storagetest, which imports the
// whole of storage, so that the packages storage is made of can use it.
package bed

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
)

// Bed is an empty database with its directory and its one writer.
type Bed struct {
	DB        *pebble.DB
	Directory *epoch.Directory
	Committer *commit.Committer
}

// New returns a bed whose records are stamped by the given clocks. It is closed at the
// end of the test, after what the test registered later.
func New(t testing.TB, wall func() time.Time, uptime func() time.Duration) Bed {
	t.Helper()
	db, err := pebble.Open("db", &pebble.Options{FS: vfs.NewMem(), Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	b := Bed{DB: db, Directory: epoch.New()}
	b.Committer = commit.New(db, b.Directory, commit.NewClock(wall, uptime, 0), commit.Options{
		GroupBytes: 1 << 20, AdmissionBytes: 4 << 20, MemTableBytes: 1 << 20, Session: 1, FirstEpoch: 1,
		EpochAge: func() time.Duration { return time.Hour }, OnLearnt: func(uint32, int64) {},
	})
	t.Cleanup(func() {
		b.Committer.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// quiet drops what the engine reports and ends the test where it can't go on.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
