package storage

import (
	"errors"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/stream"
)

// The errors callers branch on. They arrive wrapped, with subject and cause.
var (
	// ErrClosed means that the store was closed.
	ErrClosed = commit.ErrClosed
	// ErrReadOnly means that the store takes no writes; State says why.
	ErrReadOnly = commit.ErrReadOnly
	// ErrDiskFull means that the disk is too full to take records. Nothing was
	// written; the same call works again when space has come back.
	ErrDiskFull = errors.New("disk is full")
	// ErrConflict means that an expectation of the transaction did not hold.
	// Nothing was written.
	ErrConflict = commit.ErrConflict
	// ErrOutcomeUnknown means that the write reached the file but its sync
	// failed: it may or may not be there after the next open. The store takes
	// no more writes until then.
	ErrOutcomeUnknown = commit.ErrOutcomeUnknown
	// ErrNewerFormat means that a newer version wrote the directory.
	ErrNewerFormat = errors.New("data directory has a newer format")
	// ErrLocked means that another process has the directory open.
	ErrLocked = errors.New("data directory is in use")
	// ErrNotFound means that the table has no such key.
	ErrNotFound = errors.New("not found")
	// ErrStreamNotFound means that there is no stream of that name, or no longer.
	ErrStreamNotFound = stream.ErrNotFound
	// ErrStreamExists means that the name is taken.
	ErrStreamExists = errors.New("stream exists")
	// ErrSameStream means that an export would be imported into the stream it
	// was made from, which has its records already.
	ErrSameStream = errors.New("the file was exported from this stream")
	// ErrShardNotFound means that the stream has no such shard, or no longer.
	ErrShardNotFound = stream.ErrShardNotFound
	// ErrShardClosed means that the shard was split or merged before.
	ErrShardClosed = stream.ErrShardClosed
	// ErrInvalid means that an argument is out of its range.
	ErrInvalid = stream.ErrInvalid
	// ErrTooLarge means that a record or a transaction is over its limit.
	ErrTooLarge = commit.ErrTooLarge
)
