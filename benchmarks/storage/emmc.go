package storage

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// emmc models a slow flash device under a real file system: one serial device,
// every barrier costs a fixed time and every dirty byte its share of the bandwidth.
type emmc struct {
	vfs.FS
	barrier   time.Duration
	perSecond float64

	mu struct {
		sync.Mutex
		busyUntil time.Time
	}
}

func newEMMC(fs vfs.FS) *emmc {
	return &emmc{FS: fs, barrier: 4 * time.Millisecond, perSecond: 20e6}
}

// spend waits until the device has done this after all it had to do before.
func (d *emmc) spend(barrier bool, dirty int64) {
	cost := time.Duration(float64(dirty) / d.perSecond * float64(time.Second))
	if barrier {
		cost += d.barrier
	}
	d.mu.Lock()
	now := time.Now()
	if d.mu.busyUntil.Before(now) {
		d.mu.busyUntil = now
	}
	d.mu.busyUntil = d.mu.busyUntil.Add(cost)
	wait := d.mu.busyUntil.Sub(now)
	d.mu.Unlock()
	time.Sleep(wait)
}

func (d *emmc) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &emmcFile{File: f, device: d}, nil
}

func (d *emmc) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.wrap(d.FS.Create(name, c))
}

func (d *emmc) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.wrap(d.FS.OpenReadWrite(name, c, o...))
}

func (d *emmc) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.wrap(d.FS.ReuseForWrite(from, to, c))
}

func (d *emmc) OpenDir(name string) (vfs.File, error) { return d.wrap(d.FS.OpenDir(name)) }

func (d *emmc) Unwrap() vfs.FS { return d.FS }

type emmcFile struct {
	vfs.File
	device *emmc
	mu     sync.Mutex
	dirty  int64
}

func (f *emmcFile) wrote(n int) {
	f.mu.Lock()
	f.dirty += int64(n)
	f.mu.Unlock()
}

func (f *emmcFile) take(most int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(f.dirty, most)
	f.dirty -= n
	return n
}

func (f *emmcFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.wrote(n)
	return n, err
}

func (f *emmcFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.wrote(n)
	return n, err
}

// The model charges time, not durability: the real sync below it is left out,
// so that the shared disk of the machine adds no noise.

func (f *emmcFile) Sync() error     { f.device.spend(true, f.take(1<<62)); return nil }
func (f *emmcFile) SyncData() error { f.device.spend(true, f.take(1<<62)); return nil }

func (f *emmcFile) SyncTo(length int64) (bool, error) {
	f.device.spend(false, f.take(length))
	return false, nil
}
