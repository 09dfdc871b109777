package storage

import (
	"fmt"
	"log/slog"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleOptions are the options that keep compaction from ever rewriting a
// record: see RATIONALE.md, and storage.md for what each was measured to do.
func pebbleOptions(o Options, fs vfs.FS, logger pebble.Logger, listener *pebble.EventListener) *pebble.Options {
	p := &pebble.Options{
		FS:                          fs,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		CacheSize:                   o.CacheBytes,
		L0CompactionThreshold:       2, // one waiting table is moved down at once
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               1 << 40, // moves go straight to the last level
		MaxOpenFiles:                512,
		MaxManifestFileSize:         256 << 10, // beyond it, one with more history than tables is written anew: an open reads it all
		BytesPerSync:                512 << 10,
		Logger:                      logger,
		EventListener:               listener,
		DisableTableStats:           true, // at every open they read from every table, and only say where tombstones are dense
	}
	for i := range p.TargetFileSizes {
		p.TargetFileSizes[i] = 2 * o.MemTableBytes // a flush must stay one table
	}
	// Most blocks are compressed already. Pebble tries zstd on a sample of a
	// table's, and uses it where it gains much: where blocks hold one record each.
	tables := *sstable.BalancedCompression
	tables.AdaptiveReductionCutoffPercent = 40
	p.ApplyCompressionSettings(func() pebble.DBCompressionSettings {
		return pebble.UniformDBCompressionSettings(&tables)
	})
	for i := range p.Levels {
		// Beyond 64 KiB in a block, zstd's fastest level takes 8 MiB for its history.
		p.Levels[i].BlockSize = 32 << 10
	}
	p.Experimental.ReadSamplingMultiplier = -1
	p.Experimental.SpanPolicyFunc = new(rowSpans).policy
	return p
}

// engineLogger is what Pebble reports to. Pebble calls Fatalf where it cannot
// go on, and must not go on: the goroutine ends, and the store is read-only.
type engineLogger struct {
	log   *slog.Logger
	fatal func(error)
}

// Infof drops what is not for operators.
func (engineLogger) Infof(string, ...any) {}

// Errorf reports what went wrong and is being dealt with.
func (l engineLogger) Errorf(format string, args ...any) {
	l.log.Warn("storage engine", "error", firstLine(fmt.Sprintf(format, args...)))
}

// Fatalf makes the store read-only and ends the calling goroutine.
func (l engineLogger) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf(format, args...))
	runtime.Goexit()
}
