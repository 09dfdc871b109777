package host

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// WASIModule is the import module of WASI preview 1. It is granted to every module.
const WASIModule = "wasi_snapshot_preview1"

// WASI error numbers in use (wasi_snapshot_preview1.witx, errno).
const (
	wasiOK     = 0
	wasiEBADF  = 8
	wasiEFAULT = 21
	wasiEINVAL = 28
	wasiEIO    = 29
	wasiENOSYS = 52
	wasiENOTSU = 58
	wasiESPIPE = 70
)

// Most a guest may ask for in one WASI call.
const (
	wasiMaxVectors       = 1024
	wasiMaxSubscriptions = 1024
)

// wasiState is what WASI keeps per instance. The monotonic clock is virtual:
// it moves by a microsecond per reading and by what the guest sleeps, so that
// runs repeat and no guest holds its goroutine by sleeping.
type wasiState struct {
	args, env []string
	mono      time.Duration
	random    *rand.ChaCha8
}

func (w *wasiState) init(o InstanceOptions) {
	w.args, w.env = o.Args, o.Env
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], o.Seed)
	w.random = rand.NewChaCha8(seed)
}

// wasiFunc is the body of a WASI function that returns an error number.
type wasiFunc func(c *Call, p []uint64) uint64

// wasiModule is the stub set: arguments, environment, clocks, randomness,
// descriptors 0 to 2, exit and yield. There are no files and no sockets: the
// rest answers ENOSYS.
func wasiModule() ImportModule {
	m := ImportModule{Name: WASIModule}
	add := func(name, params string, body wasiFunc) {
		types := make([]ValueType, len(params))
		for i, p := range params {
			types[i] = I32
			if p == 'l' {
				types[i] = I64
			}
		}
		m.Funcs = append(m.Funcs, ImportFunc{
			Name: name, Params: types, Results: []ValueType{I32},
			Func: func(c *Call, stack []uint64) { stack[0] = body(c, stack) },
		})
	}
	add("args_get", "ii", func(c *Call, p []uint64) uint64 { return wasiStrings(c, p, c.inst.wasi.args) })
	add("args_sizes_get", "ii", func(c *Call, p []uint64) uint64 { return wasiSizes(c, p, c.inst.wasi.args) })
	add("environ_get", "ii", func(c *Call, p []uint64) uint64 { return wasiStrings(c, p, c.inst.wasi.env) })
	add("environ_sizes_get", "ii", func(c *Call, p []uint64) uint64 { return wasiSizes(c, p, c.inst.wasi.env) })
	add("clock_res_get", "ii", wasiClockRes)
	add("clock_time_get", "ili", wasiClockTime)
	add("random_get", "ii", wasiRandom)
	add("sched_yield", "", func(*Call, []uint64) uint64 { return wasiOK })
	add("poll_oneoff", "iiii", wasiPoll)
	add("fd_write", "iiii", wasiWrite)
	add("fd_read", "iiii", wasiRead)
	add("fd_close", "i", wasiStandard)
	add("fd_fdstat_get", "ii", wasiFdstat)
	add("fd_fdstat_set_flags", "ii", wasiStandard)
	add("fd_seek", "ilii", func(c *Call, p []uint64) uint64 {
		if e := wasiStandard(c, p); e != wasiOK {
			return e
		}
		return wasiESPIPE
	})
	// The C library and Go both look for preopened directories until EBADF.
	add("fd_prestat_get", "ii", func(*Call, []uint64) uint64 { return wasiEBADF })
	add("fd_prestat_dir_name", "iii", func(*Call, []uint64) uint64 { return wasiEBADF })
	for name, params := range wasiAbsent {
		add(name, params, func(*Call, []uint64) uint64 { return wasiENOSYS })
	}
	m.Funcs = append(m.Funcs, ImportFunc{Name: "proc_exit", Params: []ValueType{I32}, Func: func(c *Call, stack []uint64) {
		c.Abort(&ExitError{Code: uint32(stack[0])})
	}})
	return m
}

// wasiAbsent are the functions that answer ENOSYS, with their parameters (i = i32, l = i64).
var wasiAbsent = map[string]string{
	"fd_advise": "illi", "fd_allocate": "ill", "fd_datasync": "i", "fd_fdstat_set_rights": "ill",
	"fd_filestat_get": "ii", "fd_filestat_set_size": "il", "fd_filestat_set_times": "illi",
	"fd_pread": "iiili", "fd_pwrite": "iiili", "fd_readdir": "iiili", "fd_renumber": "ii", "fd_sync": "i", "fd_tell": "ii",
	"path_create_directory": "iii", "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiilli",
	"path_link": "iiiiiii", "path_open": "iiiiillii", "path_readlink": "iiiiii", "path_remove_directory": "iii",
	"path_rename": "iiiiii", "path_symlink": "iiiii", "path_unlink_file": "iii", "proc_raise": "i",
	"sock_accept": "iii", "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
}

// WASIFunctions are the functions of WASI preview 1 that guests can import, stubs included.
func WASIFunctions() []ImportFunc { return wasiModule().Funcs }

// wasiSizes answers how many strings there are and how many bytes they take with their zero bytes.
func wasiSizes(c *Call, p []uint64, list []string) uint64 {
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	if !c.WriteUint32(uint32(p[0]), uint32(len(list))) || !c.WriteUint32(uint32(p[1]), uint32(size)) {
		return wasiEFAULT
	}
	return wasiOK
}

// wasiStrings writes pointers to the strings at p[0] and the strings, zero-terminated, at p[1].
func wasiStrings(c *Call, p []uint64, list []string) uint64 {
	ptr, buf := uint32(p[0]), uint32(p[1])
	for _, s := range list {
		if !c.WriteUint32(ptr, buf) || !c.Write(buf, append([]byte(s), 0)) {
			return wasiEFAULT
		}
		ptr += 4
		buf += uint32(len(s)) + 1
	}
	return wasiOK
}

func wasiClockRes(c *Call, p []uint64) uint64 {
	if uint32(p[0]) > 1 {
		return wasiEINVAL
	}
	if !c.WriteUint64(uint32(p[1]), uint64(time.Microsecond)) {
		return wasiEFAULT
	}
	return wasiOK
}

func wasiClockTime(c *Call, p []uint64) uint64 {
	w := &c.inst.wasi
	w.mono += time.Microsecond
	var ns int64
	switch clock := uint32(p[0]); {
	case clock == 0 && c.inst.o.Now != nil:
		ns = c.inst.o.Now().UnixNano()
	case clock <= 1:
		ns = int64(w.mono)
	default:
		return wasiEINVAL
	}
	if !c.WriteUint64(uint32(p[2]), uint64(ns)) {
		return wasiEFAULT
	}
	return wasiOK
}

func wasiRandom(c *Call, p []uint64) uint64 {
	c.Charge(uint64(uint32(p[1])) / 8)
	b, ok := c.Read(uint32(p[0]), uint32(p[1]))
	if !ok {
		return wasiEFAULT
	}
	_, _ = c.inst.wasi.random.Read(b) // documented never to fail
	return wasiOK
}

// wasiPoll answers clock subscriptions at once, moving the virtual clock
// by the shortest of them, and refuses the others in their events.
func wasiPoll(c *Call, p []uint64) uint64 {
	in, out, n := uint32(p[0]), uint32(p[1]), uint32(p[2])
	if n == 0 || n > wasiMaxSubscriptions {
		return wasiEINVAL
	}
	c.Charge(uint64(n) * 16)
	subs, ok := c.Read(in, n*48)
	events, ok2 := c.Read(out, n*32)
	if !ok || !ok2 {
		return wasiEFAULT
	}
	w := &c.inst.wasi
	wait := time.Duration(-1)
	for i := range int(n) {
		s, e := subs[i*48:i*48+48], [32]byte{}
		copy(e[:8], s[:8])
		e[10] = s[8]
		if s[8] != 0 {
			e[8] = wasiENOTSU
		} else {
			timeout := time.Duration(binary.LittleEndian.Uint64(s[24:]) & (1<<63 - 1))
			if s[40]&1 != 0 { // absolute
				timeout = max(timeout-w.mono, 0)
			}
			if wait < 0 || timeout < wait {
				wait = timeout
			}
		}
		copy(events[i*32:], e[:])
	}
	w.mono += max(wait, 0)
	if !c.WriteUint32(uint32(p[3]), n) {
		return wasiEFAULT
	}
	return wasiOK
}

// wasiStandard says whether p[0] is one of the three descriptors there are.
func wasiStandard(_ *Call, p []uint64) uint64 {
	if uint32(p[0]) > 2 {
		return wasiEBADF
	}
	return wasiOK
}

// wasiFdstat describes a standard descriptor: the outputs as character
// devices, so that the C library flushes at line ends, the input as unknown.
func wasiFdstat(c *Call, p []uint64) uint64 {
	fd := uint32(p[0])
	if fd > 2 {
		return wasiEBADF
	}
	var b [24]byte
	if fd != 0 {
		b[0] = 2
	}
	binary.LittleEndian.PutUint64(b[8:], 1<<1|1<<6) // rights: read, write
	if !c.Write(uint32(p[1]), b[:]) {
		return wasiEFAULT
	}
	return wasiOK
}

// wasiVectors calls do for each buffer of an iovec array until it returns
// false, and returns how many bytes do has taken.
func wasiVectors(c *Call, ptr, n uint32, do func(b []byte) (int, bool)) (uint32, uint64) {
	if n > wasiMaxVectors {
		return 0, wasiEINVAL
	}
	total := 0
	for i := range n {
		vec, ok := c.Read(ptr+8*i, 8)
		if !ok {
			return 0, wasiEFAULT
		}
		b, ok := c.Read(binary.LittleEndian.Uint32(vec), binary.LittleEndian.Uint32(vec[4:]))
		if !ok {
			return 0, wasiEFAULT
		}
		c.Charge(8 + uint64(len(b))/8)
		took, more := do(b)
		if total += took; !more {
			break
		}
	}
	return uint32(total), wasiOK
}

func wasiWrite(c *Call, p []uint64) uint64 {
	fd := uint32(p[0])
	if fd != 1 && fd != 2 {
		return wasiEBADF
	}
	failed := false
	n, e := wasiVectors(c, uint32(p[1]), uint32(p[2]), func(b []byte) (int, bool) {
		if fd == 1 && c.inst.o.Stdout != nil {
			c.Output(len(b))
			took, err := c.inst.o.Stdout.Write(b)
			failed = err != nil
			return took, err == nil
		}
		level := LevelInfo
		if fd == 2 {
			level = LevelWarn
		}
		c.inst.logBytes(int(fd), level, b)
		return len(b), true
	})
	return wasiDone(c, uint32(p[3]), n, e, failed)
}

func wasiRead(c *Call, p []uint64) uint64 {
	if uint32(p[0]) != 0 {
		return wasiEBADF
	}
	failed := false
	n, e := wasiVectors(c, uint32(p[1]), uint32(p[2]), func(b []byte) (int, bool) {
		if c.inst.o.Stdin == nil || len(b) == 0 {
			return 0, true
		}
		// One Read for each call: whoever feeds the guest line by line knows
		// when it comes for the next.
		took, err := c.inst.o.Stdin.Read(b)
		failed = err != nil && !errors.Is(err, io.EOF)
		return took, false
	})
	return wasiDone(c, uint32(p[3]), n, e, failed)
}

// wasiDone stores how many bytes went through and picks the answer.
func wasiDone(c *Call, ptr, n uint32, e uint64, failed bool) uint64 {
	switch {
	case e != wasiOK:
		return e
	case failed && n == 0:
		return wasiEIO
	case !c.WriteUint32(ptr, n):
		return wasiEFAULT
	}
	return wasiOK
}
