//go:build wasm

package weir

import "unsafe"

// Error is what a host call answers when it does not succeed.
type Error int32

// The answers of host calls.
const (
	ErrNotFound       Error = -1 // no such key
	ErrBufferTooSmall Error = -2 // the length that came with it is the size needed
	ErrInvalid        Error = -3 // an argument is out of range
	ErrDenied         Error = -4 // not granted by the manifest
	ErrQuota          Error = -5 // a limit of the manifest is reached
	ErrTimeout        Error = -6 // the call took longer than it may
	ErrUnavailable    Error = -7 // the box can't do this now
)

// Error returns the answer's name.
func (e Error) Error() string {
	switch e {
	case ErrNotFound:
		return "not found"
	case ErrBufferTooSmall:
		return "buffer too small"
	case ErrInvalid:
		return "invalid"
	case ErrDenied:
		return "denied"
	case ErrQuota:
		return "quota"
	case ErrTimeout:
		return "timeout"
	case ErrUnavailable:
		return "unavailable"
	}
	return "unknown answer of the host"
}

// The errors as values, so that returning one doesn't allocate.
var errs = [...]error{
	ErrNotFound, ErrBufferTooSmall, ErrInvalid, ErrDenied, ErrQuota, ErrTimeout, ErrUnavailable,
}

func asError(code int32) error {
	if code >= 0 {
		return nil
	}
	if i := int(-code) - 1; i < len(errs) {
		return errs[i]
	}
	return Error(code)
}

//go:wasmimport weir_log write
//go:noescape
func logWrite(level int32, p unsafe.Pointer, n uint32) int32

//go:wasmimport weir_metric define
//go:noescape
func metricDefine(kind int32, p unsafe.Pointer, n uint32) int32

//go:wasmimport weir_metric add
func metricAdd(id int32, v float64) int32

//go:wasmimport weir_metric set
func metricSet(id int32, v float64) int32

//go:wasmimport weir_metric observe
func metricObserve(id int32, v float64) int32

//go:wasmimport weir_clock now
func clockNow(kind int32) int64

//go:wasmimport weir_state get
//go:noescape
func stateGet(k unsafe.Pointer, kn uint32, buf unsafe.Pointer, n uint32, out unsafe.Pointer) int32

//go:wasmimport weir_state put
//go:noescape
func statePut(k unsafe.Pointer, kn uint32, v unsafe.Pointer, vn uint32) int32

//go:wasmimport weir_state del
//go:noescape
func stateDel(k unsafe.Pointer, kn uint32) int32

//go:wasmimport weir_state incr
//go:noescape
func stateIncr(k unsafe.Pointer, kn uint32, delta int64, out unsafe.Pointer) int32

//go:wasmimport weir_state scan
//go:noescape
func stateScan(prefix unsafe.Pointer, pn uint32, after unsafe.Pointer, an uint32, limit int32, buf unsafe.Pointer, n uint32, out unsafe.Pointer) int32

//go:wasmimport weir_emit chunk
//go:noescape
func emitChunk(outs unsafe.Pointer, count uint32) int32

//go:wasmimport weir_http call
//go:noescape
func httpCall(req unsafe.Pointer, n uint32, buf unsafe.Pointer, size uint32, out unsafe.Pointer) int32

//go:wasmimport weir_http enqueue
//go:noescape
func httpEnqueue(req unsafe.Pointer, n uint32) int32

func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// Level is the weight of a log line.
type Level int32

// The levels of Log.
const (
	LevelDebug Level = iota
	LevelInfo
	LevelWarn
	LevelError
)

// Log writes one line to the module's log. Lines are cut at 1 KiB; above the
// manifest's rate the host drops them.
func Log(level Level, line string) {
	logWrite(int32(level), unsafe.Pointer(unsafe.StringData(line)), uint32(len(line)))
}

// A Metric is a number the box shows to its operator. What is counted in a batch
// is added when the batch succeeds.
type Metric int32

// Counter, Gauge and Histogram define a metric. Define metrics in Configure or
// once, not per record. Names are [a-z_][a-z0-9_]*. A metric that the host
// refuses is negative, and using it does nothing.
func Counter(name string) Metric { return define(0, name) }

// Gauge defines a metric that is set.
func Gauge(name string) Metric { return define(1, name) }

// Histogram defines a metric that shows a distribution.
func Histogram(name string) Metric { return define(2, name) }

func define(kind int32, name string) Metric {
	return Metric(metricDefine(kind, unsafe.Pointer(unsafe.StringData(name)), uint32(len(name))))
}

// Add adds v to a counter or gauge.
func (m Metric) Add(v float64) { metricAdd(int32(m), v) }

// Set sets a gauge.
func (m Metric) Set(v float64) { metricSet(int32(m), v) }

// Observe adds v to a histogram.
func (m Metric) Observe(v float64) { metricObserve(int32(m), v) }

// BatchTimeMS is the batch's frozen time, ms since 1970.
func BatchTimeMS() int64 { return clockNow(0) }

// WallTimeMS is the wall clock, ms since 1970, when the manifest grants
// `clock: real`; the batch's time otherwise, so that a replay gives the same
// answer.
func WallTimeMS() int64 { return clockNow(1) }

// MonotonicNS is a clock that never goes back, in ns; granted as WallTimeMS is.
func MonotonicNS() int64 { return clockNow(2) }

// Cells that the host writes answers to.
var (
	outLen uint32
	outSum int64
)

// StateGet copies the value of key into buf and returns its length. ErrNotFound;
// ErrBufferTooSmall, and the size needed. State is for consumers, private to the
// module and the shard, and commits with the batch.
func StateGet(key, buf []byte) (int, error) {
	code := stateGet(pointer(key), uint32(len(key)), pointer(buf), uint32(len(buf)), unsafe.Pointer(&outLen))
	if code < 0 && Error(code) != ErrBufferTooSmall {
		return 0, asError(code)
	}
	return int(outLen), asError(code)
}

// StatePut stores value under key (1 to 1,024 bytes).
func StatePut(key, value []byte) error {
	return asError(statePut(pointer(key), uint32(len(key)), pointer(value), uint32(len(value))))
}

// StateDelete removes key; no error when there was none.
func StateDelete(key []byte) error { return asError(stateDel(pointer(key), uint32(len(key)))) }

// StateIncr adds delta to the counter under key, 0 when absent, and returns the
// sum.
func StateIncr(key []byte, delta int64) (int64, error) {
	code := stateIncr(pointer(key), uint32(len(key)), delta, unsafe.Pointer(&outSum))
	return outSum, asError(code)
}

var scanAfter [1024]byte

// StateScan calls fn with each key that begins with prefix, in order, until fn
// returns false. It fetches a buffer full at a time; key and value lie in buf
// and are valid until fn returns. fn may put and delete, but not scan.
func StateScan(prefix, buf []byte, fn func(key, value []byte) bool) error {
	after := scanAfter[:0]
	for {
		n := stateScan(pointer(prefix), uint32(len(prefix)), pointer(after), uint32(len(after)), 1000,
			pointer(buf), uint32(len(buf)), unsafe.Pointer(&outLen))
		if n <= 0 {
			return asError(n)
		}
		page := buf[:outLen]
		for ; n > 0; n-- {
			k, v := load32(page), load32(page[4:])
			key, value := page[8:8+k], page[8+k:8+k+v]
			page = page[8+k+v:]
			after = append(scanAfter[:0], key...)
			if !fn(key, value) {
				return nil
			}
		}
	}
}

func load32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// HTTPCall sends a request and waits: transforms only, hosts of the manifest
// only. The request is text, "POST https://host/path\nname: value\n\n" and the
// body. It returns the HTTP status and the response's length in buf, in the same
// form. ErrBufferTooSmall: the length is the size needed, and calling again with
// an empty request fetches the response.
func HTTPCall(request, buf []byte) (status, n int, err error) {
	code := httpCall(pointer(request), uint32(len(request)), pointer(buf), uint32(len(buf)), unsafe.Pointer(&outLen))
	if code < 0 && Error(code) != ErrBufferTooSmall {
		return 0, 0, asError(code)
	}
	return int(max(code, 0)), int(outLen), asError(code)
}

// HTTPBody returns what follows the headers of a response.
func HTTPBody(response []byte) []byte {
	for i := 1; i < len(response); i++ {
		if response[i] == '\n' && response[i-1] == '\n' {
			return response[i+1:]
		}
	}
	return nil
}

// HTTPEnqueue puts a request into the outbox: consumers only. It is sent after
// the batch is committed, at least once.
func HTTPEnqueue(request []byte) error {
	return asError(httpEnqueue(pointer(request), uint32(len(request))))
}
