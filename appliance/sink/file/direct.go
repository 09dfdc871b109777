package file

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

const (
	// writeBytes are written at a time: stored frames come in pieces of about
	// 10 KiB, and a call into the kernel for each costs more than the copy.
	writeBytes = 1 << 20
	// blockBytes is what O_DIRECT wants memory, lengths and offsets to be
	// multiples of, on any medium in use.
	blockBytes = 4 << 10
)

// directWriter gathers what is written to a new file and writes it past the
// page cache: nobody reads an object soon, it would push out what the log is
// read from, and copying it there costs more than all else that forwarding
// does. Where a file system can't, it writes as usual.
type directWriter struct {
	f      *os.File
	buf    []byte // aligned; its length is the capacity
	n      int    // bytes in it
	direct bool
}

// newDirectWriter gathers in lent if that is big enough.
func newDirectWriter(f *os.File, lent []byte) *directWriter {
	buf := lent[:cap(lent)]
	if len(buf) < writeBytes+blockBytes {
		buf = make([]byte, writeBytes+blockBytes)
	}
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % blockBytes)
	w := &directWriter{f: f, buf: buf[off : off+writeBytes]}
	w.direct = w.setDirect(true)
	return w
}

// setDirect turns O_DIRECT on or off and says whether that went well.
func (w *directWriter) setDirect(on bool) bool {
	conn, err := w.f.SyscallConn()
	if err != nil {
		return false
	}
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		var flags uintptr
		if flags, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0); errno != 0 {
			return
		}
		flags &^= syscall.O_DIRECT
		if on {
			flags |= syscall.O_DIRECT
		}
		_, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_SETFL, flags)
	})
	return err == nil && errno == 0
}

func (w *directWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := copy(w.buf[w.n:], p)
		w.n += k
		p = p[k:]
		if w.n == len(w.buf) {
			if err := w.out(w.buf); err != nil {
				return n - len(p), err
			}
			w.n = 0
		}
	}
	return n, nil
}

// flush writes what is left. Nothing may be written after it.
func (w *directWriter) flush() error {
	whole := w.n &^ (blockBytes - 1)
	if err := w.out(w.buf[:whole]); err != nil {
		return err
	}
	if whole == w.n {
		return nil
	}
	if w.direct {
		w.setDirect(false)
	}
	_, err := w.f.Write(w.buf[whole:w.n])
	return err
}

// out writes whole blocks. A file system that took the flag and not the write
// gets it as usual.
func (w *directWriter) out(p []byte) error {
	for len(p) > 0 {
		n, err := w.f.Write(p)
		p = p[n:]
		switch {
		case err == nil:
		case w.direct && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP)):
			w.direct = false
			w.setDirect(false)
		default:
			return err
		}
	}
	return nil
}
