package module

import (
	"sync"
	"time"

	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/transform"
)

// Stats are a version's counters since its first batch, restarts of the box included. Batches, Records, Outputs, Dropped and
// Failed are of batches that ended and count each once, though a delivery runs a batch again for
// its failed records; when its sink has failed and the whole attempt is made again, it counts
// again. Fuel, WallSeconds, Aborts and Retries are of all runs.
type Stats struct {
	Since       time.Time               `json:"since,omitzero"` // when counting began
	Batches     uint64                  `json:"batches"`
	Records     uint64                  `json:"records"`
	Outputs     uint64                  `json:"outputs"`
	Dropped     uint64                  `json:"dropped"`
	Failed      uint64                  `json:"failed"`
	Aborts      uint64                  `json:"aborts"` // instances lost to traps, limits and invalid answers
	Retries     uint64                  `json:"retries"`
	Errors      uint64                  `json:"errors"` // batches that could not be run at all
	Fuel        uint64                  `json:"fuel"`
	WallSeconds float64                 `json:"wall_seconds"`
	MemoryBytes int64                   `json:"memory_bytes"` // largest instance seen
	LastError   string                  `json:"last_error,omitempty"`
	Metrics     []guest.Metric          `json:"metrics,omitempty"`
	HTTP        *egress.Stats           `json:"http,omitempty"`
	Shadow      *transform.ShadowReport `json:"shadow,omitempty"`
}

// requests is how many requests were made or denied.
func (s *Stats) requests() uint64 {
	if s.HTTP == nil {
		return 0
	}
	return s.HTTP.Requests + s.HTTP.Denied + s.HTTP.Failed
}

// compared is how much a shadow looked at or passed by.
func (s *Stats) compared() uint64 {
	if s.Shadow == nil {
		return 0
	}
	return s.Shadow.Records + s.Shadow.Skipped + s.Shadow.Errors
}

type counters struct {
	mu sync.Mutex
	s  Stats
}

func (c *counters) add(now time.Time, r *transform.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.s
	if s.Since.IsZero() {
		s.Since = now
	}
	if r.Err == nil && !r.Repeat {
		s.Batches++
		s.Records += uint64(r.Records)
		s.Outputs += uint64(r.Outputs)
		s.Dropped += uint64(r.Dropped)
		s.Failed += uint64(r.Failed)
	}
	s.Aborts += uint64(r.Aborts)
	s.Retries += uint64(r.Retries)
	s.Fuel += r.Fuel
	s.WallSeconds += r.Wall.Seconds()
	s.MemoryBytes = max(s.MemoryBytes, r.MemoryBytes)
	if r.Err != nil {
		s.Errors++
		s.LastError = r.Err.Error()
	} else if r.Poison != "" {
		s.LastError = r.Poison
	}
}

func (c *counters) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s = Stats{}
}

func (c *counters) restore(s Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s = s
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

// logLines is how many log lines are kept for each version; a line is at most
// 1 KiB, so a log takes at most half a megabyte.
const logLines = 500

// Log keeps the last lines of a version. The zero value is empty and ready;
// it is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	lines []LogLine // ring
	next  int
	added uint64 // lines so far
	bad   uint64 // of them, errors
}

// LogLine is one line of a module's log.
type LogLine struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

var levels = map[host.Level]string{host.LevelDebug: "debug", host.LevelInfo: "info", host.LevelWarn: "warn", host.LevelError: "error"}

func (l *Log) add(at time.Time, level host.Level, text []byte) {
	line := LogLine{Time: at, Level: levels[level], Text: string(text)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.added++
	if level == host.LevelError {
		l.bad++
	}
	if len(l.lines) < logLines {
		l.lines = append(l.lines, line)
		return
	}
	l.lines[l.next] = line
	l.next = (l.next + 1) % logLines
}

func (l *Log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines, l.next = nil, 0
}

func (l *Log) restore(lines []LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines, l.next = lines[max(0, len(lines)-logLines):], 0
}

// tail returns the last lines whose texts have at most n bytes, oldest first, and how
// many lines there have been and how many of them were errors.
func (l *Log) tail(n int) (lines []LogLine, added, bad uint64) {
	lines = l.Lines()
	from := len(lines)
	const around = 64 // time, level and punctuation in a row
	for from > 0 && n >= len(lines[from-1].Text)+around {
		from--
		n -= len(lines[from].Text) + around
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return lines[from:], l.added, l.bad
}

// Lines returns a copy of the lines kept, oldest first.
func (l *Log) Lines() []LogLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(append([]LogLine{}, l.lines[l.next:]...), l.lines[:l.next]...)
}
