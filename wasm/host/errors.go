package host

import (
	"errors"
	"fmt"
)

// Why a call into a guest ended early, or a module was refused. Errors of
// this package wrap exactly one of them; callers branch with errors.Is.
var (
	// ErrFuel: the call used up Limits.Fuel.
	ErrFuel = errors.New("fuel used up")
	// ErrDeadline: the call ran past Limits.Wall or its context's deadline.
	ErrDeadline = errors.New("deadline passed")
	// ErrCanceled: the call's context was canceled.
	ErrCanceled = errors.New("canceled")
	// ErrMemory: the guest trapped or gave up after memory.grow was refused
	// by Limits.MemoryBytes or by the memory budget of the box.
	ErrMemory = errors.New("memory limit reached")
	// ErrDepth: calls nested deeper than Limits.Depth.
	ErrDepth = errors.New("call depth limit reached")
	// ErrOutput: the guest handed over more than Limits.OutputBytes.
	ErrOutput = errors.New("output limit reached")
	// ErrTrap: the guest trapped: unreachable, access out of bounds, division by zero, bad indirect call.
	ErrTrap = errors.New("trap")
	// ErrExit: the guest ended itself through proc_exit; see ExitError.
	ErrExit = errors.New("guest exited")
	// ErrImport: the module imports what it was not granted, or what does not exist.
	ErrImport = errors.New("import not granted")
	// ErrInvalid: the bytes are not a module this host accepts.
	ErrInvalid = errors.New("module not accepted")
	// ErrCompile: the module is valid, but compiling it failed or passed its limits.
	ErrCompile = errors.New("compile failed")
	// ErrBudget: the memory budget of the box has no room for one more instance; nothing is wrong with the module.
	ErrBudget = errors.New("memory budget used up")
	// ErrClosed: the instance, module or runtime is closed, or the instance was discarded after an earlier error.
	ErrClosed = errors.New("closed")
	// ErrBusy: two goroutines used one instance at the same time. Nothing was run.
	ErrBusy = errors.New("instance in use")
	// ErrExport: the module lacks an export, or has it with another type.
	ErrExport = errors.New("export missing")
)

// CallError says how a call into a guest ended early. The instance is
// discarded: its state is undefined after a trap.
type CallError struct {
	Function string // export that was called
	Err      error  // wraps one of this package's sentinels, or what an import function aborted with
	Fuel     uint64 // fuel used by the call until then
	Trace    string // guest's stack, innermost first, one function a line; may be empty
}

// Error gives function and cause, without the trace.
func (e *CallError) Error() string { return fmt.Sprintf("call %s: %v", e.Function, e.Err) }

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// ExitError is the cause of a CallError when the guest called proc_exit. It is ErrExit.
type ExitError struct{ Code uint32 }

// Error gives the exit code.
func (e *ExitError) Error() string { return fmt.Sprintf("guest exited with code %d", e.Code) }

// Is reports that an ExitError is ErrExit.
func (e *ExitError) Is(target error) bool { return target == ErrExit }

// abort carries an error from an import function through wazero, which
// recovers it from the panic and wraps it. It is never seen by callers.
type abort struct{ err error }

func (a *abort) Error() string { return a.err.Error() }
func (a *abort) Unwrap() error { return a.err }
