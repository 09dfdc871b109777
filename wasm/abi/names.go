package abi

// Name is the name of this contract as it stands in a manifest.
const Name = "weir1"

// Version is the value of the version fields in the input and result headers.
const Version = 1

// Names of the functions and the memory a module exports.
const (
	// ExportMemory is the linear memory every module exports.
	ExportMemory = "memory"
	// ExportInitialize, optional, ()->(): called once, before anything else.
	ExportInitialize = "_initialize"
	// ExportMarker, ()->(): its presence says that the module speaks weir/1.
	// It is never called.
	ExportMarker = "weir_abi_1"
	// ExportBuffer, (min u32)->u32: a guest-owned region of at least min bytes,
	// 8-aligned, valid until the next weir_buffer call. 0 = cannot.
	ExportBuffer = "weir_buffer"
	// ExportConfigure, optional, (ptr u32, len u32)->i32: the manifest's config
	// as JSON. Negative = the module refuses it.
	ExportConfigure = "weir_configure"
	// ExportProcess, (ptr u32, len u32)->i64: handle one input region. The
	// answer is the address of a result header, or one of the Batch codes.
	ExportProcess = "weir_process"
	// ExportTick, optional, consumers, (now_ms i64)->i64: as ExportProcess with
	// no records.
	ExportTick = "weir_tick"
	// ExportMigrate, optional, consumers, (from u32)->i32: bring the state of a
	// shard from an older state_version to this module's. Negative = cannot.
	ExportMigrate = "weir_migrate"
)

// Names of the import modules, one per capability, so that a grant can be read
// off a module's import section.
const (
	ModuleLog    = "weir_log"
	ModuleMetric = "weir_metric"
	ModuleClock  = "weir_clock"
	ModuleState  = "weir_state"
	ModuleEmit   = "weir_emit"
	ModuleHTTP   = "weir_http"
)

// ValueType is the type of a parameter or a result, as WebAssembly's binary
// format writes it.
type ValueType byte

// The value types that cross the boundary.
const (
	I32 ValueType = 0x7f
	I64 ValueType = 0x7e
	F64 ValueType = 0x7c
)

// Func is one function of the contract. Module is empty for exports.
type Func struct {
	Module, Name    string
	Params, Results []ValueType
	Optional        bool // exports: the module may leave it out
}

// Imports lists every host call of weir/1. A module may import what is in this
// table and granted by its manifest, with exactly these types.
func Imports() []Func {
	i, l, f := I32, I64, F64
	r := []ValueType{I32}
	return []Func{
		{Module: ModuleLog, Name: "write", Params: []ValueType{i, i, i}, Results: r},
		{Module: ModuleMetric, Name: "define", Params: []ValueType{i, i, i}, Results: r},
		{Module: ModuleMetric, Name: "add", Params: []ValueType{i, f}, Results: r},
		{Module: ModuleMetric, Name: "set", Params: []ValueType{i, f}, Results: r},
		{Module: ModuleMetric, Name: "observe", Params: []ValueType{i, f}, Results: r},
		{Module: ModuleClock, Name: "now", Params: []ValueType{i}, Results: []ValueType{l}},
		{Module: ModuleState, Name: "get", Params: []ValueType{i, i, i, i, i}, Results: r},
		{Module: ModuleState, Name: "put", Params: []ValueType{i, i, i, i}, Results: r},
		{Module: ModuleState, Name: "del", Params: []ValueType{i, i}, Results: r},
		{Module: ModuleState, Name: "incr", Params: []ValueType{i, i, l, i}, Results: r},
		{Module: ModuleState, Name: "scan", Params: []ValueType{i, i, i, i, i, i, i, i}, Results: r},
		{Module: ModuleEmit, Name: "chunk", Params: []ValueType{i, i}, Results: r},
		{Module: ModuleHTTP, Name: "call", Params: []ValueType{i, i, i, i, i}, Results: r},
		{Module: ModuleHTTP, Name: "enqueue", Params: []ValueType{i, i}, Results: r},
	}
}

// Exports lists the functions a module exports, in the order they are first
// called.
func Exports() []Func {
	i, l := I32, I64
	return []Func{
		{Name: ExportInitialize, Optional: true},
		{Name: ExportMarker},
		{Name: ExportBuffer, Params: []ValueType{i}, Results: []ValueType{i}},
		{Name: ExportConfigure, Params: []ValueType{i, i}, Results: []ValueType{i}, Optional: true},
		{Name: ExportMigrate, Params: []ValueType{i}, Results: []ValueType{i}, Optional: true},
		{Name: ExportProcess, Params: []ValueType{i, i}, Results: []ValueType{l}},
		{Name: ExportTick, Params: []ValueType{l}, Results: []ValueType{l}, Optional: true},
	}
}

// Code is what a host call answers: zero or more on success, one of these
// otherwise.
type Code int32

// The answers of a host call that did not succeed.
const (
	NotFound       Code = -1 // no such key
	BufferTooSmall Code = -2 // the size needed was written through the out pointer
	Invalid        Code = -3 // an argument is out of range or points outside memory
	Denied         Code = -4 // not granted by the manifest, or not allowed here
	Quota          Code = -5 // a limit of the manifest is reached
	Timeout        Code = -6 // the call took longer than it may
	Unavailable    Code = -7 // the box can't do this now
)

// String returns the code's name, as ABI.md spells it.
func (c Code) String() string {
	switch c {
	case NotFound:
		return "not found"
	case BufferTooSmall:
		return "buffer too small"
	case Invalid:
		return "invalid"
	case Denied:
		return "denied"
	case Quota:
		return "quota"
	case Timeout:
		return "timeout"
	case Unavailable:
		return "unavailable"
	}
	if c >= 0 {
		return "ok"
	}
	return "unknown code"
}

// Answers of weir_process and weir_tick that concern the whole batch. Any other
// negative value means BatchFatal.
const (
	BatchFatal int64 = -1 // the batch can't be handled; it will be bisected
	BatchRetry int64 = -2 // the batch is to be tried again later
)

// Levels of weir_log.write.
const (
	LogDebug = 0
	LogInfo  = 1
	LogWarn  = 2
	LogError = 3
)

// Kinds of weir_metric.define.
const (
	MetricCounter   = 0
	MetricGauge     = 1
	MetricHistogram = 2
)

// Kinds of weir_clock.now.
const (
	ClockBatch     = 0 // the batch's frozen time, ms since 1970
	ClockWall      = 1 // wall clock, ms since 1970; batch time unless clock: real is granted
	ClockMonotonic = 2 // monotonic, ns from an arbitrary start; batch time in ns unless granted
)
