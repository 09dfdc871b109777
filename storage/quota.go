package storage

import (
	"errors"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// NoSpace says that err is for want of space: a disk, or what a user may have of it, is full.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// overQuota is EDQUOT for those who know ENOSPC only, as Pebble does.
type overQuota struct{}

func (overQuota) Error() string { return syscall.EDQUOT.Error() }
func (overQuota) Unwrap() error { return syscall.ENOSPC }

// asFull returns err, with overQuota in the place of EDQUOT.
func asFull(err error) error {
	if !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return &os.PathError{Op: p.Op, Path: p.Path, Err: overQuota{}}
	}
	return overQuota{}
}

// quotaFS is a file system on which a full quota is a full disk.
type quotaFS struct{ vfs.FS }

// Unwrap returns the file system below.
func (q quotaFS) Unwrap() vfs.FS { return q.FS }

func (q quotaFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, asFull(err)
	}
	return quotaFile{f}, nil
}

// Create creates a file.
func (q quotaFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return q.file(q.FS.Create(name, c))
}

// ReuseForWrite makes a new file of an old one.
func (q quotaFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return q.file(q.FS.ReuseForWrite(from, to, c))
}

// OpenReadWrite opens a file to change it.
func (q quotaFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return q.file(q.FS.OpenReadWrite(name, c, o...))
}

// OpenDir opens a directory, to sync it.
func (q quotaFS) OpenDir(name string) (vfs.File, error) { return q.file(q.FS.OpenDir(name)) }

// Link gives a file a second name.
func (q quotaFS) Link(from, to string) error { return asFull(q.FS.Link(from, to)) }

// Rename gives a file another name.
func (q quotaFS) Rename(from, to string) error { return asFull(q.FS.Rename(from, to)) }

// MkdirAll makes a directory.
func (q quotaFS) MkdirAll(dir string, perm os.FileMode) error {
	return asFull(q.FS.MkdirAll(dir, perm))
}

// quotaFile is a file that is written.
type quotaFile struct{ vfs.File }

func (f quotaFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, asFull(err)
}

func (f quotaFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, asFull(err)
}

func (f quotaFile) Preallocate(at, length int64) error {
	return asFull(f.File.Preallocate(at, length))
}

func (f quotaFile) Sync() error     { return asFull(f.File.Sync()) }
func (f quotaFile) SyncData() error { return asFull(f.File.SyncData()) }

func (f quotaFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, asFull(err)
}
