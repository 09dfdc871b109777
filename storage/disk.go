package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ballastFile holds space that is given up when the disk is full: dropping
// what may be dropped needs some.
const ballastFile = "ballast"

// flushFailures in a row, with no success between, stop the intake of records.
const flushFailures = 3

// pressure says how short space is.
type pressure int32

const (
	relaxed pressure = iota
	// soft: streams that would rather refuse than drop refuse.
	soft
	// hard: the disk was full; every stream refuses.
	hard
)

// disk watches the space of the data directory.
type disk struct {
	s        *Store
	fs       vfs.FS // not wrapped: for the ballast
	path     string
	full     atomic.Bool // a write failed for want of space
	running  atomic.Bool // the engine is open
	read     atomic.Bool // the engine is being opened, and read already
	failures atomic.Int32
	level    atomic.Int32
	wake     chan struct{}
	free     atomic.Int64 // as last seen, -1 when not known
	total    atomic.Int64
	damaged  sync.Map // paths of tables reported as damaged
	mu       struct {
		sync.Mutex
		ballast bool // the file is there
	}
	locked  atomic.Pointer[engineLock]
	opening struct {
		sync.Mutex
		over bool // stock was taken: removals are what they say
		held []string
		dir  string   // last listed …
		list []string // … and what is in it but for tables; nil when that is not known

		ahead   *lookAhead // until it is known that the manifest is whole
		reading *lookAhead // until it has ended
		read    *lookAhead // that of the manifest that Pebble read, until it is used
	}
}

func newDisk(s *Store) *disk {
	d := &disk{s: s, fs: s.o.FS, path: s.o.FS.PathJoin(s.dir, ballastFile), wake: make(chan struct{}, 1)}
	d.free.Store(-1)
	_, err := d.fs.Stat(d.path) // an open may need the space
	d.mu.ballast = err == nil
	return d
}

// wrap returns the file system that Pebble writes through.
func (d *disk) wrap() (vfs.FS, interface{ Close() error }) {
	fs := vfs.OnDiskFull(quotaFS{d.fs}, d.onFull)
	return vfs.WithDiskHealthChecks(&patientFS{FS: fs, d: d, pages: &tablePages{fs: d.fs, drop: dropPages}}, 5*time.Second, nil, func(i vfs.DiskSlowInfo) {
		if d.s.failure.Load() == nil { // or it is one that waits for ever
			d.s.log.Warn("disk is slow", "operation", i.String())
		}
	})
}

// opened says that stock was taken: what Pebble removed meanwhile goes. What can't
// be removed is tried again at the next open.
func (d *disk) opened() {
	d.opening.Lock()
	held := d.opening.held
	d.opening.over, d.opening.held, d.opening.list, d.opening.read = true, nil, nil, nil
	d.opening.Unlock()
	for _, name := range held {
		if err := removeIfThere(d.fs, name); err != nil {
			d.s.log.Warn("a file that is not needed stays", "cause", err)
		}
	}
}

// lookAhead is a listing of Pebble's directory, whether the manifest in it is whole, which
// tables it names, and what rows those hold: read while other things are done.
type lookAhead struct {
	dir     string
	stale   bool          // the directory was changed since
	listed  chan struct{} // closed when names and listErr are there
	names   []string
	listErr error
	checked chan struct{} // closed when err is there
	err     error         // of the listing or of the manifest
	ended   chan struct{} // closed when the rest is there
	named   []manifestTable
	rows    *rowsAhead // nil where Pebble must be asked
}

// lookAhead begins to read what Pebble will ask for first.
func (d *disk) lookAhead(ctx context.Context, dir string) {
	a := &lookAhead{dir: dir, listed: make(chan struct{}), checked: make(chan struct{}), ended: make(chan struct{})}
	d.opening.Lock()
	d.opening.ahead, d.opening.reading = a, a
	d.opening.Unlock()
	go func() {
		defer close(a.ended)
		a.names, a.listErr = d.fs.List(dir)
		close(a.listed)
		if a.err = ignoreNotExist(a.listErr); a.listErr == nil {
			a.named, a.err = checkManifest(d.fs, dir, a.names)
		}
		close(a.checked)
		if a.named != nil {
			rows := newRowsAhead(d.s.o, d.fs, dir)
			if rows.read(ctx, a.named) == nil {
				a.rows = rows
			}
		}
	}()
}

// looked waits for what is being read ahead, returns why the manifest must not be
// believed, and drops the rest.
func (d *disk) looked() error {
	d.opening.Lock()
	a, reading := d.opening.ahead, d.opening.reading
	d.opening.ahead, d.opening.reading, d.opening.read = nil, nil, nil
	d.opening.Unlock()
	if reading != nil {
		<-reading.ended
	}
	if a == nil {
		return nil
	}
	return a.err
}

// seenAhead returns the tables of the manifest that Pebble read, and the rows in them, once;
// nil where they are not known.
func (d *disk) seenAhead() ([]manifestTable, *rowsAhead) {
	d.opening.Lock()
	a := d.opening.read
	d.opening.read = nil
	d.opening.Unlock()
	if a == nil {
		return nil, nil
	}
	<-a.ended
	return a.named, a.rows
}

// reopening says that Pebble is opened, perhaps once more: nothing of what it takes
// to be obsolete goes before its view of the files is known to be right.
func (d *disk) reopening() {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.opening.over, d.opening.held, d.opening.list, d.opening.read = false, nil, nil, nil
	d.read.Store(false)
}

// hold says whether a removal waits for the end of the open.
func (d *disk) hold(name string) bool {
	d.opening.Lock()
	defer d.opening.Unlock()
	base := d.fs.PathBase(name)
	if d.opening.over || !strings.HasSuffix(base, ".sst") && !strings.HasSuffix(base, ".log") && !strings.HasPrefix(base, "MANIFEST") {
		return false
	}
	d.opening.held = append(d.opening.held, name)
	return true
}

// changed keeps the listing right: a file went from a path, came to another, or
// both; "" stands for none. After an error what is there is not known any more.
func (d *disk) changed(from, to string, err error) {
	o := &d.opening
	o.Lock()
	defer o.Unlock()
	if o.ahead != nil {
		o.ahead.stale = true
	}
	if o.list == nil {
		return
	}
	if err != nil {
		o.list = nil
		return
	}
	if from != "" && d.fs.PathDir(from) == o.dir {
		if i := slices.Index(o.list, d.fs.PathBase(from)); i >= 0 {
			o.list = slices.Delete(o.list, i, i+1)
		}
	}
	if to != "" && d.fs.PathDir(to) == o.dir && !slices.Contains(o.list, d.fs.PathBase(to)) {
		o.list = append(o.list, d.fs.PathBase(to))
	}
}

// names lists a directory. Pebble asks for its own, reads the manifest, and asks once
// more, for its logs, before it changes anything: an error of the second listing
// may be that the manifest is damaged. It takes its tables from the first listing, and
// would only pass over them in those that follow while it opens: there they are left out.
func (d *disk) names(fs vfs.FS, dir string) ([]string, error) {
	o := &d.opening
	o.Lock()
	defer o.Unlock()
	if a := o.ahead; a != nil && a.dir == dir {
		if o.list == nil {
			if <-a.listed; a.listErr == nil && !a.stale {
				o.dir, o.list = dir, withoutTables(a.names)
				return slices.Clone(a.names), nil // the manifest is still looked for in it
			}
		}
		if <-a.checked; a.err != nil {
			return nil, a.err
		}
		if o.ahead = nil; o.list != nil { // what Pebble listed first is what was read here
			o.read = a
		}
	}
	if o.list != nil && o.dir == dir {
		return slices.Clone(o.list), nil
	}
	names, err := fs.List(dir)
	if err == nil && !o.over {
		o.dir, o.list = dir, withoutTables(names)
	}
	return names, err
}

// withoutTables copies those names of a listing that are not of tables.
func withoutTables(listing []string) []string {
	names := []string{}
	for _, name := range listing {
		if !strings.HasSuffix(name, ".sst") {
			names = append(names, name)
		}
	}
	return names
}

// onFull is called while a failed write waits to be tried once more: it gives
// up the ballast, and must neither take long nor use the database.
func (d *disk) onFull() {
	d.full.Store(true)
	d.level.Store(int32(hard))
	d.mu.Lock()
	if d.mu.ballast {
		if err := d.fs.Remove(d.path); err == nil || vfsNotExist(err) {
			d.mu.ballast = false
		}
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// patientFS is what Pebble writes through. It slows down the creation of files
// while flushes fail: Pebble tries a failed flush again at once, for ever, and
// would wear the device out. And it lets nothing more be written once the engine
// has failed.
type patientFS struct {
	vfs.FS
	d     *disk
	pages *tablePages
}

// Create creates a file, after a pause that grows with the failures so far.
func (p *patientFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if n := p.d.failures.Load(); n > 0 {
		timer := time.NewTimer(min(time.Second, 10*time.Millisecond<<min(n, 7)))
		select {
		case <-timer.C:
		case <-p.d.s.stop:
			timer.Stop()
		}
	}
	p.d.still()
	f, err := p.FS.Create(name, category)
	p.d.changed("", name, err)
	if f, err = p.wrap(name, f, err); err == nil && strings.HasSuffix(name, ".sst") {
		f = writeTable(f, name, p.pages)
	}
	return f, err
}

// ReuseForWrite makes a new log of an old one.
func (p *patientFS) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	p.d.still()
	f, err := p.FS.ReuseForWrite(from, to, category)
	p.d.changed(from, to, err)
	return p.wrap(to, f, err)
}

// OpenReadWrite opens a file to change it.
func (p *patientFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	p.d.still()
	f, err := p.FS.OpenReadWrite(name, category, o...)
	p.d.changed("", name, err)
	return p.wrap(name, f, err)
}

// OpenDir opens a directory, to sync it.
func (p *patientFS) OpenDir(name string) (vfs.File, error) {
	f, err := p.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &patientFile{File: f, d: p.d, name: name, vital: true}, nil
}

// Link gives a file a second name.
func (p *patientFS) Link(from, to string) error {
	p.d.still()
	err := p.FS.Link(from, to)
	p.d.changed("", to, err)
	return err
}

// Rename gives a file another name.
func (p *patientFS) Rename(from, to string) error {
	p.d.still()
	err := p.FS.Rename(from, to)
	p.d.changed(from, to, err)
	if !p.d.running.Load() {
		err = p.d.park("rename", to, err)
	}
	return err
}

// engineLock is Pebble's own lock on its directory.
type engineLock struct {
	io.Closer
	once sync.Once
}

// Close gives the lock back, once.
func (l *engineLock) Close() (err error) {
	l.once.Do(func() { err = l.Closer.Close() })
	return err
}

// Lock locks a file.
func (p *patientFS) Lock(name string) (io.Closer, error) {
	lock, err := p.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	l := &engineLock{Closer: lock}
	p.d.locked.Store(l)
	return l, nil
}

// unlock gives Pebble's lock back after an open in which it stopped, and can't do so
// itself: it will write nothing any more, and another open may follow in this process.
func (d *disk) unlock() {
	if l := d.locked.Load(); l != nil {
		_ = l.Close()
	}
}

// List lists a directory, while the store opens once for several that ask.
func (p *patientFS) List(dir string) ([]string, error) {
	names, err := p.d.names(p.FS, dir)
	if err != nil && p.d.read.Load() && !p.d.running.Load() {
		err = p.d.park("list", dir, err) // or Pebble would close what is being read
	}
	return names, err
}

// Open opens a file to read it.
func (p *patientFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := p.FS.Open(name, o...)
	if strings.HasSuffix(name, ".sst") {
		return openTable(f, err)
	}
	return f, err
}

// Remove removes a file, while the store opens not at once.
func (p *patientFS) Remove(name string) error {
	p.d.still()
	if p.d.hold(name) {
		return nil
	}
	err := p.FS.Remove(name)
	p.d.changed(name, "", err)
	return err
}

// wrap wraps a file that is written. The write-ahead log is vital, and so are the
// manifest and the marker that names it, and while the store opens all but tables.
func (p *patientFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	base := p.PathBase(name)
	vital := strings.HasSuffix(base, ".log") || strings.Contains(base, "MANIFEST") ||
		!p.d.running.Load() && !strings.HasSuffix(base, ".sst")
	if vital {
		err = p.d.park("make", name, err)
	}
	if err != nil {
		return nil, err
	}
	return &patientFile{File: f, d: p.d, name: name, vital: vital}, nil
}

// Unwrap returns the file system below.
func (p *patientFS) Unwrap() vfs.FS { return p.FS }

// patientFile is a file of Pebble's. When the write-ahead log or a directory can't be
// written, Pebble panics in a way that can't be recovered from and would take the
// process, with its readers, along. When the manifest can't, it gives up in the middle
// of installing a version, and its other goroutines would go on from there.
type patientFile struct {
	vfs.File
	d     *disk
	name  string
	vital bool
}

func (f *patientFile) Write(p []byte) (int, error) {
	f.d.still()
	n, err := f.File.Write(p)
	return n, f.failed("write", err)
}

func (f *patientFile) WriteAt(p []byte, at int64) (int, error) {
	f.d.still()
	n, err := f.File.WriteAt(p, at)
	return n, f.failed("write", err)
}

func (f *patientFile) Sync() error {
	f.d.still()
	return f.failed("sync", f.File.Sync())
}

func (f *patientFile) SyncData() error {
	f.d.still()
	return f.failed("sync", f.File.SyncData())
}

func (f *patientFile) SyncTo(length int64) (bool, error) {
	f.d.still()
	full, err := f.File.SyncTo(length)
	return full, f.failed("sync", err)
}

func (f *patientFile) failed(operation string, err error) error {
	if !f.vital {
		return err
	}
	return f.d.park(operation, f.name, err)
}

// still does not return once the engine has failed: what is on the disk then is what
// the next open recovers, and nothing may be made of a state that is half changed.
func (d *disk) still() {
	if d.s.failure.Load() != nil {
		select {}
	}
}

// park makes the store read-only when an operation on a vital file failed, and
// does not return then: the caller is one of Pebble's goroutines, and must not
// go on. Close leaves the engine alone in that state. So it is while the engine is
// being opened: Pebble flushes and compacts already, and panics where it
// can't write a directory or takes what those use away when its open fails.
func (d *disk) park(operation, name string, err error) error {
	if err == nil {
		return err
	}
	if file := (*os.PathError)(nil); !errors.As(err, &file) || file.Path != name { // else it says so itself
		err = fmt.Errorf("%s %s: %w", operation, name, err)
	}
	d.s.fail(err)
	select {}
}

// listener counts flush failures. It tells flushed of each flush that ended.
func (d *disk) listener(flushed func(pebble.FlushInfo)) *pebble.EventListener {
	return &pebble.EventListener{
		FlushEnd: func(i pebble.FlushInfo) {
			flushed(i)
			if i.Err == nil {
				d.failures.Store(0)
				return
			}
			if harmless(i.Err) {
				return
			}
			if d.failures.Add(1) >= flushFailures {
				d.level.Store(int32(hard))
				d.full.Store(true)
				if !d.running.Load() { // Pebble would try for ever before it is open
					d.s.fail(i.Err)
				}
			}
		},
		// Pebble's own answer is to end the process; ours is to read around it.
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			if _, told := d.damaged.LoadOrStore(i.Path, true); !told { // Pebble tries again and again
				d.s.log.Error("table is damaged", "path", i.Path, "cause", firstLine(fmt.Sprint(i.Details)))
			}
		},
		// Dropping records takes tables away that are being moved: that is no news.
		BackgroundError: func(err error) {
			if !errors.Is(err, pebble.ErrCancelledCompaction) {
				d.s.log.Warn("storage engine", "error", firstLine("background error: "+err.Error()))
			}
		},
		DiskSlow: func(i pebble.DiskSlowInfo) { d.s.log.Warn("disk is slow", "operation", i.String()) },
	}
}

// harmless says that a flush ended early for a reason that is not the disk's:
// there was nothing to flush, or an Excise took what was being flushed. Pebble
// names only the second.
func harmless(err error) bool {
	return errors.Is(err, pebble.ErrCancelledCompaction) || nothingFlushed(err)
}

// nothingFlushed says that a flush ended well, but made no table.
func nothingFlushed(err error) bool { return err.Error() == "pebble: empty table" }

// admit says whether a stream of that policy may take a record now.
func (d *disk) admit(p Policy) error {
	switch pressure(d.level.Load()) {
	case hard:
		return fmt.Errorf("%w: records are refused until space comes back", ErrDiskFull)
	case soft:
		if p == Reject {
			return fmt.Errorf("%w: the stream's policy is to refuse records", ErrDiskFull)
		}
	}
	return nil
}

// look reads the space of the disk; ok is false where that is not known.
func (d *disk) look() (free, total int64, ok bool) {
	u, err := d.fs.GetDiskUsage(d.s.dir)
	if err != nil {
		d.free.Store(-1)
		return 0, 0, false
	}
	d.free.Store(int64(u.AvailBytes))
	d.total.Store(int64(u.TotalBytes))
	return int64(u.AvailBytes), int64(u.TotalBytes), true
}

// softLimit is the free space below which policies apply.
func (d *disk) softLimit(total int64) int64 {
	if d.s.o.SoftFreeBytes > 0 {
		return d.s.o.SoftFreeBytes
	}
	return max(min(total/20, 1<<30), 64<<20, d.s.o.ReserveBytes)
}

// startDisk makes the ballast. That there is no room for it is no reason not
// to open.
func (s *Store) startDisk() {
	s.disk.look()
	if err := s.disk.makeBallast(); err != nil {
		s.log.Warn("no room for the ballast file", "bytes", s.o.ReserveBytes, "cause", err)
		s.disk.full.Store(true)
		s.disk.level.Store(int32(hard)) // until the policies were applied: a write may need the ballast
		select {
		case s.disk.wake <- struct{}{}:
		default:
		}
	}
}

// makeBallast allocates the ballast file if it is wanted and missing. The
// file gets its name when it is whole, so that one that exists is whole.
func (d *disk) makeBallast() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := d.s.o.ReserveBytes
	if size <= 0 || d.mu.ballast {
		return nil
	}
	if _, err := d.fs.Stat(d.path); err == nil {
		d.mu.ballast = true
		return nil
	}
	tmp := d.path + ".tmp"
	f, err := d.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Preallocate(0, size), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, d.fs.Remove(tmp))
	}
	if err := d.fs.Rename(tmp, d.path); err != nil {
		return err
	}
	d.mu.ballast = true
	return nil
}

// State is whether and why the store takes records.
type State struct {
	// Writable says whether records are taken from streams of every policy.
	Writable bool
	// Reason says why not, "" when they are.
	Reason string
	// ReadOnly says that nothing is written until the store is opened again.
	ReadOnly bool
	// DiskFull says that a write failed for want of space and records of all
	// streams are refused; DiskLow that streams with policy reject refuse.
	DiskFull, DiskLow bool
	// BytesFree and BytesTotal are those of the disk, -1 when not known.
	BytesFree, BytesTotal int64
	// BytesStored are those of all stored blocks.
	BytesStored int64
	// ClockHeld says that the wall clock is not believed: stamps go on from
	// the last known time until ConfirmTime.
	ClockHeld bool
}

// State returns the state as of now.
func (s *Store) State() State {
	st := State{
		Writable: true, BytesFree: s.disk.free.Load(), BytesTotal: s.disk.total.Load(),
		BytesStored: int64(s.stored()), ClockHeld: s.clock.Held(),
	}
	level := pressure(s.disk.level.Load())
	st.DiskFull, st.DiskLow = level == hard, level == soft
	if err := s.disk.admit(Reject); err != nil {
		st.Writable, st.Reason = false, err.Error()
	}
	if err := s.Failed(); err != nil {
		st.Writable, st.ReadOnly, st.Reason = false, true, err.Error()
	}
	return st
}

// stored is the bytes of all blocks, those of the open epoch included.
func (s *Store) stored() (n uint64) {
	for _, st := range s.all() {
		for _, sh := range st.All() {
			_, stored := sh.Sizes(0)
			n += stored
		}
	}
	return n
}
