package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
	"github.com/weirhq/weir/storage/stream"
)

// Store is an open data directory. All methods are safe for use from any
// goroutine.
type Store struct {
	o          Options
	dir        string
	log        *slog.Logger
	lock       interface{ Close() error }
	health     interface{ Close() error }
	db         *pebble.DB
	directory  *epoch.Directory
	clock      *commit.Clock
	committer  *commit.Committer
	env        *shard.Env
	streamEnv  *stream.Env
	disk       *disk
	compacting *compactions
	packed     atomic.Bool // what is flushed is compressed already
	spans      rowSpans
	tables     []table // that the open found, and the rows; both only until it is over
	found      *found
	standIns   map[uint64]bool   // numbers of tables that were missing at the open
	endless    map[uint32]string // why the last records of a shard may be among what the open could not read
	unreadable []epoch.Key       // epochs that the open could read nothing of, and so have no row
	ledger     *ledger
	hashes     *hashes
	recovery   Recovery
	failure    atomic.Pointer[error] // of the engine, set by Pebble's goroutines
	failed     chan struct{}         // closed when failure is set

	mu struct {
		sync.RWMutex
		row     keyspace.StoreRow
		session keyspace.SessionRow
		undated []keyspace.SessionRow // earlier opens that never knew the time
		streams map[string]*stream.Stream
		closed  bool
	}
	creating    sync.Mutex         // one create or delete at a time
	trimmed     int                // deleted shards whose trims are not forgotten, under creating
	maintaining sync.Mutex         // one cut at a time
	deleted     chan struct{}      // tells that a stream was
	untouchable map[epoch.Key]bool // where giveBack failed

	stop       chan struct{}
	background sync.WaitGroup
}

// Open opens the store in dir, making the directory if there is none, and
// recovers what the last process left. It does not fail because of damage:
// what can't be read is set aside and Recovery says what it was. On a disk without
// space, retention and the policies of streams make room; where they can't the store
// is read-only, and Failed says ErrDiskFull.
// ErrNewerFormat: a newer version wrote it; ErrLocked: another process has it
// open. ctx bounds the recovery.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	defer collectLater()()
	o = o.complete()
	s, err := openStore(ctx, dir, o)
	if NoSpace(err) {
		s, err = openBrim(ctx, dir, o, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// openStore opens the store with complete options.
func openStore(ctx context.Context, dir string, o Options) (*Store, error) {
	s := &Store{o: o, dir: dir, log: o.Logger, hashes: newHashes(), untouchable: map[epoch.Key]bool{}, deleted: make(chan struct{}, 1), standIns: map[uint64]bool{}, endless: map[uint32]string{}, stop: make(chan struct{}), failed: make(chan struct{})}
	if err := s.guard(func() error { return s.open(ctx) }); err != nil {
		if s.Failed() != nil && s.lock != nil {
			s.disk.unlock()
			_ = s.lock.Close() // the rest stays as it stopped
		}
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if err := s.openDir(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if err := s.openEngine(ctx); err != nil {
		return err
	}
	if err := s.recoverState(ctx); err != nil {
		return err
	}
	s.disk.running.Store(true)
	if s.overlay() != nil {
		s.tables, s.found = nil, nil
		return nil
	}
	s.startDisk()
	s.background.Add(2)
	go s.maintain()
	go s.lookAtTables(s.tables)
	s.tables, s.found = nil, nil
	s.compacting.begin()
	return nil
}

// abandon gives back what a failed open holds.
func (s *Store) abandon() {
	if s.db != nil {
		_ = s.db.Close()
	}
	if s.health != nil {
		_ = s.health.Close()
	}
	_ = s.lock.Close()
}

// formatFile holds the version of the directory in text, so that it is known
// before anything is opened.
const formatFile = "FORMAT"

// openDir makes the directory durable, locks it and checks its version.
func (s *Store) openDir(ctx context.Context) error {
	fs := s.o.FS
	_, err := fs.Stat(s.dir)
	there := err == nil
	if !there {
		if err := makeDir(fs, s.dir); err != nil {
			return err
		}
	}
	lock, err := lockDir(fs, s.dir)
	if err != nil {
		return err
	}
	s.lock = lock
	s.disk = newDisk(s)
	s.disk.lookAhead(ctx, fs.PathJoin(s.dir, engineDir))
	if there { // who made it may not have come to that
		err = syncDir(fs, fs.PathDir(s.dir))
	}
	if err == nil {
		err = errors.Join(checkFormat(fs, s.dir), removeLeftOver(fs, s.dir))
	}
	if err != nil {
		_ = s.disk.looked()
		_ = lock.Close()
	}
	return err
}

// removeLeftOver removes tables that were on their way into the database.
func removeLeftOver(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") && (strings.HasPrefix(name, "thin-") || strings.HasPrefix(name, "space-") || strings.HasPrefix(name, "repair-")) {
			if err := removeIfThere(fs, fs.PathJoin(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkFormat(fs vfs.FS, dir string) error {
	err := newerFormat(fs, dir)
	if vfsNotExist(err) {
		return writeFile(fs, dir, formatFile, fmt.Appendf(nil, "weir storage %d\n", keyspace.FormatVersion))
	}
	return err
}

// newerFormat returns ErrNewerFormat for a directory that a newer version wrote, and
// what keeps the file that says so from being read.
func newerFormat(fs vfs.FS, dir string) error {
	path := fs.PathJoin(dir, formatFile)
	text, err := readFile(fs, path)
	if err != nil {
		return err
	}
	var version int
	if _, err := fmt.Sscanf(string(text), "weir storage %d\n", &version); err != nil {
		// A torn or foreign file says nothing: the rows inside have the version too.
		return nil
	}
	if version > keyspace.FormatVersion {
		return fmt.Errorf("%s: version %d, this program reads up to %d: %w", path, version, keyspace.FormatVersion, ErrNewerFormat)
	}
	return nil
}

// Close commits what is under way, notes that the store was closed in good
// order, and closes it. Transactions not yet committed fail with ErrClosed,
// readers with ErrClosed at their next call. A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.closed = true
	s.mu.Unlock()
	close(s.stop)
	known := s.Failed() != nil // and reported to whoever wrote
	err := s.guard(s.closeEngine)
	if known {
		err = nil
	}
	if e := s.lock.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}

// closeEngine ends everything but the lock. After a failure of the engine it
// stops before what might wait for ever or give the disk what is in memory.
func (s *Store) closeEngine() error {
	s.background.Wait()
	s.committer.Close()
	s.env.Close()
	for _, st := range s.all() {
		for _, sh := range st.All() {
			sh.Seal() // wakes who waits; the next call tells them why
		}
	}
	if s.Failed() != nil {
		return nil
	}
	err := s.closeRows()
	if err == nil && s.overlay() != nil { // its log is not kept
		err = s.db.Flush()
	}
	if e := s.db.Close(); err == nil {
		err = e
	}
	if e := s.health.Close(); err == nil {
		err = e
	}
	return err
}

// closeRows writes the last batch: the directory rows and the clean mark.
func (s *Store) closeRows() error {
	b := s.db.NewBatch()
	defer b.Close()
	if err := s.committer.FlushRows(b); err != nil {
		return err
	}
	row := s.mu.session
	row.Clean, row.NextEpoch, row.LastKnownMS = true, s.committer.NextEpoch(), s.now().UnixMilli()
	if err := b.Set(keyspace.Meta(keyspace.KindSession, row.Session), keyspace.EncodeJSON(row), nil); err != nil {
		return err
	}
	s.ledger.count(totals(s.db, s.committer), s.now())
	if err := s.ledger.stage(b, s.now()); err != nil {
		return err
	}
	return b.Commit(pebble.Sync)
}

// Failed returns why the store is read-only, nil when it is not.
func (s *Store) Failed() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	if s.committer != nil {
		return s.committer.Failure()
	}
	return nil
}

// fail makes the store read-only.
func (s *Store) fail(err error) {
	if s.failure.CompareAndSwap(nil, &err) {
		close(s.failed)
		s.log.Error("storage is read-only until it is opened again", "reason", err)
	}
	if s.committer != nil {
		s.committer.Fail(err)
	}
}

// now is the store's idea of the time.
func (s *Store) now() time.Time { return time.UnixMilli(s.clock.Now().ArrivalMS) }

// Now is the time by which records are stamped, in milliseconds: the wall clock as
// far as it is believed, and otherwise the last known time and what has passed since.
func (s *Store) Now() time.Time { return s.now() }

// Dir returns the data directory.
func (s *Store) Dir() string { return s.dir }

// ID returns the store's random identity, 32 hex digits.
func (s *Store) ID() string { return s.mu.row.ID }

// ConfirmTime says that t is the true time: a wall clock that stepped by
// more than a day is believed from here on, and what arrived in this session
// under a clock known to be wrong is corrected.
func (s *Store) ConfirmTime(t time.Time) { s.clock.Confirm(t.UnixMilli()) }

// Row is a row of a table.
type Row struct {
	Table      Table
	Key, Value []byte
}

// CreateStream makes a stream, durable on return. ErrStreamExists: the name
// is taken; ErrInvalid: what of the configuration is out of its range. Each of
// rows is called with the stream's id and makes a row that is stored in the same
// transaction: the stream never exists without it.
func (s *Store) CreateStream(ctx context.Context, c StreamConfig, rows ...func(id uint32) Row) (*Stream, error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	if _, err := s.Stream(c.Name); err == nil {
		return nil, fmt.Errorf("create stream %q: %w", c.Name, ErrStreamExists)
	}
	if err := s.disk.admit(Reject); err != nil {
		return nil, fmt.Errorf("create stream %q: %w", c.Name, err)
	}
	s.mu.Lock()
	id := s.mu.row.NextStream
	s.mu.row.NextStream++
	s.mu.Unlock()
	st, err := stream.Create(ctx, s.streamEnv, id, c, s.now().UnixMilli(), func(staging *commit.Staging) error {
		for _, row := range rows {
			r := row(id)
			if err := staging.Set(keyspace.AppendTableKey(nil, r.Table, r.Key), r.Value); err != nil {
				return err
			}
		}
		return s.stageStoreRow(staging)
	})
	if errors.Is(err, ErrInvalid) {
		return nil, err // it names the stream
	}
	if err != nil {
		return nil, fmt.Errorf("create stream %q: %w", c.Name, err)
	}
	s.mu.Lock()
	s.mu.streams[c.Name] = st
	s.mu.Unlock()
	return st, nil
}

func (s *Store) stageStoreRow(st *commit.Staging) error {
	s.mu.RLock()
	row := s.mu.row
	s.mu.RUnlock()
	return st.Set(keyspace.Meta(keyspace.KindStore), keyspace.EncodeJSON(row))
}

// newShards gives out store-wide shard ids.
func (s *Store) newShards(n int) (uint32, func(*commit.Staging) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.mu.row.NextShard
	s.mu.row.NextShard += uint32(n)
	return first, s.stageStoreRow
}

// Stream returns the stream of that name, or ErrStreamNotFound.
func (s *Store) Stream(name string) (*Stream, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if st := s.mu.streams[name]; st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("stream %.300q: %w", name, ErrStreamNotFound)
}

// Streams returns all streams by name, system streams included.
func (s *Store) Streams() []*Stream { return s.all() }

func (s *Store) all() []*stream.Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*stream.Stream, 0, len(s.mu.streams))
	for _, st := range s.mu.streams {
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b *stream.Stream) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

// DeleteStream removes a stream and gives its space back. It is durable on
// return; readers and writers of the stream fail with ErrStreamNotFound.
func (s *Store) DeleteStream(ctx context.Context, name string) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	st, err := s.Stream(name)
	if err != nil {
		return fmt.Errorf("delete stream: %w", err)
	}
	if err := st.Delete(ctx); err != nil {
		return err
	}
	s.trimmed++
	s.mu.Lock()
	delete(s.mu.streams, name)
	s.mu.Unlock()
	if err := s.reclaim(context.WithoutCancel(ctx), st); err != nil { // nobody would ask again
		return fmt.Errorf("delete stream %q: give space back: %w", name, err)
	}
	return nil
}
