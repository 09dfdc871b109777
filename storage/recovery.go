package storage

import (
	"time"

	"github.com/weirhq/weir/storage/record"
)

// Recovery is what an open found and did. Everything in it was also logged.
type Recovery struct {
	// Clean says that the last process closed the store in good order.
	Clean bool `json:"clean"`
	// Session numbers this open.
	Session uint32 `json:"session"`
	// Took is how long the open lasted.
	Took time.Duration `json:"took_ns"`
	// Jumps are the ranges of indexes passed over because the last process
	// may have used them.
	Jumps []ShardRange `json:"jumps,omitempty"`
	// Damaged are ranges of records that are known to be lost or unreadable.
	Damaged []ShardRange `json:"damaged,omitempty"`
	// SetAside are the files that could not be read and were kept aside.
	SetAside []SetAside `json:"set_aside,omitempty"`
	// Orphans are records whose stream's row is lost; an open with Options.Adopt makes
	// a stream for each of their shards, and says so in Adopted.
	Orphans []ShardRange `json:"orphans,omitempty"`
	Adopted []ShardRange `json:"adopted,omitempty"`
	// Finished are splits and merges that the last process began and this open ended.
	Finished []ShardRange `json:"finished,omitempty"`
}

// ShardRange is a range of indexes of a shard.
type ShardRange struct {
	Stream string             `json:"stream"`
	Shard  record.ShardNumber `json:"shard"`
	First  uint64             `json:"first"`
	Last   uint64             `json:"last"`
	Reason string             `json:"reason"`
}

// SetAside is a file that recovery kept but does not use.
type SetAside struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

// Recovery returns what the open found and did.
func (s *Store) Recovery() Recovery { return s.recovery }

func (s *Store) logRecovery(f *found) {
	r := &s.recovery
	s.log.Info("store opened", "clean", r.Clean, "session", r.Session, "streams", len(f.streams), "took", r.Took)
	for _, b := range f.bad {
		s.log.Warn("row set aside", "row", b)
	}
	for _, d := range r.Damaged {
		s.log.Warn("records lost or unreadable", "stream", d.Stream, "shard", d.Shard.String(), "first", d.First, "last", d.Last, "reason", d.Reason)
	}
	for _, d := range r.Orphans {
		s.log.Warn("records have no stream: its row is lost; they are kept until repair adopts them", "as", d.Stream, "first", d.First, "last", d.Last)
	}
	for _, d := range r.Adopted {
		s.log.Warn("records without a stream have one again", "stream", d.Stream, "first", d.First, "last", d.Last)
	}
	for _, a := range r.SetAside {
		s.log.Warn("file set aside", "path", a.Path, "bytes", a.Bytes, "reason", a.Reason)
	}
}
