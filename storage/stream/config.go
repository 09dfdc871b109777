package stream

import (
	"fmt"
	"time"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// Mode says who manages the shards.
type Mode uint8

// The modes.
const (
	// Provisioned streams have the shards they were given.
	Provisioned Mode = iota
	// OnDemand streams have their shards managed by the service.
	OnDemand
)

// Policy says what happens when the disk is full, or over the limit for the
// whole box.
type Policy uint8

// The policies.
const (
	// Reject refuses new records.
	Reject Policy = iota
	// DropOldest drops the oldest records, counted and reported.
	DropOldest
	// ThinOut keeps one block in two of the oldest records, then one in four,
	// and so on, counted and reported.
	ThinOut
)

// Codec is how a stream's blocks are compressed.
type Codec = commit.Codec

// Limits and defaults of a stream.
const (
	DefaultRetention = 24 * time.Hour
	MinRetention     = time.Hour
	MaxRetention     = 365 * 24 * time.Hour
	MaxShards        = 10_000
	// MaxNameBytes is what Kinesis' API has for the name of a stream. A system stream's
	// may be twice that: it is made of the name of what it belongs to.
	MaxNameBytes = 128
	// DefaultMaxRecordBytes is what Kinesis accepts unless told otherwise.
	DefaultMaxRecordBytes = 1 << 20
)

// Config is what a stream is created with. Shards counts those it begins
// with; zero values mean one shard, provisioned, 24 h, no limit in bytes,
// reject, zstd and 1 MiB.
type Config struct {
	// Name is unique in the store: 1 to 128 of letters, digits, "_", "." and
	// "-"; a system stream may use "/" too, and 256.
	Name   string
	Shards int
	Mode   Mode
	// Retention is how long records are kept, 1 h to 365 d.
	Retention time.Duration
	// RetentionBytes bounds the stream's stored blocks, 0 for no limit. What
	// is over goes oldest first, epoch by epoch.
	RetentionBytes int64
	WhenFull       Policy
	Codec          Codec
	// MaxRecordBytes bounds a record's data, up to 10 MiB.
	MaxRecordBytes int
	// System hides the stream from listings of the outside interfaces.
	System bool
}

// Complete fills in defaults and checks the rest. ErrInvalid names the field.
func (c Config) Complete() (Config, error) {
	if c.Shards == 0 {
		c.Shards = 1
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.MaxRecordBytes == 0 {
		c.MaxRecordBytes = DefaultMaxRecordBytes
	}
	bad := func(field string, value any, want string) (Config, error) {
		return c, fmt.Errorf("stream %.300q: %s %v: want %s: %w", c.Name, field, value, want, ErrInvalid)
	}
	switch {
	case !validName(c.Name, c.System):
		return bad("name of", fmt.Sprint(len(c.Name), " bytes"), fmt.Sprint("1 to ", MaxNameBytes, " of letters, digits, _ . -"))
	case c.Shards < 1 || c.Shards > MaxShards:
		return bad("shards", c.Shards, fmt.Sprint("1 to ", MaxShards))
	case c.Mode > OnDemand:
		return bad("mode", c.Mode, "provisioned or on-demand")
	case c.Retention < MinRetention || c.Retention > MaxRetention:
		return bad("retention", c.Retention, "1h to 8760h")
	case c.RetentionBytes < 0:
		return bad("retention bytes", c.RetentionBytes, "0 or more")
	case c.WhenFull > ThinOut:
		return bad("policy", c.WhenFull, "reject, drop oldest or thin out")
	case c.Codec > commit.CodecAuto:
		return bad("codec", c.Codec, "zstd, s2, none or auto")
	case c.MaxRecordBytes < 1 || c.MaxRecordBytes > record.MaxDataBytes:
		return bad("max record bytes", c.MaxRecordBytes, fmt.Sprint("1 to ", record.MaxDataBytes))
	}
	return c, nil
}

func validName(s string, system bool) bool {
	most := MaxNameBytes
	if system {
		most *= 2
	}
	if len(s) == 0 || len(s) > most {
		return false
	}
	for _, r := range []byte(s) {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-' || (system && r == '/')
		if !ok {
			return false
		}
	}
	return true
}

// row returns the stream's row with this configuration.
func (c Config) row(r keyspace.StreamRow) keyspace.StreamRow {
	r.Name, r.Mode, r.RetentionMS, r.RetentionBytes = c.Name, uint8(c.Mode), c.Retention.Milliseconds(), c.RetentionBytes
	r.WhenFull, r.Codec, r.MaxRecordBytes, r.System = uint8(c.WhenFull), uint8(c.Codec), c.MaxRecordBytes, c.System
	return r
}

// ConfigOf returns the configuration in a row; Shards is left 0.
func ConfigOf(r keyspace.StreamRow) Config {
	return Config{
		Name: r.Name, Mode: Mode(r.Mode), Retention: time.Duration(r.RetentionMS) * time.Millisecond,
		RetentionBytes: r.RetentionBytes, WhenFull: Policy(r.WhenFull), Codec: Codec(r.Codec),
		MaxRecordBytes: r.MaxRecordBytes, System: r.System,
	}
}

// Lanes: four by retention, and the rest for streams whose records must be able to go
// before those of others: by a limit in bytes, or when the disk is full.
const (
	firstOwnLane = 4
	ownLanes     = keyspace.Lanes - firstOwnLane
)

// laneFor chooses the lane of a stream.
func laneFor(id uint32, c Config) uint8 {
	switch {
	case c.RetentionBytes > 0 || c.WhenFull != Reject:
		return uint8(firstOwnLane + id%ownLanes)
	case c.Retention <= 6*time.Hour:
		return 0
	case c.Retention <= 24*time.Hour:
		return 1
	case c.Retention <= 7*24*time.Hour:
		return 2
	}
	return 3
}
