package admin

import (
	"context"
	"runtime"
	"time"

	"github.com/weirhq/weir/storage"
)

// Status is the state of the box.
type Status struct {
	Version  string           `json:"version"`
	Started  time.Time        `json:"started"`
	Now      time.Time        `json:"now"`
	Storage  storage.State    `json:"storage"`
	Recovery storage.Recovery `json:"recovery"`
	Ledger   storage.Ledger   `json:"ledger"`
	Memory   Memory           `json:"memory"`
	Streams  []Stream         `json:"streams"`
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
	}
}

func (s *Service) status(context.Context, *call) (any, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out := &Status{
		Version: s.Version, Started: s.Started, Now: time.Now(),
		Storage: s.Store.State(), Recovery: s.Store.Recovery(), Ledger: s.Store.Ledger(),
		Memory: Memory{Heap: m.HeapAlloc, FromSystem: m.Sys - m.HeapReleased, Goroutines: runtime.NumGoroutine()},
	}
	for _, st := range s.Store.Streams() {
		out.Streams = append(out.Streams, streamOf(st, false))
	}
	return out, nil
}
