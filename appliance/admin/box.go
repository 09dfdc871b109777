package admin

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/module"
)

// Status is the state of the box.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Now      time.Time `json:"now"`
	Manager  string    `json:"manager"` // the service manager that watches it, empty for none
	Storage  State     `json:"storage"`
	Recovery Recovery  `json:"recovery"`
	Wear     Wear      `json:"wear"`
	Memory   Memory    `json:"memory"`
	Streams  []Stream  `json:"streams"`

	Modules    []module.Info    `json:"modules"`
	Deliveries []delivery.Stats `json:"deliveries"`
}

// State is whether the log takes writes, and the room on its disk.
type State struct {
	Writable   bool   `json:"writable"`
	Reason     string `json:"reason,omitempty"` // why not
	DiskFull   bool   `json:"disk_full"`
	FreeBytes  int64  `json:"free_bytes"`
	TotalBytes int64  `json:"total_bytes"`
	ClockHeld  bool   `json:"clock_held"` // stamps don't follow the clock of the machine
}

// Recovery is what the log's last start found.
type Recovery struct {
	Clean    bool     `json:"clean"` // the process before closed it in good order
	Jumps    []string `json:"jumps,omitempty"`
	Damaged  []string `json:"damaged,omitempty"`
	SetAside []string `json:"set_aside,omitempty"`
}

// Wear is what was written to flash. Ratios are bytes written per byte taken
// in, of keys and data.
type Wear struct {
	IngestedBytes   uint64  `json:"ingested_bytes"` // on the days kept
	WrittenBytes    uint64  `json:"written_bytes"`
	CompactionBytes uint64  `json:"compaction_bytes"`
	Ratio           float64 `json:"ratio"`
	RatioToday      float64 `json:"ratio_today"`
	PerDayBytes     uint64  `json:"per_day_bytes"` // mean of the last days
	DaysLeft        int     `json:"days_left"`     // at that pace; -1 without storage.endurance_bytes
}

// Memory is what the process holds, in bytes.
type Memory struct {
	Heap       uint64 `json:"heap_bytes"`
	FromSystem uint64 `json:"from_system_bytes"`
	Goroutines int    `json:"goroutines"`
}

// Reloaded is the outcome of a reload.
type Reloaded struct {
	File        string   `json:"file"`         // read, empty for none
	NeedRestart []string `json:"need_restart"` // paths that differ and wait for a restart
}

func (s *Service) boxRoutes() []route {
	return []route{
		{"GET", "status", "GetStatus", s.status},
		{"POST", "reload", "Reload", func(ctx context.Context, _ *call) (any, error) {
			r, err := s.Reload(ctx)
			if err != nil {
				return nil, &Error{Status: 400, Code: "ConfigurationRefused", Message: err.Error()}
			}
			return r, nil
		}},
		{"GET", "clock", "GetClock", func(context.Context, *call) (any, error) { return s.clock(), nil }},
		{"POST", "clock/confirm", "ConfirmClock", func(context.Context, *call) (any, error) {
			s.Store.ConfirmTime(time.Now())
			return s.clock(), nil
		}},
	}
}

// Clock is the clock of the machine, and whether stamps follow it.
type Clock struct {
	Machine time.Time `json:"machine"`
	Held    bool      `json:"held"` // stamps go on from the last known time until it is confirmed
}

func (s *Service) clock() *Clock {
	return &Clock{Machine: time.Now(), Held: s.Store.State().ClockHeld}
}

func (s *Service) status(_ context.Context, c *call) (any, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	state := s.Store.State()
	out := &Status{
		Version: s.Version, Started: s.Started, Now: time.Now(), Manager: s.Manager,
		Storage:  State{Writable: state.Writable, Reason: state.Reason, DiskFull: state.DiskFull, FreeBytes: state.BytesFree, TotalBytes: state.BytesTotal, ClockHeld: state.ClockHeld},
		Recovery: recoveryOf(s.Store.Recovery()), Wear: wearOf(s.Store.Ledger()),
		Memory:  Memory{Heap: m.HeapAlloc, FromSystem: m.Sys - m.HeapReleased, Goroutines: runtime.NumGoroutine()},
		Streams: []Stream{},
	}
	out.Modules = append([]module.Info{}, s.Modules.List()...)
	out.Deliveries = []delivery.Stats{}
	for _, d := range s.Deliveries.List() {
		out.Deliveries = append(out.Deliveries, d.Stats)
	}
	for _, st := range s.Store.Streams() {
		if !st.Config().System || c.query.Get("system") == "true" {
			out.Streams = append(out.Streams, streamOf(st, false))
		}
	}
	return out, nil
}

func recoveryOf(r storage.Recovery) Recovery {
	out := Recovery{Clean: r.Clean}
	for _, j := range r.Jumps {
		out.Jumps = append(out.Jumps, rangeText(j))
	}
	for _, d := range r.Damaged {
		out.Damaged = append(out.Damaged, rangeText(d))
	}
	for _, f := range r.SetAside {
		out.SetAside = append(out.SetAside, fmt.Sprintf("%s: %d bytes: %s", f.Path, f.Bytes, f.Reason))
	}
	return out
}

func rangeText(r storage.ShardRange) string {
	return fmt.Sprintf("%s %s %d to %d: %s", r.Stream, r.Shard, r.First, r.Last, r.Reason)
}

func wearOf(l storage.Ledger) Wear {
	out := Wear{
		WrittenBytes: l.Total.BytesWritten, IngestedBytes: l.Total.BytesIngested, CompactionBytes: l.Total.BytesCompaction,
		PerDayBytes: l.BytesPerDay, DaysLeft: l.DaysLeft,
	}
	out.Ratio = ratio(out.WrittenBytes, out.IngestedBytes)
	if n := len(l.Days); n > 0 {
		out.RatioToday = ratio(l.Days[n-1].BytesWritten, l.Days[n-1].BytesIngested)
	}
	return out
}

func ratio(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
