// Package meter makes an uploaded WebAssembly module safe to run in the
// process: it validates the module against caps before anything compiles it,
// and rewrites it so that it counts what it does.
//
// The rewritten module computes what the original does, and
//
//   - counts fuel at every loop header and at the entry of functions that call
//     others, and charges bulk memory and table operators and memory.grow by
//     length; fills and copies of more than 256 KiB are done in pieces. A unit
//     stands for an operator; of a large loop, which rarely runs as a whole in
//     one turn, one for each sixteen. Each time the fuel that the host
//     granted is used up it calls the import weir_sys.tick, where the host
//     looks at its limits and grants more, or ends the call. No shape of code
//     runs long without passing there: that also lets the garbage collector,
//     and every other goroutine, run;
//   - counts the depth of nested calls and traps when none is left;
//   - has no custom sections, no table above Caps.TableMax elements, and no
//     memory above Caps.MemoryPages;
//   - on request, has other operators in place of those that wazero 1.12
//     compiles wrongly.
//
// It adds one imported function, two exported mutable globals of type i32,
// one function and a few types:
//
//	(import "weir_sys" "tick" (func (param i32) (result i32)))  ;; fuel left (≤ 0) → fuel granted (> 0)
//	(export "weir_sys.fuel" (global (mut i32)))                 ;; fuel left of what was granted last; starts at 0
//	(export "weir_sys.depth" (global (mut i32)))                ;; nesting left; below 0 after a trap for depth
//
// The package knows nothing of wazero and runs nothing. It has its own
// decoder and validator: what it lets through is valid, and what it can't
// read is refused, so an index that is out of range in the original never
// becomes one of the additions.
package meter

import (
	"errors"
	"fmt"
)

// Names of what the rewriter adds. Uploads that use them are refused.
const (
	ImportModule = "weir_sys"
	ImportTick   = "tick"
	ExportPrefix = "weir_sys."
	ExportFuel   = "weir_sys.fuel"
	ExportDepth  = "weir_sys.depth"
)

// DefaultDepth is what the depth global starts with. wazero's interpreter
// ends at 2,000 frames, the compiler at some ten million: below both, the two
// agree. One unit is one call of a frame of up to 64 values.
const DefaultDepth = 1900

// Version names the rewriting: derived data (compiled code) is only good for
// the version it was made with. It changes whenever the output may change.
const Version = "fuel-2"

// Kinds of errors. An *Error wraps one of them.
var (
	// ErrMalformed: the bytes are not a valid WebAssembly module.
	ErrMalformed = errors.New("malformed module")
	// ErrUnsupported: valid, or from a later version of WebAssembly, but not accepted here.
	ErrUnsupported = errors.New("not supported")
	// ErrLimit: valid, but above a cap.
	ErrLimit = errors.New("above a limit")
)

// Error says why a module is refused.
type Error struct {
	Kind     error  // ErrMalformed, ErrUnsupported or ErrLimit
	Function int    // index of the function whose body is at fault, imports counted, or -1
	Offset   int    // into the module
	Reason   string // with value and limit
}

func newError(kind error, function, offset int, format string, args ...any) *Error {
	return &Error{Kind: kind, Function: function, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// Error gives kind, function, offset and reason.
func (e *Error) Error() string {
	if e.Function >= 0 {
		return fmt.Sprintf("%v: function %d, offset 0x%x: %s", e.Kind, e.Function, e.Offset, e.Reason)
	}
	return fmt.Sprintf("%v: offset 0x%x: %s", e.Kind, e.Offset, e.Reason)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Caps bound what a module may consist of. The defaults are some five times
// what guests of large languages (Go with encoding/json, QuickJS) come to, and
// far below what makes compiling them slow or large.
type Caps struct {
	ModuleBytes int // the whole upload
	Types       int
	Imports     int
	Functions   int // not counting imports
	BodyBytes   int // one function's body
	Blocks      int // blocks, loops, ifs and branch table targets in one function
	Nesting     int // of blocks in one function
	Locals      int // in one function, parameters included; also parameters and results of a type
	TotalLocals int // in all functions, parameters not included
	Stack       int // operands on the stack of one function
	Globals     int
	Tables      int
	TableMin    int // elements of a table to begin with
	TableMax    int // elements of a table at most: its maximum is forced to this, unless it is 0
	Elements    int // in all element segments
	Segments    int // element segments, and data segments
	DataBytes   int // in all data segments
	MemoryPages uint32
	Exports     int

	AllowStart          bool // accept a start section
	FunctionImportsOnly bool // refuse imported tables, memories and globals
}

// DefaultCaps are the caps for uploads.
func DefaultCaps() Caps {
	return Caps{
		ModuleBytes: 32 << 20,
		Types:       5_000, Imports: 1_000, Functions: 20_000,
		BodyBytes: 256 << 10, Blocks: 4_000, Nesting: 1_000,
		Locals: 1_000, TotalLocals: 200_000, Stack: 1_000,
		Globals: 10_000, Tables: 1, TableMin: 16_384, TableMax: 65_536, Elements: 200_000, Segments: 100_000,
		DataBytes: 4 << 20, MemoryPages: 1_024, Exports: 1_000,
		FunctionImportsOnly: true,
	}
}

// Options of Rewrite. The zero value takes DefaultCaps and substitutes nothing.
type Options struct {
	Caps *Caps
	// ReplaceRemainder replaces the integer remainder operators: wazero 1.12
	// may compile them wrongly for arm64 (wazero/wazero#2508).
	ReplaceRemainder bool
	// ReplaceSelect replaces select of floats and vectors: wazero 1.12 may
	// compile it wrongly for amd64 (wazero/wazero#2534).
	ReplaceSelect bool
}

// Function is an imported or exported function with its type: value types by
// their binary encoding.
type Function struct {
	Module, Name    string // Module is empty for an export
	Params, Results []byte
}

// Result is a rewritten module and what is known of the original.
type Result struct {
	Wasm        []byte
	Imports     []Function // what the original imports, in its order
	Exports     []Function // in its order
	Memory      bool       // it has a memory
	MemoryPages uint32     // of its memory to begin with
	Functions   int        // without imports
	Custom      int        // bytes of custom sections that were dropped
}

// Rewrite validates and rewrites a module. wasm is neither kept nor changed.
// An error is an *Error. Rewriting is deterministic, and takes time and
// memory in proportion to the module.
func Rewrite(wasm []byte, o Options) (res *Result, err error) {
	caps := DefaultCaps()
	if o.Caps != nil {
		caps = *o.Caps
	}
	if len(wasm) > caps.ModuleBytes {
		return nil, newError(ErrLimit, -1, 0, "module of %d bytes; the limit is %d", len(wasm), caps.ModuleBytes)
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Error:
			res, err = nil, r
		default:
			panic(r)
		}
	}()
	m := decode(wasm, caps)
	bodies := m.validate(o)
	m.settleCosts(bodies)
	res = m.describe()
	res.Wasm = m.emit(bodies, o)
	return res, nil
}

func (m *module) describe() *Result {
	res := &Result{Functions: len(m.bodies), Custom: m.custom}
	for _, e := range m.imports {
		if e.kind == kindFunction {
			t := m.types[e.index]
			res.Imports = append(res.Imports, Function{e.module, e.name, []byte(t.in), []byte(t.out)})
		}
	}
	for _, e := range m.exports {
		if e.kind == kindFunction {
			t := m.functionType(e.index)
			res.Exports = append(res.Exports, Function{"", e.name, []byte(t.in), []byte(t.out)})
		}
	}
	if len(m.memories) > 0 {
		res.Memory, res.MemoryPages = true, m.memories[0].min
	}
	return res
}
