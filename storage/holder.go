package storage

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Holder says whether a process has the directory open, and which: pid is 0 where the
// system doesn't tell, as for a process of another container. It takes no lock itself, so
// it stands in nobody's way. The error is of opening the file of the lock, which is not
// there before a first start, or of a file system without locks.
//
// The process that has the directory open must not ask: the system takes its lock away
// when any file of the lock is closed.
func Holder(dir string) (held bool, pid int, err error) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false, 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return false, 0, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return lock.Type != unix.F_UNLCK, int(max(lock.Pid, 0)), nil
}
