package storage

import "errors"

// The errors callers branch on. They arrive wrapped, with subject and cause.
var (
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrReadOnly means that the store takes no writes; State says why.
	ErrReadOnly = errors.New("store is read-only")
	// ErrDiskFull means that the disk is too full to take writes. Nothing was
	// written; the same call works again when space has come back.
	ErrDiskFull = errors.New("disk is full")
	// ErrConflict means that an expectation of the transaction did not hold.
	// Nothing was written.
	ErrConflict = errors.New("transaction conflict")
	// ErrOutcomeUnknown means that the write reached the file but its sync
	// failed: it may or may not be there after the next open. The store takes
	// no more writes until then.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrNewerFormat means that a newer version wrote the directory.
	ErrNewerFormat = errors.New("data directory has a newer format")
	// ErrLocked means that another process has the directory open.
	ErrLocked = errors.New("data directory is in use")
	// ErrNotFound means that the table has no such key.
	ErrNotFound = errors.New("not found")
	// ErrStreamNotFound means that there is no stream of that name.
	ErrStreamNotFound = errors.New("stream not found")
	// ErrStreamExists means that the name is taken.
	ErrStreamExists = errors.New("stream exists")
	// ErrShardNotFound means that the stream has no such shard, or no longer.
	ErrShardNotFound = errors.New("shard not found")
	// ErrShardClosed means that the shard was split or merged before.
	ErrShardClosed = errors.New("shard is closed")
	// ErrInvalid means that an argument is out of its range.
	ErrInvalid = errors.New("invalid argument")
	// ErrTooLarge means that a record or a transaction is over its limit.
	ErrTooLarge = errors.New("too large")
)
