package storage

import (
	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/shard"
	"github.com/weirhq/weir/storage/stream"
)

// What callers use of the packages below, so that they import only this one
// and record.
type (
	// Stream is one stream: its configuration, its shards, and their readers.
	Stream = stream.Stream
	// StreamConfig is what a stream is created with.
	StreamConfig = stream.Config
	// ShardInfo describes a shard at one moment.
	ShardInfo = stream.ShardInfo
	// Mode says who manages the shards.
	Mode = stream.Mode
	// Policy says what happens when the disk is full.
	Policy = stream.Policy
	// Codec is how a stream's blocks are compressed.
	Codec = stream.Codec
	// Reader stands at an index of a shard and reads forward.
	Reader = shard.Reader
	// Position is a place in a shard.
	Position = shard.Position
	// PositionKind says how a Position names a place.
	PositionKind = shard.PositionKind
	// Gap is a range of indexes that a reader passed over.
	Gap = shard.Gap
	// GapReason is why a reader passed over records.
	GapReason = shard.GapReason
	// Loss is a range of indexes gone before their retention was over.
	Loss = shard.Loss
	// Frame is one stored block, its data still as it lies on disk.
	Frame = shard.Frame
	// FrameCodec is how a stored frame is compressed.
	FrameCodec = block.Codec
	// Table names a durable table.
	Table = keyspace.Table
)

// Who manages the shards, what happens when the disk is full, how blocks are compressed.
const (
	Provisioned = stream.Provisioned
	OnDemand    = stream.OnDemand

	Reject     = stream.Reject
	DropOldest = stream.DropOldest
	ThinOut    = stream.ThinOut

	Zstd = commit.CodecZstd
	S2   = commit.CodecS2
	None = commit.CodecNone
	Auto = commit.CodecAuto
)

// Positions, reasons of gaps, and codecs of frames.
const (
	TrimHorizon = shard.TrimHorizon
	Latest      = shard.Latest
	AtIndex     = shard.AtIndex
	AfterIndex  = shard.AfterIndex
	AtTime      = shard.AtTime

	GapRetention = shard.GapRetention
	GapDropped   = shard.GapDropped
	GapThinned   = shard.GapThinned
	GapDamage    = shard.GapDamage

	FrameRaw  = block.Raw
	FrameS2   = block.S2
	FrameZstd = block.Zstd
)

// The tables.
const (
	TableLease         = keyspace.TableLease
	TableCheckpoint    = keyspace.TableCheckpoint
	TableModuleState   = keyspace.TableModuleState
	TableOutbox        = keyspace.TableOutbox
	TableRecipe        = keyspace.TableRecipe
	TableManifest      = keyspace.TableManifest
	TableSetting       = keyspace.TableSetting
	TableModule        = keyspace.TableModule
	TableModuleBytes   = keyspace.TableModuleBytes
	TableDelivery      = keyspace.TableDelivery
	TableConsumer      = keyspace.TableConsumer
	TableLeaseTable    = keyspace.TableLeaseTable
	TableMetric        = keyspace.TableMetric
	TableUpdate        = keyspace.TableUpdate
	TableMQTT          = keyspace.TableMQTT
	TableSubscription  = keyspace.TableSubscription
	TableIdentity      = keyspace.TableIdentity
	TableDeduplication = keyspace.TableDeduplication
	TableThrottle      = keyspace.TableThrottle
	TableAudit         = keyspace.TableAudit
)
