package delivery

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// stats counts what a delivery stream has done.
type stats struct {
	recipes, objects, records         atomic.Int64
	bytes, stored, uplink, duplicates atomic.Int64
	failedRecords, lost, partitions   atomic.Int64
	read                              atomic.Int64 // bytes of record data, from the log, for objects
	ratio                             atomic.Int64 // percent: raw over gathered, of partitions; 0 unknown
	columns                           atomic.Int64 // of the widest Parquet schema met
	sending                           atomic.Int64 // nanoseconds in attempts that succeeded
	mu                                struct {
		sync.Mutex
		retries map[string]int64 // by code
		samples []sample
	}
}

// totals is the durable row of what a delivery stream has done since it was
// created. It is written with each batch that is finished: a kill forgets what
// was counted since the last one.
type totals struct {
	Recipes    int64            `json:"recipes"`
	Objects    int64            `json:"objects"`
	Records    int64            `json:"records"`
	Bytes      int64            `json:"bytes"`
	Stored     int64            `json:"stored"`
	Uplink     int64            `json:"uplink"`
	Read       int64            `json:"read"`
	Duplicates int64            `json:"duplicates,omitempty"`
	Failed     int64            `json:"failed,omitempty"`
	Lost       int64            `json:"lost,omitempty"`
	Sending    int64            `json:"sending"` // nanoseconds
	Retries    map[string]int64 `json:"retries,omitempty"`
}

// add counts a batch that is delivered.
func (t *totals) add(j *job) {
	t.Recipes++
	for i := range j.rows {
		m := &j.rows[i]
		if m.Failed != nil {
			t.Failed += m.Records
		}
		if m.Target == "sink" && m.Failed == nil {
			t.Records += m.Records
			t.Bytes += m.Bytes
		}
		t.Objects++
		t.Stored += m.Stored
		if m.Duplicate {
			t.Duplicates++
		}
	}
}

// totals is what is counted now.
func (s *stats) totals() totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return totals{
		Recipes: s.recipes.Load(), Objects: s.objects.Load(), Records: s.records.Load(), Bytes: s.bytes.Load(), Stored: s.stored.Load(),
		Uplink: s.uplink.Load(), Read: s.read.Load(), Duplicates: s.duplicates.Load(), Failed: s.failedRecords.Load(),
		Lost: s.lost.Load(), Sending: s.sending.Load(), Retries: maps.Clone(s.mu.retries),
	}
}

// merge counts what t has.
func (s *stats) merge(t *totals) {
	s.recipes.Add(t.Recipes)
	s.objects.Add(t.Objects)
	s.records.Add(t.Records)
	s.bytes.Add(t.Bytes)
	s.stored.Add(t.Stored)
	s.uplink.Add(t.Uplink)
	s.read.Add(t.Read)
	s.duplicates.Add(t.Duplicates)
	s.failedRecords.Add(t.Failed)
	s.lost.Add(t.Lost)
	s.sending.Add(t.Sending)
	for code, n := range t.Retries {
		s.retry(code, n)
	}
}

// sample is the lag at a time, for the finish-time estimate.
type sample struct {
	at  time.Time
	lag int64
}

const (
	keptSamples = 64
	sampleEvery = time.Second
	// maxCodes bounds the map of retries: codes come from sinks.
	maxCodes = 64
)

func (s *stats) retry(code string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.retries == nil {
		s.mu.retries = map[string]int64{}
	}
	if _, known := s.mu.retries[code]; !known && len(s.mu.retries) >= maxCodes {
		code = "other"
	}
	s.mu.retries[code] += n
}

func (s *stats) sample(at time.Time, lag int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.mu.samples); n > 0 && s.mu.samples[0].lag <= lag {
		s.mu.samples = s.mu.samples[:0] // it goes down from here, if at all
	} else if n > 0 && at.Sub(s.mu.samples[n-1].at) < sampleEvery {
		return
	}
	if len(s.mu.samples) == keptSamples {
		s.mu.samples = s.mu.samples[:copy(s.mu.samples, s.mu.samples[1:])]
	}
	s.mu.samples = append(s.mu.samples, sample{at, lag})
}

// sampleDue says whether the last sample is old enough for the next.
func (s *stats) sampleDue(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.mu.samples)
	return n == 0 || now.Sub(s.mu.samples[n-1].at) >= sampleEvery
}

// sampleLag keeps how the lag goes down also while nobody asks.
func (w *worker) sampleLag() {
	if now := w.engine.clock.Now(); w.stats.sampleDue(now) {
		var out Stats
		w.lag(&out, now)
		w.stats.sample(now, out.LagBytes)
	}
}

// finish estimates when the lag will be gone at the rate it went down lately;
// zero when it doesn't go down.
func (s *stats) finish(now time.Time, lag int64) time.Time {
	if lag == 0 {
		return now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.samples) == 0 {
		return time.Time{}
	}
	first := s.mu.samples[0]
	passed := now.Sub(first.at).Seconds()
	gone := float64(first.lag - lag)
	if passed <= 0 || gone <= 0 {
		return time.Time{}
	}
	left := float64(lag) / (gone / passed)
	if left > 10*365*86400 {
		return time.Time{}
	}
	return now.Add(time.Duration(left * float64(time.Second))).UTC()
}

// Stats is what a delivery stream has done since it was created, and where it
// stands.
type Stats struct {
	Name          string           `json:"name"`
	LagRecords    uint64           `json:"lag_records"` // put, not delivered
	LagBytes      int64            `json:"lag_bytes"`
	OldestAge     float64          `json:"oldest_age_seconds"`
	Finish        time.Time        `json:"finish,omitzero"` // estimate; absent when the lag grows
	Backlog       uint64           `json:"backlog_records"` // of the lag, what a lane of its own works off
	Pending       int              `json:"pending_recipes"` // sealed, not finished
	Recipes       int64            `json:"recipes"`
	Objects       int64            `json:"objects"`
	Records       int64            `json:"records"`
	Bytes         int64            `json:"bytes"`  // of record data delivered
	Stored        int64            `json:"stored"` // as stored in the sinks
	Uplink        int64            `json:"uplink_bytes"`
	ReadBytes     int64            `json:"read_bytes"`        // of record data, from the log, for the objects
	Duplicates    int64            `json:"duplicate_objects"` // found to be there already
	Failed        int64            `json:"failed_records"`
	Lost          int64            `json:"lost_records"` // taken by retention or damage before delivery
	Partitions    int64            `json:"partitions"`
	Retries       map[string]int64 `json:"retries,omitempty"` // by reason
	Circuit       string           `json:"circuit"`           // closed, open, half-open
	LastError     *circuit         `json:"last_error,omitempty"`
	Waiting       string           `json:"waiting,omitempty"`
	MonthlyBytes  int64            `json:"monthly_bytes,omitempty"`
	BudgetLeft    *int64           `json:"budget_left,omitempty"`
	SendingSecond float64          `json:"sending_seconds"`
}

// Stats reads the counters of one delivery stream. It waits for no commit and no
// sink.
func (e *Engine) Stats(name string) (Stats, error) {
	w, err := e.worker(name)
	if err != nil {
		return Stats{}, err
	}
	return w.snapshot(), nil
}

func (w *worker) snapshot() Stats {
	now := w.engine.clock.Now()
	s := &w.stats
	d := w.definition()
	t := s.totals()
	out := Stats{
		Name: d.Config.Name, Recipes: t.Recipes, Objects: t.Objects, Records: t.Records, Bytes: t.Bytes, Stored: t.Stored,
		Uplink: t.Uplink, ReadBytes: t.Read, Duplicates: t.Duplicates, Failed: t.Failed, Lost: t.Lost, Retries: t.Retries,
		Partitions: s.partitions.Load(), SendingSecond: time.Duration(t.Sending).Seconds(),
	}
	w.lag(&out, now)
	s.sample(now, out.LagBytes)
	out.Finish = s.finish(now, out.LagBytes)
	w.mu.Lock()
	c := w.mu.circuit
	out.Waiting = w.waitsLocked()
	b := w.mu.sent
	w.mu.Unlock()
	out.Circuit = "closed"
	if c.Failures > 0 {
		out.LastError = &c
	}
	if c.open() {
		out.Circuit = "open"
		if !c.Next.After(now) {
			out.Circuit = "half-open"
		}
	}
	if limit := d.Config.Uplink.MonthlyBytes; limit > 0 {
		b.turn(w.engine.calendar().In(d.Config.location()))
		left := max(limit-b.Bytes, 0)
		out.MonthlyBytes, out.BudgetLeft = b.Bytes, &left
	}
	return out
}

// lag adds up what is sealed and what is not.
func (w *worker) lag(out *Stats, now time.Time) {
	oldest := time.Time{}
	pending, cur := w.standing()
	for _, r := range pending {
		out.Pending++
		out.LagRecords += r.Records()
		out.LagBytes += r.Bytes()
		if oldest.IsZero() || r.Oldest.Before(oldest) {
			oldest = r.Oldest
		}
	}
	if !oldest.IsZero() {
		out.OldestAge = max(now.Sub(oldest).Seconds(), 0)
	}
	w.mu.Lock()
	stream := w.mu.stream
	w.mu.Unlock()
	if stream == nil {
		return
	}
	for _, lane := range []map[record.ShardNumber]shardState{cur.Shards, cur.Live} {
		for n, s := range lane {
			if s.Done || s.Until > 0 && s.Next >= s.Until {
				continue
			}
			records, bytes, age := w.shardLag(stream, n, s)
			if s.Until > 0 {
				out.Backlog += records
			}
			out.LagRecords += records
			out.LagBytes += bytes
			out.OldestAge = max(out.OldestAge, age.Seconds())
		}
	}
}

func (w *worker) shardLag(stream *storage.Stream, n record.ShardNumber, s shardState) (records uint64, bytes int64, age time.Duration) {
	r, err := stream.NewReader(n, storage.Position{Kind: storage.AtIndex, Index: s.Next})
	if err != nil {
		return 0, 0, 0
	}
	defer r.Close()
	records, bytes, _ = r.Lag()
	// The block itself knows when it came in; a reader that has read nothing
	// only knows the time of the table that it is in.
	err = r.Frames(1, func(f storage.Frame) bool {
		age = max(w.engine.clock.Now().Sub(f.Arrival), 0)
		return false
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return records, bytes, 0
	}
	if s.Until > 0 && records > 0 {
		// Only what lies before the live lane.
		part := min(s.Until-s.Next, records)
		bytes = int64(float64(bytes) * float64(part) / float64(records))
		records = part
	}
	return records, bytes, age
}

// WriteMetrics writes the metrics of all delivery streams in Prometheus form.
func (e *Engine) WriteMetrics(w io.Writer) {
	for _, worker := range e.all() {
		s := worker.snapshot()
		label := fmt.Sprintf("{delivery=%q}", s.Name)
		for _, m := range []struct {
			name  string
			value float64
		}{
			{"weir_delivery_lag_records", float64(s.LagRecords)},
			{"weir_delivery_lag_bytes", float64(s.LagBytes)},
			{"weir_delivery_backlog_records", float64(s.Backlog)},
			{"weir_delivery_oldest_age_seconds", s.OldestAge},
			{"weir_delivery_pending_recipes", float64(s.Pending)},
			{"weir_delivery_objects_total", float64(s.Objects)},
			{"weir_delivery_records_total", float64(s.Records)},
			{"weir_delivery_bytes_total", float64(s.Bytes)},
			{"weir_delivery_stored_bytes_total", float64(s.Stored)},
			{"weir_delivery_uplink_bytes_total", float64(s.Uplink)},
			{"weir_delivery_read_bytes_total", float64(s.ReadBytes)},
			{"weir_delivery_duplicate_objects_total", float64(s.Duplicates)},
			{"weir_delivery_failed_records_total", float64(s.Failed)},
			{"weir_delivery_lost_records_total", float64(s.Lost)},
			{"weir_delivery_partitions", float64(s.Partitions)},
		} {
			fmt.Fprintf(w, "%s%s %g\n", m.name, label, m.value)
		}
		for code, n := range s.Retries {
			fmt.Fprintf(w, "weir_delivery_retries_total{delivery=%q,reason=%q} %d\n", s.Name, code, n)
		}
		open := 0
		if s.Circuit != "closed" {
			open = 1
		}
		fmt.Fprintf(w, "weir_delivery_circuit_open%s %d\n", label, open)
		if !s.Finish.IsZero() {
			fmt.Fprintf(w, "weir_delivery_finish_timestamp_seconds%s %d\n", label, s.Finish.Unix())
		}
		if s.BudgetLeft != nil {
			fmt.Fprintf(w, "weir_delivery_budget_left_bytes%s %d\n", label, *s.BudgetLeft)
		}
	}
}
