package storage

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// overlay is a file system that changes nothing in the one below: what is written
// stays in memory, and what is removed is only seen no more. A store that has not one
// byte of space left is opened on it.
type overlay struct {
	vfs.FS // below
	memory *vfs.MemFS
	limit  int64 // of what may be written; beyond it there is no space
	mu     struct {
		sync.Mutex
		written int64
		made    map[string]bool // files in memory
		gone    map[string]bool // files below that are not seen: removed, or covered by one in memory
	}
}

func newOverlay(fs vfs.FS, limit int64) *overlay {
	o := &overlay{FS: fs, memory: vfs.NewMem(), limit: limit}
	o.mu.made, o.mu.gone = map[string]bool{}, map[string]bool{}
	return o
}

// state says where a file is.
func (o *overlay) state(name string) (made, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.made[name], o.mu.gone[name]
}

// note says where a file is from now on.
func (o *overlay) note(name string, made bool) {
	_, err := o.FS.Stat(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.gone[name] = err == nil
	o.mu.made[name] = made
}

// grow takes note of bytes written, or says that there is no space.
func (o *overlay) grow(n int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.written+int64(n) > o.limit {
		return syscall.ENOSPC
	}
	o.mu.written += int64(n)
	return nil
}

// files are the names of the files in memory, in order.
func (o *overlay) files() []string { return o.names(o.mu.made) }

// removed are the names of the files below that are not seen any more, in order.
func (o *overlay) removed() []string { return o.names(o.mu.gone) }

// names are those for which what is noted holds, in order.
func (o *overlay) names(noted map[string]bool) (names []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, holds := range noted {
		if holds {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func notExist(op, name string) error {
	return &os.PathError{Op: op, Path: name, Err: syscall.ENOENT}
}

// Create creates a file in memory.
func (o *overlay) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := o.memory.MkdirAll(o.PathDir(name), 0o750); err != nil {
		return nil, err
	}
	f, err := o.memory.Create(name, category)
	if err != nil {
		return nil, err
	}
	o.note(name, true)
	return &overlayFile{File: f, o: o}, nil
}

// lift copies a file that is to be changed into memory.
func (o *overlay) lift(name string) error {
	made, gone := o.state(name)
	if made {
		return nil
	}
	if gone {
		return notExist("open", name)
	}
	from, err := o.FS.Open(name)
	if err != nil {
		return err
	}
	to, err := o.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return errors.Join(err, from.Close())
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, from.Close(), to.Close())
}

// Link gives a file a second name.
func (o *overlay) Link(from, to string) error {
	if err := o.lift(from); err != nil {
		return err
	}
	if err := o.memory.MkdirAll(o.PathDir(to), 0o750); err != nil {
		return err
	}
	if err := o.memory.Link(from, to); err != nil {
		return err
	}
	o.note(to, true)
	return nil
}

// Open opens a file to read it.
func (o *overlay) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	switch made, gone := o.state(name); {
	case made:
		return o.memory.Open(name, options...)
	case gone:
		return nil, notExist("open", name)
	}
	return o.FS.Open(name, options...)
}

// OpenReadWrite opens a file to change it, in memory.
func (o *overlay) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	if err := o.lift(name); vfsNotExist(err) {
		return o.Create(name, category)
	} else if err != nil {
		return nil, err
	}
	f, err := o.memory.OpenReadWrite(name, category, options...)
	if err != nil {
		return nil, err
	}
	return &overlayFile{File: f, o: o}, nil
}

// OpenDir opens a directory to sync it, which does nothing.
func (o *overlay) OpenDir(name string) (vfs.File, error) {
	if err := o.memory.MkdirAll(name, 0o750); err != nil {
		return nil, err
	}
	return o.memory.OpenDir(name)
}

// Remove has a file seen no more.
func (o *overlay) Remove(name string) error {
	made, gone := o.state(name)
	switch {
	case made:
		if err := o.memory.Remove(name); err != nil {
			return err
		}
	case gone:
		return notExist("remove", name)
	default:
		if _, err := o.FS.Stat(name); err != nil {
			return err
		}
	}
	o.note(name, false)
	return nil
}

// RemoveAll has the files of a directory, which has no others in it, seen no more.
func (o *overlay) RemoveAll(name string) error {
	names, err := o.List(name)
	if err != nil {
		return o.Remove(name)
	}
	for _, in := range names {
		err = errors.Join(err, o.RemoveAll(o.PathJoin(name, in)))
	}
	return err
}

// Rename gives a file another name. A directory keeps its name: to move one would
// bring all that is in it into memory.
func (o *overlay) Rename(from, to string) error {
	if info, err := o.Stat(from); err == nil && info.IsDir() {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.ENOSPC}
	}
	if err := o.lift(from); err != nil {
		return err
	}
	if err := o.memory.MkdirAll(o.PathDir(to), 0o750); err != nil {
		return err
	}
	if err := o.memory.Rename(from, to); err != nil {
		return err
	}
	o.note(from, false)
	o.note(to, true)
	return nil
}

// ReuseForWrite makes a new file of an old one.
func (o *overlay) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := o.Rename(from, to); err != nil {
		return nil, err
	}
	return o.OpenReadWrite(to, category)
}

// MkdirAll makes a directory in memory.
func (o *overlay) MkdirAll(dir string, perm os.FileMode) error { return o.memory.MkdirAll(dir, perm) }

// Lock gives locks for the asking: who made the overlay holds the directory's.
func (*overlay) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// List lists a directory.
func (o *overlay) List(dir string) ([]string, error) {
	names, err := o.FS.List(dir)
	above, aboveErr := o.memory.List(dir)
	if err != nil && (!vfsNotExist(err) || aboveErr != nil) {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		_, gone := o.state(o.PathJoin(dir, name))
		return gone
	})
	for _, name := range above {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Stat describes a file.
func (o *overlay) Stat(name string) (vfs.FileInfo, error) {
	switch made, gone := o.state(name); {
	case made:
		return o.memory.Stat(name)
	case gone:
		return nil, notExist("stat", name)
	}
	info, err := o.FS.Stat(name)
	if vfsNotExist(err) { // or is it a directory that was made?
		if above, err := o.memory.Stat(name); err == nil {
			return above, nil
		}
	}
	return info, err
}

// Unwrap says that this is not a wrapper of one file system.
func (*overlay) Unwrap() vfs.FS { return nil }

type overlayFile struct {
	vfs.File
	o *overlay
}

func (f *overlayFile) Write(p []byte) (int, error) {
	if err := f.o.grow(len(p)); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *overlayFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.o.grow(len(p)); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

// bytesOf is how long files are together.
func bytesOf(fs vfs.FS, names []string) (n int64) {
	for _, name := range names {
		if info, err := fs.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

// settle makes what is in memory durable below, once the engine has flushed its log
// and was closed. It makes room first: the tables named spent, of which all records
// were dropped, are emptied as far as there is need. A crash before the manifest's
// marker is there leaves the database as it was, without the records of those tables.
func (o *overlay) settle(spent []string) error {
	var files, markers []string
	for _, name := range o.files() {
		switch base := o.PathBase(name); {
		case strings.HasPrefix(base, "marker."):
			markers = append(markers, name)
		case !strings.HasSuffix(base, ".log"): // it is empty
			files = append(files, name)
		}
	}
	for _, name := range spent {
		if u, err := o.FS.GetDiskUsage(o.PathDir(name)); err == nil && int64(u.AvailBytes) > bytesOf(o.memory, files)+settleBytes {
			break
		}
		if err := empty(o.FS, name); err != nil {
			return err
		}
	}
	for _, step := range [][]string{files, markers} { // the markers say that the rest is there
		if err := o.copyDown(step); err != nil {
			return err
		}
	}
	for _, name := range o.removed() {
		if made, _ := o.state(name); made {
			continue
		}
		if err := removeIfThere(o.FS, name); err != nil {
			return err
		}
	}
	return nil
}

// settleBytes is what the file system itself may need of the space for a few files.
const settleBytes = 1 << 20

// empty replaces a file by an empty one.
func empty(fs vfs.FS, name string) error {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyDown copies files from memory, durable on return.
func (o *overlay) copyDown(names []string) error {
	dirs := map[string]bool{}
	for _, name := range names {
		dir := o.PathDir(name)
		if !dirs[dir] {
			if err := makeDir(o.FS, dir); err != nil {
				return err
			}
			dirs[dir] = true
		}
		from, err := o.memory.Open(name)
		if err != nil {
			return err
		}
		to, err := o.FS.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return errors.Join(err, from.Close())
		}
		_, err = io.Copy(to, from)
		if err = errors.Join(err, to.Sync(), to.Close(), from.Close()); err != nil {
			return errors.Join(err, o.FS.Remove(name))
		}
	}
	for dir := range dirs {
		if err := syncDir(o.FS, dir); err != nil {
			return err
		}
	}
	return nil
}
