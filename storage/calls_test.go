package storage

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// calls counts what is changed and synced in a file system, by kind of file. Writes
// are not counted: how many there are is Pebble's business, what is synced is ours.
type calls struct {
	vfs.FS
	mu  sync.Mutex
	log map[string]int
}

// kindOf names the kind of a file of the store.
func kindOf(name string) string {
	base := path.Base(name)
	switch {
	case strings.HasSuffix(base, ".log"):
		return "log"
	case strings.HasPrefix(base, "thin-"), strings.HasPrefix(base, "repair-"):
		return "table outside"
	case strings.HasSuffix(base, ".sst"):
		return "table"
	case strings.HasPrefix(base, "MANIFEST"):
		return "manifest"
	case strings.HasPrefix(base, "marker."):
		return "marker"
	case strings.HasPrefix(base, "OPTIONS"), strings.HasPrefix(base, "temporary."):
		return "options"
	}
	return strings.TrimSuffix(base, ".tmp")
}

func (c *calls) note(op, name string, err error) {
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log[op+" "+kindOf(name)]++
}

// count returns how often a call was made since the last take.
func (c *calls) count(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log[call]
}

// take returns the calls since the last take, a line each, in order of the alphabet,
// those of the log with how many there were: the rest depends on when Pebble moves
// tables. Removals are made by and by in the background: those not in awaited are left out.
func (c *calls) take(awaited string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for call, n := range c.log {
		remove := strings.HasPrefix(call, "remove ") && !strings.Contains(awaited, call+"=")
		switch {
		case remove:
		case strings.HasSuffix(call, " log"):
			lines = append(lines, fmt.Sprintf("%s %d\n", call, n))
		default:
			lines = append(lines, call+"\n")
		}
	}
	clear(c.log)
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (c *calls) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, category)
	c.note("create", name, err)
	if err != nil {
		return nil, err
	}
	return &callsFile{f, c, name}, nil
}

func (c *calls) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.ReuseForWrite(from, to, category)
	c.note("reuse", to, err)
	if err != nil {
		return nil, err
	}
	return &callsFile{f, c, to}, nil
}

func (c *calls) OpenDir(name string) (vfs.File, error) {
	f, err := c.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &callsFile{f, c, "directory " + path.Base(name)}, nil
}

func (c *calls) Link(from, to string) error {
	err := c.FS.Link(from, to)
	c.note("link", to, err)
	return err
}

func (c *calls) Rename(from, to string) error {
	err := c.FS.Rename(from, to)
	c.note("rename", to, err)
	return err
}

func (c *calls) Remove(name string) error {
	err := c.FS.Remove(name)
	c.note("remove", name, err)
	return err
}

func (c *calls) MkdirAll(dir string, perm os.FileMode) error {
	err := c.FS.MkdirAll(dir, perm)
	c.note("mkdir", dir, err)
	return err
}

func (c *calls) Unwrap() vfs.FS { return c.FS }

type callsFile struct {
	vfs.File
	c    *calls
	name string
}

func (f *callsFile) Sync() error {
	err := f.File.Sync()
	f.c.note("sync", f.name, err)
	return err
}

func (f *callsFile) SyncData() error {
	err := f.File.SyncData()
	f.c.note("sync", f.name, err)
	return err
}
