package storage

import (
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of a store. The zero value is complete: a store in the operating
// system's file system for a box with 512 MB of memory.
type Options struct {
	// FS is where the directory lies; nil is the operating system's.
	FS vfs.FS
	// MemTableBytes is the size of a memtable, and so of an epoch as stored:
	// 8 MiB when 0, at least 1 MiB. Two to four of them are in memory.
	MemTableBytes int64
	// CacheBytes is the size of the block cache, 8 MiB when 0.
	CacheBytes int64
	// AdmissionBytes bounds the records of all transactions under way; beyond
	// it Begin waits. 4 MiB when 0.
	AdmissionBytes int64
	// GroupBytes bounds the records of one sync, 1 MiB when 0.
	GroupBytes int64
	// ReserveBytes is the size of the ballast file that is given up when the
	// disk is full, so that the store can still drop what may be dropped. 0
	// is six memtables, at least 24 MiB; below 0 there is none, and a full
	// disk makes the store read-only.
	ReserveBytes int64
	// SoftFreeBytes is the free space below which the policies of streams
	// apply. 0 is the larger of 64 MiB, the ballast and 5 % of the disk.
	SoftFreeBytes int64
	// TotalBytes bounds the stored blocks of all streams together, 0 for no
	// limit. Beyond it the policies of streams apply. It is looked at every second.
	TotalBytes int64
	// EnduranceBytes is how much the device may be written in its life (its
	// TBW), for the forecast in the ledger; 0 when not known.
	EnduranceBytes int64
	// Adopt makes a stream for the records of each shard whose stream's row was lost to
	// damage, named recovered-N after the shard.
	Adopt bool
	// Clock is the wall clock, nil for time.Now.
	Clock func() time.Time
	// Uptime is the monotonic clock; only differences count. Nil for the
	// process's own.
	Uptime func() time.Duration
	// Logger is told what an operator should know, nil for nobody.
	Logger *slog.Logger
}

func (o Options) complete() Options {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	def(&o.MemTableBytes, 8<<20)
	o.MemTableBytes = max(o.MemTableBytes, 1<<20)
	def(&o.CacheBytes, 8<<20)
	def(&o.AdmissionBytes, 4<<20)
	def(&o.GroupBytes, 1<<20)
	o.GroupBytes = min(o.GroupBytes, o.AdmissionBytes)
	def(&o.ReserveBytes, max(24<<20, 6*o.MemTableBytes))
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Uptime == nil {
		start := time.Now()
		o.Uptime = func() time.Duration { return time.Since(start) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}
