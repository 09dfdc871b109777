package storagetest

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gate lets one change of the file system happen at a time and tells at of each
// before it happens; an error from at takes its place. (A MemFS can't be cloned
// while a sync is under way: it locks for reading twice.)
type gate struct {
	vfs.FS
	mu sync.Mutex
	n  atomic.Int64
	at func(n int64, op string) error
}

func (g *gate) pass(op, path string, fn func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.at(g.n.Add(1), op+" "+path); err != nil {
		return err
	}
	return fn()
}

func (g *gate) file(op, path string, open func() (vfs.File, error)) (f vfs.File, err error) {
	err = g.pass(op, path, func() error {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &gateFile{f, g, path}, nil
}

func (g *gate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file("create", name, func() (vfs.File, error) { return g.FS.Create(name, c) })
}

func (g *gate) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file("reuse", to, func() (vfs.File, error) { return g.FS.ReuseForWrite(from, to, c) })
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return g.file("open for writing", name, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, c, o...) })
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &gateFile{f, g, name}, nil
}

func (g *gate) Link(from, to string) error {
	return g.pass("link", to, func() error { return g.FS.Link(from, to) })
}

func (g *gate) Rename(from, to string) error {
	return g.pass("rename", to, func() error { return g.FS.Rename(from, to) })
}

func (g *gate) Remove(name string) error {
	return g.pass("remove", name, func() error { return g.FS.Remove(name) })
}

func (g *gate) RemoveAll(name string) error {
	return g.pass("remove all", name, func() error { return g.FS.RemoveAll(name) })
}

func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	return g.pass("mkdir", dir, func() error { return g.FS.MkdirAll(dir, perm) })
}

func (g *gate) Unwrap() vfs.FS { return g.FS }

type gateFile struct {
	vfs.File
	g    *gate
	path string
}

func (f *gateFile) Write(p []byte) (n int, err error) {
	err = f.g.pass("write", f.path, func() error {
		n, err = f.File.Write(p)
		return err
	})
	return n, err
}

func (f *gateFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.g.pass("write", f.path, func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *gateFile) Sync() error { return f.g.pass("sync", f.path, f.File.Sync) }

func (f *gateFile) SyncData() error { return f.g.pass("sync data of", f.path, f.File.SyncData) }

func (f *gateFile) SyncTo(length int64) (full bool, err error) {
	err = f.g.pass("sync part of", f.path, func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *gateFile) Preallocate(off, length int64) error {
	return f.g.pass("preallocate", f.path, func() error { return f.File.Preallocate(off, length) })
}
